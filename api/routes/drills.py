"""Drills: faults that are injected on purpose, and what the agent made of them."""

from __future__ import annotations

from api.routes.parts import Agent, Before, By, Limit
from api.schemas.drills import Drill, DrillOrder
from api.schemas.wire import Page, page_of


async def list_drills(agent: Agent, limit: Limit = 50, before: Before = None) -> Page[Drill]:
    """Drills of this host, newest first."""
    return page_of(await agent.drills(limit=limit, before=before), Drill.of)


async def show_drill(agent: Agent, id: str) -> Drill:
    """One drill, as it stands."""
    return Drill.of(await agent.drill(id))


async def start_drill(agent: Agent, by: By, order: DrillOrder) -> Drill:
    """Inject a fault where this host allows it; the answer comes at once, the drill goes on."""
    drill = await agent.start_drill(order.fault, order.options, seconds=order.within_seconds, by=by)
    return Drill.of(drill)


async def end_drill(agent: Agent, by: By, id: str) -> Drill:
    """Have a drill's fault undone now; one that has ended stays as it is."""
    return Drill.of(await agent.end_drill(id, by=by))
