"""`type: updates`: what was updated is in use, and security updates do not wait for long.

It reads what package managers left on this host, and never fetches anything. Each thing that waits
is told only once it has waited for longer than an operator needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field

from agent.checks.check import CheckOptions, CheckType, Proposal
from agent.checks.values import Duration
from agent.clock import Clock
from agent.core.model import Evidence, Finding, Instant, Seconds, Status
from agent.core.units import format_duration
from agent.errors import Unavailable
from agent.host.machine import Machine
from agent.host.packages import (
    Reboot,
    find_manager,
    find_outdated,
    find_reboots,
    list_security_updates,
    needs_reboot,
    read_freshness,
)
from agent.host.space import Hung
from agent.host.transition import PACKAGE_LOCKS, is_locked

CAUSES = {
    "reboot": "A reboot has been due for too long.",
    "security": "Security updates have waited for too long.",
    "stale": "Nobody has asked for updates for too long, so none can be seen.",
    "outdated": "Services have run for too long what was updated meanwhile.",
    "hung": "There was no answer in time.",
    "unavailable": "It cannot be found out.",
}

MEASUREMENTS = {
    "waiting_count": "Security updates that wait, services that are outdated, reasons to reboot.",
    "waiting_seconds": "For how long the oldest of them has waited.",
}

REBOOT, SECURITY, SERVICES = "reboot", "security updates", "services"

#: Seconds that apt or dnf are given, and the reading of what runs.
_PATIENCE: Seconds = 50.0
_SCAN: Seconds = 20.0
_MOST_NAMED = 5


class UpdatesOptions(CheckOptions):
    """Packages of this host."""

    type: Literal["updates"]
    reboot_within: Duration = Field(
        default=7 * 86400.0, description="A reboot may be due for so long."
    )
    security_within: Duration = Field(
        default=7 * 86400.0, description="A security update may wait for so long."
    )
    restart_within: Duration = Field(
        default=7 * 86400.0,
        description="A service may run for so long what was updated meanwhile.",
    )
    lists_within: Duration = Field(
        default=14 * 86400.0, description="Lists of packages may be so old."
    )


async def look(options: UpdatesOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding on reboots, one on security updates, one on services."""
    return (
        await _look_at_reboots(options, machine),
        await _look_at_security(options, machine),
        await _look_at_services(options, machine),
    )


async def _look_at_reboots(options: UpdatesOptions, machine: Machine) -> Finding:
    reasons = find_reboots(container=machine.container)
    if not reasons and not machine.container and await needs_reboot(_SCAN):
        since = _see_first(machine, "updates.reboot", ("needs-restarting",))
        wall = _as_wall(since["needs-restarting"], machine.clock)
        reasons = [Reboot(why="needs-restarting asks for a reboot", since=wall)]
    return judge_reboots(options, reasons, machine.clock.wall())


def judge_reboots(options: UpdatesOptions, reasons: list[Reboot], now: float) -> Finding:
    """The finding on reboots. `now`: the wall clock."""
    if not reasons:
        return Finding(subject=REBOOT, status=Status.OK, summary="no reboot is due")
    waited = max(0.0, now - min(reason.since for reason in reasons))
    why = "; ".join(reason.why for reason in reasons)
    return _judge_wait(
        REBOOT, "reboot", why, waited=waited, limit=options.reboot_within, count=len(reasons)
    )


def _judge_wait(
    subject: str,
    cause: str,
    what: str,
    *,
    waited: Seconds,
    limit: Seconds,
    count: int,
    facts: Mapping[str, str] | None = None,
) -> Finding:
    late = waited >= limit
    return Finding(
        subject=subject,
        status=Status.WARNING if late else Status.OK,
        cause=cause if late else "",
        summary=f"{what}, since {format_duration(waited)}",
        measurements={"waiting_count": float(count), "waiting_seconds": round(waited)},
        facts=facts or {},
    )


async def _look_at_security(options: UpdatesOptions, machine: Machine) -> Finding:
    manager = find_manager()
    if not manager:
        why = "not watched: neither apt nor dnf is here"
        return Finding(subject=SECURITY, status=Status.OK, summary=why)
    asked, changed = read_freshness()
    if manager == "apt-get":
        age = machine.clock.wall() - asked
        if not asked or age >= options.lists_within:
            how = f"for {format_duration(max(0.0, age))}" if asked else "yet"
            summary = (
                f"nobody has asked for updates {how}: run apt-get update, "
                "or see why apt-daily.timer does not"
            )
            return Finding(subject=SECURITY, status=Status.WARNING, cause="stale", summary=summary)
    try:
        waiting = await _list_waiting(manager, changed, machine)
    except Unavailable as error:
        cause = "hung" if "has not answered" in str(error) else "unavailable"
        return Finding(subject=SECURITY, status=Status.UNKNOWN, cause=cause, summary=str(error))
    first = _see_first(machine, "updates.security", waiting)
    if not waiting:
        return Finding(subject=SECURITY, status=Status.OK, summary="no security update waits")
    waited = machine.clock.now() - min(first.values())
    some = (
        "a security update waits" if len(waiting) == 1 else f"{len(waiting)} security updates wait"
    )
    return _judge_wait(
        SECURITY,
        "security",
        f"{some}: {_name(waiting)}",
        waited=max(0.0, waited),
        limit=options.security_within,
        count=len(waiting),
    )


async def _list_waiting(manager: str, changed: float, machine: Machine) -> dict[str, str]:
    """Security updates that wait; as they were, while nothing changed or somebody is at work."""
    notes = machine.memory.notes
    known: tuple[str, float, dict[str, str]] | None = notes.get("updates.waiting")
    if known is not None and known[0] == manager:
        unchanged = manager == "apt-get" and known[1] == changed
        if unchanged or any(is_locked(lock) for lock in PACKAGE_LOCKS):
            return known[2]
    waiting = await list_security_updates(manager, seconds=_PATIENCE)
    notes["updates.waiting"] = (manager, changed, waiting)
    return waiting


async def _look_at_services(options: UpdatesOptions, machine: Machine) -> Finding:
    try:
        outdated = await machine.space.patience.call("the maps of processes", _SCAN, find_outdated)
    except Hung as error:
        return Finding(subject=SERVICES, status=Status.UNKNOWN, cause="hung", summary=str(error))
    except OSError as error:
        why = f"cannot look at what services run: {error.strerror}"
        return Finding(subject=SERVICES, status=Status.UNKNOWN, cause="unavailable", summary=why)
    first = _see_first(machine, "updates.services", outdated)
    if not outdated:
        summary = "no service runs what was updated meanwhile"
        return Finding(subject=SERVICES, status=Status.OK, summary=summary)
    waited = machine.clock.now() - min(first.values())
    run = "runs" if len(outdated) == 1 else "run"
    return _judge_wait(
        SERVICES,
        "outdated",
        f"{_name(outdated)} still {run} what was updated meanwhile",
        waited=max(0.0, waited),
        limit=options.restart_within,
        count=len(outdated),
    )


def _name(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - _MOST_NAMED} more" if len(listed) > _MOST_NAMED else ""
    return ", ".join(listed[:_MOST_NAMED]) + more


def _see_first(machine: Machine, key: str, present: Iterable[str]) -> dict[str, Instant]:
    """When each was first seen without a break, also by an earlier agent."""
    now = machine.clock.now()
    kept: Any = machine.memory.get(key)
    known = kept if isinstance(kept, dict) else {}
    first = {}
    for name in present:
        at = known.get(name)
        first[name] = min(float(at), now) if isinstance(at, int | float) else now
    machine.memory.put(key, first)
    return first


def _as_wall(at: Instant, clock: Clock) -> float:
    return clock.wall() - (clock.now() - at)


async def gather(
    _options: UpdatesOptions, finding: Finding, machine: Machine
) -> tuple[Evidence, ...]:
    """Each package, or each service with what it should not run any more."""
    if finding.subject == SECURITY:
        known: tuple[str, float, dict[str, str]] | None
        known = machine.memory.notes.get("updates.waiting")
        if known is None:
            return ()
        lines = [f"{name} {version}" for name, version in sorted(known[2].items())]
        return (Evidence(title="Security updates that wait", text="\n".join(lines)),)
    if finding.subject == SERVICES and finding.cause == "outdated":
        outdated = await machine.space.patience.call("the maps of processes", _SCAN, find_outdated)
        lines = [f"{unit}: {', '.join(files[:_MOST_NAMED])}" for unit, files in outdated.items()]
        return (Evidence(title="Services that run what was updated", text="\n".join(lines)),)
    return ()


async def propose(_machine: Machine) -> tuple[Proposal, ...]:
    """Where a package manager is that can be asked."""
    manager = find_manager()
    if not manager:
        return ()
    why = f"{manager} keeps this host's packages"
    return (Proposal(name="updates", options={"type": "updates"}, why=why),)


UPDATES = CheckType(
    name="updates",
    summary="What was updated is in use, and security updates do not wait for long.",
    model=UpdatesOptions,
    look=look,
    identity=(),
    causes=CAUSES,
    measurements=MEASUREMENTS,
    propose=propose,
    gather=gather,
    defaults={"every": "1h", "timeout": "2m"},
)
