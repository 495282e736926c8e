"""What people order: each is carried out whole, or refused with the way out."""

from __future__ import annotations

from dataclasses import replace

from agent.core.advance import Signal
from agent.core.desk import Desk, make_question, make_run, start
from agent.core.holds import NextStep, fill_lock, is_about, next_step, say_doubt, why_busy
from agent.core.model import Approval, Incident, Ordered, Pause, State, Verb
from agent.errors import Conflict, Invalid, NotFound


def take_order(desk: Desk, order: Ordered) -> None:
    """Carries an order out. Raises Conflict, Invalid or NotFound; then nothing has changed."""
    match order.verb:
        case Verb.ACKNOWLEDGE:
            desk.put(replace(desk.find(order.target), acknowledged=order.by))
        case Verb.APPROVE:
            _approve(desk, order)
        case Verb.REJECT:
            _reject(desk, order)
        case Verb.RETRY:
            _retry(desk, order)
        case Verb.CLOSE:
            incident = desk.find(order.target)
            _refuse_while_running(desk, incident, "close")
            desk.signal(incident, Signal.CLOSED, f"closed by {order.by}")
        case Verb.PAUSE:
            pause = Pause(by=order.by, since=desk.now, until=order.until, why=order.why)
            desk.host = replace(desk.host, paused=pause)
        case Verb.RESUME:
            desk.host = replace(desk.host, paused=None)
        case Verb.CONFIRM:
            if desk.host.doubt is None:
                raise Conflict("cannot confirm this host: nothing is in doubt")
            desk.host = replace(desk.host, doubt=None)
        case Verb.SILENCE:
            _silence(desk, order)
        case Verb.END_SILENCE:
            _end_silence(desk, order)
        case Verb.RUN:  # pragma: no branch
            _run_by_hand(desk, order)
    desk.made = desk.made or order.target


def _refuse_while_running(desk: Desk, incident: Incident, what: str) -> None:
    run = desk.run_of(incident)
    if incident.state.ended:
        raise Conflict(f"cannot {what} incident {incident.id}: it is {incident.state} already")
    if run is not None and run.alive:
        raise Conflict(
            f"cannot {what} incident {incident.id}: run {run.id} is alive; "
            f"wait for it or cancel it first"
        )


def _chosen_for(desk: Desk, incident: Incident, what: str) -> NextStep:
    _refuse_while_running(desk, incident, what)
    if incident.check not in desk.policy.checks:
        raise Conflict(f"cannot {what}: check {incident.check} is not configured any more")
    chosen = next_step(incident, desk.check_of(incident), desk.host, desk.policy, desk.now)
    if isinstance(chosen, str):
        raise Conflict(f"cannot {what} incident {incident.id}: {chosen}")
    return chosen


def _approve(desk: Desk, order: Ordered) -> None:
    incident = desk.find(order.target)
    chosen = _chosen_for(desk, incident, "approve")
    if not incident.critical:
        status = incident.finding.status
        raise Conflict(f"cannot approve incident {incident.id}: its finding is {status} now")
    if order.digest and order.digest != chosen.step.digest:
        raise Conflict(
            f"cannot approve incident {incident.id}: {chosen.step.remedy} changed since it was "
            f"shown; look at it again"
        )
    approval = Approval(
        step=chosen.step.key,
        options=chosen.options,
        digest=chosen.step.digest,
        by=order.by,
        until=desk.now + desk.policy.approval_for,
    )
    question = incident.question
    if not is_about(question, chosen.step, chosen.options):
        # Approved before it was put, since something else still holds it.
        question = replace(make_question(chosen), asked=desk.now)
    retry_at = None if incident.retry_at is None else desk.now
    desk.put(replace(incident, question=question, approval=approval, retry_at=retry_at))


def _reject(desk: Desk, order: Ordered) -> None:
    incident = desk.find(order.target)
    chosen = _chosen_for(desk, incident, "reject")
    rejected = (*incident.rejected, chosen.step.key)
    desk.put(replace(incident, rejected=rejected, question=None, approval=None))


def _retry(desk: Desk, order: Ordered) -> None:
    incident = desk.find(order.target)
    if incident.state is not State.ESCALATED:
        raise Conflict(
            f"cannot retry incident {incident.id}: it is {incident.state}, not escalated"
        )
    ready = replace(incident, retry_at=desk.now, rejected=())
    desk.put(ready)
    _chosen_for(desk, ready, "retry")


def _silence(desk: Desk, order: Ordered) -> None:
    silence = order.silence
    if silence is None or silence.ends <= max(silence.starts, desk.now):
        raise Invalid("cannot silence: it must end after it starts, and after now")
    if not silence.checks and not silence.labels:
        raise Invalid("cannot silence: name checks or labels; everything is written as '*'")
    numbered = replace(silence, id=f"s{desk.take_number()}", by=order.by)
    desk.host = replace(desk.host, silences=(*desk.host.silences, numbered))
    desk.made = numbered.id


def _end_silence(desk: Desk, order: Ordered) -> None:
    left = tuple(s for s in desk.host.silences if s.id != order.target)
    if len(left) == len(desk.host.silences):
        raise NotFound(f"cannot end silence {order.target}: there is none with this id")
    desk.host = replace(desk.host, silences=left)


def _run_by_hand(desk: Desk, order: Ordered) -> None:
    if order.step is None:
        raise Invalid("cannot run: no remedy is named")
    if desk.host.doubt is not None and not order.preview:
        raise Conflict(f"cannot run {order.step.remedy}: {say_doubt(desk.host.doubt)}")
    lock = fill_lock(order.step, order.step.options)
    busy = why_busy(desk.host.runs, lock, desk.policy)
    if busy:
        raise Conflict(f"cannot run {order.step.remedy}: {busy}; wait for it or cancel it")
    run = make_run(desk, order.step, order.step.options, lock)
    desk.made = run.id
    start(desk, replace(run, by=order.by, preview=order.preview))
