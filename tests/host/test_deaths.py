"""Real processes whose ends are told by pidfds."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host import deaths
from agent.host.census import Identity, read_table
from agent.host.deaths import Deaths


def identify(process: subprocess.Popen[bytes]) -> Identity:
    return read_table().tasks[process.pid].identity


def count_own() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


class Ear:
    """Hears names, and can wait for the next."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._came = asyncio.Event()

    def __call__(self, name: str) -> None:
        self.heard.append(name)
        self._came.set()

    async def wait(self, count: int = 1) -> list[str]:
        async with asyncio.timeout(60):
            while len(self.heard) < count:
                self._came.clear()
                await self._came.wait()
        return self.heard


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes = [subprocess.Popen(["/bin/sleep", "1000"]) for _ in range(3)]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def followed() -> Iterator[Deaths]:
    made = Deaths()
    yield made
    assert made.followed == {}


async def test_an_end_is_told_to_every_name_that_follows_it(
    followed: Deaths, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    ear, buried = Ear(), []
    followed.bury = buried.append
    first, second, _ = (identify(each) for each in sleepers)
    followed.watch(["a", "b", "c"], ear)
    followed.follow("a", [first, second])
    followed.follow("b", [first])
    followed.follow("c", [second])
    sleepers[0].kill()
    assert await ear.wait(2) == ["a", "b"]
    assert buried == [first]
    assert followed.followed == {second: {"a", "c"}}
    followed.close()


async def test_a_zombie_has_ended(
    followed: Deaths, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    ear = Ear()
    followed.watch(["a"], ear)
    followed.follow("a", [identify(sleepers[0])])
    sleepers[0].kill()
    await ear.wait()
    state = read_table().tasks[sleepers[0].pid].state
    assert state == "Z", "nobody has waited for it"
    followed.close()


async def test_what_ended_before_it_is_followed_is_told_too(
    followed: Deaths, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    ear, identity = Ear(), identify(sleepers[0])
    sleepers[0].kill()
    sleepers[0].wait()
    followed.watch(["a"], ear)
    followed.follow("a", [identity])
    assert ear.heard == [], "it is told while the look is still under way"
    assert await ear.wait() == ["a"]


async def test_a_number_that_is_used_again_fools_nobody(
    followed: Deaths, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    ear = Ear()
    pid, started = identify(sleepers[0])
    followed.watch(["a"], ear)
    # As if the one that was seen had ended, and another process got its number.
    followed.follow("a", [(pid, started - 1)])
    assert await ear.wait() == ["a"]
    assert followed.followed == {}


async def test_what_is_no_longer_followed_or_watched_is_not_told(
    followed: Deaths, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    ear = Ear()
    first, second, third = (identify(each) for each in sleepers)
    followed.watch(["a", "b", "end"], ear)
    followed.follow("a", [first])
    followed.follow("a", [second])
    followed.follow("b", [first])
    followed.follow("end", [third])
    followed.watch(["a", "end"], ear)
    assert followed.followed == {second: {"a"}, third: {"end"}}
    for process in sleepers:
        process.kill()
    assert sorted(await ear.wait(2)) == ["a", "end"]


async def test_nobody_is_followed_for_names_that_nobody_watches(
    followed: Deaths, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    followed.follow("a", [identify(sleepers[0])])
    assert followed.followed == {}


async def test_descriptors_are_bounded_and_given_back(
    followed: Deaths, sleepers: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = count_own()
    monkeypatch.setattr(deaths, "MOST", 2)
    followed.watch(["a"], Ear())
    followed.follow("a", [identify(each) for each in sleepers])
    assert len(followed.followed) == 2
    assert count_own() == before + 2
    monkeypatch.setattr(deaths, "MOST_OF_ONE", 1)
    followed.follow("a", [identify(each) for each in sleepers])
    assert len(followed.followed) == 1
    followed.close()
    assert count_own() == before


async def test_without_descriptors_the_timer_goes_on_and_it_is_said(
    followed: Deaths, sleepers: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_pid: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    followed.watch(["a"], Ear())
    followed.follow("a", [identify(sleepers[0])])
    assert followed.trouble == "cannot follow processes: Too many open files"
    assert followed.followed == {}
    monkeypatch.undo()
    followed.follow("a", [identify(sleepers[0])])
    assert followed.trouble == ""
    followed.close()
