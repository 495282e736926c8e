"""A simulated host around the real engine, watcher, worker and SQLite file.

Time is virtual: the event loop never sleeps, it moves its clock. Crashes are seeded: before and
after every commit and every spawn the agent may die on the spot, and a new one starts on the same
state file, as after SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from virtual_time import BOOT, Time, VirtualClock, VirtualLoop

from agent.bootstrap import connect
from agent.core.model import (
    Changes,
    CheckPolicy,
    Confirm,
    Decision,
    Finding,
    Host,
    Looked,
    Mode,
    Notice,
    NoticeState,
    Ordered,
    Outcome,
    Policy,
    Reason,
    ResolvedBy,
    Risk,
    RoutePolicy,
    Run,
    Silence,
    State,
    Status,
    Step,
    Tick,
    Verb,
)
from agent.engine import Engine
from agent.errors import HostmendError
from agent.notify.backoff import next_attempt
from agent.store.state import Listing
from agent.store.state import State as StateFile
from agent.watcher import Watcher
from agent.worker import Delivery, JobEnd, Worker

FAULTS_END = 400.0
#: A look that does not break takes no longer, in seconds.
LONGEST_LOOK = 1.0
GIVE_UP = 6 * 3600.0


class Crash(SystemExit):
    """The agent's SIGKILL. A SystemExit, because asyncio lets only those out of a task."""


class InlineExecutor(Executor):
    """One writer "thread" that runs at once, so that a crash in it is a crash of the agent."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass
class CrashPlan:
    """Dies at the seeded points; `passed` counts every point that was reached."""

    points: frozenset[int]
    passed: int = 0
    happened: list[str] = field(default_factory=list)

    def point(self, name: str) -> None:
        self.passed += 1
        if self.passed in self.points:
            self.happened.append(name)
            raise Crash(name)


class CrashingState(StateFile):
    def __init__(self, path: Path, plan: CrashPlan) -> None:
        super().__init__(path, reserve=0)
        self._plan = plan

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._plan.point("before a commit")
        with super()._transaction():
            yield
        self._plan.point("after a commit")


@dataclass
class Thing:
    """One subject of the simulated host."""

    check: str
    ok_since: float | None = BOOT
    #: It dies again so long after a repair; None: it stays.
    relapse: float | None = None
    intended: bool = False
    #: When it was last stopped on purpose.
    stopped_at: float = BOOT
    dies_at: float | None = None
    unclear_until: float = 0.0
    gone: bool = False


@dataclass
class Job:
    run: Run
    ends: float
    alive: bool = True
    end: JobEnd | None = None


class World:
    """What is real, whatever the agent believes of it. Survives every crash."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.time = Time()
        self.clock = VirtualClock(self.time)
        self.policy = self._make_policy()
        self.things = {name: Thing(check=name) for name in self.policy.checks}
        self.jobs: dict[str, Job] = {}
        self.started: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.may_repeat: set[str] = set()
        self.arrivals: list[Notice] = []
        self.broken: list[str] = []
        self.transition_until = 0.0
        self.mail_down = [self._span(300.0) for _ in range(self.rng.randint(0, 2))]
        crashes = self.rng.choice([0, 1, 2, 4])
        self.plan = CrashPlan(frozenset(self.rng.sample(range(1, 120), crashes)))
        self.script = sorted(self._make_script(), key=lambda item: item[0])

    def _span(self, longest: float) -> tuple[float, float]:
        start = BOOT + self.rng.uniform(0, FAULTS_END)
        return start, start + self.rng.uniform(1, longest)

    def _make_policy(self) -> Policy:
        rng = self.rng
        names = [f"c{n}" for n in range(rng.randint(1, 4))]
        checks = {}
        for place, name in enumerate(names):
            upstream = tuple(n for n in names[:place] if rng.random() < 0.3)
            steps = tuple(
                Step(
                    key=f"fix{n}",
                    remedy=f"fix{n}",
                    causes=("failed",),
                    fills={"unit": "finding.subject"},
                    changes=rng.choice([Changes.SERVICE, Changes.SERVICE, Changes.DATA]),
                    risk=rng.choice([Risk.LOW, Risk.LOW, Risk.LOW, Risk.HIGH]),
                    timeout=rng.choice([5.0, 30.0]),
                    lock="unit:{unit}",
                    attempts=rng.randint(1, 3),
                )
                for n in range(rng.choice([0, 1, 1, 1, 2, 2]))
            )
            checks[name] = CheckPolicy(
                name=name,
                every=rng.choice([5.0, 10.0, 30.0]),
                timeout=3.0,
                confirm=rng.choice([Confirm(), Confirm(times=2, of=3)]),
                stable_for=rng.choice([1.0, 15.0, 60.0]),
                cool_down=rng.choice([0.5, 10.0]),
                verify_for=rng.choice([2.0, 20.0]),
                depends_on=upstream,
                ladder=steps,
                mode=rng.choice([None] * 6 + [Mode.SHADOW, Mode.APPROVE]),
            )
        return Policy(
            checks=checks,
            routes=(
                RoutePolicy(name="ops", reasons=tuple(Reason)),
                RoutePolicy(name="chat", reasons=(Reason.HEALED, Reason.ESCALATED)),
            ),
            runs_per_hour=rng.choice([2, 6, 20]),
            slots=rng.choice([1, 1, 2]),
            budget_window=120.0,
            attempts_window=200.0,
            recurring_window=400.0,
            storm_at=rng.choice([2, 3, 5]),
            held_after=30.0,
            inhibit_for=60.0,
            transition_for=60.0,
            unknown_for=40.0,
            retry_after=30.0,
            retry_at_most=120.0,
            remind_after=300.0,
            approval_for=60.0,
            notice_for=50 * 3600.0,
        )

    def _make_script(self) -> Iterator[tuple[float, Callable[[Simulation], Awaitable[None]]]]:
        rng = self.rng
        for thing in self.things.values():
            for _ in range(rng.randint(1, 4)):
                yield BOOT + rng.uniform(0, FAULTS_END), _fault(thing, rng)
        if rng.random() < 0.3:
            start, end = self._span(120.0)
            silence = Silence(
                id="", starts=start, ends=end, by="", checks=("*",), runs=rng.random() < 0.5
            )
            yield start, _order(Ordered(verb=Verb.SILENCE, by="ops", silence=silence))
        if rng.random() < 0.3:
            start, end = self._span(120.0)
            yield start, _order(Ordered(verb=Verb.PAUSE, by="ops", until=end))
        if rng.random() < 0.2:
            yield self._span(1.0)[0], _shift_host(self, rng.uniform(1, 50))
        for _ in range(rng.randint(0, 3)):
            verb = rng.choice([Verb.ACKNOWLEDGE, Verb.APPROVE, Verb.REJECT, Verb.RETRY, Verb.CLOSE])
            yield self._span(1.0)[0], _order_on_some(verb, rng)
        for thing in self.things.values():
            yield BOOT + FAULTS_END + 60.0, _end_of_faults(thing)

    # What the agent's edges see

    async def look(self, name: str) -> tuple[Finding, ...]:
        thing, now = self.things[name], self.clock.now()
        await asyncio.sleep(self.rng.choice([0.001, 0.05, LONGEST_LOOK]))
        if thing.gone:
            return ()
        if now < thing.unclear_until:
            if self.rng.random() < 0.3:
                await asyncio.sleep(100.0)
            raise RuntimeError("the probe broke")
        return (self.see(thing),)

    def see(self, thing: Thing) -> Finding:
        now = self.clock.now()
        if thing.dies_at is not None and now >= thing.dies_at:
            thing.ok_since, thing.dies_at = None, None
        if thing.ok_since is not None:
            return Finding(subject=thing.check, status=Status.OK)
        if thing.intended:
            return Finding(subject=thing.check, status=Status.OK, cause="stopped", intended=True)
        return Finding(
            subject=thing.check, status=Status.CRITICAL, cause="failed", summary="it is dead"
        )

    async def transition(self) -> str:
        return "booting" if self.clock.now() < self.transition_until else ""


def _fault(thing: Thing, rng: random.Random) -> Callable[[Simulation], Awaitable[None]]:
    kind = rng.choice(["die", "die", "die", "relapse", "stop", "unclear", "blip"])
    length = rng.uniform(1, 90)

    async def happen(simulation: Simulation) -> None:
        now = simulation.world.clock.now()
        if kind == "unclear":
            thing.unclear_until = now + length
            return
        thing.ok_since, thing.dies_at = None, None
        thing.intended = kind == "stop"
        thing.stopped_at = now
        thing.relapse = length if kind == "relapse" else None
        simulation.watcher.request([thing.check])
        if kind == "blip":
            await asyncio.sleep(0.5)
            if thing.ok_since is None:
                thing.ok_since = simulation.world.clock.now()

    return happen


def _end_of_faults(thing: Thing) -> Callable[[Simulation], Awaitable[None]]:
    """A human mends what is still broken, so that every incident can end."""

    async def happen(simulation: Simulation) -> None:
        thing.relapse = thing.dies_at = None
        thing.intended = False
        if thing.ok_since is None:
            thing.ok_since = simulation.world.clock.now()

    return happen


def _shift_host(world: World, length: float) -> Callable[[Simulation], Awaitable[None]]:
    async def happen(_simulation: Simulation) -> None:
        world.transition_until = world.clock.now() + length

    return happen


def _order(order: Ordered) -> Callable[[Simulation], Awaitable[None]]:
    async def happen(simulation: Simulation) -> None:
        with contextlib.suppress(HostmendError):
            await simulation.engine.take(order)

    return happen


def _order_on_some(verb: Verb, rng: random.Random) -> Callable[[Simulation], Awaitable[None]]:
    place = rng.random()

    async def happen(simulation: Simulation) -> None:
        incidents = simulation.engine.host.incidents
        if incidents:
            target = incidents[int(place * len(incidents))].id
            with contextlib.suppress(HostmendError):
                await simulation.engine.take(Ordered(verb=verb, by="ops", target=target))

    return happen


class SimulatedJobs:
    """Jobs as processes of the world: those that change data outlive the agent."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def carry_out(
        self, run: Run, on_event: Callable[[Mapping[str, Any]], None], cancel: asyncio.Event
    ) -> JobEnd:
        world = self._world
        world.plan.point("before a spawn")
        self._check_alone(run)
        world.started[run.id] += 1
        length = world.rng.choice([0.2, 1.0, 8.0, 40.0])
        if run.changes is not Changes.DATA:
            length = min(length, run.timeout)
        job = world.jobs[run.id] = Job(run=run, ends=world.clock.now() + length)
        world.plan.point("after a spawn")
        on_event({"event": "started"})
        return await self._wait(job)

    async def rejoin(
        self, run: Run, on_event: Callable[[Mapping[str, Any]], None], cancel: asyncio.Event
    ) -> JobEnd:
        job = self._world.jobs.get(run.id)
        if job is None or (not job.alive and job.end is None):
            return JobEnd(outcome=Outcome.LOST, ended=self._world.clock.now())
        return await self._wait(job)

    async def _wait(self, job: Job) -> JobEnd:
        world = self._world
        await asyncio.sleep(max(0.0, job.ends - world.clock.now()))
        if job.end is None:
            job.end = self._finish(job)
            job.alive = False
        return job.end

    def _finish(self, job: Job) -> JobEnd:
        world, run = self._world, job.run
        outcome = world.rng.choice(
            [Outcome.OK] * 6 + [Outcome.FAILED, Outcome.TIMEOUT, Outcome.NEEDS_HUMAN]
        )
        thing = world.things[run.check]
        if outcome is Outcome.OK and world.rng.random() < 0.8 and thing.ok_since is None:
            thing.ok_since = job.ends
            if thing.relapse is not None:
                thing.dies_at = job.ends + thing.relapse
        return JobEnd(outcome=outcome, ended=world.clock.now())

    def _check_alone(self, run: Run) -> None:
        world = self._world
        others = [job for job in world.jobs.values() if job.alive]
        if len(others) >= world.policy.slots:
            world.broken.append(f"{run.id} was started beside {[j.run.id for j in others]}")
        if any(job.run.incident == run.incident for job in others):
            world.broken.append(f"two runs of {run.incident} at once")
        thing = world.things[run.check]
        # It is known when a look has ended that began after the stop.
        if thing.intended and world.clock.now() > thing.stopped_at + LONGEST_LOOK:
            world.broken.append(f"{run.id} acts against an operator's intention")

    def die_with_agent(self) -> None:
        """What a lifeline's end clears: every job but those that change data."""
        for job in self._world.jobs.values():
            if job.alive and job.run.changes is not Changes.DATA:
                job.alive = False


class SimulatedMail:
    """A server that is down at times, and that remembers everything it accepted."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def __call__(
        self, notices: Sequence[Notice], on_result: Callable[[Delivery], Awaitable[None]]
    ) -> None:
        world = self._world
        world.plan.point("before a sender's spawn")
        for notice in notices:
            await asyncio.sleep(0.05)
            now = world.clock.now()
            if notice.route == "ops" and any(a <= now < b for a, b in world.mail_down):
                await on_result(Delivery(notice=notice.id, ok=False, error="connection refused"))
                continue
            if world.accepted[notice.id] and notice.id not in world.may_repeat:
                world.broken.append(f"{notice.id} arrived twice for no reason")
            world.accepted[notice.id] += 1
            world.arrivals.append(notice)
            world.may_repeat.add(notice.id)
            await on_result(Delivery(notice=notice.id, ok=True))
            world.may_repeat.discard(notice.id)


class Simulation:
    """One agent on one world, from its start to its crash or the end."""

    def __init__(self, world: World, path: Path) -> None:
        self.world = world
        self.state = CrashingState(path, world.plan)
        self.engine = Engine(
            state=self.state, clock=world.clock, policy=world.policy, writer=InlineExecutor()
        )
        self.jobs = SimulatedJobs(world)
        self.watcher = Watcher(
            look=world.look,
            transition=world.transition,
            take=self.take_look,
            clock=world.clock,
        )
        self.worker = Worker(
            host=lambda: self.engine.host,
            take=self.engine.take,
            read=self.engine.read,
            jobs=self.jobs,
            deliver=SimulatedMail(world),
            next_attempt=next_attempt,
            clock=world.clock,
            on_run_event=lambda _run, _event: None,
            on_notice=lambda _notice: None,
        )

    async def take_look(self, looked: Looked) -> Decision:
        return await self.engine.take(looked)

    async def live(self) -> None:
        """Runs until everything is settled after the last event of the script."""
        world = self.world
        connect(self.engine, self.watcher, self.worker)
        self.worker.start()
        await self.engine.take(Tick())
        self.watcher.watch(world.policy.checks)
        while world.script:
            at, happen = world.script[0]
            await asyncio.sleep(max(0.0, at - world.clock.now()))
            world.script.pop(0)
            await happen(self)
        while not self.is_settled():
            if world.clock.now() > BOOT + GIVE_UP:
                stuck = [(i.id, i.state.value, i.why) for i in self.engine.host.incidents]
                raise AssertionError(f"not settled: {stuck}, due {self.state.count_due()}")
            await asyncio.sleep(20.0)

    def is_settled(self) -> bool:
        host = self.engine.host
        return (
            not host.incidents
            and not any(run.alive for run in host.runs)
            and not self.state.count_due()
        )

    def close(self) -> None:
        self.watcher.close()
        self.worker.close()
        self.engine.close()


def simulate(seed: int, path: Path) -> World:
    """Lives through one seed; the world that comes back has been judged."""
    world = World(seed)
    while True:
        loop = VirtualLoop(world.time)
        loop.set_exception_handler(
            lambda _loop, context: world.broken.append(f"unhandled: {context}")
        )
        asyncio.set_event_loop(loop)
        simulation = Simulation(world, path)
        try:
            loop.run_until_complete(simulation.live())
        except Crash:
            simulation.jobs.die_with_agent()
            _drop(loop)
            simulation.state.close()
            world.time.now += world.rng.choice([0.01, 1.0, 60.0])
            continue
        judge(world, simulation)
        simulation.close()
        loop.run_until_complete(asyncio.sleep(0))
        _drop(loop)
        simulation.state.close()
        return world


def _drop(loop: asyncio.AbstractEventLoop) -> None:
    """Lets go of a dead agent's tasks without running another line of them."""
    loop.set_exception_handler(lambda _loop, _context: None)
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        coroutine = task.get_coro()
        _FORGOTTEN.append((task, coroutine))
    asyncio.set_event_loop(None)
    loop.close()


#: Kept until the test ends: closing a coroutine would run its `finally` clauses.
_FORGOTTEN: list[Any] = []


def judge(world: World, simulation: Simulation) -> None:
    """Nothing lost, nothing doubled, nothing left over."""
    state, host = simulation.state, simulation.engine.host
    everything = Listing(limit=10_000)
    incidents = state.list_incidents(everything, dropped=True)
    runs = state.list_runs(everything)
    notices = state.list_notices(everything)
    assert not world.broken, world.broken
    numbers = sorted(int(item.id[1:]) for group in (incidents, runs, notices) for item in group)
    expected = set(range(1, host.serial + 1))
    missing = expected - set(numbers)
    silences = {int(line) for line in missing}
    assert len(numbers) == len(set(numbers)), "a number was given twice"
    assert len(silences) <= 1, f"lost: {sorted(missing)}"
    for run in runs:
        assert run.outcome is not None, f"{run.id} never ended"
        assert world.started[run.id] <= 1, f"{run.id} was started {world.started[run.id]} times"
        if run.outcome is not Outcome.LOST:
            assert world.started[run.id] == 1, f"{run.id} ended and was never started"
    for notice in notices:
        assert notice.state is NoticeState.DELIVERED, f"{notice.id} is {notice.state}"
        assert world.accepted[notice.id] >= 1, f"{notice.id} was marked and never arrived"
    _judge_order(world)
    for incident in incidents:
        steps = state.list_transitions(incident.id)
        assert steps[0].old is None
        for before, after in itertools.pairwise(steps):
            assert after.old is before.new, f"{incident.id}: {before} then {after}"
        assert steps[-1].new is incident.state
        if incident.resolved_by is ResolvedBy.RUN:
            run = next(r for r in runs if r.id == incident.healed_by)
            assert run.outcome is Outcome.OK
            assert run.proved
            assert incident.after is not None
            assert incident.passing_since is not None
            assert run.ended is not None
            assert incident.passing_since > run.ended
    _judge_quiescence(simulation)


def _judge_order(world: World) -> None:
    seen: dict[tuple[str, str], int] = {}
    first: set[str] = set()
    for notice in world.arrivals:
        if notice.id in first or not notice.order:
            continue
        first.add(notice.id)
        number = int(notice.id[1:])
        key = (notice.route, notice.order)
        assert seen.get(key, 0) < number, f"{notice.id} overtook on {key}"
        seen[key] = number


def _judge_quiescence(simulation: Simulation) -> None:
    from agent.core.decide import decide

    host: Host = simulation.engine.host
    now = simulation.world.clock.now()
    first = decide(host, Tick(), simulation.world.policy, now)
    second = decide(first.host, Tick(), simulation.world.policy, now)
    assert second.host == first.host
    assert (second.runs, second.notices, second.transitions) == ((), (), ())
    assert all(incident.state is not State.REPAIRING for incident in host.incidents)


def forget() -> None:
    """Drops what dead agents left in memory."""
    for _task, coroutine in _FORGOTTEN:
        with contextlib.suppress(BaseException):
            coroutine.close()
    _FORGOTTEN.clear()
