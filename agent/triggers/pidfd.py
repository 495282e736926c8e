"""Ends of processes as "look now"."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.host.deaths import Deaths
from agent.triggers.bursts import Bursts


class PidfdTrigger:
    """Says "look now" for checks of which a process ended.

    It watches names under which looks follow the processes that they found (`Machine.deaths`).
    """

    def __init__(self, deaths: Deaths, look_now: Callable[[str], None]) -> None:
        self._deaths = deaths
        self._bursts = Bursts(look_now)
        self._checks: Mapping[str, frozenset[str]] = {}

    async def watch(self, mapping: Mapping[str, frozenset[str]]) -> None:
        """From now on watch these names for these checks: name -> names of checks."""
        self._checks = dict(mapping)
        self._deaths.watch(self._checks, self._take)

    def close(self) -> None:
        """Say nothing any more."""
        self._checks = {}
        self._deaths.close()
        self._bursts.close()

    def _take(self, name: str) -> None:
        for check in sorted(self._checks.get(name, ())):
            self._bursts.signal(check)
