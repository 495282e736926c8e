"""What somebody is asked: put once, about one thing, and what they said yes to is what runs."""

from __future__ import annotations

from typing import Any

import pytest
from core_scene import Scene, check, mute, step

from agent.core.model import Hold, Mode, Outcome, Question, Reason, Risk, State, Verb

ASKING = step(
    risk=Risk.HIGH,
    fills={
        "unit": "subject",
        "why": "cause",
        "percent": "measurements.used",
        "left": "measurements.left",
    },
    causes=("failed", "full"),
)


def make_scene(*ladder: Any, **policy: Any) -> Scene:
    return Scene(check("web", *(ladder or (ASKING,))), **policy)


def fails(scene: Scene, used: float, **changes: Any) -> None:
    scene.fails(measurements={"used": used, "left": 100.0 - used}, **changes)


def question(scene: Scene) -> Question:
    asked = scene.incident().question
    assert asked is not None
    return asked


def test_what_is_measured_changes_and_the_question_does_not() -> None:
    scene = make_scene()
    for used in range(20):
        fails(scene, 80.0 + used)
    assert scene.said() == ["approval"]
    assert question(scene).options == {
        "unit": "web.service", "why": "failed", "percent": 80.0, "left": 20.0,
    }  # fmt: skip


def test_what_was_shown_is_what_runs() -> None:
    scene = make_scene()
    fails(scene, 80.0)
    scene.wait(10)
    shown = scene.notices[0].details["options"]
    fails(scene, 99.0)
    scene.orders(Verb.APPROVE, scene.incident().id)
    (run,) = scene.runs
    assert shown == "left=20.0, percent=80.0, unit=web.service, why=failed"
    assert run.options == {"unit": "web.service", "why": "failed", "percent": 80.0, "left": 20.0}


def test_a_measurement_that_is_missing_later_changes_nothing() -> None:
    scene = make_scene()
    fails(scene, 80.0)
    scene.wait(10)
    scene.fails()
    assert question(scene).options["percent"] == 80.0
    assert scene.said() == ["approval"]


def test_another_cause_is_another_question() -> None:
    scene = make_scene()
    fails(scene, 80.0)
    scene.wait(10)
    fails(scene, 85.0, cause="full")
    assert scene.said() == ["approval", "approval"]
    assert question(scene).options["why"] == "full"
    assert question(scene).options["percent"] == 85.0


def test_another_value_in_the_ladder_is_another_question() -> None:
    scene = make_scene(step(risk=Risk.HIGH, options={"validate": "nginx -t"}))
    scene.fails()
    scene.wait(10)
    scene.reconfigure(check("web", step(risk=Risk.HIGH, options={"validate": "true"})))
    assert [n.details["options"] for n in scene.notices] == ["validate=nginx -t", "validate=true"]


def test_a_measured_option_that_the_ladder_fixes_is_no_measurement() -> None:
    fixed = {"fills": {"percent": "measurements.used"}, "risk": Risk.HIGH}
    scene = make_scene(step(options={"percent": 50}, **fixed))
    fails(scene, 80.0)
    scene.wait(10)
    scene.reconfigure(check("web", step(options={"percent": 60}, **fixed)))
    assert [n.details["options"] for n in scene.notices] == ["percent=50", "percent=60"]


def test_a_yes_before_the_question_was_put_is_for_what_was_there_then() -> None:
    scene = make_scene()
    scene.orders(Verb.PAUSE)
    fails(scene, 80.0)
    scene.orders(Verb.APPROVE, scene.incident().id)
    fails(scene, 90.0)
    scene.orders(Verb.RESUME)
    (run,) = scene.runs
    assert run.options["percent"] == 80.0


def test_a_second_run_is_another_question() -> None:
    scene = make_scene()
    fails(scene, 80.0)
    scene.wait(10)
    scene.orders(Verb.APPROVE, scene.incident().id)
    scene.ends(Outcome.FAILED)
    fails(scene, 90.0)
    scene.wait(10)
    assert scene.said() == ["approval", "approval"]
    assert question(scene).options["percent"] == 90.0


def test_what_is_refused_is_no_question_any_more() -> None:
    scene = make_scene(ASKING, step("second", risk=Risk.HIGH))
    fails(scene, 80.0)
    scene.wait(10)
    scene.orders(Verb.REJECT, scene.incident().id)
    assert question(scene).step == "second"
    assert [n.details["remedy"] for n in scene.notices] == ["restart-service", "second"]


def test_what_needs_no_word_any_more_runs_with_what_is_measured_now() -> None:
    scene = make_scene()
    fails(scene, 80.0)
    scene.wait(10)
    fails(scene, 90.0)
    scene.reconfigure(act_alone_up_to=Risk.HIGH)
    (run,) = scene.runs
    assert run.options["percent"] == 90.0


def test_a_failure_that_comes_back_asks_the_same_question_once() -> None:
    scene = make_scene()
    fails(scene, 80.0)
    scene.wait(10)
    for _ in range(3):
        scene.passes()
        fails(scene, 85.0)
        scene.wait(30)
    assert scene.said() == ["approval"]


def test_a_question_lapses_from_when_it_was_put() -> None:
    scene = make_scene(approval_for=600.0)
    scene.orders(Verb.PAUSE)
    for _ in range(100):
        scene.wait(4)
        fails(scene, 80.0)
    scene.orders(Verb.RESUME)
    scene.wait(599)
    assert scene.state() is State.OPEN
    scene.wait(1)
    assert scene.state() is State.ESCALATED


def test_nobody_is_blamed_for_not_answering_what_a_silence_kept_from_them() -> None:
    scene = make_scene(approval_for=600.0)
    mute(scene, 3600)
    fails(scene, 80.0)
    scene.wait(3598)
    assert (scene.state(), scene.said()) == (State.OPEN, [])
    scene.wait(1)
    assert scene.said() == ["approval"]
    scene.wait(600)
    assert scene.said() == ["approval", "escalated"]
    assert scene.state() is State.ESCALATED


def test_a_question_that_has_lapsed_stands_as_things_were_then() -> None:
    scene = make_scene(approval_for=600.0)
    fails(scene, 80.0)
    scene.wait(10)
    fails(scene, 90.0)
    scene.wait(700)
    assert scene.state() is State.ESCALATED
    fails(scene, 95.0)
    assert question(scene).options["percent"] == 90.0
    scene.orders(Verb.APPROVE, scene.incident().id)
    (run,) = scene.runs
    assert run.options["percent"] == 90.0
    assert scene.said() == ["approval", "escalated"]


@pytest.mark.parametrize("storm_at", [2, 5])
def test_a_hidden_value_is_shown_to_nobody(storm_at: int) -> None:
    secret = step(risk=Risk.HIGH, options={"pin": "4711", "unit": "x"}, hidden=frozenset({"pin"}))
    scene = Scene(check("web", secret), check("db", secret), storm_at=storm_at)
    scene.fails("web")
    scene.fails("db")
    scene.wait(10)
    told = str([notice.details for notice in scene.notices])
    assert "pin=***" in told
    assert "4711" not in told
    scene.orders(Verb.APPROVE, scene.incident("web").id)
    assert scene.runs[0].options["pin"] == "4711"


def test_in_approve_mode_every_step_asks() -> None:
    scene = Scene(check("web", step(), mode=Mode.APPROVE))
    scene.fails()
    held = scene.hold()
    assert held is not None
    assert held.hold is Hold.APPROVAL
    scene.wait(10)
    assert scene.notices[0].reason is Reason.APPROVAL
