"""When a recurring maintenance window is open, above all when clocks are put forward or back."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.config.schedule import LAST, WeeklySchedule, local_zone

EVERY_DAY = frozenset(range(7))
BERLIN = ZoneInfo("Europe/Berlin")
HOUR = 3600.0


def schedule(
    at: str, hours: float = 2.0, zone: ZoneInfo = BERLIN, days: frozenset[int] = EVERY_DAY,
    weeks: frozenset[int] = frozenset(),
) -> WeeklySchedule:  # fmt: skip
    return WeeklySchedule(
        days=days, weeks=weeks, at=time.fromisoformat(at), lasts=hours * HOUR, zone=zone
    )


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def span(of: WeeklySchedule, at: str) -> tuple[str, str]:
    """In UTC, without seconds."""
    begin, end = of.find_span(utc(at))
    return tuple(f"{datetime.fromtimestamp(t, UTC):%Y-%m-%d %H:%M}" for t in (begin, end))  # type: ignore[return-value]


def test_a_window_is_found_while_it_is_open_and_before_it_opens() -> None:
    nightly = schedule("23:00", 3, ZoneInfo("UTC"))
    tonight = ("2026-06-10 23:00", "2026-06-11 02:00")
    assert span(nightly, "2026-06-10 22:59:59") == tonight
    assert span(nightly, "2026-06-10 23:00") == tonight
    assert span(nightly, "2026-06-11 01:59:59") == tonight
    assert span(nightly, "2026-06-11 02:00") == ("2026-06-11 23:00", "2026-06-12 02:00")


@pytest.mark.parametrize(
    ("words", "at", "hours", "found"),
    [
        # 02:00 CET becomes 03:00 CEST at 01:00 UTC.
        ("a skipped time is read by the clocks before", "02:30", 1, ("01:30", "02:30")),
        ("what begins before it lasts as long as ever", "01:30", 2, ("00:30", "02:30")),
        ("what begins after it goes by the new clocks", "03:00", 1, ("01:00", "02:00")),
    ],
)
def test_when_clocks_are_put_forward(
    words: str, at: str, hours: float, found: tuple[str, str]
) -> None:
    begin, end = (f"2026-03-29 {moment}" for moment in found)
    assert span(schedule(at, hours), "2026-03-28 20:00") == (begin, end), words


@pytest.mark.parametrize(
    ("words", "at", "hours", "found"),
    [
        # 03:00 CEST becomes 02:00 CET at 01:00 UTC.
        ("a doubled time is the first of the two", "02:30", 1, ("00:30", "01:30")),
        ("and it is not open again at the second", "02:30", 0.5, ("00:30", "01:00")),
        ("what begins before it lasts as long as ever", "01:30", 3, ("2026-10-24 23:30", "02:30")),
        ("what begins after it goes by the new clocks", "03:00", 1, ("02:00", "03:00")),
    ],
)
def test_when_clocks_are_put_back(
    words: str, at: str, hours: float, found: tuple[str, str]
) -> None:
    expected = tuple(m if " " in m else f"2026-10-25 {m}" for m in found)
    assert span(schedule(at, hours), "2026-10-24 20:00") == expected, words
    assert span(schedule(at, hours), expected[1])[0].startswith("2026-10-26")


def test_days_of_the_week_are_those_of_the_place() -> None:
    sunday = schedule("00:30", 1, ZoneInfo("Pacific/Auckland"), frozenset({6}))
    assert span(sunday, "2026-06-10 00:00") == ("2026-06-13 12:30", "2026-06-13 13:30")


@pytest.mark.parametrize(
    ("weeks", "expected"),
    [
        ({1}, "2026-06-07"),
        ({2}, "2026-06-14"),
        ({5}, "2026-08-30"),
        ({LAST}, "2026-06-28"),
        ({1, LAST}, "2026-06-07"),
    ],
)
def test_weeks_of_the_month(weeks: set[int], expected: str) -> None:
    patches = schedule("02:00", 1, ZoneInfo("UTC"), frozenset({6}), frozenset(weeks))
    assert span(patches, "2026-06-01 00:00")[0] == f"{expected} 02:00"


def test_a_date_that_a_place_left_out_does_no_harm() -> None:
    """Samoa went from 29 to 31 December 2011."""
    daily = schedule("10:00", 1, ZoneInfo("Pacific/Apia"))
    seen = {
        span(daily, f"2011-12-{day} {hour:02}:00") for day in (29, 30, 31) for hour in range(24)
    }
    assert ("2011-12-30 20:00", "2011-12-30 21:00") in seen


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu",
         "America/St_Johns", "Africa/Casablanca", "Pacific/Chatham"]  # fmt: skip


def open_minutes(of: WeeklySchedule, first: datetime, days: int) -> list[datetime]:
    """Every minute of UTC at which it begins, as somebody sees it who only reads clocks."""
    begins, done = [], set()
    for minute in range(days * 1440):
        moment = first + timedelta(minutes=minute)
        shown = moment.astimezone(of.zone)
        before = (moment - timedelta(minutes=1)).astimezone(of.zone)
        key = shown.date()
        if shown.weekday() not in of.days or key in done:
            continue
        if shown.time() == of.at:
            begins.append(moment)
            done.add(key)
            continue
        jumped = shown.replace(tzinfo=None) - before.replace(tzinfo=None) - timedelta(minutes=1)
        wanted = datetime.combine(key, of.at)
        if jumped > timedelta(0) and wanted < shown.replace(tzinfo=None) <= wanted + jumped:
            # The time was left out: it comes as long after the jump as it stood behind its begin.
            left = wanted - (shown.replace(tzinfo=None) - jumped)
            begins.append(moment + left)
            done.add(key)
    return begins


@settings(max_examples=40, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    days=st.frozensets(st.integers(0, 6), min_size=1),
    at=st.builds(time, st.integers(0, 5), st.integers(0, 59)),
    lasts=st.sampled_from([60.0, HOUR, 5 * HOUR, 23 * HOUR]),
    first=st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 1)),
    after=st.floats(0, 5 * 86400.0),
)  # fmt: skip
@example("Europe/Berlin", EVERY_DAY, time(2, 30), HOUR, datetime(2026, 3, 27), 90000.0)
@example("Europe/Berlin", EVERY_DAY, time(2, 30), HOUR, datetime(2026, 10, 23), 90000.0)
@example("Australia/Lord_Howe", EVERY_DAY, time(2, 15), HOUR, datetime(2026, 10, 2), 90000.0)
def test_it_is_open_exactly_when_the_clocks_of_the_place_say_so(
    zone: str, days: frozenset[int], at: time, lasts: float, first: datetime, after: float
) -> None:
    weekly = WeeklySchedule(days=days, at=at, lasts=lasts, zone=ZoneInfo(zone))
    start = first.replace(second=0, microsecond=0, tzinfo=UTC)
    begins = [t.timestamp() for t in open_minutes(weekly, start - timedelta(days=3), 17)]
    now = start.timestamp() + after
    begin, end = weekly.find_span(now)
    assert end - begin == lasts
    assert end > now
    covering = [b for b in begins if b <= now < b + lasts]
    assert begin == (max(covering) if covering else min(b for b in begins if b > now))


@given(
    zone=st.sampled_from(ZONES),
    days=st.frozensets(st.integers(0, 6), min_size=1),
    weeks=st.frozensets(st.sampled_from([1, 2, 3, 4, 5, LAST])),
    at=st.builds(time, st.integers(0, 23), st.integers(0, 59)),
    now=st.floats(1.7e9, 4e9),
    later=st.floats(0, 1e7),
)
def test_time_goes_on_and_so_does_the_window(
    zone: str, days: frozenset[int], weeks: frozenset[int], at: time, now: float, later: float
) -> None:
    weekly = WeeklySchedule(days=days, weeks=weeks, at=at, lasts=HOUR, zone=ZoneInfo(zone))
    begin, end = weekly.find_span(now)
    assert now < end
    assert weekly.find_span(begin) == (begin, end)
    next_begin, _ = weekly.find_span(end)
    assert next_begin >= end
    assert weekly.find_span(now + later)[0] >= begin


def test_the_zone_of_this_host_is_what_its_environment_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    assert local_zone() == ZoneInfo("Asia/Kathmandu")
    monkeypatch.setenv("TZ", ":Europe/Berlin")
    assert local_zone() == BERLIN
    monkeypatch.delenv("TZ")
    here = datetime.now(local_zone()).utcoffset()
    assert here == datetime.now().astimezone().utcoffset()
    monkeypatch.setenv("TZ", "CET-1CEST")
    assert datetime.now(local_zone()).utcoffset() == here, "no name: the file says it"
