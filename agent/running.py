"""The running agent behind the facade: asks the engine, orders through the engine."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from typing import Any

from agent.access import Action, ActionOutcome, NewToken, Role, Token
from agent.agent import (
    AgentStatus,
    AuditRecord,
    CheckStatus,
    EvidenceItem,
    Explanation,
    IncidentStory,
    Page,
    RehearsalRecord,
    RehearsalReport,
    RemedyInfo,
    RouteTest,
)
from agent.audit.result import Audit, dump_audit, load_audit
from agent.checks.push import PushOptions, read_alert, wants
from agent.clock import Clock
from agent.config import Config, LoadedCheck
from agent.core.drill import Drill
from agent.core.holds import (
    NextStep,
    count_attempts,
    find_windows,
    gates,
    mode_of,
    next_step,
    say_doubt,
)
from agent.core.model import (
    Decision,
    Event,
    Held,
    Incident,
    Instant,
    Looked,
    Notice,
    NoticeState,
    Ordered,
    Policy,
    Run,
    RunEnded,
    RunStarted,
    Silence,
    State,
    Status,
    Step,
    Verb,
)
from agent.core.units import format_duration
from agent.digester import Digester
from agent.drills.conductor import Conductor, read_drill
from agent.engine import Engine
from agent.errors import (
    ConfigError,
    Conflict,
    HostmendError,
    Invalid,
    NotFound,
    RemedyError,
    StoreError,
)
from agent.feed import Feed, LiveEvent
from agent.host.identity import Identity
from agent.host.machine import Machine
from agent.remedies.catalog import Catalog
from agent.remedies.description import Remedy
from agent.remedies.options import check_options
from agent.reports.digest import Digest
from agent.reports.incident import LISTED, Earlier, Exhibit, IncidentReport, make_report
from agent.store import origin
from agent.store.history import History
from agent.store.state import Listing, number_of
from agent.tokens import Tokens
from agent.told import Alert, Report, Taken
from agent.watcher import Watcher
from agent.witness import Witness
from agent.worker import Worker

_log = logging.getLogger(__name__)

#: Defects of an audit that are kept.
_KEPT_DEFECTS = 500

#: Earlier incidents of a check that a report looks through.
_EARLIER = 500

_WORST = (Status.OK, Status.UNKNOWN, Status.WARNING, Status.CRITICAL)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A configuration with the remedies that it was read against."""

    config: Config
    catalog: Catalog
    at: Instant


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a running agent is made of."""

    engine: Engine
    watcher: Watcher
    worker: Worker
    witness: Witness
    history: History
    history_writer: Executor
    machine: Machine
    feed: Feed
    tokens: Tokens
    clock: Clock
    #: Remembers reports on a check, durably, by somebody. Raises Invalid.
    tell: Callable[[str, PushOptions, Sequence[Report], str], Awaitable[None]]
    conductor: Conductor
    digester: Digester


class RunningAgent:
    """Implements `agent.agent.AgentFacade` over the parts that bootstrap made."""

    def __init__(
        self,
        *,
        parts: Parts,
        loaded: Loaded,
        read_config: Callable[[], Awaitable[Loaded]],
        apply_config: Callable[[Loaded], Awaitable[None]],
        version: str,
        host: str,
        config_path: str,
        try_routes: Callable[[Sequence[str], str], Awaitable[tuple[RouteTest, ...]]],
        find_troubles: Callable[[], tuple[str, ...]] = tuple,
        identity: Identity,
    ) -> None:
        self._parts = parts
        self._loaded = loaded
        self._read_config = read_config
        self._apply_config = apply_config
        self._version = version
        self._host = host
        self._config_path = config_path
        self._find_troubles = find_troubles
        self._try_routes = try_routes
        self._trying = False
        self._identity = identity
        self._started = parts.clock.now()
        self._seen: dict[str, tuple[str, ...]] = {}
        self._numbers: dict[str, int] = {}
        self._due = 0
        self._drained = False
        self._reloading = asyncio.Lock()
        #: What is wrong with the agent itself, by where it comes from.
        self.problems: dict[str, str] = {}
        self._note_problems()

    @property
    def loaded(self) -> Loaded:
        return self._loaded

    # Listening to what happens

    def hear(self, event: Event, decision: Decision) -> None:
        """Passes a committed decision on to those who watch."""
        feed, now = self._parts.feed, self._parts.clock.now()
        if isinstance(event, Looked):
            self._hear_look(event, decision)
        for transition in decision.transitions:
            incident = _find((*decision.host.incidents, *decision.ended), transition.incident)
            feed.put(
                transition.at,
                "incident",
                {
                    "incident": transition.incident,
                    "old": transition.old,
                    "new": transition.new,
                    "why": transition.why,
                    "check": incident.check if incident else "",
                    "subject": incident.subject if incident else "",
                    "resolved_by": incident.resolved_by if incident else None,
                    "downtime_seconds": incident.count_downtime(now) if incident else 0.0,
                },
            )
        runs = list(decision.runs)
        if isinstance(event, RunStarted | RunEnded):
            runs += [run for run in decision.host.runs if run.id == event.run]
        for run in runs:
            feed.put(
                now,
                "run",
                {
                    "run": run.id,
                    "remedy": run.remedy,
                    "state": run.state,
                    "outcome": run.outcome,
                    "incident": run.incident,
                    "detail": run.detail,
                    "preview": run.preview,
                },
            )
        for notice in decision.notices:
            self._put_notice(notice)
        self._due += len(decision.notices)

    def _hear_look(self, event: Looked, decision: Decision) -> None:
        """A look is news when it says something else than the one before, or an incident waits."""
        seen = tuple(sorted(f"{f.subject}={f.status}:{f.cause}" for f in event.findings))
        seen += (event.broken,)
        waiting = any(incident.check == event.check for incident in decision.host.incidents)
        if self._seen.get(event.check) != seen or waiting:
            self._seen[event.check] = seen
            self._parts.feed.put(
                event.ended,
                "look",
                {
                    "check": event.check,
                    "broken": event.broken,
                    "took_seconds": event.ended - event.began,
                    "findings": [
                        {
                            "subject": f.subject,
                            "status": f.status,
                            "cause": f.cause,
                            "summary": f.summary,
                        }
                        for f in event.findings
                    ],
                },
            )

    def hear_notice(self, notice: Notice) -> None:
        """Passes an attempt at delivery on."""
        if notice.state is not NoticeState.DUE:
            self._due = max(0, self._due - 1)
        self._put_notice(notice)

    def count_due(self, due: int) -> None:
        """How many notices an earlier agent left."""
        self._due = due

    def _put_notice(self, notice: Notice) -> None:
        self._parts.feed.put(
            self._parts.clock.now(),
            "notice",
            {
                "notice": notice.id,
                "route": notice.route,
                "reason": notice.reason,
                "state": notice.state,
                "attempts": notice.attempts,
                "error": notice.error,
                "incident": notice.incident.id if notice.incident else None,
            },
        )

    def hear_run_event(self, run: Run, event: Mapping[str, Any]) -> None:
        """Keeps and passes on what a job said."""
        number = self._numbers[run.id] = self._numbers.get(run.id, 0) + 1
        if event.get("event") == "ended":
            del self._numbers[run.id]
        now = self._parts.clock.now()
        self._parts.feed.put(now, "task", {**event, "run": run.id, "number": number})

        def keep() -> None:
            try:
                self._parts.history.add_run_event(run.id, number, now, event)
            except HostmendError as error:
                _log.error("cannot keep an event of run %s: %s", run.id, error)

        self._parts.history_writer.submit(keep)

    # Status and checks

    def status(self) -> AgentStatus:
        last, host = self._parts.engine.last, self._parts.engine.host
        checks = self.checks()
        counts: dict[str, int] = {}
        for check in checks:
            counts[check.status] = counts.get(check.status, 0) + 1
        statuses = [Status(check.status) for check in checks]
        return AgentStatus(
            version=self._version,
            host=self._host,
            started=self._started,
            now=self._parts.clock.now(),
            worst=max(statuses, key=_WORST.index, default=Status.OK),
            checks_count=counts,
            incidents=tuple(reversed([i for i in host.incidents if not i.state.ended])),
            holds=last.holds,
            runs_alive=tuple(run for run in host.runs if run.alive),
            notices_due=self._due,
            lateness=self._parts.watcher.lateness(),
            paused=host.paused,
            storm=host.storm,
            silences=(*host.silences, *self._windows()),
            missing=self._parts.machine.list_missing(),
            problems=self._list_problems(),
            config_path=self._config_path,
            config_loaded=self._loaded.at,
        )

    def _list_problems(self) -> tuple[str, ...]:
        return (
            *(trouble for trouble in (self.why_closed(), *self._find_troubles()) if trouble),
            *self.problems.values(),
        )

    def checks(self) -> tuple[CheckStatus, ...]:
        return tuple(self.check(name) for name in self._loaded.config.checks)

    def check(self, name: str) -> CheckStatus:
        loaded = self._loaded.config.checks.get(name)
        if loaded is None:
            known = ", ".join(self._loaded.config.checks) or "none"
            raise NotFound(f"cannot find a check {name!r}: there are {known}")
        return describe_check(
            loaded,
            self._parts.watcher.last(name),
            self._parts.engine.policy,
            tuple(i.id for i in self._parts.engine.host.incidents if i.check == name),
        )

    async def look(self, name: str) -> CheckStatus:
        self.check(name)
        await self._parts.watcher.look_now(name)
        return self.check(name)

    async def tell(self, name: str, report: Report, *, by: str) -> CheckStatus:
        self.check(name)
        loaded = self._loaded.config.checks[name]
        if not isinstance(loaded.options, PushOptions):
            raise Conflict(
                f"cannot take a report for {name}: it looks by itself; only a check of type push "
                "is reported on"
            )
        await self._parts.tell(name, loaded.options, (report,), by)
        return await self.look(name)

    async def tell_alerts(self, alerts: Sequence[Alert], *, by: str) -> Taken:
        wanted: dict[str, list[Alert]] = {}
        ignored = 0
        checks = self._loaded.config.checks.items()
        pushed = {n: c.options for n, c in checks if isinstance(c.options, PushOptions)}
        for alert in alerts:
            names = [name for name, options in pushed.items() if wants(options, alert)]
            ignored += not names
            for name in names:
                wanted.setdefault(name, []).append(alert)
        for name, found in wanted.items():
            options = pushed[name]
            reports = [read_alert(options, alert) for alert in found]
            await self._parts.tell(name, options, reports, by)
        await asyncio.gather(*(self._parts.watcher.look_now(name) for name in wanted))
        return Taken(checks={name: len(found) for name, found in wanted.items()}, ignored=ignored)

    # Audits

    def hear_audit(self, check: str, audit: Audit) -> None:
        """Keeps what an audit found."""
        kept = replace(audit, urls=(), defects=audit.defects[:_KEPT_DEFECTS], groups={})

        def keep() -> None:
            try:
                self._parts.history.add_audit(check, audit.began, dump_audit(kept))
            except (HostmendError, sqlite3.Error) as error:
                _log.error("cannot keep an audit of %s: %s", check, error)

        self._parts.history_writer.submit(keep)

    async def audits(
        self, *, limit: int = 50, before: str | None = None, check: str | None = None
    ) -> Page[AuditRecord]:
        last = _check_id(before, "a")
        found = await self._list_audits(
            limit=limit + 1, before=None if last is None else number_of(last), check=check
        )
        return _page(found, limit)

    async def audit(self, audit_id: str) -> AuditRecord:
        number = number_of(_check_id(audit_id, "a") or "")
        for found in await self._list_audits(limit=1, before=number + 1):
            if found.id == f"a{number}":
                return found
        raise NotFound(f"cannot find audit {audit_id}: it is not kept, or never was")

    async def _list_audits(
        self, *, limit: int, before: int | None, check: str | None = None
    ) -> tuple[AuditRecord, ...]:
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(
            self._parts.history_writer,
            lambda: self._parts.history.list_audits(limit=limit, before=before, check=check),
        )
        return tuple(
            AuditRecord(id=f"a{row.number}", check=row.check, audit=load_audit(row.body))
            for row in rows
        )

    async def start_audit(self, check: str, *, by: str) -> CheckStatus:
        del by  # the trail has it
        status = self.check(check)
        if status.type != "site":
            raise Invalid(f"cannot audit {check}: it is of type {status.type}, and not site")
        self._parts.watcher.request((check,))
        return status

    # Drills

    async def take_up_drill(self) -> None:
        """At the start: what another agent began is undone."""
        found = await self._list_drills(limit=1, before=None)
        await self._parts.conductor.take_up(found[0] if found else None)

    async def drills(self, *, limit: int = 50, before: str | None = None) -> Page[Drill]:
        last = _check_id(before, "d")
        found = await self._list_drills(
            limit=limit + 1, before=None if last is None else number_of(last)
        )
        return _page(found, limit)

    async def drill(self, drill_id: str) -> Drill:
        number = number_of(_check_id(drill_id, "d") or "")
        for found in await self._list_drills(limit=1, before=number + 1):
            if found.id == f"d{number}":
                return found
        raise NotFound(f"cannot find drill {drill_id}: it is not kept, or never was")

    async def _list_drills(self, *, limit: int, before: int | None) -> tuple[Drill, ...]:
        loop = asyncio.get_running_loop()
        history = self._parts.history
        rows = await loop.run_in_executor(
            self._parts.history_writer, lambda: history.list_drills(limit=limit, before=before)
        )
        return tuple(read_drill(number, body) for number, body in rows)

    async def start_drill(
        self, fault: str, options: Mapping[str, Any], *, seconds: float, by: str
    ) -> Drill:
        return await self._parts.conductor.start(fault, options, budget=seconds, by=by)

    async def end_drill(self, drill_id: str, *, by: str) -> Drill:
        return await self._parts.conductor.end(await self.drill(drill_id), by=by)

    # Rehearsals

    async def rehearsals(
        self, *, limit: int = 50, before: str | None = None
    ) -> Page[RehearsalRecord]:
        last = _check_id(before, "h")
        found = await self._list_rehearsals(
            limit=limit + 1, before=None if last is None else number_of(last)
        )
        return _page(found, limit)

    async def rehearsal(self, rehearsal_id: str) -> RehearsalRecord:
        number = number_of(_check_id(rehearsal_id, "h") or "")
        for found in await self._list_rehearsals(limit=1, before=number + 1):
            if found.id == f"h{number}":
                return found
        raise NotFound(f"cannot find rehearsal {rehearsal_id}: it is not kept, or never was")

    async def keep_rehearsal(self, told: RehearsalReport, *, by: str) -> RehearsalRecord:
        now, body = self._parts.clock.now(), json.dumps({"by": by, "told": asdict(told)})
        loop = asyncio.get_running_loop()
        number = await loop.run_in_executor(
            self._parts.history_writer, self._parts.history.add_rehearsal, now, body
        )
        self._tell(f"{by} rehearsed {told.candidate}: {told.headline}")
        return RehearsalRecord(id=f"h{number}", kept=now, by=by, told=told)

    async def _list_rehearsals(
        self, *, limit: int, before: int | None
    ) -> tuple[RehearsalRecord, ...]:
        loop = asyncio.get_running_loop()
        history = self._parts.history
        rows = await loop.run_in_executor(
            self._parts.history_writer, lambda: history.list_rehearsals(limit=limit, before=before)
        )
        return tuple(_read_rehearsal(*row) for row in rows)

    # Incidents

    async def incidents(
        self,
        *,
        live: bool | None = None,
        check: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> Page[Incident]:
        where: dict[str, object] = {}
        if live is not None:
            where["live"] = int(live)
        if check is not None:
            where["check_name"] = check
        listing = Listing(limit=limit + 1, before=_check_id(before, "i"), where=where)
        found = await self._parts.engine.read(lambda state: state.list_incidents(listing))
        return _page(found, limit)

    async def _incident(self, incident_id: str) -> Incident:
        number = _check_id(incident_id, "i") or ""
        found = await self._parts.engine.read(lambda state: state.find_incident(number))
        if found is None:
            raise NotFound(f"cannot find incident {incident_id}: `hostmend incidents` lists them")
        return found

    async def incident(self, incident_id: str) -> IncidentStory:
        incident = await self._incident(incident_id)
        listing = Listing(limit=200, where={"incident": incident.id})
        read = self._parts.engine.read
        transitions = await read(lambda state: state.list_transitions(incident.id))
        runs = await read(lambda state: state.list_runs(listing))
        notices = await read(lambda state: state.list_notices(listing))
        kept = await self._parts.witness.read(incident.id)
        return IncidentStory(
            incident=incident,
            held=self._parts.engine.last.holds.get(incident.id),
            transitions=transitions,
            runs=tuple(reversed(runs)),
            notices=tuple(reversed(notices)),
            evidence=tuple(
                EvidenceItem(when=k.stage, taken=k.taken, evidence=k.evidence) for k in kept
            ),
            downtime=incident.count_downtime(self._parts.clock.now()),
        )

    async def report(self, incident_id: str) -> IncidentReport:
        story = await self.incident(incident_id)
        incident, catalog = story.incident, self._loaded.catalog
        tasks = {run.id: await self.run_events(run.id) for run in story.runs}
        listing = Listing(
            limit=_EARLIER,
            before=_check_id(incident.id, "i"),
            where={"check_name": incident.check, "live": 0},
        )
        found = await self._parts.engine.read(lambda state: state.list_incidents(listing))
        earlier = [each for each in found if each.subject == incident.subject]
        return make_report(
            host=self._host,
            now=self._parts.clock.now(),
            incident=incident,
            downtime=story.downtime,
            transitions=story.transitions,
            runs=story.runs,
            tasks=tasks,
            notices=story.notices,
            evidence=tuple(
                Exhibit(stage=item.when, taken=item.taken, evidence=item.evidence)
                for item in story.evidence
            ),
            earlier=Earlier(count=len(earlier), incidents=tuple(earlier[:LISTED])),
            secrets={
                name: [option for option, taken in remedy.options.items() if taken.no_log]
                for name, remedy in catalog.remedies.items()
            },
        )

    async def digest(self, *, seconds: float | None = None) -> Digest:
        return await self._parts.digester.make_last(seconds)

    async def explain(self, incident_id: str) -> Explanation:
        incident = await self._incident(incident_id)
        policy, host = self._parts.engine.policy, self._parts.engine.host
        now = self._parts.clock.now()
        check = policy.checks.get(incident.check)
        waiting = incident.state in (State.OPEN, State.ESCALATED)
        found: tuple[Held, ...] = ()
        chosen: NextStep | str = ""
        attempts: dict[str, str] = {}
        if check is not None and not incident.state.ended:
            chosen = next_step(incident, check, host, policy, now)
            attempts = {
                step.key: f"{count_attempts(incident, step, host, policy, now)} of {step.attempts}"
                for step in check.ladder
            }
            if waiting:
                found = tuple(gates(incident, check, host, policy, now))
        used = sum(
            not run.by and not run.preview and now - run.planned < policy.budget_window
            for run in host.runs
        )
        remedy = chosen if isinstance(chosen, NextStep) else None
        return Explanation(
            incident=incident,
            remedy=remedy.step.remedy if remedy else "",
            options=remedy.options if remedy else {},
            gates=found,
            attempts=attempts,
            budget=(used, policy.runs_per_hour),
            next=_say_next(incident, found, remedy, now),
        )

    async def acknowledge(self, incident_id: str, *, by: str) -> Incident:
        return await self._order_on(incident_id, Verb.ACKNOWLEDGE, by)

    async def approve(self, incident_id: str, *, by: str, digest: str = "") -> Incident:
        return await self._order_on(incident_id, Verb.APPROVE, by, digest=digest)

    async def reject(self, incident_id: str, *, by: str) -> Incident:
        return await self._order_on(incident_id, Verb.REJECT, by)

    async def retry(self, incident_id: str, *, by: str) -> Incident:
        return await self._order_on(incident_id, Verb.RETRY, by)

    async def close(self, incident_id: str, *, by: str) -> Incident:
        return await self._order_on(incident_id, Verb.CLOSE, by)

    async def _order_on(
        self, incident_id: str, verb: Verb, by: str, *, digest: str = ""
    ) -> Incident:
        known = await self._incident(incident_id)
        if known.state.ended:
            raise Conflict(f"cannot {verb} incident {known.id}: it is {known.state} already")
        order = Ordered(verb=verb, by=by, target=known.id, digest=digest)
        await self._parts.engine.take(order)
        return await self._incident(known.id)

    async def pause(self, *, by: str, seconds: float | None = None, why: str = "") -> None:
        until = None if seconds is None else self._parts.clock.now() + seconds
        await self._parts.engine.take(Ordered(verb=Verb.PAUSE, by=by, until=until, why=why))

    async def resume(self, *, by: str) -> None:
        await self._parts.engine.take(Ordered(verb=Verb.RESUME, by=by))

    async def confirm_host(self, *, by: str, keep_tokens: bool = False) -> None:
        if self._parts.engine.host.doubt is None:
            raise Conflict("cannot confirm this host: nothing is in doubt")
        read, here = self._parts.engine.read, self._identity
        # In this order: an agent that dies in between doubts again, which does no harm.
        copied = await read(lambda state: origin.why_copied(state, here))
        if copied and not keep_tokens:
            revoked = await self._parts.tokens.revoke_all(by=by)
            self._tell(f"{by} revoked {revoked} tokens of the host that this one is a copy of")
        await read(lambda state: origin.sign(state, here))
        await self._parts.engine.take(Ordered(verb=Verb.CONFIRM, by=by))

    # Remedies and runs

    def remedies(self) -> tuple[RemedyInfo, ...]:
        return tuple(self._describe(r) for r in self._loaded.catalog.remedies.values())

    def remedy(self, name: str) -> RemedyInfo:
        return self._describe(self._loaded.catalog.get(name))

    def _describe(self, remedy: Remedy) -> RemedyInfo:
        checks = self._loaded.config.checks.items()
        return RemedyInfo(
            name=remedy.name,
            summary=remedy.summary,
            path=str(remedy.path),
            risk=remedy.risk,
            changes=remedy.changes,
            timeout=remedy.timeout,
            handles=remedy.handles,
            options={
                name: {
                    "type": option.type,
                    "required": option.required,
                    "description": option.description,
                    **({"default": option.default} if option.default is not None else {}),
                    **({"choices": list(option.choices)} if option.choices else {}),
                    **({"from": option.source} if option.source else {}),
                    **({"allow": "configured"} if option.configured_only else {}),
                    **({"no_log": True} if option.no_log else {}),
                }
                for name, option in remedy.options.items()
            },
            digest=remedy.digest,
            replaces=remedy.replaces,
            used_by=tuple(
                name
                for name, check in checks
                if any(step.remedy == remedy.name for step in check.policy.ladder)
            ),
        )

    async def run_remedy(
        self, name: str, options: Mapping[str, Any], *, preview: bool, by: str
    ) -> Run:
        remedy = self._loaded.catalog.get(name)
        try:
            checked = check_options(
                name, remedy.options, options, configured=self._loaded.config.configured
            )
        except RemedyError as error:
            raise Invalid(str(error)) from error
        step = Step(
            key="",
            remedy=name,
            causes=(),
            options=checked,
            risk=remedy.risk,
            changes=remedy.changes,
            timeout=remedy.timeout,
            lock=remedy.lock,
            digest=remedy.digest,
        )
        order = Ordered(verb=Verb.RUN, by=by, step=step, preview=preview)
        decision = await self._parts.engine.take(order)
        return await self.run(decision.made)

    async def runs(
        self, *, limit: int = 50, before: str | None = None, incident: str | None = None
    ) -> Page[Run]:
        where = {} if incident is None else {"incident": _check_id(incident, "i")}
        listing = Listing(limit=limit + 1, before=_check_id(before, "r"), where=where)
        found = await self._parts.engine.read(lambda state: state.list_runs(listing))
        return _page(found, limit)

    async def run(self, run_id: str) -> Run:
        number = _check_id(run_id, "r") or ""
        found = await self._parts.engine.read(lambda state: state.find_run(number))
        if found is None:
            raise NotFound(f"cannot find run {run_id}: `hostmend runs` lists them")
        return found

    async def run_events(self, run_id: str, *, after: int = 0) -> tuple[Mapping[str, Any], ...]:
        await self.run(run_id)
        loop = asyncio.get_running_loop()
        history = self._parts.history
        return await loop.run_in_executor(
            self._parts.history_writer, history.list_run_events, run_id, after
        )

    async def cancel_run(self, run_id: str, *, by: str) -> Run:
        run = await self.run(run_id)
        self._parts.worker.cancel(run_id)
        self._tell(f"{by} cancelled run {run_id}")
        return run

    async def notices(
        self, *, limit: int = 50, before: str | None = None, state: str | None = None
    ) -> Page[Notice]:
        if state is not None and state not in set(NoticeState):
            allowed = ", ".join(NoticeState)
            raise Invalid(f"cannot list notices with state {state!r}: it is one of {allowed}")
        where = {} if state is None else {"state": state}
        listing = Listing(limit=limit + 1, before=_check_id(before, "n"), where=where)
        found = await self._parts.engine.read(lambda stored: stored.list_notices(listing))
        return _page(found, limit)

    async def try_routes(self, names: Collection[str] = (), *, by: str) -> tuple[RouteTest, ...]:
        known = self._loaded.config.routes
        unknown = [name for name in names if name not in known]
        if unknown:
            raise NotFound(
                f"cannot test {', '.join(unknown)}: routes are {', '.join(known) or 'none'}"
            )
        if not known:
            raise Conflict("cannot test routes: none is configured, so nobody is told of anything")
        if self._trying:
            raise Conflict("cannot test routes: a test is under way; wait for its end")
        self._trying = True
        try:
            return await self._try_routes(tuple(dict.fromkeys(names)) or tuple(known), by)
        finally:
            self._trying = False

    # Silences

    def _windows(self) -> tuple[Silence, ...]:
        engine = self._parts.engine
        return find_windows(engine.host, engine.policy, self._parts.clock.now())

    async def silences(self, *, limit: int = 50, before: str | None = None) -> Page[Silence]:
        """Those that were ordered, newest first, then recurring windows by their names."""
        windows = self._windows()
        names = [window.id for window in windows]
        if before in names:
            return _page(windows[names.index(before) + 1 :][: limit + 1], limit)
        ordered = _page_of(self._parts.engine.host.silences, "s", limit + 1, before).items
        return _page((*ordered, *windows)[: limit + 1], limit)

    async def silence(self, silence_id: str) -> Silence:
        for window in self._windows():
            if window.id == silence_id:
                return window
        number = _check_id(silence_id, "s")
        for silence in self._parts.engine.host.silences:
            if silence.id == number:
                return silence
        raise NotFound(f"cannot find silence {silence_id}: `hostmend silence list` shows them")

    async def add_silence(
        self,
        *,
        by: str,
        seconds: float,
        checks: Collection[str] = (),
        subjects: Collection[str] = (),
        labels: Mapping[str, str] | None = None,
        comment: str = "",
        runs: bool = False,
    ) -> Silence:
        labels = dict(labels or {})
        self._refuse_what_matches_nothing(checks, subjects, labels)
        now = self._parts.clock.now()
        silence = Silence(
            id="",
            starts=now,
            ends=now + seconds,
            by=by,
            comment=comment,
            checks=tuple(checks),
            subjects=tuple(subjects),
            labels=labels,
            runs=runs,
        )
        order = Ordered(verb=Verb.SILENCE, by=by, silence=silence)
        decision = await self._parts.engine.take(order)
        made = next(s for s in decision.host.silences if s.id == decision.made)
        kind = "a maintenance window" if runs else "a silence"
        self._tell(f"{by} began {kind} ({made.id})")
        return made

    def _refuse_what_matches_nothing(
        self, checks: Collection[str], subjects: Collection[str], labels: Mapping[str, str]
    ) -> None:
        """A silence with a mistyped name is believed to be quiet, and is not."""
        known = self._loaded.config.checks
        unknown = [name for name in checks if name != "*" and name not in known]
        if unknown:
            raise Invalid(
                f"cannot silence {', '.join(unknown)}: configured are {', '.join(known) or 'none'}"
            )
        if subjects and not checks:
            raise Invalid("cannot silence subjects alone: name the checks that they are of")
        if labels and not any(
            all(check.policy.labels.get(k) == v for k, v in labels.items())
            for check in known.values()
        ):
            said = ", ".join(f"{name}={value}" for name, value in labels.items())
            raise Invalid(f"cannot silence {said}: no check carries these labels")

    async def end_silence(self, silence_id: str, *, by: str) -> Silence:
        silence = await self.silence(silence_id)
        if silence.recurring:
            raise Conflict(
                f"cannot end maintenance window {silence.id}: the configuration opens it; change "
                "that, and then: hostmend reload"
            )
        await self._parts.engine.take(Ordered(verb=Verb.END_SILENCE, by=by, target=silence.id))
        kind = "the maintenance window" if silence.runs else "the silence"
        self._tell(f"{by} ended {kind} {silence.id}")
        return silence

    # Access and the trail

    async def tokens(self, *, limit: int = 50, before: str | None = None) -> Page[Token]:
        return _page_of(self._parts.tokens.list(), "t", limit, before)

    async def token(self, token_id: str) -> Token:
        return self._parts.tokens.get(_check_id(token_id, "t") or "")

    async def create_token(
        self, name: str, *, role: Role, by: str, seconds: float | None = None
    ) -> NewToken:
        if why := self.why_closed():
            raise Conflict(f"cannot create a token: {why}")
        return await self._parts.tokens.create(name, role=role, by=by, seconds=seconds)

    async def revoke_token(self, token_id: str, *, by: str) -> Token:
        return await self._parts.tokens.revoke(_check_id(token_id, "t") or "", by=by)

    async def authenticate(self, secret: str) -> Token | None:
        return await self._parts.tokens.authenticate(secret)

    def admits(self, token_id: str) -> bool:
        return self._parts.tokens.admits(token_id)

    def why_closed(self) -> str:
        doubt = self._parts.engine.host.doubt
        return "" if doubt is None else say_doubt(doubt)

    async def begin_action(self, *, by: str, what: str, target: str = "") -> Action:
        action = Action(id="", at=self._parts.clock.now(), by=by, what=what, target=target)
        return await self._parts.engine.read(lambda state: state.add_action(action))

    async def end_action(
        self,
        action: Action,
        outcome: ActionOutcome,
        *,
        why: str = "",
        made: str = "",
        details: str = "",
    ) -> None:
        ended = replace(action, outcome=outcome, why=why, made=made, details=details)
        try:
            await self._parts.engine.read(lambda state: state.update_action(ended))
        except StoreError as error:
            _log.error(
                "cannot put on record that %s %s (%s): %s", action.what, outcome, action.id, error
            )

    async def actions(self, *, limit: int = 50, before: str | None = None) -> Page[Action]:
        listing = Listing(limit=limit + 1, before=_check_id(before, "a"))
        found = await self._parts.engine.read(lambda state: state.list_actions(listing))
        return _page(found, limit)

    def _tell(self, text: str) -> None:
        self._parts.feed.put(self._parts.clock.now(), "agent", {"text": text})

    # The agent itself

    async def drain(self) -> None:
        """Looks no more, lets runs that are alive end, delivers what is due once more."""
        if not self._drained:
            self._drained = True
            self._parts.watcher.close()
            await self._parts.worker.drain()

    async def reload(self, *, by: str) -> AgentStatus:
        async with self._reloading:
            try:
                loaded = await self._read_config()
            except (ConfigError, RemedyError) as error:
                self.problems["configuration"] = f"the configuration was not reloaded: {error}"
                _log.error("%s asked for a reload: %s", by, error)
                raise Invalid(str(error)) from error
            await self._apply_config(loaded)
        self._tell(f"{by} reloaded the configuration")
        return self.status()

    def adopt(self, loaded: Loaded) -> None:
        """From now on this configuration is the one in effect."""
        self._loaded = loaded
        self.problems.pop("configuration", None)
        self._note_problems()

    def _note_problems(self) -> None:
        for key in [key for key in self.problems if key.startswith("remedy ")]:
            del self.problems[key]
        for number, problem in enumerate(self._loaded.catalog.problems):
            self.problems[f"remedy {number}"] = str(problem)

    def events(self, *, after: int | None = None) -> AsyncIterator[LiveEvent]:
        return self._parts.feed.follow(after)


def describe_check(
    check: LoadedCheck, last: Looked | None, overall: Policy, incidents: tuple[str, ...] = ()
) -> CheckStatus:
    """A configured check and its last look, if there was one."""
    policy = check.policy
    findings = last.findings if last else ()
    statuses = [finding.status for finding in findings]
    if last is None or last.broken:
        statuses.append(Status.UNKNOWN)
    modes = {mode_of(step, policy, overall) for step in policy.ladder}
    return CheckStatus(
        name=policy.name,
        type=check.type.name,
        every=policy.every,
        depends_on=policy.depends_on,
        ladder=tuple(step.remedy for step in policy.ladder),
        mode=", ".join(sorted(modes)) or (policy.mode or overall.mode),
        labels=policy.labels,
        looked=last.began if last else None,
        took=last.ended - last.began if last else None,
        findings=findings,
        broken=last.broken if last else "",
        status=max(statuses, key=_WORST.index, default=Status.OK),
        incidents=incidents,
    )


def _read_rehearsal(number: int, kept: Instant, body: str) -> RehearsalRecord:
    value = json.loads(body)
    told = RehearsalReport(**value["told"])
    return RehearsalRecord(id=f"h{number}", kept=kept, by=value["by"], told=told)


def _find(incidents: tuple[Incident, ...], incident_id: str) -> Incident | None:
    return next((i for i in incidents if i.id == incident_id), None)


def _check_id(given: str | None, letter: str) -> str | None:
    """An id as it must be written. Raises Invalid, which says how."""
    if given is None:
        return None
    digits = given.removeprefix(letter)
    if not digits.isascii() or not digits.isdigit() or len(digits) > 15:
        raise Invalid(f"cannot use the id {given[:40]!r}: write for example {letter}17")
    return f"{letter}{digits}"


def _page(found: tuple[Any, ...], limit: int) -> Page[Any]:
    items = found[:limit]
    return Page(items=items, next=items[-1].id if len(found) > limit else None)


def _page_of(items: Iterable[Any], letter: str, limit: int, before: str | None) -> Page[Any]:
    """A part of what is in memory, newest first."""
    last = _check_id(before, letter)
    end = None if last is None else number_of(last)
    newest = sorted(items, key=lambda item: number_of(item.id), reverse=True)
    found = [item for item in newest if end is None or number_of(item.id) < end]
    return _page(tuple(found), limit)


def _say_next(
    incident: Incident, found: tuple[Held, ...], chosen: NextStep | None, now: Instant
) -> str:
    match incident.state:
        case State.PENDING:
            return "It is looked at again until it is believed or dropped."
        case State.REPAIRING:
            return f"Run {incident.run} is under way."
        case State.VERIFYING:
            return f"Looks that begin now prove run {incident.run}, or the ladder goes on."
        case State.PROBATION:
            return "It passes, and must stay so until it is resolved."
        case State.RESOLVED | State.GONE:
            return f"Nothing: it is {incident.state}."
    if not found:
        return f"{chosen.step.remedy} runs next." if chosen else "It is planned at the next event."
    first = found[0]
    words = f"Held ({first.hold}): {first.detail}."
    if first.until is not None and first.until > now:
        words += f" This changes by itself in {format_duration(first.until - now)}."
    return words
