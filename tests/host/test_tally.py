"""Amounts within the last so many seconds."""

from __future__ import annotations

import random

from agent.host.tally import Amount, add_amount, amount_within


def add(*new: Amount, window: float = 60.0) -> tuple[Amount, ...]:
    amounts: tuple[Amount, ...] = ()
    for each in new:
        amounts = add_amount(amounts, each, window=window)
    return amounts


def test_what_came_within_the_window_counts_whole() -> None:
    assert amount_within(add((0, 10, 3), (10, 20, 4)), 20, 60) == 7


def test_it_leaves_the_window_little_by_little() -> None:
    amounts = add((0, 10, 10))
    assert [amount_within(amounts, now, 60) for now in (60, 65, 69, 70)] == [10, 5, 1, 0]


def test_what_came_while_nobody_looked_counts_by_its_share() -> None:
    eight_hours = 8 * 3600.0
    assert amount_within(add((0, eight_hours, 480)), eight_hours, 60) == 1


def test_what_came_at_an_instant_counts_whole() -> None:
    assert amount_within(add((5, 5, 2)), 10, 60) == 2


def test_what_no_window_holds_any_more_is_forgotten() -> None:
    assert add((0, 1, 5), (100, 101, 1)) == ((100, 101, 1),)
    assert add((0, 1, 5), (100, 101, 0)) == ()


def test_a_look_at_each_instant_keeps_few_amounts_and_the_sum() -> None:
    chance = random.Random(7)
    amounts: tuple[Amount, ...] = ()
    now, came = 0.0, []
    for _ in range(5000):
        before, now = now, now + chance.uniform(0.01, 2)
        much = chance.randrange(4)
        came.append((now, much))
        amounts = add_amount(amounts, (before, now, much), window=60)
        assert len(amounts) <= 62
    exact = sum(much for at, much in came if at > now - 60)
    assert abs(amount_within(amounts, now, 60) - exact) < 0.1 * exact
