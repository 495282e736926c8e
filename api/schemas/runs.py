"""Executions of remedies, and what each did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import ConfigDict, Field

from agent.core import model
from agent.core.model import Changes, Outcome, Risk, RunState
from agent.core.text import mask_values
from api.schemas.remedies import Secrets
from api.schemas.wire import Order, When, Wire, write_instant, write_when


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
            started=write_when(run.started),
            ended=write_when(run.ended),
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


class RunOrder(Order):
    """Run a remedy."""

    options: dict[str, Any] = Field(default_factory=dict)
    preview: bool = Field(default=False, description="Ansible's check mode: change nothing")
