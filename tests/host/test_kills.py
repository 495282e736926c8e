"""Victims of the kernel: real ones of a small control group, and what its log says of others."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.checks.memory import KILLS, MEMORY, MemoryOptions, look
from agent.clock import Clock
from agent.core.model import Finding, Status
from agent.host.kernel import count_kills
from agent.host.kills import find_victims, read_ring, read_victims
from agent.host.machine import Machine

#: As Linux 6.1 writes them: a host that ran out, then a unit at its own limit.
LOG = """\
mariadbd invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0
oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,\
task_memcg=/system.slice/mariadb.service,task=mariadbd,pid=812,uid=106
Out of memory: Killed process 812 (mariadbd) total-vm:2468012kB, anon-rss:1572864kB, \
file-rss:0kB, shmem-rss:0kB, UID:106 pgtables:3700kB oom_score_adj:0
oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,\
oom_memcg=/system.slice/app.service,task_memcg=/system.slice/app.service,task=a) (b,pid=99,uid=0
Memory cgroup out of memory: Killed process 99 (a) (b) total-vm:3000kB, anon-rss:2048kB, \
file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:44kB oom_score_adj:0
oom_reaper: reaped process 99 (a) (b), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB
"""


def test_victims_have_a_name_a_unit_and_what_they_held() -> None:
    first, second = find_victims(LOG.splitlines())
    assert (first.pid, first.name, first.unit) == (812, "mariadbd", "mariadb.service")
    assert first.memory == 1536 * 2**20
    assert not first.limited
    assert (second.pid, second.name, second.unit) == (99, "a) (b", "app.service")
    assert second.limited
    assert str(first) == "mariadbd (process 812 of mariadb.service)"


def test_kernels_before_5_0_name_no_unit() -> None:
    (victim,) = find_victims(
        ["Out of memory: Killed process 7 (java), UID 5, total-vm:9kB, anon-rss:8kB, file-rss:0kB"]
    )
    assert (victim.name, victim.unit, victim.memory) == ("java", "", 8192)


@pytest.mark.parametrize(
    "line",
    ["", "Out of memory", "Killed process x (y)", "oom-kill:constraint=x,task_memcg=/,pid=", "\0"],
)
def test_other_lines_name_nobody(line: str) -> None:
    assert find_victims([line]) == []


def test_records_of_the_ring_are_messages_without_their_properties(tmp_path: Path) -> None:
    ring = tmp_path / "kmsg"
    ring.write_text("6,12,345,-;Out of memory; really\n SUBSYSTEM=x\n")
    assert read_ring(str(ring)) == ["Out of memory; really"]


# A real kill

EAT = """
import sys
sys.stdin.readline()
kept = []
while True:
    kept.append(bytearray(2**20))
"""


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group that may take 24 MB, in whatever hierarchy memory is counted in."""
    first = Path("/sys/fs/cgroup/memory")
    old = (first / "memory.limit_in_bytes").exists()
    root = first if old else first.parent
    if not old:
        (root / "cgroup.subtree_control").write_text("+memory")
    group = root / f"hostmend-test-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    names = ("limit_in_bytes", "memsw.limit_in_bytes") if old else ("max", "swap.max")
    try:
        (group / f"memory.{names[0]}").write_text(str(24 * 2**20))
        with contextlib.suppress(OSError):
            # Without swap there is no such file.
            (group / f"memory.{names[1]}").write_text(str(24 * 2**20) if old else "0")
        yield group
    finally:
        group.rmdir()


def feed(group: Path) -> int:
    """Has a process eat more than the group may take, until the kernel ends it; its number."""
    with subprocess.Popen([sys.executable, "-c", EAT], stdin=subprocess.PIPE) as eater:
        try:
            (group / "cgroup.procs").write_text(str(eater.pid))
            eater.communicate(b"\n", timeout=120)
        finally:
            eater.kill()
    assert eater.returncode == -9
    return eater.pid


@pytest.mark.lab
async def test_a_real_kill_is_counted_and_its_victim_named(small_group: Path) -> None:
    before = count_kills()
    pid = await asyncio.to_thread(feed, small_group)
    after = count_kills()
    assert before is not None
    assert after is not None
    assert after > before
    victims = await read_victims(10)
    (mine,) = [victim for victim in victims if victim.pid == pid]
    assert mine.limited
    assert mine.memory > 2**20
    assert mine.name.startswith("python")


@pytest.mark.lab
async def test_a_real_kill_is_a_finding_until_it_is_old(small_group: Path) -> None:
    machine = Machine(clock=Clock())
    options = MemoryOptions.model_validate({"type": "memory", "every": "10s", "timeout": "5s"})

    async def see() -> Finding:
        return next(each for each in await look(options, machine) if each.subject == KILLS)

    assert (await see()).status is Status.OK, "what was before the first look is no news"
    pid = await asyncio.to_thread(feed, small_group)
    found = await see()
    assert (found.status, found.cause) == (Status.WARNING, "oom-limit"), found
    assert f"(process {pid}" in found.summary
    assert (await see()).facts == found.facts, "it is looked up once"
    # Another agent of this boot remembers it.
    later = Machine(clock=Clock(), memory=machine.memory)
    (again,) = [each for each in await look(options, later) if each.subject == KILLS]
    assert again.summary == found.summary
    over = options.model_copy(update={"kills_for": 1e-9})
    (ended,) = [each for each in await look(over, later) if each.subject == KILLS]
    assert ended.status is Status.OK
    assert set(found.measurements) <= set(MEMORY.measurements)
