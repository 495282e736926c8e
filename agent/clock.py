"""The one place that reads a clock."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path


class Clock:
    """Instants that never step: the wall clock anchored once, then CLOCK_BOOTTIME.

    CLOCK_BOOTTIME (clock_gettime(2)) counts through suspend and is not moved by NTP or `date -s`.
    Seconds since the Unix epoch as they were believed when the clock was made.
    """

    def __init__(self, anchor: float | None = None) -> None:
        """`anchor`: the wall clock at boot, in seconds; by default as it is believed now."""
        if anchor is None:
            anchor = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        self._anchor = anchor

    @classmethod
    def anchored(cls, file: Path) -> Clock:
        """The clock that every agent of this boot shares, through a file that dies with the boot.

        A file of another boot, or one that cannot be read, is replaced; one that cannot be written
        is done without.
        """
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        with contextlib.suppress(OSError, ValueError):
            known, anchor = file.read_text().split()
            if known == boot:
                return cls(float(anchor))
        clock = cls()
        with contextlib.suppress(OSError):
            file.write_text(f"{boot} {clock._anchor!r}\n")
        return clock

    def now(self) -> float:
        """The present instant, in seconds."""
        return self._anchor + time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """What the host believes the time to be: seconds since the epoch. It may step."""
        return time.time()

    def slept(self) -> float:
        """Seconds since boot in which the host was suspended."""
        # CLOCK_MONOTONIC stands still meanwhile (clock_gettime(2)).
        boottime = time.clock_gettime(time.CLOCK_BOOTTIME)
        return boottime - time.clock_gettime(time.CLOCK_MONOTONIC)

    def wall_ahead(self) -> float:
        """Seconds that the wall clock is ahead of instants: it was set since the anchor."""
        return time.time() - self.now()

    def at_boottime(self, seconds: float) -> float:
        """The instant of a CLOCK_BOOTTIME reading in seconds."""
        return self._anchor + seconds

    def at_monotonic(self, seconds: float) -> float:
        """The instant of a CLOCK_MONOTONIC reading in seconds (systemd's *Monotonic properties)."""
        behind = time.clock_gettime(time.CLOCK_MONOTONIC) - seconds
        return self.now() - behind
