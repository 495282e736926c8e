"""`type: disk`: filesystems have room, and take writes.

What is read is what df shows to an ordinary user. Each filesystem is asked in a thread of its own:
one that hangs is `unknown`, and delays nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent.checks.check import CheckOptions, CheckType, Proposal, StepOptions
from agent.checks.values import AbsolutePath, Duration, Percent, Size
from agent.core.model import Evidence, Finding, Status
from agent.core.units import format_duration, format_size
from agent.errors import Unavailable
from agent.host.machine import Machine
from agent.host.mounts import (
    LOCAL,
    NETWORK,
    Mount,
    Wanted,
    find_mount,
    pick_filesystems,
    read_fstab,
    read_mounts,
)
from agent.host.space import Hung, Usage
from agent.host.survey import OpenDeleted, find_open_deleted, survey
from agent.host.trend import Forecast

CAUSES = {
    "full": "No more than the configured room is left.",
    "held": "It is full of deleted files that processes still have open.",
    "inodes": "No more than the configured number of files can be added, whatever room is left.",
    "read-only": "It takes no writes any more, although it should.",
    "missing": "/etc/fstab wants a filesystem there, and none is mounted.",
    "filling": "At the rate at which it fills, it is full within the configured time.",
    "hung": "It does not answer.",
    "unavailable": "It cannot be asked.",
}

MEASUREMENTS = {
    "used_percent": "How full it is, as df shows it to an ordinary user.",
    "used_bytes": "What is used.",
    "free_bytes": "What an ordinary user can still write.",
    "size_bytes": "Its size.",
    "target_percent": "How full it may be after cleaning.",
    "held_bytes": "What deleted files hold that are still open, where that was looked for.",
    "inodes_used_percent": "Share of its inodes that are used, as `df -i` shows it.",
    "inodes_free_count": "Files that can still be added.",
    "target_inodes_percent": "Share of its inodes that may be used after cleaning.",
    "full_in_seconds": "Time until it is full, at the rate at which it fills.",
    "full_in_low_seconds": "The shortest time that its growth until now makes likely.",
    "full_in_high_seconds": "The longest.",
    "growth_bytes_per_second": "The rate at which it fills.",
}

#: Longest that one filesystem is waited for in a look, in seconds.
_PATIENCE = 3.0
#: Remedies clean down to so many points of percent below the lowest limit.
_MARGIN = 5.0
#: Deleted files that are still open are looked for again after this, and for no longer than this.
_HELD_FOR = 60.0
_HELD_PATIENCE = 1.0
_MOST_HELD = 1000
#: Seconds for finding out what fills a filesystem.
_SURVEY = 5.0


class Limits(BaseModel):
    """When there is too little room. What is written here replaces the default of `used`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    used: Percent | None = Field(
        default=None, description="So much of the room is used, as df shows it."
    )
    free: Size | None = Field(default=None, description="Less than this is left: `1G`.")
    inodes: Percent | None = Field(
        default=None, description="So many of the inodes are used, as df -i shows it."
    )


class Warnings(Limits):
    """When there will be too little room."""

    full_in: Duration | None = Field(
        default=None, description="It is full sooner than this, at the rate at which it fills."
    )


class DiskOptions(CheckOptions):
    """Filesystems that shall have room."""

    type: Literal["disk"]
    path: AbsolutePath | None = Field(
        default=None,
        description="The filesystem that this path lies on; left out: every real filesystem.",
    )
    network: bool = Field(
        default=False, description="Without `path`: mounts from other machines too."
    )
    warning: Warnings = Field(default_factory=Warnings, description="Limits of `warning`.")
    critical: Limits = Field(default_factory=Limits, description="Limits of `critical`.")

    @model_validator(mode="after")
    def _check_order(self) -> DiskOptions:
        warning, critical = limits_of(self.warning, _WARNING), limits_of(self.critical, _CRITICAL)
        for name in ("used", "inodes"):
            low, high = getattr(warning, name), getattr(critical, name)
            if low is not None and high is not None and low > high:
                raise ValueError(
                    f"warning.{name} ({low:g}%) must not be above critical.{name} ({high:g}%)"
                )
        if warning.free and critical.free and warning.free < critical.free:
            raise ValueError("warning.free must not be below critical.free")
        return self


#: Limits of those who write none. Not validated, since they are not as a configuration writes them.
_WARNING = Limits.model_construct(used=85.0, inodes=85.0)
_CRITICAL = Limits.model_construct(used=95.0, inodes=95.0)


def limits_of(written: Limits, default: Limits) -> Limits:
    """The limits in effect: the default share is for those who name no limit of the room."""
    named = written.used is not None or written.free is not None
    return Limits.model_construct(
        used=written.used if named else default.used,
        free=written.free,
        inodes=written.inodes if written.inodes is not None else default.inodes,
    )


async def look(options: DiskOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding for each filesystem."""
    mounts, fstab = read_mounts(), read_fstab()
    patience = min(_PATIENCE, 0.6 * (options.timeout or _PATIENCE))
    if options.path is None:
        chosen = pick_filesystems(mounts, network=options.network)
        lost = _find_missing(mounts, fstab, options.network)
    else:
        # Before anything touches it: what is not mounted has no directories to resolve.
        if wanted := _find_wanted(options.path, fstab, mounts):
            return (_missing(wanted),)
        try:
            path = await machine.space.patience.call(
                f"the path {options.path}", patience, lambda: _resolve(options.path or "/")
            )
        except Hung as error:
            return (_hung(options.path, str(error)),)
        except OSError as error:
            why = f"cannot look at {options.path}: {error.strerror}"
            return (_unavailable(options.path, why),)
        mount = find_mount(mounts, path)
        if mount is None:
            return (_unavailable(options.path, f"cannot tell what {options.path} lies on"),)
        chosen, lost = (mount,), ()
    found = await asyncio.gather(
        *(_look_at(mount, options, machine, fstab, patience) for mount in chosen)
    )
    return (*found, *(_missing(point) for point in lost))


def _resolve(path: str) -> str:
    return os.path.realpath(path, strict=True)


def _find_missing(
    mounts: tuple[Mount, ...], fstab: Mapping[str, Wanted], network: bool
) -> tuple[str, ...]:
    there = {mount.point for mount in mounts}
    kinds = LOCAL | NETWORK if network else LOCAL
    return tuple(
        sorted(
            point
            for point, wanted in fstab.items()
            if point not in there and wanted.at_boot and wanted.kind in kinds
        )
    )


def _find_wanted(path: str, fstab: Mapping[str, Wanted], mounts: tuple[Mount, ...]) -> str:
    """The mount point of fstab that the path should lie on, if it does not; else empty."""
    there = {mount.point for mount in mounts}
    for each in (PurePosixPath(path), *PurePosixPath(path).parents):
        point = str(each)
        if point in there:
            return ""
        wanted = fstab.get(point)
        if wanted is not None and wanted.kind in LOCAL | NETWORK and not wanted.lazy:
            return point
    return ""


async def _look_at(
    mount: Mount,
    options: DiskOptions,
    machine: Machine,
    fstab: Mapping[str, Wanted],
    patience: float,
) -> Finding:
    try:
        usage = await machine.space.ask(mount.point, patience)
    except Hung as error:
        return _hung(mount.point, str(error))
    except OSError as error:
        return _unavailable(mount.point, f"cannot ask {mount.point}: {error.strerror}")
    trend = machine.space.trend(mount)
    trend.add(machine.clock.now(), usage.used_bytes)
    held = await _find_held(mount, usage, options, machine)
    wanted = fstab.get(mount.point)
    first = machine.space.was_read_only(mount)
    intended = wanted.read_only if wanted is not None else first
    said_by = "/etc/fstab says so" if wanted is not None else "it was writable before"
    return judge(
        mount,
        usage,
        options,
        forecast=trend.forecast(usage.free_bytes),
        held=held,
        writable="" if intended else said_by,
    )


async def _find_held(
    mount: Mount, usage: Usage, options: DiskOptions, machine: Machine
) -> tuple[OpenDeleted, ...]:
    """Deleted files that are still open, if there is too little room; nothing where nobody tells.

    To find them, the open files of every process are looked at: not at each look.
    """
    limits = (limits_of(options.warning, _WARNING), limits_of(options.critical, _CRITICAL))
    if not any(_is_full(usage, limit) for limit in limits):
        return ()
    known, now = machine.space.held.get(mount.point), machine.clock.now()
    if known is not None and 0 <= now - known[0] < _HELD_FOR:
        return known[1]
    found: tuple[OpenDeleted, ...] = ()
    with contextlib.suppress(Hung, OSError):
        found = await machine.space.patience.call(
            f"the open files of {mount.point}",
            _HELD_PATIENCE,
            lambda: tuple(find_open_deleted(mount.point, most=_MOST_HELD)),
        )
    machine.space.held[mount.point] = (now, found)
    return found


def judge(
    mount: Mount,
    usage: Usage,
    options: DiskOptions,
    *,
    forecast: Forecast | None = None,
    held: Sequence[OpenDeleted] = (),
    writable: str = "",
) -> Finding:
    """The finding on one filesystem. `writable`: why it should be so; empty: it need not be.

    `held`: deleted files on it that are still open, the largest first.
    """
    warning = limits_of(options.warning, _WARNING)
    critical = limits_of(options.critical, _CRITICAL)
    status, cause, summary = _judge_room(mount, usage, warning, critical)
    facts = {"Filesystem": f"{mount.kind} on {mount.source}"}
    if cause == "full" and held:
        amount = sum(each.size for each in held)
        first = held[0]
        who = f"{first.command} (process {first.pid}{f' of {first.unit}' if first.unit else ''})"
        facts["Held"] = (
            f"{format_size(amount)} by deleted files that are open: {who} has {first.path}"
        )
        if _is_held(mount, usage, amount, status, (warning, critical)):
            cause = "held"
            summary = (
                f"{summary}; {format_size(amount)} are held by deleted files that are open: "
                f"have {who} let go of {first.path}, by a reload or a restart"
            )
    if mount.read_only and writable:
        status, cause = Status.CRITICAL, "read-only"
        summary = f"{mount.point} is read-only, and should not be: {writable}"
    elif mount.read_only:
        status, cause = Status.OK, ""
        summary = f"{mount.point} is read-only, as it is meant to be"
    elif forecast is not None:
        how = (
            f"at the present rate it is full in {format_duration(forecast.full_in)} "
            f"(between {format_duration(forecast.low)} and {format_duration(forecast.high)})"
        )
        limit = options.warning.full_in
        if status is Status.OK and limit is not None and forecast.full_in < limit:
            status, cause = Status.WARNING, "filling"
        summary = f"{summary}; {how}"
    return Finding(
        subject=mount.point,
        status=status,
        cause=cause,
        summary=summary,
        measurements={
            **_measurements(usage, warning, critical, forecast),
            **({"held_bytes": float(sum(each.size for each in held))} if held else {}),
        },
        facts=facts,
        resource=f"filesystem:{mount.point}",
    )


def _is_held(
    mount: Mount, usage: Usage, amount: int, status: Status, limits: tuple[Limits, Limits]
) -> bool:
    """Whether there would be room enough without what deleted files hold."""
    amount = min(amount, usage.used_bytes)
    without = replace(
        usage, used_bytes=usage.used_bytes - amount, free_bytes=usage.free_bytes + amount
    )
    found = _judge_room(mount, without, *limits)
    return found[1] != "full" or (status is Status.CRITICAL and found[0] is not Status.CRITICAL)


def _judge_room(
    mount: Mount, usage: Usage, warning: Limits, critical: Limits
) -> tuple[Status, str, str]:
    room = (
        f"{mount.point} is {math.ceil(usage.used_percent)} % full: "
        f"{format_size(usage.free_bytes)} of {format_size(usage.size_bytes)} are free"
    )
    for status, limits in ((Status.CRITICAL, critical), (Status.WARNING, warning)):
        if _is_full(usage, limits):
            return status, "full", room
        inodes = usage.inodes_percent
        if inodes is not None and limits.inodes is not None and inodes >= limits.inodes:
            files = (
                f"{mount.point} has {usage.inodes_free} inodes left "
                f"({math.ceil(inodes)} % are used): hardly a file can be added"
            )
            return status, "inodes", files
    if (usage.inodes_percent or 0) > usage.used_percent:
        room = f"{room}; {math.ceil(usage.inodes_percent or 0)} % of its inodes are used"
    return Status.OK, "", room


def _is_full(usage: Usage, limits: Limits) -> bool:
    return (limits.used is not None and usage.used_percent >= limits.used) or (
        limits.free is not None and usage.free_bytes < limits.free
    )


def _measurements(
    usage: Usage, warning: Limits, critical: Limits, forecast: Forecast | None
) -> dict[str, float]:
    found: dict[str, float] = {
        "used_percent": round(usage.used_percent, 2),
        "used_bytes": float(usage.used_bytes),
        "free_bytes": float(usage.free_bytes),
        "size_bytes": float(usage.size_bytes),
        "target_percent": _target(usage, warning, critical),
    }
    if usage.inodes_percent is not None and usage.inodes_free is not None:
        found["inodes_used_percent"] = round(usage.inodes_percent, 2)
        found["inodes_free_count"] = float(usage.inodes_free)
        limits = [limit.inodes for limit in (warning, critical) if limit.inodes is not None]
        found["target_inodes_percent"] = max(1.0, min(limits, default=85.0) - _MARGIN)
    if forecast is not None:
        found["full_in_seconds"] = round(forecast.full_in)
        found["full_in_low_seconds"] = round(forecast.low)
        found["full_in_high_seconds"] = round(forecast.high)
        found["growth_bytes_per_second"] = round(forecast.rate, 1)
    return found


def _target(usage: Usage, *limits: Limits) -> float:
    """How full it may be after cleaning: below every limit, with a margin."""
    whole = usage.used_bytes + usage.free_bytes
    shares = [limit.used for limit in limits if limit.used is not None]
    shares += [
        100.0 * (1 - limit.free / whole) for limit in limits if limit.free is not None and whole
    ]
    return round(max(1.0, min(shares, default=85.0) - _MARGIN), 2)


def _hung(subject: str, why: str) -> Finding:
    return Finding(
        subject=subject,
        status=Status.UNKNOWN,
        cause="hung",
        summary=f"it does not answer: {why}",
        resource=f"filesystem:{subject}",
    )


def _unavailable(subject: str, why: str) -> Finding:
    return Finding(
        subject=subject,
        status=Status.UNKNOWN,
        cause="unavailable",
        summary=why,
        resource=f"filesystem:{subject}",
    )


def _missing(point: str) -> Finding:
    return Finding(
        subject=point,
        status=Status.CRITICAL,
        cause="missing",
        summary=f"{point} is not mounted, and /etc/fstab wants it to be: mount {point}",
        resource=f"filesystem:{point}",
    )


async def gather(_options: DiskOptions, finding: Finding, machine: Machine) -> tuple[Evidence, ...]:
    """What fills it: the largest directories, those that grew most, deleted files still open."""
    point = finding.subject
    if finding.cause in ("missing", "hung", "unavailable"):
        return ()
    avoid = frozenset(mount.point for mount in read_mounts()) - {point}
    earlier = machine.space.surveyed.get(point)
    found = await machine.space.patience.call(
        f"the survey of {point}",
        2 * _SURVEY,
        lambda: (survey(point, avoid=avoid, seconds=_SURVEY), find_open_deleted(point)),
    )
    seen, held = found
    machine.space.surveyed[point] = (time.monotonic(), seen.sizes)
    note = f"\n({seen.cut}: what was not reached is missing)" if seen.cut else ""
    items = [
        Evidence(title=f"Largest directories of {point}", text=_table(seen.largest()) + note),
    ]
    if finding.cause == "inodes" or finding.measurements.get("inodes_used_percent", 0) > 80:
        rows = "\n".join(f"{count:>9}  {path}" for path, count in seen.fullest())
        items.append(Evidence(title=f"Directories of {point} with most files", text=rows + note))
    if written := seen.written():
        title = f"Written to within a day on {point}"
        items.append(Evidence(title=title, text=_table(written)))
    if earlier is not None and (grown := seen.grown(earlier[1])):
        age = format_duration(time.monotonic() - earlier[0])
        items.append(Evidence(title=f"Grew most in the last {age}", text=_table(grown)))
    if held:
        lines = [
            f"{format_size(each.size):>9}  {each.path} ({each.command}, process {each.pid}"
            f"{f' of {each.unit}' if each.unit else ''})"
            for each in held
        ]
        title = f"Deleted files of {point} that are still open"
        items.append(Evidence(title=title, text="\n".join(lines)))
    return tuple(items)


async def propose(_machine: Machine) -> tuple[Proposal, ...]:
    """Each real filesystem."""
    try:
        mounts = pick_filesystems(read_mounts())
    except Unavailable:
        return ()
    return tuple(
        Proposal(
            name=f"disk-{mount.point.strip('/').replace('/', '-') or 'root'}",
            options={"type": "disk", "path": mount.point},
            why=f"{mount.point} is {mount.kind} on {mount.source}",
        )
        for mount in mounts
        if not mount.read_only
    )


def _table(rows: list[tuple[str, int]]) -> str:
    return "\n".join(f"{format_size(size):>9}  {path}" for path, size in rows) or "(nothing)"


DISK = CheckType(
    name="disk",
    summary="Filesystems have room, and take writes.",
    model=DiskOptions,
    look=look,
    identity=("path",),
    causes=CAUSES,
    measurements=MEASUREMENTS,
    propose=propose,
    gather=gather,
    default_ladder=lambda _options: (StepOptions(remedy="clean-disk"),),
)
