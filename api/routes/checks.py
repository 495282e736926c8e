"""Configured checks and what they saw."""

from __future__ import annotations

from api import schemas
from api.routes.parts import Agent, Before, Limit, page_by_name


async def list_checks(
    agent: Agent, limit: Limit = 50, before: Before = None
) -> schemas.Page[schemas.Check]:
    """All checks, by name."""
    return page_by_name(agent.checks(), lambda check: check.name, schemas.Check.of, limit, before)


async def show_check(agent: Agent, name: str) -> schemas.Check:
    """One check."""
    return schemas.Check.of(agent.check(name))


async def look(agent: Agent, name: str) -> schemas.Check:
    """Look now; the answer is what that look saw."""
    return schemas.Check.of(await agent.look(name))
