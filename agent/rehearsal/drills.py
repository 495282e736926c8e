"""Drills on the candidate while traffic goes on: ordered of its own agent, and judged by users too.

The agent says whether it detected, healed and verified. What users saw of it is measured here: the
same traffic goes on meanwhile, and must be answered again once the fault is gone. Whether a drill
is allowed, and that it is undone whatever becomes of this process, is the candidate's own business.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from agent.core.model import Seconds
from agent.errors import HostmendError
from agent.rehearsal.traffic import Asked, Schedule
from agent.rehearsal.verdict import Gate, Measured, Outcome, Pair, count_of

#: Seconds between two looks at a drill, and at incidents that must end first.
_TICK = 0.5
#: Traffic goes on for so long before the first drill and after each, in seconds.
_SETTLE = 3.0
#: Seconds that incidents of before may take to end, that the candidate's agent may say nothing,
#: that a fault may take to be injected and undone beyond its budget, and after its undoing until
#: users must be served.
_PATIENCE = 300.0
_SILENCE = 60.0
_UNDOING = 600.0
_RECOVERED = 1.0
#: Most requests of a drill's traffic.
_MOST = 200_000


@dataclass(frozen=True, kw_only=True)
class DrillOrder:
    """One drill that is wanted."""

    fault: str
    options: Mapping[str, str]
    within: Seconds


class Candidate(Protocol):
    """The candidate's own agent. Raises HostmendError for what it refuses or does not answer."""

    async def count_incidents(self) -> int:
        """Those that have not ended."""
        ...

    async def start(self, order: DrillOrder) -> Mapping[str, Any]:
        """Has a fault injected; the drill as the API tells it."""
        ...

    async def show(self, drill_id: str) -> Mapping[str, Any]: ...
    async def end(self, drill_id: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class DrillTale:
    """One drill as it went, in seconds from the beginning of the drills' traffic."""

    order: DrillOrder
    id: str = ""
    #: passed, failed, aborted; empty: it could not be started.
    outcome: str = ""
    detail: str = ""
    began: Seconds = 0.0
    ended: Seconds = 0.0
    #: injected, detected, healed, verified, undone; those that happened.
    steps: Mapping[str, Seconds] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Drilled:
    """All drills of a rehearsal, and the traffic meanwhile."""

    tales: tuple[DrillTale, ...]
    pairs: tuple[Pair, ...]
    #: Why the traffic was ended early; empty when it was not.
    aborted: str = ""


#: Asks these requests of both sides until it is told to stop.
Ask = Callable[[Sequence[Asked], Schedule, asyncio.Event], Awaitable[Measured]]
#: Told how many drills are done, of how many.
Progress = Callable[[int, int], None]


async def run_drills(
    orders: Sequence[DrillOrder],
    candidate: Candidate,
    *,
    requests: Sequence[Asked],
    schedule: Schedule,
    ask: Ask,
    progress: Progress,
) -> Drilled:
    """One after the other, while traffic goes on. However it ends, no drill is left under way."""
    longest = sum(order.within for order in orders) + len(orders) * (_PATIENCE + _UNDOING)
    asked, due = repeat(requests, schedule, longest)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    traffic = asyncio.ensure_future(ask(asked, due, stop))
    tales = []
    try:
        await asyncio.sleep(_SETTLE)
        for number, order in enumerate(orders):
            progress(number, len(orders))
            tales.append(await _run_one(order, candidate, begun))
            await asyncio.sleep(_SETTLE)
        progress(len(orders), len(orders))
    finally:
        stop.set()
        measured = await traffic
    return Drilled(tales=tuple(tales), pairs=tuple(measured.pairs), aborted=measured.aborted)


def repeat(
    requests: Sequence[Asked], schedule: Schedule, seconds: Seconds
) -> tuple[tuple[Asked, ...], Schedule]:
    """The requests that only read, again and again for so long."""
    once = [
        (asked, due)
        for asked, due in zip(requests, schedule.due, strict=True)
        if asked.method in ("GET", "HEAD")
    ]
    if not once:
        return (), replace(schedule, due=())
    # The gap between the last and the first again is an ordinary one.
    lap = once[-1][1] - once[0][1] + 1 / max(schedule.rate, 0.1)
    laps = min(math.ceil(seconds / lap) + 1, max(1, _MOST // len(once)))
    start = once[0][1]
    return (
        tuple(asked for _ in range(laps) for asked, _ in once),
        replace(
            schedule,
            due=tuple(number * lap + due - start for number in range(laps) for _, due in once),
        ),
    )


async def _run_one(order: DrillOrder, candidate: Candidate, begun: float) -> DrillTale:
    loop = asyncio.get_running_loop()
    tale = DrillTale(order=order, began=loop.time() - begun)
    drill_id = ""
    over = False
    try:
        if why := await _wait_until_quiet(candidate):
            over = True
            return replace(tale, detail=why, ended=loop.time() - begun)
        tale = replace(tale, began=loop.time() - begun)
        told = await candidate.start(order)
        drill_id = str(told["id"])
        # The candidate's clock is its own: its instants count from when it took the order.
        ordered = _read_instant(told["ordered"]) - (loop.time() - begun)
        until = loop.time() + order.within + _UNDOING
        heard = loop.time()
        while told["state"] != "ended" and loop.time() < until:
            await asyncio.sleep(_TICK)
            try:
                told = await candidate.show(drill_id)
                heard = loop.time()
            except HostmendError:
                # A fault may take its agent down as well; it comes back.
                if loop.time() - heard > _SILENCE:
                    raise
        over = told["state"] == "ended"
        steps = {
            name: _read_instant(told[name]) - ordered
            for name in ("injected", "detected", "healed", "verified", "undone")
            if told.get(name)
        }
        return replace(
            tale,
            id=drill_id,
            outcome=str(told["outcome"] or "") if over else "",
            detail=str(told["detail"]) if over else f"it is not undone: {told['trouble']}",
            ended=loop.time() - begun,
            steps=steps,
        )
    except HostmendError as error:
        return replace(tale, id=drill_id, detail=str(error), ended=loop.time() - begun)
    finally:
        if drill_id and not over:
            # Also when this rehearsal is interrupted; where it is killed, the candidate's guard
            # needs nobody's word.
            await asyncio.shield(_end_quietly(candidate, drill_id))


async def _wait_until_quiet(candidate: Candidate) -> str:
    """A drill on a host that fails already would prove nothing. Why not; empty when it is quiet."""
    until = asyncio.get_running_loop().time() + _PATIENCE
    while count := await candidate.count_incidents():
        if asyncio.get_running_loop().time() > until:
            return f"the candidate has {count_of(count, 'incident')} that does not end"
        await asyncio.sleep(_TICK)
    return ""


async def _end_quietly(candidate: Candidate, drill_id: str) -> None:
    try:
        await candidate.end(drill_id)
    except HostmendError:
        return


def _read_instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def judge_drills(drilled: Drilled) -> tuple[Gate, ...]:
    """Two gates for each drill: what the agent made of it, and what users saw."""
    gates: list[Gate] = []
    for tale in drilled.tales:
        gates += [_judge_agent(tale), _judge_users(tale, drilled.pairs)]
    return tuple(gates)


def name_drill(tale: DrillTale) -> str:
    """`drill kill-service shop.service`."""
    return " ".join(["drill", tale.order.fault, *map(str, tale.order.options.values())])


def _judge_agent(tale: DrillTale) -> Gate:
    outcome = {"passed": Outcome.PASS, "failed": Outcome.FAIL}.get(
        tale.outcome, Outcome.INCONCLUSIVE
    )
    injected, verified = tale.steps.get("injected"), tale.steps.get("verified")
    said = {Outcome.PASS: "Passed", Outcome.FAIL: "Failed"}.get(outcome, "Not judged")
    known = injected is not None and verified is not None
    return Gate(
        name=name_drill(tale),
        outcome=outcome,
        summary=f"{said}: {tale.detail}.",
        observed=max(0.0, verified - injected) if known and verified and injected else None,
        limit=tale.order.within,
        count=1,
        cases=tuple(
            f"{name} after {max(0.0, at - injected):.1f} s"
            for name, at in tale.steps.items()
            if injected is not None and name != "injected"
        ),
    )


def _judge_users(tale: DrillTale, pairs: Sequence[Pair]) -> Gate:
    name = f"{name_drill(tale)}: users"
    mine = [pair for pair in pairs if tale.began <= pair.at <= tale.ended + _SETTLE]
    if "injected" not in tale.steps or not mine:
        return Gate(
            name=name,
            outcome=Outcome.INCONCLUSIVE,
            summary="No request was asked while the fault was there.",
        )
    failed = [pair for pair in mine if pair.candidate.failed and not pair.baseline.failed]
    undone = tale.steps.get("undone", tale.ended)
    late = [pair for pair in failed if pair.at > undone + _RECOVERED]
    outage = (
        max(pair.at + pair.candidate.seconds for pair in failed) - min(pair.at for pair in failed)
        if failed
        else 0.0
    )
    bad = bool(late) or outage > tale.order.within
    return Gate(
        name=name,
        outcome=Outcome.FAIL if bad else Outcome.PASS,
        summary=f"{len(failed)} of {count_of(len(mine), 'request')} failed on the candidate, "
        f"within {outage:.1f} s"
        + (f"; {len(late)} of them after the fault was undone." if late else "."),
        observed=outage,
        limit=tale.order.within,
        count=len(mine),
        cases=tuple(
            f"{pair.target}: {pair.candidate.status or pair.candidate.error}"
            for pair in (late or failed)[:5]
        ),
    )
