"""Units that failed, whichever they are: `type: service` with a pattern instead of a name."""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import Callable, Iterable
from typing import Any

from agent.checks.unit_state import judge, needs_reason
from agent.core.model import Finding, Instant, Seconds, Status
from agent.host.intention import find_stop
from agent.host.machine import Machine
from agent.host.stops import Stop, StoppedBy
from agent.host.systemd import Systemd
from agent.host.units import UnitRow, UnitState

#: Units told of one by one; of others, only how many there are.
MOST = 50
#: Units looked at at once.
_AT_ONCE = 8
#: A unit that failed is still reported, as ok, for so long after it is well again.
_WELL_FOR: Seconds = 3600.0
#: A question that the journal could not answer is asked again after this.
_ASK_AGAIN: Seconds = 60.0

#: Adds to a finding on a failed unit what else is known of why.
Explain = Callable[[Finding, UnitState], Any]


async def look_for_failed(
    pattern: str, ignore: Iterable[str], machine: Machine, systemd: Systemd, explain: Explain
) -> tuple[Finding, ...]:
    """A finding for each unit that failed, and for each that did and is well again.

    One call to systemd while nothing fails. Units that a check of their own is for are left to it.
    Raises Unavailable.
    """
    rows = await systemd.list_units([pattern], ["failed"])
    own = systemd.find_primary(machine.named())
    failed = {
        row.id: row
        for row in rows
        if row.id not in own and not any(fnmatch.fnmatchcase(row.id, each) for each in ignore)
    }
    seen = _recall(machine)
    # Each may ask the journal, by a process: not all of them at once.
    places = asyncio.Semaphore(_AT_ONCE)

    async def look_at(row: UnitRow) -> Finding:
        async with places:
            return await _look_at(row, machine, systemd, explain)

    found = list(await asyncio.gather(*(look_at(failed[name]) for name in sorted(failed)[:MOST])))
    over = sorted(failed)[MOST:]
    if over:
        summary = f"{len(over)} more units have failed: systemctl --failed lists them"
        found.append(
            Finding(subject=pattern, status=Status.CRITICAL, cause="failed", summary=summary)
        )
    well = [name for name in seen if name not in failed]
    found += await _look_at_well(well, systemd) if well else []
    _remember(machine, seen, sorted(failed)[:MOST], {finding.subject for finding in found})
    if not found:
        which = "no unit" if pattern == "*" else f"no unit {pattern}"
        found.append(Finding(subject=pattern, status=Status.OK, summary=f"{which} has failed"))
    return tuple(found)


async def _look_at(row: UnitRow, machine: Machine, systemd: Systemd, explain: Explain) -> Finding:
    state = await systemd.unit(row.id)
    stop = None
    if needs_reason(state, ()):
        stop = await _find_stop(machine, systemd, state)
    finding = judge(row.id, state, stop=stop)
    if finding.cause == "failed":
        finding = await explain(finding, state)
    return finding


async def _find_stop(machine: Machine, systemd: Systemd, state: UnitState) -> Stop:
    """Who brought it down. Its signals are not taken, so it is the journal that tells, once."""
    known: dict[str, tuple[object, Stop, Instant]]
    known = machine.memory.notes.setdefault("service.stops", {})
    end, now = (state.invocation_id, state.became_inactive), machine.clock.now()
    kept = known.get(state.id)
    if kept is not None and kept[0] == end:
        unclear = kept[1].by is StoppedBy.UNCLEAR
        if not unclear or 0 <= now - kept[2] < _ASK_AGAIN:
            return kept[1]
    stop = await find_stop(machine, systemd, state)
    known[state.id] = (end, stop, now)
    return stop


async def _look_at_well(names: list[str], systemd: Systemd) -> list[Finding]:
    """Units that had failed and have not now: well again, or no longer there."""
    found = []
    for row in await systemd.units(names):
        if row.load_state == "not-found" and row.active_state == "inactive":
            continue
        summary = f"{row.id} has not failed any more: {row.active_state} ({row.sub_state})"
        found.append(
            Finding(subject=row.id, status=Status.OK, summary=summary, resource=f"unit:{row.id}")
        )
    return found


def _recall(machine: Machine) -> dict[str, Instant | None]:
    """Units that failed, with when they were found well again; None: they had not been."""
    kept: Any = machine.memory.get("service.failed")
    if not isinstance(kept, dict):
        return {}
    return {
        str(name): float(at) if isinstance(at, int | float) else None for name, at in kept.items()
    }


def _remember(
    machine: Machine, seen: dict[str, Instant | None], failed: list[str], reported: set[str]
) -> None:
    now = machine.clock.now()
    kept: dict[str, Instant | None] = dict.fromkeys(failed)
    for name, at in seen.items():
        if name in kept or name not in reported:
            continue
        since = round(now, 1) if at is None else at
        if 0 <= now - since < _WELL_FOR and len(kept) < 2 * MOST:
            kept[name] = since
    machine.memory.put("service.failed", kept)
