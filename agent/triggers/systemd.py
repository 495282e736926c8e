"""systemd's signals as "look now"."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from agent.host.systemd import Systemd

#: Seconds after a look was asked for in which further signals make one more look together.
BURST = 0.05


class SystemdTrigger:
    """Says "look now" for checks whose unit changed. It never decides anything.

    The first signal is passed on as it arrives; what follows within `BURST` seconds (a stop is
    three signals) makes one more call at the end of that time: the last state is always looked at.
    """

    def __init__(self, systemd: Systemd, look_now: Callable[[str], None]) -> None:
        self._systemd = systemd
        self._look_now = look_now
        self._checks: Mapping[str, frozenset[str]] = {}
        self._quiet: dict[str, asyncio.TimerHandle] = {}
        self._again: set[str] = set()

    async def watch(self, mapping: Mapping[str, frozenset[str]]) -> None:
        """From now on watch these units for these checks: unit -> names of checks."""
        self._checks = dict(mapping)
        await self._systemd.watch(self._checks, self._take)

    def close(self) -> None:
        """Say nothing any more."""
        self._checks = {}
        for timer in self._quiet.values():
            timer.cancel()
        self._quiet.clear()
        self._again.clear()

    def _take(self, unit: str) -> None:
        for check in sorted(self._checks.get(unit, ())):
            if check in self._quiet:
                self._again.add(check)
            else:
                self._say(check)

    def _say(self, check: str) -> None:
        self._quiet[check] = asyncio.get_running_loop().call_later(BURST, self._end_burst, check)
        self._look_now(check)

    def _end_burst(self, check: str) -> None:
        del self._quiet[check]
        if check in self._again:
            self._again.discard(check)
            self._say(check)
