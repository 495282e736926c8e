"""Configured checks and what they saw."""

from __future__ import annotations

from api.routes.parts import Agent, Before, Limit, page_by_name
from api.schemas.checks import Check
from api.schemas.wire import Page


async def list_checks(agent: Agent, limit: Limit = 50, before: Before = None) -> Page[Check]:
    """All checks, by name."""
    return page_by_name(agent.checks(), lambda check: check.name, Check.of, limit, before)


async def show_check(agent: Agent, name: str) -> Check:
    """One check."""
    return Check.of(agent.check(name))


async def look(agent: Agent, name: str) -> Check:
    """Look now; the answer is what that look saw."""
    return Check.of(await agent.look(name))
