"""Whether what a timer starts has succeeded lately: part of `type: service`."""

from __future__ import annotations

from dataclasses import replace

from agent.core.model import Finding, Instant, Seconds, Status
from agent.core.units import format_duration
from agent.host.machine import Machine
from agent.host.systemd import Systemd
from agent.host.units import UnitState

#: After a boot, or a sleep of the host, so long is waited for what is overdue: timers make up for
#: what they missed.
_GRACE: Seconds = 900.0
#: Instants that are nearer to each other are the same one, worked out again.
_SAME: Seconds = 2.0
#: Sleeps that are shorter are none.
_ASLEEP: Seconds = 60.0


async def see_success(
    finding: Finding, state: UnitState, within: Seconds, machine: Machine, systemd: Systemd
) -> Finding:
    """The finding with whether the last success is too long ago; one that fails stays as it is.

    Raises Unavailable.
    """
    work = await systemd.unit(state.starts) if state.starts else state
    now = machine.clock.now()
    last, known = _remember(work, machine, now)
    age = now - last
    measured = {**finding.measurements, "success_age_seconds": round(max(0.0, age))}
    facts = dict(finding.facts)
    if known:
        facts["Last success"] = f"{format_duration(max(0.0, age))} ago"
    else:
        facts["Last success"] = "none was seen yet"
    finding = replace(finding, measurements=measured, facts=facts)
    if finding.status is not Status.OK or finding.intended or age <= within:
        return finding
    running = work.active_state in ("activating", "reloading") or (
        work.active_state == "active" and work.sub_state != "exited"
    )
    began = machine.clock.at_monotonic(work.left_inactive) if work.left_inactive else now
    if (running and now - began < within) or _has_just_woken(machine, systemd, now):
        return finding
    how = f"{format_duration(age)} ago" if known else "not within that time"
    failed = f", and its last run failed: {work.result}" if work.result != "success" else ""
    return replace(
        finding,
        status=Status.CRITICAL,
        cause="overdue",
        summary=f"{work.id} should succeed within {format_duration(within)}, and did so {how}"
        f"{failed}",
        since=last + within,
    )


def _remember(work: UnitState, machine: Machine, now: Instant) -> tuple[Instant, bool]:
    """When it last succeeded, and whether that was ever seen; else, when it was first looked at."""
    memory = machine.memory
    kept = memory.get("service.succeeded")
    last = float(kept) if isinstance(kept, int | float) and kept <= now + _SAME else None
    seen = _find_success(work)
    at = machine.clock.at_monotonic(seen) if seen else None
    if at is not None and (last is None or at > last + _SAME):
        last = at
        memory.put("service.succeeded", round(at, 1))
    if last is not None:
        return last, True
    first = memory.get("service.watched")
    if not isinstance(first, int | float) or first > now:
        first = now
        memory.put("service.watched", round(now, 1))
    return float(first), False


def _find_success(work: UnitState) -> float:
    """CLOCK_MONOTONIC in seconds of a success that systemd knows of; 0: of none."""
    if work.result != "success" or work.condition_failed:
        return 0.0
    if work.active_state == "active" and work.sub_state == "exited":
        return work.exec_main_ended
    return work.became_inactive if work.active_state == "inactive" else 0.0


def _has_just_woken(machine: Machine, systemd: Systemd, now: Instant) -> bool:
    """Whether the host came up, or out of a sleep, so lately that timers may not have caught up."""
    notes, slept = machine.memory.notes, machine.clock.slept()
    before, woke = notes.get("service.slept", (slept, None))
    if slept - before > _ASLEEP:
        woke = now
    notes["service.slept"] = (slept, woke)
    booted = machine.clock.at_monotonic(systemd.started)
    return now - booted < _GRACE or (woke is not None and now - woke < _GRACE)
