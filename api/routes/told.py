"""What others found, told to the checks that nobody else looks for."""

from __future__ import annotations

from api import schemas
from api.routes.parts import Agent, By


async def report(agent: Agent, by: By, name: str, order: schemas.ReportOrder) -> schemas.Reported:
    """Report what you found on a check of type `push`; the answer says how it stands."""
    check = await agent.tell(name, order.report(), by=by)
    return schemas.Reported.make(check=check.name, status=check.status)


async def report_alerts(agent: Agent, by: By, order: schemas.AlertsOrder) -> schemas.AlertsTaken:
    """Take an Alertmanager's alerts, for the checks whose `alerts` they match."""
    taken = await agent.tell_alerts([item.alert() for item in order.alerts], by=by)
    return schemas.AlertsTaken(checks=dict(taken.checks), ignored=taken.ignored)
