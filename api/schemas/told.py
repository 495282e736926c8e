"""What others found, and what became of it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.agent import Alert, Report
from agent.core.model import Instant, Status
from api.schemas.wire import Order, Wire

_Line = Annotated[str, Field(min_length=1, max_length=200)]
_Measurement = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,79}$")]
_Number = Annotated[float, Field(allow_inf_nan=False)]


class ReportOrder(Order):
    """What somebody found of one subject."""

    status: Status = Field(strict=False)
    subject: str = Field(
        default="", max_length=200, description="What it is about; left out: the check itself"
    )
    cause: str = Field(
        default="",
        pattern=r"^([a-z][a-z0-9_-]{0,39})?$",
        description="One of the check's `causes`; left out: `failed`",
    )
    summary: str = Field(default="", max_length=1000, description="One sentence for people")
    measurements: dict[_Measurement, _Number] = Field(
        default={}, max_length=100, description="Numbers behind it; the unit ends the name"
    )
    facts: dict[_Line, Annotated[str, Field(max_length=1000)]] = Field(
        default={}, max_length=20, description="Short facts for people"
    )
    output: str = Field(
        default="",
        max_length=16 * 1024,
        description="The end of what a command printed, for evidence",
    )

    def report(self) -> Report:
        return Report(
            status=self.status,
            subject=self.subject,
            cause=self.cause,
            summary=self.summary,
            measurements=self.measurements,
            facts=self.facts,
            output=self.output,
        )


class Reported(Wire):
    """What became of a report."""

    check: str
    status: Status = Field(description="The worst of the check's findings")


_Labels = Annotated[dict[str, Annotated[str, Field(max_length=2000)]], Field(max_length=100)]


class AlertItem(BaseModel):
    """One alert, as an Alertmanager tells of it; what else it says is passed over."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    status: Literal["firing", "resolved"]
    labels: _Labels
    annotations: _Labels = Field(default={})
    startsAt: str = Field(default="", max_length=64)
    generatorURL: str = Field(default="", max_length=4000)
    fingerprint: str = Field(default="", max_length=200)

    def alert(self) -> Alert:
        return Alert(
            firing=self.status == "firing",
            labels=self.labels,
            annotations=self.annotations,
            since=_read_instant(self.startsAt),
            link=self.generatorURL,
            fingerprint=self.fingerprint,
        )


def _read_instant(text: str) -> Instant | None:
    """None for what is no instant, and for Go's zero time."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.timestamp() if found.tzinfo is not None and found.year > 1970 else None


class AlertsOrder(BaseModel):
    """What an Alertmanager posts to a webhook (version 4 of its data)."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    alerts: list[AlertItem] = Field(max_length=1000)


class AlertsTaken(Wire):
    """What became of alerts."""

    checks: dict[str, int] = Field(description="How many were taken for each check")
    ignored: int = Field(description="Alerts that no check wants")
