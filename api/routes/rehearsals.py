"""Rehearsals that somebody made: their reports are kept here."""

from __future__ import annotations

from api.routes.parts import Agent, Before, By, Limit
from api.schemas.rehearsals import Rehearsal, RehearsalOrder, RehearsalResult
from api.schemas.wire import Page, page_of


async def list_rehearsals(
    agent: Agent, limit: Limit = 50, before: Before = None
) -> Page[Rehearsal]:
    """Rehearsals, newest first, without their reports."""
    page = await agent.rehearsals(limit=limit, before=before)
    return page_of(page, Rehearsal.of)


async def show_rehearsal(agent: Agent, id: str) -> RehearsalResult:
    """One rehearsal with its report."""
    return RehearsalResult.of(await agent.rehearsal(id))


async def keep_rehearsal(agent: Agent, by: By, order: RehearsalOrder) -> Rehearsal:
    """Keep the report of a rehearsal, as `hostmend rehearse --keep` does."""
    return Rehearsal.of(await agent.keep_rehearsal(order.told(), by=by))
