"""The running agent behind the facade: which of its rooms answers what."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from agent.agent import AgentStatus, RehearsalRecord, RehearsalReport
from agent.clock import Clock
from agent.core.drill import Drill
from agent.core.model import Ordered, Status, Verb
from agent.digester import Digester
from agent.doorkeeper import Doorkeeper
from agent.drills.conductor import Conductor
from agent.engine import Engine
from agent.feed import Feed
from agent.herald import Herald
from agent.host.identity import Identity
from agent.host.machine import Machine
from agent.incidents import Incidents
from agent.loader import Loaded, Loader
from agent.lookout import Lookout, find_worst
from agent.looks import Looks
from agent.notices import Notices
from agent.records import Records
from agent.routes import Routes
from agent.runs import Runs
from agent.silences import Silences
from agent.tokens import Tokens
from agent.trail import Trail
from agent.watcher import Watcher
from agent.witness import Witness
from agent.worker import Worker


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a running agent is made of."""

    engine: Engine
    watcher: Watcher
    worker: Worker
    witness: Witness
    looks: Looks
    records: Records
    loader: Loader
    machine: Machine
    feed: Feed
    herald: Herald
    notices: Notices
    routes: Routes
    tokens: Tokens
    conductor: Conductor
    digester: Digester
    clock: Clock


class RunningAgent:
    """Implements `agent.agent.AgentFacade` over the parts that bootstrap made.

    What one room can answer alone is the room's own method under the facade's name; the methods
    below need several, or order something of the loops themselves.
    """

    def __init__(
        self,
        *,
        parts: Parts,
        apply_config: Callable[[Loaded], Awaitable[None]],
        version: str,
        host: str,
        identity: Identity,
        config_path: str,
        find_troubles: Callable[[], tuple[str, ...]],
        problems: MutableMapping[str, str],
    ) -> None:
        """`problems`: what is wrong with the agent itself, by where it comes from."""
        self._parts = parts
        self._apply_config = apply_config
        self._version = version
        self._host = host
        self._config_path = config_path
        self._find_troubles = find_troubles
        self.problems = problems
        self._started = parts.clock.now()
        self._drained = False
        self._reloading = asyncio.Lock()
        engine, loader, tell = parts.engine, parts.loader, parts.herald.tell

        lookout = Lookout(
            engine=engine,
            watcher=parts.watcher,
            config=lambda: loader.config,
            remember=parts.looks.remember,
        )
        self.checks = lookout.checks
        self.check = lookout.check
        self.look = lookout.look
        self.tell = lookout.tell
        self.tell_alerts = lookout.tell_alerts
        self.start_audit = lookout.start_audit

        incidents = Incidents(
            engine=engine,
            witness=parts.witness,
            records=parts.records,
            catalog=lambda: loader.catalog,
            clock=parts.clock,
            host=host,
        )
        self.incidents = incidents.list
        self.incident = incidents.story
        self.explain = incidents.explain
        self.report = incidents.report
        self.acknowledge = incidents.acknowledge
        self.approve = incidents.approve
        self.reject = incidents.reject
        self.retry = incidents.retry
        self.close = incidents.close

        runs = Runs(
            engine=engine, worker=parts.worker, records=parts.records, loader=loader, tell=tell
        )
        self.remedies = runs.remedies
        self.remedy = runs.remedy
        self.run_remedy = runs.order
        self.runs = runs.list
        self.run = runs.find
        self.run_events = runs.events
        self.cancel_run = runs.cancel

        self.notices = parts.notices.list
        self.try_routes = parts.routes.try_routes
        self.events = parts.feed.follow
        self.digest = parts.digester.make_last

        self.audits = parts.records.audits
        self.audit = parts.records.audit
        self.drills = parts.records.drills
        self.drill = parts.records.drill
        self.rehearsals = parts.records.rehearsals
        self.rehearsal = parts.records.rehearsal

        silences = Silences(
            engine=engine, config=lambda: loader.config, clock=parts.clock, tell=tell
        )
        self._windows = silences.windows
        self.silences = silences.list
        self.silence = silences.find
        self.add_silence = silences.begin
        self.end_silence = silences.end

        door = Doorkeeper(engine=engine, tokens=parts.tokens, identity=identity, tell=tell)
        self.tokens = door.list
        self.token = door.find
        self.create_token = door.create
        self.revoke_token = door.revoke
        self.authenticate = parts.tokens.authenticate
        self.admits = parts.tokens.admits
        self.why_closed = door.why_closed
        self.confirm_host = door.confirm_host

        trail = Trail(engine=engine, clock=parts.clock)
        self.begin_action = trail.begin
        self.end_action = trail.end
        self.actions = trail.list

    # What needs several rooms

    def status(self) -> AgentStatus:
        last, host = self._parts.engine.last, self._parts.engine.host
        checks = self.checks()
        counts: dict[str, int] = {}
        for check in checks:
            counts[check.status] = counts.get(check.status, 0) + 1
        return AgentStatus(
            version=self._version,
            host=self._host,
            started=self._started,
            now=self._parts.clock.now(),
            worst=find_worst(Status(check.status) for check in checks),
            checks_count=counts,
            incidents=tuple(reversed([i for i in host.incidents if not i.state.ended])),
            holds=last.holds,
            runs_alive=tuple(run for run in host.runs if run.alive),
            notices_due=self._parts.notices.due,
            lateness=self._parts.watcher.lateness(),
            paused=host.paused,
            storm=host.storm,
            silences=(*host.silences, *self._windows()),
            missing=self._parts.machine.list_missing(),
            problems=self._list_problems(),
            config_path=self._config_path,
            config_loaded=self._parts.loader.loaded.at,
        )

    def _list_problems(self) -> tuple[str, ...]:
        return (
            *(trouble for trouble in (self.why_closed(), *self._find_troubles()) if trouble),
            *self.problems.values(),
        )

    async def pause(self, *, by: str, seconds: float | None = None, why: str = "") -> None:
        until = None if seconds is None else self._parts.clock.now() + seconds
        await self._parts.engine.take(Ordered(verb=Verb.PAUSE, by=by, until=until, why=why))

    async def resume(self, *, by: str) -> None:
        await self._parts.engine.take(Ordered(verb=Verb.RESUME, by=by))

    async def start_drill(
        self, fault: str, options: Mapping[str, Any], *, seconds: float, by: str
    ) -> Drill:
        return await self._parts.conductor.start(fault, options, budget=seconds, by=by)

    async def end_drill(self, drill_id: str, *, by: str) -> Drill:
        return await self._parts.conductor.end(await self.drill(drill_id), by=by)

    async def keep_rehearsal(self, told: RehearsalReport, *, by: str) -> RehearsalRecord:
        kept = await self._parts.records.keep_rehearsal(told, by=by)
        self._parts.herald.tell(f"{by} rehearsed {told.candidate}: {told.headline}")
        return kept

    async def reload(self, *, by: str) -> AgentStatus:
        async with self._reloading:
            await self._apply_config(await self._parts.loader.read(by=by))
        self._parts.herald.tell(f"{by} reloaded the configuration")
        return self.status()

    async def drain(self) -> None:
        """Looks no more, lets runs that are alive end, delivers what is due once more."""
        if not self._drained:
            self._drained = True
            self._parts.watcher.close()
            await self._parts.worker.drain()
