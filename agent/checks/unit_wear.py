"""What a unit that is up may suffer from all the same: part of `type: service`.

systemd restarts without a word what has `Restart=`, and kills at a limit. Both are told here before
they become an outage. They are warnings unless the configuration says otherwise.
"""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import dataclass, field, replace

from pydantic import BaseModel, ConfigDict, Field

from agent.checks.values import Count, Percent, Rate
from agent.core.model import Finding, Instant, Seconds, Status
from agent.core.units import format_duration, format_size
from agent.host.kernel import count_group_kills, read_reclaimable
from agent.host.memory import Memory
from agent.host.units import UnitState

#: That a process of a unit was killed for want of memory is shown for so long.
KILLS_FOR: Seconds = 1800.0
#: Restarts that are remembered of one unit: at most so many, for so long.
_MOST_RESTARTS = 1000
RESTARTS_FOR: Seconds = 32 * 86400.0
_RESTARTED = "restarted"
#: The measurement of processes that were killed for want of memory.
KILLS = "oom_kills_count"


class Limits(BaseModel):
    """When a unit that is up is not well."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    restarts: Count | None = Field(
        default=None, description="systemd restarted it so often by itself: `3 in 10m`."
    )
    memory: Percent | None = Field(
        default=None, description="It holds so much of its `MemoryMax=`, files it reads left out."
    )
    tasks: Percent | None = Field(
        default=None, description="It has so many of its `TasksMax=` processes and threads."
    )


#: Limits of those who write none.
WARNING = Limits.model_construct(restarts=Rate(3, 600.0), memory=90.0, tasks=90.0)


@functools.cache
def _fill_warning(written: Limits) -> Limits:
    """The limits of `warning` in effect: each has its own default."""
    return Limits.model_construct(
        restarts=written.restarts or WARNING.restarts,
        memory=written.memory if written.memory is not None else WARNING.memory,
        tasks=written.tasks if written.tasks is not None else WARNING.tasks,
    )


@dataclass(kw_only=True)
class History:
    """What earlier looks at one unit saw."""

    #: The counts of the last look; None before the first.
    restarts: int | None = None
    kills: int | None = None
    #: When systemd was seen to have restarted it, oldest first.
    restarted: deque[Instant] = field(default_factory=lambda: deque(maxlen=_MOST_RESTARTS))
    killed_at: Instant | None = None

    def see(self, state: UnitState, kills: int | None, now: Instant) -> bool:
        """Takes one look, and says whether it was restarted.

        What was before the first one is not known, and counts for nothing.
        """
        count = state.n_restarts
        restarted = self.restarts is not None and count > self.restarts
        if self.restarts is not None and count > self.restarts:
            # A start by a job begins to count anew, so this may be fewer than there were.
            more = min(count - self.restarts, _MOST_RESTARTS)
            self.restarted.extend([now] * more)
        self.restarts = count
        if self.kills is not None and kills is not None and kills > self.kills:
            self.killed_at = now
        self.kills = kills
        return restarted

    @classmethod
    def recall(cls, memory: Memory) -> History:
        """As looks of an earlier agent left it: restarts are all that they remembered."""
        return cls(restarted=deque(read_restarts(memory), maxlen=_MOST_RESTARTS))

    def remember(self, memory: Memory, now: Instant) -> None:
        """Makes the restarts outlive the agent."""
        memory.put(_RESTARTED, [at for at in self.restarted if now - RESTARTS_FOR < at])

    def count(self, seconds: Seconds, now: Instant, repaired: Instant | None) -> int:
        """Restarts within the last so many seconds; those before a repair say nothing of now."""
        since = now - seconds if repaired is None else max(now - seconds, repaired)
        return sum(since < at <= now for at in self.restarted)


def see_wear(
    finding: Finding,
    state: UnitState,
    warning: Limits,
    critical: Limits,
    memory: Memory,
    now: Instant,
    *,
    repaired: Instant | None = None,
) -> Finding:
    """The finding with what wears the unit; one that fails for a worse reason stays as it is.

    `repaired`: when the last run for it ended.
    """
    history = _open_history(memory)
    kills = count_group_kills(state.control_group) if state.control_group else None
    if history.see(state, kills, now):
        history.remember(memory, now)
    if kills is not None:
        measured = {**finding.measurements, KILLS: float(kills)}
        finding = replace(finding, measurements=measured)
    up = finding.status is Status.OK and not state.is_down
    if not up and finding.cause != "restarting":
        return finding
    for level, limits in ((Status.CRITICAL, critical), (Status.WARNING, _fill_warning(warning))):
        if found := _find_wear(state, limits, history, now, repaired, up=up):
            cause, what = found
            return replace(
                finding, status=level, cause=cause, summary=f"{state.name} {what}", since=None
            )
    if up and history.killed_at is not None and now < history.killed_at + KILLS_FOR:
        what = f"{state.name} is up, but the kernel killed a process of it for want of memory"
        return replace(finding, status=Status.WARNING, cause="oom-killed", summary=what, since=None)
    return finding


def is_worn(memory: Memory) -> bool:
    """Whether earlier looks saw a restart or a kill, which a limit may count with time."""
    history = _open_history(memory)
    return bool(history.restarted) or history.killed_at is not None


def _open_history(memory: Memory) -> History:
    history: History | None = memory.notes.get("service.history")
    if history is None:
        history = memory.notes["service.history"] = History.recall(memory)
    return history


def _find_wear(
    state: UnitState,
    limits: Limits,
    history: History,
    now: Instant,
    repaired: Instant | None,
    *,
    up: bool,
) -> tuple[str, str] | None:
    """The first limit that is passed, and what to say of it."""
    if limits.restarts is not None:
        times, within = limits.restarts
        count = history.count(within, now, repaired)
        if count >= max(1, times):
            span = format_duration(within)
            return "restarting-often", f"was restarted {count} times by systemd within {span}"
    if not up:
        return None
    if limits.memory is not None and state.memory_current and state.memory_max:
        used = _measure_memory(state, limits.memory)
        if used is not None and used >= limits.memory / 100 * state.memory_max:
            most = format_size(state.memory_max)
            return "memory", f"holds {format_size(used)} of memory, and may have {most}"
    tasks, most_tasks = state.tasks_current, state.tasks_max
    if limits.tasks is None or tasks is None or not most_tasks:
        return None
    if tasks >= limits.tasks / 100 * most_tasks:
        return "tasks", f"has {tasks} processes and threads, and may have {most_tasks}"
    return None


def _measure_memory(state: UnitState, limit: float) -> int | None:
    """What it holds without the files that it reads; None where that is far away, or unknown."""
    current, most = state.memory_current or 0, state.memory_max or 0
    if current < limit / 100 * most:
        return None
    files = read_reclaimable(state.control_group) if state.control_group else None
    return None if files is None else max(0, current - files)


def read_restarts(memory: Memory) -> tuple[Instant, ...]:
    """When systemd restarted the unit by itself, as far as looks saw it, oldest first."""
    return tuple(float(at) for at in memory.get(_RESTARTED) or ())
