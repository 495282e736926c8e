"""Messages, and whether a route would carry one."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from agent import agent as facade
from agent.core import model
from agent.core.model import NoticeState, Reason
from api.schemas.wire import Names, Order, When, Wire, write_instant, write_when


class Notice(Wire):
    """One message to one route."""

    id: str
    route: str
    reason: Reason
    state: NoticeState
    incident: str | None
    check: str
    subject: str
    details: dict[str, str]
    created: When
    expires: When
    attempts: int
    due: When | None = Field(description="When the next attempt may be made")
    delivered: When | None
    error: str = Field(description="What the last attempt said")

    @classmethod
    def of(cls, notice: model.Notice) -> Self:
        return cls.make(
            id=notice.id,
            route=notice.route,
            reason=notice.reason,
            state=notice.state,
            incident=notice.incident.id if notice.incident else None,
            check=notice.incident.check if notice.incident else "",
            subject=notice.incident.subject if notice.incident else "",
            details=notice.details,
            created=write_instant(notice.created),
            expires=write_instant(notice.expires),
            attempts=notice.attempts,
            due=write_instant(notice.due) if notice.state is NoticeState.DUE else None,
            delivered=write_when(notice.delivered),
            error=notice.error,
        )


class RouteTest(Wire):
    """What became of a message that was sent to try a route."""

    route: str
    services: list[str] = Field(
        description="By scheme, host and tag: all else of their URLs may be secret"
    )
    ok: bool = Field(description="At least one of the services took it")
    error: str = Field(description="Why none did, or which of them did not")
    took_seconds: float

    @classmethod
    def of(cls, test: facade.RouteTest) -> Self:
        return cls.make(
            route=test.route,
            services=list(test.services),
            ok=test.ok,
            error=test.error,
            took_seconds=test.took,
        )


class RouteTests(Wire):
    """One for each route that was tried."""

    items: list[RouteTest]


class RouteTestOrder(Order):
    """Try routes."""

    routes: Names = Field(default=[], description="Their names; left out: all of them")
