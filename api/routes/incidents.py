"""Problems from their first failing finding to their end."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from agent.errors import NotFound
from api.routes.parts import Agent, Before, By, Limit, secrets_of
from api.schemas.incidents import ApproveOrder, Explanation, Incident, IncidentStory
from api.schemas.reports import IncidentReport
from api.schemas.wire import Page, page_of


async def list_incidents(
    agent: Agent,
    live: Annotated[bool | None, Query(description="true: not ended; false: ended")] = None,
    check: Annotated[str | None, Query(max_length=200, description="Only of this check")] = None,
    limit: Limit = 50,
    before: Before = None,
) -> Page[Incident]:
    """Incidents, newest first."""
    page = await agent.incidents(live=live, check=check, limit=limit, before=before)
    return page_of(page, Incident.of)


async def show_incident(agent: Agent, id: str) -> IncidentStory:
    """One incident with everything known of it."""
    return IncidentStory.of(await agent.incident(id), secrets_of(agent))


async def explain_incident(agent: Agent, id: str) -> Explanation:
    """Every gate between an incident and its next step."""
    explained = await agent.explain(id)
    try:
        digest = agent.remedy(explained.remedy).digest if explained.remedy else ""
    except NotFound:
        digest = ""
    return Explanation.of(explained, secrets_of(agent), digest)


async def report_incident(agent: Agent, id: str) -> IncidentReport:
    """All that is known of an incident as a report: as data, as Markdown and as a page."""
    return IncidentReport.of(await agent.report(id), secrets_of(agent))


async def acknowledge(agent: Agent, by: By, id: str) -> Incident:
    """Somebody knows; reminders stop."""
    return Incident.of(await agent.acknowledge(id, by=by))


async def approve(agent: Agent, by: By, id: str, order: ApproveOrder | None = None) -> Incident:
    """Let the run that waits for approval start."""
    digest = order.digest if order else ""
    return Incident.of(await agent.approve(id, by=by, digest=digest))


async def reject(agent: Agent, by: By, id: str) -> Incident:
    """Refuse the run that waits for approval; the ladder goes on without it."""
    return Incident.of(await agent.reject(id, by=by))


async def retry(agent: Agent, by: By, id: str) -> Incident:
    """Try the ladder again now."""
    return Incident.of(await agent.retry(id, by=by))


async def close(agent: Agent, by: By, id: str) -> Incident:
    """End an incident by an operator's word."""
    return Incident.of(await agent.close(id, by=by))
