"""The trail of who ordered what."""

from __future__ import annotations

from api.routes.parts import Agent, Before, Limit
from api.schemas.actions import Action
from api.schemas.wire import Page, page_of


async def list_actions(agent: Agent, limit: Limit = 50, before: Before = None) -> Page[Action]:
    """Orders, newest first, with who gave them and what became of them."""
    return page_of(await agent.actions(limit=limit, before=before), Action.of)
