"""Configured checks, and what a look saw of their subjects."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from agent import agent as facade
from agent.core import model
from agent.core.model import Status
from api.schemas.wire import When, Wire, write_when


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
            since=write_when(finding.since),
            intended=finding.intended,
            transition=finding.transition,
            resource=finding.resource,
            implicates=finding.implicates,
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
            looked=write_when(check.looked),
            took_seconds=check.took,
            findings=[Finding.of(finding) for finding in check.findings],
            broken=check.broken,
            incidents=check.incidents,
        )
