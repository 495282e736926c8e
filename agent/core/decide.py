"""The only place where anything is decided: one event in, everything that follows from it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agent.core.advance import Signal, record_look, settle, signal_of_look
from agent.core.desk import Desk, with_retry
from agent.core.model import (
    CheckPolicy,
    Decision,
    Digested,
    Doubt,
    Event,
    Finding,
    Host,
    Incident,
    Instant,
    LastLook,
    Looked,
    Ordered,
    Outcome,
    Policy,
    Reconfigured,
    Recovery,
    Reported,
    ResolvedBy,
    RunEnded,
    RunStarted,
    RunState,
    State,
    Status,
    Tick,
    Transition,
)
from agent.core.orders import take_order
from agent.core.planning import plan
from agent.core.reasons import (
    Say,
    find_reasons,
    mark_said,
    owes_words,
    write_digest_notices,
    write_notices,
    write_report,
)
from agent.core.storm import find_storm_message, gather_storm, is_over
from agent.core.waking import find_end_of_run, find_looks
from agent.errors import Conflict

#: Recoveries that are remembered at most: a host on which everything flaps has other troubles.
_RECOVERIES = 500


def decide(host: Host, event: Event, policy: Policy, now: Instant) -> Decision:
    """Everything that follows from one event.

    Advances what the event is about, then lets time pass for every incident, plans every held one
    again, root-most first, and says what must be said. Raises Conflict, Invalid or NotFound for an
    order that cannot be carried out; then nothing has changed.
    """
    desk = Desk(host=host, policy=policy, now=now)
    match event:
        case Looked():
            _take_look(desk, event)
        case RunStarted():
            _take_run_start(desk, event)
        case RunEnded():
            _take_run_end(desk, event)
        case Ordered():
            take_order(desk, event)
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
        plan(desk)
        _speak_of_storm(desk)
        _speak(desk)
        _file_away(desk)
    look, wake = find_looks(desk)
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


# What an event is about


def _take_look(desk: Desk, event: Looked) -> None:
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


def _remember_look(desk: Desk, event: Looked, findings: Mapping[str, Finding]) -> None:
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


def _open_pending(desk: Desk, finding: Finding, event: Looked, check: CheckPolicy) -> None:
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
    desk: Desk, incident: Incident, finding: Finding, event: Looked, check: CheckPolicy
) -> None:
    incident = record_look(incident, finding, event.began, event.ended, check)
    if incident.state is State.PENDING and finding.failing:
        incident = replace(incident, before=finding)
    desk.put(incident)
    if not _is_too_early(desk, incident, event.began):
        desk.signal(incident, signal_of_look(incident, check, desk.policy), finding.summary)


def _is_too_early(desk: Desk, incident: Incident, began: Instant) -> bool:
    """Whether a look began before the end of the incident's run: then it says nothing of it."""
    run = desk.run_of(incident)
    if run is not None and run.alive:
        return True
    return incident.run_ended is not None and began <= incident.run_ended


def _take_run_start(desk: Desk, event: RunStarted) -> None:
    run = next((run for run in desk.host.runs if run.id == event.run), None)
    if run is None or run.state is not RunState.PLANNED:
        raise Conflict(f"cannot start run {event.run}: it is not planned any more")
    desk.put_run(replace(run, state=RunState.RUNNING, started=desk.now))
    desk.made = run.id


def _take_run_end(desk: Desk, event: RunEnded) -> None:
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
        desk.put(with_retry(replace(incident, why=words), desk))


def _take_report(desk: Desk, event: Reported) -> None:
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


def _take_digest(desk: Desk, event: Digested) -> None:
    """Told once: the time until which it tells is saved with its messages."""
    notices, serial = write_digest_notices(event, desk.policy, desk.now, desk.host.serial)
    desk.notices.extend(notices)
    desk.host = replace(desk.host, digested=event.until, serial=serial)


# What time does


def _forget_what_is_over(desk: Desk) -> None:
    """Drops what no rule counts any more."""
    host, now, policy = desk.host, desk.now, desk.policy
    needed = {incident.run for incident in host.incidents}
    runs = tuple(
        r for r in host.runs if r.alive or r.id in needed or now < find_end_of_run(r, policy)
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


def _drop_what_is_not_configured(desk: Desk) -> None:
    for incident in desk.host.incidents:
        if incident.check not in desk.policy.checks and not incident.state.ended:
            desk.signal(incident, Signal.VANISHED, "its check is not configured any more")
    looked = {n: last for n, last in desk.host.looked.items() if n in desk.policy.checks}
    if len(looked) != len(desk.host.looked):
        desk.host = replace(desk.host, looked=looked)


def _let_time_pass(desk: Desk) -> None:
    for incident in desk.host.incidents:
        if incident.state.ended:
            continue
        check = desk.check_of(incident)
        due = settle(incident, desk.run_of(incident), check, desk.policy, desk.now)
        if due is not None:
            moved = desk.signal(incident, *due)
            if moved.state is State.ESCALATED:
                desk.put(with_retry(moved, desk))


# Speaking


def _speak_of_storm(desk: Desk) -> None:
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
        plan(desk)


def _speak(desk: Desk) -> None:
    for incident in desk.host.incidents:
        held = desk.holds.get(incident.id)
        for say in find_reasons(incident, held, desk.host, desk.policy, desk.now):
            incident = mark_said(incident, say, desk.now)
            desk.put(incident)
            _write(desk, say, incident)


def _write(desk: Desk, say: Say, incident: Incident | None) -> None:
    notices, serial = write_notices(say, incident, desk.policy, desk.now, desk.host.serial)
    desk.notices.extend(notices)
    desk.host = replace(desk.host, serial=serial)


def _file_away(desk: Desk) -> None:
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
