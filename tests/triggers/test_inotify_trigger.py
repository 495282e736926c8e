"""Changes of real files as "look now"."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agent.host.mounts import parse_mountinfo
from agent.host.space import Patience
from agent.triggers import plan
from agent.triggers.inotify import InotifyTrigger
from agent.triggers.plan import is_of, make_plan

#: Against hanging only.
PATIENCE = 30.0
PACE = 0.1


class Watched:
    """A trigger, and the looks that it asked for."""

    def __init__(self) -> None:
        self.looks: list[str] = []
        self.on_look: Callable[[], None] = lambda: None
        self.trigger = InotifyTrigger(Patience(), self._look, pace=PACE)

    def _look(self, check: str) -> None:
        self.looks.append(check)
        self.on_look()

    async def watch(self, **paths: Path | str) -> None:
        """Checks by name, each with the path that it is about."""
        mapping: dict[str, set[str]] = {}
        for check, path in paths.items():
            mapping.setdefault(str(path), set()).add(check)
        await self.trigger.watch({path: frozenset(checks) for path, checks in mapping.items()})

    async def hear(self, change: Callable[[], object], check: str = "log") -> None:
        """A change that asks for a look, and then quiet."""
        self.looks.clear()
        change()
        await self.until(lambda: check in self.looks)
        await self.settle()

    async def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"not within {PATIENCE} s; looks: {self.looks}"
            await asyncio.sleep(0.01)

    async def settle(self) -> None:
        """Until every watch is set again: what happens from now on is new."""
        trigger = self.trigger

        def is_settled() -> bool:
            now = asyncio.get_running_loop().time()
            due = [timer for timer in trigger._timers.values() if timer.when() >= now - 0.05]
            return not (due or trigger._resting or trigger._tasks or trigger._bursts._quiet)

        await self.until(is_settled)


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    made = Watched()
    yield made
    made.trigger.close()


def append(path: Path, text: str = "line\n") -> None:
    with path.open("a") as file:
        file.write(text)


async def test_a_change_asks_for_a_look_again_and_again(watched: Watched, tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log)
    await watched.watch(log=log, other=tmp_path / "other.log")
    for _ in range(3):
        await watched.hear(lambda: append(log))
    assert "other" not in watched.looks
    await watched.hear(lambda: log.chmod(0o600))


async def test_every_check_of_a_file_is_asked_for(watched: Watched, tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log)
    await watched.watch(log=log, same=log, many=f"{tmp_path}/*.log")
    await watched.hear(lambda: append(log), "same")
    assert {"log", "same", "many"} <= set(watched.looks)


async def test_a_busy_log_asks_for_one_look_in_its_pace_and_the_last_change_is_looked_at(
    watched: Watched, tmp_path: Path
) -> None:
    log = tmp_path / "app.log"
    append(log)
    await watched.watch(log=log)
    end = threading.Event()
    written = 0
    sizes: list[int] = []
    watched.on_look = lambda: sizes.append(log.stat().st_size)

    def write() -> None:
        nonlocal written
        with log.open("a", buffering=1) as file:
            while not end.is_set():
                file.write(f"{written}\n")
                written += 1

    writer = threading.Thread(target=write)
    began = time.monotonic()
    writer.start()
    await watched.until(lambda: written >= 50_000 and len(watched.looks) > 5)
    end.set()
    writer.join()
    lasted = time.monotonic() - began
    assert len(watched.looks) <= lasted / PACE + 2
    await watched.until(lambda: sizes[-1] == log.stat().st_size)


async def test_a_log_that_is_rotated_is_looked_at_and_the_new_one_is_watched(
    watched: Watched, tmp_path: Path
) -> None:
    log = tmp_path / "app.log"
    append(log)
    await watched.watch(log=log)
    await watched.hear(lambda: log.rename(tmp_path / "app.log.1"))
    await watched.hear(lambda: append(log))
    await watched.hear(lambda: append(log))
    new = tmp_path / "new"
    append(new)
    await watched.hear(lambda: new.rename(log))
    await watched.hear(lambda: append(log))
    await watched.hear(log.unlink)


async def test_what_is_not_there_yet_is_seen_to_come(watched: Watched, tmp_path: Path) -> None:
    log = tmp_path / "deep" / "er" / "app.log"
    await watched.watch(log=log)
    await watched.hear(lambda: log.parent.mkdir(parents=True))
    await watched.hear(lambda: append(log))
    await watched.hear(lambda: append(log))
    await watched.hear(lambda: shutil.rmtree(tmp_path / "deep"))
    await watched.hear(lambda: log.parent.mkdir(parents=True))
    await watched.hear(lambda: append(log))


async def test_files_and_directories_of_a_pattern_come_and_go(
    watched: Watched, tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    mark = tmp_path / "one" / "mark"
    append(mark)
    await watched.watch(log=f"{tmp_path}/*/app-*.log", mark=mark)
    await watched.hear(lambda: append(tmp_path / "one" / "app-1.log"))
    await watched.hear(lambda: append(tmp_path / "one" / "app-1.log"))
    await watched.hear((tmp_path / "two").mkdir)
    await watched.hear(lambda: append(tmp_path / "two" / "app-2.log"))
    await watched.hear(lambda: append(tmp_path / "two" / "app-2.log"))
    append(tmp_path / "two" / "other.log")
    await watched.hear(lambda: append(mark), "mark")
    assert "log" not in watched.looks


async def test_a_link_is_followed_wherever_it_leads(watched: Watched, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    append(elsewhere / "1.log")
    append(elsewhere / "2.log")
    log = tmp_path / "app.log"
    log.symlink_to(elsewhere / "1.log")
    await watched.watch(log=log)
    await watched.hear(lambda: append(elsewhere / "1.log"))

    def turn() -> None:
        (tmp_path / "link").symlink_to(elsewhere / "2.log")
        (tmp_path / "link").rename(log)

    await watched.hear(turn)
    await watched.hear(lambda: append(elsewhere / "2.log"))


async def test_more_events_than_the_kernel_keeps_ask_for_all(
    watched: Watched, tmp_path: Path
) -> None:
    log, other = tmp_path / "one" / "app.log", tmp_path / "two" / "app.log"
    for path in (log, other):
        path.parent.mkdir()
        append(path)
    await watched.watch(log=log, other=other)
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())  # noqa: ASYNC240

    def overflow() -> None:
        for number in range(most // 2 + 10):
            path = tmp_path / "one" / f"x{number % 2}"
            path.touch()
            path.unlink()

    await watched.hear(overflow, "other")
    await watched.hear(lambda: append(log))


async def test_what_changes_while_watches_are_set_is_not_missed(
    watched: Watched, tmp_path: Path
) -> None:
    logs = {f"log{number}": tmp_path / f"{number}.log" for number in range(300)}
    for log in logs.values():
        append(log)
    end = threading.Event()

    def write() -> None:
        while not end.is_set():
            for log in logs.values():
                append(log)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        await watched.watch(**logs)
        watched.looks.clear()
        await watched.until(lambda: logs.keys() <= set(watched.looks))
        watched.looks.clear()
        await watched.until(lambda: logs.keys() <= set(watched.looks))
    finally:
        end.set()
        writer.join()


async def test_another_mapping_replaces_the_first(watched: Watched, tmp_path: Path) -> None:
    log, other = tmp_path / "app.log", tmp_path / "other.log"
    append(log)
    append(other)
    await watched.watch(log=log)
    await watched.watch(other=other)
    await watched.hear(lambda: (append(log), append(other)), "other")
    assert set(watched.looks) == {"other"}
    await watched.watch()
    assert (watched.trigger._directories, watched.trigger._files) == ({}, {})


async def test_a_closed_trigger_says_nothing(watched: Watched, tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log)
    await watched.watch(log=log)
    watched.trigger.close()
    append(log)
    await asyncio.sleep(0.1)
    assert watched.looks == []


async def test_nothing_to_watch_opens_nothing(watched: Watched) -> None:
    await watched.watch()
    assert watched.trigger._inotify is None


async def test_a_filesystem_that_hangs_holds_up_nobody(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr("agent.triggers.inotify._PATIENCE", 0.1)
    monkeypatch.setattr("agent.triggers.inotify.make_plan", lambda _things: release.wait(60))
    await watched.watch(log=tmp_path / "app.log")
    release.set()


def test_network_mounts_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "share").mkdir()
    append(tmp_path / "share" / "a.log")
    append(tmp_path / "b.log")
    table = f"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:9 / {tmp_path}/share rw - nfs4 x:/y rw\n"
    monkeypatch.setattr(plan, "read_mounts", lambda: parse_mountinfo(table))
    found = make_plan([f"{tmp_path}/share/a.log", f"{tmp_path}/b.log"])
    assert set(found.directories) == {str(tmp_path)}
    assert set(found.files) == {f"{tmp_path}/b.log"}


@pytest.mark.parametrize(
    ("thing", "path", "meant"),
    [
        ("/a/b.log", "/a/b.log", True),
        ("/a/b.log", "/a", True),
        ("/a/b.log", "/a/b.log.1", False),
        ("/a/*.log", "/a/b.log", True),
        ("/a/*.log", "/a/b.txt", False),
        ("/a/*/c.log", "/a/b", True),
        ("/a/*/c.log", "/a/b/c.log", True),
        ("/a/*/c.log", "/a/b/d/c.log", False),
    ],
)
def test_which_names_matter(thing: str, path: str, meant: bool) -> None:
    assert is_of(thing, path) is meant
