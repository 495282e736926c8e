"""What is seen of files, and what it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.core.model import Finding, Seconds, Status
from agent.core.units import format_duration, format_size
from agent.host.files import Entry, name_group, name_owner

if TYPE_CHECKING:
    from agent.checks.file import FileLimits, FileOptions

CAUSES = {
    "missing": "It is not there.",
    "present": "It is there, and should not be.",
    "old": "It was not written for longer than `age`: a backup that did not run.",
    "small": "It is smaller than `smaller`.",
    "large": "It is larger than `larger`.",
    "growing": "It grew by more than `growth`.",
    "owner": "It belongs to another user or group.",
    "permissions": "It has other permissions.",
    "changed": "Its content is another.",
    "nul": "It has a hole of NUL bytes.",
    "unreadable": "It cannot be looked at, or read where that is needed.",
    "hung": "Its filesystem does not answer.",
}

MEASUREMENTS = {
    "files_count": "Files that the path stands for.",
    "age_seconds": "Time since the newest was written.",
    "size_bytes": "Size of the newest.",
    "total_bytes": "Size of all together.",
    "growth_bytes": "By how much all together grew within the time of `growth`.",
}

#: A file that was written to within this may not be complete: it is not yet called small.
_SETTLE: Seconds = 60.0


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a look found."""

    entries: Sequence[Entry]
    #: Path -> SHA-256, of those that must be read.
    digests: Mapping[str, str] = field(default_factory=dict)
    #: Path -> where a hole begins.
    holes: Mapping[str, int] = field(default_factory=dict)
    #: Path -> why it cannot be looked at.
    errors: Mapping[str, str] = field(default_factory=dict)


def judge(
    options: FileOptions,
    seen: Seen,
    *,
    wall: float,
    growth: Mapping[Seconds, float] | None = None,
    changed: Mapping[str, Seconds] | None = None,
) -> Finding:
    """The finding on what was seen. `wall`: the wall clock, as files count."""
    entries = sorted(seen.entries, key=lambda each: -each.changed)
    newest = next((entry for entry in entries if entry.regular), entries[0] if entries else None)
    measurements: dict[str, float] = {"files_count": float(len(entries))}
    if newest is not None:
        files = [entry for entry in entries if entry.regular]
        measurements["age_seconds"] = max(0.0, round(wall - newest.changed, 1))
        if newest.regular:
            measurements["size_bytes"] = float(newest.size)
            measurements["total_bytes"] = float(sum(entry.size for entry in files))
    if growth:
        measurements["growth_bytes"] = round(growth[max(growth)])
    status, cause, summary = _judge(
        options, seen, entries, newest, wall, growth or {}, changed or {}
    )
    facts = {"Newest": newest.path} if newest is not None and newest.path != options.path else {}
    return make_finding(options, status, cause, summary, facts=facts, measurements=measurements)


def _judge(
    options: FileOptions,
    seen: Seen,
    entries: Sequence[Entry],
    newest: Entry | None,
    wall: float,
    growth: Mapping[Seconds, float],
    changed: Mapping[str, Seconds],
) -> tuple[Status, str, str]:
    path = options.path
    if newest is None:
        if options.exists:
            return Status.CRITICAL, "missing", f"{path} is not there"
        return Status.OK, "", f"{path} is not there, as it should be"
    if not options.exists:
        return Status.CRITICAL, "present", f"{newest.path} is there, and should not be"
    critical = _judge_limits(options.critical, entries, newest, wall, growth)
    critical = critical or _judge_state(options, seen, entries)
    if critical:
        return Status.CRITICAL, *critical
    if seen.errors:
        where, why = next(iter(seen.errors.items()))
        return Status.UNKNOWN, "unreadable", f"cannot read {where}: {why}"
    if warning := _judge_limits(options.warning, entries, newest, wall, growth):
        return Status.WARNING, *warning
    if changed:
        where, ago = min(changed.items(), key=lambda each: each[1])
        return Status.WARNING, "changed", f"{where} has changed {format_duration(ago)} ago"
    if seen.holes:
        where, begin = next(iter(seen.holes.items()))
        return Status.WARNING, "nul", f"{where} has a hole of NUL bytes at {format_size(begin)}"
    age = format_duration(max(0.0, wall - newest.changed))
    size = f"{format_size(newest.size)} long, " if newest.regular else ""
    return Status.OK, "", f"{newest.path} is {size}written {age} ago"


def _judge_limits(
    limits: FileLimits,
    entries: Sequence[Entry],
    newest: Entry,
    wall: float,
    growth: Mapping[Seconds, float],
) -> tuple[str, str] | None:
    """Cause and summary of the first limit that is passed."""
    age = wall - newest.changed
    if limits.age is not None and age > limits.age:
        allowed = format_duration(limits.age)
        summary = f"{newest.path} was written {format_duration(age)} ago, {allowed} is allowed"
        return "old", summary
    # Newest first. One that is still being written has not its size yet.
    complete = [e for e in entries if e.regular and wall - e.changed >= _SETTLE]
    if limits.smaller is not None and complete and complete[0].size < limits.smaller:
        small, least = complete[0], format_size(limits.smaller)
        return "small", f"{small.path} is {format_size(small.size)} long, less than {least}"
    largest = max((e for e in entries if e.regular), key=lambda each: each.size, default=newest)
    if limits.larger is not None and largest.regular and largest.size > limits.larger:
        most = format_size(limits.larger)
        return "large", f"{largest.path} is {format_size(largest.size)} long, more than {most}"
    if limits.growth is not None and growth[limits.growth.seconds] > limits.growth.amount:
        grown, within = growth[limits.growth.seconds], format_duration(limits.growth.seconds)
        what = largest.path if len(entries) == 1 else f"{len(entries)} files"
        return "growing", f"{what} grew by {format_size(grown)} in {within}"
    return None


def _judge_state(
    options: FileOptions, seen: Seen, entries: Sequence[Entry]
) -> tuple[str, str] | None:
    """Cause and summary of the first file that is not as it should be."""
    for entry in entries:
        owner, group = name_owner(entry.owner), name_group(entry.group)
        if options.owner not in (None, owner, str(entry.owner)):
            return "owner", f"{entry.path} belongs to {owner}, not to {options.owner}"
        if options.group not in (None, group, str(entry.group)):
            return "owner", f"{entry.path} is of group {group}, not of {options.group}"
        if options.permissions and entry.permissions != int(options.permissions, 8):
            wanted = f"{int(options.permissions, 8):04o}"
            summary = f"{entry.path} has permissions {entry.permissions:04o}, not {wanted}"
            return "permissions", summary
        found = seen.digests.get(entry.path)
        if options.sha256 and found and found != options.sha256:
            return "changed", f"{entry.path} has another content: its sha256 is {found}"
    return None


def make_finding(
    options: FileOptions,
    status: Status,
    cause: str,
    summary: str,
    *,
    facts: Mapping[str, str] | None = None,
    measurements: Mapping[str, float] | None = None,
) -> Finding:
    return Finding(
        subject=options.path,
        status=status,
        cause=cause,
        summary=summary,
        facts=facts or {},
        measurements=measurements or {},
        resource=f"file:{options.path}",
    )
