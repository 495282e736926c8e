"""What a drill comes to, by the incidents that it brought about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.core.drill import Drill, DrillOutcome, DrillState, abort_drill, judge_drill
from agent.core.model import Finding, Incident, ResolvedBy, State, Status

BEGAN = 1000.0
DRILL = Drill(
    id="d1",
    fault="kill-service",
    options={"unit": "web.service"},
    by="tester",
    ordered=BEGAN - 5,
    budget=60.0,
    checks=("web",),
    state=DrillState.UNDER_WAY,
    injected=BEGAN,
)


def incident(number: int = 1, **changes: Any) -> Incident:
    """A failure that was confirmed two seconds after the fault, and nothing was done yet."""
    finding = Finding(subject="web.service", status=Status.CRITICAL, cause="failed", summary="down")
    known = Incident(
        id=f"i{number}",
        check="web",
        subject="web.service",
        state=State.OPEN,
        finding=finding,
        looked=BEGAN + 1,
        before=finding,
        began=BEGAN,
        opened=BEGAN + 2,
        entered=BEGAN + 2,
        seen=BEGAN + 1,
        look_ended=BEGAN + 1.5,
    )
    return replace(known, **changes)


REPAIRED = incident(state=State.VERIFYING, run="r1", run_ended=BEGAN + 5)
PROVED = replace(REPAIRED, state=State.PROBATION, healed_by="r1", whole_by=BEGAN + 6)
BY_ITSELF = incident(state=State.RESOLVED, resolved_by=ResolvedBy.ITSELF, ended=BEGAN + 9)


def judge(*incidents: Incident, after: float = 10.0, **holds: str) -> Drill:
    return judge_drill(DRILL, incidents, holds, BEGAN + after)


def test_what_a_look_proved_passes_with_every_step_in_time() -> None:
    drill = judge(PROVED)
    assert (drill.state, drill.outcome) == (DrillState.ENDING, DrillOutcome.PASSED)
    assert (drill.detected, drill.healed, drill.verified) == (BEGAN + 2, BEGAN + 5, BEGAN + 6)
    assert drill.detail == "detected, healed and verified in 6.0 s"
    assert drill.incidents == ("i1",)


def test_an_incident_that_its_run_resolved_passes_too() -> None:
    done = replace(PROVED, state=State.RESOLVED, resolved_by=ResolvedBy.RUN, whole_by=None)
    assert judge(done).outcome is DrillOutcome.PASSED
    assert judge(done).verified == done.entered


def test_it_goes_on_while_anything_is_still_to_be_proved() -> None:
    for incidents in (
        (),
        (incident(),),
        (REPAIRED,),
        (PROVED, incident(2)),
        # By itself, and not yet for long enough.
        (incident(state=State.PROBATION),),
    ):
        assert judge(*incidents).outcome is None


def test_what_was_over_before_the_fault_is_none_of_it() -> None:
    assert judge(replace(PROVED, look_ended=BEGAN - 1)).outcome is None
    assert judge(incident(opened=None, state=State.PENDING)).incidents == ()


def test_what_ended_with_the_proof_of_another_does_not_hold_it_up() -> None:
    assert judge(PROVED, replace(BY_ITSELF, id="i10")).outcome is DrillOutcome.PASSED
    assert judge(replace(BY_ITSELF, id="i10"), PROVED).incidents == ("i1", "i10")


def test_what_comes_back_by_itself_proves_nothing() -> None:
    drill = judge(BY_ITSELF)
    assert drill.outcome is DrillOutcome.FAILED
    assert "repaired nothing" in drill.detail


def test_an_agent_that_needs_a_human_fails_at_once() -> None:
    drill = judge(incident(state=State.ESCALATED, why="restart-service failed"))
    assert drill.outcome is DrillOutcome.FAILED
    assert drill.detail == "hostmend needs a human: restart-service failed"


@pytest.mark.parametrize(
    ("incidents", "holds", "said"),
    [
        ((), {}, "not detected by web within 1 min"),
        ((incident(),), {}, "detected, and not repaired within 1 min"),
        ((incident(),), {"i1": "shadow: it only records"}, "not repaired (shadow: it only"),
        ((REPAIRED,), {}, "no look proved it"),
    ],
)
def test_a_budget_that_is_over_says_what_was_missing(
    incidents: tuple[Incident, ...], holds: dict[str, str], said: str
) -> None:
    assert judge(*incidents, after=59.9, **holds).outcome is None
    drill = judge(*incidents, after=60.0, **holds)
    assert drill.outcome is DrillOutcome.FAILED
    assert said in drill.detail


def test_a_host_that_looks_at_nothing_of_the_kind_is_told_so() -> None:
    blind = judge_drill(replace(DRILL, checks=()), (), {}, BEGAN + 60)
    assert "no check of this host could see it" in blind.detail


def test_only_a_fault_that_is_there_is_judged() -> None:
    for state in (DrillState.STARTING, DrillState.ENDING, DrillState.ENDED):
        other = replace(DRILL, state=state)
        assert judge_drill(other, (PROVED,), {}, BEGAN + 999) is other
    nowhere = replace(DRILL, injected=None)
    assert judge_drill(nowhere, (PROVED,), {}, BEGAN + 999) is nowhere


def test_what_is_judged_keeps_its_judgement_when_it_is_ended() -> None:
    passed = judge(PROVED)
    assert abort_drill(passed, "root ended it") is passed
    aborted = abort_drill(DRILL, "root ended it")
    assert (aborted.state, aborted.outcome) == (DrillState.ENDING, DrillOutcome.ABORTED)
    assert aborted.alive
    assert not replace(passed, state=DrillState.ENDED).alive
