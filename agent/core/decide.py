"""The only place where anything is decided: one event in, everything that follows from it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.core.advance import (
    Signal,
    advance,
    confirmed,
    record_look,
    settle,
    signal_of_look,
    stable_time,
    verify_deadline,
)
from agent.core.holds import (
    NextStep,
    fill_lock,
    find_unseen_upstream,
    find_windows,
    is_about,
    next_step,
    rank,
    say_doubt,
    stale_checks,
    upstream_incidents,
    why_busy,
    why_not,
)
from agent.core.model import (
    Approval,
    CheckPolicy,
    Decision,
    Digested,
    Doubt,
    Event,
    Finding,
    Held,
    Hold,
    Host,
    Incident,
    Instant,
    LastLook,
    Looked,
    Notice,
    Ordered,
    Outcome,
    Pause,
    Policy,
    Question,
    Reconfigured,
    Recovery,
    Reported,
    ResolvedBy,
    Run,
    RunEnded,
    RunStarted,
    RunState,
    State,
    Status,
    Step,
    Tick,
    Transition,
    Verb,
)
from agent.core.reasons import (
    Say,
    answer_due,
    find_reasons,
    mark_said,
    mild_due,
    opened_due,
    owes_words,
    reminder_due,
    write_digest_notices,
    write_notices,
    write_report,
)
from agent.core.storm import find_storm_message, gather_storm, is_over, quiet_from
from agent.errors import Conflict, Invalid, NotFound

#: While something is being proved or confirmed, looks follow each other no faster than this.
_QUICK = 0.25
#: A suspicion is looked at again after this; a host in transition after `_SLOW`.
_SOON = 1.0
_SLOW = 5.0

#: Recoveries that are remembered at most: a host on which everything flaps has other troubles.
_RECOVERIES = 500

#: More doublings than any `retry_at_most` needs; without an end they would overflow.
_DOUBLINGS = 32


def decide(host: Host, event: Event, policy: Policy, now: Instant) -> Decision:
    """Everything that follows from one event.

    Advances what the event is about, then lets time pass for every incident, plans every held one
    again, root-most first, and says what must be said. Raises Conflict, Invalid or NotFound for an
    order that cannot be carried out; then nothing has changed.
    """
    desk = _Desk(host=host, policy=policy, now=now)
    match event:
        case Looked():
            _take_look(desk, event)
        case RunStarted():
            _take_run_start(desk, event)
        case RunEnded():
            _take_run_end(desk, event)
        case Ordered():
            _take_order(desk, event)
        case Reported():
            _take_report(desk, event)
        case Digested():
            _take_digest(desk, event)
        case Reconfigured() | Tick():  # pragma: no branch
            pass
    _drop_what_is_not_configured(desk)
    before = None
    while before != desk.host:
        # What one part decides may matter to a part before it. A second decide right after must
        # find nothing left to do, so it is done now.
        before = desk.host
        _forget_what_is_over(desk)
        _let_time_pass(desk)
        desk.host = replace(desk.host, storm=gather_storm(desk.host, policy, now))
        _plan(desk)
        _speak_of_storm(desk)
        _speak(desk)
        _file_away(desk)
    look, wake = _when_to_look(desk)
    return Decision(
        host=desk.host,
        ended=tuple(desk.ended),
        transitions=tuple(desk.transitions),
        runs=tuple(desk.runs),
        notices=tuple(desk.notices),
        look=look,
        wake=wake,
        holds=desk.holds,
        made=desk.made,
    )


@dataclass(kw_only=True)
class _Desk:
    """The host while it is being decided on, and what was decided so far."""

    host: Host
    policy: Policy
    now: Instant
    transitions: list[Transition] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    holds: dict[str, Held] = field(default_factory=dict)
    ended: list[Incident] = field(default_factory=list)
    made: str = ""

    def take_number(self) -> int:
        self.host = replace(self.host, serial=self.host.serial + 1)
        return self.host.serial

    def check_of(self, incident: Incident) -> CheckPolicy:
        return self.policy.checks[incident.check]

    def find(self, incident_id: str) -> Incident:
        for incident in self.host.incidents:
            if incident.id == incident_id:
                return incident
        raise NotFound(f"cannot find incident {incident_id}: no open incident has this id")

    def run_of(self, incident: Incident) -> Run | None:
        return next((run for run in self.host.runs if run.id == incident.run), None)

    def put(self, incident: Incident) -> None:
        """Replaces the incident with the same id, or adds it."""
        others = [known for known in self.host.incidents if known.id != incident.id]
        place = next(
            (i for i, known in enumerate(self.host.incidents) if known.id == incident.id),
            len(others),
        )
        incidents = (*others[:place], incident, *others[place:])
        self.host = replace(self.host, incidents=incidents)

    def put_run(self, run: Run) -> None:
        runs = tuple(run if known.id == run.id else known for known in self.host.runs)
        self.host = replace(self.host, runs=runs)

    def signal(self, incident: Incident, signal: Signal, why: str = "") -> Incident:
        """Advances an incident and keeps the transition."""
        moved, transition = advance(incident, signal, self.now, why)
        if transition is not None:
            self.transitions.append(transition)
        if moved.state is State.PROBATION and moved.healed_by:
            run = self.run_of(moved)
            if run is None or run.outcome is not Outcome.OK:
                moved = replace(moved, healed_by=None)
        if moved.state is State.RESOLVED and moved.healed_by and signal is Signal.STABLE:
            run = self.run_of(moved)
            if run is not None:
                self.put_run(replace(run, proved=True))
        self.put(moved)
        return moved


# What an event is about


def _take_look(desk: _Desk, event: Looked) -> None:
    check = desk.policy.checks.get(event.check)
    last = desk.host.looked.get(event.check)
    if check is None or (last is not None and event.began <= last.began):
        return
    findings = {finding.subject: finding for finding in event.findings}
    _remember_look(desk, event, findings)
    known = [i for i in desk.host.incidents if i.check == check.name and not i.state.ended]
    for incident in known:
        finding = findings.pop(incident.subject, None)
        if event.began <= incident.looked:
            continue
        if finding is None and event.broken:
            finding = Finding(
                subject=incident.subject,
                status=Status.UNKNOWN,
                cause="broken look",
                summary=event.broken,
            )
        if finding is not None:
            _take_finding(desk, incident, finding, event, check)
        elif not _is_too_early(desk, incident, event.began):
            desk.signal(incident, Signal.VANISHED, "the look no longer reports it")
    if event.broken and not known:
        findings.setdefault(
            "",
            Finding(subject="", status=Status.UNKNOWN, cause="broken look", summary=event.broken),
        )
    for finding in findings.values():
        if finding.status is not Status.OK and not finding.intended:
            _open_pending(desk, finding, event, check)


def _remember_look(desk: _Desk, event: Looked, findings: Mapping[str, Finding]) -> None:
    last = LastLook(
        began=event.began,
        ended=event.ended,
        ok=not event.broken and all(f.status is Status.OK for f in findings.values()),
        intended=tuple(sorted(f.subject for f in findings.values() if f.intended)),
        resources=tuple(sorted(f.resource for f in findings.values() if f.resource)),
    )
    desk.host = replace(
        desk.host,
        looked={**desk.host.looked, event.check: last},
        transition=event.transition,
        transition_seen=event.ended if event.transition else None,
    )


def _open_pending(desk: _Desk, finding: Finding, event: Looked, check: CheckPolicy) -> None:
    known_since = finding.since if finding.since is not None else event.began
    blank = Incident(
        id=f"i{desk.take_number()}",
        check=check.name,
        subject=finding.subject,
        state=State.PENDING,
        finding=finding,
        looked=event.began,
        before=finding,
        began=min(known_since, event.began),
        entered=desk.now,
        seen=event.began,
        look_ended=event.ended,
        why=finding.summary or finding.cause,
        labels=check.labels,
        relapses=sum(
            (each.check, each.subject) == (check.name, finding.subject)
            for each in desk.host.recoveries
        ),
    )
    incident = record_look(blank, finding, event.began, event.ended, check)
    desk.transitions.append(
        Transition(incident=incident.id, at=desk.now, old=None, new=State.PENDING, why=incident.why)
    )
    desk.signal(incident, signal_of_look(incident, check, desk.policy), finding.summary)


def _take_finding(
    desk: _Desk, incident: Incident, finding: Finding, event: Looked, check: CheckPolicy
) -> None:
    incident = record_look(incident, finding, event.began, event.ended, check)
    if incident.state is State.PENDING and finding.failing:
        incident = replace(incident, before=finding)
    desk.put(incident)
    if not _is_too_early(desk, incident, event.began):
        desk.signal(incident, signal_of_look(incident, check, desk.policy), finding.summary)


def _is_too_early(desk: _Desk, incident: Incident, began: Instant) -> bool:
    """Whether a look began before the end of the incident's run: then it says nothing of it."""
    run = desk.run_of(incident)
    if run is not None and run.alive:
        return True
    return incident.run_ended is not None and began <= incident.run_ended


def _take_run_start(desk: _Desk, event: RunStarted) -> None:
    run = next((run for run in desk.host.runs if run.id == event.run), None)
    if run is None or run.state is not RunState.PLANNED:
        raise Conflict(f"cannot start run {event.run}: it is not planned any more")
    desk.put_run(replace(run, state=RunState.RUNNING, started=desk.now))
    desk.made = run.id


def _take_run_end(desk: _Desk, event: RunEnded) -> None:
    run = next((run for run in desk.host.runs if run.id == event.run), None)
    if run is None or not run.alive:
        return
    ended = max(min(event.ended, desk.now), run.started or run.planned)
    desk.put_run(
        replace(run, state=RunState.ENDED, ended=ended, outcome=event.outcome, detail=event.detail)
    )
    incident = next((i for i in desk.host.incidents if i.id == run.incident), None)
    if incident is None or incident.state.ended or incident.run != run.id:
        return
    incident = replace(incident, run_ended=ended)
    handed_over = event.outcome in (Outcome.NEEDS_HUMAN, Outcome.CANCELLED)
    signal = Signal.HANDED_OVER if handed_over else Signal.RUN_ENDED
    words = f"{run.remedy} ended {event.outcome}" + (f": {event.detail}" if event.detail else "")
    incident = desk.signal(incident, signal, words)
    if handed_over:
        desk.put(_with_retry(replace(incident, why=words), desk))


def _with_retry(incident: Incident, desk: _Desk) -> Incident:
    """An escalated incident with the time of its next slow try."""
    doubled = 2.0 ** min(incident.retries, _DOUBLINGS)
    wait = min(desk.policy.retry_after * doubled, desk.policy.retry_at_most)
    return replace(incident, retry_at=desk.now + wait)


def _take_report(desk: _Desk, event: Reported) -> None:
    """Told to all who want to hear of the agent; to one route only while the state is in doubt."""
    known = desk.host.doubt
    if event.doubt:
        if known is not None and known.why == event.doubt:
            return
        desk.host = replace(desk.host, doubt=Doubt(why=event.doubt, since=desk.now))
    details = {"summary": event.summary, "severity": event.severity.value}
    notices, serial = write_report(
        details, desk.policy, desk.now, desk.host.serial, only_one=desk.host.doubt is not None
    )
    desk.notices.extend(notices)
    desk.host = replace(desk.host, serial=serial)


def _take_digest(desk: _Desk, event: Digested) -> None:
    """Told once: the time until which it tells is saved with its messages."""
    notices, serial = write_digest_notices(event, desk.policy, desk.now, desk.host.serial)
    desk.notices.extend(notices)
    desk.host = replace(desk.host, digested=event.until, serial=serial)


def _take_order(desk: _Desk, order: Ordered) -> None:
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


def _refuse_while_running(desk: _Desk, incident: Incident, what: str) -> None:
    run = desk.run_of(incident)
    if incident.state.ended:
        raise Conflict(f"cannot {what} incident {incident.id}: it is {incident.state} already")
    if run is not None and run.alive:
        raise Conflict(
            f"cannot {what} incident {incident.id}: run {run.id} is alive; "
            f"wait for it or cancel it first"
        )


def _chosen_for(desk: _Desk, incident: Incident, what: str) -> NextStep:
    _refuse_while_running(desk, incident, what)
    if incident.check not in desk.policy.checks:
        raise Conflict(f"cannot {what}: check {incident.check} is not configured any more")
    chosen = next_step(incident, desk.check_of(incident), desk.host, desk.policy, desk.now)
    if isinstance(chosen, str):
        raise Conflict(f"cannot {what} incident {incident.id}: {chosen}")
    return chosen


def _approve(desk: _Desk, order: Ordered) -> None:
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
        question = replace(_make_question(chosen), asked=desk.now)
    retry_at = None if incident.retry_at is None else desk.now
    desk.put(replace(incident, question=question, approval=approval, retry_at=retry_at))


def _reject(desk: _Desk, order: Ordered) -> None:
    incident = desk.find(order.target)
    chosen = _chosen_for(desk, incident, "reject")
    rejected = (*incident.rejected, chosen.step.key)
    desk.put(replace(incident, rejected=rejected, question=None, approval=None))


def _retry(desk: _Desk, order: Ordered) -> None:
    incident = desk.find(order.target)
    if incident.state is not State.ESCALATED:
        raise Conflict(
            f"cannot retry incident {incident.id}: it is {incident.state}, not escalated"
        )
    ready = replace(incident, retry_at=desk.now, rejected=())
    desk.put(ready)
    _chosen_for(desk, ready, "retry")


def _silence(desk: _Desk, order: Ordered) -> None:
    silence = order.silence
    if silence is None or silence.ends <= max(silence.starts, desk.now):
        raise Invalid("cannot silence: it must end after it starts, and after now")
    if not silence.checks and not silence.labels:
        raise Invalid("cannot silence: name checks or labels; everything is written as '*'")
    numbered = replace(silence, id=f"s{desk.take_number()}", by=order.by)
    desk.host = replace(desk.host, silences=(*desk.host.silences, numbered))
    desk.made = numbered.id


def _end_silence(desk: _Desk, order: Ordered) -> None:
    left = tuple(s for s in desk.host.silences if s.id != order.target)
    if len(left) == len(desk.host.silences):
        raise NotFound(f"cannot end silence {order.target}: there is none with this id")
    desk.host = replace(desk.host, silences=left)


def _run_by_hand(desk: _Desk, order: Ordered) -> None:
    if order.step is None:
        raise Invalid("cannot run: no remedy is named")
    if desk.host.doubt is not None and not order.preview:
        raise Conflict(f"cannot run {order.step.remedy}: {say_doubt(desk.host.doubt)}")
    lock = fill_lock(order.step, order.step.options)
    busy = why_busy(desk.host.runs, lock, desk.policy)
    if busy:
        raise Conflict(f"cannot run {order.step.remedy}: {busy}; wait for it or cancel it")
    run = _make_run(desk, order.step, order.step.options, lock)
    desk.made = run.id
    _start(desk, replace(run, by=order.by, preview=order.preview))


# What time does


def _when_to_forget(run: Run, policy: Policy) -> Instant:
    """When no rule counts a run any more."""
    window = max(policy.attempts_window, policy.recurring_window, policy.budget_window)
    return (run.planned if run.ended is None else run.ended) + window


def _forget_what_is_over(desk: _Desk) -> None:
    """Drops what no rule counts any more."""
    host, now, policy = desk.host, desk.now, desk.policy
    needed = {incident.run for incident in host.incidents}
    runs = tuple(
        r for r in host.runs if r.alive or r.id in needed or now < _when_to_forget(r, policy)
    )
    silences = tuple(s for s in host.silences if now < s.ends)
    paused = host.paused
    if paused is not None and paused.until is not None and now >= paused.until:
        paused = None
    seen = host.transition_seen
    over = seen is not None and now >= seen + policy.transition_for
    desk.host = replace(
        host,
        runs=runs,
        silences=silences,
        paused=paused,
        recoveries=tuple(r for r in host.recoveries if now < r.at + policy.flap_window),
        transition="" if over else host.transition,
        transition_seen=None if over else seen,
    )


def _drop_what_is_not_configured(desk: _Desk) -> None:
    for incident in desk.host.incidents:
        if incident.check not in desk.policy.checks and not incident.state.ended:
            desk.signal(incident, Signal.VANISHED, "its check is not configured any more")
    looked = {n: last for n, last in desk.host.looked.items() if n in desk.policy.checks}
    if len(looked) != len(desk.host.looked):
        desk.host = replace(desk.host, looked=looked)


def _let_time_pass(desk: _Desk) -> None:
    for incident in desk.host.incidents:
        if incident.state.ended:
            continue
        check = desk.check_of(incident)
        due = settle(incident, desk.run_of(incident), check, desk.policy, desk.now)
        if due is not None:
            moved = desk.signal(incident, *due)
            if moved.state is State.ESCALATED:
                desk.put(_with_retry(moved, desk))


# Acting and speaking


def _plan(desk: _Desk) -> None:
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
                again = _with_retry(incident, desk)
                if not isinstance(next_step(again, check, desk.host, desk.policy, desk.now), str):
                    incident = again
        desk.put(incident)


def _why_give_up(desk: _Desk, incident: Incident, held: Held) -> str:
    """In words why a human is needed for a held incident; empty when waiting may help."""
    if held.hold is Hold.NO_REMEDY:
        return held.detail
    due = answer_due(incident, desk.policy)
    if held.hold is Hold.APPROVAL and due is not None and desk.now >= due:
        return f"nobody answered: {held.detail}"
    return ""


def _record_shadow(desk: _Desk, incident: Incident, check: CheckPolicy) -> Incident:
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


def _put_question(desk: _Desk, incident: Incident, check: CheckPolicy) -> Incident:
    """The incident with what somebody is asked: as it was put, while it is still about the same."""
    chosen = next_step(incident, check, desk.host, desk.policy, desk.now)
    if isinstance(chosen, str):  # pragma: no cover (it would have been held for this)
        return incident
    if is_about(incident.question, chosen.step, chosen.options):
        return incident
    return replace(incident, question=_make_question(chosen))


def _make_question(chosen: NextStep) -> Question:
    return Question(
        step=chosen.step.key,
        remedy=chosen.step.remedy,
        risk=chosen.step.risk,
        options=chosen.options,
        digest=chosen.step.digest,
        hidden=chosen.step.hidden,
    )


def _start_next(desk: _Desk, incident: Incident, check: CheckPolicy) -> None:
    chosen = next_step(incident, check, desk.host, desk.policy, desk.now)
    if isinstance(chosen, str):  # pragma: no cover (it would have been held for this)
        return
    run = replace(
        _make_run(desk, chosen.step, chosen.options, chosen.lock),
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
    _start(desk, run)


def _make_run(desk: _Desk, step: Step, options: Mapping[str, object], lock: str) -> Run:
    return Run(
        id=f"r{desk.take_number()}",
        remedy=step.remedy,
        options=options,
        risk=step.risk,
        changes=step.changes,
        timeout=step.timeout,
        lock=lock,
        digest=step.digest,
        planned=desk.now,
    )


def _start(desk: _Desk, run: Run) -> None:
    desk.host = replace(desk.host, runs=(*desk.host.runs, run))
    desk.runs.append(run)


def _speak_of_storm(desk: _Desk) -> None:
    """One message for the host, and the books of each incident of it say what it was told."""
    storm, policy, now = desk.host.storm, desk.policy, desk.now
    if storm is None or desk.host.doubt is not None:
        return
    over = is_over(desk.host, desk.holds, policy, now)
    found = find_storm_message(desk.host, desk.holds, policy, now, over=over)
    if found is not None:
        say, settled = found
        for incident in desk.host.incidents:
            if incident.id in settled:
                desk.put(mark_said(incident, settled[incident.id], now))
        _write(desk, say, None)
        storm = replace(storm, said=True)
    desk.host = replace(desk.host, storm=None if over else storm)
    if over:
        # What it held back may go on now.
        _plan(desk)


def _speak(desk: _Desk) -> None:
    for incident in desk.host.incidents:
        held = desk.holds.get(incident.id)
        for say in find_reasons(incident, held, desk.host, desk.policy, desk.now):
            incident = mark_said(incident, say, desk.now)
            desk.put(incident)
            _write(desk, say, incident)


def _write(desk: _Desk, say: Say, incident: Incident | None) -> None:
    notices, serial = write_notices(say, incident, desk.policy, desk.now, desk.host.serial)
    desk.notices.extend(notices)
    desk.host = replace(desk.host, serial=serial)


def _file_away(desk: _Desk) -> None:
    """Takes incidents that ended, with nothing left to say, out of the host."""
    done = tuple(
        incident
        for incident in desk.host.incidents
        if incident.state.ended and not owes_words(incident, desk.host, desk.policy, desk.now)
    )
    if done:
        recovered = tuple(
            Recovery(check=i.check, subject=i.subject, at=i.ended or desk.now)
            for i in done
            if i.opened is not None and i.resolved_by is ResolvedBy.ITSELF
        )
        recoveries = (*desk.host.recoveries, *recovered)[-_RECOVERIES:]
        ids = {incident.id for incident in done}
        left = tuple(i for i in desk.host.incidents if i.id not in ids)
        desk.host = replace(desk.host, incidents=left, recoveries=recoveries)
        desk.ended.extend(done)


# What comes next


def _when_to_look(desk: _Desk) -> tuple[frozenset[str], Instant | None]:
    """Checks to look at now, and the first instant at which anything could change by itself."""
    looks: dict[str, Instant] = {}
    wakes: list[Instant] = []
    for incident in desk.host.incidents:
        if not incident.state.ended:
            check = desk.check_of(incident)
            for name, due in _looks_due(desk, incident, check):
                looks[name] = min(due, looks.get(name, due))
            wakes.extend(_deadlines(desk, incident, check))
    wakes.extend(_deadlines_of_host(desk))
    now = desk.now
    look = frozenset(name for name, due in looks.items() if due <= now)
    wakes.extend(due for due in looks.values() if due > now)
    return look, min((t for t in wakes if t > now), default=None)


def _looks_due(desk: _Desk, incident: Incident, check: CheckPolicy) -> list[tuple[str, Instant]]:
    last, pace = incident.look_ended, min(check.every, _SOON)
    stable = stable_time(incident, check, desk.policy)
    due: list[tuple[str, Instant]] = []
    match incident.state:
        case State.PENDING if {Status.WARNING, Status.CRITICAL} & set(incident.recent):
            due.append((check.name, last + pace))
            unseen = find_unseen_upstream(incident, desk.host, desk.policy)
            due += [(name, desk.now) for name in unseen]
        case State.VERIFYING:
            ended = incident.run_ended if incident.run_ended is not None else incident.entered
            quick = min(max(_QUICK, (last - ended) / 4), 2.0, check.every)
            due.append((check.name, ended if incident.looked < ended else last + quick))
        case State.PROBATION if incident.passing_since is not None:
            due.append((check.name, max(incident.passing_since + stable, last + pace)))
        case State.PROBATION:
            due.append((check.name, last + pace))
        case State.OPEN | State.ESCALATED:
            held = desk.holds.get(incident.id)
            if held is not None and held.hold is Hold.LOOKING_UPSTREAM:
                stale = stale_checks(incident, check, desk.host, desk.policy, desk.now)
                due += [(name, desk.now) for name in stale - {check.name}]
                due += [(name, last + _QUICK) for name in stale & {check.name}]
            if held is not None and held.hold is Hold.TRANSITION:
                due.append((check.name, last + min(check.every, _SLOW)))
        case _:
            pass
    return due


def _deadlines(desk: _Desk, incident: Incident, check: CheckPolicy) -> list[Instant]:
    policy, run = desk.policy, desk.run_of(incident)
    due = [opened_due(incident, policy)]
    if incident.unclear_since is not None:
        due.append(incident.unclear_since + policy.unknown_for)
    if incident.state is State.VERIFYING:
        due.append(verify_deadline(incident, run, check, policy))
    if run is not None and run.alive and run.started is not None:
        due.append(run.started + run.timeout)
    if incident.state is State.OPEN and not incident.critical:
        due.append(mild_due(incident, policy))
    if incident.held_since is not None:
        due.append(incident.held_since + policy.held_after)
        due += [answer] if (answer := answer_due(incident, policy)) is not None else []
    reminder = reminder_due(incident, policy)
    if incident.state is State.ESCALATED and reminder is not None:
        due.append(reminder)
    if incident.state is State.ESCALATED and incident.retry_at is not None:
        due.append(incident.retry_at)
    if incident.run_ended is not None:
        due.append(incident.run_ended + check.cool_down)
    if incident.approval is not None:
        due.append(incident.approval.until)
    if incident.state in (State.OPEN, State.ESCALATED):
        due.append((incident.opened or incident.seen) + policy.upstream_for)
        due += [
            (other.opened or other.began) + policy.inhibit_for
            for other in upstream_incidents(incident, desk.host, policy)
        ]
        held = desk.holds.get(incident.id)
        if held is not None and held.until is not None:
            due.append(held.until)
    return due


def _deadlines_of_host(desk: _Desk) -> list[Instant]:
    host, policy = desk.host, desk.policy
    silences = (*host.silences, *find_windows(host, policy, desk.now))
    due = [edge for silence in silences for edge in (silence.starts, silence.ends)]
    if host.paused is not None and host.paused.until is not None:
        due.append(host.paused.until)
    if host.transition_seen is not None:
        due.append(host.transition_seen + policy.transition_for)
    if host.storm is not None:
        due += [host.storm.since + policy.group_wait, host.storm.since + policy.inhibit_for]
        due.append(quiet_from(host, policy))
    due += [_when_to_forget(run, policy) for run in host.runs]
    due += [recovery.at + policy.flap_window for recovery in host.recoveries]
    waiting = any(i.state in (State.OPEN, State.ESCALATED) for i in host.incidents)
    if waiting:
        windows = (policy.budget_window, policy.attempts_window)
        due += [run.planned + window for run in host.runs for window in windows]
    return due
