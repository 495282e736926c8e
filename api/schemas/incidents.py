"""Problems from their first failing finding to their end, and why one is not repaired yet."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from agent import agent as facade
from agent.core import model
from agent.core.model import Hold, ResolvedBy, State
from agent.core.text import mask_values
from api.schemas.checks import Finding
from api.schemas.notices import Notice
from api.schemas.remedies import Secrets
from api.schemas.runs import Run
from api.schemas.wire import Order, When, Wire, write_instant, write_when


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
            opened=write_when(incident.opened),
            entered=write_instant(incident.entered),
            ended=write_when(incident.ended),
            resolved_by=incident.resolved_by,
            run=incident.run,
            healed_by=incident.healed_by,
            relapses=incident.relapses,
            failing_since=write_when(incident.failing_since),
            past_downtime_seconds=incident.downtime,
            rejected=incident.rejected,
            approval=None if incident.approval is None else Approval.of(incident.approval),
            retry_at=write_when(incident.retry_at),
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
        return cls.make(hold=held.hold, detail=held.detail, until=write_when(held.until))


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


class ApproveOrder(Order):
    """Let the next run start."""

    digest: str = Field(
        default="", max_length=200, description="Of the remedy that you saw; refused if it changed"
    )
