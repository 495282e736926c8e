"""How fast one host is asked: so many requests a second, and slower where it asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.core.model import Seconds

#: Requests a second from which an unlimited audit slows down when a host wants it to.
_FASTEST = 20.0
_SLOWEST = 0.2


class Pace:
    """Spreads requests to one host evenly. `clock` gives seconds that never go back."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        #: Requests a second; 0: no limit.
        self.rate = rate
        self._clock = clock
        #: When the next turn is, and until when the host wants to be left alone.
        self._next = 0.0
        self._closed = 0.0

    async def wait(self) -> None:
        """Until the next request may be sent. Each caller has a turn of its own."""
        while True:
            now = self._clock()
            turn = max(now, self._closed)
            if self.rate > 0:
                turn = max(turn, self._next)
                self._next = turn + 1.0 / self.rate
            if turn > now:
                await asyncio.sleep(turn - now)
            if self._clock() >= self._closed:
                return

    def slow_down(self, pause: Seconds) -> None:
        """The host is asked too much: nothing for so long, then half as fast."""
        self._closed = max(self._closed, self._clock() + pause)
        self.rate = max(_SLOWEST, min(self.rate or _FASTEST, _FASTEST) / 2)

    def limit(self, rate: float) -> None:
        """Not faster than this; an audit without a limit was told so."""
        if self.rate > 0:
            self.rate = min(self.rate, rate)
