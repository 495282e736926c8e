"""The one place that reads a clock."""

from __future__ import annotations

import time


class Clock:
    """Instants that never step: the wall clock anchored once, then CLOCK_BOOTTIME.

    CLOCK_BOOTTIME (clock_gettime(2)) counts through suspend and is not moved by NTP or `date -s`.
    Seconds since the Unix epoch as they were believed when the clock was made.
    """

    def __init__(self) -> None:
        self._anchor = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    def now(self) -> float:
        """The present instant, in seconds."""
        return self._anchor + time.clock_gettime(time.CLOCK_BOOTTIME)

    def at_boottime(self, seconds: float) -> float:
        """The instant of a CLOCK_BOOTTIME reading in seconds."""
        return self._anchor + seconds

    def at_monotonic(self, seconds: float) -> float:
        """The instant of a CLOCK_MONOTONIC reading in seconds (systemd's *Monotonic properties)."""
        behind = time.clock_gettime(time.CLOCK_MONOTONIC) - seconds
        return self.now() - behind
