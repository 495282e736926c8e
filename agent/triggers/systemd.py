"""systemd's signals as "look now"."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.host.systemd import Systemd
from agent.triggers.bursts import Bursts


class SystemdTrigger:
    """Says "look now" for checks whose unit changed. It watches names of units."""

    def __init__(self, systemd: Systemd, look_now: Callable[[str], None]) -> None:
        self._systemd = systemd
        self._bursts = Bursts(look_now)
        self._checks: Mapping[str, frozenset[str]] = {}

    async def watch(self, mapping: Mapping[str, frozenset[str]]) -> None:
        """From now on watch these units for these checks: unit -> names of checks."""
        self._checks = dict(mapping)
        await self._systemd.watch(self._checks, self._take)

    def close(self) -> None:
        """Say nothing any more."""
        self._checks = {}
        self._bursts.close()

    def _take(self, unit: str) -> None:
        for check in sorted(self._checks.get(unit, ())):
            self._bursts.signal(check)
