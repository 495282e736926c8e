"""Forecasts: of what rises steadily, and of nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from agent.host.trend import Forecast, Trend, forecast

HOUR = 3600.0
GB = 2.0**30
ROOM = 20 * GB


def watch(
    level: Callable[[float], float], hours: float, *, room: float = ROOM
) -> list[Forecast | None]:
    """What is forecast at each look, one every 30 s."""
    trend, found = Trend(), []
    for look in range(int(hours * 120)):
        at = look * 30.0
        trend.add(at, level(at))
        if look % 10 == 0:
            found.append(trend.forecast(room))
    return found


def noise(size: float) -> Callable[[float], float]:
    chance = random.Random(7)
    return lambda _at: chance.uniform(-size, size)


def test_a_steady_rise_is_foretold_exactly() -> None:
    found = watch(lambda at: 50 * GB + at * GB / HOUR, 3)[-1]
    assert found is not None
    assert found.full_in == pytest.approx(20 * HOUR, rel=0.01)
    assert found.low == pytest.approx(20 * HOUR, rel=0.02)
    assert found.high == pytest.approx(20 * HOUR, rel=0.02)


def test_a_noisy_rise_is_foretold_between_bounds() -> None:
    jitter = noise(0.3 * GB)
    found = watch(lambda at: 50 * GB + at * GB / HOUR + jitter(at), 4)[-1]
    assert found is not None
    assert found.full_in == pytest.approx(20 * HOUR, rel=0.15)
    assert found.low < 20 * HOUR < found.high


def test_a_rise_in_small_steps_is_a_rise() -> None:
    found = watch(lambda at: 50 * GB + (at // 600) * GB / 6, 4)[-1]
    assert found is not None
    assert found.full_in == pytest.approx(20 * HOUR, rel=0.15)


def test_a_rise_that_began_lately_is_foretold_after_days_of_rest() -> None:
    def level(at: float) -> float:
        return 50 * GB + max(0.0, at - 40 * HOUR) * 4 * GB / HOUR

    found = watch(level, 41.5)[-1]
    assert found is not None
    assert found.full_in == pytest.approx(5 * HOUR, rel=0.05)


def saw(period: float, height: float) -> Callable[[float], float]:
    return lambda at: 50 * GB + (at % period) / period * height


@pytest.mark.parametrize(
    ("what", "level", "hours"),
    [
        ("nothing happens", lambda at: 50 * GB, 5),
        ("noise", noise(2 * GB), 5),
        ("a file of 10 GB is copied at once", lambda at: 50 * GB + (at > 2 * HOUR) * 10 * GB, 6),
        (
            "a file of 10 GB is copied within ten minutes",
            lambda at: 50 * GB + min(max(0.0, at - 2 * HOUR) / 600, 1) * 10 * GB,
            6,
        ),
        ("files are deleted", lambda at: 50 * GB - at * GB / HOUR, 5),
        ("it rises, but far too slowly to tell", lambda at: 50 * GB + at * GB / HOUR / 1000, 5),
    ],
)
def test_nothing_is_foretold_when(what: str, level: Callable[[float], float], hours: float) -> None:
    assert [found for found in watch(level, hours) if found is not None] == []


@pytest.mark.parametrize("period", [0.25 * HOUR, HOUR, 6 * HOUR, 24 * HOUR])
def test_nothing_is_foretold_of_logs_that_were_rotated_before(period: float) -> None:
    found = watch(saw(period, 5 * GB), 2.9 * period / HOUR)
    later = found[int(1.05 * len(found) / 2.9) :]
    assert [each for each in later if each is not None] == []


def test_a_rise_beyond_what_it_came_down_from_is_foretold_again() -> None:
    def level(at: float) -> float:
        return 50 * GB + (at if at < 2 * HOUR else at - 2 * HOUR) * GB / HOUR

    assert watch(level, 3.5)[-1] is None
    assert watch(level, 6)[-1] is not None


def test_too_few_samples_tell_nothing() -> None:
    assert forecast([(0.0, 1.0), (60.0, 2.0)], 10) is None
    assert Trend().forecast(10) is None


def test_an_instant_that_steps_back_is_left_out() -> None:
    trend = Trend()
    for at in range(0, 3600, 30):
        trend.add(float(at), 5 * at * GB / HOUR)
        trend.add(float(at) - 500, 0.0)
    assert trend.forecast(ROOM) is not None


def test_a_full_disk_is_full_now() -> None:
    samples = [(at * 60.0, float(at)) for at in range(40)]
    found = forecast(samples, 0)
    assert found is not None
    assert found.full_in == 0
