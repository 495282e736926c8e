"""Faults that are injected on purpose, and what the agent made of them."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from agent import agent as facade
from agent.agent import LONGEST_DRILL, DrillOutcome, DrillState
from api.schemas.wire import Order, When, Wire, write_instant, write_when


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
            injected=write_when(drill.injected),
            detected=write_when(drill.detected),
            healed=write_when(drill.healed),
            verified=write_when(drill.verified),
            undone=write_when(drill.undone),
            checks=drill.checks,
            incidents=drill.incidents,
        )


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
