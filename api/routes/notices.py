"""Messages, delivered or still due."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from agent.core.model import NoticeState
from api import schemas
from api.routes.parts import Agent, Before, Limit


async def list_notices(
    agent: Agent,
    state: Annotated[NoticeState | None, Query(description="Only in this state")] = None,
    limit: Limit = 50,
    before: Before = None,
) -> schemas.Page[schemas.Notice]:
    """Notices, newest first."""
    page = await agent.notices(limit=limit, before=before, state=state)
    return schemas.page_of(page, schemas.Notice.of)
