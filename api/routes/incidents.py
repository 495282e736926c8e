"""Problems from their first failing finding to their end."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from agent.errors import NotFound
from api import schemas
from api.routes.parts import Agent, Before, By, Limit, secrets_of


async def list_incidents(
    agent: Agent,
    live: Annotated[bool | None, Query(description="true: not ended; false: ended")] = None,
    check: Annotated[str | None, Query(max_length=200, description="Only of this check")] = None,
    limit: Limit = 50,
    before: Before = None,
) -> schemas.Page[schemas.Incident]:
    """Incidents, newest first."""
    page = await agent.incidents(live=live, check=check, limit=limit, before=before)
    return schemas.page_of(page, schemas.Incident.of)


async def show_incident(agent: Agent, id: str) -> schemas.IncidentStory:
    """One incident with everything known of it."""
    return schemas.IncidentStory.of(await agent.incident(id), secrets_of(agent))


async def explain_incident(agent: Agent, id: str) -> schemas.Explanation:
    """Every gate between an incident and its next step."""
    explained = await agent.explain(id)
    try:
        digest = agent.remedy(explained.remedy).digest if explained.remedy else ""
    except NotFound:
        digest = ""
    return schemas.Explanation.of(explained, secrets_of(agent), digest)


async def report_incident(agent: Agent, id: str) -> schemas.IncidentReport:
    """All that is known of an incident as a report: as data, as Markdown and as a page."""
    return schemas.IncidentReport.of(await agent.report(id), secrets_of(agent))


async def acknowledge(agent: Agent, by: By, id: str) -> schemas.Incident:
    """Somebody knows; reminders stop."""
    return schemas.Incident.of(await agent.acknowledge(id, by=by))


async def approve(
    agent: Agent, by: By, id: str, order: schemas.ApproveOrder | None = None
) -> schemas.Incident:
    """Let the run that waits for approval start."""
    digest = order.digest if order else ""
    return schemas.Incident.of(await agent.approve(id, by=by, digest=digest))


async def reject(agent: Agent, by: By, id: str) -> schemas.Incident:
    """Refuse the run that waits for approval; the ladder goes on without it."""
    return schemas.Incident.of(await agent.reject(id, by=by))


async def retry(agent: Agent, by: By, id: str) -> schemas.Incident:
    """Try the ladder again now."""
    return schemas.Incident.of(await agent.retry(id, by=by))


async def close(agent: Agent, by: By, id: str) -> schemas.Incident:
    """End an incident by an operator's word."""
    return schemas.Incident.of(await agent.close(id, by=by))
