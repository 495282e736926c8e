"""Drills: faults that are injected on purpose, and what the agent made of them."""

from __future__ import annotations

from api import schemas
from api.routes.parts import Agent, Before, By, Limit


async def list_drills(
    agent: Agent, limit: Limit = 50, before: Before = None
) -> schemas.Page[schemas.Drill]:
    """Drills of this host, newest first."""
    return schemas.page_of(await agent.drills(limit=limit, before=before), schemas.Drill.of)


async def show_drill(agent: Agent, id: str) -> schemas.Drill:
    """One drill, as it stands."""
    return schemas.Drill.of(await agent.drill(id))


async def start_drill(agent: Agent, by: By, order: schemas.DrillOrder) -> schemas.Drill:
    """Inject a fault where this host allows it; the answer comes at once, the drill goes on."""
    drill = await agent.start_drill(order.fault, order.options, seconds=order.within_seconds, by=by)
    return schemas.Drill.of(drill)


async def end_drill(agent: Agent, by: By, id: str) -> schemas.Drill:
    """Have a drill's fault undone now; one that has ended stays as it is."""
    return schemas.Drill.of(await agent.end_drill(id, by=by))
