"""What happened over some days, for people who were not called."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from agent.agent import LONGEST_DIGEST
from api.routes.parts import Agent
from api.schemas.digests import Digest

Seconds = Annotated[
    float | None,
    Query(
        gt=0,
        le=LONGEST_DIGEST,
        description="Of so many seconds; left out: since the last that was sent",
    ),
]


async def show_digest(agent: Agent, seconds: Seconds = None) -> Digest:
    """What was repaired, what recurs, what is forecast, what waits: as data and as text."""
    return Digest.of(await agent.digest(seconds=seconds))
