"""Stalls for want of memory, processor or disk as "look now"."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from agent.errors import Unavailable
from agent.host.kernel import find_pressure
from agent.host.machine import Machine
from agent.host.stalls import Stalls
from agent.triggers.bursts import Bursts

_log = logging.getLogger(__name__)


#: What stalls, and how that stands among what cannot be watched.
_NAMES = {what: f"stalls of {what}" for what in ("cpu", "io", "memory")}


class PsiTrigger:
    """Says "look now" for checks when work stalls. It watches `cpu`, `memory` and `io`.

    Where the kernel refuses, that stands among what cannot be watched here, and the timer goes on.
    """

    def __init__(self, machine: Machine, look_now: Callable[[str], None]) -> None:
        self._machine = machine
        self._bursts = Bursts(look_now)
        self._checks: Mapping[str, frozenset[str]] = {}
        self._stalls: dict[str, Stalls] = {}

    async def watch(self, mapping: Mapping[str, frozenset[str]]) -> None:
        """From now on watch these kinds of pressure for these checks: kind -> names of checks."""
        self._checks = dict(mapping)
        for what in [what for what in self._stalls if what not in mapping]:
            self._stalls.pop(what).close()
        missing = self._machine.missing.items()
        self._machine.missing = {name: why for name, why in missing if name not in _NAMES.values()}
        for what in mapping:
            if what not in self._stalls:
                self._open(what)

    def close(self) -> None:
        """Say nothing any more."""
        self._checks = {}
        for stalls in self._stalls.values():
            stalls.close()
        self._stalls.clear()
        self._bursts.close()

    def _open(self, what: str) -> None:
        path = find_pressure(what, container=self._machine.container)
        try:
            self._stalls[what] = Stalls(path, lambda: self._take(what))
        except Unavailable as error:
            why = f"{error}: seen at the next look instead"
            _log.info("%s", why)
            self._machine.missing = {**self._machine.missing, _NAMES[what]: why}

    def _take(self, what: str) -> None:
        for check in sorted(self._checks.get(what, ())):
            self._bursts.signal(check)
