"""Watches the agent's own parts, for the check of `type: self`."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable

from agent.clock import Clock
from agent.core.model import Decision, Event, Instant, Notice, NoticeState, Seconds
from agent.engine import Engine
from agent.errors import StoreError
from agent.host.condition import Condition, RouteCondition
from agent.store.state import State
from agent.watcher import Watcher

#: Lateness is that of looks within the last so many seconds.
_LATELY: Seconds = 60.0
#: That a message was given up is remembered for so long.
_EXPIRED_FOR: Seconds = 86_400.0

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Selfwatch:
    """Keeps what the parts of the agent tell, and sums it up when asked."""

    def __init__(
        self,
        *,
        watcher: Watcher,
        engine: Engine,
        routes: Callable[[], Iterable[str]],
        find_troubles: Callable[[], Iterable[str]],
        clock: Clock,
    ) -> None:
        self._watcher = watcher
        self._engine = engine
        self._routes = routes
        self._find_troubles = find_troubles
        self._clock = clock
        self._due: dict[str, Notice] = {}
        self._expired: deque[tuple[Instant, str]] = deque(maxlen=1000)

    async def take_up(self) -> None:
        """Takes up the messages that an earlier agent left. Those that cannot be read are not."""
        try:
            for notice in await self._engine.read(State.due_notices):
                self._due.setdefault(notice.id, notice)
        except StoreError:
            return

    def hear(self, _event: Event, decision: Decision) -> None:
        """New messages."""
        for notice in decision.notices:
            self._due[notice.id] = notice

    def hear_notice(self, notice: Notice) -> None:
        """An attempt at delivery."""
        if notice.state is NoticeState.DUE:
            self._due[notice.id] = notice
            return
        self._due.pop(notice.id, None)
        if notice.state is NoticeState.EXPIRED:
            self._expired.append((self._clock.now(), notice.route))

    def __call__(self) -> Condition:
        """How the agent is now."""
        return Condition(
            late=self._watcher.lateness(_LATELY).longest,
            waiting=self._engine.waiting,
            memory=_read_memory(),
            looks=self._watcher.count,
            broken=self._watcher.broken(),
            unrecorded=tuple(trouble for trouble in self._find_troubles() if trouble),
            routes={name: self._judge(name) for name in self._routes()},
        )

    def _judge(self, route: str) -> RouteCondition:
        now = self._clock.now()
        tried = [
            notice
            for notice in self._due.values()
            if notice.route == route and notice.attempts and notice.error
        ]
        since = now - _EXPIRED_FOR
        return RouteCondition(
            failing=len(tried),
            oldest=max((now - notice.created for notice in tried), default=0.0),
            error=tried[-1].error if tried else "",
            expired=sum(of == route and at > since for at, of in self._expired),
        )


def _read_memory() -> int:
    """Resident memory of this process in bytes (proc_pid_statm(5)); 0 where nobody tells."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - a third of the time
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0
