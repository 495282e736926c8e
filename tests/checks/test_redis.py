"""What the check `redis` makes of answers and logs. A real server: tests/lab/test_redis.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.checks import database
from agent.checks.database import Unit, find_signature
from agent.checks.redis import REDIS, judge
from agent.checks.redis_log import BEGINS, NO_STOP, RECOVERING, SIGNATURES, TRUNCATED
from agent.checks.redis_options import RedisOptions
from agent.clock import Clock
from agent.core.model import Finding
from agent.host.database import Trouble, Written
from agent.host.machine import Machine
from agent.host.memory import Memory
from agent.host.redis import Loading, RedisAnswer
from agent.host.units import UnitState

#: As Redis 7.0 logged it (shortened).
CUT = """\
188:M 26 Nov 2026 13:48:49.572 # !!! Warning: short read while loading the AOF file a.incr.aof!!!
188:M 26 Nov 2026 13:48:49.572 # !!! Truncating the AOF appendonly.aof.1.incr.aof at offset 7966 !!!
188:M 26 Nov 2026 13:48:49.573 # AOF a.incr.aof loaded anyway because aof-load-truncated is enabled
"""
LOGS = [
    ("# Unexpected end of file reading the append only file a.aof. You can: 1) Make a backup of "
     "your AOF file, then use ./redis-check-aof --fix <filename.manifest>.", "aof-truncated"),
    ("# Bad file format reading the append only file a.aof: make a backup", "aof-damaged"),
    ("# Unrecoverable error reading the append only file a.aof: Input/output error",
     "aof-damaged"),
    ("# Reading the manifest file, at line 3\n# >>> 'nonsense'\n# Invalid AOF manifest file format",
     "aof-files"),
    ("# Unable to obtain the AOF file a.aof length. stat: No such file or directory", "aof-files"),
    ("# Short read or OOM loading DB. Unrecoverable error, aborting now.", "snapshot-damaged"),
    ("# Wrong signature trying to load DB from file\n"
     "# Fatal error loading the DB: Invalid argument. Exiting.", "snapshot-damaged"),
    ("# Wrong RDB checksum expected: (e48c88e) but got (e48c87a). Aborting now.",
     "snapshot-damaged"),
    ("# Can't handle RDB format version 99\n# Fatal error loading the DB: Invalid argument.",
     "snapshot-version"),
    ("# Fatal error loading the DB: Permission denied. Exiting.", "data-directory"),
    ("# Error moving temp append only file on the final destination: Permission denied",
     "data-directory"),
    ("*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***\nReading the configuration file, at line 504\n"
     ">>> 'dir /var/lib/redis'\nNo such file or directory", "data-directory"),
    ("*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***\n>>> 'logfile /var/log/redis/r.log'\n"
     "Can't open the log file: No such file or directory", "log-directory"),
    ("*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***\n>>> 'nonsense 1'\nBad directive",
     "configuration"),
    ("# Warning: Could not create server TCP listening socket 127.0.0.1:6379: bind: Address "
     "already in use\n# Failed listening on port 6379 (TCP), aborting.", "port-taken"),
    # Without IPv6 it says so at every start.
    ("# Warning: Could not create server TCP listening socket ::1:6379: bind: Cannot assign "
     "requested address\n* Ready to accept connections", ""),
    (CUT, ""),
    ("* DB loaded from append only file: 0.000 seconds\n* Ready to accept connections", ""),
    ("", ""),
]  # fmt: skip


@pytest.mark.parametrize(("log", "cause"), LOGS)
def test_why_it_does_not_start_is_read_from_its_log(log: str, cause: str) -> None:
    match = find_signature(log, SIGNATURES)
    assert (match.signature.cause if match else "") == cause


def test_the_line_of_the_configuration_that_it_does_not_understand_is_kept() -> None:
    match = find_signature("*** FATAL CONFIG FILE ERROR ***\n>>> 'nonsense 1'\nBad", SIGNATURES)
    assert match is not None
    assert match.line == ">>> 'nonsense 1'"


def test_every_signature_names_a_cause_of_the_type_once() -> None:
    causes = [signature.cause for signature in (*SIGNATURES, NO_STOP, TRUNCATED)]
    assert len(set(causes)) == len(causes)
    assert set(causes) <= set(REDIS.causes)
    assert not RECOVERING.search(CUT)


@pytest.mark.parametrize("name", ["Redis", "Valkey"])
def test_a_start_is_told_by_its_first_line(name: str) -> None:
    line = f"50:C 26 Nov 2026 13:48:45.569 # oO0OoO0OoO0Oo {name} is starting oO0OoO0OoO0Oo\n"
    assert BEGINS.search(line)


# Findings

UNIT = Unit(
    name="redis-server.service",
    state=UnitState(
        name="redis-server.service",
        id="redis-server.service",
        active_state="active",
        invocation_id="1" * 32,
    ),
)
WELL = {
    "redis_version": "7.0.15",
    "uptime_in_seconds": "77",
    "connected_clients": "4",
    "maxclients": "100",
    "used_memory": "1000",
    "maxmemory": "0",
    "maxmemory_policy": "noeviction",
    "rdb_last_bgsave_status": "ok",
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
    "rdb_changes_since_last_save": "3",
    "rdb_last_save_time": "100",
    "server_time_usec": "160000000",
    "aof_enabled": "1",
    "role": "master",
    "rejected_connections": "5",
}
FULL = {"used_memory": "950", "maxmemory": "1000"}
REPLICA = {
    "role": "slave",
    "master_host": "db1",
    "master_port": "6379",
    "master_link_status": "up",
    "master_last_io_seconds_ago": "1",
    "master_sync_in_progress": "0",
}
DOWN = {**REPLICA, "master_link_status": "down", "master_last_io_seconds_ago": "-1"}


def says(**changed: str) -> RedisAnswer:
    return RedisAnswer(read=True, complete=True, info={**WELL, **changed})


async def findings(
    answer: RedisAnswer, machine: Machine | None = None, **given: Any
) -> dict[str, Finding]:
    options = RedisOptions.model_validate({"type": "redis", **given})
    machine = machine or Machine(clock=Clock(), memory=Memory())
    return {
        finding.subject.removeprefix("redis-server.service").strip(): finding
        for finding in await judge(options, machine, UNIT, answer, None)
    }


CASES = [
    ("a server that reads is ok", says(), {}, "", "ok", ""),
    ("one that writes too", replace(says(), written=Written.DONE), {"write": True}, "", "ok", ""),
    ("one whose user may see nothing is ok", replace(says(), info={}), {}, "", "ok", ""),
    ("few connections left is a warning", says(connected_clients="90"), {}, "connections",
     "warning", "connections"),
    ("none left is critical", says(connected_clients="101"), {}, "connections", "critical",
     "connections"),
    ("limits can be set", says(), {"warning": {"connections": "2%"}}, "connections", "warning",
     "connections"),
    ("memory without a limit is ok", says(used_memory="99999999"), {}, "memory", "ok", ""),
    ("little left of a limit is a warning", says(**FULL), {}, "memory", "warning", "memory"),
    ("what does not count does not count", says(**FULL, mem_not_counted_for_evict="100"), {},
     "memory", "ok", ""),
    ("a cache may be full", says(**FULL, maxmemory_policy="allkeys-lru"), {}, "memory", "ok", ""),
    ("a snapshot that failed is a warning", says(rdb_last_bgsave_status="err"), {}, "saving",
     "warning", "not-saved"),
    ("a write to the append only file that failed too", says(aof_last_write_status="err"), {},
     "saving", "warning", "not-saved"),
    ("writes that are refused are critical", replace(says(), stopped="MISCONF Redis is"), {}, "",
     "critical", "writes-stopped"),
    ("for want of memory too", replace(says(), out_of_memory="OOM command not allowed"), {}, "",
     "critical", "out-of-memory"),
    ("a write without an answer is critical", replace(says(), written=Written.TIMEOUT),
     {"write": True}, "", "critical", "write-timeout"),
    ("a write that fails is critical", replace(says(), written=Written.FAILED), {"write": True},
     "", "critical", "write-failed"),
    ("a replica that follows is ok", says(**REPLICA), {}, "replication", "ok", ""),
    ("one that is not written to is ok",
     replace(says(**REPLICA), write_error="it is a replica"), {"write": True}, "", "ok", ""),
    ("one that has heard nothing for long is a warning",
     says(**{**REPLICA, "master_last_io_seconds_ago": "61"}), {}, "replication", "warning",
     "replication-lag"),
    ("one that just lost its master is ok", says(**DOWN, master_link_down_since_seconds="3"), {},
     "replication", "ok", ""),
    ("soon a warning", says(**DOWN, master_link_down_since_seconds="11"), {}, "replication",
     "warning", "replication-down"),
    ("then critical", says(**DOWN, master_link_down_since_seconds="121"), {}, "replication",
     "critical", "replication-down"),
    ("one that never had one is measured from its start",
     says(**DOWN, master_link_down_since_seconds="-1"), {}, "replication", "warning",
     "replication-down"),
    ("one without a limit of warnings is critical all the same",
     says(**DOWN, master_link_down_since_seconds="121"), {"warning": {"link": None}},
     "replication", "critical", "replication-down"),
    ("one that copies everything is not known", says(**{**DOWN, "master_sync_in_progress": "1"}),
     {}, "replication", "unknown", "starting"),
    ("a replica of it that is in touch is ok",
     says(slave0="ip=10.0.0.2,port=6380,state=online,offset=5,lag=1"), {}, "replica 10.0.0.2:6380",
     "ok", ""),
    ("one that was not heard of for long is a warning",
     says(slave0="ip=10.0.0.2,port=6380,state=online,offset=5,lag=61"), {},
     "replica 10.0.0.2:6380", "warning", "replication-lag"),
    ("one that is sent everything is ok",
     says(slave0="ip=10.0.0.2,port=6380,state=wait_bgsave,offset=0,lag=0"), {},
     "replica 10.0.0.2:6380", "ok", ""),
    ("nonsense in place of a replica breaks nothing", says(slave0="\x1b[2J,,=,lag=x"), {},
     "replica ?:?", "ok", ""),
    ("a server that reads and says no more is a warning", replace(says(), complete=False), {}, "",
     "warning", "timeout"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "answer", "given", "part", "status", "cause"), CASES, ids=[c[0] for c in CASES]
)
async def test_what_an_answer_means(
    sentence: str, answer: RedisAnswer, given: dict[str, Any], part: str, status: str, cause: str
) -> None:
    finding = (await findings(answer, **given))[part]
    assert (finding.status, finding.cause) == (status, cause), finding
    assert finding.cause in REDIS.causes or not finding.cause
    assert set(finding.measurements) <= set(REDIS.measurements)
    assert finding.summary.isprintable()


@pytest.mark.parametrize(
    ("trouble", "answered", "status", "cause"),
    [
        (Trouble.REFUSED, True, "critical", "refused"),
        # Rather a wrong port than a lost one.
        (Trouble.REFUSED, False, "unknown", "unavailable"),
        (Trouble.TIMEOUT, False, "critical", "timeout"),
        (Trouble.DENIED, True, "unknown", "denied"),
        (Trouble.FULL, True, "critical", "connections"),
        (Trouble.STARTING, True, "unknown", "starting"),
        (Trouble.ERROR, True, "critical", "error"),
    ],
)
async def test_what_no_answer_means(
    trouble: Trouble, answered: bool, status: str, cause: str
) -> None:
    memory = Memory()
    if answered:
        memory.put("answered", True)
    machine = Machine(clock=Clock(), memory=memory)
    none = RedisAnswer(trouble=trouble, why="\x1b[31mred\nERROR")
    (finding,) = (await findings(none, machine)).values()
    assert (finding.status, finding.cause) == (status, cause)
    assert finding.summary.isprintable()


@pytest.mark.parametrize(
    ("seconds", "status", "cause", "transition"),
    [
        (299.0, "unknown", "starting", "loading its data"),
        (300.0, "warning", "loading", ""),
        (1800.0, "critical", "loading", ""),
    ],
)
async def test_a_load_is_no_failure_until_it_takes_too_long(
    seconds: float, status: str, cause: str, transition: str
) -> None:
    loading = Loading(seconds=seconds, percent=42.4)
    answer = RedisAnswer(trouble=Trouble.STARTING, why="LOADING", loading=loading)
    (finding,) = (await findings(answer)).values()
    assert (finding.status, finding.cause, finding.transition) == (status, cause, transition)
    assert "42%" in finding.summary


async def test_clients_that_are_turned_away_are_told_as_long_as_there_are_more() -> None:
    machine = Machine(clock=Clock(), memory=Memory())
    seen = [
        (await findings(says(rejected_connections=number), machine))["connections"]
        for number in ("5", "7", "7", "2")
    ]
    # What was before the first look is no news, nor is a counter that was set back.
    assert [finding.cause for finding in seen] == ["", "rejected", "", ""]
    assert seen[1].measurements["rejected_count"] == 2


def test_what_only_other_servers_have_is_none_of_its_causes() -> None:
    assert set(database.CAUSES) - set(REDIS.causes) == {"recovered", "write-locked", "read-only"}
