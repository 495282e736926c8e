"""How the agent and this host are, and the orders that stop and start all runs."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from agent import agent as facade
from agent.core import model
from agent.core.model import Status
from api.schemas.incidents import Held, Incident
from api.schemas.remedies import Secrets
from api.schemas.runs import Run
from api.schemas.silences import Silence
from api.schemas.wire import LONGEST_ORDER, Order, When, Wire, write_instant, write_when


class Pause(Wire):
    """Runs are stopped; looking and telling go on."""

    by: str
    since: When
    until: When | None = Field(description="null: until somebody resumes")
    why: str

    @classmethod
    def of(cls, pause: model.Pause) -> Self:
        return cls.make(
            by=pause.by,
            since=write_instant(pause.since),
            until=write_when(pause.until),
            why=pause.why,
        )


class Storm(Wire):
    """Many failures at once, treated as one cause."""

    since: When

    @classmethod
    def of(cls, storm: model.Storm) -> Self:
        return cls.make(since=write_instant(storm.since))


class Lateness(Wire):
    """How late the last looks by the timer began."""

    count: int = Field(description="Looks that this is of")
    median_seconds: float
    p99_seconds: float = Field(description="99 of 100 were not later")
    longest_seconds: float

    @classmethod
    def of(cls, late: facade.Lateness) -> Self:
        return cls.make(
            count=late.count,
            median_seconds=late.median,
            p99_seconds=late.p99,
            longest_seconds=late.longest,
        )


class AgentStatus(Wire):
    """How the agent and this host are."""

    version: str
    host: str
    started: When
    now: When
    worst: Status = Field(description="The worst status of any check")
    checks_count: dict[str, int] = Field(description="Checks by status")
    incidents: list[Incident]
    holds: dict[str, Held] = Field(description="Why an incident, by its id, has no run now")
    runs_alive: list[Run]
    notices_due: int
    lateness: Lateness
    paused: Pause | None
    storm: Storm | None
    silences: list[Silence]
    missing: dict[str, str] = Field(
        description="What is not to be had here, so that less is watched or repaired, and why"
    )
    problems: list[str] = Field(description="What is wrong with the agent itself")
    config_path: str
    config_loaded: When

    @classmethod
    def of(cls, status: facade.AgentStatus, secrets: Secrets) -> Self:
        return cls.make(
            version=status.version,
            host=status.host,
            started=write_instant(status.started),
            now=write_instant(status.now),
            worst=status.worst,
            checks_count=status.checks_count,
            incidents=[Incident.of(incident) for incident in status.incidents],
            holds={incident: Held.of(held) for incident, held in status.holds.items()},
            runs_alive=[Run.of(run, secrets) for run in status.runs_alive],
            notices_due=status.notices_due,
            lateness=Lateness.of(status.lateness),
            paused=None if status.paused is None else Pause.of(status.paused),
            storm=None if status.storm is None else Storm.of(status.storm),
            silences=[Silence.of(silence) for silence in status.silences],
            missing=status.missing,
            problems=status.problems,
            config_path=status.config_path,
            config_loaded=write_instant(status.config_loaded),
        )


class PauseOrder(Order):
    """Stop all runs."""

    for_seconds: float | None = Field(
        default=None,
        gt=0,
        le=LONGEST_ORDER,
        allow_inf_nan=False,
        description="Resume by itself after this; left out: until somebody resumes",
    )
    why: str = Field(default="", max_length=500)


class ConfirmOrder(Order):
    """The state is this host's own."""

    keep_tokens: bool = Field(
        default=False, description="Of a copy: the tokens of the original let people in here too"
    )
