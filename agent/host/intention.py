"""Finds out who brought a unit down: the bus first, the journal for what it cannot tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.core.model import Instant
from agent.errors import Unavailable
from agent.host.journal import read_told
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


async def find_stop(
    systemd: Systemd, state: UnitState, ran: Callable[[str, Instant], bool]
) -> Stop:
    """Who brought this unit down (`state.is_down`).

    `ran` says whether a run of hostmend that concerns a unit was alive at an instant: what it
    stopped was no operator's wish. Raises Unavailable if systemd cannot be asked; an unreadable
    journal makes the answer `unclear`.
    """
    await systemd.job_types_known(state.id)
    end = (state.invocation_id, state.active_state, state.became_inactive)
    doubt = (*end, _loop_time() // _ASK_AGAIN)
    for key in (end, doubt):
        if (known := systemd.stops.settled(state.id, key)) is not None:
            return known
    stop = await _find(systemd, state)
    at = state.since
    if stop.by is StoppedBy.OPERATOR and at is not None and ran(state.name, at):
        stop = Stop(by=StoppedBy.HOSTMEND)
    systemd.stops.settle(state.id, doubt if stop.by is StoppedBy.UNCLEAR else end, stop)
    return stop


async def _find(systemd: Systemd, state: UnitState) -> Stop:
    match systemd.stops.judge(state.id):
        case Verdict.STOPPED:
            by = StoppedBy.OPERATOR
        case Verdict.ENDED:
            by = StoppedBy.ITSELF
        case Verdict.ASK_JOURNAL:
            by = await _ask_journal(systemd, state)
    if by is StoppedBy.DEPENDENCY:
        return Stop(by=by, unit=await _find_failed(systemd, state))
    if by is StoppedBy.OPERATOR:
        # A stop job looks the same whoever made it. systemd makes them for these two reasons.
        if other := await _find_rival(systemd, state):
            return Stop(by=StoppedBy.CONFLICT, unit=other)
        if other := await _find_lost_support(systemd, state):
            return Stop(by=StoppedBy.DEPENDENCY, unit=other)
    return Stop(by=by)


async def _ask_journal(systemd: Systemd, state: UnitState) -> StoppedBy:
    since = max(0.0, state.end_wall - _BEFORE)
    wait = 0.02
    while True:
        try:
            told = await read_told([state.id], since_wall=since, since_monotonic=systemd.started)
        except Unavailable:
            return StoppedBy.UNCLEAR
        by = judge_journal(told, became_inactive=state.became_inactive)
        if by is not None:
            return by
        newest = max(state.became_inactive, told[0].monotonic if told else 0.0)
        if _loop_time() - newest > _BEHIND:
            return StoppedBy.UNCLEAR
        await asyncio.sleep(wait)
        wait *= 2


async def _find_failed(systemd: Systemd, state: UnitState) -> str:
    """A unit that this one needs and that is down, failed ones first; empty if all are up again."""
    needed = [*state.binds_to, *state.requires][:_MOST_OTHERS]
    down = [
        row for row in await systemd.units(needed) if row.active_state in ("failed", "inactive")
    ]
    down.sort(key=lambda row: row.active_state != "failed")
    return down[0].id if down else ""


async def _find_rival(systemd: Systemd, state: UnitState) -> str:
    """A unit that cannot run beside this one and started as this one went down; empty for none."""
    if not state.conflicts:
        return ""
    for row in await systemd.units(state.conflicts[:_MOST_OTHERS]):
        if row.active_state not in ("active", "activating", "reloading"):
            continue
        started = (await systemd.unit(row.id)).left_inactive
        began = state.left_active or state.became_inactive
        if not began or began - NEAR <= started <= state.became_inactive + NEAR:
            return row.id
    return ""


async def _find_lost_support(systemd: Systemd, state: UnitState) -> str:
    """A unit that this one is bound to and that ended by itself just before; empty for none."""
    for name in state.binds_to[:_MOST_OTHERS]:
        other = await systemd.unit(name)
        if not name.endswith(".service"):
            # Devices and mounts go away without a job and without a line in the journal.
            if other.active_state != "active":
                return name
            continue
        at = state.left_active or state.became_inactive or other.became_inactive
        try:
            told = await read_told(
                [other.id], since_wall=0.0, since_monotonic=max(systemd.started, at - _BEFORE)
            )
        except Unavailable:
            if other.active_state == "failed":
                return name
            continue
        if ended_by_itself(told, before=at):
            return name
    return ""


def _loop_time() -> float:
    # CLOCK_MONOTONIC, as in systemd's properties.
    return asyncio.get_running_loop().time()
