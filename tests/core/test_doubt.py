"""A state that may not be this host's own: nothing is run, and nobody told but of the doubt."""

from __future__ import annotations

import pytest
from core_scene import Scene, check, step

from agent.core.model import (
    Hold,
    Reason,
    Reported,
    RoutePolicy,
    Run,
    Silence,
    State,
    Status,
    Verb,
)
from agent.errors import Conflict

WHY = "its state was written on another machine"
DOUBT = Reported(summary=WHY, doubt=WHY)


def doubtful(*checks: object, **policy: object) -> Scene:
    scene = Scene(*checks, **policy)
    scene.send(DOUBT)
    return scene


def test_the_doubt_itself_is_told_once() -> None:
    scene = doubtful()
    (notice,) = scene.notices
    assert (notice.reason, notice.incident) == (Reason.AGENT, None)
    assert dict(notice.details) == {"summary": WHY, "severity": "critical"}
    assert scene.host.doubt is not None
    assert (scene.host.doubt.why, scene.host.doubt.since) == (WHY, scene.now)
    scene.wait(100.0)
    scene.send(DOUBT)
    assert len(scene.notices) == 1
    scene.send(Reported(summary="it is lost too", doubt="it is lost too"))
    assert len(scene.notices) == 2


TALKS = RoutePolicy(name="talks", reasons=(Reason.AGENT, Reason.OPENED))
ALSO = RoutePolicy(name="also", reasons=(Reason.AGENT,))
MUTE = RoutePolicy(name="mute", reasons=(Reason.OPENED,))


@pytest.mark.parametrize(
    ("routes", "doubt", "plain"),
    [
        ((MUTE, TALKS, ALSO), ["talks"], ["talks", "also"]),
        ((MUTE, TALKS), ["talks"], ["talks"]),
        ((MUTE,), ["mute"], ["mute"]),
        ((), [], []),
    ],
)
def test_what_the_agent_says_of_itself_reaches_somebody(
    routes: tuple[RoutePolicy, ...], doubt: list[str], plain: list[str]
) -> None:
    scene = Scene(routes=routes)
    scene.send(Reported(summary="the disk is broken", severity=Status.WARNING))
    assert [notice.route for notice in scene.notices] == plain
    assert scene.host.doubt is None
    scene.notices.clear()
    scene.send(DOUBT)
    assert [notice.route for notice in scene.notices] == doubt
    scene.notices.clear()
    # In doubt, everything else that the agent says goes there only, too.
    scene.send(Reported(summary="the disk is broken"))
    assert [notice.route for notice in scene.notices] == doubt


def test_nothing_is_run_or_told_until_it_is_confirmed_and_then_both() -> None:
    scene = doubtful()
    scene.fails()
    held = scene.hold()
    assert held is not None
    assert held.hold is Hold.PAUSED
    assert "hostmend confirm" in held.detail
    assert WHY in held.detail
    scene.keeps_failing(400.0)
    assert scene.runs == []
    assert scene.said() == ["agent"]
    scene.orders(Verb.CONFIRM)
    assert scene.host.doubt is None
    assert "opened" in scene.said()
    scene.fails()
    assert scene.remedies() == ["restart-service"]


def test_what_ends_unsaid_is_said_once_it_is_confirmed() -> None:
    scene = Scene(check(mode=None))
    scene.orders(Verb.PAUSE)
    scene.fails()
    scene.keeps_failing(20.0)
    assert scene.said() == ["opened"]
    scene.send(DOUBT)
    scene.keeps_passing(200.0)
    assert scene.state() is State.RESOLVED
    assert scene.said() == ["opened", "agent"]
    scene.orders(Verb.CONFIRM)
    assert scene.said() == ["opened", "agent", "ended"]
    assert scene.host.incidents == ()


def test_a_storm_waits_for_the_confirmation() -> None:
    checks = [check(f"c{n}") for n in range(3)]
    scene = doubtful(*checks, storm_at=3)
    for one in checks:
        scene.fails(one.name)
    scene.wait(60.0)
    assert scene.host.storm is None
    assert scene.said() == ["agent"]


def test_a_storm_that_was_told_is_not_ended_in_doubt() -> None:
    checks = [check(f"c{n}") for n in range(3)]
    scene = Scene(*checks, storm_at=3)
    scene.orders(Verb.PAUSE)
    for one in checks:
        scene.fails(one.name)
    scene.wait(20.0)
    assert scene.said() == ["storm"]
    scene.send(DOUBT)
    for one in checks:
        scene.keeps_passing(100.0, one.name)
    assert scene.said() == ["storm", "agent"]


def test_an_operators_run_is_refused_and_a_preview_is_not() -> None:
    scene = doubtful()
    with pytest.raises(Conflict, match="hostmend confirm"):
        scene.orders(Verb.RUN, step=step())
    scene.orders(Verb.RUN, step=step(), preview=True)
    assert [run.preview for run in scene.runs] == [True]


def test_nothing_can_be_confirmed_that_is_not_in_doubt() -> None:
    scene = Scene()
    with pytest.raises(Conflict, match="nothing is in doubt"):
        scene.orders(Verb.CONFIRM)


def test_an_approval_or_a_resume_does_not_confirm() -> None:
    scene = doubtful()
    scene.orders(Verb.PAUSE)
    scene.fails()
    scene.orders(Verb.APPROVE, scene.incident().id)
    scene.orders(Verb.RESUME)
    scene.orders(
        Verb.SILENCE, silence=Silence(id="", starts=0.0, ends=2000.0, by="", checks=("*",))
    )
    scene.fails()
    assert scene.runs == list[Run]()
    assert scene.host.doubt is not None
