"""What must survive is kept with no byte and no inode left. Real filesystems, so it needs root."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core.model import Decision, Evidence, Finding, Host, Incident, State, Status, Transition
from agent.errors import StoreError
from agent.store.history import History
from agent.store.state import KEPT, Listing
from agent.store.state import State as Store

pytestmark = pytest.mark.lab


def sh(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture(params=["ext4", "tmpfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small filesystem of its own, in memory: durable writes are what it is for."""
    point, memory = tmp_path / "disk", tmp_path / "memory"
    point.mkdir()
    memory.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(memory))
    try:
        if request.param == "tmpfs":
            sh("mount", "-t", "tmpfs", "-o", "size=24m,nr_inodes=200", "tmpfs", str(point))
        else:
            image = memory / "image"
            with image.open("wb") as file:
                file.truncate(24 * 2**20)
            sh("mkfs.ext4", "-q", "-F", "-N", "256", str(image))
            sh("mount", "-o", "loop", str(image), str(point))
        yield point
        sh("umount", "--lazy", str(point))
    finally:
        sh("umount", "--lazy", str(memory))


def fill_bytes(disk: Path) -> None:
    """Until root itself has not one byte left."""
    fd = os.open(disk / "fill", os.O_WRONLY | os.O_CREAT)
    try:
        for size in (2**20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(fd, bytes(size))
        with pytest.raises(OSError) as full:
            os.write(fd, bytes(4096))
        assert full.value.errno == errno.ENOSPC
    finally:
        os.close(fd)


def fill_inodes(disk: Path) -> None:
    with contextlib.suppress(OSError):
        for number in range(100_000):
            (disk / f"file{number}").touch()
    with pytest.raises(OSError) as full:
        (disk / "one more").touch()
    assert full.value.errno == errno.ENOSPC


def incident(number: int, state: State = State.OPEN) -> Incident:
    """As large as one with much to say."""
    finding = Finding(
        subject="/var", status=Status.CRITICAL, cause="full", summary=f"{number} " + "x" * 2000
    )
    return Incident(
        id=f"i{number}",
        check="disk",
        subject="/var",
        state=state,
        finding=finding,
        looked=1.0,
        before=finding,
        began=1.0,
        opened=1.0,
        entered=1.0,
        seen=1.0,
        look_ended=1.0,
    )


def open_one(store: Store, number: int) -> None:
    old = store.load_host()
    new = Host(incidents=(incident(number),), serial=number)
    step = Transition(incident=f"i{number}", at=1.0, old=None, new=State.OPEN, why="it is full")
    ended = tuple(incident(int(i.id[1:]), State.RESOLVED) for i in old.incidents)
    assert store.save(old, Decision(host=new, transitions=(step,), ended=ended))


@pytest.mark.parametrize("fill", [fill_bytes, fill_inodes])
def test_hundreds_of_incidents_are_kept_with_nothing_left(
    disk: Path, fill: Callable[[Path], None]
) -> None:
    store = Store(disk / "state.db")
    assert store.keep_reserve()
    fill(disk)
    for number in range(1, 61):
        open_one(store, number)
    store.close()
    again = Store(disk / "state.db")
    kept = again.list_incidents(Listing(limit=KEPT))
    assert len(kept) == 60
    assert again.list_transitions("i60")[0].why == "it is full"
    open_one(again, 61)
    again.close()


def test_the_room_kept_in_advance_is_kept_up_when_it_is_used(disk: Path) -> None:
    store = Store(disk / "state.db")
    old = store.load_host()
    # As much as is ever kept: more than was set aside at first.
    ended = tuple(incident(number, State.RESOLVED) for number in range(1, KEPT + 1))
    for _ in range(3):
        ended = tuple(replace(i, id=f"i{int(i.id[1:]) + KEPT}", why="y" * 5000) for i in ended)
        store.save(old, Decision(host=old, ended=ended))
    assert store.keep_reserve()
    fill_bytes(disk)
    for number in range(5 * KEPT, 5 * KEPT + 50):
        open_one(store, number)
    assert store.find_incident(f"i{5 * KEPT + 49}") is not None
    store.close()


def test_an_agent_that_starts_with_too_little_room_goes_on_and_keeps_room_later(
    disk: Path,
) -> None:
    fill_bytes(disk)
    with pytest.raises(StoreError, match="cannot"):
        Store(disk / "state.db")
    os.truncate(disk / "fill", (disk / "fill").stat().st_size - 2 * 2**20)
    store = Store(disk / "state.db")
    assert not store.keep_reserve()
    open_one(store, 1)
    store.close()
    (disk / "fill").unlink()
    store = Store(disk / "state.db")
    assert store.keep_reserve()
    fill_bytes(disk)
    for number in range(2, 60):
        open_one(store, number)
    store.close()


@pytest.mark.parametrize("fill", [fill_bytes, fill_inodes])
def test_history_goes_on_in_memory_loudly_and_what_it_has_can_be_read(
    disk: Path, fill: Callable[[Path], None]
) -> None:
    history = History(disk / "history.db")
    item = Evidence(title="Log", text="z" * 16_000)
    history.add_evidence("i1", "before", 1.0, (item,))
    fill(disk)
    more = tuple(replace(item, title=str(number)) for number in range(100))
    history.add_evidence("i2", "before", 2.0, more)
    assert [kept.evidence for kept in history.list_evidence("i1")] == [item]
    assert {kept.evidence for kept in history.list_evidence("i2")} == set(more)
    if fill is fill_bytes:
        assert "evidence is kept in memory only" in history.trouble
    history.close()


@pytest.mark.parametrize("fill", [fill_bytes, fill_inodes])
def test_a_history_that_cannot_even_be_begun_is_one_in_memory(
    disk: Path, fill: Callable[[Path], None]
) -> None:
    fill(disk)
    history = History(disk / "history.db")
    item = Evidence(title="Log", text="z")
    history.add_evidence("i1", "before", 1.0, (item,))
    assert [kept.evidence for kept in history.list_evidence("i1")] == [item]
    assert "evidence is kept in memory only" in history.trouble
    history.close()
