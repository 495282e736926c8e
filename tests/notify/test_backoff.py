from __future__ import annotations

import pytest

from agent.notify.backoff import LONGEST_WAIT, SPREAD, next_attempt

NOW = 1_700_000_000.0


def test_a_message_is_tried_at_once():
    assert next_attempt(0, NOW, "n1") == NOW


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [(1, 5), (2, 10), (3, 20), (4, 40), (7, 320), (8, 600), (9, 600), (1_000_000, 600)],
)
def test_the_wait_doubles_from_five_seconds_to_ten_minutes(attempts, seconds):
    wait = next_attempt(attempts, NOW, "n1") - NOW
    assert seconds * (1 - SPREAD) <= wait <= seconds


def test_the_same_message_waits_as_long_every_time_it_is_asked():
    assert next_attempt(3, NOW, "n1") == next_attempt(3, NOW, "n1")


def test_messages_that_failed_together_return_apart():
    waits = {next_attempt(8, NOW, f"n{i}") for i in range(100)}
    assert len(waits) == 100
    assert max(waits) - min(waits) > LONGEST_WAIT * SPREAD / 2
