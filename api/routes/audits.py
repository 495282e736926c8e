"""Audits of sites: what was found, and having one made."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from api.routes.parts import Agent, Before, By, Limit
from api.schemas.audits import Audit, AuditOrder, AuditResult
from api.schemas.checks import Check
from api.schemas.wire import Page, page_of


async def list_audits(
    agent: Agent,
    check: Annotated[str | None, Query(max_length=200, description="Only of this check")] = None,
    limit: Limit = 50,
    before: Before = None,
) -> Page[Audit]:
    """Audits that the agent's checks made, newest first, without their defects."""
    page = await agent.audits(limit=limit, before=before, check=check)
    return page_of(page, Audit.of)


async def show_audit(agent: Agent, id: str) -> AuditResult:
    """One audit with its defects."""
    return AuditResult.of(await agent.audit(id))


async def start_audit(agent: Agent, by: By, order: AuditOrder) -> Check:
    """Have a check of type `site` made now; the answer comes at once, the audit takes minutes."""
    return Check.of(await agent.start_audit(order.check, by=by))
