"""The bookkeeping of stop jobs, and what the journal's lines mean."""

from __future__ import annotations

import pytest

from agent.host import stops
from agent.host.stops import (
    Stop,
    StopBook,
    StoppedBy,
    Told,
    Verdict,
    ended_by_itself,
    judge_journal,
)

WEB = "web.service"


@pytest.fixture
def book() -> StopBook:
    """A book that has watched one unit since it was up."""
    book = StopBook()
    book.watch([WEB])
    book.see_state(WEB, "active", 50.0)
    return book


def carry_out(book: StopBook, job_type: str | None, result: str = "done", job: int = 1) -> None:
    book.see_job(WEB, job)
    book.type_job(WEB, job, job_type)
    book.end_job(WEB, job, result)


def test_a_unit_that_went_down_without_a_job_ended(book: StopBook) -> None:
    book.see_state(WEB, "failed", 50.0)
    assert book.judge(WEB) is Verdict.ENDED


def test_a_stop_job_is_an_intention(book: StopBook) -> None:
    carry_out(book, "stop")
    book.see_state(WEB, "inactive", 50.0)
    assert book.judge(WEB) is Verdict.STOPPED


def test_a_stop_job_counts_while_it_is_under_way(book: StopBook) -> None:
    book.see_job(WEB, 1)
    book.type_job(WEB, 1, "stop")
    book.see_state(WEB, "active", 50.0)
    book.see_state(WEB, "failed", 50.0)
    assert book.judge(WEB) is Verdict.STOPPED


@pytest.mark.parametrize("result", ["failed", "timeout"])
def test_a_stop_job_that_took_a_kill_is_an_intention_too(book: StopBook, result: str) -> None:
    carry_out(book, "stop", result)
    assert book.judge(WEB) is Verdict.STOPPED


def test_a_cancelled_stop_job_is_none(book: StopBook) -> None:
    carry_out(book, "stop", "canceled")
    book.see_state(WEB, "failed", 50.0)
    assert book.judge(WEB) is Verdict.ENDED


@pytest.mark.parametrize("job_type", ["start", "restart"])
def test_a_start_after_the_stop_takes_the_intention_back(book: StopBook, job_type: str) -> None:
    carry_out(book, "stop")
    book.see_state(WEB, "inactive", 50.0)
    carry_out(book, job_type, "failed", job=2)
    book.see_state(WEB, "failed", 50.0)
    assert book.judge(WEB) is Verdict.ENDED


def test_being_up_again_takes_the_intention_back(book: StopBook) -> None:
    carry_out(book, "stop")
    book.see_state(WEB, "active", 50.0)
    book.see_state(WEB, "failed", 50.0)
    assert book.judge(WEB) is Verdict.ENDED


def test_a_restart_that_leaves_the_unit_failed_is_no_intention(book: StopBook) -> None:
    carry_out(book, "restart", "failed")
    book.see_state(WEB, "failed", 50.0)
    assert book.judge(WEB) is Verdict.ENDED


def test_a_reload_before_the_death_is_no_intention(book: StopBook) -> None:
    carry_out(book, "reload")
    book.see_state(WEB, "failed", 50.0)
    assert book.judge(WEB) is Verdict.ENDED


def test_a_type_that_arrives_after_the_end_of_the_job_still_counts(book: StopBook) -> None:
    book.see_job(WEB, 1)
    book.end_job(WEB, 1, "done")
    assert book.judge(WEB) is Verdict.ASK_JOURNAL
    book.type_job(WEB, 1, "stop")
    assert book.judge(WEB) is Verdict.STOPPED


def test_a_stop_whose_type_arrives_after_a_later_start_is_taken_back(book: StopBook) -> None:
    book.see_job(WEB, 1)
    book.end_job(WEB, 1, "done")
    carry_out(book, "start", "failed", job=2)
    book.type_job(WEB, 1, "stop")
    assert book.judge(WEB) is Verdict.ENDED


def test_a_job_that_was_over_before_its_type_was_read_is_for_the_journal(book: StopBook) -> None:
    carry_out(book, None)
    book.see_state(WEB, "inactive", 50.0)
    assert book.judge(WEB) is Verdict.ASK_JOURNAL


def test_a_unit_that_was_down_when_the_watch_began_is_for_the_journal() -> None:
    book = StopBook()
    book.watch([WEB])
    book.see_state(WEB, "failed", 50.0)
    assert book.judge(WEB) is Verdict.ASK_JOURNAL


def test_a_unit_that_nobody_watches_is_for_the_journal() -> None:
    assert StopBook().judge(WEB) is Verdict.ASK_JOURNAL


def test_after_the_bus_was_away_only_the_journal_can_tell(book: StopBook) -> None:
    carry_out(book, "stop")
    book.lose_sight()
    assert book.judge(WEB) is Verdict.ASK_JOURNAL


def test_watching_more_units_forgets_nothing_of_the_others(book: StopBook) -> None:
    carry_out(book, "stop")
    book.watch([WEB, "db.service"])
    assert book.judge(WEB) is Verdict.STOPPED


def test_when_it_went_down_is_kept_until_it_is_up_again(book: StopBook) -> None:
    assert book.went_down(WEB) == 0.0
    book.see_state(WEB, "failed", 60.0)
    book.see_state(WEB, "inactive", 70.0)
    assert book.went_down(WEB) == 60.0
    book.see_state(WEB, "activating", 80.0)
    assert book.went_down(WEB) == 0.0


def test_what_was_found_out_is_kept_for_that_end_alone(book: StopBook) -> None:
    book.see_state(WEB, "inactive", 50.0)
    book.settle(WEB, ("first",), Stop(by=StoppedBy.OPERATOR))
    assert book.settled(WEB, ("first",)) == Stop(by=StoppedBy.OPERATOR)
    assert book.settled(WEB, ("second",)) is None
    book.see_state(WEB, "activating", 50.0)
    assert book.settled(WEB, ("first",)) is None


def line(message_id: str, at: float, job_type: str = "", job_result: str = "") -> Told:
    return Told(
        unit=WEB, message_id=message_id, monotonic=at, job_type=job_type, job_result=job_result
    )


UP = [line(stops.STARTING, 10, "start"), line(stops.STARTED, 11, "start", "done")]
STOP = [
    line(stops.STOPPING, 20, "stop"),
    line(stops.SUCCEEDED, 21),
    line(stops.STOPPED, 21, "stop", "done"),
]
DEATH = [line(stops.PROCESS_ENDED, 21), line(stops.FAILED, 21)]

#: A sentence, the lines as they were written, when the unit became inactive, and who did it.
JOURNALS = [
    ("a stop job is an operator's", [*UP, *STOP], 21.0, StoppedBy.OPERATOR),
    ("a death is the unit's own", [*UP, *DEATH], 21.0, StoppedBy.ITSELF),
    ("a quiet end is the unit's own", [*UP, line(stops.SUCCEEDED, 21)], 21.0, StoppedBy.ITSELF),
    (
        "a stop job that ended in a failure is an operator's",
        [*UP, STOP[0], *DEATH, line(stops.STOPPED, 21, "stop", "done")],
        21.0,
        StoppedBy.OPERATOR,
    ),
    (
        "a stop between two automatic restarts is an operator's",
        [*UP, *DEATH, line(stops.RESTART_SCHEDULED, 22), line(stops.STOPPED, 23, "stop", "done")],
        23.0,
        StoppedBy.OPERATOR,
    ),
    (
        "a restart that did not come up is the unit's own",
        [
            *UP,
            STOP[0],
            STOP[1],
            line(stops.STOPPED, 21, "restart", "done"),
            line(stops.STARTING, 22, "start"),
            line(stops.FAILED, 22),
            line(stops.START_FAILED, 22, "start", "failed"),
        ],
        22.0,
        StoppedBy.ITSELF,
    ),
    (
        "a start after the stop takes it back",
        [*STOP, line(stops.STARTED, 30, "start", "done"), line(stops.FAILED, 40)],
        40.0,
        StoppedBy.ITSELF,
    ),
    (
        "a start that failed for what it needs",
        [line(stops.START_FAILED, 5, "start", "dependency")],
        0.0,
        StoppedBy.DEPENDENCY,
    ),
    ("no line about a unit that never ended: it was never started", [], 0.0, StoppedBy.NOBODY),
    (
        "a stop of a unit that systemd forgot is an operator's",
        [*UP, *STOP],
        0.0,
        StoppedBy.OPERATOR,
    ),
    (
        "a start job without a start: a condition",
        [line(stops.STARTED, 5, "start", "done")],
        0.0,
        StoppedBy.CONDITION,
    ),
    ("no line about an end: nobody can tell", [], 21.0, None),
    ("lines that stop before the end: nobody can tell", [*UP, *STOP], 500.0, None),
    ("a stop job that is not over yet: not yet", [*UP, *STOP[:2]], 21.0, None),
]


@pytest.mark.parametrize(
    ("written", "became_inactive", "by"),
    [case[1:] for case in JOURNALS],
    ids=[case[0] for case in JOURNALS],
)
def test_the_journal_tells_who_brought_a_unit_down(
    written: list[Told], became_inactive: float, by: StoppedBy | None
) -> None:
    assert judge_journal(reversed(written), became_inactive=became_inactive) is by


def test_a_unit_that_ended_just_before_ended_by_itself() -> None:
    assert ended_by_itself(reversed(DEATH), before=21.5)


def test_a_unit_that_ended_just_before_and_is_up_again_ended_by_itself() -> None:
    again = [line(stops.RESTART_SCHEDULED, 21.8), line(stops.STARTED, 21.9)]
    start = line(stops.STARTED, 20.5)
    assert ended_by_itself(reversed([*STOP[:1], start, *DEATH, *again]), before=21.5)


def test_a_unit_that_was_stopped_just_before_did_not_end_by_itself() -> None:
    assert not ended_by_itself(reversed(STOP), before=21.5)


def test_a_unit_that_ended_long_before_did_not_end_just_before() -> None:
    assert not ended_by_itself(reversed(DEATH), before=300.0)
