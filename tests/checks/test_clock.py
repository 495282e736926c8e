"""What the check of the clock makes of steps, drift and a clock that nobody keeps right.

The machine's own clock is never set here: the clock of these tests is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from agent.checks import clock
from agent.checks.clock import CLOCK, ClockOptions, Step, gather, judge, look, propose
from agent.clock import Clock
from agent.core.model import Finding, Status
from agent.errors import Unavailable
from agent.host.machine import Machine
from agent.host.memory import Memory
from agent.host.rates import Lasting
from agent.host.timesync import Discipline

RIGHT = Discipline(error=0.01, offset=0.0001, drift_ppm=-12.5)
WRONG = Discipline(error=16.0, offset=0.0, drift_ppm=0.0)


class Time(Clock):
    """Time as a test wants it: instants, and a wall clock beside them."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.at = 1_000_000.0
        self.ahead = 0.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.at + self.ahead


class Scene:
    """A host whose clock does what a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **given: Any) -> None:
        self.time = Time()
        self.discipline = RIGHT
        self.options = ClockOptions.model_validate({"type": "clock", "every": "1m", **given})
        self.machine = Machine(clock=self.time, memory=Memory())
        monkeypatch.setattr(clock, "read_discipline", lambda: self.discipline)

    async def look(self, *, after: float = 60.0, step: float = 0.0) -> Finding:
        self.time.at += after
        self.time.ahead += step
        (finding,) = await look(self.options, self.machine)
        assert set(finding.measurements) <= set(CLOCK.measurements)
        return finding


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


async def test_a_clock_that_is_kept_right_is_ok(scene: Scene) -> None:
    finding = await scene.look()
    assert (finding.status, finding.cause) == (Status.OK, "")
    assert finding.summary == "the clock is kept right, to within 10 ms"


async def test_a_clock_that_nobody_keeps_right_is_a_warning_after_half_an_hour(
    scene: Scene,
) -> None:
    scene.discipline = WRONG
    found = [await scene.look() for _ in range(32)]
    assert [finding.status.value for finding in found] == [*["ok"] * 30, *["warning"] * 2]
    assert found[-1].cause == "unsynchronised"
    assert "install chrony or systemd-timesyncd" in found[-1].summary
    scene.discipline = RIGHT
    assert (await scene.look()).status is Status.OK


async def test_a_step_is_shown_for_an_hour_with_its_size_and_direction(scene: Scene) -> None:
    await scene.look()
    finding = await scene.look(step=-90.0)
    assert (finding.status, finding.cause) == (Status.WARNING, "stepped")
    assert finding.summary == "the clock jumped back by 1 min 30 s, 0 ms ago"
    assert finding.measurements["step_seconds"] == -90.0
    assert finding.since == scene.time.at
    assert (await scene.look(after=3500)).failing
    assert (await scene.look(after=110)).status is Status.OK
    assert "forward by 2 h" in (await scene.look(step=7200.0)).summary


@pytest.mark.parametrize("step", [0.9, -0.9, 0.03])
async def test_what_is_moved_slowly_is_no_step(scene: Scene, step: float) -> None:
    await scene.look()
    for _ in range(5):
        assert (await scene.look(step=step)).status is Status.OK


async def test_that_it_is_set_right_for_the_first_time_is_no_news(scene: Scene) -> None:
    scene.discipline = WRONG
    await scene.look()
    scene.discipline = RIGHT
    assert (await scene.look(step=50_000_000.0)).status is Status.OK
    assert (await scene.look(step=5.0)).cause == "stepped"


async def test_a_night_in_which_the_host_slept_is_no_step_and_no_unsynchronised_time(
    scene: Scene,
) -> None:
    scene.discipline = WRONG
    await scene.look()
    # CLOCK_BOOTTIME and the wall clock both count through it.
    assert (await scene.look(after=8 * 3600)).status is Status.OK


async def test_limits_can_be_critical(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, critical={"step": "1m", "error": "500ms", "unsynced": "10m"})
    await scene.look()
    assert (await scene.look(step=2.0)).status is Status.WARNING
    assert (await scene.look(step=90.0)).status is Status.CRITICAL
    scene.discipline = replace(RIGHT, error=0.6)
    scene.time.at += 4000
    finding = await scene.look()
    assert (finding.status, finding.cause) == (Status.CRITICAL, "error")
    scene.discipline = WRONG
    found = [await scene.look() for _ in range(11)]
    assert (found[-1].status, found[-1].cause) == (Status.CRITICAL, "unsynchronised")


@pytest.mark.parametrize("ppm", [460.0, -460.0])
def test_a_clock_that_can_hardly_be_kept_right_is_a_warning(ppm: float) -> None:
    options = ClockOptions(type="clock")
    finding = judge(options, replace(RIGHT, drift_ppm=ppm), None, Lasting(), 0.0)
    assert (finding.status, finding.cause) == (Status.WARNING, "drifting")
    assert "460 millionths" in finding.summary


def test_a_step_goes_before_drift_and_is_told_in_words() -> None:
    step = Step(seconds=5.0, at=10.0)
    options = ClockOptions(type="clock")
    finding = judge(options, replace(RIGHT, drift_ppm=460), step, Lasting(), 40.0)
    assert finding.summary == "the clock jumped forward by 5.0 s, 30 s ago"


async def test_readings_between_which_the_program_stood_still_say_nothing(scene: Scene) -> None:
    await scene.look()

    class Halting(Time):
        def wall(self) -> float:
            self.at += 5.0
            return super().wall() + 99.0

    slow = Halting()
    slow.at = scene.time.at + 60
    scene.machine.clock = slow
    (finding,) = await look(scene.options, scene.machine)
    assert finding.status is Status.OK


async def test_in_a_container_the_clock_is_no_business_of_ours(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.machine.container = True
    scene.discipline = WRONG
    assert (await scene.look(after=90_000)).status is Status.OK
    assert await gather(scene.options, await scene.look(), scene.machine) == ()
    assert await propose(scene.machine) == ()


async def test_a_kernel_that_cannot_be_asked_is_unknown(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Discipline:
        raise Unavailable("cannot ask the kernel for its clock: no")

    monkeypatch.setattr(clock, "read_discipline", refuse)
    finding = await scene.look()
    assert (finding.status, finding.cause) == (Status.UNKNOWN, "unavailable")


async def test_this_machines_clock_can_be_looked_at() -> None:
    options = ClockOptions.model_validate({"type": "clock", "every": "1m"})
    machine = Machine(clock=Clock())
    for _ in range(3):
        (finding,) = await look(options, machine)
        assert finding.status is Status.OK, "no look takes half an hour"


async def test_programs_that_hang_or_print_garbage_are_left_out_of_the_evidence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    slow, odd = tmp_path / "chronyc", tmp_path / "timedatectl"
    slow.write_text("#!/bin/sh\nexec sleep 1000\n")
    odd.write_text("#!/bin/sh\nprintf '\\377\\376 garbage'\nexit 0\n")
    for program in (slow, odd):
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("agent.host.command.ENVIRONMENT", {"PATH": f"{tmp_path}:/usr/bin:/bin"})
    monkeypatch.setattr(clock, "_PATIENCE", 0.3)
    finding = Finding(subject="clock", status=Status.WARNING, cause="unsynchronised")
    items = await gather(ClockOptions(type="clock"), finding, Machine(clock=Clock()))
    assert [item.title.split()[0] for item in items] == ["timedatectl", "timedatectl"]
    assert all("garbage" in item.text for item in items)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"warning": {"step": 1}}, "needs a unit"),
        ({"warning": {"drift": 0}}, "greater than 0"),
        ({"critical": {"offset": "1s"}}, "Extra inputs"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ClockOptions.model_validate({"type": "clock", **given})
