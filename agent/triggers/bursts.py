"""Signals that come in bursts, as few calls that lose none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

#: Seconds after a look was asked for in which further signals make one more look together.
BURST = 0.05


class Bursts:
    """Passes on the first signal for a check as it arrives.

    What follows within `BURST` seconds (a stop of a unit is three signals) makes one more call at
    the end of that time: the last state is always looked at.
    """

    def __init__(self, look_now: Callable[[str], None]) -> None:
        self._look_now = look_now
        self._quiet: dict[str, asyncio.TimerHandle] = {}
        self._again: set[str] = set()

    def signal(self, check: str) -> None:
        """Something changed that this check looks at."""
        if check in self._quiet:
            self._again.add(check)
        else:
            self._say(check)

    def close(self) -> None:
        """Say nothing any more."""
        for timer in self._quiet.values():
            timer.cancel()
        self._quiet.clear()
        self._again.clear()

    def _say(self, check: str) -> None:
        self._quiet[check] = asyncio.get_running_loop().call_later(BURST, self._end_burst, check)
        self._look_now(check)

    def _end_burst(self, check: str) -> None:
        del self._quiet[check]
        if check in self._again:
            self._again.discard(check)
            self._say(check)
