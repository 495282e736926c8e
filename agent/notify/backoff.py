"""When a message that could not be delivered is tried again."""

from __future__ import annotations

import zlib

from agent.core.model import Instant, Seconds

FIRST_WAIT: Seconds = 5.0
LONGEST_WAIT: Seconds = 600.0
#: A wait is shorter by at most this share, so that messages that failed together do not all
#: return in one moment.
SPREAD = 0.1


def next_attempt(attempts: int, now: Instant, notice_id: str) -> Instant:
    """When to try again after `attempts` failed ones: at once, then 5 s doubling to 10 min.

    The same arguments give the same instant.
    """
    if attempts < 1:
        return now
    # The exponent is bounded so that years of attempts overflow nothing.
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempts - 1, 16))
    share = zlib.crc32(f"{notice_id}:{attempts}".encode()) / 2**32
    return now + wait * (1 - SPREAD * share)
