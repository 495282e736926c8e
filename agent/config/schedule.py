"""When a maintenance window opens again and again, by the clocks of a place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

from agent.core.model import Instant, Seconds

#: The week of a month that `last` means.
LAST = -1
#: Days looked ahead: the fifth Monday of a month is a quarter away at most, a skipped one more.
_AHEAD = 250


@dataclass(frozen=True, kw_only=True)
class WeeklySchedule:
    """Opens on days of the week at a time of the day, and lasts for so long.

    Where clocks are put forward over its beginning, it begins as if they were not yet, so an hour
    later by the new time; where they are put back over it, at the first of the two (both as RFC
    5545, 3.3.5, has it). It lasts as long as it says, whatever clocks show meanwhile.
    """

    #: 0 is Monday.
    days: frozenset[int]
    #: Only the first, second ... of such a day in a month, or the LAST; empty: every one.
    weeks: frozenset[int] = frozenset()
    at: time
    lasts: Seconds
    zone: ZoneInfo

    def find_span(self, at: Instant) -> tuple[Instant, Instant]:
        """The begin and end of the occurrence at an instant, or else of the next one.

        Instants are seconds since the Unix epoch, by the wall clock. Of several at once it is the
        one that ends last.
        """
        return _find_span(self, at)

    def _begins(self, first: date) -> Iterator[Instant]:
        for ahead in range(_AHEAD):
            day = first + timedelta(days=ahead)
            if day.weekday() in self.days and self._is_week(day):
                yield datetime.combine(day, self.at, self.zone).timestamp()

    def _is_week(self, day: date) -> bool:
        number = (day.day - 1) // 7 + 1
        is_last = (day + timedelta(days=7)).month != day.month
        return not self.weeks or number in self.weeks or (is_last and LAST in self.weeks)


@lru_cache(maxsize=256)
def _find_span(schedule: WeeklySchedule, at: Instant) -> tuple[Instant, Instant]:
    # A day more than it can last, since days of the place and of UTC differ.
    earliest = datetime.fromtimestamp(at, UTC).date() - timedelta(
        days=2 + int(schedule.lasts // 86400)
    )
    found: tuple[Instant, Instant] | None = None
    for begin in schedule._begins(earliest):
        end = begin + schedule.lasts
        if found is not None and begin > at:
            break
        if end > at:
            found = begin, end
    if found is None:
        raise AssertionError(f"{schedule} has no day within {_AHEAD} days")
    return found


def local_zone() -> ZoneInfo:
    """The time zone of this host: `TZ`, then /etc/localtime (localtime(5)), then UTC."""
    local = Path("/etc/localtime")
    with suppress(OSError, ValueError, KeyError):
        # What zoneinfo does not know (a rule of POSIX instead of a name) is left to the file.
        if named := os.environ.get("TZ", "").removeprefix(":"):
            return ZoneInfo(named)
    with suppress(OSError, ValueError, KeyError):
        _, there, key = str(local.resolve(strict=True)).partition("/zoneinfo/")
        if there:
            return ZoneInfo(key)
        with local.open("rb") as file:
            return ZoneInfo.from_file(file)
    return ZoneInfo("UTC")
