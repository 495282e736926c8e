"""The statistics behind a verdict, in plain Python; tests hold each against scipy.

Samples are durations or counts of two sides that were asked in turn, so that what else the machine
did falls on both. Every function is deterministic: resampling is seeded by its caller.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

#: Of the standard normal distribution.
_NORMAL = statistics.NormalDist()
#: The standard error of a median is this many times that of a mean of normal samples: sqrt(pi / 2).
_MEDIAN_LOSS = math.sqrt(math.pi / 2)
#: The standard deviation of normal samples in median absolute deviations.
_MAD_SCALE = 1 / _NORMAL.inv_cdf(0.75)


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """Whether one side's samples tend to be larger."""

    #: One-sided: how likely samples are at least so much larger by chance.
    p: float
    #: How likely a sample of the second side is larger than one of the first, ties halved.
    superiority: float


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with the bounds between which the truth lies, at the confidence asked for."""

    estimate: float
    low: float
    high: float


def rank_sum(first: Sequence[float], second: Sequence[float]) -> Ranked:
    """Mann and Whitney's test of whether the second side tends to be larger.

    With the normal approximation, corrected for ties and continuity. Mann, Whitney: On a test of
    whether one of two random variables is stochastically larger than the other (1947).
    """
    n, m = len(first), len(second)
    if not n or not m:
        return Ranked(p=1.0, superiority=0.5)
    values = sorted([(v, 0) for v in first] + [(v, 1) for v in second])
    ranks, ties, at = 0.0, 0.0, 0
    while at < len(values):
        end = at
        while end < len(values) and values[end][0] == values[at][0]:
            end += 1
        same = end - at
        ties += same**3 - same
        ranks += (at + 1 + end) / 2 * sum(side for _, side in values[at:end])
        at = end
    u = ranks - m * (m + 1) / 2
    whole = n + m
    spread = n * m / 12 * (whole + 1 - ties / (whole * (whole - 1))) if whole > 1 else 0.0
    superiority = u / (n * m)
    if spread <= 0:
        return Ranked(p=1.0, superiority=superiority)
    z = (u - n * m / 2 - 0.5) / math.sqrt(spread)
    return Ranked(p=1 - _NORMAL.cdf(z), superiority=superiority)


def median_ratio(
    first: Sequence[float], second: Sequence[float], *, confidence: float = 0.99
) -> Interval:
    """How many times slower the second of each pair is: the median, from paired logarithms.

    The bounds are order statistics (the sign test inverted), so no distribution is assumed.
    Raises ValueError for pairs that are none, or durations that are not above 0.
    """
    logs = sorted(math.log(b / a) for a, b in zip(first, second, strict=True))
    if not logs:
        raise ValueError("there are no pairs")
    n = len(logs)
    reach = _NORMAL.inv_cdf((1 + confidence) / 2) * math.sqrt(n) / 2
    low = max(0, math.floor(n / 2 - reach))
    high = min(n - 1, math.ceil(n / 2 + reach))
    return Interval(
        estimate=math.exp(statistics.median(logs)),
        low=math.exp(logs[low]),
        high=math.exp(logs[high]),
    )


def smallest_detectable(
    first: Sequence[float],
    second: Sequence[float],
    *,
    alpha: float = 0.01,
    power: float = 0.9,
) -> float:
    """The slowdown that these pairs would show with this power, as a share (0.08: 8 % slower).

    Infinite for fewer than two pairs. From the spread of the paired logarithms, taken robustly.
    """
    logs = [math.log(b / a) for a, b in zip(first, second, strict=True)]
    if len(logs) < 2:
        return math.inf
    middle = statistics.median(logs)
    spread = _MAD_SCALE * statistics.median(abs(each - middle) for each in logs)
    error = _MEDIAN_LOSS * spread / math.sqrt(len(logs))
    reach = _NORMAL.inv_cdf(1 - alpha) + _NORMAL.inv_cdf(power)
    return math.expm1(reach * error)


def fisher(failed: int, of: int, other_failed: int, other_of: int) -> float:
    """Fisher's exact test, one-sided: how likely the first fails at least so often by chance.

    Raises ValueError where more failed than there are.
    """
    if not (0 <= failed <= of and 0 <= other_failed <= other_of):
        raise ValueError("more failed than there are")
    whole, bad = of + other_of, failed + other_failed
    log_all = _log_choose(whole, bad)
    terms = [
        math.exp(_log_choose(of, k) + _log_choose(other_of, bad - k) - log_all)
        for k in range(failed, min(of, bad) + 1)
        if bad - k <= other_of
    ]
    return min(1.0, math.fsum(terms))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the samples do not exceed, linear between neighbours.

    Raises ValueError for no samples. As numpy's default method (Hyndman and Fan's seventh).
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("there are no samples")
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def quantile_ratio(
    first: Sequence[float],
    second: Sequence[float],
    share: float,
    *,
    seed: int,
    confidence: float = 0.98,
    rounds: int = 400,
) -> Interval:
    """How many times larger the second side's quantile is, by a bootstrap of blocks.

    Neighbours in time resemble each other, so whole blocks of pairs are drawn: about the cube root
    of their number each (Künsch: The jackknife and the bootstrap for general stationary
    observations, 1989). Raises ValueError for pairs that are none.
    """
    n = len(first)
    if n != len(second) or n == 0:
        raise ValueError("there are no pairs")
    chance = random.Random(seed)  # noqa: S311 - samples, no secrets
    length = max(1, round(n ** (1 / 3)))
    blocks = math.ceil(n / length)
    ratios = []
    for _ in range(rounds):
        places = [
            place
            for begin in (chance.randrange(n) for _ in range(blocks))
            for place in range(begin, begin + length)
        ][:n]
        low = quantile([first[place % n] for place in places], share)
        high = quantile([second[place % n] for place in places], share)
        ratios.append(high / low)
    rest = (1 - confidence) / 2
    return Interval(
        estimate=quantile(second, share) / quantile(first, share),
        low=quantile(ratios, rest),
        high=quantile(ratios, 1 - rest),
    )


def holm(chances: Sequence[float]) -> list[float]:
    """Holm's adjustment of several p-values, so that asking often does not find by chance.

    Holm: A simple sequentially rejective multiple test procedure (1979).
    """
    order = sorted(range(len(chances)), key=chances.__getitem__)
    adjusted = [0.0] * len(chances)
    least = 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, chances[place] * (len(chances) - rank)))
        adjusted[place] = least
    return adjusted
