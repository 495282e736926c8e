"""Executions of remedies."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from api.routes.parts import Agent, Before, By, Limit, secrets_of
from api.schemas.runs import Run, RunEvent, RunEvents
from api.schemas.wire import Page, page_of


async def list_runs(
    agent: Agent,
    incident: Annotated[str | None, Query(max_length=200, description="Only for this one")] = None,
    limit: Limit = 50,
    before: Before = None,
) -> Page[Run]:
    """Runs, newest first."""
    page = await agent.runs(limit=limit, before=before, incident=incident)
    secrets = secrets_of(agent)
    return page_of(page, lambda run: Run.of(run, secrets))


async def show_run(agent: Agent, id: str) -> Run:
    """One run."""
    return Run.of(await agent.run(id), secrets_of(agent))


async def list_run_events(
    agent: Agent,
    id: str,
    after: Annotated[int, Query(ge=0, description="Only events with a higher number")] = 0,
    limit: Limit = 50,
) -> RunEvents:
    """What a run did so far, oldest first."""
    events = await agent.run_events(id, after=after)
    part = [RunEvent.of(event) for event in events[:limit]]
    return RunEvents(items=part, next=part[-1].number if len(events) > limit else None)


async def cancel_run(agent: Agent, by: By, id: str) -> Run:
    """End a run, and everything it started."""
    return Run.of(await agent.cancel_run(id, by=by), secrets_of(agent))
