"""What the kernel says of its clock, beside what systemd makes of the same."""

from __future__ import annotations

import ctypes
import time

import pytest

from agent.errors import Unavailable
from agent.host import timesync
from agent.host.systemd import Systemd
from agent.host.timesync import UNSYNCED, Discipline, find_daemon, read_discipline


def test_the_kernel_says_how_its_clock_is_steered() -> None:
    told = read_discipline()
    assert told.error >= 0
    assert abs(told.drift_ppm) <= 500 * 1000
    assert told.synchronised == (told.error < UNSYNCED)


def test_asking_changes_nothing() -> None:
    first = read_discipline()
    before = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    for _ in range(50):
        read_discipline()
    after = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    assert abs(after - before) < 0.5
    assert read_discipline().drift_ppm == pytest.approx(first.drift_ppm, abs=50)


def test_the_struct_has_room_for_what_the_kernel_writes() -> None:
    # uapi/linux/timex.h: 208 bytes where a long has 8.
    assert ctypes.sizeof(timesync._Timex) >= 208


def test_a_kernel_that_refuses_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def adjtimex(self, _told: object) -> int:
            ctypes.set_errno(1)
            return -1

    monkeypatch.setattr(timesync, "_libc", Refusing)
    with pytest.raises(Unavailable, match="Operation not permitted"):
        read_discipline()
    monkeypatch.setattr(timesync, "_libc", object)
    with pytest.raises(Unavailable, match="there is no adjtimex"):
        read_discipline()


def test_sixteen_seconds_is_not_synchronised() -> None:
    told = Discipline(error=15.9, offset=0, drift_ppm=0)
    assert told.synchronised
    assert not Discipline(error=16.0, offset=0, drift_ppm=0).synchronised


async def test_without_systemd_nobody_is_seen_to_keep_the_clock() -> None:
    assert await find_daemon(None) == ""

    class Away(Systemd):
        def __init__(self) -> None:
            pass

        async def units(self, names: object) -> tuple[()]:
            raise Unavailable("cannot ask systemd: no")

    assert await find_daemon(Away()) == ""
