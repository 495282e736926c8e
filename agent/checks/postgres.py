"""`type: postgres`: a PostgreSQL server reads and writes, and what it logs is in order.

The server is asked by its own client, in one child a look; `postgres_log` knows what it logs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from agent.checks import database
from agent.checks.check import CheckType, Proposal
from agent.checks.database import Sample, Subject, Unit, UnitName, UserName, compare
from agent.checks.postgres_log import BEGINS, RECOVERING, SIGNATURES, Said, read_log
from agent.checks.values import AbsolutePath, Duration, Percent, Size
from agent.core.model import Evidence, Finding, Status
from agent.core.units import format_duration, format_size
from agent.errors import Unavailable
from agent.host.database import Asked, Written
from agent.host.machine import Machine
from agent.host.postgres import PostgresAnswer, ask_postgres, read_number
from agent.host.postgres_cluster import find_cluster, list_clusters
from agent.host.startlog import StartLog
from agent.host.text import fit_line

CAUSES = {
    **database.CAUSES,
    "pid-file": "It does not start: its `postmaster.pid` names a process that runs.",
    "checkpoint": "It does not start: its write-ahead log has no valid checkpoint.",
    "wal-full": "It ended, or does not start: its write-ahead log has no room.",
    "log-directory": "It does not start: it may not write its log.",
    "wal-tail": "It recovered from a crash, and what it recovered from ends in damage, or in what "
    "a segment held before.",
    "replication-broken": "It is a replica, and what it needs next is no longer to be had.",
    "replication-stopped": "It is a replica, and receives nothing, or replays nothing.",
    "replication-lag": "It, or a replica of it, is behind by more than the limit.",
    "abandoned-slot": "A replication slot that nobody uses holds write-ahead log.",
    "slot-lost": "A replication slot lost write-ahead log that its replica needs.",
    "archive-failing": "Its write-ahead log cannot be archived, and is kept until it can.",
    "wal": "Its write-ahead log takes more room than the limit, or than its settings allow for.",
    "blocked": "Queries wait for locks for longer than the limit.",
}

MEASUREMENTS = {
    "connections_count": "Connections that are taken.",
    "connections_limit_count": "Its `max_connections`, less what is reserved for superusers.",
    "connections_percent": "The share of them that is taken.",
    "uptime_seconds": "Time since it was started.",
    "blocked_count": "Queries that wait for a lock.",
    "blocked_seconds": "How long the first of them has waited.",
    "replication_lag_seconds": "How far it is behind, or the last of its replicas.",
    "replicas_count": "Replicas that are connected.",
    "wal_bytes": "What its write-ahead log takes.",
    "wal_count": "Of how many segments it is.",
    "slot_bytes": "Write-ahead log that is kept for a slot.",
    "slot_idle_seconds": "How long nobody is known to have used a slot.",
}

#: Debian's unit that starts and stops them together.
_ALL_CLUSTERS = "postgresql.service"
#: How often over its own settings a write-ahead log may be: max_wal_size is a soft limit.
_SPARE = 2.0
#: What the log of a replica says when what it needs is gone from the server that it follows.
_REMOVED = re.compile(
    r"requested WAL segment \w+ has already been removed|could not receive data from WAL stream: "
    r"ERROR:  (?:requested|can no longer)|highest timeline \d+ of the primary is behind"
    r"|requested starting point \S+ on timeline|new timeline \d+ forked off current database"
)


def _check_socket(path: str) -> str:
    if not re.fullmatch(r"\.s\.PGSQL\.[0-9]{1,5}", PurePosixPath(path).name):
        raise ValueError(
            f"{path!r} is no socket of PostgreSQL: write for example /run/postgresql/.s.PGSQL.5432"
        )
    return path


def _check_database(name: str) -> str:
    # libpq takes a name with `=`, or one that begins like a URI, for settings of its own.
    if not re.fullmatch(r"[^=:/\\\x00-\x1f]{1,63}", name):
        raise ValueError(f"{name!r} is no name of a database here: write for example postgres")
    return name


class PostgresLimits(BaseModel):
    """When it needs a look."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connections: Percent | None = Field(
        default=None, description="So many of its connections are taken."
    )
    lag: Duration | None = Field(
        default=None, description="It is this far behind as a replica, or a replica of it is."
    )
    blocked: Duration | None = Field(
        default=None, description="A query has waited for a lock for so long."
    )
    wal: Size | None = Field(
        default=None, description="Its write-ahead log takes more than this: `20G`."
    )
    slot: Size | None = Field(
        default=None, description="So much of it is kept for one slot that nobody uses."
    )


class PostgresWarnings(PostgresLimits):
    """When it will need a look; what is left out keeps its default."""

    connections: Percent | None = Field(
        default=85.0, description="So many of its connections are taken."
    )
    lag: Duration | None = Field(
        default=300.0, description="It is this far behind as a replica, or a replica of it is."
    )
    blocked: Duration | None = Field(
        default=30.0, description="A query has waited for a lock for so long."
    )
    slot: Size | None = Field(
        default=2**30, description="So much of it is kept for one slot that nobody uses."
    )


class PostgresCriticals(PostgresLimits):
    """When it fails its users; what is left out keeps its default."""

    connections: Percent | None = Field(
        default=100.0, description="So many of its connections are taken."
    )


class PostgresOptions(database.DatabaseOptions):
    """A PostgreSQL server on this host."""

    type: Literal["postgres"]
    unit: UnitName = Field(
        description="The unit that runs it: `postgresql@15-main.service`, and not the one that "
        "stands for all clusters."
    )
    socket: Annotated[AbsolutePath, AfterValidator(_check_socket)] = Field(
        default="/run/postgresql/.s.PGSQL.5432", description="Where it is asked."
    )
    user: UserName = Field(
        default="postgres",
        description="The user of this host, and by the same name of the server, that asks; the "
        "server knows him by `peer`.",
    )
    database: Annotated[str, AfterValidator(_check_database)] = Field(
        default="postgres", description="The database that is connected to."
    )
    write: bool = Field(
        default=False,
        description="Write too: a message in the write-ahead log, which leaves nothing behind.",
    )
    warning: PostgresWarnings = Field(
        default_factory=PostgresWarnings, description="Limits of `warning`."
    )
    critical: PostgresCriticals = Field(
        default_factory=PostgresCriticals, description="Limits of `critical`."
    )

    @model_validator(mode="after")
    def _check_order(self) -> PostgresOptions:
        database.check_order(self.warning, self.critical)
        return self


async def look(options: PostgresOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding on the server, and further ones on its parts. Raises Unavailable."""
    return await database.look_at(_KIND, options, machine)


async def _ask(options: PostgresOptions) -> tuple[PostgresAnswer, Said]:
    return await ask_postgres(_asked(options), options.database), Said()


def _asked(options: PostgresOptions, **more: bool) -> Asked:
    return Asked(socket=options.socket, user=options.user, seconds=options.answer_within, **more)


async def _look_closely(
    options: PostgresOptions, machine: Machine, unit: Unit, _sample: Sample | None
) -> tuple[PostgresAnswer, Said]:
    """Everything that the server and its log say."""
    said = await read_log(machine, unit, _open_log(options, machine, unit))
    asked = _asked(options, deep=True, write=options.write)
    answer = await ask_postgres(asked, options.database)
    if answer.trouble is None:
        machine.memory.put("answered", True)
        _remember(machine, answer)
    return answer, said


def _remember(machine: Machine, answer: PostgresAnswer) -> None:
    """What is wanted once it is down: its directory, its log, and since when slots are idle."""
    directory = answer.server.get("directory")
    if isinstance(directory, str):
        machine.memory.put("directory", directory)
    if answer.log:
        machine.memory.put("log", str(PurePosixPath(str(directory or "/")) / answer.log))
    elif answer.server.get("collector") == "off":
        machine.memory.forget("log")
    if not answer.complete:
        return
    now, known = machine.clock.now(), machine.memory.get("idle") or {}
    idle = {
        str(slot.get("name")): known.get(str(slot.get("name")), now)
        for slot in answer.slots
        if slot.get("active") is False
    }
    if idle:
        machine.memory.put("idle", idle)
    else:
        machine.memory.forget("idle")


def _open_log(options: PostgresOptions, machine: Machine, unit: Unit) -> StartLog:
    file = options.log or machine.memory.get("log") or ""
    if not file and (cluster := find_cluster(options.unit)) is not None:
        file = cluster.log
    return StartLog(machine=machine, state=unit.state, file=file, begins=BEGINS)


async def _judge_down(options: PostgresOptions, machine: Machine, unit: Unit) -> Finding:
    log = _open_log(options, machine, unit)
    finding = await database.judge_down(unit, log, SIGNATURES, RECOVERING)
    if finding.cause == "down" and await _is_disabled(unit, machine):
        summary = f"{unit.name} was not started since boot: {_ALL_CLUSTERS} is disabled"
        return replace(finding, status=Status.OK, cause="", summary=summary, intended=True)
    directory = machine.memory.get("directory") or ""
    if not directory and (cluster := find_cluster(options.unit)) is not None:
        directory = cluster.directory
    if finding.cause == "wal-full":
        finding = await database.blame_room(
            finding, "", machine, [f"{directory}/pg_wal"] if directory else []
        )
        if idle := machine.memory.get("idle"):
            facts = {**finding.facts, "Slots that nobody uses": fit_line(", ".join(sorted(idle)))}
            finding = replace(finding, facts=facts)
    if finding.cause == "checkpoint":
        # There is no remedy for this, and there must be none.
        steps = (
            f"1. copy {directory or 'the data directory'} to another filesystem (cp -a); "
            "2. restore the last backup with the archived WAL, or promote a replica; "
            "3. only if there is neither: pg_resetwal on the copy, and dump what is left"
        )
        finding = replace(finding, facts={**finding.facts, "What a human does": steps})
    return finding


async def _is_disabled(unit: Unit, machine: Machine) -> bool:
    """Whether it is down since boot because Debian's unit for all clusters is not to start.

    Each cluster counts as enabled all the same: a generator makes that one want it.
    """
    state = unit.state
    if state is None or state.invocation_id or state.left_inactive or machine.systemd is None:
        return False
    if find_cluster(unit.name) is None:
        return False
    try:
        whole = await machine.systemd.unit(_ALL_CLUSTERS)
    except Unavailable:
        return False
    return whole.active_state == "inactive" and whole.unit_file_state.startswith("disabled")


async def judge(
    options: PostgresOptions, machine: Machine, unit: Unit, answer: PostgresAnswer, said: Said
) -> tuple[Finding, ...]:
    """The findings on what a server answered."""
    uptime = read_number(answer.server, "uptime")
    version = answer.server.get("version")
    subject = Subject(
        unit=unit,
        measurements={} if uptime is None else {"uptime_seconds": uptime},
        facts={"Version": fit_line(version)} if isinstance(version, str) else {},
    )
    if unit.state is not None and unit.state.type == "oneshot":
        return (_judge_wrapper(subject),)
    if answer.trouble is not None:
        answered = bool(machine.memory.get("answered"))
        return (
            database.judge_trouble(
                subject, answer.trouble, answer.why, options.socket, answered_before=answered
            ),
        )
    now = machine.clock.now()
    began = None
    if unit.state is not None and unit.state.left_inactive:
        began = machine.clock.at_monotonic(unit.state.left_inactive)
    since = began if said.at is None else said.at
    start = database.judge_recovery(
        subject, said.recovered, since=since, now=now, lasts=options.recovered_for
    )
    parts = _judge_parts(subject, options, answer, machine)
    if answer.following is not None:
        log = _open_log(options, machine, unit)
        parts.append(await _judge_following(subject, options, answer.following, log))
    findings = (_judge_server(subject, answer, wants_write=options.write), start, *parts)
    # What was not answered is not gone.
    return findings if answer.complete else database.recall(machine, options.unit, findings)


_KIND = database.Kind(ask=_ask, look_closely=_look_closely, judge=judge, judge_down=_judge_down)


def _judge_wrapper(subject: Subject) -> Finding:
    units = [cluster.unit for cluster in list_clusters()]
    example = ", ".join(units) or "postgresql@15-main.service"
    return subject.judge(
        Status.UNKNOWN,
        "unavailable",
        f"stands for all clusters and runs none: check each by the unit of its own: {example}",
    )


def _judge_server(subject: Subject, answer: PostgresAnswer, *, wants_write: bool) -> Finding:
    replica = answer.server.get("recovery") is not False
    failed = database.judge_written(subject, answer.written, answer.write_error, replica=replica)
    if failed is not None:
        return failed
    if not answer.complete:
        summary = f"reads, and did not answer everything else: {answer.missing or 'in time'}"
        return subject.judge(Status.WARNING, "timeout", fit_line(summary))
    said = "reads and writes" if answer.written is Written.DONE else "reads"
    notes = {"Not read": f"{', '.join(answer.hidden)}: the user may not"} if answer.hidden else {}
    if wants_write and answer.written is Written.LEFT_OUT:
        notes["Not written"] = "it is a replica"
    return subject.judge(Status.OK, "", said, facts=notes)


def _judge_parts(
    subject: Subject, options: PostgresOptions, answer: PostgresAnswer, machine: Machine
) -> list[Finding]:
    findings = []
    taken, limit = read_number(answer.server, "taken"), read_number(answer.server, "limit")
    if taken is not None and limit:
        findings.append(
            database.judge_share(
                subject,
                taken,
                limit,
                warning=options.warning.connections,
                critical=options.critical.connections,
            )
        )
    if answer.complete:
        findings.append(_judge_blocked(subject, options, answer))
    if answer.replicas:
        findings.append(_judge_replicas(subject, options, answer))
    if answer.wal:
        findings.append(_judge_wal(subject, options, answer.wal))
    if answer.archiver and answer.archiver.get("mode") != "off":
        findings.append(_judge_archiver(subject, answer.archiver))
    idle = machine.memory.get("idle") or {}
    now = machine.clock.now()
    return findings + [
        _judge_slot(subject, options, slot, now - idle.get(str(slot.get("name")), now))
        for slot in answer.slots
    ]


def _judge_blocked(subject: Subject, options: PostgresOptions, answer: PostgresAnswer) -> Finding:
    waits = [(read_number(row, "seconds") or 0.0, row) for row in answer.waiting]
    longest, first = max(waits, key=lambda each: each[0], default=(0.0, {}))
    count = max((read_number(row, "count") or 0.0 for row in answer.waiting), default=0.0)
    status = compare(longest, options.warning.blocked, options.critical.blocked)
    summary = "has no query that waits for a lock"
    if waits:
        who = f"{first.get('user')} in {first.get('database')}, process {first.get('pid')}"
        by = f"{first.get('by_user')}, process {first.get('by')}, {first.get('by_state')}"
        summary = (
            f"has {count:.0f} queries that wait for locks, the first for "
            f"{format_duration(longest)} ({who}), for {by}"
        )
    return subject.part(
        "queries",
        status,
        "" if status is Status.OK else "blocked",
        fit_line(summary),
        measurements={"blocked_count": count, "blocked_seconds": longest},
    )


def _judge_replicas(subject: Subject, options: PostgresOptions, answer: PostgresAnswer) -> Finding:
    """The finding on those who follow this server. One that is gone shows by its slot only."""
    lags = {
        f"{row.get('name')} {row.get('address') or ''}".strip(): read_number(row, "seconds") or 0.0
        for row in answer.replicas
    }
    name, lag = max(lags.items(), key=lambda item: item[1])
    status = compare(lag, options.warning.lag, options.critical.lag)
    summary = f"has {len(answer.replicas)} replicas that follow it"
    if lag:
        summary += f", the last of them, {name}, {format_duration(lag)} behind"
    return subject.part(
        "replicas",
        status,
        "" if status is Status.OK else "replication-lag",
        fit_line(summary),
        measurements={
            "replicas_count": float(len(answer.replicas)),
            "replication_lag_seconds": lag,
        },
    )


async def _judge_following(
    subject: Subject, options: PostgresOptions, row: Mapping[str, Any], log: StartLog
) -> Finding:
    """The finding on a replica."""
    host = fit_line(f"{row.get('host') or '?'}:{row.get('port') or '?'}")
    lag = read_number(row, "seconds") or 0.0
    if row.get("status") == "streaming" and not read_number(row, "bytes"):
        # All that came was replayed; its last transaction may be old because there was no other.
        lag = 0.0
    measurements = {"replication_lag_seconds": lag}
    status, cause, summary = Status.OK, "", f"follows {host}"
    if row.get("paused") is True:
        status, cause = Status.WARNING, "replication-stopped"
        summary = "does not replay what it receives: an operator paused it"
    elif row.get("status") == "streaming":
        status = compare(lag, options.warning.lag, options.critical.lag)
        cause = "" if status is Status.OK else "replication-lag"
        summary = f"is {format_duration(lag)} behind {host}" if lag else summary
    elif row.get("source") is not False:
        status, cause = Status.WARNING, "replication-stopped"
        summary = "does not receive anything from the server that it follows"
        try:
            removed = _REMOVED.search(await log.read_attempt())
        except Unavailable:
            removed = None
        if removed:
            status, cause = Status.CRITICAL, "replication-broken"
            summary = f"cannot follow any more and must be built anew: {fit_line(removed[0])}"
    else:
        summary = f"replays archived logs, the last transaction of {format_duration(lag)} ago"
    return subject.part("replication", status, cause, summary, measurements=measurements)


def _judge_wal(subject: Subject, options: PostgresOptions, row: Mapping[str, Any]) -> Finding:
    size, count = read_number(row, "bytes") or 0.0, read_number(row, "count") or 0.0
    status = compare(size, options.warning.wal, options.critical.wal)
    summary = f"has a write-ahead log of {format_size(size)}"
    allowed = (read_number(row, "most") or 0.0) + (read_number(row, "keep") or 0.0)
    if status is Status.OK and options.warning.wal is None and size > _SPARE * allowed > 0:
        status = Status.WARNING
        summary += (
            f", more than twice what max_wal_size and wal_keep_size allow for "
            f"({format_size(allowed)}): see its slots and its archiving"
        )
    return subject.part(
        "wal",
        status,
        "" if status is Status.OK else "wal",
        summary,
        measurements={"wal_bytes": size, "wal_count": count},
    )


def _judge_archiver(subject: Subject, row: Mapping[str, Any]) -> Finding:
    if row.get("failing") is not True:
        return subject.part("archive", Status.OK, "", "archives its write-ahead log")
    since = read_number(row, "since")
    last = "none ever was" if since is None else f"the last was {format_duration(since)} ago"
    summary = f"cannot archive {row.get('failed')} ({last}), and keeps all that follows"
    return subject.part("archive", Status.WARNING, "archive-failing", fit_line(summary))


def _judge_slot(
    subject: Subject, options: PostgresOptions, row: Mapping[str, Any], idle: float
) -> Finding:
    name, size = fit_line(str(row.get("name"))), read_number(row, "bytes") or 0.0
    measurements = {"slot_bytes": size}
    status, cause = Status.OK, ""
    summary = f"keeps {format_size(size)} of write-ahead log for the slot {name}"
    if row.get("wal_status") == "lost":
        status, cause = Status.WARNING, "slot-lost"
        summary = (
            f"no longer has what the slot {name} needs: build its replica anew, then drop the slot"
        )
    elif row.get("active") is False:
        measurements["slot_idle_seconds"] = idle
        status = compare(size, options.warning.slot, options.critical.slot)
        cause = "" if status is Status.OK else "abandoned-slot"
        summary += f", which nobody uses, for {format_duration(idle)} or longer"
    return subject.part(f"slot {name}", status, cause, summary, measurements=measurements)


async def gather(
    options: PostgresOptions, finding: Finding, machine: Machine
) -> tuple[Evidence, ...]:
    """The unit's state and the log of this start only."""
    unit = await database.see_unit(options.unit, machine)
    log = _open_log(options, machine, unit)
    return await database.gather_unit(unit, log, finding, machine)


async def propose(machine: Machine) -> tuple[Proposal, ...]:
    """A check for each cluster of Debian's, and for a server that runs by RHEL's name."""
    if machine.systemd is None:
        return ()
    clusters = {cluster.unit: cluster for cluster in list_clusters()}
    rows = list(await machine.systemd.units(sorted(clusters))) if clusters else []
    others = ["postgresql.service", "postgresql-[0-9]*.service"]
    rows += [
        row
        for row in await machine.systemd.list_units(others, ["active"])
        if row.sub_state == "running"
    ]
    proposals = []
    for row in rows:
        if row.load_state != "loaded":
            continue
        options: dict[str, object] = {"type": "postgres", "unit": row.id}
        name = "postgres"
        if (cluster := clusters.get(row.id)) is not None:
            name = f"postgres-{cluster.version}-{cluster.name}" if len(clusters) > 1 else name
            socket = cluster.socket.replace("/var/run/", "/run/", 1)
            if socket != PostgresOptions.model_fields["socket"].default:
                options["socket"] = socket
        why = f"{row.description} is installed, and {row.active_state}."
        proposals.append(Proposal(name=name, options=options, why=why))
    return tuple(proposals)


POSTGRES = CheckType(
    name="postgres",
    summary="A PostgreSQL server reads, writes, and logs nothing alarming of its start.",
    model=PostgresOptions,
    look=look,
    causes=CAUSES,
    measurements=MEASUREMENTS,
    gather=gather,
    defaults={"timeout": "15s"},
    propose=propose,
    watches=lambda options: database.watch_unit(options.unit),
    names=lambda options: frozenset({options.unit}),
    identity=("unit",),
)
