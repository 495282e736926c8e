"""Counters as rates over a stretch of time, and conditions as the time for which they last.

A peak is no problem; what lasts may be one. Both leave out time in which nobody looked: a host that
slept for a night was not short of memory for a night.
"""

from __future__ import annotations

from collections import deque

from agent.core.model import Instant, Seconds

#: Samples kept of one window.
_KEPT = 60
#: A window speaks once so much of it was seen.
_FILLED = 0.9
#: Looks further apart than so many of their intervals, and than `_USUAL`, tell nothing of between.
_INTERVALS = 3.0
_USUAL: Seconds = 60.0


class Window:
    """A counter that only grows, over the last `length` seconds."""

    def __init__(self, length: Seconds) -> None:
        self.length = length
        self._samples = deque[tuple[Instant, float]]()

    def add(self, at: Instant, value: float) -> None:
        """Take a sample. One that is lower than the last begins anew: the counter was reset."""
        samples = self._samples
        if samples and (at <= samples[-1][0] or value < samples[-1][1]):
            samples.clear()
        # The last sample always stands for now; those before it are spread over the window.
        if len(samples) > 1 and samples[-1][0] - samples[-2][0] < self.length / _KEPT:
            samples.pop()
        samples.append((at, value))
        while len(samples) > 2 and samples[1][0] <= at - self.length:
            samples.popleft()

    @property
    def rate(self) -> float | None:
        """The growth per second over the window; None until it was seen nearly as a whole."""
        if not self._samples:
            return None
        (first, low), (last, high) = self._samples[0], self._samples[-1]
        if last - first < _FILLED * self.length:
            return None
        return (high - low) / (last - first)


class Lasting:
    """Since when conditions hold without a break, by their names."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[Instant, Instant]] = {}

    def see(self, name: str, holds: bool, *, now: Instant, wanted: Seconds, every: Seconds) -> bool:
        """Whether it holds now and has for at least `wanted` seconds.

        `every`: how far apart looks usually are. A longer pause begins the count anew.
        """
        if not holds:
            self._held.pop(name, None)
            return False
        since, last = self._held.get(name, (now, now))
        if not 0 <= now - last <= max(_USUAL, _INTERVALS * every):
            since = now
        self._held[name] = (since, now)
        return now - since >= wanted
