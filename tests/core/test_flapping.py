"""What comes and goes by itself is one problem: it must stay whole for longer each time."""

from __future__ import annotations

import pytest
from core_scene import Scene, bare, check, step

from agent.core.model import Mode, ResolvedBy, State


def scene() -> Scene:
    return Scene(bare("web", stable_for=60.0))


def flap(one: Scene, times: int, whole: float = 70.0) -> None:
    """Fails, passes, and stays whole for so long, again and again."""
    for _ in range(times):
        one.fails()
        one.wait(15)
        one.keeps_passing(whole)


def test_three_times_are_three_problems_and_more_are_one() -> None:
    one = scene()
    flap(one, 3)
    assert [i.resolved_by for i in one.ended] == [ResolvedBy.ITSELF] * 3
    before = len(one.said())
    flap(one, 5)
    assert len(one.ended) == 3
    assert one.state() is State.PROBATION
    # One message that it failed; none that it ended, since it has not.
    assert one.said()[before:] == ["escalated"]


def test_it_ends_once_it_stays_whole_for_long_enough() -> None:
    one = scene()
    flap(one, 4)
    one.keeps_passing(40)
    assert one.state() is State.PROBATION
    one.keeps_passing(30)
    assert one.state() is State.RESOLVED
    flap(one, 3)
    assert one.state() is State.PROBATION
    one.keeps_passing(25 * 60)
    assert one.state() is State.RESOLVED


def test_it_never_has_to_stay_whole_for_longer_than_half_an_hour() -> None:
    one = scene()
    flap(one, 40)
    one.keeps_passing(1790)
    assert one.state() is State.RESOLVED


def test_a_check_that_wants_longer_by_itself_is_not_cut_short() -> None:
    one = Scene(bare("web", stable_for=3600.0))
    flap(one, 6, whole=300.0)
    one.keeps_passing(3200)
    assert one.state() is State.PROBATION
    one.keeps_passing(200)
    assert one.state() is State.RESOLVED


def test_what_lies_an_hour_back_counts_no_more() -> None:
    one = scene()
    flap(one, 4)
    one.keeps_passing(150)
    assert one.state() is State.RESOLVED
    one.wait(3700)
    assert one.host.recoveries == ()
    one.fails()
    one.wait(15)
    one.keeps_passing(70)
    assert one.state() is State.RESOLVED


def test_another_subject_of_the_check_is_another_problem() -> None:
    one = scene()
    flap(one, 4)
    one.fails(subject="other.service")
    assert one.incident().subject == "other.service"
    assert one.incident().relapses == 0


def test_what_hostmend_repairs_is_no_flapping() -> None:
    one = Scene(check("web", step(attempts=9)))
    for _ in range(4):
        one.fails()
        one.heals()
        one.keeps_passing(70)
        assert one.state() is State.RESOLVED
        one.wait(600)
    assert one.host.recoveries == ()


@pytest.mark.parametrize("whole", [10.0, 70.0])
def test_a_relapse_within_the_probation_counts_as_one_after_it(whole: float) -> None:
    one = Scene(check("web", stable_for=60.0, mode=Mode.SHADOW))
    flap(one, 4, whole=whole)
    assert one.incident().relapses == 3
