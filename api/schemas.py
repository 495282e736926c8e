"""The wire: what the API takes and gives, each type with its one converter (`of`).

Instants are RFC 3339 in UTC, durations end in `_seconds`. Options that a remedy declares with
`no_log` are masked. This page is long because it is the whole vocabulary of the API in one place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from agent import agent as facade
from agent.agent import (
    LONGEST_DRILL,
    ActionOutcome,
    Alert,
    DrillOutcome,
    DrillState,
    Report,
    Role,
    tell_verdict,
)
from agent.core import model
from agent.core.model import (
    Changes,
    Hold,
    Instant,
    NoticeState,
    Outcome,
    Reason,
    ResolvedBy,
    Risk,
    RunState,
    State,
    Status,
)
from agent.core.text import MASK, mask_values

T = TypeVar("T")
W = TypeVar("W")

#: An instant as RFC 3339 in UTC, with milliseconds.
When = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]

#: Which options of a remedy are secret, by the remedy's name.
Secrets = Callable[[str], Collection[str]]


def write_instant(instant: Instant) -> str:
    """RFC 3339 in UTC: `2026-01-31T08:15:00.250Z`."""
    written = datetime.fromtimestamp(instant, UTC).isoformat(timespec="milliseconds")
    return written.removesuffix("+00:00") + "Z"


def _when(instant: Instant | None) -> str | None:
    return None if instant is None else write_instant(instant)


def plain(value: Any) -> Any:
    """Any value as JSON can hold it: a log excerpt may hold bytes that are no text, a measurement
    may be no number."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case None | bool() | int() | BaseModel():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {plain(str(name)): plain(part) for name, part in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(part) for part in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {part.name: plain(getattr(value, part.name)) for part in fields(value)}
        case _:
            return plain(str(value))


class Wire(BaseModel):
    """The base of what is given: complete, and never changed."""

    model_config = ConfigDict(frozen=True)

    @classmethod
    def make(cls, **parts: Any) -> Self:
        """With every text and number fit for JSON."""
        return cls(**{name: plain(part) for name, part in parts.items()})


class Page(Wire, Generic[W]):
    """A part of a list, newest first."""

    items: list[W]
    next: str | None = Field(description="Pass it as `before` for the next part; null at the end")


def page_of(page: facade.Page[T], convert: Callable[[T], W]) -> Page[W]:
    """A page of domain values on the wire."""
    return Page[Any](items=[convert(item) for item in page.items], next=page.next)


class Finding(Wire):
    """What one look saw of one subject."""

    subject: str
    status: Status
    cause: str = Field(description="A short, stable word for what is wrong; empty when ok")
    summary: str
    measurements: dict[str, float | None]
    facts: dict[str, str]
    since: When | None
    intended: bool = Field(description="An operator wants it like this")
    transition: str = Field(description="What the subject is on its way to; empty when it is not")
    resource: str
    implicates: list[str]

    @classmethod
    def of(cls, finding: model.Finding) -> Self:
        return cls.make(
            subject=finding.subject,
            status=finding.status,
            cause=finding.cause,
            summary=finding.summary,
            measurements=finding.measurements,
            facts=finding.facts,
            since=_when(finding.since),
            intended=finding.intended,
            transition=finding.transition,
            resource=finding.resource,
            implicates=finding.implicates,
        )


class Approval(Wire):
    """An operator's word for one run."""

    step: str
    digest: str
    by: str
    until: When

    @classmethod
    def of(cls, approval: model.Approval) -> Self:
        return cls.make(
            step=approval.step,
            digest=approval.digest,
            by=approval.by,
            until=write_instant(approval.until),
        )


class Incident(Wire):
    """One problem from its first failing finding to its end."""

    id: str
    check: str
    subject: str
    state: State
    why: str = Field(description="Why the present state was entered")
    finding: Finding = Field(description="The latest complete finding")
    looked: When = Field(description="When the look that saw it began")
    before: Finding = Field(description="The finding that it was opened for")
    after: Finding | None = Field(description="The finding that proved the end")
    began: When = Field(description="When it began to fail, as far as it is known")
    opened: When | None = Field(description="When it was confirmed")
    entered: When = Field(description="When `state` was entered")
    ended: When | None
    resolved_by: ResolvedBy | None
    run: str | None = Field(description="Its run that is alive, or the last one")
    healed_by: str | None = Field(description="The run that a look proved")
    relapses: int = Field(description="How often it passed by itself of late, and failed again")
    failing_since: When | None = Field(description="null while it passes")
    past_downtime_seconds: float = Field(
        description="Failing that is over; while `failing_since` is set, more is running"
    )
    rejected: list[str] = Field(description="Steps that an operator refused")
    approval: Approval | None
    retry_at: When | None
    retries: int
    acknowledged: str = Field(description="Who knows of it; empty: nobody said so")
    shadowed: list[str] = Field(description="Steps that would have run")

    @classmethod
    def of(cls, incident: model.Incident) -> Self:
        return cls.make(
            id=incident.id,
            check=incident.check,
            subject=incident.subject,
            state=incident.state,
            why=incident.why,
            finding=Finding.of(incident.finding),
            looked=write_instant(incident.looked),
            before=Finding.of(incident.before),
            after=None if incident.after is None else Finding.of(incident.after),
            began=write_instant(incident.began),
            opened=_when(incident.opened),
            entered=write_instant(incident.entered),
            ended=_when(incident.ended),
            resolved_by=incident.resolved_by,
            run=incident.run,
            healed_by=incident.healed_by,
            relapses=incident.relapses,
            failing_since=_when(incident.failing_since),
            past_downtime_seconds=incident.downtime,
            rejected=incident.rejected,
            approval=None if incident.approval is None else Approval.of(incident.approval),
            retry_at=_when(incident.retry_at),
            retries=incident.retries,
            acknowledged=incident.acknowledged,
            shadowed=incident.shadowed,
        )


class Held(Wire):
    """Why an incident has no run now."""

    hold: Hold
    detail: str
    until: When | None = Field(description="null: only an event changes it")

    @classmethod
    def of(cls, held: model.Held) -> Self:
        return cls.make(hold=held.hold, detail=held.detail, until=_when(held.until))


class Run(Wire):
    """One execution of a remedy."""

    id: str
    remedy: str
    options: dict[str, Any]
    risk: Risk
    changes: Changes
    timeout_seconds: float
    digest: str
    state: RunState
    preview: bool
    by: str = Field(description="Who asked for it; empty: hostmend decided by itself")
    incident: str | None
    check: str
    subject: str
    step: str
    planned: When
    started: When | None
    ended: When | None
    outcome: Outcome | None
    detail: str
    proved: bool = Field(description="A look that began after its end proved it")

    @classmethod
    def of(cls, run: model.Run, secrets: Secrets) -> Self:
        return cls.make(
            id=run.id,
            remedy=run.remedy,
            options=mask_values(run.options, secrets(run.remedy)),
            risk=run.risk,
            changes=run.changes,
            timeout_seconds=run.timeout,
            digest=run.digest,
            state=run.state,
            preview=run.preview,
            by=run.by,
            incident=run.incident,
            check=run.check,
            subject=run.subject,
            step=run.step,
            planned=write_instant(run.planned),
            started=_when(run.started),
            ended=_when(run.ended),
            outcome=run.outcome,
            detail=run.detail,
            proved=run.proved,
        )


class RunEvent(Wire):
    """Something that a run did: a task that ended, as Ansible tells it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    number: int = Field(description="Counted from 1 within the run")

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Self:
        return cls.make(**event)


class RunEvents(Wire):
    """A part of a run's events, oldest first."""

    items: list[RunEvent]
    next: int | None = Field(description="Pass it as `after` for the next part; null at the end")


class Notice(Wire):
    """One message to one route."""

    id: str
    route: str
    reason: Reason
    state: NoticeState
    incident: str | None
    check: str
    subject: str
    details: dict[str, str]
    created: When
    expires: When
    attempts: int
    due: When | None = Field(description="When the next attempt may be made")
    delivered: When | None
    error: str = Field(description="What the last attempt said")

    @classmethod
    def of(cls, notice: model.Notice) -> Self:
        return cls.make(
            id=notice.id,
            route=notice.route,
            reason=notice.reason,
            state=notice.state,
            incident=notice.incident.id if notice.incident else None,
            check=notice.incident.check if notice.incident else "",
            subject=notice.incident.subject if notice.incident else "",
            details=notice.details,
            created=write_instant(notice.created),
            expires=write_instant(notice.expires),
            attempts=notice.attempts,
            due=write_instant(notice.due) if notice.state is NoticeState.DUE else None,
            delivered=_when(notice.delivered),
            error=notice.error,
        )


class RouteTest(Wire):
    """What became of a message that was sent to try a route."""

    route: str
    services: list[str] = Field(
        description="By scheme, host and tag: all else of their URLs may be secret"
    )
    ok: bool = Field(description="At least one of the services took it")
    error: str = Field(description="Why none did, or which of them did not")
    took_seconds: float

    @classmethod
    def of(cls, test: facade.RouteTest) -> Self:
        return cls.make(
            route=test.route,
            services=list(test.services),
            ok=test.ok,
            error=test.error,
            took_seconds=test.took,
        )


class RouteTests(Wire):
    """One for each route that was tried."""

    items: list[RouteTest]


class Silence(Wire):
    """Mutes notices; with `runs` (a maintenance window) it holds runs too."""

    id: str
    starts: When
    ends: When
    by: str
    comment: str
    checks: list[str]
    subjects: list[str]
    labels: dict[str, str]
    runs: bool
    recurring: bool = Field(
        description="The configuration opens it again and again: as it is open, or opens next"
    )

    @classmethod
    def of(cls, silence: model.Silence) -> Self:
        return cls.make(
            id=silence.id,
            starts=write_instant(silence.starts),
            ends=write_instant(silence.ends),
            by=silence.by,
            comment=silence.comment,
            checks=silence.checks,
            subjects=silence.subjects,
            labels=silence.labels,
            runs=silence.runs,
            recurring=silence.recurring,
        )


class Audit(Wire):
    """An audit of a site, without its defects."""

    id: str
    check: str
    site: str = Field(description="The first page, where it led to")
    began: When
    took_seconds: float
    ending: str = Field(description="complete, time, down, blocked or elsewhere")
    why: str = Field(description="Why it ended before its time; empty when it did not")
    verdict: str = Field(description="What it found, in one sentence")
    counts: dict[str, int]
    defects_count: int = Field(description="Without those that somebody knows of")
    new_count: int = Field(description="Those that the audit before did not have")

    @classmethod
    def _parts_of(cls, record: facade.AuditRecord) -> dict[str, Any]:
        audit = record.audit
        return {
            "id": record.id,
            "check": record.check,
            "site": audit.site,
            "began": write_instant(audit.began),
            "took_seconds": audit.ended - audit.began,
            "ending": audit.ending,
            "why": audit.why,
            "verdict": tell_verdict(audit),
            "counts": audit.counts,
            "defects_count": len(audit.found),
            "new_count": len(audit.new),
        }

    @classmethod
    def of(cls, record: facade.AuditRecord) -> Self:
        return cls.make(**cls._parts_of(record))


class Defect(Wire):
    """One broken target of a site, with everybody who refers to it."""

    kind: str
    target: str
    status: Status
    why: str
    hint: str = Field(description="What was probably meant; empty when that is not plain")
    rule: str = Field(description="The rule that is broken; empty for other kinds")
    referrers_count: int
    referrers: list[dict[str, str | int | None]] = Field(
        description="The first of them: `page`, `line` (null: not known) and `role`"
    )
    since: When | None = Field(description="When an audit first saw it; null: nobody compared")
    new: bool
    regressed: bool = Field(description="The audit before saw it well")
    known: str = Field(description="Why it is left as it is; empty: nobody said so")

    @classmethod
    def of(cls, defect: facade.Defect) -> Self:
        return cls.make(
            kind=defect.kind,
            target=defect.target,
            status=defect.status,
            why=defect.why,
            hint=defect.hint,
            rule=defect.rule,
            referrers_count=defect.referrers_count,
            referrers=defect.referrers,
            since=_when(defect.since),
            new=defect.new,
            regressed=defect.regressed,
            known=defect.known,
        )


class AuditResult(Audit):
    """An audit of a site with what it found; of very many defects the first 500."""

    defects: list[Defect]
    fixed: list[str] = Field(description="Broken in the audit before, and no longer")
    notes: list[str] = Field(description="What was not done, and what was strange but not wrong")

    @classmethod
    def of(cls, record: facade.AuditRecord) -> Self:
        audit = record.audit
        return cls.make(
            **cls._parts_of(record),
            defects=[Defect.of(defect) for defect in audit.defects],
            fixed=audit.fixed,
            notes=audit.notes,
        )


class Drill(Wire):
    """A fault that was injected on purpose, and what the agent made of it."""

    id: str
    fault: str
    options: dict[str, Any]
    by: str
    state: DrillState = Field(strict=False)
    outcome: DrillOutcome | None = Field(strict=False, description="null: not judged yet")
    detail: str = Field(description="How it went, in one sentence")
    trouble: str = Field(description="Why the fault is not undone yet; empty while nothing is")
    ordered: When
    within_seconds: float = Field(description="From the injection until a look must prove a repair")
    injected: When | None
    detected: When | None
    healed: When | None
    verified: When | None
    undone: When | None
    checks: list[str] = Field(description="Those of this host that could see the fault")
    incidents: list[str] = Field(description="Those that it may have brought about")

    @classmethod
    def of(cls, drill: facade.Drill) -> Self:
        return cls.make(
            id=drill.id,
            fault=drill.fault,
            options=drill.options,
            by=drill.by,
            state=drill.state,
            outcome=drill.outcome,
            detail=drill.detail,
            trouble=drill.trouble,
            ordered=write_instant(drill.ordered),
            within_seconds=drill.budget,
            injected=_when(drill.injected),
            detected=_when(drill.detected),
            healed=_when(drill.healed),
            verified=_when(drill.verified),
            undone=_when(drill.undone),
            checks=drill.checks,
            incidents=drill.incidents,
        )


class Rehearsal(Wire):
    """What a rehearsal came to, without its report."""

    id: str
    kept: When
    by: str = Field(description="Who sent it")
    verdict: str = Field(description="pass, fail or inconclusive")
    headline: str
    candidate: str
    baseline: str
    took_seconds: float

    @classmethod
    def _parts_of(cls, record: facade.RehearsalRecord) -> dict[str, Any]:
        told = record.told
        return {
            "id": record.id,
            "kept": write_instant(record.kept),
            "by": record.by,
            "verdict": told.verdict,
            "headline": told.headline,
            "candidate": told.candidate,
            "baseline": told.baseline,
            "took_seconds": told.took,
        }

    @classmethod
    def of(cls, record: facade.RehearsalRecord) -> Self:
        return cls.make(**cls._parts_of(record))


class RehearsalResult(Rehearsal):
    """A rehearsal with its report."""

    report: dict[str, Any] = Field(description="As `hostmend rehearse --json` prints it")

    @classmethod
    def of(cls, record: facade.RehearsalRecord) -> Self:
        return cls.make(**cls._parts_of(record), report=record.told.report)


class Token(Wire):
    """A way in over TCP, without its secret."""

    id: str
    name: str
    role: Role = Field(strict=False)
    created: When
    created_by: str
    expires: When | None = Field(description="null: it does not expire")
    used: When | None = Field(description="When it was last used, to a minute; null: never")
    revoked: When | None
    revoked_by: str

    @classmethod
    def of(cls, token: facade.Token) -> Self:
        return cls.make(**cls._parts_of(token))

    @classmethod
    def _parts_of(cls, token: facade.Token) -> dict[str, Any]:
        return {
            "id": token.id,
            "name": token.name,
            "role": token.role,
            "created": write_instant(token.created),
            "created_by": token.created_by,
            "expires": _when(token.expires),
            "used": _when(token.used),
            "revoked": _when(token.revoked),
            "revoked_by": token.revoked_by,
        }


class NewToken(Token):
    """A token with its secret."""

    secret: str = Field(description="Shown this once; send it as `Authorization: Bearer`")

    @classmethod
    def of_new(cls, new: facade.NewToken) -> Self:
        return cls.make(**cls._parts_of(new.token), secret=new.secret)


class Action(Wire):
    """One order: who wanted what, and what became of it."""

    id: str
    at: When
    by: str
    what: str = Field(description="The operationId of the order, such as `pause`")
    target: str = Field(description="The name or id that it was about")
    outcome: ActionOutcome = Field(
        description="`begun`: under way, or the agent died meanwhile; `failed`: a defect"
    )
    why: str = Field(description="Why it was refused")
    made: str = Field(description="The id of what it made")
    details: str = Field(description="The order's body as JSON, secrets masked")

    @classmethod
    def of(cls, action: facade.Action) -> Self:
        return cls.make(
            id=action.id,
            at=write_instant(action.at),
            by=action.by,
            what=action.what,
            target=action.target,
            outcome=action.outcome,
            why=action.why,
            made=action.made,
            details=action.details,
        )


class Pause(Wire):
    """Runs are stopped; looking and telling go on."""

    by: str
    since: When
    until: When | None = Field(description="null: until somebody resumes")
    why: str

    @classmethod
    def of(cls, pause: model.Pause) -> Self:
        return cls.make(
            by=pause.by, since=write_instant(pause.since), until=_when(pause.until), why=pause.why
        )


class Storm(Wire):
    """Many failures at once, treated as one cause."""

    since: When

    @classmethod
    def of(cls, storm: model.Storm) -> Self:
        return cls.make(since=write_instant(storm.since))


class Lateness(Wire):
    """How late the last looks by the timer began."""

    count: int = Field(description="Looks that this is of")
    median_seconds: float
    p99_seconds: float = Field(description="99 of 100 were not later")
    longest_seconds: float

    @classmethod
    def of(cls, late: facade.Lateness) -> Self:
        return cls.make(
            count=late.count,
            median_seconds=late.median,
            p99_seconds=late.p99,
            longest_seconds=late.longest,
        )


class AgentStatus(Wire):
    """How the agent and this host are."""

    version: str
    host: str
    started: When
    now: When
    worst: Status = Field(description="The worst status of any check")
    checks_count: dict[str, int] = Field(description="Checks by status")
    incidents: list[Incident]
    holds: dict[str, Held] = Field(description="Why an incident, by its id, has no run now")
    runs_alive: list[Run]
    notices_due: int
    lateness: Lateness
    paused: Pause | None
    storm: Storm | None
    silences: list[Silence]
    missing: dict[str, str] = Field(
        description="What is not to be had here, so that less is watched or repaired, and why"
    )
    problems: list[str] = Field(description="What is wrong with the agent itself")
    config_path: str
    config_loaded: When

    @classmethod
    def of(cls, status: facade.AgentStatus, secrets: Secrets) -> Self:
        return cls.make(
            version=status.version,
            host=status.host,
            started=write_instant(status.started),
            now=write_instant(status.now),
            worst=status.worst,
            checks_count=status.checks_count,
            incidents=[Incident.of(incident) for incident in status.incidents],
            holds={incident: Held.of(held) for incident, held in status.holds.items()},
            runs_alive=[Run.of(run, secrets) for run in status.runs_alive],
            notices_due=status.notices_due,
            lateness=Lateness.of(status.lateness),
            paused=None if status.paused is None else Pause.of(status.paused),
            storm=None if status.storm is None else Storm.of(status.storm),
            silences=[Silence.of(silence) for silence in status.silences],
            missing=status.missing,
            problems=status.problems,
            config_path=status.config_path,
            config_loaded=write_instant(status.config_loaded),
        )


class Check(Wire):
    """One configured check and what its last look saw."""

    name: str
    type: str
    status: Status
    every_seconds: float
    depends_on: list[str]
    ladder: list[str]
    mode: str
    labels: dict[str, str]
    looked: When | None = Field(description="null: not looked at yet")
    took_seconds: float | None
    findings: list[Finding]
    broken: str = Field(description="The look itself broke: what it said")
    incidents: list[str]

    @classmethod
    def of(cls, check: facade.CheckStatus) -> Self:
        return cls.make(
            name=check.name,
            type=check.type,
            status=check.status,
            every_seconds=check.every,
            depends_on=check.depends_on,
            ladder=check.ladder,
            mode=check.mode,
            labels=check.labels,
            looked=_when(check.looked),
            took_seconds=check.took,
            findings=[Finding.of(finding) for finding in check.findings],
            broken=check.broken,
            incidents=check.incidents,
        )


class Transition(Wire):
    """Something that an incident went through."""

    at: When
    old: State | None
    new: State
    why: str

    @classmethod
    def of(cls, transition: model.Transition) -> Self:
        return cls.make(
            at=write_instant(transition.at),
            old=transition.old,
            new=transition.new,
            why=transition.why,
        )


class EvidenceItem(Wire):
    """Evidence of an incident, from `before` or `after`."""

    when: str
    taken: When
    title: str
    text: str

    @classmethod
    def of(cls, item: facade.EvidenceItem) -> Self:
        return cls.make(
            when=item.when,
            taken=write_instant(item.taken),
            title=item.evidence.title,
            text=item.evidence.text,
        )


class IncidentStory(Wire):
    """An incident with everything known of it."""

    incident: Incident
    held: Held | None
    transitions: list[Transition]
    runs: list[Run]
    notices: list[Notice]
    evidence: list[EvidenceItem]
    downtime_seconds: float = Field(description="Seconds of failing so far")

    @classmethod
    def of(cls, story: facade.IncidentStory, secrets: Secrets) -> Self:
        return cls.make(
            incident=Incident.of(story.incident),
            held=None if story.held is None else Held.of(story.held),
            transitions=[Transition.of(transition) for transition in story.transitions],
            runs=[Run.of(run, secrets) for run in story.runs],
            notices=[Notice.of(notice) for notice in story.notices],
            evidence=[EvidenceItem.of(item) for item in story.evidence],
            downtime_seconds=story.downtime,
        )


class Budget(Wire):
    """Automatic runs within the hour."""

    used: int
    allowed: int


class Moment(Wire):
    """Something that happened."""

    at: When
    text: str


class Task(Wire):
    """One task of a run, as Ansible told it."""

    name: str
    status: str
    message: str
    output: str
    diff: str


class Repair(Wire):
    """One run and what it did."""

    run: Run
    tasks: list[Task]


class Times(Wire):
    """How long something took."""

    count: int
    median_seconds: float
    worst_seconds: float

    @classmethod
    def of(cls, times: facade.Times | None) -> Self | None:
        if times is None:
            return None
        return cls.make(count=times.count, median_seconds=times.median, worst_seconds=times.worst)


class SilentRestarts(Wire):
    """A unit that systemd restarted by itself."""

    check: str
    unit: str
    count: int


class Forecast(Wire):
    """Something that will be full."""

    check: str
    subject: str
    full_in_seconds: float
    full_in_low_seconds: float
    full_in_high_seconds: float


class Recurring(Wire):
    """A problem that was repaired more than once."""

    check: str
    subject: str
    count: int


class Availability(Wire):
    """How long what a check looks at was not critical."""

    check: str
    downtime_seconds: float
    percent: float


class Digest(Wire):
    """What happened over some days, for people who were not called."""

    host: str
    since: When
    until: When
    started: When | None = Field(description="When the agent began, where that is later")
    checks_count: int
    incidents_count: int
    needed: list[Incident] = Field(description="A human is needed for them now")
    waiting: list[Incident] = Field(description="They wait for somebody's word now")
    healed_quietly: list[Incident] = Field(description="Repaired, and nobody was called")
    healed_count: int = Field(description="Repaired, and people were called meanwhile")
    ended_count: int = Field(description="Ended without a repair")
    shadowed_count: int = Field(description="Would have been repaired, were it not for shadow")
    restarts: list[SilentRestarts]
    forecasts: list[Forecast]
    recurring: list[Recurring]
    detected: Times | None = Field(
        description="From the beginning of a failure, where it is known, to the look that saw it"
    )
    repaired: Times | None = Field(description="From the confirmation to the proof of a repair")
    availability: list[Availability] = Field(description="Checks that were critical at all")
    headline: str
    text: str

    @classmethod
    def of(cls, digest: facade.Digest) -> Self:
        return cls.make(
            host=digest.host,
            since=write_instant(digest.since),
            until=write_instant(digest.until),
            started=_when(digest.started),
            checks_count=digest.checks_count,
            incidents_count=digest.incidents_count,
            needed=[Incident.of(incident) for incident in digest.needed],
            waiting=[Incident.of(incident) for incident in digest.waiting],
            healed_quietly=[Incident.of(incident) for incident in digest.healed_quietly],
            healed_count=digest.healed_count,
            ended_count=digest.ended_count,
            shadowed_count=digest.shadowed_count,
            restarts=[
                SilentRestarts.make(check=r.check, unit=r.unit, count=r.count)
                for r in digest.restarts
            ],
            forecasts=[
                Forecast.make(
                    check=f.check,
                    subject=f.subject,
                    full_in_seconds=f.full_in,
                    full_in_low_seconds=f.low,
                    full_in_high_seconds=f.high,
                )
                for f in digest.forecasts
            ],
            recurring=[
                Recurring.make(check=r.check, subject=r.subject, count=r.count)
                for r in digest.recurring
            ],
            detected=Times.of(digest.detected),
            repaired=Times.of(digest.repaired),
            availability=[
                Availability.make(check=a.check, downtime_seconds=a.downtime, percent=a.percent)
                for a in digest.availability
            ],
            headline=facade.write_headline(digest),
            text=facade.write_digest(digest),
        )


class IncidentReport(Wire):
    """A draft for a review without blame: what was observed, and nothing else."""

    host: str
    written: When
    title: str
    summary: str
    incident: Incident
    detected_after_seconds: float | None = Field(
        description="From the beginning of the failure to the look that saw it"
    )
    repaired_after_seconds: float | None = Field(
        description="From the confirmation to the proof of a repair"
    )
    downtime_seconds: float
    timeline: list[Moment]
    repairs: list[Repair]
    evidence: list[EvidenceItem]
    left: list[str] = Field(description="What is left for people")
    earlier_count: int = Field(description="How often it happened before")
    earlier: list[Incident] = Field(description="The last of them, newest first")
    markdown: str
    html: str = Field(description="A document that stands alone")

    @classmethod
    def of(cls, report: facade.IncidentReport, secrets: Secrets) -> Self:
        return cls.make(
            host=report.host,
            written=write_instant(report.written),
            title=report.title,
            summary=report.summary,
            incident=Incident.of(report.incident),
            detected_after_seconds=report.detected_after,
            repaired_after_seconds=report.repaired_after,
            downtime_seconds=report.downtime,
            timeline=[Moment.make(at=write_instant(m.at), text=m.text) for m in report.timeline],
            repairs=[
                Repair.make(
                    run=Run.of(each.run, secrets),
                    tasks=[
                        Task.make(
                            name=task.name,
                            status=task.status,
                            message=task.message,
                            output=task.output,
                            diff=task.diff,
                        )
                        for task in each.tasks
                    ],
                )
                for each in report.repairs
            ],
            evidence=[
                EvidenceItem.make(
                    when=each.stage,
                    taken=write_instant(each.taken),
                    title=each.evidence.title,
                    text=each.evidence.text,
                )
                for each in report.evidence
            ],
            left=report.left,
            earlier_count=report.earlier.count,
            earlier=[Incident.of(each) for each in report.earlier.incidents],
            markdown=facade.render_markdown(report),
            html=facade.render_page(report),
        )


class Explanation(Wire):
    """Every gate between an incident and its next step."""

    incident: Incident
    remedy: str = Field(description="The remedy that would be next; empty: none")
    options: dict[str, Any]
    digest: str = Field(description="Of that remedy: pass it on when approving what you saw")
    gates: list[Held] = Field(description="Empty: nothing holds it")
    attempts: dict[str, str] = Field(description="Of each step: `tried of allowed`")
    budget: Budget
    next: str = Field(description="What happens next, and when")

    @classmethod
    def of(cls, explained: facade.Explanation, secrets: Secrets, digest: str) -> Self:
        used, allowed = explained.budget
        return cls.make(
            incident=Incident.of(explained.incident),
            remedy=explained.remedy,
            options=mask_values(explained.options, secrets(explained.remedy)),
            digest=digest,
            gates=[Held.of(held) for held in explained.gates],
            attempts=explained.attempts,
            budget=Budget(used=used, allowed=allowed),
            next=explained.next,
        )


class Remedy(Wire):
    """A remedy on offer."""

    name: str
    summary: str
    path: str
    risk: Risk
    changes: Changes
    timeout_seconds: float
    handles: dict[str, list[str]] = Field(description="Check types, and the causes of each")
    options: dict[str, dict[str, Any]] = Field(description="As remedy.yml describes them")
    digest: str
    replaces: str | None = Field(description="Digest of the shipped remedy that it replaces")
    used_by: list[str] = Field(description="Checks whose ladder names it")

    @classmethod
    def of(cls, remedy: facade.RemedyInfo) -> Self:
        secret = secret_options(remedy)
        options = {
            name: {
                part: MASK if name in secret and part == "default" else value
                for part, value in spec.items()
            }
            for name, spec in remedy.options.items()
        }
        return cls.make(
            name=remedy.name,
            summary=remedy.summary,
            path=remedy.path,
            risk=remedy.risk,
            changes=remedy.changes,
            timeout_seconds=remedy.timeout,
            handles=remedy.handles,
            options=options,
            digest=remedy.digest,
            replaces=remedy.replaces,
            used_by=remedy.used_by,
        )


def secret_options(remedy: facade.RemedyInfo) -> frozenset[str]:
    """The options that Ansible is told not to log."""
    return frozenset(name for name, spec in remedy.options.items() if spec.get("no_log") is True)


class LiveEvent(Wire):
    """Something that happened; the data of one server-sent event."""

    id: int
    at: When
    kind: str = Field(description="look | incident | run | task | notice | agent")
    data: dict[str, Any]

    @classmethod
    def of(cls, event: facade.LiveEvent) -> Self:
        return cls.make(
            id=event.id, at=write_instant(event.at), kind=event.kind, data=plain(event.data)
        )


class Health(Wire):
    """Alive, or ready."""

    status: str


class Order(BaseModel):
    """The base of what is taken: a word that is not known, or of another type, is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PauseOrder(Order):
    """Stop all runs."""

    for_seconds: float | None = Field(
        default=None,
        gt=0,
        le=366 * 86400,
        allow_inf_nan=False,
        description="Resume by itself after this; left out: until somebody resumes",
    )
    why: str = Field(default="", max_length=500)


class ConfirmOrder(Order):
    """The state is this host's own."""

    keep_tokens: bool = Field(
        default=False, description="Of a copy: the tokens of the original let people in here too"
    )


class ApproveOrder(Order):
    """Let the next run start."""

    digest: str = Field(
        default="", max_length=200, description="Of the remedy that you saw; refused if it changed"
    )


class RunOrder(Order):
    """Run a remedy."""

    options: dict[str, Any] = Field(default_factory=dict)
    preview: bool = Field(default=False, description="Ansible's check mode: change nothing")


#: Nothing that an operator orders lasts longer, in seconds: a year and a day.
_LONGEST = 366 * 86400
#: A maintenance window that was forgotten must not keep a host from healing for ever, in seconds.
LONGEST_WINDOW = 7 * 86400


class TokenOrder(Order):
    """Make a token."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$",
        description="What it is for, or who has it; shown in the trail",
    )
    role: Role = Field(strict=False)
    for_seconds: float | None = Field(
        default=None,
        gt=0,
        le=10 * _LONGEST,
        allow_inf_nan=False,
        description="Expire after this; left out: it does not",
    )


_Line = Annotated[str, Field(min_length=1, max_length=200)]
_Measurement = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,79}$")]
_Number = Annotated[float, Field(allow_inf_nan=False)]


class ReportOrder(Order):
    """What somebody found of one subject."""

    status: Status = Field(strict=False)
    subject: str = Field(
        default="", max_length=200, description="What it is about; left out: the check itself"
    )
    cause: str = Field(
        default="",
        pattern=r"^([a-z][a-z0-9_-]{0,39})?$",
        description="One of the check's `causes`; left out: `failed`",
    )
    summary: str = Field(default="", max_length=1000, description="One sentence for people")
    measurements: dict[_Measurement, _Number] = Field(
        default={}, max_length=100, description="Numbers behind it; the unit ends the name"
    )
    facts: dict[_Line, Annotated[str, Field(max_length=1000)]] = Field(
        default={}, max_length=20, description="Short facts for people"
    )
    output: str = Field(
        default="",
        max_length=16 * 1024,
        description="The end of what a command printed, for evidence",
    )

    def report(self) -> Report:
        return Report(
            status=self.status,
            subject=self.subject,
            cause=self.cause,
            summary=self.summary,
            measurements=self.measurements,
            facts=self.facts,
            output=self.output,
        )


class Reported(Wire):
    """What became of a report."""

    check: str
    status: Status = Field(description="The worst of the check's findings")


_Labels = Annotated[dict[str, Annotated[str, Field(max_length=2000)]], Field(max_length=100)]


class AlertItem(BaseModel):
    """One alert, as an Alertmanager tells of it; what else it says is passed over."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    status: Literal["firing", "resolved"]
    labels: _Labels
    annotations: _Labels = Field(default={})
    startsAt: str = Field(default="", max_length=64)
    generatorURL: str = Field(default="", max_length=4000)
    fingerprint: str = Field(default="", max_length=200)

    def alert(self) -> Alert:
        return Alert(
            firing=self.status == "firing",
            labels=self.labels,
            annotations=self.annotations,
            since=_read_instant(self.startsAt),
            link=self.generatorURL,
            fingerprint=self.fingerprint,
        )


def _read_instant(text: str) -> Instant | None:
    """None for what is no instant, and for Go's zero time."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.timestamp() if found.tzinfo is not None and found.year > 1970 else None


class AlertsOrder(BaseModel):
    """What an Alertmanager posts to a webhook (version 4 of its data)."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    alerts: list[AlertItem] = Field(max_length=1000)


class AlertsTaken(Wire):
    """What became of alerts."""

    checks: dict[str, int] = Field(description="How many were taken for each check")
    ignored: int = Field(description="Alerts that no check wants")


_Names = Annotated[list[Annotated[str, Field(min_length=1, max_length=500)]], Field(max_length=100)]


class RouteTestOrder(Order):
    """Try routes."""

    routes: _Names = Field(default=[], description="Their names; left out: all of them")


class AuditOrder(Order):
    """Have a site audited."""

    check: str = Field(max_length=200, description="A configured check of type `site`")


class DrillOrder(Order):
    """Inject a fault."""

    fault: str = Field(max_length=64, description="Its name: `hostmend drill faults` lists them")
    options: dict[str, Any] = Field(default={}, max_length=50)
    within_seconds: float = Field(
        default=120.0,
        gt=0,
        le=LONGEST_DRILL,
        allow_inf_nan=False,
        description="The agent must have detected, healed and verified within this",
    )


class RehearsalOrder(Order):
    """Keep the report of a rehearsal."""

    verdict: Literal["pass", "fail", "inconclusive"]
    headline: str = Field(max_length=1000)
    candidate: str = Field(max_length=2000)
    baseline: str = Field(max_length=2000)
    took_seconds: float = Field(ge=0, le=_LONGEST, allow_inf_nan=False)
    report: dict[str, Any] = Field(description="As `hostmend rehearse --json` prints it")

    def told(self) -> facade.RehearsalReport:
        return facade.RehearsalReport(
            verdict=self.verdict,
            headline=self.headline,
            candidate=self.candidate,
            baseline=self.baseline,
            took=self.took_seconds,
            report=plain(self.report),
        )


class SilenceOrder(Order):
    """Mute notices; with `runs`, hold runs too."""

    for_seconds: float = Field(
        gt=0, le=_LONGEST, allow_inf_nan=False, description="End by itself after this"
    )
    checks: _Names = Field(
        default=[], description="Names of checks; `*` for all. Nothing named never means all"
    )
    subjects: _Names = Field(
        default=[], description="Only these subjects of those checks; left out: all of them"
    )
    labels: dict[str, str] = Field(
        default={}, max_length=20, description="Or: checks that carry all of these labels"
    )
    comment: str = Field(default="", max_length=500)
    runs: bool = Field(
        default=False, description="A maintenance window: start no runs either; at most a week"
    )

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if self.runs and self.for_seconds > LONGEST_WINDOW:
            raise ValueError(f"a maintenance window lasts at most {LONGEST_WINDOW} seconds")
        return self
