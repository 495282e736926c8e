"""The table of processes: real ones, and a /proc of files where one must hang."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host import census
from agent.host.census import (
    Census,
    Task,
    count_descriptors,
    parse_stat,
    read_table,
    read_user,
)
from agent.host.processes import read_unit
from agent.host.space import Hung

STAT = (
    "{pid} ({name}) {state} 1 7 7 0 -1 4194560 155 0 0 0 250 50 0 0 20 0 3 0 {started} 1000 300 "
    "18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/bin/sleep", "1000"]) as process:
        yield process
        process.kill()


def put(root: Path, pid: int, name: str = "web", command: str = "", started: int = 5) -> Path:
    """One process of a /proc made of files."""
    place = root / str(pid)
    place.mkdir(parents=True, exist_ok=True)
    (place / "stat").write_text(STAT.format(pid=pid, name=name, state="S", started=started))
    (place / "cmdline").write_bytes(command.replace(" ", "\0").encode() + b"\0")
    return place


def test_a_process_is_read_whatever_its_name_holds() -> None:
    task = parse_stat(STAT.format(pid=12, name="a) S (b c", state="Z", started=77).encode())
    assert task is not None
    assert (task.pid, task.name, task.state, task.started) == (12, "a) S (b c", "Z", 77)
    assert task.zombie
    assert (task.ticks, task.threads, task.pages) == (300, 3, 300)


@pytest.mark.parametrize(
    "text", [b"", b"12", b"12 (web)", b"12 (web) S 1 2", b"x (web) " + b"1 " * 30, b"\xff\0(("]
)
def test_what_is_no_process_is_none(text: bytes) -> None:
    assert parse_stat(text) is None


def test_a_real_process_is_in_a_real_table(sleeper: subprocess.Popen[bytes]) -> None:
    task = read_table().tasks[sleeper.pid]
    assert task.parent == os.getpid()
    assert task.memory_bytes > 0
    assert not task.zombie
    assert not task.kernel
    assert read_user(task) == os.geteuid()


def test_threads_of_the_kernel_are_told_apart() -> None:
    tasks = read_table().tasks
    assert not tasks[os.getpid()].kernel
    assert 2 not in tasks or tasks[2].kernel


def test_open_files_are_counted_as_proc_shows_them() -> None:
    task = read_table().tasks[os.getpid()]
    counted = count_descriptors(task)
    assert counted is not None
    # Reading the directory itself opens one.
    assert abs(counted[0] - len([*Path("/proc/self/fd").iterdir()])) <= 2
    import resource

    assert counted[1] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_of_a_process_that_has_ended_nothing_is_known(tmp_path: Path) -> None:
    put(tmp_path, 7)
    task = read_table(tmp_path).tasks[7]
    gone = Path("/nowhere")
    assert read_user(task, gone) is None
    assert count_descriptors(task, gone) is None
    assert read_unit(7, gone) == ""


@pytest.mark.parametrize(
    ("lines", "unit"),
    [
        ("0::/system.slice/nginx.service\n", "nginx.service"),
        ("0::/user.slice/user-0.slice/session-3.scope\n", "session-3.scope"),
        ("0::/\n", ""),
        ("4:memory:/x.service\n1:name=systemd:/system.slice/web.service\n0::/\n", "web.service"),
        ("0::/system.slice/web.service/payload\n", "web.service"),
        ("garbage", ""),
    ],
)
def test_the_unit_of_a_process_is_in_its_cgroup(tmp_path: Path, lines: str, unit: str) -> None:
    (put(tmp_path, 7) / "cgroup").write_text(lines)
    assert read_unit(7, tmp_path) == unit


def test_names_are_found_exactly_or_by_pattern(tmp_path: Path) -> None:
    for pid, name in enumerate(("web", "web", "worker-1", "a-very-long-nam"), 1):
        put(tmp_path, pid, name)
    table = read_table(tmp_path)
    assert sorted(task.pid for task in table.find("web")) == [1, 2]
    assert sorted(task.pid for task in table.find("w*")) == [1, 2, 3]
    assert [task.pid for task in table.find("a-very-long-name-of-all")] == [4]
    assert table.find("nothing") == []
    assert table.find("") == []


# Sharing


async def test_who_asks_within_a_second_shares_a_table(tmp_path: Path) -> None:
    put(tmp_path, 1)
    shared = Census(root=tmp_path)
    first, second = await asyncio.gather(shared.table(), shared.table())
    assert first is second
    put(tmp_path, 2)
    assert await shared.table() is first


async def test_a_table_is_read_again_after_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, 1)
    shared = Census(root=tmp_path)
    first = await shared.table()
    monkeypatch.setattr(census, "SHARED", 0.0)
    assert await shared.table() is not first


async def test_what_is_forgotten_is_read_again_also_while_it_is_being_read(tmp_path: Path) -> None:
    put(tmp_path, 1)
    shared = Census(root=tmp_path)
    early = asyncio.ensure_future(shared.table())
    await asyncio.sleep(0)
    shared.forget()
    put(tmp_path, 2)
    late = await shared.table()
    assert set(late.tasks) == {1, 2}
    assert await early is not late
    assert await shared.table() is late, "the older reading took the place of the newer one"


async def test_who_is_known_to_be_dead_is_in_no_later_table(tmp_path: Path) -> None:
    put(tmp_path, 1)
    put(tmp_path, 2, started=9)
    shared = Census(root=tmp_path)
    before = await shared.table()
    shared.bury((1, 999))
    assert set((await shared.table()).tasks) == {1, 2}, "another process with this number ended"
    shared.bury((1, 5))
    assert set((await shared.table()).tasks) == {2}
    assert set(before.tasks) == {1, 2}


async def test_a_look_that_is_given_up_takes_the_table_from_nobody(tmp_path: Path) -> None:
    put(tmp_path, 1)
    shared = Census(root=tmp_path)
    given_up = asyncio.ensure_future(shared.table())
    other = asyncio.ensure_future(shared.table())
    await asyncio.sleep(0)
    given_up.cancel()
    assert set((await other).tasks) == {1}


async def test_a_table_that_cannot_be_read_is_an_error_for_each_and_not_for_good(
    tmp_path: Path,
) -> None:
    shared = Census(root=tmp_path / "proc")
    found = await asyncio.gather(*(shared.table() for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in found] == [FileNotFoundError] * 3
    put(tmp_path / "proc", 1)
    assert set((await shared.table()).tasks) == {1}


# Command lines


async def test_command_lines_are_there_for_who_wants_them(tmp_path: Path) -> None:
    put(tmp_path, 1, command="python app.py --port 80")
    shared = Census(root=tmp_path)
    assert (await shared.table()).commands is None
    assert (await shared.table(commands=True)).commands == {1: "python app.py --port 80"}


async def test_a_young_process_may_still_become_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census, "SHARED", 0.0)
    put(tmp_path, 1, command="old", started=1)
    young = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
    put(tmp_path, 2, command="before", started=young)
    shared = Census(root=tmp_path)
    await shared.table(commands=True)
    put(tmp_path, 1, command="new", started=1)
    put(tmp_path, 2, command="after", started=young)
    assert (await shared.table(commands=True)).commands == {1: "old", 2: "after"}
    put(tmp_path, 1, name="other", command="new", started=1)
    assert (await shared.table(commands=True)).commands == {1: "new", 2: "after"}


async def test_a_number_that_is_used_again_is_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census, "SHARED", 0.0)
    put(tmp_path, 1, command="first", started=1)
    shared = Census(root=tmp_path)
    await shared.table(commands=True)
    put(tmp_path, 1, command="second", started=2)
    assert (await shared.table(commands=True)).commands == {1: "second"}


async def test_a_command_line_that_hangs_is_left_out_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census, "SHARED", 0.0)
    for pid in (1, 2, 3):
        put(tmp_path, pid, command=f"command {pid}", started=1)
    # Opening a FIFO that nobody writes to blocks, as the real file of a stuck process does.
    (tmp_path / "2" / "cmdline").unlink()
    os.mkfifo(tmp_path / "2" / "cmdline")
    shared = Census(root=tmp_path, seconds=1.0)
    wanted = {1: "command 1", 2: "", 3: "command 3"}
    try:
        assert (await shared.table(commands=True)).commands == wanted
        assert (await shared.table(commands=True)).commands == wanted
    finally:
        os.close(os.open(tmp_path / "2" / "cmdline", os.O_WRONLY))


async def test_a_table_that_hangs_is_hung_and_ends_no_program(tmp_path: Path) -> None:
    place = tmp_path / "1"
    place.mkdir()
    os.mkfifo(place / "stat")
    shared = Census(root=tmp_path, seconds=0.2)
    try:
        for _ in range(2):
            with pytest.raises(Hung, match="the table of processes has not answered"):
                await shared.table()
    finally:
        os.close(os.open(place / "stat", os.O_WRONLY))


def test_an_identity_is_a_number_and_a_beginning() -> None:
    task = Task(
        pid=3, parent=1, started=200, name="x", state="S", flags=0, ticks=150, threads=1, pages=1
    )
    assert task.identity == (3, 200)
    ticks = os.sysconf("SC_CLK_TCK")
    assert task.busy_seconds == 150 / ticks
    assert task.started_seconds == 200 / ticks
    assert sys.maxsize > task.memory_bytes == os.sysconf("SC_PAGE_SIZE")
