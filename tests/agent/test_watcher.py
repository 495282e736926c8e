"""Looks are made in their time, whatever some of them do. Time is virtual here."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping

from virtual_time import BOOT, Time, VirtualClock, live

from agent.core.model import CheckPolicy, Decision, Finding, Host, Looked, Status
from agent.watcher import Lateness, Watcher

OK = (Finding(subject="it", status=Status.OK),)


class Scene:
    """A watcher whose looks are the test's, and what it handed on."""

    def __init__(self, limit: int = 32) -> None:
        self.time = Time()
        self.hangs: Callable[[str], bool] = lambda _name: False
        self.broken: Mapping[str, BaseException] = {}
        self.seconds = 0.0
        self.taken: list[Looked] = []
        self.watcher = Watcher(
            look=self.look,
            transition=self.transition,
            take=self.take,
            clock=VirtualClock(self.time),
            limit=limit,
        )

    async def look(self, name: str) -> tuple[Finding, ...]:
        if self.hangs(name):
            await asyncio.Event().wait()
        if name in self.broken:
            raise self.broken[name]
        await asyncio.sleep(self.seconds)
        return OK

    async def transition(self) -> str:
        return ""

    async def take(self, looked: Looked) -> Decision:
        self.taken.append(looked)
        return Decision(host=Host())

    def watch(self, *checks: CheckPolicy, seconds: float) -> None:
        """Lets so much time pass."""

        async def story() -> None:
            self.watcher.watch({check.name: check for check in checks})
            await asyncio.sleep(seconds)
            self.watcher.close()
            await asyncio.sleep(0)

        live(self.time, story())

    def began(self, name: str) -> list[float]:
        """When the looks at a check began, in seconds from the start."""
        return [looked.began - BOOT for looked in self.taken if looked.check == name]


def policy(name: str, *, every: float = 10.0, timeout: float = 8.0) -> CheckPolicy:
    return CheckPolicy(name=name, every=every, timeout=timeout)


def test_probes_that_hang_delay_no_other_however_many_they_are() -> None:
    scene = Scene(limit=2)
    scene.hangs = lambda name: name.startswith("hung")
    scene.watch(*(policy(f"hung-{n}") for n in range(5)), policy("web"), seconds=300.0)
    gaps = [b - a for a, b in itertools.pairwise(scene.began("web")[1:])]
    # Each hanging look holds its place for a second; five of them share two places.
    assert len(gaps) >= 28
    assert max(gaps) <= 10.0 + 3.0
    assert scene.began("hung-0")


def test_a_look_past_its_time_is_broken_and_made_again() -> None:
    scene = Scene()
    scene.hangs = lambda _name: True
    scene.watch(policy("hung", timeout=3.0), seconds=60.0)
    assert {looked.broken for looked in scene.taken} == {"the look took longer than 3 s"}
    assert {looked.ended - looked.began for looked in scene.taken} == {3.0}
    assert len(scene.taken) >= 5


def test_a_look_that_raises_or_is_cancelled_is_broken_and_made_again() -> None:
    scene = Scene()
    scene.broken = {"bad": OSError("no such thing"), "gone": asyncio.CancelledError()}
    scene.watch(policy("bad"), policy("gone"), seconds=60.0)
    assert {(looked.check, looked.broken) for looked in scene.taken} == {
        ("bad", "OSError: no such thing"),
        ("gone", "the look was cancelled"),
    }
    assert len(scene.began("bad")) >= 5
    assert len(scene.began("gone")) >= 5


def test_few_checks_are_looked_at_at_once_after_the_start() -> None:
    scene = Scene()
    scene.watch(*(policy(f"check-{n}", every=3600.0) for n in range(20)), seconds=1.0)
    assert len(scene.taken) == 20


def test_many_checks_are_spread_over_the_interval() -> None:
    scene = Scene()
    scene.watch(*(policy(f"check-{n}") for n in range(1000)), seconds=100.0)
    seconds = [0] * 100
    for looked in scene.taken:
        seconds[int(looked.began - BOOT)] += 1
    # A hundred a second, as chance has it.
    assert max(seconds[10:]) < 150
    assert min(seconds[10:]) > 60


def test_a_few_checks_have_their_turn_at_one_moment() -> None:
    scene = Scene()
    scene.watch(*(policy(f"check-{n}") for n in range(80)), seconds=100.0)
    moments = {round(looked.began, 6) for looked in scene.taken if looked.began > BOOT + 20}
    assert len(moments) <= 8 * 10


def test_every_check_keeps_its_interval() -> None:
    scene = Scene()
    scene.seconds = 0.5
    scene.watch(policy("web"), seconds=200.0)
    began = scene.began("web")
    gaps = [b - a for a, b in itertools.pairwise(began[1:])]
    assert {round(gap, 6) for gap in gaps} == {10.0}
    assert began[1] - began[0] <= 10.0


def test_a_check_slower_than_its_interval_has_a_rest_between_looks() -> None:
    scene = Scene()
    scene.seconds = 6.0
    scene.watch(policy("slow", every=4.0), seconds=200.0)
    began = scene.began("slow")
    gaps = [b - a for a, b in itertools.pairwise(began[1:])]
    assert {round(gap, 6) for gap in gaps} == {8.0}


def test_lateness_is_that_of_looks_by_the_timer_behind_a_full_house() -> None:
    scene = Scene(limit=1)
    assert scene.watcher.lateness() == Lateness(count=0, median=0.0, p99=0.0, longest=0.0)
    scene.seconds = 0.4
    scene.watch(*(policy(f"check-{n}", every=2.0) for n in range(4)), seconds=100.0)
    late = scene.watcher.lateness()
    assert late.count > 150
    assert 0.0 < late.longest < 1.7
    assert late.median <= late.p99 <= late.longest


def test_a_look_that_was_asked_for_is_never_late() -> None:
    scene = Scene()

    async def story() -> None:
        scene.watcher.watch({"web": policy("web", every=3600.0)})
        await asyncio.sleep(5.0)
        looked = await scene.watcher.look_now("web")
        assert looked.began == BOOT + 5.0
        scene.watcher.close()
        await asyncio.sleep(0)

    live(scene.time, story())
    assert scene.watcher.lateness().count == 0


class SleepyClock(VirtualClock):
    """The clock of a host that may be suspended: its instants run on, the event loop does not."""

    def __init__(self, time: Time) -> None:
        super().__init__(time)
        self.asleep = 0.0

    def now(self) -> float:
        return super().now() + self.asleep

    def slept(self) -> float:
        return self.asleep


def test_a_night_in_which_the_host_slept_makes_no_look_late_and_no_crowd_of_looks() -> None:
    scene = Scene()
    clock = SleepyClock(scene.time)
    scene.watcher._clock = clock
    night = 8 * 3600.0

    async def story() -> None:
        scene.watcher.watch({n: policy(n) for n in ("web", "db")})
        await asyncio.sleep(25.0)
        clock.asleep = night
        await asyncio.sleep(60.0)
        scene.watcher.close()
        await asyncio.sleep(0)

    live(scene.time, story())
    for name in ("web", "db"):
        began = scene.began(name)
        before = [at for at in began if at < 25.0]
        after = [at - night for at in began if at > night]
        assert len(before) + len(after) == len(began)
        assert len(before) in (3, 4)
        # Looks go on as if there had been no night: none is missing, and none is made up for.
        assert after[0] - before[-1] <= 10.0
        assert len(after) in (5, 6)
        assert min(b - a for a, b in itertools.pairwise(after)) >= 5.0
    assert scene.watcher.lateness().longest < 0.01


def test_a_clock_that_is_set_moves_no_look() -> None:
    """The wall clock is asked once, when the clock is made: CLOCK_BOOTTIME is what counts on."""

    class Stepping(VirtualClock):
        def wall(self) -> float:
            raise AssertionError("no look goes by the wall clock")

    scene = Scene()
    scene.watcher._clock = Stepping(scene.time)
    scene.watch(policy("web"), seconds=100.0)
    assert len(scene.began("web")) >= 10


def test_lateness_can_be_that_of_the_last_minute() -> None:
    scene = Scene(limit=1)
    scene.seconds = 0.9

    async def story() -> None:
        scene.watcher.watch({f"check-{n}": policy(f"check-{n}", every=2.0) for n in range(4)})
        await asyncio.sleep(60.0)
        scene.seconds = 0.0
        await asyncio.sleep(120.0)
        assert scene.watcher.lateness().longest > 0.5
        assert scene.watcher.lateness(60.0).longest < 0.01
        scene.watcher.close()
        await asyncio.sleep(0)

    live(scene.time, story())
    assert scene.watcher.count == len(scene.taken)


def test_looks_that_break_are_listed_until_they_do_not() -> None:
    scene = Scene()
    scene.broken = {"bad": OSError("no such thing")}

    async def story() -> None:
        scene.watcher.watch({n: policy(n) for n in ("bad", "web")})
        await asyncio.sleep(30.0)
        assert scene.watcher.broken() == {"bad": "OSError: no such thing"}
        scene.broken = {}
        await asyncio.sleep(30.0)
        assert scene.watcher.broken() == {}
        scene.watcher.close()
        await asyncio.sleep(0)

    live(scene.time, story())
