"""How much of something there was within the last so many seconds: a memory of amounts, bounded."""

from __future__ import annotations

from collections.abc import Sequence

from agent.core.model import Instant, Seconds

#: Amounts are told apart down to this share of the window.
_PARTS = 30

#: From when to when, and how much: it may have come at any time in between.
Amount = tuple[Instant, Instant, float]


def add_amount(amounts: Sequence[Amount], new: Amount, *, window: Seconds) -> tuple[Amount, ...]:
    """The amounts with a later one, without what no window that ends from now on can hold."""
    began, ended, much = new
    kept = [each for each in amounts if each[1] > ended - window]
    if much <= 0:
        return tuple(kept)
    if kept and ended - kept[-1][0] <= window / _PARTS:
        last = kept.pop()
        began, much = last[0], last[2] + much
    return (*kept, (round(began, 3), round(ended, 3), much))


def amount_within(amounts: Sequence[Amount], now: Instant, window: Seconds) -> float:
    """How much came within the window that ends now.

    What came at an unknown time of an interval counts for the part of it that lies in the window:
    a hundred lines of the eight hours in which nobody looked are not a hundred lines a minute.
    """
    total = 0.0
    begin = now - window
    for began, ended, much in amounts:
        if ended <= begin:
            continue
        length = ended - began
        part = (ended - max(began, begin)) / length if length > 0 else 1.0
        total += much * min(1.0, part)
    return total
