"""Why no run is started for an incident now, and until when. Derived, never remembered."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeGuard

from agent.core.advance import confirmed
from agent.core.model import (
    Changes,
    CheckPolicy,
    Doubt,
    Finding,
    Held,
    Hold,
    Host,
    Incident,
    Instant,
    Mode,
    Outcome,
    Policy,
    Question,
    Risk,
    Run,
    Silence,
    State,
    Status,
    Step,
)

#: States in which an incident stands in the way of those that depend on it.
FAILING_STATES = (State.PENDING, State.OPEN, State.REPAIRING, State.VERIFYING, State.ESCALATED)


@dataclass(frozen=True, kw_only=True)
class NextStep:
    """The remedy that an incident would get next, with its options filled in."""

    step: Step
    options: Mapping[str, object]
    lock: str


def fill_options(step: Step, finding: Finding) -> Mapping[str, object]:
    """The step's options: what the ladder fixes wins over what the finding gives."""
    filled: dict[str, object] = {}
    for option, source in step.fills.items():
        field = source.removeprefix("finding.")
        if field == "subject":
            filled[option] = finding.subject
        elif field == "cause":
            filled[option] = finding.cause
        elif field.startswith("measurements."):
            number = finding.measurements.get(field.removeprefix("measurements."))
            if number is not None:
                filled[option] = number
    return {**filled, **step.options}


def fill_lock(step: Step, options: Mapping[str, object]) -> str:
    """The lock's name, from a template such as `unit:{unit}`."""
    return re.sub(r"\{(\w+)\}", lambda found: str(options.get(found[1], "")), step.lock)


def count_attempts(incident: Incident, step: Step, host: Host, policy: Policy, now: Instant) -> int:
    """Runs of this step for this fingerprint within the window, whatever incident they were for."""
    return sum(
        run.step == step.key
        and (run.check, run.subject) == incident.fingerprint
        and not run.by
        and now < run.planned + policy.attempts_window
        for run in host.runs
    )


def next_step(
    incident: Incident, check: CheckPolicy, host: Host, policy: Policy, now: Instant
) -> NextStep | str:
    """The next remedy for an incident, or in words why there is none."""
    cause = incident.finding.cause
    named = [step for step in check.ladder if cause in step.causes]
    if not named:
        return f"no remedy is configured for {cause or incident.finding.status}"
    allowed = [step for step in named if mode_of(step, check, policy) is not Mode.OFF]
    if not allowed:
        return "the mode is off"
    wanted = [step for step in allowed if step.key not in incident.rejected]
    if not wanted:
        return f"an operator rejected {', '.join(step.remedy for step in allowed)}"
    tried = {step.key: count_attempts(incident, step, host, policy, now) for step in wanted}
    fresh = [step for step in wanted if tried[step.key] < step.attempts]
    if fresh:
        chosen = fresh[0]
    elif incident.state is State.ESCALATED and incident.retry_at is not None:
        chosen = min(wanted, key=lambda step: tried[step.key])
    else:
        return "every remedy was tried: " + ", ".join(
            f"{step.remedy} {tried[step.key]} x" for step in wanted
        )
    options = fill_options(chosen, incident.finding)
    question = incident.question
    if needs_approval(chosen, check, policy) and is_about(question, chosen, options):
        options = question.options
    return NextStep(step=chosen, options=options, lock=fill_lock(chosen, options))


def is_about(
    question: Question | None, step: Step, options: Mapping[str, object]
) -> TypeGuard[Question]:
    """Whether a question was for this step, with these options but for what a look measures."""

    def bound(filled: Mapping[str, object]) -> Mapping[str, object]:
        return {
            name: value
            for name, value in filled.items()
            if name in step.options or not _is_measured(step.fills.get(name, ""))
        }

    return (
        question is not None
        and question.step == step.key
        and question.digest == step.digest
        and bound(question.options) == bound(options)
    )


def _is_measured(source: str) -> bool:
    return source.removeprefix("finding.").startswith("measurements.")


def mode_of(step: Step, check: CheckPolicy, policy: Policy) -> Mode:
    """The strictest of the modes that the host, the check and the step name."""
    order = (Mode.AUTO, Mode.APPROVE, Mode.SHADOW, Mode.OFF)
    return max((policy.mode, check.mode or Mode.AUTO, step.mode or Mode.AUTO), key=order.index)


def needs_approval(step: Step, check: CheckPolicy, policy: Policy) -> bool:
    mode = mode_of(step, check, policy)
    # What may cost data is somebody's word each time, however much the policy lets it do alone.
    data = step.risk is Risk.HIGH and step.changes is Changes.DATA
    return mode is Mode.APPROVE or (
        mode is Mode.AUTO and (data or step.risk.rank > policy.act_alone_up_to.rank)
    )


def has_approval(incident: Incident, chosen: NextStep, now: Instant) -> bool:
    """Whether an operator's word stands for exactly this run."""
    given = incident.approval
    return (
        given is not None
        and now < given.until
        and given.step == chosen.step.key
        and given.digest == chosen.step.digest
        and dict(given.options) == dict(chosen.options)
    )


def find_upstream(check: str, policy: Policy) -> tuple[str, ...]:
    """The checks that one depends on, directly or through others, nearest first."""
    found: dict[str, None] = {}
    queue = list(policy.checks[check].depends_on) if check in policy.checks else []
    while queue:
        name = queue.pop(0)
        if name not in found and name != check and name in policy.checks:
            found[name] = None
            queue.extend(policy.checks[name].depends_on)
    return tuple(found)


def rank(incident: Incident, host: Host, policy: Policy) -> tuple[int, Instant, int]:
    """Root-most first: how much it stands on, then the older."""
    blamed = sum(other.finding.resource in incident.finding.implicates for other in host.incidents)
    depth = len(find_upstream(incident.check, policy)) + blamed
    return depth, incident.opened or incident.began, int(incident.id.lstrip("i"))


def silence_of(
    incident: Incident, host: Host, policy: Policy, now: Instant, *, runs: bool = False
) -> Silence | None:
    """The silence that covers an incident now; with `runs`, one that holds runs."""
    check = policy.checks.get(incident.check)
    labels = check.labels if check else incident.labels
    covering = [
        silence
        for silence in (*host.silences, *find_windows(host, policy, now))
        if silence.starts <= now < silence.ends
        and (silence.runs or not runs)
        and _covers(silence, incident, labels)
    ]
    return max(covering, key=lambda silence: silence.ends, default=None)


def find_windows(host: Host, policy: Policy, now: Instant) -> tuple[Silence, ...]:
    """The recurring maintenance windows, each as it is open now, or as it opens next."""
    windows = []
    for window in policy.maintenance:
        begin, end = window.schedule.find_span(now + host.wall_ahead)
        windows.append(
            Silence(
                id=window.name,
                starts=begin - host.wall_ahead,
                ends=end - host.wall_ahead,
                by="the configuration",
                comment=window.comment,
                checks=window.checks,
                subjects=window.subjects,
                labels=window.labels,
                runs=True,
                recurring=True,
            )
        )
    return tuple(windows)


def _covers(silence: Silence, incident: Incident, labels: Mapping[str, str]) -> bool:
    """An empty match never means everything."""
    named = "*" in silence.checks or incident.check in silence.checks
    if named and (not silence.subjects or incident.subject in silence.subjects):
        return True
    return bool(silence.labels) and all(labels.get(k) == v for k, v in silence.labels.items())


def gates(
    incident: Incident, check: CheckPolicy, host: Host, policy: Policy, now: Instant
) -> Iterator[Held]:
    """Everything that stands between an open or escalated incident and a run, in order."""
    if not incident.critical or not confirmed(incident, check, critical=True):
        status = incident.finding.status
        yield Held(hold=Hold.NO_REMEDY, detail=f"{status} is not acted on, only confirmed critical")
    yield from _gates_of_operators(incident, host, policy, now)
    yield from _gates_of_transition(incident, host, policy)
    yield from _gates_of_upstream(incident, host, policy, now)
    chosen = next_step(incident, check, host, policy, now)
    if isinstance(chosen, str):
        yield Held(hold=Hold.NO_REMEDY, detail=chosen)
        return
    yield from _gates_of_step(incident, chosen, check, host, policy, now)
    if _is_old(incident, policy, now):
        detail = "the last look is too old to act on"
        yield Held(hold=Hold.LOOKING_UPSTREAM, detail=detail)


def why_not(
    incident: Incident, check: CheckPolicy, host: Host, policy: Policy, now: Instant
) -> Held | None:
    """The first gate that holds an incident; None when a run may start."""
    return next(gates(incident, check, host, policy, now), None)


def say_doubt(doubt: Doubt) -> str:
    """What holds a host whose state is in doubt, with the way out."""
    return f"this host is not confirmed ({doubt.why}): `hostmend confirm` lets it act and tell"


def _gates_of_operators(
    incident: Incident, host: Host, policy: Policy, now: Instant
) -> Iterator[Held]:
    if host.doubt is not None:
        yield Held(hold=Hold.PAUSED, detail=say_doubt(host.doubt))
    if host.paused is not None:
        who = f"{host.paused.by} paused all runs"
        detail = f"{who}: {host.paused.why}" if host.paused.why else who
        yield Held(hold=Hold.PAUSED, detail=detail, until=host.paused.until)
    window = silence_of(incident, host, policy, now, runs=True)
    if window is not None:
        who = f"window {window.id}" if window.recurring else f"by {window.by}"
        detail = f"maintenance {who}" + (f": {window.comment}" if window.comment else "")
        yield Held(hold=Hold.SILENCED, detail=detail, until=window.ends)


def _gates_of_transition(incident: Incident, host: Host, policy: Policy) -> Iterator[Held]:
    if host.transition and host.transition_seen is not None:
        until = host.transition_seen + policy.transition_for
        yield Held(hold=Hold.TRANSITION, detail=f"the host is {host.transition}", until=until)
    if incident.finding.transition:
        detail = f"{incident.subject} is {incident.finding.transition}"
        yield Held(hold=Hold.TRANSITION, detail=detail)


def _gates_of_upstream(
    incident: Incident, host: Host, policy: Policy, now: Instant
) -> Iterator[Held]:
    upstream = find_upstream(incident.check, policy)
    for name in upstream:
        last = host.looked.get(name)
        if last is not None and last.intended:
            detail = f"{', '.join(last.intended)} ({name}) is as an operator wants it"
            yield Held(hold=Hold.INTENTION, detail=detail)
    limit = (incident.opened or incident.seen) + policy.upstream_for
    for other in upstream_incidents(incident, host, policy):
        if other.state is State.PENDING:
            if now < limit:
                detail = f"{other.check} is suspected too"
                yield Held(hold=Hold.LOOKING_UPSTREAM, detail=detail, until=limit)
            continue
        over = (other.opened or other.began) + policy.inhibit_for
        if now < over:
            detail = f"{other.check} fails and this depends on it (incident {other.id})"
            yield Held(hold=Hold.INHIBITED, detail=detail, until=over)
    unseen = find_unseen_upstream(incident, host, policy)
    if unseen and now < limit:
        detail = f"{', '.join(unseen)} must be looked at before acting"
        yield Held(hold=Hold.LOOKING_UPSTREAM, detail=detail, until=limit)
    if _is_outdated(incident, host, policy):
        detail = "what this depends on was mended since the last look"
        yield Held(hold=Hold.LOOKING_UPSTREAM, detail=detail)
    if host.storm is not None and now < host.storm.since + policy.inhibit_for:
        mine = rank(incident, host, policy)[0]
        for other in host.incidents:
            if other.opened is None or other.state not in FAILING_STATES or not _is_ill(other):
                continue
            if other.state is not State.ESCALATED and rank(other, host, policy)[0] < mine:
                detail = f"many failures at once: {other.check} comes first"
                until = host.storm.since + policy.inhibit_for
                yield Held(hold=Hold.STORM, detail=detail, until=until)
                break


def upstream_incidents(incident: Incident, host: Host, policy: Policy) -> tuple[Incident, ...]:
    """Incidents of what this one stands on and is ill, by configuration or by its evidence."""
    upstream = find_upstream(incident.check, policy)
    return tuple(
        other
        for other in host.incidents
        if other.id != incident.id
        and other.state in FAILING_STATES
        and _is_ill(other)
        and (other.check in upstream or other.finding.resource in incident.finding.implicates)
        and incident.finding.resource not in other.finding.implicates
    )


def _is_ill(incident: Incident) -> bool:
    """Critical, or unclear since it failed, as while it is starting: unknown is not health."""
    unclear = incident.finding.status is Status.UNKNOWN and incident.failing_since is not None
    return incident.critical or unclear


def stale_checks(
    incident: Incident, check: CheckPolicy, host: Host, policy: Policy, now: Instant
) -> frozenset[str]:
    """Checks that must be looked at again before this incident is acted on.

    Itself, when its finding is old or an upstream problem was mended since; and each upstream
    check that was not looked at since this incident was first seen.
    """
    stale = set(find_unseen_upstream(incident, host, policy))
    if _is_old(incident, policy, now) or _is_outdated(incident, host, policy):
        stale.add(check.name)
    return frozenset(stale)


def find_unseen_upstream(incident: Incident, host: Host, policy: Policy) -> tuple[str, ...]:
    """The upstream checks that were not looked at since this incident was first seen.

    Those that it depends on by configuration, and those of what its evidence names. Which those are
    is known from their looks: just after the start, each that had none yet may be one.
    """
    upstream = dict.fromkeys(find_upstream(incident.check, policy))
    named = set(incident.finding.implicates)
    upstream |= {
        name: None
        for name, last in host.looked.items()
        if name != incident.check and named.intersection(last.resources)
    }
    if named - {resource for last in host.looked.values() for resource in last.resources}:
        upstream |= {name: None for name in policy.checks if name not in host.looked}
    return tuple(
        name
        for name in upstream
        if name not in host.looked or host.looked[name].began < incident.seen
    )


def _is_old(incident: Incident, policy: Policy, now: Instant) -> bool:
    return now >= incident.look_ended + policy.fresh_for


def _is_outdated(incident: Incident, host: Host, policy: Policy) -> bool:
    """Whether something that this one stands on may have been mended since its last look."""
    upstream = find_upstream(incident.check, policy)
    return any(
        other.whole_by is not None and other.whole_by >= incident.looked
        for other in host.incidents
        if other.check in upstream or other.finding.resource in incident.finding.implicates
    )


def _gates_of_step(
    incident: Incident,
    chosen: NextStep,
    check: CheckPolicy,
    host: Host,
    policy: Policy,
    now: Instant,
) -> Iterator[Held]:
    step = chosen.step
    if mode_of(step, check, policy) is Mode.SHADOW:
        yield Held(hold=Hold.SHADOW, detail=f"would run {step.remedy}")
    if needs_approval(step, check, policy) and not has_approval(incident, chosen, now):
        yield Held(hold=Hold.APPROVAL, detail=f"{step.remedy} ({step.risk} risk) needs approval")
    if incident.state is State.ESCALATED and incident.retry_at is not None:
        if now < incident.retry_at and not _is_new(incident, chosen, host):
            yield Held(hold=Hold.COOLING_DOWN, detail="a human is needed", until=incident.retry_at)
    elif incident.run_ended is not None and now < incident.run_ended + check.cool_down:
        until = incident.run_ended + check.cool_down
        yield Held(hold=Hold.COOLING_DOWN, detail="the last run was just now", until=until)
    yield from _gates_of_budget(host, policy, now)
    for run in host.runs:
        if run.alive and (run.check, run.subject) == incident.fingerprint:
            yield Held(hold=Hold.BUSY, detail=f"run {run.id} ({run.remedy}) is alive for it")
    busy = why_busy(host.runs, chosen.lock, policy)
    if busy:
        yield Held(hold=Hold.BUSY, detail=busy)


def _is_new(incident: Incident, chosen: NextStep, host: Host) -> bool:
    """Whether this remedy came into the ladder after all others had been tried.

    Where a run asked for a human, or was cancelled by one, no other remedy goes ahead of them.
    """
    last = next((run for run in host.runs if run.id == incident.run), None)
    if last is not None and last.outcome in (Outcome.NEEDS_HUMAN, Outcome.CANCELLED):
        return False
    return not any(
        run.step == chosen.step.key and (run.check, run.subject) == incident.fingerprint
        for run in host.runs
    )


def _gates_of_budget(host: Host, policy: Policy, now: Instant) -> Iterator[Held]:
    counted = sorted(
        run.planned
        for run in host.runs
        if not run.by and not run.preview and now < run.planned + policy.budget_window
    )
    allowed = policy.runs_per_hour
    if len(counted) >= allowed:
        freed = counted[len(counted) - allowed] + policy.budget_window if allowed else None
        detail = f"{len(counted)} runs within the hour, {allowed} are allowed"
        yield Held(hold=Hold.OVER_BUDGET, detail=detail, until=freed)


def why_busy(runs: tuple[Run, ...], lock: str, policy: Policy) -> str:
    """In words why another run cannot be alive beside these; empty when it can."""
    alive = [run for run in runs if run.alive]
    for run in alive:
        if run.lock == lock and lock:
            return f"run {run.id} ({run.remedy}) holds {lock}"
    if len(alive) >= policy.slots:
        return f"run {alive[0].id} ({alive[0].remedy}) is alive"
    return ""
