"""What MariaDB logs: why it does not start, how its start began, and which tables it complains of.

Signatures were taken from MariaDB 10.11 with each of these failures brought about.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.checks import database
from agent.checks.database import Match, Signature, Unit
from agent.host.machine import Machine
from agent.host.mariadb import MariadbAnswer
from agent.host.startlog import StartLog

#: Most tables that are kept in mind.
_MOST_TABLES = 20
#: What is known of a table that the log names: no more than that; it was looked at; it was too
#: large to be looked at in a look.
_COMPLAINED, _LOOKED_AT, TOO_LARGE = "complained", "looked at", "too large"


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


#: Why it does not start, what says most first. One failure brings about further lines: without
#: Aria there is no mysql.plugin, without InnoDB no storage engine.
SIGNATURES = (
    Signature(
        cause="aria-control",
        pattern=_pattern(r"not a valid aria control file|trying to use aria control file"),
        says="does not start: the control file of its Aria tables (aria_log_control) is damaged",
    ),
    Signature(
        cause="aria-log",
        pattern=_pattern(r"Aria engine: log initialization failed|Aria recovery failed"),
        says="does not start: the log of its Aria tables (aria_log.*) is damaged; after a crash "
        "it holds acknowledged rows",
    ),
    Signature(
        cause="redo-header",
        pattern=_pattern(
            r"InnoDB: (?:Invalid log header checksum|File \S*ib_logfile0 was not found"
            r"|\S*ib_logfile0 is empty)"
        ),
        says="does not start: the redo log of InnoDB (ib_logfile0) is missing, empty or damaged",
    ),
    Signature(
        cause="prepared-transactions",
        pattern=_pattern(r"\[ERROR\] Found \d+ prepared transactions"),
        says="does not start: transactions were prepared before a crash, and the binary log that "
        "knows whether they were committed is missing",
    ),
    Signature(
        cause="log-directory",
        pattern=_pattern(r"File '[^']+\.index' not found \(Errcode: (?:2|13)\b"),
        says="does not start: the directory of its binary logs is missing, or may not be used",
    ),
    Signature(
        cause="binlog-index",
        pattern=_pattern(r"Can't init tc log|\[ERROR\] Could not open log file"),
        says="does not start: the index of its binary logs names what is not there",
    ),
)
#: What a start that succeeded may say all the same.
_TRUNCATED = Signature(
    cause="binlog-truncated",
    pattern=_pattern(r"read_log_event\(\): 'Event truncated'"),
    says="was started with a binary log that was cut off: what it had not committed everywhere "
    "was rolled back; compare the last transactions with your replicas and applications",
)
_RECOVERED = Signature(
    cause="recovered",
    pattern=_pattern(
        r"InnoDB: Starting crash recovery|Recovering after a crash|Aria engine: starting recovery"
    ),
    says="crashed and recovered when it was started: see that the last rows are there",
)
RECOVERING = _RECOVERED.pattern
#: Its first line in a log of its own.
BEGINS = re.compile(r"^.*\[Note\] Starting MariaDB .*$|^.* starting as process \d+", re.MULTILINE)
ONLY_BEGUN = re.compile(r"\[Note\] Starting MariaDB [^\n]*\n*\Z")
#: Lines on tables, by their files below the data directory: `./shop/orders.MYI`, `./shop/orders`.
_CRASHED = re.compile(
    r"(?:Index for table|Incorrect key file for table|Table|reading table|for)"
    r" '\./(?P<database>[^'/]+)/(?P<table>[^'/]+?)(?:\.MYI|\.MYD|\.MAI|\.MAD)?'"
    r"(?= is corrupt|; try to repair| is marked as crashed|\s*$)",
    re.MULTILINE,
)
RELAY_LOG = _pattern(
    r"Relay log read failure|Could not parse relay log event|relay log is corrupted"
)


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the log of a start that succeeded said, as far as it was read."""

    #: It recovered from a crash, or cut off a binary log.
    began: Match | None = None
    #: Tables that were complained of; true: since they were last looked at.
    tables: Mapping[str, bool] = field(default_factory=dict)


async def read_log(machine: Machine, unit: Unit, log: StartLog) -> Said:
    """What this start logged since it was last read, with what is remembered of it."""
    began, text = await database.read_start(machine, unit, log, (_TRUNCATED, _RECOVERED))
    known = machine.memory.get("tables") or {}
    tables = known["tables"] if known.get("start") == unit.start else {}
    tables |= dict.fromkeys(find_tables(text), _COMPLAINED)
    tables = dict(list(tables.items())[-_MOST_TABLES:])
    machine.memory.put("tables", {"start": unit.start, "tables": tables})
    return Said(began=began, tables={name: s == _COMPLAINED for name, s in tables.items()})


def get_tables(machine: Machine) -> Mapping[str, str]:
    """The tables that the log of this start complains of, and what is known of each."""
    known: Mapping[str, Any] = machine.memory.get("tables") or {}
    tables: Mapping[str, str] = known.get("tables", {})
    return tables


def note_tables(machine: Machine, answer: MariadbAnswer, said: Said) -> None:
    """Remember which tables were looked at: thoroughly only once, for that may take long."""
    known = machine.memory.get("tables")
    tables = dict(known["tables"])
    for table, thoroughly in said.tables.items():
        if thoroughly and table in answer.tables:
            tables[table] = _LOOKED_AT
        elif thoroughly and answer.trouble is None and not answer.ended:
            tables[table] = TOO_LARGE
    machine.memory.put("tables", {**known, "tables": tables})


def find_tables(log: str) -> list[str]:
    """The tables that a log complains of, `shop.orders`, in the order of their last complaint."""
    found: dict[str, None] = {}
    for match in _CRASHED.finditer(log):
        name = f"{_decode(match['database'])}.{_decode(match['table'])}"
        found.pop(name, None)
        found[name] = None
    return list(found)


def _decode(name: str) -> str:
    """A name as its file has it: other letters than these stand as `@` and four hex digits."""
    return re.sub(r"@([0-9a-f]{4})", lambda match: chr(int(match[1], 16)), name)
