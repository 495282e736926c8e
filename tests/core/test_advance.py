"""One incident, one signal: the table, and what a look or the passing of time means as a signal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.core.advance import (
    TABLE,
    Signal,
    advance,
    confirmed,
    is_overdue,
    record_look,
    settle,
    signal_of_look,
    verify_deadline,
)
from agent.core.model import (
    Changes,
    CheckPolicy,
    Confirm,
    Finding,
    Incident,
    Outcome,
    Policy,
    ResolvedBy,
    Risk,
    Run,
    RunState,
    State,
    Status,
)
from agent.errors import ImpossibleTransition

OK, WARNING, CRITICAL, UNKNOWN = Status.OK, Status.WARNING, Status.CRITICAL, Status.UNKNOWN
ONCE = CheckPolicy(name="web", stable_for=60.0, verify_for=30.0)
TWICE = replace(ONCE, confirm=Confirm(times=2, of=3))
POLICY = Policy(unknown_for=600.0, transition_for=900.0)


def seen(status: Status = CRITICAL, **changes: Any) -> Finding:
    return Finding(subject="web", status=status, **changes)


def incident(state: State = State.OPEN, status: Status = CRITICAL, **changes: Any) -> Incident:
    finding = changes.pop("finding", seen(status))
    first = {
        "id": "i1",
        "check": "web",
        "subject": "web",
        "looked": 100.0,
        "before": finding,
        "began": 100.0,
        "entered": 100.0,
        "seen": 100.0,
        "look_ended": 100.5,
        "recent": (finding.status,),
    }
    return Incident(state=state, finding=finding, **{**first, **changes})


def run(**changes: Any) -> Run:
    first: dict[str, Any] = {
        "id": "r2",
        "remedy": "restart-service",
        "options": {},
        "risk": Risk.LOW,
        "changes": Changes.SERVICE,
        "timeout": 60.0,
        "lock": "",
        "digest": "d",
        "planned": 100.0,
    }
    return Run(**{**first, **changes})


# The table


def rows() -> list[tuple[State, Signal]]:
    return [(state, signal) for state in State for signal in Signal]


@pytest.mark.parametrize(("state", "signal"), rows())
def test_the_table_is_followed_and_what_it_does_not_have_is_a_defect(
    state: State, signal: Signal
) -> None:
    before = incident(state)
    if (state, signal) not in TABLE:
        with pytest.raises(ImpossibleTransition, match=f"incident i1: {state} knows no"):
            advance(before, signal, 200.0)
        return
    after, transition = advance(before, signal, 200.0, "because")
    assert after.state is TABLE[state, signal]
    if after.state is state:
        assert (after, transition) == (before, None)
        return
    assert transition is not None
    assert (transition.incident, transition.at, transition.why) == ("i1", 200.0, "because")
    assert (transition.old, transition.new) == (state, after.state)
    assert (after.entered, after.why) == (200.0, "because")


@pytest.mark.parametrize("state", [State.RESOLVED, State.GONE])
def test_nothing_leads_out_of_an_end(state: State) -> None:
    assert state.ended
    assert not [signal for known, signal in TABLE if known is state]


@pytest.mark.parametrize("state", [state for state in State if not state.ended])
def test_every_state_has_a_way_to_an_end(state: State) -> None:
    reached, frontier = {state}, [state]
    while frontier:
        here = frontier.pop()
        new = {to for (known, _), to in TABLE.items() if known is here} - reached
        reached |= new
        frontier += new
    assert {State.RESOLVED, State.GONE} <= reached


@pytest.mark.parametrize("state", [state for state in State if not state.ended])
def test_a_look_is_possible_in_every_state(state: State) -> None:
    looks = {Signal.FAILED, Signal.CONFIRMED, Signal.PASSED, Signal.UNCLEAR, Signal.INTENDED}
    assert looks <= {signal for known, signal in TABLE if known is state}


def test_without_words_the_signal_is_the_reason() -> None:
    after, _ = advance(incident(State.OPEN), Signal.CLOSED, 200.0)
    assert after.why == "closed"


@pytest.mark.parametrize(
    ("state", "signal", "healed_by", "resolved_by"),
    [
        (State.PROBATION, Signal.STABLE, "r2", ResolvedBy.RUN),
        (State.PROBATION, Signal.STABLE, None, ResolvedBy.ITSELF),
        (State.PENDING, Signal.CLEARED, None, ResolvedBy.ITSELF),
        (State.PROBATION, Signal.CLOSED, "r2", ResolvedBy.OPERATOR),
        (State.VERIFYING, Signal.INTENDED, None, ResolvedBy.OPERATOR),
        (State.OPEN, Signal.VANISHED, None, None),
    ],
)
def test_an_end_names_what_ended_it(
    state: State, signal: Signal, healed_by: str | None, resolved_by: ResolvedBy | None
) -> None:
    after, _ = advance(incident(state, healed_by=healed_by, held_since=150.0), signal, 200.0)
    assert after.ended == 200.0
    assert after.resolved_by is resolved_by
    assert after.held_since is None


def test_an_intended_end_keeps_the_finding_that_showed_the_intention() -> None:
    wanted = seen(OK, intended=True)
    after, _ = advance(incident(finding=wanted), Signal.INTENDED, 200.0)
    assert after.after == wanted
    proof = seen(OK, summary="answers")
    after, _ = advance(incident(State.PROBATION, OK, after=proof), Signal.STABLE, 200.0)
    assert after.after == proof


def test_probation_begins_with_the_look_that_passed_and_is_confirmed_anew() -> None:
    before = incident(
        State.VERIFYING,
        OK,
        run="r2",
        looked=180.0,
        look_ended=180.5,
        passing_since=150.0,
        whole_by=150.5,
        held_since=120.0,
        recent=(CRITICAL, CRITICAL, OK),
    )
    after, _ = advance(before, Signal.PASSED, 200.0)
    assert after.healed_by == "r2"
    assert after.after == before.finding
    assert (after.passing_since, after.whole_by) == (180.0, 180.5)
    assert after.recent == (OK,)
    assert after.held_since is None


def test_only_a_run_that_was_verified_heals() -> None:
    after, _ = advance(incident(State.ESCALATED, OK, run="r2"), Signal.PASSED, 200.0)
    assert after.healed_by is None


def test_failing_in_probation_takes_the_proof_back() -> None:
    before = incident(State.PROBATION, healed_by="r2", after=seen(OK), opened=110.0)
    after, _ = advance(before, Signal.CONFIRMED, 200.0)
    assert (after.healed_by, after.after, after.opened) == (None, None, 110.0)


def test_it_is_opened_once() -> None:
    after, _ = advance(incident(State.PENDING), Signal.CONFIRMED, 200.0)
    assert after.opened == 200.0


def test_passes_in_the_middle_of_a_run_do_not_count_for_its_proof() -> None:
    before = incident(State.REPAIRING, OK, passing_since=150.0, whole_by=150.5, held_since=140.0)
    after, _ = advance(before, Signal.RUN_ENDED, 200.0)
    assert (after.passing_since, after.whole_by) == (None, None)


@pytest.mark.parametrize("signal", [Signal.PLANNED, Signal.EXHAUSTED])
def test_it_is_not_held_any_more_once_it_is_acted_on_or_escalated(signal: Signal) -> None:
    after, _ = advance(incident(State.OPEN, held_since=150.0), signal, 200.0)
    assert after.held_since is None


# Looks


def test_downtime_counts_from_where_the_host_knows_it_to_the_first_pass() -> None:
    first = incident(State.PENDING, recent=())
    failing = record_look(first, seen(since=90.0), 100.0, 100.5, ONCE)
    assert (failing.failing_since, failing.downtime) == (90.0, 0.0)
    still = record_look(failing, seen(WARNING), 110.0, 110.5, ONCE)
    assert (still.failing_since, still.downtime) == (90.0, 0.0)
    unclear = record_look(still, seen(UNKNOWN), 115.0, 115.5, ONCE)
    assert unclear.failing_since == 90.0
    passing = record_look(unclear, seen(OK), 120.0, 120.5, ONCE)
    assert (passing.failing_since, passing.downtime) == (None, 30.0)
    again = record_look(passing, seen(since=95.0), 130.0, 130.5, ONCE)
    assert again.failing_since == 120.0, "never longer than it was seen to pass"
    assert record_look(again, seen(OK), 135.0, 135.5, ONCE).downtime == 45.0


def test_an_incident_that_fails_counts_on_until_now_or_until_it_ended() -> None:
    failing = incident(failing_since=90.0, downtime=5.0)
    assert failing.count_downtime(100.0) == 15.0
    assert failing.count_downtime(80.0) == 5.0, "it began after that"
    assert replace(failing, ended=95.0).count_downtime(100.0) == 10.0
    assert replace(failing, failing_since=None).count_downtime(100.0) == 5.0


def test_a_moment_of_downtime_counts_as_what_it_was() -> None:
    failing = record_look(incident(State.PENDING, recent=()), seen(), 100.0, 100.5, ONCE)
    assert record_look(failing, seen(OK), 100.25, 100.5, ONCE).downtime == 0.25
    assert record_look(failing, seen(OK), 99.0, 100.5, ONCE).downtime == 0.0


def test_a_subject_that_failed_before_the_look_knows_it_counts_from_the_look() -> None:
    first = incident(State.PENDING, recent=())
    assert record_look(first, seen(), 100.0, 100.5, ONCE).failing_since == 100.0
    assert record_look(first, seen(since=170.0), 100.0, 100.5, ONCE).failing_since == 100.0


def test_a_look_that_fails_or_cannot_tell_ends_passing() -> None:
    passing = record_look(incident(State.PROBATION), seen(OK), 110.0, 110.5, ONCE)
    assert (passing.passing_since, passing.whole_by) == (110.0, 110.5)
    again = record_look(passing, seen(OK), 115.0, 115.5, ONCE)
    assert (again.passing_since, again.whole_by) == (110.0, 110.5)
    for status in (UNKNOWN, WARNING):
        ended = record_look(passing, seen(status), 115.0, 115.5, ONCE)
        assert (ended.passing_since, ended.whole_by) == (None, None)


def test_doubt_lasts_from_the_first_look_that_cannot_tell_to_the_first_that_can() -> None:
    unclear = record_look(incident(), seen(UNKNOWN), 110.0, 110.5, ONCE)
    assert unclear.unclear_since == 110.0
    longer = record_look(unclear, seen(UNKNOWN), 115.0, 115.5, ONCE)
    assert longer.unclear_since == 110.0
    assert record_look(longer, seen(), 120.0, 120.5, ONCE).unclear_since is None
    assert record_look(longer, seen(OK), 120.0, 120.5, ONCE).unclear_since is None


def test_only_the_looks_that_confirming_asks_for_are_kept() -> None:
    once = record_look(incident(recent=(CRITICAL, OK)), seen(), 110.0, 110.6, ONCE)
    assert once.recent == (CRITICAL,)
    assert (once.looked, once.look_ended) == (110.0, 110.6)
    three = record_look(incident(recent=(CRITICAL, OK, OK)), seen(), 110.0, 110.5, TWICE)
    assert three.recent == (OK, OK, CRITICAL)


@pytest.mark.parametrize(
    ("recent", "believed", "critical"),
    [
        ((CRITICAL,), False, False),
        ((CRITICAL, OK, CRITICAL), True, True),
        ((WARNING, CRITICAL), True, False),
        ((CRITICAL, UNKNOWN, UNKNOWN), False, False),
        ((CRITICAL, CRITICAL, OK, CRITICAL), True, True),
        ((CRITICAL, CRITICAL, OK, OK), False, False),
    ],
)
def test_two_of_three_looks_are_believed(
    recent: tuple[Status, ...], believed: bool, critical: bool
) -> None:
    one = incident(recent=recent)
    assert confirmed(one, TWICE) is believed
    assert confirmed(one, TWICE, critical=True) is critical


@pytest.mark.parametrize(
    ("words", "state", "check", "recent", "finding", "signal"),
    [
        ("one failure of two needed", State.PENDING, TWICE, (CRITICAL,), seen(), Signal.FAILED),
        ("a warning is a failure", State.OPEN, ONCE, (WARNING,), seen(WARNING), Signal.CONFIRMED),
        ("enough failures", State.OPEN, TWICE, (WARNING, CRITICAL), seen(), Signal.CONFIRMED),
        ("it cannot tell", State.PROBATION, ONCE, (UNKNOWN,), seen(UNKNOWN), Signal.UNCLEAR),
        ("wanted", State.OPEN, ONCE, (OK,), seen(OK, intended=True), Signal.INTENDED),
        ("wanted, though it fails", State.OPEN, ONCE, (CRITICAL,), seen(intended=True),
         Signal.INTENDED),
        ("it may still be confirmed", State.PENDING, TWICE, (CRITICAL, OK), seen(OK),
         Signal.PASSED),
        ("it cannot be confirmed any more", State.PENDING, TWICE, (CRITICAL, OK, OK), seen(OK),
         Signal.CLEARED),
        ("a doubt in between keeps the suspicion", State.PENDING, TWICE, (CRITICAL, UNKNOWN, OK),
         seen(OK), Signal.PASSED),
        ("it never failed", State.PENDING, TWICE, (UNKNOWN, OK), seen(OK), Signal.CLEARED),
        ("one look is enough to drop it", State.PENDING, ONCE, (OK,), seen(OK), Signal.CLEARED),
        ("passing while open", State.OPEN, ONCE, (OK,), seen(OK), Signal.PASSED),
    ],
)  # fmt: skip
def test_a_look_means(
    words: str,
    state: State,
    check: CheckPolicy,
    recent: tuple[Status, ...],
    finding: Finding,
    signal: Signal,
) -> None:
    one = incident(state, finding=finding, recent=recent)
    assert signal_of_look(one, check, Policy()) is signal, words


@pytest.mark.parametrize(
    ("passing_since", "looked", "signal"),
    [
        (100.0, 159.9, Signal.PASSED),
        (100.0, 160.0, Signal.STABLE),
        (None, 160.0, Signal.PASSED),
    ],
)
def test_probation_lasts_until_a_look_begins_after_it(
    passing_since: float | None, looked: float, signal: Signal
) -> None:
    one = incident(State.PROBATION, OK, passing_since=passing_since, looked=looked)
    assert signal_of_look(one, ONCE, Policy()) is signal
    assert signal_of_look(replace(one, state=State.VERIFYING), ONCE, Policy()) is Signal.PASSED


# Time


@pytest.mark.parametrize(
    ("words", "changes", "outcome", "deadline"),
    [
        ("a run that ended well gets its time", {}, Outcome.OK, 230.0),
        ("a run that failed gets none", {}, Outcome.FAILED, 200.0),
        ("nor does one that was lost", {}, Outcome.LOST, 200.0),
        ("nor one that ran out of time", {}, Outcome.TIMEOUT, 200.0),
        ("a subject on its way gets more", {"transition": "starting"}, Outcome.OK, 1100.0),
        ("not by a look of before", {"transition": "starting", "looked": 200.0}, Outcome.OK, 230.0),
    ],
)
def test_the_time_for_a_proof(
    words: str, changes: dict[str, Any], outcome: Outcome, deadline: float
) -> None:
    finding = seen(transition=changes.get("transition", ""))
    one = incident(
        State.VERIFYING, finding=finding, run_ended=200.0, looked=changes.get("looked", 210.0)
    )
    ended = run(state=RunState.ENDED, outcome=outcome)
    assert verify_deadline(one, ended, ONCE, POLICY) == deadline, words


def test_without_its_run_the_time_for_a_proof_counts_from_the_state() -> None:
    assert verify_deadline(incident(State.VERIFYING), None, ONCE, POLICY) == 130.0


def test_a_long_verification_is_not_cut_by_a_transition() -> None:
    patient = replace(ONCE, verify_for=2000.0)
    one = incident(
        State.VERIFYING, finding=seen(transition="starting"), run_ended=200.0, looked=210.0
    )
    assert verify_deadline(one, None, patient, POLICY) == 2200.0


@pytest.mark.parametrize(
    ("changes", "now", "overdue"),
    [
        ({"changes": Changes.DATA, "started": 100.0}, 159.0, False),
        ({"changes": Changes.DATA, "started": 100.0}, 160.0, True),
        ({"changes": Changes.DATA}, 500.0, False),
        ({"changes": Changes.FILES, "started": 100.0}, 500.0, False),
        ({"changes": Changes.DATA, "started": 100.0, "state": RunState.ENDED}, 500.0, False),
    ],
)
def test_only_a_run_on_data_can_be_overdue(
    changes: dict[str, Any], now: float, overdue: bool
) -> None:
    assert is_overdue(run(**changes), now) is overdue


FAILED_RUN = run(state=RunState.ENDED, outcome=Outcome.FAILED)
LONG_RUN = run(changes=Changes.DATA, state=RunState.RUNNING, started=100.0)


@pytest.mark.parametrize(
    ("words", "one", "of", "now", "signal"),
    [
        ("a suspicion in doubt", incident(State.PENDING, unclear_since=100.0), None, 699.0, None),
        ("a suspicion too long in doubt", incident(State.PENDING, unclear_since=100.0), None,
         700.0, Signal.CONFIRMED),
        ("a probation too long in doubt", incident(State.PROBATION, unclear_since=100.0), None,
         700.0, Signal.CONFIRMED),
        ("a clear suspicion", incident(State.PENDING), None, 9e9, None),
        ("an open incident in doubt", incident(State.OPEN, unclear_since=100.0), None, 9e9, None),
        ("a run within its time", incident(State.REPAIRING), LONG_RUN, 159.0, None),
        ("a run past its time", incident(State.REPAIRING), LONG_RUN, 160.0, Signal.HANDED_OVER),
        ("a run that is not known", incident(State.REPAIRING), None, 160.0, None),
        ("no look since the run", incident(State.VERIFYING, run_ended=100.0), None, 9e9, None),
        ("no end of the run", incident(State.VERIFYING), None, 9e9, None),
        ("still time for a proof", incident(State.VERIFYING, run_ended=99.0), None, 128.9, None),
        ("time for a proof is over", incident(State.VERIFYING, run_ended=99.0), None, 129.0,
         Signal.UNPROVED),
        ("a failed run needs no patience", incident(State.VERIFYING, run_ended=99.0), FAILED_RUN,
         101.0, Signal.UNPROVED),
        ("not to know is no proof", incident(State.VERIFYING, UNKNOWN, run_ended=99.0), None,
         129.0, Signal.UNPROVED),
        ("the proof is there already", incident(State.VERIFYING, OK, run_ended=99.0), None, 9e9,
         Signal.PASSED),
        ("an escalated incident waits", incident(State.ESCALATED), None, 9e9, None),
    ],
)  # fmt: skip
def test_time_means(
    words: str, one: Incident, of: Run | None, now: float, signal: Signal | None
) -> None:
    due = settle(one, of, ONCE, POLICY, now)
    assert (due and due[0]) == signal, words
