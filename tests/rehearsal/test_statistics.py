"""The statistics, held against scipy and against what is known of them."""

from __future__ import annotations

import math
import random

import numpy
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from agent.rehearsal.statistics import (
    fisher,
    holm,
    median_ratio,
    quantile,
    quantile_ratio,
    rank_sum,
    smallest_detectable,
)

#: Few values, so that there are ties.
SAMPLES = st.lists(st.integers(1, 30).map(float), min_size=2, max_size=60)
COUNTS = st.integers(0, 400)


@given(SAMPLES, SAMPLES)
def test_the_rank_sum_is_that_of_scipy(first: list[float], second: list[float]) -> None:
    ours = rank_sum(first, second)
    if len({*first, *second}) == 1:
        assert ours.p == 1.0
        return
    theirs = scipy.stats.mannwhitneyu(second, first, alternative="greater", method="asymptotic")
    assert ours.p == pytest.approx(theirs.pvalue, abs=1e-9)
    assert ours.superiority == pytest.approx(theirs.statistic / (len(first) * len(second)))


def test_nothing_is_concluded_from_nothing() -> None:
    assert rank_sum([], [1.0]).p == 1.0
    assert rank_sum([1.0], [1.0]).p == 1.0
    assert smallest_detectable([1.0], [1.0]) == math.inf
    for ask in (lambda: median_ratio([], []), lambda: quantile([], 0.5)):
        with pytest.raises(ValueError, match="there are no"):
            ask()
    with pytest.raises(ValueError, match="there are no pairs"):
        quantile_ratio([], [], 0.95, seed=1)


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_fisher_is_that_of_scipy(failed: int, passed: int, failed2: int, passed2: int) -> None:
    theirs = scipy.stats.fisher_exact([[failed, passed], [failed2, passed2]], alternative="greater")
    ours = fisher(failed, failed + passed, failed2, failed2 + passed2)
    assert ours == pytest.approx(theirs.pvalue, abs=1e-8)


def test_more_failures_than_tries_are_refused() -> None:
    with pytest.raises(ValueError, match="more failed"):
        fisher(3, 2, 0, 5)


@given(SAMPLES, st.floats(0, 1))
def test_a_quantile_is_that_of_numpy(values: list[float], share: float) -> None:
    assert quantile(values, share) == pytest.approx(numpy.quantile(values, share))


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_that_of_scipy(chances: list[float]) -> None:
    # scipy has Benjamini and Hochberg's only; Holm's is written out here as it is defined.
    expected = []
    for each in chances:
        smaller = sorted(chances)
        steps = [min(1.0, p * (len(chances) - k)) for k, p in enumerate(smaller) if p <= each]
        expected.append(max(steps))
    assert holm(chances) == pytest.approx(expected)


def draw(count: int, seed: int, slower: float = 1.0) -> tuple[list[float], list[float]]:
    """Durations of both sides, with noise that both share."""
    chance = random.Random(seed)
    shared = [chance.lognormvariate(-4.0, 0.3) for _ in range(count)]
    first = [each * chance.lognormvariate(0, 0.2) for each in shared]
    second = [each * slower * chance.lognormvariate(0, 0.2) for each in shared]
    return first, second


def test_the_interval_of_the_median_ratio_holds_the_truth_as_often_as_it_says() -> None:
    inside = 0
    for seed in range(300):
        found = median_ratio(*draw(200, seed, 1.2), confidence=0.95)
        assert found.low <= found.estimate <= found.high
        inside += found.low <= 1.2 <= found.high
    assert 0.91 * 300 <= inside <= 300


def test_what_is_called_detectable_is_detected_that_often() -> None:
    least = smallest_detectable(*draw(400, 1))
    assert 0.02 < least < 0.2
    found = sum(
        median_ratio(*draw(400, seed, 1 + least), confidence=0.98).low > 1 for seed in range(200)
    )
    assert 0.8 * 200 <= found <= 0.98 * 200


def test_tails_are_compared_with_neighbours_kept_together() -> None:
    first, second = draw(1000, 3, 1.5)
    found = quantile_ratio(first, second, 0.95, seed=7)
    assert found == quantile_ratio(first, second, 0.95, seed=7)
    assert 1.2 < found.low < found.estimate < found.high < 1.9
    same = quantile_ratio(*draw(1000, 4), 0.95, seed=7)
    assert same.low < 1 < same.high


def test_bad_pairs_are_refused() -> None:
    with pytest.raises(ValueError):
        median_ratio([1.0], [0.0])
    with pytest.raises(ValueError):
        median_ratio([1.0], [1.0, 2.0])
