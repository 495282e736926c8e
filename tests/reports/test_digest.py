"""What a digest counts, leaves out and says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from agent.core.model import (
    Finding,
    Incident,
    Question,
    ResolvedBy,
    Risk,
    State,
    Status,
    Transition,
)
from agent.reports.digest import (
    LISTED,
    Availability,
    Digest,
    Times,
    make_digest,
    write_digest,
    write_headline,
)

DAY = 86400.0
SINCE = 1_790_000_000.0
UNTIL = SINCE + 7 * DAY
BAD = Finding(subject="nginx.service", status=Status.CRITICAL, cause="failed", summary="it failed")


def make_incident(number: int, began: float, **given: Any) -> Incident:
    live = Incident(
        id=f"i{number}",
        check="web",
        subject="nginx.service",
        state=State.OPEN,
        finding=BAD,
        looked=began + 1,
        before=BAD,
        began=began,
        opened=began + 1,
        entered=began + 1,
        seen=began + 1,
        look_ended=began + 1,
        failing_since=began,
    )
    return replace(live, **given)


def make_healed(number: int, began: float, downtime: float = 10.0, **given: Any) -> Incident:
    healed = make_incident(
        number,
        began,
        state=State.RESOLVED,
        resolved_by=ResolvedBy.RUN,
        healed_by=f"r{number}",
        ended=began + downtime + 60,
        downtime=downtime,
        failing_since=None,
        said=("healed",),
    )
    return replace(healed, **given)


def make(
    *incidents: Incident,
    transitions: Mapping[str, Sequence[Transition]] | None = None,
    findings: Mapping[str, tuple[Finding, ...]] | None = None,
    **given: Any,
) -> Digest:
    return make_digest(
        host="web1",
        since=SINCE,
        until=UNTIL,
        started=given.pop("started", SINCE - DAY),
        incidents=incidents,
        transitions=transitions or {},
        restarts=given.pop("restarts", {}),
        findings=findings if findings is not None else {"web": (), "disk": ()},
    )


def test_a_quiet_week_says_so_and_counts_what_was_watched() -> None:
    digest = make()
    assert write_headline(digest) == "no problems"
    assert write_digest(digest) == (
        "7 d on web1, from 2026-09-21 14:13:20 UTC to 2026-09-28 14:13:20 UTC: no problems.\n\n"
        "In figures\n"
        "  2 checks, 0 problems: 0 repaired (0 without a call), 0 ended without a repair\n"
    )


def test_what_was_repaired_without_a_call_is_told_apart_from_what_people_were_called_for() -> None:
    digest = make(
        make_healed(1, SINCE + 100),
        make_healed(2, SINCE + 200, said=("opened:critical", "healed")),
        make_healed(3, SINCE + 300, said=("storm", "healed")),
    )
    assert [incident.id for incident in digest.healed_quietly] == ["i1"]
    assert digest.healed_count == 2
    assert write_headline(digest) == "1 repaired without calling you"


def test_what_ended_before_or_was_never_believed_is_left_out() -> None:
    digest = make(
        make_healed(1, SINCE - 1000),
        make_incident(2, SINCE + 10, opened=None, state=State.PENDING),
    )
    assert digest.incidents_count == 0
    assert digest.availability == ()


def test_who_is_needed_and_what_waits_comes_first() -> None:
    question = Question(
        step="s", remedy="repair-mariadb-aria", risk=Risk.MEDIUM, options={}, digest="d"
    )
    digest = make(
        make_incident(1, SINCE + 10, state=State.ESCALATED, why="no remedy is left"),
        make_incident(2, SINCE + 20, subject="mariadb.service", question=question),
    )
    assert write_headline(digest) == "1 needs you, 1 waits for your word"
    text = write_digest(digest)
    assert "You are needed\n  i1 nginx.service: no remedy is left\n" in text
    waits = "  i2 mariadb.service: repair-mariadb-aria (hostmend incident approve i2)\n"
    assert f"Waits for your word\n{waits}" in text


def test_times_are_the_median_and_the_worst() -> None:
    def proved(incident: Incident, seconds: float) -> tuple[str, list[Transition]]:
        at = (incident.opened or 0.0) + seconds
        verified = Transition(
            incident=incident.id, at=at, old=State.VERIFYING, new=State.PROBATION, why=""
        )
        return incident.id, [verified]

    incidents = [make_healed(n, SINCE + 100 * n, seen=SINCE + 100 * n + n) for n in (1, 2, 9)]
    digest = make(
        *incidents,
        make_incident(4, SINCE + 50, seen=SINCE + 50),
        transitions=dict(proved(i, s) for i, s in zip(incidents, (3.0, 5.0, 40.0), strict=True)),
    )
    # The host did not know when the fourth began.
    assert digest.detected == Times(count=3, median=2.0, worst=9.0)
    assert digest.repaired == Times(count=3, median=5.0, worst=40.0)
    assert "repaired within 5.0 s (median of 3), 40 s at worst" in write_digest(digest)


def test_what_was_repaired_more_than_once_recurs() -> None:
    digest = make(
        make_healed(1, SINCE + 100),
        make_healed(2, SINCE + 900),
        make_healed(3, SINCE + 500, subject="cron.service"),
    )
    ((recurring),) = digest.recurring
    assert (recurring.check, recurring.subject, recurring.count) == ("web", "nginx.service", 2)


def test_availability_counts_what_was_critical_within_the_time_and_nothing_twice() -> None:
    warning = replace(BAD, status=Status.WARNING)
    digest = make(
        # It began an hour before: only what is within counts.
        make_healed(1, SINCE - 3600, downtime=7200.0),
        # Two subjects at once fail the check once.
        make_incident(2, UNTIL - 1800, subject="a"),
        make_incident(3, UNTIL - 3600, subject="b"),
        make_incident(4, SINCE + 10, check="disk", before=warning, finding=warning),
    )
    (web,) = digest.availability
    percent = pytest.approx(98.8095, abs=1e-3)
    assert web == Availability(check="web", downtime=7200.0, percent=percent)
    assert "  web: 98.809 %, down for 2 h\n" in write_digest(digest)


def test_hardly_anything_is_not_rounded_to_nothing() -> None:
    text = write_digest(make(make_healed(1, SINCE + 100, downtime=0.5)))
    assert "  web: 99.999 %, down for " in text


def test_silent_restarts_and_forecasts_are_told() -> None:
    filling = Finding(
        subject="/var",
        status=Status.OK,
        measurements={
            "full_in_seconds": 3 * DAY,
            "full_in_low_seconds": 2 * DAY,
            "full_in_high_seconds": 5 * DAY,
        },
    )
    digest = make(
        findings={"disk": (filling,), "web": ()},
        restarts={
            ("web", "nginx.service"): (SINCE - 5, SINCE + 5, SINCE + 6),
            ("db", "mariadb.service"): (SINCE - 5,),
        },
    )
    text = write_digest(digest)
    assert "Restarted by systemd without a word\n  nginx.service: 2 times\n" in text
    assert "mariadb" not in text
    assert "  /var: full in 3 d (between 2 d and 5 d)\n" in text


def test_an_agent_that_began_later_says_that_nothing_is_known_of_before() -> None:
    text = write_digest(make(started=SINCE + DAY))
    assert "The agent runs since 2026-09-22 14:13:20 UTC only." in text


def test_a_long_list_is_cut_and_its_rest_counted_and_no_text_breaks_out_of_its_line() -> None:
    evil = "nginx\n\nYou are needed\x1b[31m"
    digest = make(*(make_healed(n, SINCE + n, subject=evil) for n in range(LISTED + 3)))
    text = write_digest(digest)
    assert "  and 3 more\n" in text
    assert "\x1b" not in text
    assert "\nYou are needed" not in text
