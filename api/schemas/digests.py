"""What happened over some days, for people who were not called."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from agent import agent as facade
from api.schemas.incidents import Incident
from api.schemas.wire import When, Wire, write_instant, write_when


class Times(Wire):
    """How long something took."""

    count: int
    median_seconds: float
    worst_seconds: float

    @classmethod
    def of(cls, times: facade.Times | None) -> Self | None:
        if times is None:
            return None
        return cls.make(count=times.count, median_seconds=times.median, worst_seconds=times.worst)


class SilentRestarts(Wire):
    """A unit that systemd restarted by itself."""

    check: str
    unit: str
    count: int


class Forecast(Wire):
    """Something that will be full."""

    check: str
    subject: str
    full_in_seconds: float
    full_in_low_seconds: float
    full_in_high_seconds: float


class Recurring(Wire):
    """A problem that was repaired more than once."""

    check: str
    subject: str
    count: int


class Availability(Wire):
    """How long what a check looks at was not critical."""

    check: str
    downtime_seconds: float
    percent: float


class Digest(Wire):
    """What happened over some days, for people who were not called."""

    host: str
    since: When
    until: When
    started: When | None = Field(description="When the agent began, where that is later")
    checks_count: int
    incidents_count: int
    needed: list[Incident] = Field(description="A human is needed for them now")
    waiting: list[Incident] = Field(description="They wait for somebody's word now")
    healed_quietly: list[Incident] = Field(description="Repaired, and nobody was called")
    healed_count: int = Field(description="Repaired, and people were called meanwhile")
    ended_count: int = Field(description="Ended without a repair")
    shadowed_count: int = Field(description="Would have been repaired, were it not for shadow")
    restarts: list[SilentRestarts]
    forecasts: list[Forecast]
    recurring: list[Recurring]
    detected: Times | None = Field(
        description="From the beginning of a failure, where it is known, to the look that saw it"
    )
    repaired: Times | None = Field(description="From the confirmation to the proof of a repair")
    availability: list[Availability] = Field(description="Checks that were critical at all")
    headline: str
    text: str

    @classmethod
    def of(cls, digest: facade.Digest) -> Self:
        return cls.make(
            host=digest.host,
            since=write_instant(digest.since),
            until=write_instant(digest.until),
            started=write_when(digest.started),
            checks_count=digest.checks_count,
            incidents_count=digest.incidents_count,
            needed=[Incident.of(incident) for incident in digest.needed],
            waiting=[Incident.of(incident) for incident in digest.waiting],
            healed_quietly=[Incident.of(incident) for incident in digest.healed_quietly],
            healed_count=digest.healed_count,
            ended_count=digest.ended_count,
            shadowed_count=digest.shadowed_count,
            restarts=[
                SilentRestarts.make(check=r.check, unit=r.unit, count=r.count)
                for r in digest.restarts
            ],
            forecasts=[
                Forecast.make(
                    check=f.check,
                    subject=f.subject,
                    full_in_seconds=f.full_in,
                    full_in_low_seconds=f.low,
                    full_in_high_seconds=f.high,
                )
                for f in digest.forecasts
            ],
            recurring=[
                Recurring.make(check=r.check, subject=r.subject, count=r.count)
                for r in digest.recurring
            ],
            detected=Times.of(digest.detected),
            repaired=Times.of(digest.repaired),
            availability=[
                Availability.make(check=a.check, downtime_seconds=a.downtime, percent=a.percent)
                for a in digest.availability
            ],
            headline=facade.write_headline(digest),
            text=facade.write_digest(digest),
        )
