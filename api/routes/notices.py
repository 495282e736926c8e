"""Messages, delivered or still due, and whether they would be."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from agent.core.model import NoticeState
from api import schemas
from api.routes.parts import Agent, Before, By, Limit


async def list_notices(
    agent: Agent,
    state: Annotated[NoticeState | None, Query(description="Only in this state")] = None,
    limit: Limit = 50,
    before: Before = None,
) -> schemas.Page[schemas.Notice]:
    """Notices, newest first."""
    page = await agent.notices(limit=limit, before=before, state=state)
    return schemas.page_of(page, schemas.Notice.of)


async def try_routes(
    agent: Agent, by: By, order: schemas.RouteTestOrder | None = None
) -> schemas.RouteTests:
    """Send one message to each route, wait for it, and tell what became of each."""
    order = order or schemas.RouteTestOrder()
    found = await agent.try_routes(order.routes, by=by)
    return schemas.RouteTests(items=[schemas.RouteTest.of(test) for test in found])
