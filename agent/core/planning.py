"""Starts what may start, and gives everything else the name of its hold."""

from __future__ import annotations

from dataclasses import replace

from agent.core.advance import Signal, confirmed
from agent.core.desk import Desk, make_question, make_run, start, with_retry
from agent.core.holds import is_about, next_step, rank, why_not
from agent.core.model import CheckPolicy, Held, Hold, Incident, State, Transition
from agent.core.reasons import answer_due


def plan(desk: Desk) -> None:
    """Starts what may start, root-most first; everything else gets the name of its hold."""
    desk.holds.clear()
    for waiting in sorted(
        (i for i in desk.host.incidents if i.state in (State.OPEN, State.ESCALATED)),
        key=lambda i: rank(i, desk.host, desk.policy),
    ):
        incident = waiting
        check, run = desk.check_of(incident), desk.run_of(incident)
        if run is not None and run.alive:
            detail = f"its run {run.id} is alive"
            desk.holds[incident.id] = Held(hold=Hold.BUSY, detail=detail)
            continue
        held = why_not(incident, check, desk.host, desk.policy, desk.now)
        if held is None:
            _start_next(desk, incident, check)
            continue
        desk.holds[incident.id] = held
        critical = incident.critical and confirmed(incident, check, critical=True)
        if held.hold is Hold.SHADOW:
            incident = _record_shadow(desk, incident, check)
        if held.hold is Hold.APPROVAL:
            incident = _put_question(desk, incident, check)
        if incident.state is State.OPEN:
            since = incident.held_since if incident.held_since is not None else desk.now
            incident = replace(incident, held_since=since if critical else None)
            why = _why_give_up(desk, incident, held)
            if why and critical:
                incident = desk.signal(replace(incident, question=None), Signal.EXHAUSTED, why)
                again = with_retry(incident, desk)
                if not isinstance(next_step(again, check, desk.host, desk.policy, desk.now), str):
                    incident = again
        desk.put(incident)


def _why_give_up(desk: Desk, incident: Incident, held: Held) -> str:
    """In words why a human is needed for a held incident; empty when waiting may help."""
    if held.hold is Hold.NO_REMEDY:
        return held.detail
    due = answer_due(incident, desk.policy)
    if held.hold is Hold.APPROVAL and due is not None and desk.now >= due:
        return f"nobody answered: {held.detail}"
    return ""


def _record_shadow(desk: Desk, incident: Incident, check: CheckPolicy) -> Incident:
    chosen = next_step(incident, check, desk.host, desk.policy, desk.now)
    if isinstance(chosen, str) or chosen.step.key in incident.shadowed:
        return incident
    desk.transitions.append(
        Transition(
            incident=incident.id,
            at=desk.now,
            old=incident.state,
            new=incident.state,
            why=f"in shadow: would run {chosen.step.remedy}",
        )
    )
    return replace(incident, shadowed=(*incident.shadowed, chosen.step.key))


def _put_question(desk: Desk, incident: Incident, check: CheckPolicy) -> Incident:
    """The incident with what somebody is asked: as it was put, while it is still about the same."""
    chosen = next_step(incident, check, desk.host, desk.policy, desk.now)
    if isinstance(chosen, str):  # pragma: no cover (it would have been held for this)
        return incident
    if is_about(incident.question, chosen.step, chosen.options):
        return incident
    return replace(incident, question=make_question(chosen))


def _start_next(desk: Desk, incident: Incident, check: CheckPolicy) -> None:
    chosen = next_step(incident, check, desk.host, desk.policy, desk.now)
    if isinstance(chosen, str):  # pragma: no cover (it would have been held for this)
        return
    run = replace(
        make_run(desk, chosen.step, chosen.options, chosen.lock),
        incident=incident.id,
        check=incident.check,
        subject=incident.subject,
        step=chosen.step.key,
    )
    retries = incident.retries + (incident.state is State.ESCALATED)
    bound = replace(
        incident, run=run.id, retries=retries, question=None, approval=None, run_ended=None
    )
    desk.signal(bound, Signal.PLANNED, f"{run.remedy} planned as {run.id}")
    start(desk, run)
