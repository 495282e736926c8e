"""How the agent itself is, as a value that its own check can be handed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.core.model import Seconds


@dataclass(frozen=True, kw_only=True)
class RouteCondition:
    """How messages of one route fare."""

    #: Messages that were tried and are not delivered.
    failing: int = 0
    #: For how long the oldest of them waits.
    oldest: Seconds = 0.0
    #: What the last attempt said.
    error: str = ""
    #: Messages given up within the last day.
    expired: int = 0


@dataclass(frozen=True, kw_only=True)
class Condition:
    """How the agent is at one time."""

    #: How late the latest look by the timer within the last minute began.
    late: Seconds = 0.0
    #: Events that wait for the state to be written.
    waiting: int = 0
    #: Resident memory of the agent's process, in bytes.
    memory: int = 0
    #: Looks made since the start.
    looks: int = 0
    #: Checks whose last look broke, and what it said.
    broken: Mapping[str, str] = field(default_factory=dict)
    #: Why what happens cannot be recorded where it should be.
    unrecorded: tuple[str, ...] = ()
    #: By name; those that nothing was to be said on are there too.
    routes: Mapping[str, RouteCondition] = field(default_factory=dict)
