"""A host's word that it may be harmed: for this machine, for a while, and from root alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.drills.marker import LONGEST, remove_marker, require_marker, write_marker
from agent.errors import Conflict
from agent.host.identity import Identity

HERE = Identity(machine="a" * 16, hardware="dmi:b")
NOW = 1000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "etc" / "drills-allowed.json"
    write_marker(place, HERE, now=NOW, seconds=60, by="root")
    return place


def why(path: Path, identity: Identity = HERE, now: float = NOW) -> str:
    with pytest.raises(Conflict) as refused:
        require_marker(path, identity, now)
    return str(refused.value)


def test_it_holds_here_and_until_its_end(path: Path) -> None:
    assert require_marker(path, HERE, NOW + 59).by == "root"
    assert "is over" in why(path, now=NOW + 60)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_copy_of_the_host_allows_nothing(path: Path) -> None:
    assert "on another machine;" in why(path, Identity(machine="c" * 16, hardware="dmi:b"))
    kept = Identity(machine=HERE.machine, hardware="dmi:c")
    assert "with the same /etc/machine-id" in why(path, kept)


def test_it_cannot_be_written_for_ever(path: Path) -> None:
    write_marker(path, HERE, now=NOW, seconds=LONGEST + 1, by="root")
    assert "lasts longer than" in why(path)
    assert require_marker(path, HERE, NOW + 2)


def test_what_others_may_write_or_lead_elsewhere_is_not_believed(path: Path) -> None:
    path.chmod(0o620)
    assert "others may write" in why(path)
    path.chmod(0o600)
    path.rename(path.with_name("real"))
    path.symlink_to("real")
    assert why(path)
    path.unlink()
    os.mkfifo(path)
    assert "no file of root's" in why(path)


def test_what_is_forbidden_or_was_never_allowed_is_told_with_the_way(path: Path) -> None:
    assert remove_marker(path) is True
    assert remove_marker(path) is False
    assert "hostmend drill allow" in why(path)
    path.write_text("{}")
    assert "is not what" in why(path)
