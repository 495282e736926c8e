"""`type: mariadb`: a MariaDB server reads and writes, and what it logs of its start is in order.

The server is asked by its own client, in one child a look; `mariadb_log` knows what it logs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent.checks import database
from agent.checks.check import CheckType, Proposal
from agent.checks.database import Sample, Subject, Unit, UnitName, UserName
from agent.checks.mariadb_log import (
    BEGINS,
    ONLY_BEGUN,
    RECOVERING,
    RELAY_LOG,
    SIGNATURES,
    TOO_LARGE,
    Said,
    get_tables,
    note_tables,
    read_log,
)
from agent.checks.values import AbsolutePath, Duration, Percent, Size
from agent.core.model import Evidence, Finding, Status
from agent.core.units import format_duration, format_size
from agent.host.database import Asked, Written
from agent.host.machine import Machine
from agent.host.mariadb import WAITS_FOR_ROOM, MariadbAnswer, ask_mariadb, quote_table
from agent.host.space import Hung
from agent.host.startlog import StartLog
from agent.host.text import fit_line

CAUSES = {
    **database.CAUSES,
    "aria-control": "It does not start: the control file of its Aria tables is damaged.",
    "aria-log": "It does not start: the log of its Aria tables is damaged.",
    "start-hangs": "It has been starting for over a minute and logs nothing.",
    "redo-header": "It does not start: the redo log of InnoDB is missing, empty or damaged.",
    "prepared-transactions": "It does not start: transactions were prepared, and the binary log "
    "that knows their end is missing.",
    "binlog-index": "It does not start: the index of its binary logs names what is not there.",
    "log-directory": "It does not start: the directory of its binary logs is missing, or may not "
    "be written to.",
    "disk-full-waiting": "It reads, and all writes wait until a full disk has room.",
    "binlog-truncated": "It was started with a binary log that was cut off: its last transaction "
    "was rolled back.",
    "crashed-table": "A table is marked as crashed or cannot be read.",
    "replication-broken": "It is a replica, and replication ended with an error.",
    "replication-stopped": "It is a replica, and replication was stopped.",
    "replication-lag": "It is a replica, and is behind by more than the limit.",
    "relay-log": "It is a replica, and its relay log is damaged.",
    "blocked": "Queries wait for locks for longer than the limit.",
    "binlogs": "Its binary logs take more room than the limit.",
}

MEASUREMENTS = {
    "connections_count": "Connections that are taken.",
    "connections_limit_count": "Its `max_connections`.",
    "connections_percent": "The share of them that is taken.",
    "uptime_seconds": "Time since it was started.",
    "blocked_count": "Queries that wait for a lock.",
    "blocked_seconds": "How long the first of them has waited.",
    "replication_lag_seconds": "How far it is behind, as it says itself.",
    "binlogs_bytes": "What its binary logs take.",
    "binlogs_count": "How many there are.",
}


#: Seconds of a start without a line after its first until it counts as hanging.
_HANGS = 60.0
#: Longest that the directory of the binary logs is waited for, in seconds.
_PATIENCE = 1.0


class MariadbLimits(BaseModel):
    """When it needs a look."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connections: Percent | None = Field(
        default=None, description="So many of its connections are taken."
    )
    lag: Duration | None = Field(default=None, description="It is this far behind, as a replica.")
    blocked: Duration | None = Field(
        default=None, description="A query has waited for a lock for so long."
    )
    binlogs: Size | None = Field(
        default=None, description="Its binary logs take more than this: `20G`."
    )


class MariadbWarnings(MariadbLimits):
    """When it will need a look; what is left out keeps its default."""

    connections: Percent | None = Field(
        default=85.0, description="So many of its connections are taken."
    )
    lag: Duration | None = Field(default=300.0, description="It is this far behind, as a replica.")
    blocked: Duration | None = Field(
        default=30.0, description="A query has waited for a lock for so long."
    )


class MariadbCriticals(MariadbLimits):
    """When it fails its users; what is left out keeps its default."""

    connections: Percent | None = Field(
        default=100.0, description="So many of its connections are taken."
    )


class MariadbOptions(database.DatabaseOptions):
    """A MariaDB server on this host."""

    type: Literal["mariadb"]
    unit: UnitName = Field(default="mariadb.service", description="The unit that runs it.")
    socket: AbsolutePath = Field(
        default="/run/mysqld/mysqld.sock", description="Where it is asked."
    )
    user: UserName = Field(
        default="mysql",
        description="The user of this host, and by the same name of the server, that asks; the "
        "server knows him by `unix_socket`.",
    )
    warning: MariadbWarnings = Field(
        default_factory=MariadbWarnings, description="Limits of `warning`."
    )
    critical: MariadbCriticals = Field(
        default_factory=MariadbCriticals, description="Limits of `critical`."
    )

    @model_validator(mode="after")
    def _check_order(self) -> MariadbOptions:
        database.check_order(self.warning, self.critical)
        return self


async def look(options: MariadbOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding on the server, and further ones on its parts. Raises Unavailable."""
    return await database.look_at(_KIND, options, machine)


async def _ask(options: MariadbOptions) -> tuple[MariadbAnswer, Said]:
    return await ask_mariadb(_asked(options)), Said()


def _open_log(options: MariadbOptions, machine: Machine, unit: Unit) -> StartLog:
    file = options.log or machine.memory.get("log") or ""
    return StartLog(machine=machine, state=unit.state, file=file, begins=BEGINS)


async def _judge_down(options: MariadbOptions, machine: Machine, unit: Unit) -> Finding:
    log = _open_log(options, machine, unit)
    finding = await database.judge_down(unit, log, SIGNATURES, RECOVERING)
    return await _judge_hanging(unit, finding, log)


def _asked(options: MariadbOptions, **more: bool) -> Asked:
    return Asked(socket=options.socket, user=options.user, seconds=options.answer_within, **more)


async def _look_closely(
    options: MariadbOptions, machine: Machine, unit: Unit, sample: Sample | None
) -> tuple[MariadbAnswer, Said]:
    """Everything that the server and its log say."""
    said = await read_log(machine, unit, _open_log(options, machine, unit))
    # A replica is never written to, so what it is must be known before: by an earlier look at this
    # same start of it, or else by asking once more.
    known = sample is not None and sample.start == unit.start and may_write(sample.kept)
    answer = await ask_mariadb(
        _asked(options, deep=True, write=options.write and known), said.tables
    )
    if options.write and answer.trouble is None and answer.complete and may_write(answer):
        if not known:
            answer = _add(answer, await ask_mariadb(_asked(options, write=True)))
        if answer.written is Written.ABSENT:
            answer = _add(answer, await ask_mariadb(_asked(options, write=True, make=True)))
    note_tables(machine, answer, said)
    if answer.trouble is None:
        machine.memory.put("answered", True)
        if "log_error" in answer.variables:
            machine.memory.put("log", _find_log(answer.variables))
    return answer, said


def may_write(answer: MariadbAnswer) -> bool:
    """Whether it is certain that this server is no replica of another one."""
    return answer.sources == () and answer.variables.get("read_only") == "OFF"


def _add(answer: MariadbAnswer, later: MariadbAnswer) -> MariadbAnswer:
    if later.trouble is not None:
        return replace(answer, written=Written.TIMEOUT, write_error=later.why)
    return replace(answer, written=later.written, write_error=later.write_error)


def _find_log(variables: Mapping[str, str]) -> str:
    """The file of `log_error`; empty: it logs to the journal."""
    name = variables.get("log_error", "")
    return str(PurePosixPath(variables.get("datadir", "/")) / name) if name else ""


async def _judge_hanging(unit: Unit, finding: Finding, log: StartLog) -> Finding:
    """A start that says nothing after its first line for over a minute gets nowhere.

    Seen with an Aria log that was cut to nothing: the server waits for ever, and the unit's own
    time limit is 15 minutes.
    """
    state, clock = unit.state, log.machine.clock
    if finding.cause != "starting" or state is None or not state.left_inactive:
        return finding
    taken = clock.now() - clock.at_monotonic(state.left_inactive)
    if taken < _HANGS:
        return finding
    text = await log.read_attempt()
    if not ONLY_BEGUN.search(text.rstrip()):
        return finding
    summary = (
        f"{unit.name} has been starting for {format_duration(taken)} and logs nothing: "
        "a damaged log of its Aria tables (aria_log.*) shows like this"
    )
    return replace(
        finding, status=Status.CRITICAL, cause="start-hangs", summary=summary, transition=""
    )


async def judge(
    options: MariadbOptions, machine: Machine, unit: Unit, answer: MariadbAnswer, said: Said
) -> tuple[Finding, ...]:
    """The findings on what a server answered."""
    uptime = answer.number("Uptime")
    subject = Subject(
        unit=unit,
        measurements={} if uptime is None else {"uptime_seconds": uptime},
        facts={"Version": answer.variables["version"]} if "version" in answer.variables else {},
    )
    if answer.trouble is not None:
        answered = bool(machine.memory.get("answered"))
        return (
            database.judge_trouble(
                subject, answer.trouble, answer.why, options.socket, answered_before=answered
            ),
        )
    main = await _judge_server(subject, answer, machine, wants_write=options.write)
    now = machine.clock.now()
    began = None
    if unit.state is not None and unit.state.left_inactive:
        began = machine.clock.at_monotonic(unit.state.left_inactive)
    start = database.judge_recovery(
        subject, said.began, since=began, now=now, lasts=options.recovered_for
    )
    parts = [
        main,
        start,
        *_judge_tables(machine, answer),
        *_judge_parts(subject, options, answer),
    ]
    if answer.variables.get("log_bin_basename"):
        parts.append(await _judge_binlogs(subject, options, answer, machine))
    return tuple(parts)


_KIND = database.Kind(ask=_ask, look_closely=_look_closely, judge=judge, judge_down=_judge_down)


async def _judge_server(
    subject: Subject, answer: MariadbAnswer, machine: Machine, *, wants_write: bool
) -> Finding:
    replica = answer.sources is None or bool(answer.sources)
    waits = [waiting for waiting in answer.waiting if waiting.state == WAITS_FOR_ROOM]
    if waits:
        finding = subject.judge(
            Status.CRITICAL,
            "disk-full-waiting",
            f"reads, and its writes wait for room on a disk, for "
            f"{format_duration(max(w.seconds for w in waits))} now",
        )
        paths = [answer.variables.get(n, "") for n in ("datadir", "log_bin_basename", "tmpdir")]
        return await database.blame_room(finding, "", machine, paths)
    failed = database.judge_written(subject, answer.written, answer.write_error, replica=replica)
    if failed is not None:
        return failed
    if not answer.complete:
        summary = "reads, and did not answer everything else in time"
        return subject.judge(Status.WARNING, "timeout", summary)
    said = "reads and writes" if answer.written is Written.DONE else "reads"
    notes = {"Not read": "its own tables: the user may not"} if answer.limited else {}
    if wants_write and answer.written is Written.LEFT_OUT:
        why = "it is a replica" if answer.sources else "whether it is a replica cannot be told"
        notes["Not written"] = why
    return subject.judge(Status.OK, "", said, facts=notes)


def _judge_tables(machine: Machine, answer: MariadbAnswer) -> list[Finding]:
    """One finding for each table that the log complains of, by what the server says of it now."""
    findings = []
    for table, known in get_tables(machine).items():
        wrong = answer.tables.get(table)
        status, cause, summary = Status.OK, "", f"{table} is fine again"
        if wrong:
            status, cause = Status.CRITICAL, "crashed-table"
            summary = f"{table} is damaged: {wrong}"
        elif known == TOO_LARGE:
            status, cause = Status.WARNING, "crashed-table"
            summary = (
                f"the log complains of {table}, which is too large to be checked in a look: "
                f"run CHECK TABLE {quote_table(table)}"
            )
        elif wrong is None:
            status, cause = Status.UNKNOWN, "unavailable"
            summary = f"the log complains of {table}, and it cannot be looked at now"
        findings.append(
            Finding(
                subject=fit_line(table),
                status=status,
                cause=cause,
                summary=fit_line(summary),
            )
        )
    return findings


def _judge_parts(subject: Subject, options: MariadbOptions, answer: MariadbAnswer) -> list[Finding]:
    findings = []
    taken, limit = answer.number("Threads_connected"), answer.number("max_connections")
    if taken is not None and limit:
        # One of them is our own.
        findings.append(
            database.judge_share(
                subject,
                max(0.0, taken - 1),
                limit,
                warning=options.warning.connections,
                critical=options.critical.connections,
            )
        )
    if answer.complete:
        findings.append(_judge_blocked(subject, options, answer))
    findings += [_judge_source(subject, options, source) for source in answer.sources or ()]
    return findings


def _judge_blocked(subject: Subject, options: MariadbOptions, answer: MariadbAnswer) -> Finding:
    waiting = [each for each in answer.waiting if each.state != WAITS_FOR_ROOM]
    longest = max((each.seconds for each in waiting), default=0.0)
    status = database.compare(longest, options.warning.blocked, options.critical.blocked)
    if waiting:
        first = max(waiting, key=lambda each: each.seconds)
        summary = (
            f"has {len(waiting)} queries that wait for locks, the first for "
            f"{format_duration(longest)}: {first.state} ({first.user}, connection {first.id})"
        )
    else:
        summary = "has no query that waits for a lock"
    return subject.part(
        "queries",
        status,
        "" if status is Status.OK else "blocked",
        fit_line(summary),
        measurements={"blocked_count": float(len(waiting)), "blocked_seconds": longest},
    )


def _judge_source(subject: Subject, options: MariadbOptions, source: Mapping[str, str]) -> Finding:
    """The finding on replication from one other server."""
    name = f"replication {source.get('Connection_name', '')}".strip()
    host = fit_line(f"{source.get('Master_Host', '?')}:{source.get('Master_Port', '?')}")
    facts = {"Source": host, "GTID": source.get("Using_Gtid", "")}
    running = (source.get("Slave_IO_Running", ""), source.get("Slave_SQL_Running", ""))
    why = next(
        (
            fit_line(source[f"Last_{thread}_Error"])[:300]
            for thread in ("SQL", "IO")
            if source.get(f"Last_{thread}_Errno", "0") != "0"
        ),
        "",
    )
    status, cause, summary = Status.OK, "", f"follows {host}"
    measurements: dict[str, float] = {}
    if running == ("No", "No"):
        # An error ends one of the two; both end when they are told to.
        status, cause = Status.WARNING, "replication-stopped"
        summary = f"does not follow {host}: it was stopped{f'; before that: {why}' if why else ''}"
    elif running != ("Yes", "Yes") and why:
        status, cause = Status.CRITICAL, "replication-broken"
        if RELAY_LOG.search(why):
            cause = "relay-log"
        summary = f"no longer follows {host}: {why}"
    elif running != ("Yes", "Yes"):
        status, cause = Status.WARNING, "replication-stopped"
        summary = f"does not follow {host}: receiving is {running[0]}, applying {running[1]}"
    elif source.get("Seconds_Behind_Master", "").isdigit():
        lag = float(source["Seconds_Behind_Master"])
        measurements["replication_lag_seconds"] = lag
        status = database.compare(lag, options.warning.lag, options.critical.lag)
        cause = "" if status is Status.OK else "replication-lag"
        summary = f"is {format_duration(lag)} behind {host}" if lag else summary
    return subject.part(name, status, cause, summary, measurements=measurements, facts=facts)


async def _judge_binlogs(
    subject: Subject, options: MariadbOptions, answer: MariadbAnswer, machine: Machine
) -> Finding:
    """Their files are counted: SHOW BINARY LOGS would wait for a full disk, for ever."""
    base = answer.variables["log_bin_basename"]
    try:
        count, size = await machine.space.patience.call(
            f"the binary logs {base}", _PATIENCE, lambda: measure_binlogs(base)
        )
    except (OSError, Hung) as error:
        summary = f"has binary logs that cannot be looked at: {error}"
        return subject.part("binlogs", Status.UNKNOWN, "unavailable", summary)
    status = database.compare(size, options.warning.binlogs, options.critical.binlogs)
    return subject.part(
        "binlogs",
        status,
        "" if status is Status.OK else "binlogs",
        f"has {count} binary logs of {format_size(size)} together",
        measurements={"binlogs_bytes": float(size), "binlogs_count": float(count)},
    )


def measure_binlogs(base: str) -> tuple[int, int]:
    """How many binary logs there are, and their bytes. Raises OSError."""
    directory, name = os.path.split(base)
    count = size = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            if re.fullmatch(re.escape(name) + r"\.[0-9]+", entry.name):
                count += 1
                size += entry.stat().st_size
    return count, size


async def gather(
    options: MariadbOptions, finding: Finding, machine: Machine
) -> tuple[Evidence, ...]:
    """The unit's state and the log of this start only."""
    unit = await database.see_unit(options.unit, machine)
    log = _open_log(options, machine, unit)
    return await database.gather_unit(unit, log, finding, machine)


async def propose(machine: Machine) -> tuple[Proposal, ...]:
    """A check for the server that a unit of Debian's or RHEL's name runs."""
    if machine.systemd is None:
        return ()
    rows = await machine.systemd.units(["mariadb.service"])
    return tuple(
        Proposal(
            name="mariadb",
            options={"type": "mariadb", "unit": row.id},
            why=f"{row.description} is installed, and {row.active_state}.",
        )
        for row in rows
        if row.load_state == "loaded" and row.id == "mariadb.service"
    )


MARIADB = CheckType(
    name="mariadb",
    summary="A MariaDB server reads, writes, and logs nothing alarming of its start.",
    model=MariadbOptions,
    look=look,
    causes=CAUSES,
    measurements=MEASUREMENTS,
    gather=gather,
    defaults={"timeout": "15s"},
    propose=propose,
    speaks="mysql",
    watches=lambda options: database.watch_unit(options.unit),
    names=lambda options: frozenset({options.unit}),
    identity=("unit",),
)
