"""What a guard needs is on the disk as a whole, or not at all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.drills.place import Place, Record, read_progress, write_progress
from agent.errors import StoreError
from agent.remedies.catalog import SHIPPED, Catalog

FAULT = Catalog.load([SHIPPED / "faults"]).get("kill-service")
RECORD = Record(
    id="d1",
    fault="kill-service",
    digest=FAULT.digest,
    options={"unit": "nginx.service"},
    timeout=60.0,
    lasts=120.0,
    boot="b",
    until=1.0,
)


def test_a_drill_is_there_with_its_fault_until_it_is_cleared(tmp_path: Path) -> None:
    place = Place(tmp_path / "drill")
    assert place.read() is None
    place.prepare(RECORD, FAULT.path)
    assert place.read() == RECORD
    copy = Catalog.load([place.faults]).get("kill-service")
    assert copy.digest == FAULT.digest
    assert place.mark_begun(RECORD).begun
    again = Place(place.path).read()
    assert again is not None
    assert again.begun
    place.clear()
    assert not place.taken
    assert place.read() is None


def test_what_cannot_be_put_down_whole_is_not_there(tmp_path: Path) -> None:
    place = Place(tmp_path / "drill")
    with pytest.raises(StoreError, match="cannot put the drill down"):
        place.prepare(RECORD, tmp_path / "no-such-fault")
    assert not place.path.exists()


def test_a_record_that_cannot_be_read_is_no_reason_to_forget_it(tmp_path: Path) -> None:
    place = Place(tmp_path / "drill")
    place.prepare(RECORD, FAULT.path)
    (place.path / "record.json").write_text("{")
    with pytest.raises(StoreError, match="cannot read the drill"):
        place.read()
    assert place.taken


def test_progress_is_the_last_word(tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None
    write_progress(tmp_path, "d1", "injecting")
    write_progress(tmp_path, "d1", "injected", "it is there", at=7.0)
    told = read_progress(tmp_path)
    assert told is not None
    assert (told.id, told.stage, told.at, told.detail) == ("d1", "injected", 7.0, "it is there")


def test_every_shipped_fault_can_be_undone() -> None:
    catalog = Catalog.load([SHIPPED / "faults"])
    assert catalog.problems == ()
    for fault in catalog.remedies.values():
        # A fault that was refused must not start a service that nobody wanted.
        for name in ("playbook.yml", "undo.yml"):
            assert "{{ keep }}/begun" in (fault.path / name).read_text(), fault.name
        assert fault.options["keep"].required
        assert fault.handles


def test_the_documentation_lists_each_fault_with_its_options() -> None:
    text = (Path(__file__).parents[2] / "docs" / "drills.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*?) \|", text, flags=re.MULTILINE)
    told = {name: set(re.findall(r"`(\[?\w+\]?)`", options)) for name, options in rows}
    assert told == {
        fault.name: {
            name if option.required else f"[{name}]"
            for name, option in fault.options.items()
            if name != "keep"
        }
        for fault in Catalog.load([SHIPPED / "faults"]).remedies.values()
    }
