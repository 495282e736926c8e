"""What others found, told to the checks that nobody else looks for."""

from __future__ import annotations

from api.routes.parts import Agent, By
from api.schemas.told import AlertsOrder, AlertsTaken, Reported, ReportOrder


async def report(agent: Agent, by: By, name: str, order: ReportOrder) -> Reported:
    """Report what you found on a check of type `push`; the answer says how it stands."""
    check = await agent.tell(name, order.report(), by=by)
    return Reported.make(check=check.name, status=check.status)


async def report_alerts(agent: Agent, by: By, order: AlertsOrder) -> AlertsTaken:
    """Take an Alertmanager's alerts, for the checks whose `alerts` they match."""
    taken = await agent.tell_alerts([item.alert() for item in order.alerts], by=by)
    return AlertsTaken(checks=dict(taken.checks), ignored=taken.ignored)
