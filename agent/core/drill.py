"""One drill: what became of a fault that was injected on purpose, and whether it passed. Pure.

A drill passes when hostmend detects the fault, repairs it, and a look proves that repair, all
within the drill's budget. What comes back by itself proves nothing about hostmend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from agent.core.model import Incident, Instant, ResolvedBy, Seconds, State
from agent.core.units import format_duration


class DrillState(StrEnum):
    """Where a drill stands."""

    #: It is on record, and its guard has not injected the fault yet.
    STARTING = "starting"
    #: The fault is there.
    UNDER_WAY = "under way"
    #: Judged, and being undone.
    ENDING = "ending"
    #: Nothing of it is left.
    ENDED = "ended"


class DrillOutcome(StrEnum):
    """What a drill came to."""

    PASSED = "passed"
    FAILED = "failed"
    #: It was ended before it could be judged.
    ABORTED = "aborted"


@dataclass(frozen=True, kw_only=True)
class Drill:
    """A fault injected on purpose, and what hostmend made of it."""

    id: str
    fault: str
    #: What the fault was given.
    options: Mapping[str, object]
    by: str
    ordered: Instant
    #: From the injection until a look must have proved the repair.
    budget: Seconds
    #: The checks that could see it. None: this host has no check for it.
    checks: tuple[str, ...] = ()
    state: DrillState = DrillState.STARTING
    outcome: DrillOutcome | None = None
    #: One sentence on how it went.
    detail: str = ""
    #: What is wrong with its undoing; empty while nothing is.
    trouble: str = ""
    injected: Instant | None = None
    #: When an incident was confirmed, its run had ended, and a look had proved it.
    detected: Instant | None = None
    healed: Instant | None = None
    verified: Instant | None = None
    undone: Instant | None = None
    incidents: tuple[str, ...] = field(default_factory=tuple)

    @property
    def alive(self) -> bool:
        return self.state is not DrillState.ENDED


def judge_drill(
    drill: Drill, incidents: Sequence[Incident], holds: Mapping[str, str], now: Instant
) -> Drill:
    """The drill as its incidents have it now: those that the fault may have brought about.

    `holds`: why an incident has no run now, by its id. The drill is `ENDING` once it is judged.
    """
    if drill.state is not DrillState.UNDER_WAY or drill.injected is None:
        return drill
    began = drill.injected
    mine = [i for i in incidents if i.opened is not None and i.look_ended >= began]
    proved = [i for i in mine if _is_proved(i)]
    drill = replace(
        drill,
        incidents=tuple(sorted((i.id for i in mine), key=lambda each: int(each[1:]))),
        detected=min((i.opened for i in mine if i.opened is not None), default=None),
        healed=min((i.run_ended for i in mine if i.run_ended is not None), default=None),
        verified=max((_proved_at(i) for i in proved), default=None),
    )
    if gone_up := [i for i in mine if i.state is State.ESCALATED]:
        return _end(drill, DrillOutcome.FAILED, f"hostmend needs a human: {gone_up[0].why}")
    if proved and all(i in proved or i.state.ended for i in mine):
        took = max(0.0, (drill.verified or now) - began)
        return _end(drill, DrillOutcome.PASSED, f"detected, healed and verified in {took:.1f} s")
    if mine and all(i.state.ended for i in mine):
        return _end(drill, DrillOutcome.FAILED, "it came back by itself: hostmend repaired nothing")
    if now - began < drill.budget:
        return drill
    return _end(
        drill,
        DrillOutcome.FAILED,
        f"{_tell_missing(drill, mine, holds)} within {format_duration(drill.budget)}",
    )


def _is_proved(incident: Incident) -> bool:
    if incident.state is State.PROBATION:
        return incident.healed_by is not None
    return incident.state is State.RESOLVED and incident.resolved_by is ResolvedBy.RUN


def _proved_at(incident: Incident) -> Instant:
    return incident.whole_by or incident.entered


def _tell_missing(drill: Drill, mine: Sequence[Incident], holds: Mapping[str, str]) -> str:
    if not drill.checks:
        return "no check of this host could see it, so nothing was detected"
    if not mine:
        return f"not detected by {', '.join(drill.checks)}"
    if held := next((holds[i.id] for i in mine if i.id in holds), ""):
        return f"detected, and not repaired ({held})"
    if any(i.run_ended is not None for i in mine):
        return "detected and repaired, but no look proved it"
    return "detected, and not repaired"


def _end(drill: Drill, outcome: DrillOutcome, detail: str) -> Drill:
    return replace(drill, state=DrillState.ENDING, outcome=outcome, detail=detail)


def abort_drill(drill: Drill, why: str) -> Drill:
    """The drill, to be undone; one that is judged already keeps its judgement."""
    if drill.state in (DrillState.ENDING, DrillState.ENDED):
        return drill
    return _end(drill, DrillOutcome.ABORTED, why)
