"""How a level moves, and when it will be as high as it can be: memory, and arithmetic on it.

Many levels on a host rise and fall for good reasons. A forecast is therefore given only where the
rise is seen all along a window of time: not for noise, not for a single step (a copied file), and
not for a saw-tooth (logs that are rotated).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from agent.core.model import Instant, Seconds

#: Windows that a rise may show in, and how many samples of one are kept.
WINDOWS: tuple[Seconds, ...] = (1800.0, 4 * 3600.0, 48 * 3600.0)
KEPT = 48
#: A window speaks once it is filled so far.
_FILLED = 0.5
#: Pairs of samples nearer to each other than this share of the time seen say more of noise than of
#: the rise.
_APART = 0.25
#: Of all slopes, the tenth from below must be this share of the middle one: noise and a saw-tooth
#: have many slopes of nothing, or of less.
_STEADY = 0.3
_LOW, _HIGH = 0.1, 0.9
#: From each quarter of the time seen to the next it must have risen by this share of what is usual:
#: a step has quarters of rest before it or after it.
_EVEN = 0.5
#: A fall by this share of the rise seen is none of noise: a log was rotated, a file deleted.
_FALL = 0.5
#: How far, as a share of a fall, a level must be above where that began to be a new one.
_BEYOND = 0.1
#: A forecast reaches no farther than so many times what was seen.
_REACH = 20.0

Sample = tuple[Instant, float]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """When a rising level has no room left, from now."""

    full_in: Seconds
    #: Bounds: if it rises as fast, or as slowly, as it did at times.
    low: Seconds
    high: Seconds
    #: The rise by which this is said, in units of the level per second.
    rate: float
    #: Time over which it was seen.
    seen: Seconds


class Trend:
    """The samples of one level: few of them, and yet two days back."""

    def __init__(self) -> None:
        self._windows = [deque[Sample](maxlen=KEPT + 1) for _ in WINDOWS]
        #: The highest sample of each long stretch of time, with that one's beginning.
        self._peaks = deque[tuple[Instant, Sample]](maxlen=KEPT + 1)
        self._latest: Sample | None = None

    def add(self, at: Instant, level: float) -> None:
        """Remembers a level. An instant before the last one is left out."""
        if self._latest is not None and at <= self._latest[0]:
            return
        self._latest = (at, level)
        for length, window in zip(WINDOWS, self._windows, strict=True):
            if not window or at - window[-1][0] >= length / KEPT:
                window.append((at, level))
        if not self._peaks or at - self._peaks[-1][0] >= WINDOWS[-1] / KEPT:
            self._peaks.append((at, (at, level)))
        elif level > self._peaks[-1][1][1]:
            self._peaks[-1] = (self._peaks[-1][0], (at, level))

    def forecast(self, room: float) -> Forecast | None:
        """When `room`, in units of the level, is used up; None where nothing can be said.

        The longest window that rises speaks: what began to rise lately shows in a shorter one.
        What fell from as high as this within two days may fall again, and nothing is said.
        """
        if self._latest is None:
            return None
        now = self._latest[0]
        for length, window in reversed(list(zip(WINDOWS, self._windows, strict=True))):
            samples = [sample for sample in window if sample[0] >= now - length]
            if not samples or now - samples[0][0] < _FILLED * length:
                continue
            found = forecast(samples, room)
            if found is not None:
                return None if self._fell_before(_FALL * found.rate * found.seen) else found
        return None

    def _fell_before(self, least: float) -> bool:
        """Whether it fell by so much, and is not above yet from where it fell."""
        if self._latest is None:
            return False
        oldest = self._latest[0] - WINDOWS[-1]
        known = {peak for _, peak in self._peaks}
        known.update(sample for window in self._windows for sample in window)
        top = fall = 0.0
        began = True
        for at, level in sorted(known):
            if at < oldest:
                continue
            if began or level > top + _BEYOND * fall:
                top, fall, began = level, 0.0, False
            fall = max(fall, top - level)
        return fall >= least and self._latest[1] <= top + _BEYOND * fall


def forecast(samples: Sequence[Sample], room: float) -> Forecast | None:
    """When `room` is used up if the level goes on as it does, by the Theil-Sen estimator.

    Half of the slopes between two samples are steeper than the rate that is taken, and one in ten
    is beyond each bound. Quadratic in the number of samples. None where the rise is not steady, or
    would fill the room only after much more time than was seen.
    """
    if len(samples) < KEPT // 4 or room < 0:
        return None
    seen = samples[-1][0] - samples[0][0]
    apart = _APART * seen
    slopes = sorted(
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for i, earlier in enumerate(samples)
        for later in samples[i + 1 :]
        if later[0] - earlier[0] >= apart and later[0] > earlier[0]
    )
    if not slopes:
        return None
    slow, rate, fast = (slopes[int(part * (len(slopes) - 1))] for part in (_LOW, 0.5, _HIGH))
    if rate <= 0 or slow < _STEADY * rate or room > _REACH * rate * seen:
        return None
    if not _is_even(samples):
        return None
    return Forecast(full_in=room / rate, low=room / fast, high=room / slow, rate=rate, seen=seen)


def _is_even(samples: Sequence[Sample]) -> bool:
    """Whether it rose from each quarter of the time to the next, and much alike."""
    begin, quarter = samples[0][0], (samples[-1][0] - samples[0][0]) / 4
    parts: list[list[float]] = [[], [], [], []]
    for at, level in samples:
        parts[min(3, int((at - begin) / quarter))].append(level)
    if not all(parts):
        return False
    levels = [median(part) for part in parts]
    rises = [later - earlier for earlier, later in pairwise(levels)]
    return min(rises) >= _EVEN * sum(rises) / len(rises) > 0
