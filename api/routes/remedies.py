"""Remedies on offer."""

from __future__ import annotations

from api import schemas
from api.routes.parts import Agent, Before, By, Limit, page_by_name, secrets_of


async def list_remedies(
    agent: Agent, limit: Limit = 50, before: Before = None
) -> schemas.Page[schemas.Remedy]:
    """All remedies, by name."""
    return page_by_name(
        agent.remedies(), lambda remedy: remedy.name, schemas.Remedy.of, limit, before
    )


async def show_remedy(agent: Agent, name: str) -> schemas.Remedy:
    """One remedy with its options."""
    return schemas.Remedy.of(agent.remedy(name))


async def run_remedy(
    agent: Agent, by: By, name: str, order: schemas.RunOrder | None = None
) -> schemas.Run:
    """Run a remedy; the answer comes at once, the run goes on."""
    order = order or schemas.RunOrder()
    run = await agent.run_remedy(name, order.options, preview=order.preview, by=by)
    return schemas.Run.of(run, secrets_of(agent))
