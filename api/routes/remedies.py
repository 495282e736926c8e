"""Remedies on offer."""

from __future__ import annotations

from api.routes.parts import Agent, Before, By, Limit, page_by_name, secrets_of
from api.schemas.remedies import Remedy
from api.schemas.runs import Run, RunOrder
from api.schemas.wire import Page


async def list_remedies(agent: Agent, limit: Limit = 50, before: Before = None) -> Page[Remedy]:
    """All remedies, by name."""
    return page_by_name(agent.remedies(), lambda remedy: remedy.name, Remedy.of, limit, before)


async def show_remedy(agent: Agent, name: str) -> Remedy:
    """One remedy with its options."""
    return Remedy.of(agent.remedy(name))


async def run_remedy(agent: Agent, by: By, name: str, order: RunOrder | None = None) -> Run:
    """Run a remedy; the answer comes at once, the run goes on."""
    order = order or RunOrder()
    run = await agent.run_remedy(name, order.options, preview=order.preview, by=by)
    return Run.of(run, secrets_of(agent))
