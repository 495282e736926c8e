"""What the check `postgres` makes of answers and logs. A real one: tests/lab/test_postgres.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.checks.database import Unit, find_signature
from agent.checks.postgres import POSTGRES, PostgresOptions, judge
from agent.checks.postgres_log import BEGINS, SIGNATURES, Said, find_recovery
from agent.clock import Clock
from agent.core.model import Finding, Status
from agent.host.command import Printed
from agent.host.database import Asked, Trouble, Written
from agent.host.machine import Machine
from agent.host.memory import Memory
from agent.host.postgres import PostgresAnswer, find_client, list_statements, read_answer
from agent.host.units import UnitState

ASKED = Asked(socket="/run/postgresql/.s.PGSQL.5432", user="postgres", seconds=3)
DEEP = replace(ASKED, deep=True, write=True)

#: As PostgreSQL 15 logged it (shortened).
CHECKPOINT = """\
2026-11-26 13:50:45.627 UTC [291] LOG:  starting PostgreSQL 15.20 (Debian 15.20-0+deb12u1)
2026-11-26 13:50:45.630 UTC [294] LOG:  invalid magic number 1794 in log segment 000000010000000000\
000001, offset 0
2026-11-26 13:50:45.630 UTC [294] LOG:  invalid primary checkpoint record
2026-11-26 13:50:45.630 UTC [294] PANIC:  could not locate a valid checkpoint record
2026-11-26 13:50:45.630 UTC [291] LOG:  startup process (PID 294) was terminated by signal 6
"""
LOGS = [
    (CHECKPOINT, "checkpoint"),
    ("FATAL:  could not locate required checkpoint record\n", "checkpoint"),
    ('FATAL:  lock file "postmaster.pid" already exists\n', "pid-file"),
    # Another server has the port; that is another matter.
    ('FATAL:  lock file "/run/postgresql/.s.PGSQL.5432.lock" already exists\n', ""),
    ('PANIC:  could not write to file "pg_wal/xlogtemp.530": No space left on device\n',
     "wal-full"),
    ('FATAL:  could not extend file "base/5/16384": No space left on device\n', ""),
    ("Error: Could not create log file /var/log/postgresql/postgresql-15-main.log\n",
     "log-directory"),
    ("Error: Could not open logfile /var/log/postgresql/postgresql-15-main.log\n",
     "log-directory"),
    ("LOG:  database system is ready to accept connections\n", ""),
    ("", ""),
]  # fmt: skip


@pytest.mark.parametrize(("log", "cause"), LOGS)
def test_why_it_does_not_start_is_read_from_its_log(log: str, cause: str) -> None:
    match = find_signature(log, SIGNATURES)
    assert (match.signature.cause if match else "") == cause


def test_every_signature_names_a_cause_of_the_type_once() -> None:
    causes = [signature.cause for signature in SIGNATURES]
    assert len(set(causes)) == len(causes)
    assert set(causes) <= set(POSTGRES.causes)


def test_a_start_is_told_by_its_first_line() -> None:
    assert BEGINS.search(CHECKPOINT)
    assert not BEGINS.search("LOG:  database system is ready to accept connections\n")


RECOVERY = "LOG:  database system was not properly shut down; automatic recovery in progress\n"
REDO = "LOG:  redo starts at 0/1511B00\n"
DONE = "LOG:  redo done at 0/1511B40 system usage: CPU: user: 0.00 s\n"
ENDS = [
    ("LOG:  invalid record length at 0/1511B68: wanted 24, got 0\n", "recovered"),
    # As PostgreSQL 16 says it.
    ("LOG:  invalid record length at 0/1511B68: expected at least 24, got 0\n", "recovered"),
    ("LOG:  invalid record length at 0/1511B68: wanted 24, got 12\n", "wal-tail"),
    ("LOG:  invalid magic number 1794 in log segment 000000010000000000000001, offset 0\n",
     "wal-tail"),
    ("LOG:  incorrect resource manager data checksum in record at 0/157A270\n", "wal-tail"),
    ("LOG:  unexpected pageaddr 0/1000000 in log segment 000000010000000000000004\n", "wal-tail"),
    ("LOG:  record with incorrect prev-link 9A/5B at 0/157A270\n", "wal-tail"),
]  # fmt: skip


@pytest.mark.parametrize(("end", "cause"), ENDS)
def test_a_recovery_is_judged_by_how_the_log_ended(end: str, cause: str) -> None:
    match = find_recovery(RECOVERY + REDO + end + DONE)
    assert match is not None
    assert match.signature.cause == cause
    nothing_to_do = find_recovery(RECOVERY + end + "LOG:  redo is not required\n")
    assert nothing_to_do is not None
    assert nothing_to_do.signature.cause == cause


def test_only_the_last_recovery_and_only_a_recovery_counts() -> None:
    damaged = ENDS[4][0]
    assert find_recovery(damaged) is None
    assert find_recovery("LOG:  entering standby mode\n" + damaged) is None
    twice = RECOVERY + REDO + damaged + DONE + RECOVERY + REDO + ENDS[0][0] + DONE
    found = find_recovery(twice)
    assert found is not None
    assert found.signature.cause == "recovered"
    # What a replica reads later ends in many ways.
    standby = find_recovery(RECOVERY + "LOG:  entering standby mode\n" + REDO + damaged)
    assert standby is not None
    assert standby.signature.cause == "recovered"


def test_only_reading_is_asked_unless_more_is_wanted() -> None:
    assert "emit" not in "".join(list_statements(ASKED))
    assert "emit" not in "".join(list_statements(replace(ASKED, deep=True)))
    assert "emit" in "".join(list_statements(DEEP))
    # One line each: what an error says of its line names the statement.
    assert not [line for line in list_statements(DEEP) if "\n" in line]


def test_the_server_gives_up_before_it_is_given_up() -> None:
    assert "statement_timeout = 2400" in list_statements(ASKED)[1]
    assert "lock_timeout = 1500" in list_statements(ASKED)[1]


def test_debians_own_client_of_the_newest_version_is_taken(tmp_path: Path) -> None:
    assert find_client("psql", tmp_path) == "psql"
    for version in ("9", "15", "old"):
        (tmp_path / version / "bin").mkdir(parents=True)
        (tmp_path / version / "bin" / "psql").touch()
    assert find_client("psql", tmp_path) == str(tmp_path / "15/bin/psql")


def rows(*given: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in given)


READ = rows({"kind": "read", "database": "postgres"})
ALL = rows({"kind": "all"})


def answer(
    out: str, err: str = "", *, code: int | None = 0, asked: Asked = ASKED
) -> PostgresAnswer:
    return read_answer(Printed(code=code, out=out, err=err), asked, list_statements(asked))


def fail(asked: Asked, word: str, code: str, why: str) -> str:
    """What psql prints of an error in the statement that has that word."""
    lines = list_statements(asked)
    number = next(n for n, line in enumerate(lines, 1) if word in line)
    return f"psql:<stdin>:{number}: ERROR:  {code}: {why}\nLOCATION:  f, f.c:1\n"


def test_an_answer_is_read_whole() -> None:
    found = answer(
        READ
        + rows(
            {"kind": "server", "version": "15.20", "taken": 3, "limit": 97},
            {"kind": "log", "file": "log/postgresql-Thu.log"},
            {"kind": "waiting", "pid": 7},
            {"kind": "slot", "name": "gone"},
            {"kind": "written", "recovery": False, "read_only": False, "stuck": 0, "at": "0/1"},
        )
        + ALL,
        asked=DEEP,
    )
    assert (found.trouble, found.complete, found.written) == (None, True, Written.DONE)
    assert found.server["version"] == "15.20"
    assert found.log == "log/postgresql-Thu.log"
    assert found.slots[0]["name"] == "gone"
    assert found.following is None


FAILED = 'psql: error: connection to server on socket "/run/x/.s.PGSQL.5432" failed: '


@pytest.mark.parametrize(
    ("err", "code", "trouble"),
    [
        (FAILED + "No such file or directory\n\tIs the server running?", 2, Trouble.REFUSED),
        (FAILED + "Connection refused\n\tIs the server running?", 2, Trouble.REFUSED),
        (FAILED + "Resource temporarily unavailable", 2, Trouble.TIMEOUT),
        (FAILED + "FATAL:  the database system is starting up", 2, Trouble.STARTING),
        (FAILED + "FATAL:  the database system is in recovery mode", 2, Trouble.STARTING),
        (FAILED + "FATAL:  the database system is not yet accepting connections\n"
         "DETAIL:  Consistent recovery state has not been yet reached.", 2, Trouble.STARTING),
        (FAILED + "FATAL:  sorry, too many clients already", 2, Trouble.FULL),
        (FAILED + "FATAL:  remaining connection slots are reserved for non-replication superuser"
         " connections", 2, Trouble.FULL),
        (FAILED + 'FATAL:  role "nobody" does not exist', 2, Trouble.DENIED),
        (FAILED + 'FATAL:  Peer authentication failed for user "app"', 2, Trouble.DENIED),
        (FAILED + 'FATAL:  database "nodb" does not exist', 2, Trouble.DENIED),
        (FAILED + 'FATAL:  could not open file "base/5/1259": No such file or directory', 2,
         Trouble.ERROR),
        (FAILED + "FATAL:  tut mir leid, schon zu viele Verbindungen", 2, Trouble.ERROR),
        ("psql: error: expected authentication request from server, but received \x1b", 2,
         Trouble.ERROR),
        ("psql:<stdin>:3: server closed the connection unexpectedly\n", 2, Trouble.REFUSED),
        (FAILED + "server closed the connection unexpectedly", 2, Trouble.REFUSED),
        (fail(ASKED, "'read'", "57014", "canceling statement due to statement timeout"), 0,
         Trouble.TIMEOUT),
        (fail(ASKED, "'read'", "XX001", "invalid page in block 0 of relation"), 0, Trouble.ERROR),
        (fail(ASKED, "'read'", "57P01", "terminating connection"), 2, Trouble.STARTING),
        ("", None, Trouble.TIMEOUT),
        ("", 127, Trouble.ERROR),
        ("\x1b[2J\x00 nonsense \xff", 1, Trouble.ERROR),
    ],
)  # fmt: skip
def test_a_server_that_does_not_read_says_why(err: str, code: int | None, trouble: Trouble) -> None:
    assert answer("", err, code=code).trouble is trouble


@pytest.mark.parametrize(
    "err",
    [
        fail(DEEP, "'wal'", "57P01", "terminating connection due to administrator command"),
        "psql:<stdin>:5: error: connection to server was lost",
    ],
)
def test_a_server_that_ends_while_it_is_asked_is_on_its_way(err: str) -> None:
    found = answer(READ, err, code=2, asked=DEEP)
    assert found.trouble is Trouble.STARTING


@pytest.mark.parametrize(
    "out", ["\x00\xff", "{", "[" * 100_000, '{"kind": 1}', "[1]\n7\nnull\n", '{"kind": "read"']
)
def test_an_answer_of_nonsense_is_none(out: str) -> None:
    found = answer(out)
    assert found.trouble is Trouble.ERROR
    assert not found.complete


KINDS = ("server", "log", "waiting", "following", "replica", "slot", "wal", "archiver")
KEYS = (
    "version", "limit", "taken", "seconds", "count", "bytes", "status", "paused", "source", "name",
    "active", "wal_status", "most", "keep", "failing", "since", "uptime", "directory", "file",
    "mode",
)  # fmt: skip


async def test_rows_of_the_right_kinds_with_nonsense_in_them_break_nothing() -> None:
    values: tuple[Any, ...] = (None, [], {}, "x" * 9999, True, -1, 1e300)
    for value in values:
        nonsense = dict.fromkeys(KEYS, value)
        found = answer(READ + rows(*({"kind": kind, **nonsense} for kind in KINDS)) + ALL)
        for finding in (await findings(found)).values():
            assert finding.summary.isprintable()


def test_what_the_user_may_not_see_is_named_and_is_no_failure() -> None:
    err = fail(DEEP, "pg_ls_waldir", "42501", "permission denied for function pg_ls_waldir")
    found = answer(READ + ALL, err, asked=DEEP)
    assert (found.trouble, found.complete, found.hidden) == (None, True, ("wal",))


def test_what_could_not_be_read_makes_an_answer_incomplete() -> None:
    err = fail(DEEP, "pg_ls_waldir", "58030", "could not read directory: Input/output error")
    found = answer(READ + ALL, err, asked=DEEP)
    assert (found.trouble, found.complete) == (None, False)
    assert "Input/output error" in found.missing


MAY = {"kind": "written", "recovery": False, "read_only": False, "stuck": 0, "at": "0/15"}


@pytest.mark.parametrize(
    ("out", "error", "code", "written"),
    [
        (rows(MAY), None, 0, Written.DONE),
        (rows({**MAY, "stuck": 2, "at": None}), None, 0, Written.STUCK),
        (rows({**MAY, "read_only": True, "at": None}), None, 0, Written.READ_ONLY),
        # It is a replica.
        (rows({**MAY, "recovery": True, "at": None}), None, 0, Written.LEFT_OUT),
        (rows({**MAY, "at": None}), None, 0, Written.FAILED),
        ("", None, None, Written.TIMEOUT),
        ("", ("57014", "canceling statement due to statement timeout"), 0, Written.TIMEOUT),
        ("", ("55P03", "canceling statement due to lock timeout"), 0, Written.LOCKED),
        ("", ("53100", "could not write to file: No space left on device"), 0, Written.FAILED),
        ("", ("25006", "cannot execute in a read-only transaction"), 0, Written.READ_ONLY),
    ],
)
def test_what_became_of_the_write_is_told_apart(
    out: str, error: tuple[str, str] | None, code: int | None, written: Written
) -> None:
    err = fail(DEEP, "emit_message", *error) if error else ""
    assert answer(READ + out, err, code=code, asked=DEEP).written is written


# Findings

UNIT = Unit(
    name="postgresql@15-main.service",
    state=UnitState(
        name="postgresql@15-main.service",
        id="postgresql@15-main.service",
        type="forking",
        active_state="active",
        invocation_id="1" * 32,
    ),
)
WHOLE = PostgresAnswer(
    complete=True,
    server={"version": "15.20", "recovery": False, "taken": 3, "limit": 97, "uptime": 77.5},
    wal={"count": 2, "bytes": 2**25, "most": 2**30, "keep": 0},
    archiver={"mode": "off"},
)
FOLLOWING = {
    "paused": False,
    "source": True,
    "status": "streaming",
    "host": "db1",
    "port": 5432,
    "bytes": 0,
    "seconds": 7200.0,
}
SLOT = {"name": "gone", "type": "physical", "active": False, "wal_status": "reserved"}


async def findings(
    found: PostgresAnswer, unit: Unit = UNIT, memory: Memory | None = None, **given: Any
) -> dict[str, Finding]:
    options = PostgresOptions.model_validate(
        {"type": "postgres", "unit": "postgresql@15-main.service", **given}
    )
    machine = Machine(clock=Clock(), memory=memory or Memory())
    return {
        finding.subject.removeprefix("postgresql@15-main.service").strip(): finding
        for finding in await judge(options, machine, unit, found, Said())
    }


def follows(**changed: Any) -> PostgresAnswer:
    server = {**WHOLE.server, "recovery": True}
    return replace(WHOLE, server=server, following={**FOLLOWING, **changed})


def waits(seconds: float) -> PostgresAnswer:
    row = {"count": 2, "pid": 7, "user": "app", "database": "shop", "seconds": seconds,
           "by": 8, "by_user": "batch", "by_state": "idle in transaction"}  # fmt: skip
    return replace(WHOLE, waiting=(row,))


def slot(**changed: Any) -> PostgresAnswer:
    return replace(WHOLE, slots=({**SLOT, "bytes": 2**31, **changed},))


CASES = [
    ("a server that reads is ok", WHOLE, {}, "", "ok", ""),
    ("few connections left is a warning", replace(WHOLE, server={**WHOLE.server, "taken": 90}), {},
     "connections", "warning", "connections"),
    ("none left is critical", replace(WHOLE, server={**WHOLE.server, "taken": 97}), {},
     "connections", "critical", "connections"),
    ("a short wait for a lock is ok", waits(5), {}, "queries", "ok", ""),
    ("a long wait for a lock is a warning", waits(31), {}, "queries", "warning", "blocked"),
    ("it can be critical", waits(61), {"critical": {"blocked": "1m"}}, "queries", "critical",
     "blocked"),
    ("a replica that has all there is is ok, however long nothing came", follows(), {},
     "replication", "ok", ""),
    ("one that is far behind is a warning", follows(bytes=5), {}, "replication", "warning",
     "replication-lag"),
    ("it can be critical that it is", follows(bytes=5), {"critical": {"lag": "1h"}}, "replication",
     "critical", "replication-lag"),
    ("one that an operator paused is a warning", follows(paused=True), {}, "replication",
     "warning", "replication-stopped"),
    ("one that receives nothing is a warning", follows(status=None), {}, "replication", "warning",
     "replication-stopped"),
    ("one that lives on archived logs is ok", follows(status=None, source=False), {},
     "replication", "ok", ""),
    ("a replica that takes no writes is ok", replace(follows(), written=Written.READ_ONLY),
     {"write": True}, "", "ok", ""),
    ("a replica of it that is behind is a warning",
     replace(WHOLE, replicas=({"name": "a", "seconds": 1.0}, {"name": "b", "seconds": 301.0})), {},
     "replicas", "warning", "replication-lag"),
    ("a slot that nobody uses and that holds much is a warning", slot(), {}, "slot gone",
     "warning", "abandoned-slot"),
    ("it can be critical that it does", slot(), {"critical": {"slot": "2G"}}, "slot gone",
     "critical", "abandoned-slot"),
    ("one that holds little is ok", slot(bytes=2**20), {}, "slot gone", "ok", ""),
    ("one that is used is ok", slot(active=True), {}, "slot gone", "ok", ""),
    ("one that lost what it needs is a warning", slot(wal_status="lost", bytes=None), {},
     "slot gone", "warning", "slot-lost"),
    ("a log over twice its settings is a warning",
     replace(WHOLE, wal={**WHOLE.wal, "bytes": 2**31 + 1}), {}, "wal", "warning", "wal"),
    ("one of twice its settings is ok", replace(WHOLE, wal={**WHOLE.wal, "bytes": 2**31}), {},
     "wal", "ok", ""),
    ("a limit of one's own counts alone", replace(WHOLE, wal={**WHOLE.wal, "bytes": 2**31 + 1}),
     {"warning": {"wal": "3G"}}, "wal", "ok", ""),
    ("a log over a limit is critical", replace(WHOLE, wal={**WHOLE.wal, "bytes": 2**31 + 1}),
     {"critical": {"wal": "2G"}}, "wal", "critical", "wal"),
    ("an archive that takes nothing is a warning",
     replace(WHOLE, archiver={"mode": "on", "failing": True, "failed": "00000001", "since": 5.0}),
     {}, "archive", "warning", "archive-failing"),
    ("one that does is ok", replace(WHOLE, archiver={"mode": "on", "failing": False}), {},
     "archive", "ok", ""),
    ("a server that takes no writes and is no replica is a warning",
     replace(WHOLE, written=Written.READ_ONLY), {"write": True}, "", "warning", "read-only"),
    ("a write without an answer is critical", replace(WHOLE, written=Written.TIMEOUT),
     {"write": True}, "", "critical", "write-timeout"),
    ("one that hangs on is critical too", replace(WHOLE, written=Written.STUCK), {"write": True},
     "", "critical", "write-timeout"),
    ("a write that fails is critical", replace(WHOLE, written=Written.FAILED), {"write": True}, "",
     "critical", "write-failed"),
    ("a server that reads and says no more is a warning", replace(WHOLE, complete=False), {}, "",
     "warning", "timeout"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "found", "given", "part", "status", "cause"), CASES, ids=[c[0] for c in CASES]
)
async def test_what_an_answer_means(
    sentence: str, found: PostgresAnswer, given: dict[str, Any], part: str, status: str, cause: str
) -> None:
    finding = (await findings(found, **given))[part]
    assert (finding.status, finding.cause) == (status, cause), finding
    assert finding.cause in POSTGRES.causes or not finding.cause
    assert set(finding.measurements) <= set(POSTGRES.measurements)


@pytest.mark.parametrize(
    ("trouble", "answered", "status", "cause"),
    [
        (Trouble.REFUSED, True, "critical", "refused"),
        (Trouble.REFUSED, False, "unknown", "unavailable"),
        (Trouble.TIMEOUT, False, "critical", "timeout"),
        (Trouble.STARTING, True, "unknown", "starting"),
    ],
)
async def test_what_no_answer_means(
    trouble: Trouble, answered: bool, status: str, cause: str
) -> None:
    memory = Memory()
    if answered:
        memory.put("answered", True)
    none = PostgresAnswer(trouble=trouble, why="\x1b[31mred\nERROR")
    (finding,) = (await findings(none, memory=memory)).values()
    assert (finding.status, finding.cause) == (status, cause)
    assert finding.summary.isprintable()


async def test_the_unit_that_stands_for_all_clusters_says_nothing_of_any() -> None:
    assert UNIT.state is not None
    wrapper = replace(UNIT, state=replace(UNIT.state, type="oneshot"))
    (finding,) = (await findings(WHOLE, wrapper)).values()
    assert (finding.status, finding.cause) == (Status.UNKNOWN, "unavailable")
    assert "by the unit of its own" in finding.summary


async def test_what_failed_and_could_not_be_asked_for_is_not_gone() -> None:
    memory = Memory()
    memory.put("failing", ["postgresql@15-main.service slot gone"])
    found = await findings(replace(WHOLE, complete=False), memory=memory)
    assert found["slot gone"].status is Status.UNKNOWN
    # It was dropped, and the server says so.
    assert "slot gone" not in await findings(WHOLE, memory=memory)


async def test_what_waits_is_told_without_its_statement() -> None:
    finding = (await findings(waits(31)))["queries"]
    assert "app in shop, process 7" in finding.summary
    assert "for batch, process 8, idle in transaction" in finding.summary
