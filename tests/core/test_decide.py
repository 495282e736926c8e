"""What follows from events, told as stories of one host."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from core_scene import EVERY_REASON, Scene, bare, check, step

from agent.core.decide import decide
from agent.core.model import (
    Changes,
    Confirm,
    Doubt,
    Finding,
    Hold,
    Host,
    Incident,
    LastLook,
    Looked,
    Mode,
    Ordered,
    Outcome,
    Reason,
    Reported,
    ResolvedBy,
    Risk,
    RoutePolicy,
    Run,
    RunEnded,
    RunStarted,
    RunState,
    Silence,
    State,
    Status,
    Tick,
    Verb,
)
from agent.errors import Conflict, Invalid, NotFound


def name_of_hold(scene: Scene, name: str = "web") -> Hold | None:
    held = scene.hold(name)
    return None if held is None else held.hold


# From a failure to its end


def test_a_killed_service_is_restarted_proved_watched_and_told_of() -> None:
    scene = Scene()
    scene.fails()
    assert scene.state() is State.REPAIRING
    scene.ends()
    assert scene.state() is State.VERIFYING
    assert scene.last.look == {"web"}
    scene.passes()
    assert scene.state() is State.PROBATION
    scene.keeps_passing(60)
    incident = scene.incident()
    assert incident.state is State.RESOLVED
    assert incident.resolved_by is ResolvedBy.RUN
    assert scene.host.incidents == ()
    assert [t.new for t in scene.transitions] == [
        State.PENDING,
        State.OPEN,
        State.REPAIRING,
        State.VERIFYING,
        State.PROBATION,
        State.RESOLVED,
    ]
    assert [t.old for t in scene.transitions] == [None, *[t.new for t in scene.transitions[:-1]]]
    assert scene.said() == ["healed"]
    (run,) = scene.host.runs
    assert run.proved
    assert run.outcome is Outcome.OK


def test_a_planned_run_carries_all_that_its_worker_needs() -> None:
    rung = step(
        key="restart-service#2",
        fills={"unit": "subject"},
        options={"validate": "nginx -t"},
        lock="unit:{unit}",
        risk=Risk.MEDIUM,
        changes=Changes.FILES,
        timeout=90.0,
        digest="d7",
    )
    scene = Scene(check("web", rung), act_alone_up_to=Risk.MEDIUM)
    scene.fails()
    (run,) = scene.runs
    assert run == Run(
        id="r2",
        remedy="restart-service",
        options={"unit": "web.service", "validate": "nginx -t"},
        risk=Risk.MEDIUM,
        changes=Changes.FILES,
        timeout=90.0,
        lock="unit:web.service",
        digest="d7",
        planned=scene.now,
        incident="i1",
        check="web",
        subject="web.service",
        step="restart-service#2",
    )
    assert scene.host.runs == (run,)
    assert scene.incident().run == "r2"
    assert scene.incident().why == "restart-service planned as r2"


def test_looks_that_pass_leave_nothing_behind() -> None:
    scene = Scene()
    scene.passes()
    assert scene.host.incidents == ()
    assert scene.transitions == []
    assert scene.host.looked["web"] == LastLook(began=scene.now, ended=scene.now, ok=True)
    assert scene.last.wake is None
    scene.warns()
    assert not scene.host.looked["web"].ok


def test_each_subject_has_its_own_incident() -> None:
    scene = Scene(bare("disk"))
    scene.looks(
        "disk",
        Finding(subject="/", status=Status.OK),
        Finding(subject="/var", status=Status.CRITICAL, cause="full"),
        Finding(subject="/srv", status=Status.WARNING, cause="full"),
    )
    assert [(i.subject, i.finding.status) for i in scene.host.incidents] == [
        ("/var", Status.CRITICAL),
        ("/srv", Status.WARNING),
    ]


def test_what_an_incident_knows_of_its_beginning() -> None:
    scene = Scene(bare("web"))
    scene.fails(since=900.0, summary="exited with 1")
    incident = scene.incident()
    assert (incident.began, incident.failing_since) == (900.0, 900.0)
    assert (incident.seen, incident.opened) == (scene.now, scene.now)
    assert scene.transitions[0].why == "exited with 1"
    scene.fails(since=950.0, summary="exited with 2")
    assert scene.incident().before.summary == "exited with 1", "evidence from before"


def test_a_finding_without_a_sentence_is_explained_by_its_cause() -> None:
    scene = Scene(bare("web"))
    scene.fails()
    assert [t.why for t in scene.transitions[:2]] == ["failed", "confirmed"]


def test_a_beginning_in_the_future_is_not_believed() -> None:
    scene = Scene(bare("web"))
    scene.fails(since=5000.0)
    assert scene.incident().began == scene.now


def test_until_it_is_confirmed_the_latest_failure_is_the_evidence() -> None:
    scene = Scene(bare("web", confirm=Confirm(times=2, of=3)))
    scene.warns(summary="slow")
    scene.is_unclear(summary="timed out")
    scene.fails(summary="dead")
    assert scene.incident().before.summary == "dead"


# Confirming


def test_two_of_three_looks_confirm_and_a_suspicion_is_looked_at_again_soon() -> None:
    scene = Scene(check(confirm=Confirm(times=2, of=3)))
    scene.fails()
    assert scene.state() is State.PENDING
    assert scene.last.wake == scene.now + 1.0
    scene.wait(1)
    assert scene.last.look == {"web"}
    scene.passes()
    assert scene.state() is State.PENDING
    scene.fails()
    assert scene.state() is State.REPAIRING


def test_a_suspicion_that_is_not_confirmed_is_dropped_without_a_word() -> None:
    scene = Scene(check(confirm=Confirm(times=2, of=3)))
    scene.fails()
    scene.passes()
    scene.passes()
    assert scene.state() is State.RESOLVED
    assert scene.incident().resolved_by is ResolvedBy.ITSELF
    assert scene.host.incidents == ()
    assert scene.said() == []


def test_a_fast_check_confirms_at_its_own_pace() -> None:
    scene = Scene(check(confirm=Confirm(times=2, of=3), every=0.5))
    scene.fails()
    assert scene.last.wake == scene.now + 0.5


def test_a_suspicion_looks_upstream_at_once() -> None:
    scene = Scene(bare("db"), check("web", confirm=Confirm(times=2, of=3), depends_on=("db",)))
    scene.fails("web")
    assert scene.last.look == {"db"}
    scene.passes("db")
    assert "db" not in scene.last.look


def test_what_never_failed_is_not_looked_at_faster() -> None:
    scene = Scene()
    scene.is_unclear()
    assert scene.state() is State.PENDING
    assert scene.last.look == frozenset()
    scene.wait(5)
    assert scene.last.look == frozenset()


# Late, stale, doubled


def test_a_look_that_began_before_the_runs_end_proves_nothing() -> None:
    scene = Scene()
    scene.fails()
    scene.starts()
    before = scene.now + 0.2
    scene.ends()
    scene.passes(began=before)
    assert scene.state() is State.VERIFYING
    assert scene.incident().finding.status is Status.OK, "but it is recorded"
    assert scene.last.look == {"web"}
    scene.sees(Status.OK, began=scene.now)
    assert scene.state() is State.PROBATION
    assert scene.incident().passing_since == scene.now


def test_a_look_that_began_at_the_very_end_of_the_run_proves_nothing_either() -> None:
    scene = Scene()
    scene.fails()
    scene.ends()
    scene.sees(Status.OK)
    assert scene.state() is State.VERIFYING
    assert scene.last.look == frozenset()
    assert scene.last.wake == scene.now + 0.25, "no busy loop of looks"


def test_looks_in_the_middle_of_a_run_are_recorded_and_change_nothing() -> None:
    scene = Scene()
    scene.fails()
    scene.starts()
    for late in (scene.passes, scene.fails, scene.is_unclear, scene.breaks):
        late()
        assert scene.state() is State.REPAIRING
    scene.passes(intended=True)
    assert scene.state() is State.REPAIRING
    scene.now += 1
    scene.looks("web")
    assert scene.state() is State.REPAIRING, "what a run does may hide the subject for a while"
    assert len(scene.runs) == 1
    scene.ends()
    scene.now += 1
    scene.looks("web")
    assert scene.state() is State.GONE


def test_a_run_whose_end_is_learnt_late_is_proved_by_the_look_that_is_known_already() -> None:
    scene = Scene()
    scene.fails()
    run = scene.starts()
    ended = scene.now + 1
    scene.now = ended
    scene.passes()
    scene.now += 500
    scene.send(RunEnded(run=run.id, outcome=Outcome.OK, ended=ended))
    assert scene.state() is State.PROBATION
    assert scene.incident().healed_by == run.id


def test_an_older_or_doubled_look_is_dropped() -> None:
    scene = Scene(check(confirm=Confirm(times=2, of=3)))
    scene.fails()
    first = scene.now
    scene.fails(began=first)
    scene.fails(began=first - 5)
    assert scene.state() is State.PENDING
    assert scene.incident().recent == (Status.CRITICAL,)


def test_an_older_look_opens_nothing_after_a_newer_one_passed() -> None:
    scene = Scene()
    scene.passes()
    for began in (scene.now, scene.now - 5):
        scene.fails(began=began)
        assert scene.host.incidents == ()


def test_where_the_last_look_is_forgotten_the_incident_still_knows_its_own() -> None:
    scene = Scene(bare("web"))
    scene.fails()
    scene.host = replace(scene.host, looked={})
    scene.sees(Status.OK, began=scene.now - 1)
    assert scene.incident().finding.status is Status.CRITICAL


def test_a_look_of_a_check_that_is_not_configured_is_dropped() -> None:
    scene = Scene()
    scene.fails("removed")
    assert scene.host == Host()


def test_a_run_ends_once() -> None:
    scene = Scene()
    scene.fails()
    run = scene.ends()
    host = scene.host
    scene.send(RunEnded(run=run.id, outcome=Outcome.FAILED, ended=scene.now))
    scene.send(RunEnded(run="r99", outcome=Outcome.OK, ended=scene.now))
    assert scene.host == host


@pytest.mark.parametrize(("ended", "recorded"), [(500.0, 1011.0), (1013.0, 1013.0), (9e9, 1020.0)])
def test_the_end_of_a_run_lies_between_its_start_and_now(ended: float, recorded: float) -> None:
    scene = Scene()
    scene.now = 1010.0
    scene.fails()
    run = scene.starts()
    scene.now = 1020.0
    scene.send(RunEnded(run=run.id, outcome=Outcome.OK, ended=ended, detail="done"))
    (known,) = scene.host.runs
    assert (known.ended, known.detail, known.state) == (recorded, "done", RunState.ENDED)
    assert scene.incident().run_ended == recorded


def test_a_run_that_never_started_ends_no_earlier_than_it_was_planned() -> None:
    scene = Scene()
    scene.fails()
    planned = scene.now
    scene.now += 5
    scene.send(RunEnded(run=scene.alive().id, outcome=Outcome.LOST, ended=0.0))
    (run,) = scene.host.runs
    assert (run.started, run.ended) == (None, planned)


def test_a_run_that_ends_well_calls_nobody_and_plans_no_slow_try() -> None:
    scene = Scene()
    scene.fails()
    scene.ends()
    assert scene.incident().retry_at is None


def test_a_run_starts_once() -> None:
    scene = Scene()
    scene.fails()
    run = scene.starts()
    assert scene.last.made == run.id
    assert scene.alive().started == scene.now
    for unknown in (run.id, "r99"):
        with pytest.raises(Conflict, match=f"cannot start run {unknown}: it is not planned"):
            scene.send(RunStarted(run=unknown))


# Verification


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.LOST, Outcome.TIMEOUT])
def test_a_run_that_did_not_end_well_leads_to_verification_and_then_on(outcome: Outcome) -> None:
    scene = Scene()
    scene.fails()
    scene.ends(outcome)
    assert scene.state() is State.VERIFYING
    assert len(scene.runs) == 1, "never straight to a second run"
    scene.fails()
    assert scene.state() is State.OPEN
    assert scene.incident().why == "still critical after the run"
    assert scene.incident().retry_at is None
    assert name_of_hold(scene) is Hold.COOLING_DOWN
    scene.wait(10)
    assert len(scene.runs) == 2


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.LOST, Outcome.TIMEOUT])
def test_what_passes_after_a_run_that_did_not_end_well_ended_by_itself(outcome: Outcome) -> None:
    scene = Scene()
    scene.fails()
    scene.ends(outcome)
    scene.passes()
    assert scene.state() is State.PROBATION
    assert scene.incident().healed_by is None
    scene.keeps_passing(60)
    assert scene.incident().resolved_by is ResolvedBy.ITSELF
    assert not scene.host.runs[0].proved


def test_a_run_that_ended_well_has_its_time_to_be_proved() -> None:
    scene = Scene()
    scene.fails()
    scene.ends()
    scene.keeps_failing(25)
    assert scene.state() is State.VERIFYING
    scene.wait(5)
    assert len(scene.runs) == 2
    assert scene.state() is State.REPAIRING


def test_without_a_look_since_its_end_a_run_is_not_judged() -> None:
    scene = Scene()
    scene.fails()
    scene.ends()
    scene.wait(600)
    assert scene.state() is State.VERIFYING
    assert scene.last.look == {"web"}
    scene.fails()
    assert scene.state() is State.REPAIRING


def test_not_to_know_does_not_end_a_verification_well() -> None:
    scene = Scene()
    scene.fails()
    scene.ends()
    scene.is_unclear()
    assert scene.state() is State.VERIFYING
    scene.wait(30)
    assert scene.state() is State.OPEN
    assert scene.incident().why == "still unknown after the run"
    assert name_of_hold(scene) is Hold.NO_REMEDY
    assert len(scene.runs) == 1


def test_crash_recovery_prolongs_a_verification() -> None:
    scene = Scene()
    scene.fails()
    scene.ends()
    scene.fails(transition="in crash recovery")
    scene.wait(600)
    assert scene.state() is State.VERIFYING
    scene.wait(300)
    assert scene.state() is State.OPEN
    assert name_of_hold(scene) is Hold.TRANSITION


def test_looks_of_a_verification_begin_quickly_and_become_slower() -> None:
    scene = Scene(check(every=10.0, verify_for=100.0))
    scene.fails()
    scene.ends()
    ended, asked = scene.now, []
    for _ in range(14):
        while not scene.last.look:
            assert scene.last.wake is not None
            scene.now = scene.last.wake
            scene.send(Tick())
        assert scene.last.look == {"web"}
        asked.append(scene.now - ended)
        scene.now += 0.125
        scene.sees(Status.CRITICAL, cause="failed", began=scene.now - 0.125)
    gaps = [late - early for early, late in pairwise(asked)]
    assert asked[0] == 0.0
    assert gaps[0] == 0.375
    assert gaps == sorted(gaps)
    assert gaps[-1] == 2.125


# The ladder


def test_failing_in_probation_continues_the_ladder_with_its_attempts() -> None:
    scene = Scene(check("web", step("restart"), step("rebuild", attempts=1)), runs_per_hour=99)
    for remedies in (["restart"], ["restart"] * 2, ["restart"] * 2 + ["rebuild"]):
        scene.fails()
        scene.wait(10)
        if scene.state() is State.OPEN:
            scene.fails()
        assert scene.remedies() == remedies
        scene.heals()
        scene.keeps_passing(20)
        assert scene.state() is State.PROBATION
    scene.fails()
    assert scene.state() is State.ESCALATED
    assert scene.incident().why == "every remedy was tried: restart 2 x, rebuild 1 x"


def test_one_doubtful_look_in_probation_begins_it_again() -> None:
    scene = Scene()
    scene.fails()
    scene.heals()
    scene.keeps_passing(50)
    scene.is_unclear()
    assert scene.state() is State.PROBATION
    scene.keeps_passing(50)
    assert scene.state() is State.PROBATION
    scene.keeps_passing(15)
    assert scene.state() is State.RESOLVED
    assert scene.incident().resolved_by is ResolvedBy.RUN


def test_one_failing_look_in_probation_of_two_needed_begins_it_again() -> None:
    scene = Scene(check(confirm=Confirm(times=2, of=3)))
    scene.fails()
    scene.fails()
    scene.heals()
    scene.fails()
    assert scene.state() is State.PROBATION, "what failed before the run does not count any more"
    assert scene.last.wake == scene.now + 1
    scene.fails()
    assert scene.state() is State.OPEN


def test_probation_is_looked_at_when_it_is_over() -> None:
    scene = Scene(check(every=600.0))
    scene.fails()
    scene.heals()
    passing = scene.now
    scene.wait(59.9)
    assert scene.last.look == frozenset()
    scene.wait(0.1)
    assert scene.last.look == {"web"}
    scene.sees(Status.OK)
    assert scene.state() is State.RESOLVED
    assert scene.now == passing + 60


def test_probation_that_cannot_be_told_for_too_long_is_opened_and_not_acted_on() -> None:
    scene = Scene()
    scene.fails()
    scene.heals()
    scene.is_unclear()
    scene.wait(600)
    assert scene.state() is State.OPEN
    assert scene.incident().why == "no look could tell for too long"
    assert len(scene.runs) == 1
    assert scene.said() == ["opened"]


def test_a_service_that_dies_after_each_start_is_escalated_once_and_retried_slowly() -> None:
    scene = Scene(runs_per_hour=99, remind_after=1e9)
    planned = []
    dies = None
    for _ in range(20000):
        if scene.last.runs:
            planned.append(scene.now)
            scene.heals()
            dies = scene.now + 20
        elif dies is not None and scene.now >= dies:
            scene.fails()
            dies = None
        elif dies is None:
            scene.wait(29)
            scene.fails()
        else:
            scene.wait(5)
            scene.passes()
        if len(planned) == 7:
            break
    assert scene.said().count("escalated") == 1
    assert scene.said().count("healed") == 0
    waits = [late - early for early, late in pairwise(planned)]
    assert waits[0] < 60, "the ladder's own attempts"
    for wait, wanted in zip(waits[1:], (1800, 3600, 7200, 14400, 21600), strict=True):
        assert wanted <= wait < wanted + 90
    assert len({run.incident for run in scene.runs}) == 1


def test_healed_every_few_minutes_is_impossible_across_incidents() -> None:
    scene = Scene(check(stable_for=30.0), runs_per_hour=99)
    for _ in range(2):
        scene.fails()
        scene.heals()
        scene.keeps_passing(30)
    assert scene.said() == ["healed", "healed"]
    scene.fails()
    assert scene.state() is State.ESCALATED
    assert scene.incident().retry_at == scene.now + 1800, "and it is tried again, slowly"
    scene.wait(10)
    assert scene.said()[2:] == ["escalated"]
    scene.wait(1790)
    scene.fails()
    assert scene.state() is State.REPAIRING
    assert scene.incident().retries == 1


def test_attempts_are_forgotten_after_their_window() -> None:
    scene = Scene(check("web", step(attempts=1), stable_for=30.0), attempts_window=3600.0)
    for _ in range(3):
        scene.fails()
        assert scene.state() is State.REPAIRING
        scene.heals()
        scene.keeps_passing(30)
        scene.wait(3600)
    assert len(scene.runs) == 3


def test_waits_stop_growing() -> None:
    scene = Scene()
    scene.fails()
    run = scene.starts()
    (incident,) = scene.host.incidents
    scene.host = replace(scene.host, incidents=(replace(incident, retries=100_000),))
    scene.send(RunEnded(run=run.id, outcome=Outcome.NEEDS_HUMAN, ended=scene.now))
    assert scene.incident().retry_at == scene.now + 6 * 3600


@pytest.mark.parametrize("outcome", [Outcome.NEEDS_HUMAN, Outcome.CANCELLED])
def test_a_run_that_asks_for_a_human_or_was_cancelled_escalates(outcome: Outcome) -> None:
    scene = Scene(check("web", step("first"), step("second")))
    scene.fails()
    scene.ends(outcome)
    assert scene.state() is State.ESCALATED
    scene.keeps_failing(1700)
    assert scene.remedies() == ["first"]
    scene.keeps_failing(110)
    assert scene.remedies() == ["first", "first"]


def test_an_escalated_incident_that_passes_is_watched_and_ends_by_itself() -> None:
    scene = Scene(bare("web"))
    scene.fails()
    scene.passes()
    assert scene.state() is State.PROBATION
    scene.keeps_passing(60)
    assert scene.incident().resolved_by is ResolvedBy.ITSELF


def test_a_pass_from_the_middle_of_a_cancelled_run_does_not_end_the_call_for_a_human() -> None:
    scene = Scene()
    scene.fails()
    scene.starts()
    before = scene.now
    scene.ends(Outcome.CANCELLED)
    scene.passes(began=before + 0.1)
    assert scene.state() is State.ESCALATED
    scene.passes()
    assert scene.state() is State.PROBATION


# Data


LONG = step("repair-database", changes=Changes.DATA, timeout=60.0)


def overdue() -> Scene:
    scene = Scene(check("web", LONG))
    scene.fails()
    scene.starts()
    scene.wait(60)
    return scene


def test_a_run_on_data_past_its_time_escalates_while_it_works_on() -> None:
    scene = overdue()
    assert scene.state() is State.ESCALATED
    assert scene.alive().id == "r2"
    assert scene.said() == ["opened", "escalated"]
    assert name_of_hold(scene) is Hold.BUSY
    why = "run r2 works on past its time; only an operator may end it"
    assert scene.notices[-1].details["why"] == why
    scene.passes()
    assert scene.state() is State.ESCALATED, "its looks prove nothing yet"
    scene.wait(7200)
    assert len(scene.runs) == 1
    scene.heals()
    assert scene.state() is State.PROBATION
    scene.keeps_passing(60)
    assert scene.incident().resolved_by is ResolvedBy.RUN


def test_an_overdue_run_that_is_cancelled_leaves_the_call_for_a_human() -> None:
    scene = overdue()
    scene.ends(Outcome.CANCELLED)
    assert scene.state() is State.ESCALATED
    assert scene.incident().why == "repair-database ended cancelled"
    assert scene.incident().retry_at == scene.now + 1800


def test_an_overdue_run_cannot_be_closed_or_retried_over() -> None:
    scene = overdue()
    for verb in (Verb.CLOSE, Verb.RETRY, Verb.APPROVE, Verb.REJECT):
        with pytest.raises(Conflict, match="run r2 is alive; wait for it or cancel it first"):
            scene.orders(verb, "i1")


def test_a_run_on_a_service_past_its_time_is_its_jobs_to_end() -> None:
    scene = Scene()
    scene.fails()
    scene.starts()
    scene.wait(600)
    assert scene.state() is State.REPAIRING


# Intentions, ends


def test_an_operators_stop_ends_the_incident() -> None:
    scene = Scene(bare("web"))
    scene.fails()
    scene.wait(10)
    scene.passes(intended=True, summary="stopped by systemctl")
    incident = scene.incident()
    assert incident.state is State.RESOLVED
    assert incident.resolved_by is ResolvedBy.OPERATOR
    assert incident.after is not None
    assert incident.after.intended
    assert incident.why == "stopped by systemctl"
    assert scene.said() == ["escalated", "ended"]


@pytest.mark.parametrize("status", list(Status))
def test_what_an_operator_wants_is_no_failure_whatever_the_look_calls_it(status: Status) -> None:
    scene = Scene()
    scene.sees(status, intended=True)
    assert scene.host.incidents == ()
    assert scene.host.looked["web"].intended == ("web.service",)


def test_an_operators_stop_holds_its_dependants_until_it_is_over() -> None:
    scene = Scene(check("db"), check("web", depends_on=("db",)))
    scene.now += 1
    scene.passes("db", intended=True)
    scene.fails("web")
    assert name_of_hold(scene) is Hold.INTENTION
    scene.keeps_failing(600)
    scene.passes("db")
    assert len(scene.runs) == 1


def test_a_subject_that_a_look_no_longer_reports_is_gone() -> None:
    scene = Scene(bare("web"))
    scene.fails()
    scene.now += 1
    scene.looks("web")
    assert scene.state() is State.GONE
    assert scene.incident().resolved_by is None
    assert scene.host.incidents == ()
    assert scene.said() == []


def test_a_look_that_breaks_is_not_complete_and_says_nothing_of_health() -> None:
    scene = Scene(bare("web"))
    scene.fails()
    scene.breaks(why="connection refused")
    finding = scene.incident().finding
    assert (finding.status, finding.cause) == (Status.UNKNOWN, "broken look")
    assert (finding.subject, finding.summary) == ("web.service", "connection refused")
    assert not scene.host.looked["web"].ok
    assert len(scene.host.incidents) == 1


def test_a_look_that_breaks_where_nothing_failed_is_a_suspicion_of_its_own() -> None:
    scene = Scene()
    scene.breaks()
    incident = scene.incident()
    assert (incident.subject, incident.finding.status) == ("", Status.UNKNOWN)
    assert incident.finding.cause == "broken look"
    scene.breaks()
    assert len(scene.host.incidents) == 1
    scene.passes()
    assert scene.state() is State.GONE
    assert scene.host.incidents == ()


def test_a_look_that_breaks_keeps_what_it_saw() -> None:
    scene = Scene(bare("disk"))
    scene.now += 1
    scene.looks(
        "disk",
        Finding(subject="", status=Status.WARNING, cause="full"),
        Finding(subject="/var", status=Status.CRITICAL, cause="full"),
        broken="a mount hangs",
    )
    assert [(i.subject, i.finding.cause) for i in scene.host.incidents] == [
        ("", "full"),
        ("/var", "full"),
    ]


# Upstream


def test_a_dead_service_waits_for_the_look_at_the_disk_behind_it() -> None:
    disk = check("disk", step("clean-disk", causes=("full",)))
    scene = Scene(disk, check("web", depends_on=("disk",)), runs_per_hour=99)
    scene.fails("web")
    assert name_of_hold(scene) is Hold.LOOKING_UPSTREAM
    assert scene.last.look == {"disk"}
    scene.sees(Status.CRITICAL, "disk", cause="full")
    assert scene.remedies() == ["clean-disk"]
    assert name_of_hold(scene) is Hold.INHIBITED
    scene.ends()
    scene.passes("disk")
    assert name_of_hold(scene) is Hold.LOOKING_UPSTREAM
    scene.wait(0.5)
    assert "web" in scene.last.look
    scene.fails("web")
    assert scene.remedies() == ["clean-disk", "restart-service"]


def test_a_dependant_that_recovers_with_its_upstream_is_not_repaired() -> None:
    scene = Scene(check("db"), check("web", depends_on=("db",)))
    scene.fails("db")
    scene.fails("web")
    scene.heals("db")
    scene.passes("web")
    scene.keeps_passing(60, "web")
    assert scene.incident("web").resolved_by is ResolvedBy.ITSELF
    assert [run.check for run in scene.runs] == ["db"]


def test_an_upstream_that_is_just_starting_still_holds_its_dependants() -> None:
    scene = Scene(bare("db"), check("web", depends_on=("db",)))
    scene.fails("db")
    scene.fails("web")
    scene.sees(Status.UNKNOWN, "db", cause="starting", transition="starting")
    assert scene.runs == []
    scene.passes("db")
    assert scene.runs == []
    scene.passes("web")
    assert scene.state("web") is State.PROBATION


def test_a_look_from_before_the_upstream_was_surely_whole_starts_no_run() -> None:
    scene = Scene(bare("db"), check("web", depends_on=("db",)))
    scene.fails("db")
    scene.fails("web")
    # The upstream came up at some moment of this look; in between the dependant was asked.
    scene.now += 3.0
    scene.sees(Status.CRITICAL, cause="failed", began=scene.now - 1.0)
    scene.sees(Status.OK, "db", began=scene.now - 2.0)
    assert scene.runs == []
    held = scene.hold("web")
    assert held is not None
    assert "was mended since" in held.detail
    scene.passes("web")
    assert scene.incident("web").state is State.PROBATION


def test_looking_upstream_does_not_delay_a_run_for_long() -> None:
    scene = Scene(check("db"), check("web", depends_on=("db",)))
    scene.fails("web")
    scene.wait(4.9)
    assert scene.runs == []
    scene.wait(0.1)
    assert [run.check for run in scene.runs] == ["web"]


def test_an_upstream_that_cannot_be_mended_does_not_hold_for_ever() -> None:
    scene = Scene(bare("disk"), check("web", depends_on=("disk",)))
    scene.fails("disk")
    scene.fails("web")
    scene.keeps_failing(890, "web")
    assert scene.runs == []
    scene.keeps_failing(20, "web")
    assert [run.check for run in scene.runs] == ["web"]


def test_an_old_finding_is_looked_at_again_before_acting() -> None:
    scene = Scene()
    scene.orders(Verb.PAUSE)
    scene.fails()
    scene.wait(100)
    assert scene.last.look == frozenset(), "nothing would come of it yet"
    scene.orders(Verb.RESUME)
    assert scene.runs == []
    assert name_of_hold(scene) is Hold.LOOKING_UPSTREAM
    assert scene.last.look == {"web"}
    scene.fails()
    assert len(scene.runs) == 1


def test_waiting_incidents_are_planned_root_most_first() -> None:
    scene = Scene(check("web", depends_on=("db",)), check("db"), check("old"), upstream_for=0.0)
    scene.orders(Verb.PAUSE)
    for name in ("old", "web", "db"):
        scene.fails(name)
    scene.orders(Verb.RESUME)
    assert [run.check for run in scene.runs] == ["old"]
    scene.ends()
    assert [run.check for run in scene.runs] == ["old", "db"]


# Transitions


def test_a_host_in_transition_holds_until_it_is_over() -> None:
    scene = Scene()
    scene.now += 1
    finding = Finding(subject="web.service", status=Status.CRITICAL, cause="failed")
    scene.looks("web", finding, transition="booting")
    assert name_of_hold(scene) is Hold.TRANSITION
    assert scene.last.wake == scene.now + 5
    scene.wait(5)
    assert scene.last.look == {"web"}
    scene.fails()
    assert len(scene.runs) == 1


def test_a_transition_that_is_not_seen_again_is_not_believed_for_ever() -> None:
    scene = Scene(check(), bare("db"))
    scene.now += 1
    scene.looks("db", transition="dpkg at work")
    scene.fails()
    assert scene.host.transition == ""
    scene.now += 1
    scene.looks("db", transition="dpkg at work")
    scene.wait(899)
    assert scene.host.transition == "dpkg at work"
    scene.wait(1)
    assert (scene.host.transition, scene.host.transition_seen) == ("", None)


def test_a_unit_that_is_still_starting_is_not_acted_on() -> None:
    scene = Scene()
    scene.fails(transition="starting")
    assert name_of_hold(scene) is Hold.TRANSITION
    scene.fails()
    assert len(scene.runs) == 1


# Pause, silence


def test_pause_stops_runs_and_nothing_else() -> None:
    scene = Scene()
    scene.orders(Verb.PAUSE, until=None, why="deploying")
    scene.fails()
    assert scene.state() is State.OPEN
    scene.keeps_failing(20)
    assert scene.said() == ["opened"]
    assert scene.notices[0].details["hold_detail"] == "anna paused all runs: deploying"
    scene.orders(Verb.RESUME)
    assert len(scene.runs) == 1


def test_a_pause_with_an_end_ends() -> None:
    scene = Scene()
    scene.orders(Verb.PAUSE, until=scene.now + 100)
    scene.wait(80)
    scene.fails()
    assert scene.runs == []
    scene.wait(19)
    assert scene.host.paused is None
    assert len(scene.runs) == 1


def test_a_pause_lets_a_run_that_is_alive_end() -> None:
    scene = Scene()
    scene.fails()
    scene.orders(Verb.PAUSE)
    scene.heals()
    scene.keeps_passing(60)
    assert scene.said() == ["healed"]


def silence(scene: Scene, **changes: Any) -> Silence:
    first = {"id": "", "starts": scene.now, "ends": scene.now + 100, "by": "", "checks": ("*",)}
    return Silence(**{**first, **changes})


def test_a_silence_does_not_stop_runs_but_maintenance_does() -> None:
    quiet = Scene()
    quiet.orders(Verb.SILENCE, silence=silence(quiet))
    quiet.fails()
    assert len(quiet.runs) == 1

    closed = Scene()
    closed.orders(Verb.SILENCE, silence=silence(closed, runs=True))
    closed.fails()
    assert closed.runs == []
    assert name_of_hold(closed) is Hold.SILENCED
    closed.keeps_failing(95)
    assert closed.said() == []
    closed.keeps_failing(5)
    assert len(closed.runs) == 1


def test_a_silence_is_numbered_and_signed() -> None:
    scene = Scene()
    scene.orders(Verb.SILENCE, silence=silence(scene))
    assert scene.last.made == "s1"
    (known,) = scene.host.silences
    assert (known.id, known.by) == ("s1", "anna")
    scene.wait(100)
    assert scene.host.silences == ()


def test_a_silence_that_begins_later_wakes() -> None:
    scene = Scene(check(mode=Mode.SHADOW))
    scene.orders(Verb.SILENCE, silence=silence(scene, starts=scene.now + 50, runs=True))
    assert scene.last.wake == scene.now + 50


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("it ends before it starts", {"starts": 1200.0, "ends": 1100.0}),
        ("it is over", {"starts": 1.0, "ends": 1000.0}),
        ("it is for nothing", {"checks": ()}),
        ("it is for subjects of nothing", {"checks": (), "subjects": ("web.service",)}),
    ],
)
def test_a_silence_that_makes_no_sense_is_refused(words: str, changes: dict[str, Any]) -> None:
    scene = Scene()
    with pytest.raises(Invalid, match="cannot silence"):
        scene.orders(Verb.SILENCE, silence=silence(scene, **changes))
    with pytest.raises(Invalid, match="cannot silence"):
        scene.orders(Verb.SILENCE)
    assert scene.host == Host(), words


def test_a_silence_that_does_not_exist_cannot_be_ended() -> None:
    scene = Scene()
    scene.orders(Verb.SILENCE, silence=silence(scene))
    with pytest.raises(NotFound, match="cannot end silence s9: there is none"):
        scene.orders(Verb.END_SILENCE, "s9")
    scene.orders(Verb.END_SILENCE, "s1")
    assert scene.host.silences == ()
    assert scene.last.made == "s1"


# Budget, slots


def test_the_budget_holds_for_an_hour_and_manual_runs_are_not_counted() -> None:
    scene = Scene(check("a"), check("b"), check("c"), runs_per_hour=2)
    scene.orders(Verb.RUN, step=step("by-hand"))
    scene.ends()
    scene.fails("a")
    scene.ends()
    scene.fails("b")
    scene.ends()
    first = scene.runs[1].planned
    scene.fails("c")
    assert name_of_hold(scene, "c") is Hold.OVER_BUDGET
    held = scene.hold("c")
    assert held is not None
    assert held.until == first + 3600
    scene.passes("a")
    scene.passes("b")
    scene.keeps_failing(first + 3600 - scene.now - 10, "c")
    assert len(scene.runs) == 3
    scene.keeps_failing(10, "c")
    assert [run.check for run in scene.runs] == ["", "a", "b", "c"]


def test_one_run_at_a_time_and_the_next_one_at_once() -> None:
    scene = Scene(check("a"), check("b"))
    scene.fails("a")
    scene.fails("b")
    assert name_of_hold(scene, "b") is Hold.BUSY
    assert [run.check for run in scene.runs] == ["a"]
    scene.ends()
    assert [run.check for run in scene.runs] == ["a", "b"]


def test_two_slots_run_two_things_but_never_one_lock() -> None:
    locked = step(lock="db")
    scene = Scene(check("a", locked), check("b", locked), check("c"), slots=2)
    for name in "abc":
        scene.fails(name)
    assert [run.check for run in scene.runs] == ["a", "c"]
    scene.ends(run=scene.runs[0])
    assert [run.check for run in scene.runs] == ["a", "c", "b"]


# Orders


def test_a_run_by_hand_takes_the_slot_and_is_nobodys_attempt() -> None:
    scene = Scene(check("web", step(attempts=1)))
    by_hand = step("restart-service", options={"unit": "web"}, lock="unit:{unit}")
    scene.orders(Verb.RUN, step=by_hand, preview=True)
    run = scene.alive()
    assert scene.last.made == run.id
    assert (run.by, run.preview, run.incident, run.lock) == ("anna", True, None, "unit:web")
    with pytest.raises(Conflict, match=r"cannot run restart-service: run r1 .* holds unit:web;"):
        scene.orders(Verb.RUN, step=by_hand)
    scene.fails()
    assert name_of_hold(scene) is Hold.BUSY
    scene.ends()
    assert [run.by for run in scene.runs] == ["anna", ""]
    assert scene.state() is State.REPAIRING


def test_a_run_by_hand_needs_a_remedy() -> None:
    with pytest.raises(Invalid, match="cannot run: no remedy is named"):
        Scene().orders(Verb.RUN)


APPROVED = step(risk=Risk.HIGH, fills={"unit": "subject"})


def test_an_approved_run_starts_and_the_approval_is_used_up() -> None:
    scene = Scene(check("web", APPROVED))
    scene.fails()
    assert name_of_hold(scene) is Hold.APPROVAL
    scene.orders(Verb.APPROVE, "i1", digest="d1")
    assert scene.last.made == "i1"
    assert scene.state() is State.REPAIRING
    assert scene.incident().approval is None
    scene.ends(Outcome.FAILED)
    scene.fails()
    scene.wait(10)
    assert name_of_hold(scene) is Hold.APPROVAL


def test_an_approval_of_what_changed_since_is_refused() -> None:
    scene = Scene(check("web", APPROVED))
    scene.fails()
    with pytest.raises(Conflict, match="restart-service changed since it was shown"):
        scene.orders(Verb.APPROVE, "i1", digest="d0")
    assert scene.incident().approval is None


def test_an_approval_needs_a_finding_that_fails() -> None:
    scene = Scene(check("web", step(mode=Mode.APPROVE)))
    scene.warns()
    with pytest.raises(Conflict, match="its finding is warning now"):
        scene.orders(Verb.APPROVE, "i1")


def test_an_approval_must_be_used_in_its_time() -> None:
    scene = Scene(check("web", APPROVED), approval_for=100.0)
    scene.orders(Verb.PAUSE)
    scene.fails()
    scene.orders(Verb.APPROVE, "i1")
    given = scene.incident().approval
    assert given is not None
    assert (given.by, given.until) == ("anna", scene.now + 100)
    assert dict(given.options) == {"unit": "web.service"}
    assert scene.last.wake is not None
    scene.keeps_failing(100)
    scene.orders(Verb.RESUME)
    assert scene.runs == []


def test_an_approval_does_not_hold_for_another_playbook() -> None:
    scene = Scene(check("web", APPROVED))
    scene.orders(Verb.PAUSE)
    scene.fails()
    scene.orders(Verb.APPROVE, "i1")
    scene.reconfigure(check("web", replace(APPROVED, digest="d2")))
    scene.orders(Verb.RESUME)
    assert name_of_hold(scene) is Hold.APPROVAL


def test_an_approval_of_an_escalated_incident_does_not_wait() -> None:
    scene = Scene(check("web", replace(APPROVED, attempts=1)))
    scene.fails()
    scene.orders(Verb.APPROVE, "i1")
    scene.ends(Outcome.FAILED)
    scene.fails()
    assert scene.state() is State.ESCALATED
    scene.orders(Verb.APPROVE, "i1")
    assert scene.state() is State.REPAIRING
    assert scene.incident().retries == 1


def test_a_rejected_remedy_gives_way_to_the_next_and_then_to_a_human() -> None:
    scene = Scene(check("web", APPROVED, step("second", risk=Risk.HIGH)))
    scene.fails()
    scene.orders(Verb.REJECT, "i1")
    assert scene.incident().rejected == ("restart-service",)
    held = scene.hold()
    assert held is not None
    assert held.detail == "second (high risk) needs approval"
    scene.orders(Verb.REJECT, "i1")
    assert scene.state() is State.ESCALATED
    assert scene.incident().why == "an operator rejected restart-service, second"
    with pytest.raises(Conflict, match="cannot reject incident i1: an operator rejected"):
        scene.orders(Verb.REJECT, "i1")
    scene.orders(Verb.RETRY, "i1")
    assert scene.incident().rejected == ()
    assert name_of_hold(scene) is Hold.APPROVAL


def test_a_rejection_takes_back_an_approval() -> None:
    scene = Scene(check("web", APPROVED))
    scene.orders(Verb.PAUSE)
    scene.fails()
    scene.orders(Verb.APPROVE, "i1")
    scene.orders(Verb.REJECT, "i1")
    assert scene.incident().approval is None


def test_a_retry_starts_the_ladder_again_at_once() -> None:
    scene = Scene(check("web", step(attempts=1)))
    scene.fails()
    with pytest.raises(Conflict, match="cannot retry incident i1: it is repairing, not escalated"):
        scene.orders(Verb.RETRY, "i1")
    scene.ends(Outcome.FAILED)
    scene.fails()
    assert scene.state() is State.ESCALATED
    scene.orders(Verb.RETRY, "i1")
    assert scene.state() is State.REPAIRING


def test_a_retry_without_a_remedy_is_refused() -> None:
    scene = Scene(bare("web"))
    scene.fails()
    host = scene.host
    with pytest.raises(Conflict, match="cannot retry incident i1: no remedy is configured"):
        scene.orders(Verb.RETRY, "i1")
    assert scene.host == host


def test_an_operator_closes_an_incident_and_a_later_failure_opens_another() -> None:
    scene = Scene(bare("web"))
    scene.fails()
    scene.wait(10)
    scene.orders(Verb.CLOSE, "i1")
    assert scene.incident().resolved_by is ResolvedBy.OPERATOR
    assert scene.said() == ["escalated", "ended"]
    assert scene.notices[-1].details == {"why": "closed by anna"}
    scene.fails()
    assert scene.incident().id != "i1"


def test_what_is_being_repaired_cannot_be_closed() -> None:
    scene = Scene()
    scene.fails()
    with pytest.raises(Conflict, match="cannot close incident i1: run r2 is alive"):
        scene.orders(Verb.CLOSE, "i1")


@pytest.mark.parametrize(
    "verb", [Verb.ACKNOWLEDGE, Verb.APPROVE, Verb.REJECT, Verb.RETRY, Verb.CLOSE]
)
def test_an_order_for_an_unknown_incident_is_refused(verb: Verb) -> None:
    with pytest.raises(NotFound, match="cannot find incident i9: no open incident has this id"):
        Scene().orders(verb, "i9")


def ended_in_silence() -> Scene:
    """An incident that is kept only until its end may be told."""
    scene = Scene(bare("web"))
    scene.warns()
    scene.wait(10)
    scene.orders(Verb.SILENCE, silence=silence(scene, ends=scene.now + 1000))
    scene.passes()
    scene.keeps_passing(60)
    assert scene.state() is State.RESOLVED
    assert scene.host.incidents != ()
    return scene


@pytest.mark.parametrize("verb", [Verb.APPROVE, Verb.REJECT, Verb.CLOSE])
def test_an_order_for_an_incident_that_ended_is_refused(verb: Verb) -> None:
    scene = ended_in_silence()
    with pytest.raises(Conflict, match="it is resolved already"):
        scene.orders(verb, "i1")


def test_an_incident_that_only_waits_to_be_told_of_stands_in_nobodys_way() -> None:
    scene = ended_in_silence()
    scene.warns()
    assert [(i.id, i.state) for i in scene.host.incidents] == [
        ("i1", State.RESOLVED),
        (scene.incident().id, State.OPEN),
    ]
    scene.passes()
    scene.keeps_passing(60)
    scene.reconfigure(bare("other"))
    assert scene.last.look == frozenset()
    scene.wait(1000)
    assert scene.host.incidents == ()


def test_an_order_for_a_check_that_was_just_removed_is_refused() -> None:
    scene = Scene(check(mode=Mode.APPROVE))
    scene.fails()
    emptied = replace(scene.policy, checks={})
    with pytest.raises(Conflict, match="cannot approve: check web is not configured any more"):
        decide(scene.host, Ordered(verb=Verb.APPROVE, by="anna", target="i1"), emptied, scene.now)


# Modes


def test_shadow_records_once_what_it_would_have_done() -> None:
    scene = Scene(check("web", step("first"), mode=Mode.SHADOW))
    scene.fails()
    scene.keeps_failing(60)
    recorded = [t for t in scene.transitions if t.old is t.new]
    assert [t.why for t in recorded] == ["in shadow: would run first"]
    assert scene.incident().shadowed == ("first",)
    assert scene.runs == []
    scene.passes()
    scene.keeps_passing(60)
    assert scene.incident().resolved_by is ResolvedBy.ITSELF


def test_off_calls_a_human() -> None:
    scene = Scene(mode=Mode.OFF)
    scene.fails()
    assert scene.state() is State.ESCALATED
    assert scene.incident().why == "the mode is off"
    scene.reconfigure(mode=Mode.AUTO)
    assert scene.state() is State.REPAIRING


# A new configuration


def test_a_check_that_is_removed_takes_its_incident_along() -> None:
    scene = Scene(bare("web"), bare("db"))
    scene.fails("web")
    scene.passes("db")
    scene.wait(10)
    scene.reconfigure(bare("db"))
    assert scene.state("web") is State.GONE
    assert scene.incident("web").why == "its check is not configured any more"
    assert set(scene.host.looked) == {"db"}
    assert scene.said() == ["escalated", "ended"]


def test_a_check_that_is_removed_while_it_is_repaired_leaves_the_run_to_end() -> None:
    scene = Scene(check("web"), check("db"))
    scene.fails("web")
    run = scene.starts()
    scene.reconfigure(check("db"))
    assert scene.state("web") is State.GONE
    scene.fails("db")
    assert name_of_hold(scene, "db") is Hold.BUSY
    scene.ends(run=run)
    assert [run.check for run in scene.runs] == ["web", "db"]


def test_a_new_remedy_acts_on_an_escalated_incident() -> None:
    scene = Scene(bare("web"))
    scene.fails()
    assert scene.state() is State.ESCALATED
    scene.reconfigure(check("web"))
    assert scene.state() is State.REPAIRING


def test_a_new_remedy_acts_on_an_incident_whose_ladder_was_tried() -> None:
    scene = Scene(check("web", step(attempts=1)))
    scene.fails()
    scene.ends(Outcome.FAILED)
    scene.fails()
    assert scene.state() is State.ESCALATED
    scene.wait(10)
    scene.reconfigure(check("web", step(attempts=1), step("rebuild")))
    assert scene.remedies() == ["restart-service", "rebuild"]


# Bookkeeping


def test_runs_are_forgotten_when_nothing_counts_them_any_more() -> None:
    scene = Scene()
    scene.orders(Verb.RUN, step=step())
    scene.ends()
    ended = scene.now
    assert scene.last.wake == ended + 24 * 3600
    scene.wait(24 * 3600 - 1)
    assert len(scene.host.runs) == 1
    scene.wait(1)
    assert scene.host.runs == ()
    assert scene.last.wake is None


def test_the_run_of_an_incident_is_kept_as_long_as_it() -> None:
    scene = Scene(check("web", step(attempts=1)), retry_after=9e9, retry_at_most=9e9)
    scene.fails()
    scene.ends(Outcome.NEEDS_HUMAN)
    scene.wait(48 * 3600)
    assert len(scene.host.runs) == 1
    scene.passes()
    scene.keeps_passing(60)
    assert scene.state() is State.RESOLVED
    assert scene.host.runs == ()


def test_a_run_that_is_alive_is_never_forgotten() -> None:
    scene = Scene()
    scene.orders(Verb.RUN, step=step())
    scene.starts()
    scene.wait(90 * 24 * 3600)
    assert len(scene.host.runs) == 1


def test_an_incident_whose_run_is_not_known_still_ends() -> None:
    scene = Scene()
    scene.fails()
    scene.ends()
    scene.host = replace(scene.host, runs=())
    scene.passes()
    assert scene.incident().healed_by is None
    scene.keeps_passing(60)
    assert scene.incident().resolved_by is ResolvedBy.ITSELF


def test_a_proof_of_a_run_that_was_forgotten_meanwhile_still_counts() -> None:
    scene = Scene()
    scene.fails()
    scene.heals()
    scene.host = replace(scene.host, runs=())
    scene.now += 60
    scene.passes()
    assert scene.incident().resolved_by is ResolvedBy.RUN
    assert scene.said() == ["healed"]


def test_a_run_for_another_incident_does_not_move_this_one() -> None:
    scene = Scene(check("a"), check("b"), slots=2)
    scene.fails("a")
    scene.fails("b")
    scene.ends(run=scene.runs[1])
    assert scene.state("a") is State.REPAIRING
    assert scene.state("b") is State.VERIFYING


def test_an_end_of_a_run_that_is_not_the_incidents_changes_only_the_run() -> None:
    scene = Scene()
    scene.fails()
    (incident,) = scene.host.incidents
    other = replace(scene.host.runs[0], id="r9")
    scene.host = replace(scene.host, runs=(*scene.host.runs, other))
    scene.send(RunEnded(run="r9", outcome=Outcome.OK, ended=scene.now))
    assert scene.host.incidents == (incident,)


def test_numbers_are_never_given_twice() -> None:
    scene = Scene(check("a"), check("b"))
    for _ in range(3):
        for name in "ab":
            scene.fails(name)
            scene.wait(10)
            scene.passes(name)
            scene.keeps_passing(60, name)
    ids = [i.id for i in scene.ended] + [r.id for r in scene.runs] + [n.id for n in scene.notices]
    numbers = [int(one[1:]) for one in ids]
    assert len(set(numbers)) == len(numbers)
    assert max(numbers) == scene.host.serial


def test_nothing_on_a_quiet_host_asks_to_be_woken() -> None:
    decision = decide(Host(), Tick(), Scene().policy, 5.0)
    assert decision.wake is None
    assert decision.look == frozenset()
    assert decision.host == Host()


def test_a_look_that_arrives_while_nothing_is_wrong_leaves_incidents_of_others_alone() -> None:
    scene = Scene(bare("a"), bare("b"))
    scene.fails("a")
    incident: Incident = scene.incident("a")
    scene.send(Looked(check="b", began=scene.now, ended=scene.now, findings=()))
    assert scene.incident("a") == incident


# The agent itself


AGENT = RoutePolicy(name="agent", reasons=(Reason.AGENT,))
OTHER = RoutePolicy(name="other", reasons=(Reason.HEALED,))


@pytest.mark.parametrize(
    ("words", "routes", "doubt", "told"),
    [
        ("all that name it", (OTHER, EVERY_REASON, AGENT), "", ["ops", "agent"]),
        ("somebody, where none names it", (OTHER, replace(OTHER, name="b")), "", ["other"]),
        ("nobody, where there is nobody", (), "", []),
        ("one only while in doubt", (OTHER, EVERY_REASON, AGENT), "a clone", ["ops"]),
    ],
)
def test_what_the_agent_reports_of_itself_reaches(
    words: str, routes: tuple[RoutePolicy, ...], doubt: str, told: list[str]
) -> None:
    scene = Scene(routes=routes, notice_for=100.0)
    scene.send(Reported(summary="the state was lost", severity=Status.WARNING, doubt=doubt))
    assert [n.route for n in scene.notices] == told, words
    assert len({n.id for n in scene.notices}) == len(told)
    assert scene.host.serial == len(told)
    for notice in scene.notices:
        assert (notice.reason, notice.incident) == (Reason.AGENT, None)
        assert notice.details == {"summary": "the state was lost", "severity": "warning"}
        assert (notice.created, notice.due, notice.expires) == (1000.0, 1000.0, 1100.0)


def test_a_host_in_doubt_neither_acts_nor_tells_until_it_is_confirmed() -> None:
    scene = Scene()
    scene.send(Reported(summary="the state was lost", doubt="another machine"))
    scene.fails()
    held = scene.hold()
    assert held is not None
    assert held.hold is Hold.PAUSED
    assert held.detail.startswith("this host is not confirmed (another machine):")
    scene.keeps_failing(600)
    assert scene.said() == ["agent"]
    with pytest.raises(Conflict, match=r"cannot run restart-service: this host is not confirmed"):
        scene.orders(Verb.RUN, step=step())
    scene.orders(Verb.RUN, step=step(), preview=True)
    scene.ends()
    scene.fails()
    scene.orders(Verb.CONFIRM)
    assert scene.host.doubt is None
    assert scene.state() is State.REPAIRING
    assert scene.said() == ["agent", "opened"]
    with pytest.raises(Conflict, match="cannot confirm this host: nothing is in doubt"):
        scene.orders(Verb.CONFIRM)


def test_the_same_doubt_is_reported_once() -> None:
    scene = Scene()
    for doubt in ("a clone", "a clone", "the state was lost"):
        scene.now += 1
        scene.send(Reported(summary="look here", doubt=doubt))
    assert scene.said() == ["agent", "agent"]
    assert scene.host.doubt == Doubt(why="the state was lost", since=scene.now)


def test_failures_in_doubt_are_a_storm_only_once_it_is_confirmed() -> None:
    scene = Scene(*[check(f"c{n}", mode=Mode.SHADOW) for n in range(5)])
    scene.send(Reported(summary="look here", doubt="a clone"))
    for n in range(5):
        scene.fails(f"c{n}")
    scene.wait(20)
    assert scene.host.storm is None
    scene.orders(Verb.CONFIRM)
    assert scene.host.storm is not None
    scene.wait(10)
    assert scene.said() == ["agent", "storm"]


def test_what_the_evidence_names_is_looked_at_before_acting() -> None:
    scene = Scene(bare("disk"), check("web"))
    scene.now += 1
    scene.looks("disk", Finding(subject="/var", status=Status.OK, resource="filesystem:/var"))
    scene.fails("web", implicates=("filesystem:/var",))
    assert name_of_hold(scene) is Hold.LOOKING_UPSTREAM
    assert scene.last.look == {"disk"}
    scene.passes("disk", resource="filesystem:/var")
    assert len(scene.runs) == 1
