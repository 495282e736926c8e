"""`type: self`: the agent itself does what it is there for.

A watcher that is late, forgets or cannot tell anybody is worse than none. This check is always on.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.checks.check import CheckOptions, CheckType
from agent.checks.values import Duration, Size
from agent.core.model import CheckPolicy, Evidence, Finding, Instant, Status
from agent.core.units import format_duration, format_size
from agent.host.condition import Condition, RouteCondition
from agent.host.machine import Machine
from agent.host.rates import Lasting

CAUSES = {
    "late": "Looks begin too late: this host, or the agent, has too much to do.",
    "backlog": "What happens waits to be recorded.",
    "memory": "The agent holds too much memory.",
    "blind": "Looks of several checks break.",
    "unrecorded": "What happens cannot be recorded where it should be.",
    "undelivered": "Messages of a route are not delivered.",
    "lost": "Messages of a route were given up.",
}

MEASUREMENTS = {
    "late_seconds": "How late the latest look by the timer within a minute began.",
    "waiting_count": "Events that wait to be recorded.",
    "memory_bytes": "Resident memory of the agent's process, without its children.",
    "looks_count": "Looks made since its start.",
    "broken_count": "Checks whose last look broke.",
    "undelivered_count": "Messages of a route that were tried and are not delivered.",
    "undelivered_seconds": "For how long the oldest of them waits.",
    "lost_count": "Messages of a route that were given up within a day.",
}

AGENT, STATE = "agent", "state"

#: So many checks that break at once are the agent's own trouble.
_BLIND = 3


class Limits(BaseModel):
    """When the agent does not do what it should."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    late: Duration | None = Field(
        default=None, description="Looks begin so late, for as long as `lasting` says."
    )
    waiting: int | None = Field(
        default=None, ge=1, description="So many events wait to be recorded, for `lasting`."
    )
    memory: Size | None = Field(default=None, description="The agent's process holds so much.")


class SelfOptions(CheckOptions):
    """The agent itself."""

    type: Literal["self"]
    warning: Limits = Field(default_factory=Limits, description="Limits of `warning`.")
    critical: Limits = Field(default_factory=Limits, description="Limits of `critical`.")
    lasting: Duration = Field(
        default=120.0, description="`late` and `waiting` must be passed for so long."
    )
    undelivered_for: Duration = Field(
        default=900.0, description="A message may be undelivered for so long."
    )


_WARNING = Limits.model_construct(late=5.0, waiting=500, memory=400 * 2**20)


async def look(options: SelfOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding on the agent, one on its state, and one on each route."""
    if machine.condition is None:
        summary = "no agent is at work in this look: it is the running agent that looks at itself"
        return (Finding(subject=AGENT, status=Status.OK, summary=summary),)
    lasting: Lasting = machine.memory.notes.setdefault("self.lasting", Lasting())
    return judge(options, machine.condition(), lasting, machine.clock.now())


def judge(
    options: SelfOptions, condition: Condition, lasting: Lasting, now: Instant
) -> tuple[Finding, ...]:
    """The findings on one condition. `lasting`: since when each limit is passed."""
    return (
        _judge_agent(options, condition, lasting, now),
        _judge_state(condition),
        *(_judge_route(options, name, route) for name, route in condition.routes.items()),
    )


def _judge_agent(
    options: SelfOptions, condition: Condition, lasting: Lasting, now: Instant
) -> Finding:
    status, cause = Status.OK, ""
    summary = f"{condition.looks} looks since the start, {format_size(condition.memory)} of memory"
    for level, limits in (
        (Status.WARNING, _fill(options.warning)),
        (Status.CRITICAL, options.critical),
    ):
        for each, (passed, words) in _find_passed(limits, condition).items():
            wanted = 0.0 if each == "memory" else options.lasting
            every = options.every or CheckPolicy.every
            name = f"{level}:{each}"
            if lasting.see(name, passed, now=now, wanted=wanted, every=every):
                status, cause, summary = level, each, words
    if status is Status.OK and len(condition.broken) >= _BLIND:
        name, why = next(iter(condition.broken.items()))
        status, cause = Status.WARNING, "blind"
        summary = f"looks of {len(condition.broken)} checks break; {name}: {why}"
    return Finding(
        subject=AGENT,
        status=status,
        cause=cause,
        summary=summary,
        measurements={
            "late_seconds": round(condition.late, 3),
            "waiting_count": float(condition.waiting),
            "memory_bytes": float(condition.memory),
            "looks_count": float(condition.looks),
            "broken_count": float(len(condition.broken)),
        },
    )


def _fill(written: Limits) -> Limits:
    """The limits of `warning` in effect: each has its own default."""
    return Limits.model_construct(
        late=written.late if written.late is not None else _WARNING.late,
        waiting=written.waiting if written.waiting is not None else _WARNING.waiting,
        memory=written.memory if written.memory is not None else _WARNING.memory,
    )


def _find_passed(limits: Limits, condition: Condition) -> dict[str, tuple[bool, str]]:
    """Each cause: whether its limit is passed, and what to say then. The worst is last."""
    return {
        "memory": (
            limits.memory is not None and condition.memory > limits.memory,
            f"the agent holds {format_size(condition.memory)} of memory",
        ),
        "late": (
            limits.late is not None and condition.late > limits.late,
            f"looks begin {format_duration(condition.late)} late",
        ),
        "backlog": (
            limits.waiting is not None and condition.waiting >= limits.waiting,
            f"{condition.waiting} events wait to be recorded",
        ),
    }


def _judge_state(condition: Condition) -> Finding:
    if condition.unrecorded:
        return Finding(
            subject=STATE,
            status=Status.WARNING,
            cause="unrecorded",
            summary="; ".join(condition.unrecorded),
        )
    return Finding(subject=STATE, status=Status.OK, summary="what happens is recorded")


def _judge_route(options: SelfOptions, name: str, route: RouteCondition) -> Finding:
    status, cause, summary = Status.OK, "", f"route {name} has nothing that it cannot deliver"
    if route.failing:
        waits = format_duration(route.oldest)
        many = "a message" if route.failing == 1 else f"{route.failing} messages"
        summary = f"route {name} has not delivered {many} for {waits}: {route.error}"
        if route.oldest >= options.undelivered_for:
            status, cause = Status.CRITICAL, "undelivered"
    elif route.expired:
        status, cause = Status.WARNING, "lost"
        summary = f"route {name} has given up {route.expired} messages within a day"
    return Finding(
        subject=f"route {name}",
        status=status,
        cause=cause,
        summary=summary,
        measurements={
            "undelivered_count": float(route.failing),
            "undelivered_seconds": round(route.oldest, 1),
            "lost_count": float(route.expired),
        },
    )


async def gather(_options: SelfOptions, finding: Finding, machine: Machine) -> tuple[Evidence, ...]:
    """Which looks break."""
    if machine.condition is None or finding.subject != AGENT:
        return ()
    broken = machine.condition().broken
    if not broken:
        return ()
    lines = [f"{name}: {why}" for name, why in broken.items()]
    return (Evidence(title="Looks that break", text="\n".join(lines)),)


SELF = CheckType(
    name="self",
    summary="The agent itself is in time, records what happens and can tell people.",
    model=SelfOptions,
    look=look,
    identity=(),
    causes=CAUSES,
    measurements=MEASUREMENTS,
    gather=gather,
    defaults={"every": "10s", "timeout": "5s"},
)
