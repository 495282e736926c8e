"""Audits of sites, and the defects that they found."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from agent import agent as facade
from agent.agent import tell_verdict
from agent.core.model import Status
from api.schemas.wire import Order, When, Wire, write_instant, write_when


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
            since=write_when(defect.since),
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


class AuditOrder(Order):
    """Have a site audited."""

    check: str = Field(max_length=200, description="A configured check of type `site`")
