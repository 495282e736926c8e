"""Finds out who brought a unit down: the bus first, the journal for what it cannot tell."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from agent.errors import Unavailable
from agent.host.journal import read_told
from agent.host.machine import Machine
from agent.host.stops import NEAR, Stop, StoppedBy, Verdict, ended_by_itself, judge_journal
from agent.host.systemd import Systemd
from agent.host.units import UnitState

#: Seconds before a unit's end from which the journal is read.
_BEFORE = 10.0
#: Seconds that the journal may need to show what has just happened.
_BEHIND = 2.0
#: Seconds after which a question that nobody could answer is asked again.
_ASK_AGAIN = 60.0
#: Other units looked at in search of a reason.
_MOST_OTHERS = 16


async def find_stop(machine: Machine, systemd: Systemd, state: UnitState) -> Stop:
    """Who brought this unit down (`state.is_down`), and when.

    What a run of hostmend stopped (`machine.ran`) was no operator's wish. Raises Unavailable if
    systemd cannot be asked; an unreadable journal makes the answer `unclear`.
    """
    await systemd.job_types_known(state.id)
    end = (state.invocation_id, state.active_state, state.became_inactive)
    doubt = (*end, _monotonic() // _ASK_AGAIN)
    for key in (end, doubt):
        if (known := systemd.stops.settled(state.id, key)) is not None:
            return known
    by, at = await _find(systemd, state)
    stop = await _find_other(systemd, state, by, at)
    if at:
        stop = replace(stop, at=machine.clock.at_monotonic(at))
    if stop.by is StoppedBy.OPERATOR and stop.at and machine.ran(state.name, stop.at):
        stop = replace(stop, by=StoppedBy.HOSTMEND)
    systemd.stops.settle(state.id, doubt if stop.by is StoppedBy.UNCLEAR else end, stop)
    return stop


async def _find(systemd: Systemd, state: UnitState) -> tuple[StoppedBy, float]:
    """Who it was as far as its own jobs tell, and when (CLOCK_MONOTONIC in seconds; 0: unknown)."""
    at = state.became_inactive or systemd.stops.went_down(state.id)
    match systemd.stops.judge(state.id):
        case Verdict.STOPPED:
            return StoppedBy.OPERATOR, at
        case Verdict.ENDED:
            return StoppedBy.ITSELF, at
        case Verdict.ASK_JOURNAL:
            by, told_at = await _ask_journal(systemd, state)
            return by, at or told_at


async def _ask_journal(systemd: Systemd, state: UnitState) -> tuple[StoppedBy, float]:
    since = max(0.0, state.end_wall - _BEFORE)
    wait = 0.02
    while True:
        try:
            told = await read_told([state.id], since_wall=since, since_monotonic=systemd.started)
        except Unavailable:
            return StoppedBy.UNCLEAR, 0.0
        newest = told[0].monotonic if told else 0.0
        by = judge_journal(told, became_inactive=state.became_inactive)
        # What follows on the start of a unit may not be in the journal yet.
        begun = by is StoppedBy.CONDITION and _monotonic() - newest < _BEHIND
        if by is not None and not begun:
            return by, newest
        if _monotonic() - max(state.became_inactive, newest) > _BEHIND:
            return StoppedBy.UNCLEAR, newest
        await asyncio.sleep(wait)
        wait *= 2


async def _find_other(systemd: Systemd, state: UnitState, by: StoppedBy, at: float) -> Stop:
    """The same with the other unit in it, if it was for another one that this one went down."""
    began = state.left_active or at
    if by is StoppedBy.DEPENDENCY:
        return Stop(by=by, unit=await _find_failed(systemd, state))
    if by is StoppedBy.OPERATOR:
        # A stop job looks the same whoever made it. systemd makes them for these two reasons.
        if other := await _find_rival(systemd, state, began):
            return Stop(by=StoppedBy.CONFLICT, unit=other)
        if other := await _find_lost_support(systemd, state, began):
            return Stop(by=StoppedBy.DEPENDENCY, unit=other)
    return Stop(by=by)


async def _find_failed(systemd: Systemd, state: UnitState) -> str:
    """A unit that this one needs and that is down, failed ones first; empty if all are up again."""
    needed = [*state.binds_to, *state.requires][:_MOST_OTHERS]
    down = [
        row for row in await systemd.units(needed) if row.active_state in ("failed", "inactive")
    ]
    down.sort(key=lambda row: row.active_state != "failed")
    return down[0].id if down else ""


async def _find_rival(systemd: Systemd, state: UnitState, began: float) -> str:
    """A unit that cannot run beside this one and started as this one went down; empty for none."""
    if not state.conflicts:
        return ""
    for row in await systemd.units(state.conflicts[:_MOST_OTHERS]):
        if row.active_state not in ("active", "activating", "reloading"):
            continue
        started = (await systemd.unit(row.id)).left_inactive
        ended = state.became_inactive or began
        if not began or began - NEAR <= started <= ended + NEAR:
            return row.id
    return ""


async def _find_lost_support(systemd: Systemd, state: UnitState, began: float) -> str:
    """A unit that this one is bound to and that ended by itself just before; empty for none."""
    for name in state.binds_to[:_MOST_OTHERS]:
        other = await systemd.unit(name)
        if not name.endswith(".service"):
            # Devices and mounts go away without a job and without a line in the journal.
            if other.active_state != "active":
                return name
            continue
        before = began or other.became_inactive
        try:
            told = await read_told(
                [other.id], since_wall=0.0, since_monotonic=max(systemd.started, before - _BEFORE)
            )
        except Unavailable:
            if other.active_state == "failed":
                return name
            continue
        if ended_by_itself(told, before=before):
            return name
    return ""


def _monotonic() -> float:
    # CLOCK_MONOTONIC, as in systemd's properties.
    return asyncio.get_running_loop().time()
