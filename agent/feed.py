"""What happens, for those who watch: remembered a while in memory, never durable."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.core.model import Instant

#: Events that a watcher who was away can still be given.
REMEMBERED = 1000


@dataclass(frozen=True, kw_only=True)
class LiveEvent:
    """Something that happened."""

    #: Counted from 1 since the agent started.
    id: int
    at: Instant
    #: look | incident | run | task | notice | agent
    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)


class Feed:
    """A short memory of events, and everybody who waits for the next one."""

    def __init__(self) -> None:
        self._events: deque[LiveEvent] = deque(maxlen=REMEMBERED)
        self._last = 0
        self._news = asyncio.Event()

    def put(self, at: Instant, kind: str, data: Mapping[str, Any]) -> None:
        self._last += 1
        self._events.append(LiveEvent(id=self._last, at=at, kind=kind, data=data))
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def follow(self, after: int | None = None) -> AsyncIterator[LiveEvent]:
        """Events from now on, or those after `after` that are still remembered, then the rest.

        An `after` from an agent that was started earlier means everything that is remembered.
        """
        seen = self._last if after is None else after
        if seen > self._last:
            seen = 0
        while True:
            news = self._news
            for event in [event for event in self._events if event.id > seen]:
                seen = event.id
                yield event
            if seen == self._last:
                await news.wait()
