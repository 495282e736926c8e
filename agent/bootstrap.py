"""The one place where everything is wired."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent import __version__
from agent.agent import CheckStatus
from agent.carriers import JobCarrier, Mail
from agent.checks.service import SERVICE
from agent.clock import Clock
from agent.config import Config, load_config
from agent.core.model import (
    Decision,
    Event,
    Finding,
    Host,
    Instant,
    Looked,
    Notice,
    Outcome,
    Reconfigured,
    Reported,
    Run,
    RunEnded,
    RunState,
    Status,
)
from agent.digester import Digester
from agent.discovery import Discovery, compare, find_proposals
from agent.drills.conductor import Conductor
from agent.engine import Engine, Listener
from agent.errors import HostmendError, NotFound
from agent.feed import Feed
from agent.herald import Herald
from agent.host.identity import Identity, hash_id, read_identity
from agent.host.machine import Machine, open_machine
from agent.host.memory import Memories
from agent.host.transition import host_transition
from agent.loader import Loaded, Loader
from agent.lookout import describe_check
from agent.looks import Looks
from agent.notices import Notices
from agent.notify.backoff import next_attempt
from agent.records import Records
from agent.remedies.catalog import SHIPPED, Catalog
from agent.remedies.client import Spare, pack_modules, prepare_runtime
from agent.routes import Routes
from agent.running import Parts, RunningAgent
from agent.selfwatch import Selfwatch
from agent.settings import Settings
from agent.store import origin
from agent.store.history import History
from agent.store.home import HISTORY, Home, make_private
from agent.surroundings import make_surroundings
from agent.tokens import Tokens
from agent.triggers import open_triggers
from agent.watcher import Watcher
from agent.witness import Witness
from agent.worker import Worker

_log = logging.getLogger(__name__)

#: Where the state goes on, below the runtime directory, while its own place fails.
_SHELTER = "shelter"
#: Seconds between looks at the agent's own files.
_TEND_EVERY = 10.0
#: Seconds between prunings of the history, and how long it is kept.
_PRUNE_EVERY = 3600.0
_HISTORY_FOR = 30 * 24 * 3600.0

#: Where an operator's own remedies live, beside the main configuration file.
_OWN_REMEDIES = "playbooks"


def connect(engine: Engine, watcher: Watcher, worker: Worker) -> None:
    """Hands on what each decision asks for: runs and notices to the worker, looks to the watcher.

    The worker is first, since the repair waits for nobody.
    """

    def hear(event: Event, decision: Decision) -> None:
        worker.hear(event, decision)
        # In one order always: a story that was simulated can be told again.
        watcher.request(sorted(decision.look))

    engine.listen(hear)


def find_remedies(settings: Settings) -> Catalog:
    """The remedies on offer: shipped ones, and the operator's own beside the configuration."""
    return Catalog.load(remedy_dirs(settings))


def remedy_dirs(settings: Settings) -> tuple[Path, ...]:
    return (SHIPPED, settings.config.parent / _OWN_REMEDIES)


def find_faults(settings: Settings) -> Catalog:
    """The faults on offer for drills, described as remedies are."""
    return Catalog.load([directory / "faults" for directory in remedy_dirs(settings)])


def read_config(settings: Settings, clock: Clock) -> Loaded:
    """The configuration in effect. Raises ConfigError for the first thing that is wrong."""
    catalog = find_remedies(settings)
    config = load_config(settings.config, catalog=catalog)
    return Loaded(config=config, catalog=catalog, at=clock.now())


@contextlib.asynccontextmanager
async def open_agent(settings: Settings) -> AsyncIterator[RunningAgent]:
    """The running agent, until the block ends; then it is drained.

    Raises ConfigError, StoreError or Unavailable when it cannot start.
    """
    make_private(settings.runtime_dir)
    clock = Clock.anchored(settings.runtime_dir / "clock")
    loaded = read_config(settings, clock)
    prepare_runtime(settings.runtime_dir)
    async with contextlib.AsyncExitStack() as stack:
        writer = stack.enter_context(ThreadPoolExecutor(1, "state"))
        history_writer = stack.enter_context(ThreadPoolExecutor(1, "history"))
        # Before the history, whose presence says that a state was here before.
        home = Home(settings.state_dir, settings.runtime_dir / _SHELTER)
        stack.callback(_close_on, writer, home.close)
        state = home.state
        history = History(settings.state_dir / HISTORY)
        stack.callback(_close_on, history_writer, history.close)
        identity = read_identity()
        doubt = _find_doubt(home, identity)
        if home.lost:
            # Old evidence must not be taken for that of new incidents.
            state.set_meta("serial", str(history.find_last_number()))
        engine = Engine(
            state=state,
            clock=clock,
            policy=loaded.config.policy,
            writer=writer,
            rescue=home.flee,
        )
        stack.callback(engine.close)
        machine = await open_machine(clock)
        stack.push_async_callback(machine.close)
        machine.ran = _make_ran(engine, clock)
        machine.repaired = _make_repaired(engine)
        feed = Feed()
        herald = Herald(feed=feed, clock=clock)
        records = Records(history=history, writer=history_writer, clock=clock)
        notices = Notices(engine)
        problems: dict[str, str] = {}

        async def read() -> Loaded:
            return await asyncio.to_thread(read_config, settings, clock)

        loader = Loader(loaded, read=read, problems=problems)

        def config() -> Config:
            return loader.config

        machine.named = lambda: _name_units(config())
        memories = Memories(history.list_memories())
        looks = Looks(
            config=config,
            machine=machine,
            memories=memories,
            take=engine.take,
            keep_audit=records.keep_audit,
            history=history,
            writer=history_writer,
            clock=clock,
        )

        async def transition() -> str:
            return await host_transition(machine)

        watcher = Watcher(look=looks.look, transition=transition, take=looks.take, clock=clock)
        witness = Witness(gather=looks.gather, history=history, writer=history_writer, clock=clock)
        stack.callback(witness.close)
        spare = Spare(settings.runtime_dir)
        stack.push_async_callback(spare.close)
        jobs = JobCarrier(
            config=config,
            remedy_dirs=remedy_dirs(settings),
            runtime_dir=settings.runtime_dir,
            witness=witness,
            clock=clock,
            spare=spare,
        )
        host_name = socket.gethostname()
        mail = Mail(
            config=config,
            read=engine.read,
            witness=witness,
            host=host_name,
            # Hardware too: a copy that kept its machine-id has other messages of these numbers.
            origin=hash_id(identity.machine + identity.hardware + state.era),
            clock=clock,
        )
        routes = Routes(config=config, try_routes=mail.try_routes, problems=problems)
        selfwatch = Selfwatch(
            watcher=watcher,
            engine=engine,
            routes=lambda: config().routes,
            find_troubles=lambda: (home.trouble, history.trouble),
            clock=clock,
        )
        machine.condition = selfwatch

        def hear_notice(notice: Notice) -> None:
            selfwatch.hear_notice(notice)
            notices.hear_notice(notice)
            herald.hear_notice(notice)

        def hear_run_event(run: Run, event: Mapping[str, Any]) -> None:
            herald.hear_task(run.id, records.keep_run_event(run.id, event), event)

        worker = Worker(
            host=lambda: engine.host,
            take=engine.take,
            read=engine.read,
            jobs=jobs,
            deliver=mail,
            next_attempt=next_attempt,
            clock=clock,
            on_run_event=hear_run_event,
            on_notice=hear_notice,
        )
        triggers = open_triggers(machine, lambda name: watcher.request((name,)))
        for trigger in triggers.values():
            stack.callback(trigger.close)

        async def apply(new: Loaded) -> None:
            await engine.reconfigure(new.config.policy)
            # Before anything looks: a look asks for its check's options.
            loader.adopt(new)
            await watch(new.config)
            await spare.keep(new.config.warm)
            await routes.check()

        async def watch(new: Config) -> None:
            for name, trigger in triggers.items():
                await trigger.watch(_watched(new, name))
            watcher.watch(new.policy.checks)

        conductor = Conductor(
            identity=identity,
            around=make_surroundings(
                engine=engine,
                config=config,
                records=records,
                faults=lambda: find_faults(settings),
                tell=herald.tell,
                clock=clock,
            ),
            clock=clock,
        )
        stack.push_async_callback(conductor.close)
        digester = Digester(
            engine=engine,
            watcher=watcher,
            config=config,
            memories=memories,
            host=host_name,
        )

        agent = RunningAgent(
            parts=Parts(
                engine=engine,
                watcher=watcher,
                worker=worker,
                witness=witness,
                looks=looks,
                records=records,
                loader=loader,
                machine=machine,
                feed=feed,
                herald=herald,
                notices=notices,
                routes=routes,
                tokens=Tokens(state=state, read=engine.read, now=clock.now),
                conductor=conductor,
                digester=digester,
                clock=clock,
            ),
            apply_config=apply,
            version=__version__,
            host=host_name,
            identity=identity,
            config_path=str(settings.config),
            find_troubles=lambda: (home.trouble, history.trouble, conductor.trouble),
            problems=problems,
        )
        # First: what runs changed must be read anew by the looks that follow.
        engine.listen(_make_forget(machine))
        connect(engine, watcher, worker)
        engine.listen(witness.hear)
        engine.listen(herald.hear)
        engine.listen(notices.hear)
        engine.listen(selfwatch.hear)
        engine.listen(_forgetter(jobs))
        await notices.take_up()
        await selfwatch.take_up()
        await _take_up(engine, home, doubt)
        worker.start()
        await conductor.take_up(await records.last_drill())
        await engine.take(Reconfigured())
        await spare.keep(loaded.config.warm)
        await watch(loaded.config)
        if not loaded.config.warm:
            packing = asyncio.ensure_future(pack_modules(settings.runtime_dir))
            stack.push_async_callback(_end, packing)
        await routes.check()
        tending = asyncio.ensure_future(_tend(engine, home, history, history_writer))
        stack.push_async_callback(_end, asyncio.ensure_future(digester.keep_sending()))
        try:
            yield agent
        finally:
            tending.cancel()
            await routes.close()
            await agent.drain()


def _close_on(writer: Executor, close: Callable[[], None]) -> None:
    """Closes a file on the thread that writes it: a write that is under way would crash."""
    writer.submit(close).result()


async def _end(task: asyncio.Future[None]) -> None:
    """Cancel it and wait: it may have a process to end."""
    task.cancel()
    await asyncio.wait({task})


async def look_once(settings: Settings, names: tuple[str, ...]) -> tuple[CheckStatus, ...]:
    """One look at each named check, or at all; needs no agent and repairs nothing.

    Raises ConfigError, and NotFound for a name that is not configured.
    """
    clock = Clock()
    loaded = read_config(settings, clock)
    checks = loaded.config.checks
    unknown = [name for name in names if name not in checks]
    if unknown:
        known = ", ".join(checks) or "none"
        raise NotFound(f"cannot look at {', '.join(unknown)}: configured are {known}")
    machine = await open_machine(clock)
    machine.named = lambda: _name_units(loaded.config)
    memories = Memories()
    results: dict[str, Looked] = {}
    done = asyncio.Event()
    wanted = {name: checks[name].policy for name in (names or checks)}

    async def look(name: str) -> tuple[Finding, ...]:
        # Nameless: what others reported, only a running agent knows.
        memory = replace(memories.open(name), check="")
        return await checks[name].type.look(checks[name].options, machine.remember(memory))

    async def nothing() -> str:
        return ""

    async def keep(looked: Looked) -> Decision:
        results.setdefault(looked.check, looked)
        if len(results) == len(wanted):
            done.set()
        return Decision(host=Host())

    watcher = Watcher(look=look, transition=nothing, take=keep, clock=clock)
    try:
        if wanted:
            watcher.watch(wanted)
            watcher.request(wanted)
            await done.wait()
    finally:
        watcher.close()
        await machine.close()
    overall = loaded.config.policy
    return tuple(describe_check(checks[name], results[name], overall) for name in wanted)


async def discover(settings: Settings) -> Discovery:
    """What should be checked on this host, held against its configuration; it only reads.

    Raises ConfigError when there is a configuration that cannot be used.
    """
    clock = Clock()
    loaded = read_config(settings, clock)
    machine = await open_machine(clock)
    try:
        proposals, troubles = await find_proposals(machine)
    finally:
        await machine.close()
    return compare(proposals, loaded.config, loaded.catalog, troubles=troubles)


def _find_doubt(home: Home, here: Identity) -> str:
    """Why the state may not be this host's own; empty when it is, which is then recorded."""
    if copied := origin.why_copied(home.state, here):
        return copied
    origin.complete(home.state, here)
    return home.lost


async def _take_up(engine: Engine, home: Home, doubt: str) -> None:
    """What an agent says of its state as it starts, before anything is done with it."""
    for news in home.take_news():
        await engine.take(Reported(summary=news))
    if not doubt:
        return
    _log.error("this host is not confirmed: %s", doubt)
    summary = f"{doubt}; nothing is repaired or told until you order: hostmend confirm"
    await engine.take(Reported(summary=summary, doubt=doubt))
    for run in engine.host.runs:
        if run.state is RunState.PLANNED:
            detail = "another agent planned it"
            await engine.take(
                RunEnded(run=run.id, outcome=Outcome.LOST, ended=run.planned, detail=detail)
            )


async def _tend(engine: Engine, home: Home, history: History, writer: Executor) -> None:
    """Sees to the files now and then, for as long as the agent runs."""
    loop = asyncio.get_running_loop()
    clock, pruned = loop.time, -math.inf
    while True:
        try:
            await engine.tend(home.tend)
            for news in home.take_news():
                await engine.take(Reported(summary=news, severity=Status.WARNING))
            await loop.run_in_executor(writer, history.tend)
            if clock() - pruned > _PRUNE_EVERY:
                pruned = clock()
                before = engine.now() - _HISTORY_FOR
                await loop.run_in_executor(writer, history.prune, before)
        except (HostmendError, sqlite3.Error) as error:
            _log.error("cannot see to the agent's files: %s", error)
        await asyncio.sleep(_TEND_EVERY)


def _make_ran(engine: Engine, clock: Clock) -> Callable[[str, Instant], bool]:
    """Whether a run on a unit was alive at an instant: what it stops is no operator's wish."""

    def ran(unit: str, at: Instant) -> bool:
        return any(
            run.started is not None
            and unit in run.options.values()
            and run.started <= at <= (run.ended or clock.now())
            for run in engine.host.runs
        )

    return ran


def _make_repaired(engine: Engine) -> Callable[[str], Instant | None]:
    """When the last run for a check ended: what was seen before says nothing of now."""

    def repaired(check: str) -> Instant | None:
        runs = (run for run in engine.host.runs if run.check == check and not run.preview)
        return max((run.ended for run in runs if run.ended is not None), default=None)

    return repaired


def _make_forget(machine: Machine) -> Listener:
    def hear(event: Event, _decision: Decision) -> None:
        if isinstance(event, RunEnded):
            machine.forget()

    return hear


def _name_units(config: Config) -> frozenset[str]:
    """Units that a check names: what looks at all units leaves these to it."""
    services = [check for check in config.checks.values() if check.type is SERVICE]
    return frozenset().union(*(check.type.names(check.options) for check in services))


def _watched(config: Config, trigger: str) -> dict[str, frozenset[str]]:
    """What a trigger watches: the thing -> the checks it is for."""
    found: dict[str, set[str]] = {}
    for name, check in config.checks.items():
        for watch in check.type.watches(check.options):
            if watch.trigger == trigger:
                found.setdefault(watch.what, set()).add(name)
    return {what: frozenset(names) for what, names in found.items()}


def _forgetter(jobs: JobCarrier) -> Listener:
    """Once a run's end is durable, what its job kept is removed."""

    def hear(event: Event, _decision: Decision) -> None:
        if isinstance(event, RunEnded):
            jobs.forget(event.run)

    return hear
