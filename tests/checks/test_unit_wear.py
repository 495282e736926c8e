"""What wears a unit that is up. Real units: tests/lab/test_vitals.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.checks import unit_wear
from agent.checks.service import SERVICE, ServiceOptions
from agent.checks.unit_state import judge
from agent.checks.unit_wear import KILLS_FOR, RESTARTS_FOR, read_restarts, see_wear
from agent.core.model import Finding, Status
from agent.host.kernel import count_group_kills, read_reclaimable
from agent.host.memory import Memories
from agent.host.units import UnitState

MB = 2**20
UP = UnitState(
    name="web.service",
    id="web.service",
    active_state="active",
    sub_state="running",
    result="success",
    type="simple",
    control_group="/system.slice/web.service",
)
WAITING = replace(UP, active_state="activating", sub_state="auto-restart")
DEAD = replace(UP, active_state="failed", sub_state="failed", result="exit-code")


class Unit:
    """Looks at one unit that follow each other."""

    def __init__(self, **given: Any) -> None:
        self.options = ServiceOptions.model_validate(
            {"type": "service", "unit": "web.service", **given}
        )
        self.memories = Memories()

    def look(self, state: UnitState, now: float, *, repaired: float | None = None) -> Finding:
        memory = self.memories.open("web")
        finding = see_wear(
            judge("web.service", state),
            state,
            self.options.warning,
            self.options.critical,
            memory,
            now,
            repaired=repaired,
        )
        self.memories.keep("web", memory)
        assert set(finding.measurements) <= set(SERVICE.measurements)
        assert not finding.cause or finding.cause in SERVICE.causes
        return finding

    def begin_anew(self) -> None:
        """Another agent looks on: of the memory there is what was made durable."""
        kept = self.memories.open("web").kept.items()
        self.memories = Memories([("web", key, text) for key, text in kept])

    def restart(self, *moments: float) -> list[str]:
        """Has systemd restart it at these moments, and says what each look made of it."""
        self.look(UP, 0.0)
        return [self.look(replace(UP, n_restarts=n), at).cause for n, at in enumerate(moments, 1)]


def test_three_restarts_in_ten_minutes_are_a_warning() -> None:
    assert Unit().restart(10, 200, 590) == ["", "", "restarting-often"]


def test_restarts_before_a_repair_say_nothing_of_what_came_after() -> None:
    unit = Unit()
    unit.restart(10, 20, 30)
    assert unit.look(replace(UP, n_restarts=3), 60).cause == "restarting-often"
    assert unit.look(UP, 100, repaired=90).status is Status.OK
    for n, at in ((1, 110), (2, 120), (3, 130)):
        finding = unit.look(replace(UP, n_restarts=n), at, repaired=90)
    assert finding.cause == "restarting-often"


def test_restarts_are_remembered_by_the_next_agent() -> None:
    unit = Unit()
    unit.restart(10, 200)
    unit.begin_anew()
    assert unit.look(replace(UP, n_restarts=2), 300).status is Status.OK
    assert unit.look(replace(UP, n_restarts=3), 590).cause == "restarting-often"
    assert read_restarts(unit.memories.open("web")) == (10.0, 200.0, 590.0)


def test_what_is_remembered_of_restarts_has_an_end() -> None:
    unit = Unit()
    unit.restart(10, 200)
    unit.look(replace(UP, n_restarts=3), RESTARTS_FOR + 100)
    assert read_restarts(unit.memories.open("web")) == (200.0, RESTARTS_FOR + 100)


def test_the_same_over_a_longer_time_are_none() -> None:
    assert Unit().restart(10, 400, 620, 1200) == ["", "", "", ""]


def test_it_ends_when_the_restarts_are_old_enough() -> None:
    unit = Unit()
    unit.restart(10, 20, 30)
    assert unit.look(replace(UP, n_restarts=3), 609).cause == "restarting-often"
    assert unit.look(replace(UP, n_restarts=3), 611).status is Status.OK


def test_restarts_of_before_the_first_look_count_for_nothing() -> None:
    unit = Unit()
    assert unit.look(replace(UP, n_restarts=50), 0).status is Status.OK
    assert unit.look(replace(UP, n_restarts=51), 10).status is Status.OK


def test_a_start_by_an_operator_begins_to_count_anew() -> None:
    unit = Unit()
    unit.restart(10, 20)
    assert unit.look(replace(UP, n_restarts=0), 30).status is Status.OK
    assert unit.look(replace(UP, n_restarts=1), 40).cause == "restarting-often"


def test_restarts_between_two_looks_count_each() -> None:
    unit = Unit()
    unit.look(UP, 0)
    finding = unit.look(replace(UP, n_restarts=5), 10)
    assert finding.cause == "restarting-often"
    assert finding.summary == "web.service was restarted 5 times by systemd within 10 min"


def test_between_two_restarts_the_loop_is_told_and_it_is_still_left_to_systemd() -> None:
    unit = Unit()
    unit.restart(10, 20, 30)
    finding = unit.look(replace(WAITING, n_restarts=3), 31)
    assert (finding.status, finding.cause) == (Status.WARNING, "restarting-often")
    assert finding.transition == "restarting"
    assert Unit().look(WAITING, 0).cause == "restarting"


def test_a_unit_that_is_down_fails_for_that_and_nothing_else() -> None:
    unit = Unit()
    unit.restart(10, 20, 30)
    assert unit.look(replace(DEAD, n_restarts=3), 40).cause == "failed"


def test_restarts_can_be_critical_and_are_then_worth_a_repair() -> None:
    unit = Unit(critical={"restarts": "2 in 1h"}, warning={"restarts": "100 in 1h"})
    assert unit.restart(10, 1000) == ["", "restarting-often"]
    assert unit.look(replace(UP, n_restarts=2), 1001).status is Status.CRITICAL


def test_tasks_near_their_limit_are_a_warning() -> None:
    unit = Unit()
    assert unit.look(replace(UP, tasks_current=89, tasks_max=100), 0).status is Status.OK
    finding = unit.look(replace(UP, tasks_current=90, tasks_max=100), 0)
    assert (finding.status, finding.cause) == (Status.WARNING, "tasks")
    assert finding.summary == "web.service has 90 processes and threads, and may have 100"
    assert unit.look(replace(UP, tasks_current=90, tasks_max=None), 0).status is Status.OK
    assert unit.look(replace(UP, tasks_current=90, tasks_max=0), 0).status is Status.OK


@pytest.mark.parametrize(
    ("files", "cause"), [(0, "memory"), (4 * MB, "memory"), (20 * MB, ""), (None, "")]
)
def test_memory_near_its_limit_is_a_warning_but_files_that_it_reads_are_not(
    monkeypatch: pytest.MonkeyPatch, files: int | None, cause: str
) -> None:
    asked = []

    def read(group: str) -> int | None:
        asked.append(group)
        return files

    monkeypatch.setattr(unit_wear, "read_reclaimable", read)
    full = replace(UP, memory_current=95 * MB, memory_max=100 * MB)
    assert Unit().look(full, 0).cause == cause
    assert asked == ["/system.slice/web.service"]
    half = replace(full, memory_current=50 * MB)
    assert Unit().look(half, 0).cause == ""
    assert len(asked) == 1, "far from its limit nothing needs to be read"


def test_a_process_that_was_killed_is_told_for_half_an_hour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kills = 2
    monkeypatch.setattr(unit_wear, "count_group_kills", lambda _group: kills)
    unit = Unit()
    assert unit.look(UP, 0).status is Status.OK
    kills = 3
    finding = unit.look(UP, 10)
    assert (finding.status, finding.cause) == (Status.WARNING, "oom-killed")
    assert finding.measurements["oom_kills_count"] == 3
    assert unit.look(UP, 9 + KILLS_FOR).failing
    assert not unit.look(UP, 10 + KILLS_FOR).failing
    kills = 0
    assert not unit.look(UP, 20 + KILLS_FOR).failing, "a new start has a new control group"


@pytest.mark.parametrize("prefix", ["", "total_"])
def test_a_control_group_tells_what_it_holds_for_files(tmp_path: Path, prefix: str) -> None:
    place = tmp_path / ("memory" if prefix else "") / "system.slice/web.service"
    place.mkdir(parents=True)
    text = f"anon 5\n{prefix}inactive_file 100\n{prefix}active_file 11\n"
    (place / "memory.stat").write_text(text)
    assert read_reclaimable("/system.slice/web.service", cgroup=tmp_path) == 111
    assert read_reclaimable("/system.slice/other.service", cgroup=tmp_path) is None
    (place / "memory.stat").write_text("garbage\n\0")
    assert read_reclaimable("/system.slice/web.service", cgroup=tmp_path) is None


def test_a_control_group_counts_its_own_kills_in_version_2(tmp_path: Path) -> None:
    place = tmp_path / "system.slice/web.service"
    place.mkdir(parents=True)
    assert count_group_kills("/system.slice/web.service", cgroup=tmp_path) is None
    (place / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert count_group_kills("/system.slice/web.service", cgroup=tmp_path) == 2
