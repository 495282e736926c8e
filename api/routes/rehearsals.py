"""Rehearsals that somebody made: their reports are kept here."""

from __future__ import annotations

from api import schemas
from api.routes.parts import Agent, Before, By, Limit


async def list_rehearsals(
    agent: Agent, limit: Limit = 50, before: Before = None
) -> schemas.Page[schemas.Rehearsal]:
    """Rehearsals, newest first, without their reports."""
    page = await agent.rehearsals(limit=limit, before=before)
    return schemas.page_of(page, schemas.Rehearsal.of)


async def show_rehearsal(agent: Agent, id: str) -> schemas.RehearsalResult:
    """One rehearsal with its report."""
    return schemas.RehearsalResult.of(await agent.rehearsal(id))


async def keep_rehearsal(agent: Agent, by: By, order: schemas.RehearsalOrder) -> schemas.Rehearsal:
    """Keep the report of a rehearsal, as `hostmend rehearse --keep` does."""
    return schemas.Rehearsal.of(await agent.keep_rehearsal(order.told(), by=by))
