"""Counters over time and conditions that last."""

from __future__ import annotations

import pytest

from agent.host.rates import Lasting, Window


def filled(length: float, step: float, rate: float, until: float) -> Window:
    window = Window(length)
    at = 0.0
    while at <= until:
        window.add(at, at * rate)
        at += step
    return window


@pytest.mark.parametrize("step", [0.1, 1.0, 10.0, 45.0])
def test_a_steady_counter_has_its_rate_however_often_it_is_read(step: float) -> None:
    assert filled(300, step, 7.0, 900).rate == pytest.approx(7.0)


def test_a_window_says_nothing_until_it_was_seen() -> None:
    window = filled(300, 10, 7.0, 260)
    assert window.rate is None
    window.add(271, 1900.0)
    assert window.rate == pytest.approx(1900 / 271)
    assert Window(300).rate is None


def test_a_peak_is_spread_over_the_window_and_forgotten_after_it() -> None:
    window = filled(300, 10, 0.0, 600)
    window.add(610, 3000.0)
    assert window.rate == pytest.approx(10.0, rel=0.05)
    for at in range(620, 1000, 10):
        window.add(at, 3000.0)
    assert window.rate == 0.0


def test_a_window_keeps_few_samples() -> None:
    assert len(filled(300, 0.05, 1.0, 3000)._samples) < 70


def test_a_counter_that_was_reset_begins_anew() -> None:
    window = filled(300, 10, 7.0, 600)
    window.add(610, 1.0)
    assert window.rate is None


def test_a_clock_that_goes_back_begins_anew() -> None:
    window = filled(300, 10, 7.0, 600)
    window.add(500, 1e9)
    assert window.rate is None


def test_a_condition_lasts_from_its_first_look_on() -> None:
    lasting = Lasting()
    seen = [lasting.see("low", True, now=t, wanted=30, every=10) for t in range(0, 50, 10)]
    assert seen == [False, False, False, True, True]
    assert not lasting.see("low", False, now=50, wanted=30, every=10)
    assert not lasting.see("low", True, now=60, wanted=30, every=10)


def test_conditions_are_told_apart_by_name() -> None:
    lasting = Lasting()
    lasting.see("low", True, now=0, wanted=30, every=10)
    assert not lasting.see("high", True, now=40, wanted=30, every=10)
    assert lasting.see("low", True, now=40, wanted=30, every=10)


def test_time_in_which_the_host_slept_does_not_count() -> None:
    lasting = Lasting()
    lasting.see("low", True, now=0, wanted=120, every=10)
    assert not lasting.see("low", True, now=8 * 3600, wanted=120, every=10)
    assert not lasting.see("low", True, now=8 * 3600 + 60, wanted=120, every=10)
    assert lasting.see("low", True, now=8 * 3600 + 120, wanted=120, every=10)


def test_looks_that_are_far_apart_on_purpose_count() -> None:
    lasting = Lasting()
    lasting.see("low", True, now=0, wanted=120, every=300)
    assert lasting.see("low", True, now=300, wanted=120, every=300)


def test_what_must_not_last_counts_at_once() -> None:
    assert Lasting().see("low", True, now=5, wanted=0, every=10)
