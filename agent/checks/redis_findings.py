"""What the answers of a Redis server mean: the findings on it and on its parts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from agent.checks import database
from agent.checks.database import Match, Subject, Unit
from agent.checks.redis_options import RedisOptions
from agent.core.model import Finding, Status
from agent.core.units import format_duration, format_size
from agent.host.database import Trouble, Written
from agent.host.machine import Machine
from agent.host.redis import RedisAnswer
from agent.host.text import fit_line

#: What other servers have and this one has not: it recovers from nothing, locks nothing, and only
#: a replica is read-only.
_FOREIGN = frozenset({"recovered", "write-locked", "read-only"})
CAUSES = {
    **{cause: says for cause, says in database.CAUSES.items() if cause not in _FOREIGN},
    "aof-truncated": "It does not start: its append only file breaks off, and it may not cut it.",
    "aof-damaged": "It does not start: its append only file is damaged amid what it holds.",
    "aof-files": "It does not start: the manifest of its append only file is damaged, or names "
    "what is not there.",
    "snapshot-damaged": "It does not start: its snapshot breaks off or is damaged.",
    "snapshot-version": "It does not start: its snapshot was written by a newer version.",
    "data-directory": "It does not start: its data directory is missing, or it may not use it.",
    "log-directory": "It does not start: the directory of its log is missing, or may not be "
    "written to.",
    "port-taken": "It does not start: something else listens on its port.",
    "configuration": "It does not start: it does not understand its configuration.",
    "stop-refused": "It was told to stop and refuses, for it cannot save what it holds.",
    "writes-stopped": "It reads, and refuses writes because it could not save the last ones.",
    "out-of-memory": "It reads, and refuses writes because it holds as much as it may.",
    "memory": "It holds nearly as much as it may, and may drop nothing.",
    "loading": "It has been loading its data for longer than the limit, and serves nobody.",
    "aof-cut": "It was started with an append only file that broke off, and cut it there.",
    "not-saved": "Its last snapshot, or its last write to the append only file, failed.",
    "rejected": "It turned clients away since the last look: all its connections were taken.",
    "replication-down": "It is a replica, and has no link to its master.",
    "replication-lag": "A replica, it or one of its own, is behind by more than the limit.",
}

MEASUREMENTS = {
    "connections_count": "Connections that are taken.",
    "connections_limit_count": "Its `maxclients`.",
    "connections_percent": "The share of them that is taken.",
    "rejected_count": "Clients that were turned away since the last look.",
    "uptime_seconds": "Time since it was started.",
    "loading_seconds": "For how long it has been loading its data.",
    "loading_percent": "How much of its data it has loaded.",
    "memory_bytes": "What it holds, as it counts it against its limit.",
    "memory_limit_bytes": "Its `maxmemory`.",
    "memory_percent": "The share of it that is taken.",
    "unsaved_count": "Changes since its last snapshot.",
    "snapshot_age_seconds": "Time since its last snapshot.",
    "replication_lag_seconds": "How long it has heard nothing of its master, or a replica of it.",
    "link_down_seconds": "For how long it has had no link to its master.",
}

#: Policies by which it drops nothing when it is full (redis.conf, maxmemory-policy).
_KEEPS_ALL = "noeviction"


def judge_loading(subject: Subject, options: RedisOptions, answer: RedisAnswer) -> Finding | None:
    """The finding on a server that loads its data; None where it does not, or does not say."""
    if answer.trouble is not Trouble.STARTING or (loading := answer.loading) is None:
        return None
    status = database.compare(loading.seconds, options.warning.loading, options.critical.loading)
    taken = format_duration(loading.seconds)
    summary = f"loads its data, {loading.percent:.0f}% of them so far, for {taken} now"
    measurements = {"loading_seconds": loading.seconds, "loading_percent": loading.percent}
    subject = replace(subject, measurements={**subject.measurements, **measurements})
    if status is Status.OK:
        transition = "loading its data"
        return subject.judge(Status.UNKNOWN, "starting", summary, transition=transition)
    return subject.judge(status, "loading", summary)


async def judge(
    options: RedisOptions,
    machine: Machine,
    unit: Unit,
    answer: RedisAnswer,
    began: Match | None,
) -> tuple[Finding, ...]:
    """The findings on what a server answered."""
    uptime = answer.number("uptime_in_seconds")
    version = answer.info.get("valkey_version") or answer.info.get("redis_version")
    subject = Subject(
        unit=unit,
        measurements={} if uptime is None else {"uptime_seconds": uptime},
        facts={"Version": fit_line(version)} if version else {},
    )
    if answer.trouble is not None:
        return (_judge_trouble(subject, options, machine, answer),)
    main = await _judge_server(subject, answer, machine, wants_write=options.write)
    state = unit.state
    since = None
    if state is not None and state.left_inactive:
        since = machine.clock.at_monotonic(state.left_inactive)
    start = database.judge_recovery(
        subject, began, since=since, now=machine.clock.now(), lasts=options.recovered_for
    )
    if not answer.info:
        return (main, start)
    parts = (
        _judge_connections(subject, options, answer, machine),
        _judge_memory(subject, options, answer),
        _judge_saving(subject, answer),
        *_judge_replication(subject, options, answer),
    )
    return (main, start, *parts)


def _judge_trouble(
    subject: Subject, options: RedisOptions, machine: Machine, answer: RedisAnswer
) -> Finding:
    assert answer.trouble is not None  # noqa: S101 - the caller looked
    if (loads := judge_loading(subject, options, answer)) is not None:
        return loads
    return database.judge_trouble(
        subject,
        answer.trouble,
        answer.why,
        options.place,
        answered_before=bool(machine.memory.get("answered")),
        place_key="socket" if options.socket else "port",
        user_key="password_file",
    )


async def _judge_server(
    subject: Subject, answer: RedisAnswer, machine: Machine, *, wants_write: bool
) -> Finding:
    if answer.stopped:
        summary = f"reads, and refuses writes as it cannot save them: {fit_line(answer.stopped)}"
        finding = subject.judge(Status.CRITICAL, "writes-stopped", summary)
        paths = [answer.settings.get("dir", "")]
        return await database.blame_room(finding, answer.stopped, machine, paths)
    if answer.out_of_memory:
        summary = f"reads, and refuses writes: {fit_line(answer.out_of_memory)}"
        return subject.judge(Status.CRITICAL, "out-of-memory", summary)
    failed = database.judge_written(subject, answer.written, answer.write_error, replica=False)
    if failed is not None:
        return failed
    if not answer.complete:
        summary = "reads, and did not answer everything else in time"
        return subject.judge(Status.WARNING, "timeout", summary)
    notes = {"Not read": fit_line(answer.limited)} if answer.limited else {}
    if wants_write and answer.written is Written.LEFT_OUT:
        notes["Not written"] = fit_line(answer.write_error)
    said = "reads and writes" if answer.written is Written.DONE else "reads"
    return subject.judge(Status.OK, "", said, facts=notes)


def _judge_connections(
    subject: Subject, options: RedisOptions, answer: RedisAnswer, machine: Machine
) -> Finding:
    # One of them is our own.
    taken = max(0.0, (answer.number("connected_clients") or 0.0) - 1)
    limit = answer.number("maxclients") or _as_number(answer.settings.get("maxclients", ""))
    finding = database.judge_share(
        subject,
        taken,
        limit,
        warning=options.warning.connections,
        critical=options.critical.connections,
    )
    total = answer.number("rejected_connections") or 0.0
    # It counts from its start on, so that what was before the first look is no news.
    before = machine.memory.notes.get("rejected")
    machine.memory.notes["rejected"] = (subject.unit.start, total)
    grown = total - before[1] if before is not None and before[0] == subject.unit.start else 0.0
    finding = replace(finding, measurements={**finding.measurements, "rejected_count": grown})
    if grown <= 0 or finding.status is not Status.OK:
        return finding
    summary = f"{finding.summary}, and turned {grown:.0f} clients away since the last look"
    return replace(finding, status=Status.WARNING, cause="rejected", summary=summary)


def _as_number(text: str) -> float:
    return float(text) if text.isdecimal() else 0.0


def _judge_memory(subject: Subject, options: RedisOptions, answer: RedisAnswer) -> Finding:
    used = answer.number("used_memory") or 0.0
    # What replicas and the append only file have yet to take does not count.
    used = max(0.0, used - (answer.number("mem_not_counted_for_evict") or 0.0))
    limit = answer.number("maxmemory") or 0.0
    measurements = {"memory_bytes": used}
    if not limit:
        summary = f"holds {format_size(used)}, without a limit of its own"
        return subject.part("memory", Status.OK, "", summary, measurements=measurements)
    percent = round(100 * used / limit, 1)
    measurements |= {"memory_limit_bytes": limit, "memory_percent": percent}
    policy = answer.info.get("maxmemory_policy", "")
    status = Status.OK
    if policy == _KEEPS_ALL:
        status = database.compare(percent, options.warning.memory, options.critical.memory)
    says = "may drop nothing" if policy == _KEEPS_ALL else f"drops keys by {fit_line(policy)}"
    summary = f"holds {format_size(used)} of {format_size(limit)}, and {says}"
    cause = "" if status is Status.OK else "memory"
    return subject.part("memory", status, cause, summary, measurements=measurements)


def _judge_saving(subject: Subject, answer: RedisAnswer) -> Finding:
    """The finding on whether what it holds gets to disk."""
    failed = [
        words
        for name, words in (
            ("rdb_last_bgsave_status", "its last snapshot"),
            ("aof_last_write_status", "its last write to the append only file"),
            ("aof_last_bgrewrite_status", "the last rewriting of its append only file"),
        )
        if answer.info.get(name, "ok") != "ok"
    ]
    measurements = {}
    unsaved, saved = (
        answer.number("rdb_changes_since_last_save"),
        answer.number("rdb_last_save_time"),
    )
    if unsaved is not None:
        measurements["unsaved_count"] = unsaved
    server_time = answer.number("server_time_usec")
    if saved and server_time:
        measurements["snapshot_age_seconds"] = max(0.0, round(server_time / 1e6 - saved, 1))
    if failed:
        summary = f"did not get to disk: {' and '.join(failed)} failed; its log says why"
        return subject.part(
            "saving", Status.WARNING, "not-saved", summary, measurements=measurements
        )
    how = [
        words
        for words, kept in (
            ("an append only file", answer.info.get("aof_enabled") == "1"),
            ("snapshots", True),
        )
        if kept
    ]
    summary = f"has {' and '.join(how)} that did not fail"
    return subject.part("saving", Status.OK, "", summary, measurements=measurements)


def _judge_replication(
    subject: Subject, options: RedisOptions, answer: RedisAnswer
) -> list[Finding]:
    if answer.info.get("role") == "slave":
        return [_judge_master(subject, options, answer)]
    findings = []
    for name, value in answer.info.items():
        if re.fullmatch(r"slave\d+", name):
            fields = dict(part.partition("=")[::2] for part in value.split(","))
            findings.append(_judge_replica(subject, options, fields))
    return findings


def _judge_master(subject: Subject, options: RedisOptions, answer: RedisAnswer) -> Finding:
    """The finding of a replica on its master."""
    info = answer.info
    host = fit_line(f"{info.get('master_host', '?')}:{info.get('master_port', '?')}")
    if info.get("master_link_status") != "up":
        if info.get("master_sync_in_progress") == "1":
            summary = f"copies all data of {host}"
            return replace(
                subject.part("replication", Status.UNKNOWN, "starting", summary),
                transition="copying its master's data",
            )
        # -1: there was no link since it was started.
        down = answer.number("master_link_down_since_seconds") or 0.0
        if down < 0:
            down = answer.number("uptime_in_seconds") or 0.0
        return subject.part(
            "replication",
            database.compare(down, options.warning.link, options.critical.link),
            "replication-down" if down >= (options.warning.link or 0) else "",
            f"has had no link to {host} for {format_duration(down)}",
            measurements={"link_down_seconds": down},
        )
    silent = answer.number("master_last_io_seconds_ago") or 0.0
    return _judge_lag(subject, options, "replication", silent, "has heard nothing of", host)


def _judge_replica(subject: Subject, options: RedisOptions, fields: Mapping[str, str]) -> Finding:
    """The finding of a master on one of its replicas."""
    host = fit_line(f"{fields.get('ip', '?')}:{fields.get('port', '?')}")
    name = f"replica {host}"
    if fields.get("state") != "online":
        return subject.part(name, Status.OK, "", f"sends all its data to {host}")
    lag = _as_number(fields.get("lag", ""))
    return _judge_lag(subject, options, name, lag, "has heard nothing of its replica", host)


def _judge_lag(
    subject: Subject, options: RedisOptions, name: str, lag: float, words: str, host: str
) -> Finding:
    status = database.compare(lag, options.warning.lag, options.critical.lag)
    cause = "" if status is Status.OK else "replication-lag"
    summary = f"{words} {host} for {format_duration(lag)}" if cause else f"is in touch with {host}"
    return subject.part(name, status, cause, summary, measurements={"replication_lag_seconds": lag})
