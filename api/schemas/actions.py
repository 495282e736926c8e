"""The trail of who ordered what."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from agent import agent as facade
from agent.agent import ActionOutcome
from api.schemas.wire import When, Wire, write_instant


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
