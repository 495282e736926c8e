"""What the process check makes of processes: most of them real."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agent.checks.check import Proposal
from agent.checks.process import (
    PROCESS,
    ProcessOptions,
    Seen,
    _Usage,
    gather,
    judge,
    look,
    propose,
)
from agent.clock import Clock
from agent.core.model import Finding, Status
from agent.host.census import Census, Table, Task, read_table
from agent.host.machine import Machine
from agent.host.memory import Memory
from agent.host.processes import read_process
from agent.host.rates import Window
from agent.triggers.bursts import BURST
from agent.triggers.pidfd import PidfdTrigger

NOW = 1_000_000.0
#: This process as /proc shows it.
STAT = Path("/proc/self/stat").read_bytes()
NAME = Path("/proc/self/comm").read_text().strip()
PAGES = 2**30 // os.sysconf("SC_PAGE_SIZE")


def options(**given: Any) -> ProcessOptions:
    whole = {"type": "process", "every": "10s", "timeout": "5s", **given}
    return ProcessOptions.model_validate(whole)


def task(pid: int, **given: Any) -> Task:
    usual: dict[str, Any] = {"parent": 1, "started": 0, "name": "web", "state": "S", "flags": 0}
    return Task(**{**usual, "ticks": 0, "threads": 1, "pages": 10, **given}, pid=pid)


@pytest.mark.parametrize(
    ("sentence", "given", "seen", "status", "cause"),
    [
        ("one that runs is ok", {}, {"tasks": (task(5),)}, "ok", ""),
        ("none is critical", {}, {}, "critical", "missing"),
        ("only zombies are none", {}, {"zombies": 3}, "critical", "missing"),
        ("too few are critical", {"at_least": 2}, {"tasks": (task(5),)}, "critical", "too-few"),
        ("too many are critical", {"at_most": 1}, {"tasks": (task(5), task(6))}, "critical",
         "too-many"),
        ("none need run", {"at_least": 0}, {}, "ok", ""),
        ("none may run", {"at_least": 0, "at_most": 0}, {"tasks": (task(5),)}, "critical",
         "too-many"),
        ("memory is of all together", {"warning": {"memory": "3G"}},
         {"tasks": (task(5, pages=2 * PAGES), task(6, pages=2 * PAGES))}, "warning", "memory"),
        ("a critical limit goes before a warning", {"warning": {"memory": "1G"},
         "critical": {"cpu": "50%"}}, {"tasks": (task(5, pages=2 * PAGES),), "cpu_percent": 60.0},
         "critical", "cpu"),
        ("more than one core can be used", {"warning": {"cpu": "150%"}},
         {"tasks": (task(5),), "cpu_percent": 140.0}, "ok", ""),
        ("processor time that is not known yet is no excess", {"warning": {"cpu": "1%"}},
         {"tasks": (task(5),)}, "ok", ""),
        ("few descriptors left is a warning without being asked for", {},
         {"tasks": (task(5),), "descriptors": (task(5), 95.0)}, "warning", "descriptors"),
        ("descriptors can be a critical limit", {"critical": {"descriptors": "80%"}},
         {"tasks": (task(5),), "descriptors": (task(5), 85.0)}, "critical", "descriptors"),
        ("what runs too long is old", {"warning": {"older_than": "1h"}},
         {"tasks": (task(5),), "oldest": NOW - 3601}, "warning", "old"),
        ("what began just now is not", {"warning": {"older_than": "1h"}},
         {"tasks": (task(5),), "oldest": NOW - 3599}, "ok", ""),
        ("zombies are a warning where they are counted", {"warning": {"zombies": 2}},
         {"tasks": (task(5),), "zombies": 2}, "warning", "zombies"),
        ("missing goes before all else", {"critical": {"zombies": 1}}, {"zombies": 1}, "critical",
         "missing"),
    ],
)  # fmt: skip
def test_what_is_seen_makes_one_finding(
    sentence: str, given: dict[str, Any], seen: dict[str, Any], status: str, cause: str
) -> None:
    finding = judge(options(name="web", **given), Seen(**{"tasks": (), **seen}), NOW)
    assert (finding.status, finding.cause) == (status, cause), sentence
    assert (finding.subject, finding.resource) == ("web", "process:web")
    assert not cause or cause in PROCESS.causes
    assert set(finding.measurements) <= set(PROCESS.measurements)


def test_the_subject_says_what_is_meant() -> None:
    assert options(name="web").label == "web"
    assert options(user="www-data").label == "of www-data"
    assert options(command="*celery*", name="python3", user="1000").label == "*celery* of 1000"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "at least one of `name`, `command` and `user`"),
        ({"name": ""}, "at least 1 character"),
        ({"name": "a", "at_least": -1}, "greater than or equal to 0"),
        ({"name": "a", "at_least": 2, "at_most": 1}, "must not be less"),
        ({"name": "a", "warning": {"cpu": 80}}, "85%"),
        ({"name": "a", "warning": {"zombies": 0}}, "greater than or equal to 1"),
        ({"name": "a", "warning": {"swap": "1G"}}, "Extra inputs"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        options(**given)


# Real processes

Spawn = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    """Starts a program under a name of this test's own, so that no other one is meant."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*words: str, name: str = "hm-test-sleep", code: str = "") -> subprocess.Popen[bytes]:
        program = tmp_path / name
        if not program.exists():
            shutil.copy("/bin/sleep", program)
        named = f"open('/proc/self/comm', 'w').write({name!r})\n"
        argv = [sys.executable, "-c", named + code] if code else [str(program), *words]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE)
        started.append(process)
        until = time.monotonic() + 60
        # It has this name only after execve(2), or once it gave it to itself.
        while Path(f"/proc/{process.pid}/comm").read_text().strip() != name:
            assert time.monotonic() < until
            time.sleep(0.001)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
async def machine() -> Any:
    made = Machine(clock=Clock())
    yield made
    await made.close()


async def until(wanted: Callable[[], Awaitable[Any]]) -> Any:
    """What `wanted` returns once it is true."""
    async with asyncio.timeout(60):
        while True:
            if found := await wanted():
                return found
            await asyncio.sleep(0.05)


async def see(machine: Machine, given: ProcessOptions) -> Finding:
    machine.census.forget()
    (finding,) = await look(given, machine)
    return finding


async def see_failing(machine: Machine, given: ProcessOptions) -> Finding | None:
    finding = await see(machine, given)
    return finding if finding.failing else None


async def test_a_real_process_is_found_by_name_command_and_user(
    spawn: Spawn, machine: Machine
) -> None:
    process = spawn("1000.25")
    for given in (
        {"name": "hm-test-sleep"},
        {"name": "hm-test-*"},
        {"command": "*hm-test-sleep 1000.25"},
        {"name": "hm-test-sleep", "command": "*1000.25*", "user": str(os.geteuid())},
    ):
        finding = await see(machine, options(**given))
        assert finding.status is Status.OK, finding
        assert finding.facts["Processes"] == str(process.pid)
        assert finding.measurements["memory_bytes"] > 0
        assert finding.measurements["oldest_seconds"] < 3600
    assert (await see(machine, options(command="*hm-test-sleep 1000"))).cause == "missing"
    assert (await see(machine, options(name="hm-test-sleep", user="1"))).cause == "missing"


async def test_a_dead_process_and_a_zombie_are_missing(spawn: Spawn, machine: Machine) -> None:
    process = spawn("1000")
    process.kill()
    await asyncio.to_thread(os.waitid, os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    finding = await see(machine, options(name="hm-test-sleep"))
    assert (finding.status, finding.cause) == (Status.CRITICAL, "missing")
    assert finding.measurements["zombies_count"] == 1
    process.wait()
    finding = await see(machine, options(name="hm-test-sleep"))
    assert finding.measurements["zombies_count"] == 0


async def test_a_user_that_does_not_exist_is_unknown_and_named(machine: Machine) -> None:
    finding = await see(machine, options(user="nobody-of-this-name"))
    assert (finding.status, finding.cause) == (Status.UNKNOWN, "unavailable")
    assert "there is no user nobody-of-this-name" in finding.summary


async def test_processor_time_is_told_once_the_window_is_full(
    spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = spawn(code="while True: pass", name="hm-test-burn")
    clock, before = Clock(), time.process_time()
    machine = Machine(clock=clock, memory=Memory())
    given = options(name="hm-test-burn", over="1s", warning={"cpu": "20%"})
    finding = await see(machine, given)
    assert (finding.status, "cpu_percent" in finding.measurements) == (Status.OK, False)
    # On a busy machine it gets little: what counts is that it is measured.
    finding = await until(lambda: see_failing(machine, given))
    assert finding.cause == "cpu"
    assert 20 <= finding.measurements["cpu_percent"] < 150
    assert time.process_time() > before
    assert process.poll() is None


async def test_a_process_that_is_new_counts_from_its_start_and_one_that_joins_does_not() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    usage = _Usage(window=Window(100.0))
    old = task(1, ticks=500 * ticks, started=0)
    usage.add([old], 1000.0, 1000.0)
    assert usage.total == 0.0
    joined = task(2, ticks=300 * ticks, started=500 * ticks)
    fresh = task(3, ticks=4 * ticks, started=1005 * ticks)
    usage.add([task(1, ticks=503 * ticks), joined, fresh], 1010.0, 1010.0)
    assert usage.total == pytest.approx(7.0)
    reused = task(1, ticks=1 * ticks, started=1012 * ticks)
    usage.add([reused], 1020.0, 1020.0)
    assert usage.total == pytest.approx(8.0), "a number that is used again is another process"


async def test_descriptors_are_those_of_the_fullest(spawn: Spawn, machine: Machine) -> None:
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "kept = [open('/dev/null') for _ in range(58)]\n"
        "sys.stdin.read()\n"
    )
    process = spawn(code=code, name="hm-test-files")
    given = options(name="hm-test-files")
    finding = await until(lambda: see_failing(machine, given))
    assert (finding.status, finding.cause) == (Status.WARNING, "descriptors")
    assert str(process.pid) in finding.summary
    assert finding.measurements["descriptors_percent"] >= 90


async def test_evidence_lists_processes_without_their_arguments(
    spawn: Spawn, machine: Machine
) -> None:
    spawn("1000.125")
    given = options(command="*hm-test-sleep 1000.125")
    (evidence,) = await gather(given, await see(machine, given), machine)
    assert "hm-test-sleep" in evidence.text
    assert "1000.125" not in evidence.text, "an argument may be a password"


# Deaths


async def test_a_death_is_told_at_once_and_the_next_look_does_not_see_it_any_more(
    spawn: Spawn, machine: Machine
) -> None:
    woken: asyncio.Queue[tuple[str, float]] = asyncio.Queue()
    trigger = PidfdTrigger(machine.deaths, lambda name: woken.put_nowait((name, time.monotonic())))
    given = options(name="hm-test-sleep")
    (watch,) = PROCESS.watches(given)
    await trigger.watch({watch.what: frozenset({"sleeper"})})
    delays = []
    for _ in range(10):
        process = spawn("1000")
        assert (await see(machine, given)).status is Status.OK
        killed = time.monotonic()
        process.kill()
        async with asyncio.timeout(60):
            name, at = await woken.get()
        delays.append(at - killed)
        assert name == "sleeper"
        # No second has passed: the table is the old one, without who is known to be dead.
        (finding,) = await look(given, machine)
        assert finding.cause == "missing"
        process.wait()
        # Signals that follow each other are put together: that is not what is measured here.
        await asyncio.sleep(2 * BURST)
    delays.sort()
    print(f"death to look: median {delays[5] * 1e3:.2f} ms, worst {delays[-1] * 1e3:.2f} ms")
    trigger.close()


async def test_a_number_that_is_used_again_does_not_pass_for_the_one_that_died(
    spawn: Spawn, machine: Machine
) -> None:
    process = spawn("1000")
    known = read_process(process.pid)
    assert known is not None
    woken = asyncio.Event()
    trigger = PidfdTrigger(machine.deaths, lambda _name: woken.set())
    given = options(name="hm-test-sleep")
    (watch,) = PROCESS.watches(given)
    await trigger.watch({watch.what: frozenset({"sleeper"})})
    # A table from before: then, this number was another process of the same name.
    earlier = task(process.pid, name="hm-test-sleep", started=known.started - 7)
    init = task(1, name="init")
    machine.census._kept = Table(began=time.monotonic() + 60, tasks={1: init, process.pid: earlier})
    (finding,) = await look(given, machine)
    assert finding.status is Status.OK
    async with asyncio.timeout(60):
        await woken.wait()
    (finding,) = await look(given, machine)
    assert finding.cause == "missing", "the table still has the one that is gone"
    finding = await see(machine, given)
    assert finding.facts["Processes"] == str(process.pid)
    trigger.close()


# What cannot be read


async def test_a_table_that_hangs_is_unknown(tmp_path: Path) -> None:
    place = tmp_path / "1"
    place.mkdir()
    os.mkfifo(place / "stat")
    machine = Machine(clock=Clock(), census=Census(root=tmp_path, seconds=0.2))
    try:
        (finding,) = await look(options(name="web"), machine)
        assert (finding.status, finding.cause) == (Status.UNKNOWN, "hung")
        assert "the table of processes has not answered" in finding.summary
    finally:
        os.close(os.open(place / "stat", os.O_WRONLY))


async def test_garbage_in_proc_hides_nobody_else(tmp_path: Path) -> None:
    garbage = {7: b"\xff\xfe garbage", 8: b"", 9: b"9 (web"}
    for pid, text in {1: STAT, **garbage, 12: STAT}.items():
        (tmp_path / str(pid)).mkdir()
        own = text.replace(str(os.getpid()).encode(), str(pid).encode(), 1)
        (tmp_path / str(pid) / "stat").write_bytes(own)
    (tmp_path / "10").write_text("a file")
    (tmp_path / "1x").mkdir()
    assert set(read_table(tmp_path).tasks) == {1, 12}
    machine = Machine(clock=Clock(), census=Census(root=tmp_path))
    (finding,) = await look(options(name=NAME), machine)
    assert finding.measurements["processes_count"] == 2


async def test_a_proc_that_is_not_there_or_hides_others_is_unknown(tmp_path: Path) -> None:
    for root, why in ((tmp_path / "none", "No such file"), (tmp_path, "hidepid")):
        machine = Machine(clock=Clock(), census=Census(root=root))
        (finding,) = await look(options(name="web"), machine)
        assert (finding.status, finding.cause) == (Status.UNKNOWN, "unavailable")
        assert why in finding.summary


# Proposals


async def test_what_listens_without_a_service_is_proposed(spawn: Spawn, machine: Machine) -> None:
    code = "import socket, sys\nkept = socket.create_server(('127.0.0.1', 0))\nsys.stdin.read()\n"
    process = spawn(code=code, name="hm-test-port")

    async def find_mine() -> list[Proposal]:
        return [p for p in await propose(machine) if p.name == "process-hm-test-port"]

    (proposal,) = await until(find_mine)
    assert dict(proposal.options) == {"type": "process", "name": "hm-test-port"}
    assert str(process.pid) in proposal.why
    assert PROCESS.model.model_validate(proposal.options)
