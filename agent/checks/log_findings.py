"""What the state of a log and the lines in it mean."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agent.checks.lines import Verdict
from agent.checks.values import Rate
from agent.core.model import Finding, Seconds, Status
from agent.core.units import format_duration, format_size
from agent.host.files import name_group, name_owner
from agent.host.holders import Holder

CAUSES = {
    "directory": "The directory that it should be in is not there.",
    "missing": "It is not there, and it is `required`.",
    "deleted": "It was deleted, and a process still writes to what has no name any more.",
    "silent": "A line for the system's logger did not arrive in it (`canary`).",
    "growing": "It grows by more than `growth`.",
    "unreadable": "It cannot be read.",
    "hung": "Its filesystem does not answer.",
    "nul": "It has a hole of NUL bytes: it was truncated under a writer that does not append.",
}

MEASUREMENTS = {
    "matches_count": "Lines of the cause within the time of `more_than`.",
    "size_bytes": "Its size.",
    "growth_bytes": "By how much it grew within the time of `growth`.",
    "behind_bytes": "What was added to it and is not read yet.",
    "skipped_bytes": "What was added to it faster than it can be read, and is never read.",
    "deleted_bytes": "Room on the disk that the deleted file takes.",
    "directory_uid": "Whose the directory was when it was last there, as a number.",
    "directory_gid": "The same of its group.",
    "directory_mode": "The same of its permissions.",
}

#: A rotation leaves a moment without a file, and some writers a while with a deleted one.
SETTLE: Seconds = 30.0

_RANKS = (Status.CRITICAL, Status.UNKNOWN, Status.WARNING, Status.OK)


@dataclass(frozen=True, kw_only=True)
class Log:
    """What is known of one file, for judging it."""

    path: str
    #: As the check has it: how much growth is too much, and whether the file must be there.
    limit: Rate
    required: bool = True
    #: errno of what keeps it from being read; 0: nothing does.
    error: int = 0
    #: Whether its directory is there.
    directory: bool = True
    #: Its user, group and permissions when it was last there; None: it never was.
    last_seen: tuple[int, int, int] | None = None
    #: For how long it has been missing.
    absent: Seconds = 0.0
    #: Deleted files of it that are written to, and for how long.
    held: tuple[tuple[Holder, Seconds], ...] = ()
    size: int = 0
    #: Bytes within the time of `growth`.
    growth: float = 0.0
    behind: int = 0
    skipped: int = 0
    #: Where a hole of NUL bytes begins; None: there is none.
    hole: int | None = None
    writers: tuple[Holder, ...] = ()
    #: Why the canary is thought dead; empty: it is not.
    silent: str = ""


def judge(
    path: str, logs: Sequence[Log], verdict: Verdict | None, *, left_out: int = 0
) -> tuple[Finding, ...]:
    """The findings on files and on the lines in all of them; None: no lines are searched for."""
    files = [judge_log(log) for log in logs]
    if verdict is None:
        verdict = Verdict(status=Status.OK, summary=f"{path} stands for {len(logs)} logs")
        measurements = {}
    else:
        measurements = {"matches_count": round(verdict.count, 2)}
    lines = make_finding(
        path,
        verdict.status,
        verdict.cause,
        verdict.summary,
        facts=verdict.facts,
        measurements=measurements,
    )
    if left_out:
        many = f"{left_out} more files, changed longer ago than those"
        lines = replace(lines, facts={**lines.facts, "Left out": many})
    if [log.path for log in logs] == [path]:
        return (_join(files[0], lines) if measurements else files[0],)
    return (lines, *files)


def _join(file: Finding, lines: Finding) -> Finding:
    """One finding of two on the same subject: the worse, with what the other says."""
    first, second = sorted((file, lines), key=lambda each: _RANKS.index(each.status))
    if first.status is Status.OK:
        first, second = lines, file
    facts = {**second.facts, **first.facts}
    if second.failing:
        facts["Also"] = second.summary
    measurements = {**second.measurements, **first.measurements}
    return replace(first, facts=facts, measurements=measurements)


def judge_log(log: Log) -> Finding:
    """The finding on one file."""
    status, cause, summary = _judge_log(log)
    facts = {}
    if log.writers:
        facts["Written by"] = ", ".join(map(str, log.writers[:3]))
    if log.held:
        facts["Held by"] = ", ".join(str(holder) for holder, _ in log.held[:3])
    if log.skipped:
        facts["Skipped"] = f"{format_size(log.skipped)} that came faster than they can be read"
    measurements = {"size_bytes": float(log.size), "growth_bytes": float(round(log.growth))}
    measurements |= {
        name: float(value)
        for name, value in {
            "behind_bytes": log.behind,
            "skipped_bytes": log.skipped,
            "deleted_bytes": sum(holder.size_bytes for holder, _ in log.held),
        }.items()
        if value
    }
    if cause == "directory" and log.last_seen is not None:
        uid, gid, mode = log.last_seen
        measurements |= {"directory_uid": uid, "directory_gid": gid, "directory_mode": mode}
        facts["Last seen"] = f"of {name_owner(uid)}:{name_group(gid)}, permissions {mode:04o}"
    return make_finding(log.path, status, cause, summary, facts=facts, measurements=measurements)


def _judge_log(log: Log) -> tuple[Status, str, str]:
    path = log.path
    if log.error == errno.ENOENT and log.required and not log.directory:
        directory = os.path.dirname(path)  # noqa: PTH120 - text, no file
        return Status.CRITICAL, "directory", f"the directory {directory} is not there"
    if held := [holder for holder, seconds in log.held if seconds >= SETTLE]:
        size = format_size(sum(holder.size_bytes for holder in held))
        summary = f"{path} was deleted, and {held[0]} still writes to it: {size} that nobody sees"
        return Status.CRITICAL, "deleted", summary
    if log.error == errno.ENOENT:
        if not log.required:
            return Status.OK, "", f"{path} is not there, and need not be"
        if log.absent < SETTLE:
            return Status.OK, "", f"{path} is not there just now"
        return Status.CRITICAL, "missing", f"{path} is not there"
    if log.error:
        why = "it is no file" if log.error == errno.EINVAL else os.strerror(log.error)
        return Status.UNKNOWN, "unreadable", f"cannot read {path}: {why}"
    if log.silent:
        return Status.CRITICAL, "silent", f"{path} {log.silent}"
    if log.growth > log.limit.amount:
        within = format_duration(log.limit.seconds)
        by = f", written by {log.writers[0]}" if log.writers else ""
        summary = f"{path} grew by {format_size(log.growth)} in {within}{by}"
        return Status.CRITICAL, "growing", summary
    if log.hole is not None:
        summary = (
            f"{path} has a hole of NUL bytes at {format_size(log.hole)}: "
            "it was truncated under a writer that does not append"
        )
        return Status.WARNING, "nul", summary
    return Status.OK, "", f"{path} is {format_size(log.size)} long"


def make_finding(
    subject: str,
    status: Status,
    cause: str,
    summary: str,
    *,
    facts: Mapping[str, str] | None = None,
    measurements: Mapping[str, float] | None = None,
) -> Finding:
    return Finding(
        subject=subject,
        status=status,
        cause=cause,
        summary=summary,
        facts=facts or {},
        measurements=measurements or {},
        resource=f"file:{subject}",
    )
