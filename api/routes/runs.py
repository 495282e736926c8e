"""Executions of remedies."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from api import schemas
from api.routes.parts import Agent, Before, By, Limit, secrets_of


async def list_runs(
    agent: Agent,
    incident: Annotated[str | None, Query(max_length=200, description="Only for this one")] = None,
    limit: Limit = 50,
    before: Before = None,
) -> schemas.Page[schemas.Run]:
    """Runs, newest first."""
    page = await agent.runs(limit=limit, before=before, incident=incident)
    secrets = secrets_of(agent)
    return schemas.page_of(page, lambda run: schemas.Run.of(run, secrets))


async def show_run(agent: Agent, id: str) -> schemas.Run:
    """One run."""
    return schemas.Run.of(await agent.run(id), secrets_of(agent))


async def list_run_events(
    agent: Agent,
    id: str,
    after: Annotated[int, Query(ge=0, description="Only events with a higher number")] = 0,
    limit: Limit = 50,
) -> schemas.RunEvents:
    """What a run did so far, oldest first."""
    events = await agent.run_events(id, after=after)
    part = [schemas.RunEvent.of(event) for event in events[:limit]]
    return schemas.RunEvents(items=part, next=part[-1].number if len(events) > limit else None)


async def cancel_run(agent: Agent, by: By, id: str) -> schemas.Run:
    """End a run, and everything it started."""
    return schemas.Run.of(await agent.cancel_run(id, by=by), secrets_of(agent))
