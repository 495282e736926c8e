"""Many failures at once: one message when it began, one when it is over, nothing beside them."""

from __future__ import annotations

from typing import Any

import pytest
from core_scene import EVERY_REASON, Scene, bare, check, mute, step

from agent.core.model import (
    CheckPolicy,
    Hold,
    Mode,
    Notice,
    Outcome,
    Reason,
    ResolvedBy,
    RoutePolicy,
    State,
    Status,
    Verb,
)


def five(**changes: Any) -> list[CheckPolicy]:
    return [check(f"c{n}", **changes) for n in range(5)]


def fail_all(scene: Scene, *names: str, **changes: Any) -> None:
    for name in names or [f"c{n}" for n in range(5)]:
        scene.fails(name, **changes)


def mend_all(scene: Scene) -> None:
    """Every run that is alive ends well, and looks prove it for long enough."""
    for run in [run for run in scene.host.runs if run.alive]:
        scene.ends(run=run)
    for _ in range(3):
        for name in scene.policy.checks:
            scene.passes(name)
        scene.wait(5)


def storms(scene: Scene) -> list[Notice]:
    """Each message must be about the host."""
    assert all(notice.reason is Reason.STORM for notice in scene.notices)
    return scene.notices


def told(scene: Scene, name: str) -> str:
    """How the last message says that the incident of a check stands."""
    text = scene.notices[-1].details[scene.incident(name).id]
    return text.rpartition(" (")[2].removesuffix(")")


# What is a storm


def test_many_failures_at_once_are_one_message() -> None:
    scene = Scene(*five(mode=Mode.SHADOW))
    for n in range(5):
        scene.fails(f"c{n}", summary=f"c{n} is dead")
    assert scene.host.storm is not None
    scene.wait(5)
    assert scene.said() == []
    scene.wait(5)
    (notice,) = storms(scene)
    assert notice.incident is None
    assert notice.details["storm"] == "began"
    assert notice.details["incidents_count"] == "5"
    assert notice.details["needed_count"] == "0"
    words = "c0 c0.service: c0 is dead (is not repaired now: shadow, would run restart-service)"
    assert notice.details[scene.incident("c0").id] == words


def test_four_failures_are_no_storm_nor_are_five_that_are_far_apart() -> None:
    scene = Scene(*five(mode=Mode.SHADOW))
    for n in range(4):
        scene.fails(f"c{n}")
    scene.wait(60)
    scene.fails("c4")
    assert scene.host.storm is None
    assert scene.said() == ["opened"] * 4


def test_warnings_are_no_storm() -> None:
    scene = Scene(*five(mode=Mode.SHADOW))
    for n in range(5):
        scene.warns(f"c{n}")
    assert scene.host.storm is None


def test_failures_that_were_mended_at_once_count_too() -> None:
    scene = Scene(*five())
    for n in range(5):
        scene.fails(f"c{n}")
        scene.heals(f"c{n}")
    assert scene.host.storm is not None
    assert scene.host.storm.members == {i.id for i in scene.host.incidents}


def test_the_window_of_a_storm_is_over_when_it_is_over() -> None:
    scene = Scene(*five(mode=Mode.SHADOW), storm_at=2, storm_window=30.0)
    scene.fails("c0")
    scene.wait(29)
    scene.fails("c1")
    assert scene.host.storm is None
    scene.wait(28)
    scene.fails("c2")
    assert scene.host.storm is not None
    assert scene.incident("c0").id not in scene.host.storm.members


def test_silenced_failures_make_no_storm() -> None:
    scene = Scene(*five(mode=Mode.SHADOW))
    mute(scene, 600, checks=("c0",))
    fail_all(scene)
    assert scene.host.storm is None


def test_an_old_failure_is_no_part_of_it_and_speaks_for_itself() -> None:
    scene = Scene(bare("old", stable_for=5.0), *five(mode=Mode.SHADOW))
    scene.fails("old")
    scene.wait(100)
    assert scene.said() == ["escalated"]
    fail_all(scene)
    scene.wait(10)
    assert scene.incident("old").id not in scene.notices[-1].details
    scene.passes("old")
    scene.wait(5)
    scene.passes("old")
    assert scene.said("old") == ["escalated", "ended"]
    assert scene.host.storm is not None


def test_what_fails_later_belongs_to_it_and_is_told_at_its_end() -> None:
    scene = Scene(*five(mode=Mode.SHADOW), bare("late"), bare("mild"))
    fail_all(scene)
    scene.wait(30)
    scene.fails("late")
    scene.warns("mild")
    scene.wait(59)
    assert [n.details["storm"] for n in storms(scene)] == ["began"]
    scene.wait(1)
    assert [n.details["storm"] for n in storms(scene)] == ["began", "ended"]
    assert told(scene, "late").startswith("you are needed: no remedy")
    assert told(scene, "mild").startswith("is not repaired now: no remedy, warning")
    scene.wait(600)
    assert len(storms(scene)) == 2


def test_in_a_storm_only_the_root_most_is_repaired() -> None:
    deep = [check(name, depends_on=("ok",)) for name in "ab"]
    scene = Scene(*deep, check("root"), bare("ok"), slots=5, storm_at=3, upstream_for=0.0)
    scene.orders(Verb.PAUSE)
    fail_all(scene, "a", "b", "root")
    scene.orders(Verb.RESUME)
    assert [run.check for run in scene.runs] == ["root"]
    held = scene.hold("a")
    assert held is not None
    assert held.hold is Hold.STORM
    scene.heals("root")
    assert [run.check for run in scene.runs] == ["root", "a", "b"]


# Its end


def test_a_storm_that_passes_ends_with_one_message() -> None:
    scene = Scene(*five(stable_for=5.0, mode=Mode.SHADOW))
    fail_all(scene)
    scene.wait(10)
    mend_all(scene)
    assert [scene.state(f"c{n}") for n in range(5)] == [State.RESOLVED] * 5
    assert len(storms(scene)) == 1, "more may join it yet"
    scene.wait(60)
    _, ended = storms(scene)
    assert ended.details["storm"] == "ended"
    assert (ended.details["incidents_count"], ended.details["ended_count"]) == ("5", "5")
    assert told(scene, "c0") == "works again by itself"
    assert scene.host.incidents == ()
    assert scene.host.storm is None


def test_a_storm_that_is_repaired_within_the_wait_is_one_message_in_all() -> None:
    scene = Scene(*five(stable_for=0.0), slots=5)
    fail_all(scene)
    mend_all(scene)
    scene.wait(600)
    (notice,) = storms(scene)
    assert notice.details["storm"] == "passed"
    assert told(scene, "c0") == "repaired, proved"
    assert {i.resolved_by for i in scene.ended} == {ResolvedBy.RUN}
    assert all("healed" in i.said for i in scene.ended)
    assert scene.host.incidents == ()


def test_a_storm_that_was_over_before_anybody_was_told_leaves_people_alone() -> None:
    scene = Scene(*five(stable_for=0.0, mode=Mode.SHADOW))
    fail_all(scene)
    mend_all(scene)
    scene.wait(600)
    assert scene.said() == []
    assert scene.host.storm is None
    assert scene.host.incidents == ()


def test_while_everything_works_again_its_message_waits() -> None:
    scene = Scene(*five(stable_for=600.0), slots=5)
    fail_all(scene)
    mend_all(scene)
    scene.wait(100)
    assert scene.said() == []
    scene.fails("c0")
    assert [n.details["storm"] for n in storms(scene)] == ["began"]
    assert told(scene, "c0") == "is being repaired"
    assert told(scene, "c1") == "works again, is being watched"


def test_what_was_mended_before_its_message_is_told_in_it() -> None:
    scene = Scene(*five(stable_for=0.0), slots=5)
    fail_all(scene)
    scene.ends(run=scene.runs[0])
    scene.passes("c0")
    scene.passes("c0")
    assert scene.state("c0") is State.RESOLVED
    scene.wait(10)
    (notice,) = storms(scene)
    assert notice.details["ended_count"] == "1"
    assert told(scene, "c0") == "repaired, proved"
    mend_all(scene)
    scene.wait(60)
    assert [n.details["storm"] for n in storms(scene)] == ["began", "ended"]
    last = storms(scene)[-1].details
    assert (last["incidents_count"], last["ended_count"]) == ("5", "5"), "all of it, also c0"


def test_a_storm_lasts_while_a_repair_of_it_is_not_proved() -> None:
    names = ("a", "b", "c")
    scene = Scene(
        *(check(name, stable_for=5.0) for name in names),
        storm_at=3, group_wait=3.0, storm_window=4.0,
    )  # fmt: skip
    fail_all(scene, *names)
    scene.wait(4)
    for name in names:
        scene.fails(name)
        # It is well again before its run has ended.
        scene.passes(name)
        assert scene.state(name) is State.REPAIRING
        scene.heals(name)
        scene.keeps_passing(10, name)
    assert [n.details["storm"] for n in storms(scene)] == ["began", "ended"]


def test_a_storm_ends_at_last_even_if_hostmend_is_still_at_work() -> None:
    scene = Scene(*five())
    fail_all(scene)
    began = scene.now
    scene.starts()
    for _ in range(180):
        scene.wait(4)
        for n in range(1, 5):
            scene.fails(f"c{n}", began=scene.now)
    scene.wait(900)
    assert scene.host.storm is None
    assert [n.details["storm"] for n in scene.notices[:2]] == ["began", "ended"]
    assert scene.notices[1].created == began + 900


def test_the_same_failures_are_no_second_storm() -> None:
    scene = Scene(*five(mode=Mode.SHADOW), inhibit_for=20.0, storm_window=600.0)
    fail_all(scene)
    scene.wait(1000)
    assert [n.details["storm"] for n in storms(scene)] == ["began", "ended"]


def test_a_storm_that_its_time_ends_before_the_wait_is_told_at_once() -> None:
    scene = Scene(*five(mode=Mode.SHADOW), inhibit_for=20.0, group_wait=100.0)
    fail_all(scene)
    scene.wait(1000)
    assert [n.details["storm"] for n in storms(scene)] == ["passed"]


def test_the_books_are_kept_until_its_end_only() -> None:
    scene = Scene(*five(stable_for=0.0), slots=5)
    fail_all(scene)
    mend_all(scene)
    assert len(scene.host.incidents) == 5
    scene.wait(60)
    assert scene.host.incidents == ()


# What its messages say in place of others


def test_a_storm_that_needs_somebody_says_so_and_nothing_else_does() -> None:
    scene = Scene(*[bare(f"c{n}") for n in range(5)])
    fail_all(scene)
    scene.wait(300)
    began, ended = storms(scene)
    assert (began.details["storm"], began.details["needed_count"]) == ("began", "5")
    assert (ended.details["storm"], ended.details["needed_count"]) == ("ended", "5")
    assert told(scene, "c0") == "you are needed: no remedy is configured for failed"
    assert all("escalated" in i.said for i in scene.host.incidents)
    assert scene.host.storm is None
    scene.wait(24 * 3600)
    assert scene.said() == ["storm"] * 2 + ["escalated"] * 5, "reminders follow"


def test_its_first_message_asks_what_must_be_asked() -> None:
    scene = Scene(*five(mode=Mode.APPROVE))
    fail_all(scene)
    scene.wait(10)
    (notice,) = storms(scene)
    ids = [scene.incident(f"c{n}").id for n in range(5)]
    assert notice.details["asked"].split() == ids
    assert notice.details["needed_count"] == "5"
    assert told(scene, "c0") == "low risk) waits for your word"
    scene.wait(1800)
    assert [n.details["storm"] for n in storms(scene)] == ["began", "ended"]
    scene.wait(1800)
    assert scene.said() == ["storm"] * 2 + ["escalated"] * 5


def test_a_question_that_comes_later_is_put_in_its_last_message() -> None:
    ladder = (step(attempts=1), step("reboot", mode=Mode.APPROVE))
    scene = Scene(*[check(f"c{n}", *ladder) for n in range(5)], slots=5, runs_per_hour=50)
    fail_all(scene)
    scene.wait(10)
    for run in scene.runs:
        scene.ends(Outcome.FAILED, run=run)
    for _ in range(20):
        fail_all(scene)
    assert [n.details["storm"] for n in storms(scene)] == ["began", "ended"]
    assert scene.notices[-1].details["needed_count"] == "5"
    assert told(scene, "c0") == "low risk) waits for your word"
    assert all(i.question is not None and i.question.asked for i in scene.host.incidents)
    scene.wait(300)
    assert len(storms(scene)) == 2


def test_what_recurs_is_told_in_its_last_message() -> None:
    scene = Scene(*five(stable_for=0.0), slots=5, recurring_after=1)
    fail_all(scene)
    scene.wait(10)
    mend_all(scene)
    scene.wait(60)
    assert [n.details["storm"] for n in storms(scene)] == ["began", "ended"]
    assert told(scene, "c0") == "repaired, proved, 1 times of late"
    assert all("recurring" in i.said for i in scene.ended)


def test_an_operator_who_closes_an_incident_of_it_is_not_told_twice() -> None:
    scene = Scene(*five(stable_for=600.0), slots=5)
    fail_all(scene)
    scene.wait(10)
    for run in scene.runs:
        scene.ends(run=run)
    for n in range(5):
        scene.passes(f"c{n}")
    for n in range(5):
        scene.orders(Verb.CLOSE, scene.incident(f"c{n}").id)
    scene.wait(60)
    assert [n.details["storm"] for n in storms(scene)] == ["began", "ended"]
    assert told(scene, "c0") == "over: closed by anna"
    assert scene.host.incidents == ()
    assert all("ended" in i.said for i in scene.ended)


def test_what_a_message_said_of_a_hold_is_not_said_again() -> None:
    scene = Scene(*five(), mode=Mode.SHADOW)
    fail_all(scene)
    scene.wait(3600)
    assert [n.details["storm"] for n in storms(scene)] == ["began", "ended"]


def test_another_hold_after_it_is_news() -> None:
    scene = Scene(*five(), mode=Mode.SHADOW)
    fail_all(scene)
    scene.wait(100)
    scene.orders(Verb.PAUSE)
    scene.wait(600)
    assert scene.said() == ["storm"] * 2 + ["held"] * 5


def test_who_needs_somebody_comes_first() -> None:
    scene = Scene(*five(mode=Mode.SHADOW), bare("last"))
    fail_all(scene, *[f"c{n}" for n in range(5)], "last")
    scene.wait(10)
    ids = [key for key in scene.notices[-1].details if key.startswith("i") and key[1:].isdigit()]
    assert ids[0] == scene.incident("last").id


# Silences


def test_an_incident_that_is_silenced_meanwhile_speaks_after_the_silence() -> None:
    scene = Scene(*five(stable_for=0.0), slots=5)
    fail_all(scene)
    mute(scene, 600, checks=("c0",))
    scene.wait(10)
    assert scene.incident("c0").id not in scene.notices[-1].details
    for name in ("c1", "c2", "c3", "c4"):
        scene.ends(run=next(r for r in scene.host.runs if r.alive and r.check == name))
        scene.passes(name)
        scene.passes(name)
    scene.wait(60)
    assert scene.host.storm is None
    assert [n.details["storm"] for n in storms(scene)] == ["began", "ended"]
    assert scene.notices[-1].details["incidents_count"] == "4"
    scene.ends(Outcome.FAILED)
    scene.keeps_failing(600, "c0")
    assert scene.said("c0") != []


def test_a_storm_that_is_silenced_whole_is_no_storm_any_more() -> None:
    scene = Scene(*five(mode=Mode.SHADOW))
    fail_all(scene)
    scene.wait(10)
    mute(scene, 600)
    assert scene.host.storm is None
    scene.wait(500)
    assert scene.said() == ["storm"]


# Who is told


@pytest.mark.parametrize(
    ("words", "reasons", "ladder", "messages"),
    [
        ("who asks for storms", (Reason.STORM,), (), ["began", "ended"]),
        ("who asks for failures", (Reason.OPENED,), (), ["began"]),
        ("who asks for calls for a human", (Reason.ESCALATED,), (), ["began"]),
        ("who asks for questions", (Reason.APPROVAL,), (step(mode=Mode.APPROVE),), ["began"]),
        ("who asks for what is held", (Reason.HELD,), (step(mode=Mode.SHADOW),), ["began"]),
        ("who asks for repairs only", (Reason.HEALED,), (), []),
        ("who asks for the agent only", (Reason.AGENT,), (), []),
    ],
)
def test_who_would_have_had_a_message_has_the_storms(
    words: str, reasons: tuple[Reason, ...], ladder: tuple[Any, ...], messages: list[str]
) -> None:
    route = RoutePolicy(name="ops", reasons=reasons)
    checks = [CheckPolicy(name=f"c{n}", ladder=ladder) for n in range(5)]
    scene = Scene(*checks, routes=(route,))
    fail_all(scene)
    scene.wait(300)
    assert [n.details["storm"] for n in storms(scene)] == messages, words


def test_who_asks_for_repairs_has_its_last_message() -> None:
    routes = (RoutePolicy(name="ops", reasons=(Reason.HEALED, Reason.RECURRING)),)
    scene = Scene(*five(stable_for=0.0), slots=5, routes=routes)
    fail_all(scene)
    scene.wait(10)
    mend_all(scene)
    scene.wait(60)
    assert [n.details["storm"] for n in storms(scene)] == ["ended"]


def test_who_asks_for_other_labels_has_none() -> None:
    mine = RoutePolicy(name="mine", reasons=(Reason.ESCALATED,), labels={"team": "shop"})
    others = [bare(f"c{n}") for n in range(5)]
    scene = Scene(*others, bare("shop", labels={"team": "shop"}), routes=(EVERY_REASON, mine))
    fail_all(scene)
    scene.wait(10)
    assert [n.route for n in storms(scene)] == ["ops"]
    scene.fails("shop")
    scene.wait(60)
    assert [n.route for n in storms(scene)] == ["ops", "ops", "mine"]


def test_its_messages_keep_their_order() -> None:
    scene = Scene(*[bare(f"c{n}") for n in range(5)])
    fail_all(scene)
    scene.wait(300)
    assert {notice.order for notice in storms(scene)} == {"storm"}
    assert scene.host.storm is None


def test_warnings_that_join_do_not_keep_it_going() -> None:
    scene = Scene(*[bare(f"c{n}") for n in range(5)], bare("mild"))
    fail_all(scene)
    scene.warns("mild")
    scene.wait(60)
    assert scene.host.storm is None
    assert scene.incident("mild").finding.status is Status.WARNING
    assert scene.said() == ["storm", "storm"]
