"""When to look again, and when anything could change by itself."""

from __future__ import annotations

from agent.core.advance import stable_time, verify_deadline
from agent.core.desk import Desk
from agent.core.holds import find_unseen_upstream, find_windows, stale_checks, upstream_incidents
from agent.core.model import CheckPolicy, Hold, Incident, Instant, Policy, Run, State, Status
from agent.core.reasons import answer_due, mild_due, opened_due, reminder_due
from agent.core.storm import quiet_from

#: While something is being proved or confirmed, looks follow each other no faster than this.
_QUICK = 0.25
#: A suspicion is looked at again after this; a host in transition after `_SLOW`.
_SOON = 1.0
_SLOW = 5.0


def find_looks(desk: Desk) -> tuple[frozenset[str], Instant | None]:
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


def _looks_due(desk: Desk, incident: Incident, check: CheckPolicy) -> list[tuple[str, Instant]]:
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


def _deadlines(desk: Desk, incident: Incident, check: CheckPolicy) -> list[Instant]:
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


def _deadlines_of_host(desk: Desk) -> list[Instant]:
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
    due += [find_end_of_run(run, policy) for run in host.runs]
    due += [recovery.at + policy.flap_window for recovery in host.recoveries]
    waiting = any(i.state in (State.OPEN, State.ESCALATED) for i in host.incidents)
    if waiting:
        windows = (policy.budget_window, policy.attempts_window)
        due += [run.planned + window for run in host.runs for window in windows]
    return due


def find_end_of_run(run: Run, policy: Policy) -> Instant:
    """When no rule counts a run any more."""
    window = max(policy.attempts_window, policy.recurring_window, policy.budget_window)
    return (run.planned if run.ended is None else run.ended) + window
