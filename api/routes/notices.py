"""Messages, delivered or still due, and whether they would be."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from agent.core.model import NoticeState
from api.routes.parts import Agent, Before, By, Limit
from api.schemas.notices import Notice, RouteTest, RouteTestOrder, RouteTests
from api.schemas.wire import Page, page_of


async def list_notices(
    agent: Agent,
    state: Annotated[NoticeState | None, Query(description="Only in this state")] = None,
    limit: Limit = 50,
    before: Before = None,
) -> Page[Notice]:
    """Notices, newest first."""
    page = await agent.notices(limit=limit, before=before, state=state)
    return page_of(page, Notice.of)


async def try_routes(agent: Agent, by: By, order: RouteTestOrder | None = None) -> RouteTests:
    """Send one message to each route, wait for it, and tell what became of each."""
    order = order or RouteTestOrder()
    found = await agent.try_routes(order.routes, by=by)
    return RouteTests(items=[RouteTest.of(test) for test in found])
