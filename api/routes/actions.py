"""The trail of who ordered what."""

from __future__ import annotations

from api import schemas
from api.routes.parts import Agent, Before, Limit


async def list_actions(
    agent: Agent, limit: Limit = 50, before: Before = None
) -> schemas.Page[schemas.Action]:
    """Orders, newest first, with who gave them and what became of them."""
    return schemas.page_of(await agent.actions(limit=limit, before=before), schemas.Action.of)
