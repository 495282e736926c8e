"""What the state of the journal itself means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.core.model import Finding, Seconds, Status
from agent.core.units import format_duration, format_size
from agent.host.journald import PERSISTENT, VOLATILE, Storage

CAUSES = {
    "dead": "journald does not run.",
    "silent": "A line for the system's logger did not arrive in the journal (`canary`).",
    "corrupt": "An archived file of the journal is corrupt.",
    "volatile": "The journal is written to memory, and should be on the disk.",
    "unclean": "journald set a file aside as corrupted or not closed in order, within the hour.",
    "dropping": "journald or rsyslog threw lines away, within five minutes.",
    "suspended": "rsyslog could not write to one of its files, within five minutes.",
    "hung": "The filesystem of the journal does not answer.",
    "unavailable": "The journal cannot be read.",
}

MEASUREMENTS = {
    "matches_count": "Entries of the cause within the time of `more_than`.",
    "disk_bytes": "Room that the journal takes.",
    "files_count": "Its files.",
    "corrupt_count": "Archived files that are corrupt.",
}

#: A file that was set aside is told of for so long.
_UNCLEAN: Seconds = 3600.0
#: After a boot journald writes to memory until /var is there.
_SETTLE: Seconds = 120.0


@dataclass(frozen=True, kw_only=True)
class Health:
    """What is known of the journal itself."""

    storage: Storage
    #: Whether it should be on the disk.
    persistent: bool
    #: The wall clock, and the time since the boot.
    wall: float
    uptime: Seconds
    #: Why journald takes no lines; empty: it does, as far as is known.
    dead: str = ""
    silent: str = ""
    #: Path -> what is wrong.
    corrupt: Mapping[str, str] = field(default_factory=dict)
    #: `dropping`, `suspended` -> the last line that says so.
    troubles: Mapping[str, str] = field(default_factory=dict)


def judge_health(health: Health) -> Finding:
    """The finding on the journal itself."""
    files = health.storage.files
    status, cause, summary = _judge(health)
    size = sum(file.disk_bytes for file in files)
    facts = {"Storage": health.storage.wanted}
    if place := health.storage.writes_to:
        facts["Written to"] = place
    if health.corrupt:
        facts["Corrupt"] = ", ".join(sorted(health.corrupt)[:5])
    return make_finding(
        "journal",
        status,
        cause,
        summary,
        facts=facts,
        measurements={
            "disk_bytes": float(size),
            "files_count": float(len(files)),
            "corrupt_count": float(len(health.corrupt)),
        },
    )


def _judge(health: Health) -> tuple[Status, str, str]:
    if health.dead:
        return Status.CRITICAL, "dead", f"nothing is written to the journal: {health.dead}"
    if health.silent:
        return Status.CRITICAL, "silent", f"the journal does not take lines: {health.silent}"
    if health.corrupt:
        first = sorted(health.corrupt)[0]
        more = f", and {len(health.corrupt) - 1} more" if len(health.corrupt) > 1 else ""
        return Status.CRITICAL, "corrupt", f"{first}{more} is corrupt: {health.corrupt[first]}"
    if why := _find_volatile(health):
        return Status.WARNING, "volatile", why
    recent = [
        (health.wall - file.moved, file.path)
        for file in health.storage.files
        if file.unclean and health.wall - file.moved < _UNCLEAN
    ]
    if recent:
        ago, path = min(recent)
        summary = f"{path} was corrupted or not closed in order, {format_duration(max(0, ago))} ago"
        return Status.WARNING, "unclean", summary
    for cause, line in health.troubles.items():
        return Status.WARNING, cause, f"lines for the logs were lost: {line}"
    size = format_size(sum(file.disk_bytes for file in health.storage.files))
    return Status.OK, "", f"the journal is {size} long in {len(health.storage.files)} files"


def _find_volatile(health: Health) -> str:
    storage = health.storage
    if not health.persistent or storage.writes_to != VOLATILE or health.uptime < _SETTLE:
        return ""
    why = "" if storage.directory else f": there is no {PERSISTENT}"
    return f"the journal is written to {VOLATILE}, which is memory, and should be on the disk{why}"


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
        resource=f"journal:{subject}",
    )
