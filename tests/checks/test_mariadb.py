"""What the check `mariadb` makes of answers and logs. A real server: tests/lab/test_mariadb.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.checks.database import Sample, Unit, find_signature
from agent.checks.mariadb import MARIADB, MariadbOptions, judge, may_write, measure_binlogs
from agent.checks.mariadb_log import BEGINS, SIGNATURES, Said, find_tables
from agent.clock import Clock
from agent.core.model import Finding, Status
from agent.host.command import Printed
from agent.host.database import Asked, Trouble, Written
from agent.host.machine import Machine
from agent.host.mariadb import (
    WAITS_FOR_ROOM,
    MariadbAnswer,
    Waiting,
    list_statements,
    quote_table,
    read_answer,
)
from agent.host.memory import Memory
from agent.host.units import UnitState

ASKED = Asked(socket="/run/mysqld/mysqld.sock", user="mysql", seconds=3)
DEEP = replace(ASKED, deep=True, write=True)

#: As MariaDB 10.11 logged it (shortened).
CONTROL = """\
2026-11-26T10:59:53+0000 mariadbd[239]: 2026-11-26 10:59:53 0 [Note] Starting MariaDB 10.11.19
2026-11-26T10:59:53+0000 mariadbd[239]: 2026-11-26 10:59:53 0 [ERROR] mariadbd: Got error \
'Missing valid id at start of file. File is not a valid aria control file' when trying to use \
aria control file '/var/lib/mysql/aria_log_control'
2026-11-26T10:59:53+0000 mariadbd[239]: 2026-11-26 10:59:53 0 [ERROR] Plugin 'Aria' registration \
as a STORAGE ENGINE failed.
2026-11-26T10:59:53+0000 mariadbd[239]: 2026-11-26 10:59:53 0 [ERROR] Aborting
"""
LOGS = [
    (CONTROL, "aria-control"),
    ("[ERROR] mariadbd: Aria engine: log initialization failed\n", "aria-log"),
    ("[ERROR] InnoDB: Invalid log header checksum\n", "redo-header"),
    ("[ERROR] InnoDB: File ./ib_logfile0 was not found\n", "redo-header"),
    ("[ERROR] InnoDB: ib_logfile0 is empty, and LSN is unknown.\n", "redo-header"),
    (
        "[ERROR] Found 1 prepared transactions! It means that server was not shut down properly\n",
        "prepared-transactions",
    ),
    # A recovery that goes well says nearly the same.
    ("[Note] Found 1 prepared transaction(s) in InnoDB\n[Note] Crash table recovery done\n", ""),
    ("[ERROR] mariadbd: File '/var/log/mysql/l' not found (Errcode: 2 \"No such file\")\n"
     "[ERROR] Could not open log file\n[ERROR] Can't init tc log\n", "binlog-index"),
    ("[ERROR] mariadbd: File '/var/log/mysql/mariadb-bin.index' not found (Errcode: 2 \"No such "
     'file or directory")\n[ERROR] Aborting\n', "log-directory"),
    ("[ERROR] mariadbd: File '/var/log/mysql/mariadb-bin.index' not found (Errcode: 13 "
     '"Permission denied")\n', "log-directory"),
    ("[Note] mariadbd: ready for connections.\n", ""),
    ("", ""),
]  # fmt: skip


@pytest.mark.parametrize(("log", "cause"), LOGS)
def test_why_it_does_not_start_is_read_from_its_log(log: str, cause: str) -> None:
    match = find_signature(log, SIGNATURES)
    assert (match.signature.cause if match else "") == cause


def test_the_line_that_says_it_is_kept_as_it_was_logged() -> None:
    match = find_signature(CONTROL, SIGNATURES)
    assert match is not None
    assert match.line.startswith("2026-11-26 10:59:53 0 [ERROR] mariadbd: Got error 'Missing")


def test_every_signature_names_a_cause_of_the_type_once() -> None:
    causes = [signature.cause for signature in SIGNATURES]
    assert len(set(causes)) == len(causes)
    assert set(causes) <= set(MARIADB.causes)


def test_a_start_is_told_by_its_first_line() -> None:
    assert BEGINS.search("2026-11-26 10:59:53 0 [Note] Starting MariaDB 10.11.19 as process 4\n")
    assert BEGINS.search(
        "2020-01-01 1:02:03 0 [Note] /usr/sbin/mysqld (mysqld 10.3.2) starting as process 4 ..."
    )
    assert not BEGINS.search("2026-11-26 10:59:53 0 [Note] InnoDB: Starting shutdown...")


def test_tables_that_the_log_complains_of_are_named_as_people_know_them() -> None:
    log = """\
4 [ERROR] mariadbd: Index for table './shop/m.MYI' is corrupt; try to repair it
4 [ERROR] Got error 126 when reading table './shop/m'
4 [ERROR] mariadbd: Index for table 'm' is corrupt; try to repair it
4 [ERROR] mariadbd: Got error '176 "Read page with wrong checksum"' for './shop/a.MAI'
5 [ERROR] mariadbd: Table './my@002dshop/big@0020list' is marked as crashed and should be repaired
6 [Note] InnoDB: Creating shared tablespace for temporary tables in './ibtmp1'
6 [Note] InnoDB: File './shop/i.ibd' is fine
"""
    assert find_tables(log) == ["shop.m", "shop.a", "my-shop.big list"]


def test_names_of_tables_cannot_break_out_of_a_statement() -> None:
    assert quote_table("shop.a`; DROP TABLE b; -- ") == "`shop`.`a``; DROP TABLE b; -- `"


def test_only_reading_is_asked_unless_more_is_wanted() -> None:
    lines = list_statements(ASKED)
    assert len(lines) == 3
    assert not [line for line in lines if "INSERT" in line or "CREATE" in line]
    assert not [line for line in list_statements(DEEP) if "CREATE" in line]
    assert len([x for x in list_statements(replace(DEEP, make=True)) if "CREATE" in x]) == 2


def test_the_server_gives_up_before_it_is_given_up() -> None:
    first = list_statements(ASKED)[0]
    assert "max_statement_time=2.4" in first
    assert "lock_wait_timeout=1" in first


def answer(out: str, err: str = "", *, code: int | None = 0, asked: Asked = ASKED) -> MariadbAnswer:
    return read_answer(Printed(code=code, out=out, err=err), asked, list_statements(asked))


READ = "kind\ta\tb\nread\t1\t1\n"
ALL = "kind\t1\nall\t1\n"
REST = """\
Variable_name\tValue
datadir\t/var/lib/mysql/
log_bin_basename\t/var/log/mysql/mariadb-bin
max_connections\t151
read_only\tOFF
version\t10.11.19-MariaDB
Variable_name\tValue
Threads_connected\t3
Uptime\t77
kind\tID\tUSER\tdb\ttime\tSTATE
waiting\t5\tapp\tshop\t44\tWaiting for someone to free space
"""


def test_an_answer_is_read_whole() -> None:
    found = answer(READ + REST + "kind\t@stuck\nwritten\t0\t0\t0\n" + ALL, asked=replace(DEEP))
    assert (found.trouble, found.complete, found.written) == (None, True, Written.DONE)
    assert found.variables["log_bin_basename"] == "/var/log/mysql/mariadb-bin"
    assert found.number("Threads_connected") == 3
    assert found.waiting[0].state == WAITS_FOR_ROOM
    assert found.sources == ()


def test_the_servers_that_it_follows_are_read_from_the_vertical_part() -> None:
    found = answer(
        READ
        + REST
        + "*************************** 1. row ***************************\n"
        + "               Connection_name: \n                   Master_Host: db1\n"
        + "              Last_SQL_Error: Could not execute: a: b\n"
        + "*************************** 2. row ***************************\n"
        + "               Connection_name: west\n"
        + ALL,
        asked=DEEP,
    )
    assert found.sources is not None
    assert [source["Connection_name"] for source in found.sources] == ["", "west"]
    assert found.sources[0]["Last_SQL_Error"] == "Could not execute: a: b"
    assert not may_write(found)


@pytest.mark.parametrize(
    ("err", "code", "trouble"),
    [
        ("ERROR 2002 (HY000): Can't connect to local server through socket (111)", 1,
         Trouble.REFUSED),
        ("ERROR 1045 (28000): Access denied for user 'mysql'@'localhost'", 1, Trouble.DENIED),
        ("ERROR 1698 (28000): Access denied for user 'mysql'@'localhost'", 1, Trouble.DENIED),
        ("ERROR 1040 (08004): Too many connections", 1, Trouble.FULL),
        ("ERROR 2013 (HY000): Lost connection to server at 'reading initial packet'", 1,
         Trouble.REFUSED),
        ("ERROR 2027 (HY000): Received malformed packet", 1, Trouble.ERROR),
        ("ERROR 1969 (70100) at line 2: Query execution was interrupted (max_statement_time)", 1,
         Trouble.TIMEOUT),
        ("ERROR 1034 (HY000) at line 2: Index for table 'db' is corrupt", 1, Trouble.ERROR),
        ("", None, Trouble.TIMEOUT),
        ("", 127, Trouble.ERROR),
        ("\x1b[2J\x00 nonsense \xff", 1, Trouble.ERROR),
    ],
)  # fmt: skip
def test_a_server_that_does_not_read_says_why(err: str, code: int | None, trouble: Trouble) -> None:
    assert answer("", err, code=code).trouble is trouble


def test_a_user_who_may_not_read_the_servers_own_tables_still_proves_that_it_answers() -> None:
    err = "ERROR 1142 (42000) at line 2: SELECT command denied to user 'hostmend'@'localhost'"
    found = answer(ALL, err, code=1)
    assert (found.trouble, found.limited) == (None, True)


@pytest.mark.parametrize(
    ("rest", "err", "code", "written"),
    [
        ("kind\nwritten\t0\t0\t0\n", "", 0, Written.DONE),
        ("kind\nwritten\t2\t0\t0\n", "", 0, Written.STUCK),
        ("kind\nwritten\t0\t0\t1\n", "", 0, Written.READ_ONLY),
        # It became a replica since it was last looked at.
        ("kind\nwritten\t0\t1\t0\n", "", 0, Written.LEFT_OUT),
        ("", "", None, Written.TIMEOUT),
        ("kind\nwritten\t0\t0\t0\n",
         "ERROR 1146 (42S02) at line {}: Table 'hostmend.probe' doesn't exist", 1, Written.ABSENT),
        ("kind\nwritten\t0\t0\t0\n", "ERROR 1205 (HY000) at line {}: Lock wait timeout", 1,
         Written.LOCKED),
        ("kind\nwritten\t0\t0\t0\n", "ERROR 1021 (HY000) at line {}: Disk full", 1, Written.FAILED),
        ("kind\nwritten\t0\t0\t0\n", "ERROR 1290 (HY000) at line {}: read-only", 1,
         Written.READ_ONLY),
    ],
)  # fmt: skip
def test_what_became_of_the_write_is_told_apart(
    rest: str, err: str, code: int | None, written: Written
) -> None:
    line = next(n for n, text in enumerate(list_statements(DEEP), 1) if "INSERT INTO host" in text)
    line += 2 if "LIKE" in list_statements(DEEP)[line - 1] else 0
    found = answer(READ + rest, err.format(line), code=code, asked=DEEP)
    assert found.written is written


def test_what_is_found_of_tables_is_read_and_not_the_exit_code() -> None:
    rows = """\
Table\tOp\tMsg_type\tMsg_text
shop.m\tcheck\twarning\tTable is marked as crashed
shop.m\tcheck\terror\tCorrupt
shop.i\tcheck\tstatus\tOK
shop.b\tcheck\tError\tLock wait timeout exceeded; try restarting transaction
shop.b\tcheck\tstatus\tOperation failed
shop.gone\tcheck\tError\tTable 'shop.gone' doesn't exist
shop.gone\tcheck\tstatus\tOperation failed
"""
    assert answer(READ + rows).tables == {
        "shop.m": "Table is marked as crashed",
        "shop.i": "",
        "shop.gone": "",
    }


# Findings

UNIT = Unit(
    name="mariadb.service",
    state=UnitState(
        name="mariadb.service", id="mariadb.service", active_state="active", invocation_id="1" * 32
    ),
)
WHOLE = MariadbAnswer(
    complete=True,
    ended=True,
    variables={"max_connections": "100", "read_only": "OFF", "datadir": "/var/lib/mysql/"},
    status={"Threads_connected": "3", "Uptime": "77"},
)
SOURCE = {
    "Connection_name": "",
    "Master_Host": "db1",
    "Master_Port": "3306",
    "Slave_IO_Running": "Yes",
    "Slave_SQL_Running": "Yes",
    "Last_IO_Errno": "0",
    "Last_SQL_Errno": "0",
    "Seconds_Behind_Master": "0",
}
BROKEN = {"Slave_SQL_Running": "No", "Last_SQL_Errno": "1062", "Last_SQL_Error": "Duplicate entry"}
RELAY = {**BROKEN, "Last_SQL_Errno": "1594", "Last_SQL_Error": "Relay log read failure: Could not"}


async def findings(found: MariadbAnswer, **given: Any) -> dict[str, Finding]:
    options = MariadbOptions.model_validate({"type": "mariadb", **given})
    machine = Machine(clock=Clock(), memory=Memory())
    return {
        finding.subject.removeprefix("mariadb.service").strip(): finding
        for finding in await judge(options, machine, UNIT, found, Said())
    }


def source(**changed: str) -> MariadbAnswer:
    return replace(WHOLE, sources=({**SOURCE, **changed},))


def waits(state: str, seconds: float) -> MariadbAnswer:
    waiting = Waiting(id=7, user="app", database="shop", seconds=seconds, state=state)
    return replace(WHOLE, waiting=(waiting,))


CASES = [
    ("a server that reads is ok", WHOLE, {}, "", "ok", ""),
    ("few connections left is a warning",
     replace(WHOLE, status={"Threads_connected": "90"}), {}, "connections", "warning",
     "connections"),
    ("none left is critical", replace(WHOLE, status={"Threads_connected": "101"}), {},
     "connections", "critical", "connections"),
    ("limits can be set", WHOLE, {"warning": {"connections": "2%"}}, "connections", "warning",
     "connections"),
    ("a short wait for a lock is ok", waits("Waiting for table metadata lock", 5), {}, "queries",
     "ok", ""),
    ("a long wait for a lock is a warning", waits("Waiting for row lock", 31), {}, "queries",
     "warning", "blocked"),
    ("it can be critical", waits("Waiting for row lock", 61), {"critical": {"blocked": "1m"}},
     "queries", "critical", "blocked"),
    ("writes that wait for room are critical", waits(WAITS_FOR_ROOM, 1), {}, "", "critical",
     "disk-full-waiting"),
    ("they are no lock", waits(WAITS_FOR_ROOM, 100), {}, "queries", "ok", ""),
    ("a replica that follows is ok", source(), {}, "replication", "ok", ""),
    ("one that is far behind is a warning", source(Seconds_Behind_Master="301"), {}, "replication",
     "warning", "replication-lag"),
    ("it can be critical that it is", source(Seconds_Behind_Master="3600"),
     {"critical": {"lag": "1h"}}, "replication", "critical", "replication-lag"),
    ("one that ended with an error is critical", source(**BROKEN), {}, "replication", "critical",
     "replication-broken"),
    ("a damaged relay log has a cause of its own", source(**RELAY), {}, "replication", "critical",
     "relay-log"),
    ("one that was stopped is a warning, whatever went before",
     source(**{**BROKEN, "Slave_IO_Running": "No"}), {}, "replication", "warning",
     "replication-stopped"),
    ("a replica that takes no writes is ok",
     replace(source(), written=Written.READ_ONLY), {"write": True}, "", "ok", ""),
    ("a server that takes no writes and is no replica is a warning",
     replace(WHOLE, written=Written.READ_ONLY), {"write": True}, "", "warning", "read-only"),
    ("a write without an answer is critical", replace(WHOLE, written=Written.TIMEOUT),
     {"write": True}, "", "critical", "write-timeout"),
    ("a write that fails is critical", replace(WHOLE, written=Written.FAILED), {"write": True}, "",
     "critical", "write-failed"),
    ("a write that waits for a lock is a warning", replace(WHOLE, written=Written.LOCKED),
     {"write": True}, "", "warning", "write-locked"),
    ("a server that reads and says no more is a warning", replace(WHOLE, complete=False), {}, "",
     "warning", "timeout"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "found", "given", "part", "status", "cause"), CASES, ids=[c[0] for c in CASES]
)
async def test_what_an_answer_means(
    sentence: str, found: MariadbAnswer, given: dict[str, Any], part: str, status: str, cause: str
) -> None:
    finding = (await findings(found, **given))[part]
    assert (finding.status, finding.cause) == (status, cause), finding
    assert finding.cause in MARIADB.causes or not finding.cause
    assert set(finding.measurements) <= set(MARIADB.measurements)


@pytest.mark.parametrize(
    ("trouble", "answered", "status", "cause"),
    [
        (Trouble.REFUSED, True, "critical", "refused"),
        # Rather a wrong path than a lost socket.
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
    options = MariadbOptions.model_validate({"type": "mariadb"})
    none = MariadbAnswer(trouble=trouble, why="\x1b[31mred\nERROR")
    (finding,) = await judge(options, machine, UNIT, none, Said())
    assert (finding.status, finding.cause) == (status, cause)
    assert finding.summary.isprintable()


def test_a_closer_look_is_believed_only_of_the_same_start_while_all_was_well() -> None:
    fine = Finding(subject="mariadb.service", status=Status.OK)
    crashed = Finding(subject="mariadb.service start", status=Status.WARNING, cause="recovered")
    sample = Sample(at=100.0, start="1" * 32, findings=(fine, crashed))
    assert sample.holds(UNIT, 129.0, 30.0)
    assert not sample.holds(UNIT, 130.0, 30.0)
    assert not replace(sample, start="2" * 32).holds(UNIT, 129.0, 30.0)
    full = replace(fine, subject="mariadb.service connections", status=Status.WARNING)
    assert not replace(sample, findings=(fine, full)).holds(UNIT, 129.0, 30.0)


def test_nothing_is_written_unless_it_is_certain_that_it_is_no_replica() -> None:
    assert may_write(WHOLE)
    assert not may_write(source())
    assert not may_write(replace(WHOLE, sources=None))
    assert not may_write(replace(WHOLE, variables={"read_only": "ON"}))
    assert not may_write(replace(WHOLE, variables={}))


def test_only_binary_logs_are_counted(tmp_path: Path) -> None:
    for name in ("mariadb-bin.000001", "mariadb-bin.000002", "mariadb-bin.index", "other.000001"):
        (tmp_path / name).write_text("12345")
    assert measure_binlogs(str(tmp_path / "mariadb-bin")) == (2, 10)
