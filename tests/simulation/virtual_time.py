"""Time that passes without waiting: the event loop never sleeps, it moves its clock."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from agent.clock import Clock

BOOT = 1_000_000.0


@dataclass
class Time:
    now: float = BOOT


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Never waits: the time that it would wait passes at once. Nothing comes from outside."""

    def __init__(self, time: Time) -> None:
        super().__init__()
        self._time = time

    def select(self, timeout: float | None = None) -> Any:
        if timeout:
            self._time.now += timeout
        return ()


class VirtualClock(Clock):
    def __init__(self, time: Time) -> None:
        self._time = time

    def now(self) -> float:
        return self._time.now

    def wall_ahead(self) -> float:
        return 0.0


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, time: Time) -> None:
        self._virtual = time
        super().__init__(_JumpingSelector(time))

    def time(self) -> float:
        return self._virtual.now

    def _write_to_self(self) -> None:
        """Wakes nothing: everything happens in one thread, and the loop never sleeps."""


def live(time: Time, story: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine to its end on a loop of its own, as fast as it goes."""
    loop = VirtualLoop(time)
    try:
        loop.run_until_complete(story)
    finally:
        loop.close()
