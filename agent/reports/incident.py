"""One incident as a report: a draft for a review without blame.

It holds what hostmend saw and did, with when; causes and lessons are for people to write.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.core.model import (
    Evidence,
    Finding,
    Incident,
    Instant,
    Notice,
    NoticeState,
    Outcome,
    ResolvedBy,
    Run,
    Seconds,
    State,
    Status,
    Transition,
)
from agent.core.text import mask_values
from agent.core.units import format_duration
from agent.host.text import MAX_OUTPUT, show

#: Stands in place of a secret option.
#: Earlier incidents that are listed; all of them are counted.
LISTED = 10


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Something that happened."""

    at: Instant
    text: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task of a run, as Ansible told it."""

    name: str
    #: `ok`, `changed`, `failed`, `skipped`, `ignored` or `unreachable`.
    status: str
    message: str
    output: str
    diff: str


@dataclass(frozen=True, kw_only=True)
class Repair:
    """One run and what it did."""

    run: Run
    tasks: tuple[Task, ...]


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """Evidence, from `before` the repair or from `after` the proof."""

    stage: str
    taken: Instant
    evidence: Evidence


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """Incidents of the same check and subject that ended before this one began."""

    count: int
    #: The newest first, at most `LISTED`.
    incidents: tuple[Incident, ...]


@dataclass(frozen=True, kw_only=True)
class IncidentReport:
    """All that is known of one incident, every text fit to show and without secrets."""

    host: str
    written: Instant
    incident: Incident
    title: str
    #: One sentence: what failed, for how long, what ended it.
    summary: str
    #: From the beginning of the failure to the look that saw it; None where that is not known.
    detected_after: Seconds | None
    #: From its confirmation to the proof of a repair; None without one.
    repaired_after: Seconds | None
    downtime: Seconds
    timeline: tuple[Moment, ...]
    repairs: tuple[Repair, ...]
    evidence: tuple[Exhibit, ...]
    #: What is left for people; empty: nothing that hostmend knows of.
    left: tuple[str, ...]
    earlier: Earlier


def make_report(
    *,
    host: str,
    now: Instant,
    incident: Incident,
    downtime: Seconds,
    transitions: Sequence[Transition],
    runs: Sequence[Run],
    tasks: Mapping[str, Sequence[Mapping[str, Any]]],
    notices: Sequence[Notice],
    evidence: Sequence[Exhibit],
    earlier: Earlier,
    secrets: Mapping[str, Collection[str]],
) -> IncidentReport:
    """Puts a report together. `tasks`: the events of each run. `secrets`: by remedy, the options
    whose values must not be shown; they are hidden wherever they occur.
    """
    hidden = _find_hidden(runs, secrets)

    def fit(text: object, limit: int = MAX_OUTPUT) -> str:
        return show(text, limit, hidden)

    shown = tuple(_mask(run, secrets, hidden) for run in runs)
    incident = replace(
        incident,
        before=_fit_finding(incident.before, hidden),
        finding=_fit_finding(incident.finding, hidden),
        after=_fit_finding(incident.after, hidden) if incident.after else None,
        why=fit(incident.why),
    )
    return IncidentReport(
        host=host,
        written=now,
        incident=incident,
        title=fit(f"{incident.subject or incident.check} on {host}: {_find_cause(incident)}", 300),
        summary=_summarize(incident, downtime, host),
        detected_after=incident.seen - incident.began if incident.began < incident.seen else None,
        repaired_after=find_repair_time(incident, transitions),
        downtime=downtime,
        timeline=tuple(
            Moment(at=moment.at, text=fit(moment.text))
            for moment in _tell(incident, transitions, shown, notices)
        ),
        repairs=tuple(
            Repair(run=run, tasks=tuple(_read_tasks(tasks.get(run.id, ()), fit))) for run in shown
        ),
        evidence=tuple(
            replace(
                each,
                evidence=Evidence(title=fit(each.evidence.title), text=fit(each.evidence.text)),
            )
            for each in evidence
        ),
        left=tuple(map(fit, _find_left(incident, shown, notices, earlier))),
        earlier=earlier,
    )


def _find_hidden(runs: Sequence[Run], secrets: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    values = {
        str(run.options[name])
        for run in runs
        for name in secrets.get(run.remedy, ())
        if run.options.get(name) not in (None, "", True, False)
    }
    # The longest first: one may be a part of another.
    return tuple(sorted(values, key=len, reverse=True))


def _mask(run: Run, secrets: Mapping[str, Collection[str]], hidden: tuple[str, ...]) -> Run:
    options = mask_values(run.options, secrets.get(run.remedy, ()))
    return replace(run, options=options, detail=show(run.detail, MAX_OUTPUT, hidden))


def _fit_finding(finding: Finding, hidden: tuple[str, ...]) -> Finding:
    facts = {name: show(value, MAX_OUTPUT, hidden) for name, value in finding.facts.items()}
    return replace(finding, summary=show(finding.summary, MAX_OUTPUT, hidden), facts=facts)


def _find_cause(incident: Incident) -> str:
    return incident.before.cause or incident.before.status.value


def _summarize(incident: Incident, downtime: Seconds, host: str) -> str:
    what = incident.before.summary or f"{incident.subject} {_find_cause(incident)}"
    lasted = f"It failed for {format_duration(downtime)}."
    match incident.state, incident.resolved_by:
        case State.RESOLVED, ResolvedBy.RUN:
            end = f"hostmend repaired it (run {incident.healed_by}), and a later look proved it."
        case State.RESOLVED, ResolvedBy.ITSELF:
            end = "It ended without a repair by hostmend."
        case State.RESOLVED, _:
            end = "An operator ended it."
        case State.GONE, _:
            end = "Its subject, or its check, no longer exists."
        case state, _:
            end = f"It has not ended: it is {state}."
    return f"On {host}: {what.rstrip('.')}. {lasted} {end}"


def find_repair_time(incident: Incident, transitions: Sequence[Transition]) -> Seconds | None:
    if incident.healed_by is None or incident.opened is None:
        return None
    proofs = [
        t.at
        for t in transitions
        if t.old is State.VERIFYING and t.new is State.PROBATION and t.at >= incident.opened
    ]
    return proofs[-1] - incident.opened if proofs else None


def _tell(
    incident: Incident,
    transitions: Sequence[Transition],
    runs: Sequence[Run],
    notices: Sequence[Notice],
) -> list[Moment]:
    moments = [Moment(at=incident.began, text="It began to fail.")]
    moments += [
        Moment(at=t.at, text=f"{t.new.value}: {t.why}" if t.why else t.new.value)
        for t in transitions
    ]
    for run in runs:
        who = f", asked for by {run.by}" if run.by else ""
        kind = "Preview" if run.preview else "Run"
        if run.started is not None:
            moments.append(Moment(at=run.started, text=f"{kind} {run.id} of {run.remedy}{who}."))
        if run.ended is not None and run.outcome is not None:
            end = f"{kind} {run.id} ended {run.outcome.value}"
            moments.append(
                Moment(at=run.ended, text=f"{end}: {run.detail}" if run.detail else f"{end}.")
            )
    moments += [
        Moment(at=n.delivered, text=f"Told {n.route}: {n.reason.value}.")
        for n in notices
        if n.delivered is not None
    ]
    return sorted(moments, key=lambda moment: moment.at)


def _read_tasks(events: Sequence[Mapping[str, Any]], fit: Any) -> list[Task]:
    return [
        Task(
            name=fit(event.get("task", "")),
            status=str(event.get("status", "")),
            message=fit(event.get("msg", "")),
            output=fit("\n".join(str(event[s]) for s in ("stdout", "stderr") if event.get(s))),
            diff=fit(event.get("diff", "")),
        )
        for event in events
        if event.get("event", "task") == "task"
    ]


def _find_left(
    incident: Incident, runs: Sequence[Run], notices: Sequence[Notice], earlier: Earlier
) -> list[str]:
    left: list[str] = []
    if incident.state is State.ESCALATED:
        left.append(f"A human is needed: {incident.why}")
    elif not incident.state.ended:
        left.append(f"It has not ended: it is {incident.state.value} ({incident.why}).")
    for run in runs:
        if run.preview or run.outcome in (None, Outcome.OK):
            continue
        if run.outcome is Outcome.NEEDS_HUMAN:
            left.append(f"Run {run.id} of {run.remedy} asked for a human: {run.detail}")
        else:
            left.append(f"Run {run.id} of {run.remedy} ended {run.outcome.value}: find out why.")
    after = incident.after
    if incident.state.ended and after is not None and after.status is not Status.OK:
        left.append(f"It still needs attention: {after.summary}")
    if earlier.count:
        times = "once" if earlier.count == 1 else f"{earlier.count} times"
        left.append(f"It happened {times} before: a repair is no cure for its cause.")
    left += [
        f"The message to {n.route} ({n.reason.value}) did not arrive: {n.error or 'not sent yet'}"
        for n in notices
        if n.state is not NoticeState.DELIVERED
    ]
    return left
