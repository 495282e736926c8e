"""How one incident moves. Everything that affects its state lives in this file.

`TABLE` is the whole of it: a state and a signal give the next state. What a look or a run means
as a signal is said by `signal_of_look` and in `settle`; the rest only keeps an incident's books.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

from agent.core.model import (
    CheckPolicy,
    Finding,
    Incident,
    Instant,
    Outcome,
    Policy,
    ResolvedBy,
    Run,
    Seconds,
    State,
    Status,
    Transition,
)
from agent.errors import ImpossibleTransition


class Signal(StrEnum):
    """What can happen to one incident."""

    #: A look saw it fail, and that is not yet (or no longer) enough to believe it anew.
    FAILED = "failed"
    #: Enough looks saw it fail.
    CONFIRMED = "confirmed"
    PASSED = "passed"
    #: Passed often enough that a suspicion is dropped.
    CLEARED = "cleared"
    #: A look could not tell.
    UNCLEAR = "unclear"
    #: It is as an operator wants it.
    INTENDED = "intended"
    #: Its subject or its check no longer exists.
    VANISHED = "vanished"
    #: A run was planned for it.
    PLANNED = "planned"
    RUN_ENDED = "run ended"
    #: Its run asks for a human, was cancelled, or works on past its time.
    HANDED_OVER = "handed over"
    #: The time for a proof is over and there is none.
    UNPROVED = "unproved"
    #: It passed through its whole probation.
    STABLE = "stable"
    #: No remedy is left to try.
    EXHAUSTED = "exhausted"
    #: An operator closed it.
    CLOSED = "closed"


#: More doublings than any `stable_at_most` needs.
_DOUBLINGS = 32

#: Looks during a run are recorded and change nothing; that is why `repairing` stays `repairing`.
TABLE: Mapping[tuple[State, Signal], State] = {
    (State.PENDING, Signal.FAILED): State.PENDING,
    (State.PENDING, Signal.PASSED): State.PENDING,
    (State.PENDING, Signal.UNCLEAR): State.PENDING,
    (State.PENDING, Signal.CONFIRMED): State.OPEN,
    (State.PENDING, Signal.CLEARED): State.RESOLVED,
    (State.PENDING, Signal.INTENDED): State.RESOLVED,
    (State.PENDING, Signal.VANISHED): State.GONE,
    (State.PENDING, Signal.CLOSED): State.RESOLVED,
    (State.OPEN, Signal.FAILED): State.OPEN,
    (State.OPEN, Signal.CONFIRMED): State.OPEN,
    (State.OPEN, Signal.UNCLEAR): State.OPEN,
    (State.OPEN, Signal.PASSED): State.PROBATION,
    (State.OPEN, Signal.INTENDED): State.RESOLVED,
    (State.OPEN, Signal.VANISHED): State.GONE,
    (State.OPEN, Signal.PLANNED): State.REPAIRING,
    (State.OPEN, Signal.EXHAUSTED): State.ESCALATED,
    (State.OPEN, Signal.CLOSED): State.RESOLVED,
    (State.REPAIRING, Signal.FAILED): State.REPAIRING,
    (State.REPAIRING, Signal.CONFIRMED): State.REPAIRING,
    (State.REPAIRING, Signal.UNCLEAR): State.REPAIRING,
    (State.REPAIRING, Signal.PASSED): State.REPAIRING,
    (State.REPAIRING, Signal.INTENDED): State.REPAIRING,
    (State.REPAIRING, Signal.VANISHED): State.GONE,
    (State.REPAIRING, Signal.RUN_ENDED): State.VERIFYING,
    (State.REPAIRING, Signal.HANDED_OVER): State.ESCALATED,
    (State.VERIFYING, Signal.FAILED): State.VERIFYING,
    (State.VERIFYING, Signal.CONFIRMED): State.VERIFYING,
    (State.VERIFYING, Signal.UNCLEAR): State.VERIFYING,
    (State.VERIFYING, Signal.PASSED): State.PROBATION,
    (State.VERIFYING, Signal.INTENDED): State.RESOLVED,
    (State.VERIFYING, Signal.VANISHED): State.GONE,
    (State.VERIFYING, Signal.UNPROVED): State.OPEN,
    (State.VERIFYING, Signal.CLOSED): State.RESOLVED,
    (State.PROBATION, Signal.FAILED): State.PROBATION,
    (State.PROBATION, Signal.UNCLEAR): State.PROBATION,
    (State.PROBATION, Signal.PASSED): State.PROBATION,
    (State.PROBATION, Signal.CONFIRMED): State.OPEN,
    (State.PROBATION, Signal.STABLE): State.RESOLVED,
    (State.PROBATION, Signal.INTENDED): State.RESOLVED,
    (State.PROBATION, Signal.VANISHED): State.GONE,
    (State.PROBATION, Signal.CLOSED): State.RESOLVED,
    (State.ESCALATED, Signal.FAILED): State.ESCALATED,
    (State.ESCALATED, Signal.CONFIRMED): State.ESCALATED,
    (State.ESCALATED, Signal.UNCLEAR): State.ESCALATED,
    (State.ESCALATED, Signal.PASSED): State.PROBATION,
    (State.ESCALATED, Signal.INTENDED): State.RESOLVED,
    (State.ESCALATED, Signal.VANISHED): State.GONE,
    (State.ESCALATED, Signal.PLANNED): State.REPAIRING,
    (State.ESCALATED, Signal.RUN_ENDED): State.VERIFYING,
    (State.ESCALATED, Signal.HANDED_OVER): State.ESCALATED,
    (State.ESCALATED, Signal.CLOSED): State.RESOLVED,
}


def advance(
    incident: Incident, signal: Signal, now: Instant, why: str = ""
) -> tuple[Incident, Transition | None]:
    """The incident after one signal, and the transition if its state changed.

    Raises ImpossibleTransition where `TABLE` has no such step: that is a defect of the caller.
    """
    new = TABLE.get((incident.state, signal))
    if new is None:
        raise ImpossibleTransition(
            f"cannot advance incident {incident.id}: {incident.state} knows no {signal!r}"
        )
    if new is incident.state:
        return incident, None
    moved = replace(incident, state=new, entered=now, why=why or str(signal))
    match new:
        case State.OPEN:
            by_itself = incident.state is State.PROBATION and incident.healed_by is None
            moved = replace(
                moved,
                opened=moved.opened or now,
                healed_by=None,
                after=None,
                relapses=incident.relapses + by_itself,
            )
        case State.PROBATION:
            proved = incident.run if incident.state is State.VERIFYING else None
            moved = replace(
                moved,
                healed_by=proved,
                after=incident.finding,
                # A pass that was only recorded, during the run, is no part of the probation.
                passing_since=incident.looked,
                whole_by=incident.look_ended,
                recent=incident.recent[-1:],
                held_since=None,
            )
        case State.VERIFYING:
            moved = replace(moved, passing_since=None, whole_by=None)
        case State.RESOLVED | State.GONE:
            moved = replace(
                moved,
                ended=now,
                resolved_by=_resolved_by(incident, signal),
                held_since=None,
                after=incident.finding if signal is Signal.INTENDED else moved.after,
            )
        case _:
            moved = replace(moved, held_since=None)
    return moved, Transition(
        incident=incident.id, at=now, old=incident.state, new=new, why=moved.why
    )


def _resolved_by(incident: Incident, signal: Signal) -> ResolvedBy | None:
    match signal:
        case Signal.VANISHED:
            return None
        case Signal.INTENDED | Signal.CLOSED:
            return ResolvedBy.OPERATOR
        case Signal.STABLE if incident.healed_by:
            return ResolvedBy.RUN
        case _:
            return ResolvedBy.ITSELF


def record_look(
    incident: Incident, finding: Finding, began: Instant, ended: Instant, check: CheckPolicy
) -> Incident:
    """The incident with one more look in its books: finding, downtime, the last looks."""
    recent = (*incident.recent, finding.status)[-check.confirm.of :]
    failing_since, downtime = incident.failing_since, incident.downtime
    passing_since, whole_by, unclear_since = incident.passing_since, incident.whole_by, None
    if finding.failing:
        passing_since = whole_by = None
        if failing_since is None:
            failing_since = began if finding.since is None else min(began, finding.since)
            if incident.passing_since is not None:
                failing_since = max(failing_since, incident.passing_since)
    elif finding.status is Status.OK:
        if passing_since is None:
            passing_since, whole_by = began, ended
        if failing_since is not None:
            downtime += max(0.0, began - failing_since)
            failing_since = None
    else:
        passing_since = whole_by = None
        unclear_since = began if incident.unclear_since is None else incident.unclear_since
    return replace(
        incident,
        finding=finding,
        looked=began,
        look_ended=ended,
        recent=recent,
        failing_since=failing_since,
        downtime=downtime,
        passing_since=passing_since,
        whole_by=whole_by,
        unclear_since=unclear_since,
    )


def confirmed(incident: Incident, check: CheckPolicy, *, critical: bool = False) -> bool:
    """Whether enough of the last looks failed (or were critical) to believe it."""
    wanted = (Status.CRITICAL,) if critical else (Status.WARNING, Status.CRITICAL)
    recent = incident.recent[-check.confirm.of :]
    return sum(status in wanted for status in recent) >= check.confirm.times


def signal_of_look(incident: Incident, check: CheckPolicy, policy: Policy) -> Signal:
    """What the look that was just recorded means for this incident."""
    finding = incident.finding
    if finding.intended:
        return Signal.INTENDED
    if finding.failing:
        return Signal.CONFIRMED if confirmed(incident, check) else Signal.FAILED
    if finding.status is Status.UNKNOWN:
        return Signal.UNCLEAR
    if incident.state is State.PENDING and _cannot_be_confirmed(incident, check):
        return Signal.CLEARED
    if incident.state is State.PROBATION and _is_stable(incident, check, policy):
        return Signal.STABLE
    return Signal.PASSED


def _cannot_be_confirmed(incident: Incident, check: CheckPolicy) -> bool:
    """Whether even failing from now on, the failures seen so far would no longer count."""
    passed = 0
    for status in reversed(incident.recent):
        if status is not Status.OK:
            break
        passed += 1
    no_failure = not any(s in (Status.WARNING, Status.CRITICAL) for s in incident.recent)
    return no_failure or passed > check.confirm.of - check.confirm.times


def _is_stable(incident: Incident, check: CheckPolicy, policy: Policy) -> bool:
    """A look that began so long after the first passing one, with only passes between."""
    since = incident.passing_since
    return since is not None and incident.looked >= since + stable_time(incident, check, policy)


def stable_time(incident: Incident, check: CheckPolicy, policy: Policy) -> Seconds:
    """How long it must stay whole: `stable_for`, and longer for what comes and goes."""
    flaps = incident.relapses - policy.flap_after + 1
    if flaps <= 0:
        return check.stable_for
    # Bounded before it is raised: a number of relapses has no end.
    longer = check.stable_for * 2.0 ** min(flaps, _DOUBLINGS)
    return max(check.stable_for, min(longer, policy.stable_at_most))


def verify_deadline(
    incident: Incident, run: Run | None, check: CheckPolicy, policy: Policy
) -> Instant:
    """Until when a run that ended may still be proved.

    A run that did not end well gets no time beyond its first look. A subject on its way (a
    database in crash recovery) gets as long as a transition is believed.
    """
    ended = incident.run_ended if incident.run_ended is not None else incident.entered
    if run is not None and run.outcome is not Outcome.OK:
        return ended
    if incident.finding.transition and incident.looked > ended:
        return ended + max(check.verify_for, policy.transition_for)
    return ended + check.verify_for


def is_overdue(run: Run, now: Instant) -> bool:
    """Whether a run that nothing may end by itself is past its time."""
    return (
        run.alive
        and run.changes.outlives_its_time
        and run.started is not None
        and now >= run.started + run.timeout
    )


def settle(
    incident: Incident, run: Run | None, check: CheckPolicy, policy: Policy, now: Instant
) -> tuple[Signal, str] | None:
    """The signal that the passing of time means for this incident, with its reason in words."""
    match incident.state:
        case State.PENDING | State.PROBATION:
            doubt = incident.unclear_since
            if doubt is not None and now >= doubt + policy.unknown_for:
                return Signal.CONFIRMED, "no look could tell for too long"
        case State.REPAIRING:
            if run is not None and is_overdue(run, now):
                why = f"run {run.id} works on past its time; only an operator may end it"
                return Signal.HANDED_OVER, why
        case State.VERIFYING:
            if incident.run_ended is None or incident.looked <= incident.run_ended:
                return None
            if incident.finding.status is Status.OK:
                # A look of the time before the run's end was known, but begun after it.
                return signal_of_look(incident, check, policy), incident.finding.summary
            if now >= verify_deadline(incident, run, check, policy):
                return Signal.UNPROVED, f"still {incident.finding.status} after the run"
        case _:
            pass
    return None
