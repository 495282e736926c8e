"""Maintenance windows that the configuration opens again and again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from core_scene import Hourly, Scene, bare, check, mute, step

from agent.core.holds import find_windows, gates
from agent.core.model import Held, Hold, Maintenance, Mode, Policy, Silence, State, Tick, Verb

#: Open from 1500 to 1800, from 5100 to 5400 and so on.
SCHEDULE = Hourly(begin=1500.0, lasts=300.0)


def window(name: str = "backup", **changes: Any) -> Maintenance:
    wanted = {"checks": ("*",), "schedule": SCHEDULE, **changes}
    return Maintenance(name=name, **wanted)


def make_scene(*checks: Any, at: float = 1000.0, **window_changes: Any) -> Scene:
    scene = Scene(*checks, maintenance=(window(**window_changes),))
    scene.now = at
    return scene


def test_outside_of_it_everything_is_repaired_and_told() -> None:
    scene = make_scene(at=1000.0)
    scene.fails()
    assert scene.state() is State.REPAIRING


def test_while_it_is_open_nothing_is_repaired_or_told() -> None:
    scene = make_scene(at=1500.0, comment="dump")
    scene.fails()
    detail = "maintenance window backup: dump"
    assert scene.hold() == Held(hold=Hold.SILENCED, detail=detail, until=1800.0)
    scene.wait(290)
    assert (scene.runs, scene.said()) == ([], [])


def test_what_is_still_wrong_at_its_end_is_repaired() -> None:
    scene = make_scene(at=1500.0)
    scene.fails()
    scene.wait(1800.0 - scene.now)
    assert scene.last.look == {"web"}
    scene.fails()
    assert scene.state() is State.REPAIRING


def test_what_is_still_wrong_at_its_end_speaks() -> None:
    scene = make_scene(bare("web"), at=1500.0)
    scene.fails()
    scene.wait(1799.9 - scene.now)
    assert scene.said() == []
    scene.wait(0.1)
    assert scene.said() == ["escalated"]


def test_what_it_hid_from_beginning_to_end_is_not_told() -> None:
    scene = make_scene(bare("web"), at=1500.0)
    scene.fails()
    scene.keeps_passing(100)
    scene.wait(1000)
    assert scene.said() == []
    assert scene.host.incidents == ()


def test_an_incident_from_before_it_is_held_from_its_beginning() -> None:
    scene = make_scene(check("web", stable_for=0.0), at=1400.0)
    scene.orders(Verb.PAUSE)
    scene.fails()
    scene.wait(99.0)
    assert scene.now == 1500.0
    scene.orders(Verb.RESUME)
    held = scene.hold()
    assert held is not None
    assert held.hold is Hold.SILENCED
    assert scene.last.wake is not None


def test_it_opens_again() -> None:
    scene = make_scene(at=5099.0)
    scene.fails()
    held = scene.hold()
    assert held is not None
    assert held.until == 5400.0


def test_the_next_one_is_waited_for_even_if_nothing_happens() -> None:
    scene = make_scene()
    scene.send(Tick())
    assert scene.last.wake == 1500.0
    scene.wait(500)
    assert scene.last.wake == 1800.0
    scene.wait(300)
    assert scene.last.wake == 5100.0


@pytest.mark.parametrize(
    ("cover", "held"),
    [
        ({"checks": ("*",)}, True),
        ({"checks": ("web",)}, True),
        ({"checks": ("db",)}, False),
        ({"checks": ("web",), "subjects": ("web.service",)}, True),
        ({"checks": ("web",), "subjects": ("db.service",)}, False),
        ({"checks": (), "labels": {"team": "shop"}}, True),
        ({"checks": (), "labels": {"team": "mail"}}, False),
        ({"checks": ()}, False),
    ],
)
def test_it_holds_what_it_covers(cover: dict[str, Any], held: bool) -> None:
    scene = make_scene(check("web", labels={"team": "shop"}), at=1500.0, **cover)
    scene.fails()
    assert (scene.runs == []) is held


def test_it_goes_by_the_wall_clock() -> None:
    scene = make_scene(at=1000.0)
    scene.host = replace(scene.host, wall_ahead=600.0)
    scene.fails()
    held = scene.hold()
    assert held is not None
    assert (held.hold, held.until) == (Hold.SILENCED, 1200.0)
    (found,) = find_windows(scene.host, scene.policy, scene.now)
    assert (found.starts, found.ends) == (900.0, 1200.0)


def test_of_two_that_cover_the_longer_one_is_named() -> None:
    scene = make_scene(at=1500.0)
    mute(scene, 1000.0, runs=True)
    scene.fails()
    assert [held.until for held in all_gates(scene) if held.hold is Hold.SILENCED] == [2500.0]


def test_a_silence_beside_it_holds_no_runs_and_the_window_does() -> None:
    scene = make_scene(at=1500.0)
    mute(scene, 1000.0)
    scene.fails()
    held = scene.hold()
    assert held is not None
    assert held.until == 1800.0


def test_an_operator_cannot_order_what_it_holds_to_run_but_by_hand() -> None:
    scene = make_scene(check("web", step(mode=Mode.APPROVE)), at=1500.0)
    scene.fails()
    scene.orders(Verb.APPROVE, scene.incident().id)
    assert scene.runs == []
    scene.orders(Verb.RUN, step=step())
    assert [run.by for run in scene.runs] == ["anna"]


def test_a_window_that_a_reload_removes_holds_nothing_any_more() -> None:
    scene = make_scene(at=1500.0)
    scene.fails()
    scene.reconfigure(maintenance=())
    assert scene.state() is State.REPAIRING


def test_it_is_shown_as_it_is_open_or_opens_next() -> None:
    scene = make_scene(at=2000.0, comment="dump", checks=("web",), labels={"a": "b"})
    (found,) = find_windows(scene.host, scene.policy, scene.now)
    assert found == Silence(
        id="backup",
        starts=5100.0,
        ends=5400.0,
        by="the configuration",
        comment="dump",
        checks=("web",),
        labels={"a": "b"},
        runs=True,
        recurring=True,
    )
    assert find_windows(scene.host, Policy(), scene.now) == ()


def all_gates(scene: Scene) -> list[Held]:
    check_policy = scene.policy.checks["web"]
    return list(gates(scene.incident(), check_policy, scene.host, scene.policy, scene.now))
