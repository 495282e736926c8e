"""What is kept of incidents: stories, explanations and reports, and the orders on them."""

from __future__ import annotations

from collections.abc import Callable

from agent.agent import EvidenceItem, Explanation, IncidentStory, Page
from agent.clock import Clock
from agent.core.holds import NextStep, count_attempts, gates, next_step
from agent.core.model import Held, Incident, Instant, Ordered, State, Verb
from agent.core.units import format_duration
from agent.engine import Engine
from agent.errors import Conflict, NotFound
from agent.paging import check_before, check_id, cut_page
from agent.records import Records
from agent.remedies.catalog import Catalog
from agent.reports.incident import LISTED, Earlier, Exhibit, IncidentReport, make_report
from agent.store.state import Listing
from agent.witness import Witness

#: Earlier incidents of a check that a report looks through.
_EARLIER = 500


class Incidents:
    """Reads incidents from the state, and puts together what else is known of them."""

    def __init__(
        self,
        *,
        engine: Engine,
        witness: Witness,
        records: Records,
        catalog: Callable[[], Catalog],
        clock: Clock,
        host: str,
    ) -> None:
        self._engine = engine
        self._witness = witness
        self._records = records
        self._catalog = catalog
        self._clock = clock
        self._host = host

    async def list(
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
        listing = Listing(limit=limit + 1, before=check_before(before, "i"), where=where)
        found = await self._engine.read(lambda state: state.list_incidents(listing))
        return cut_page(found, limit)

    async def story(self, incident_id: str) -> IncidentStory:
        incident = await self._find(incident_id)
        listing = Listing(limit=200, where={"incident": incident.id})
        read = self._engine.read
        transitions = await read(lambda state: state.list_transitions(incident.id))
        runs = await read(lambda state: state.list_runs(listing))
        notices = await read(lambda state: state.list_notices(listing))
        kept = await self._witness.read(incident.id)
        return IncidentStory(
            incident=incident,
            held=self._engine.last.holds.get(incident.id),
            transitions=transitions,
            runs=tuple(reversed(runs)),
            notices=tuple(reversed(notices)),
            evidence=tuple(
                EvidenceItem(when=k.stage, taken=k.taken, evidence=k.evidence) for k in kept
            ),
            downtime=incident.count_downtime(self._clock.now()),
        )

    async def report(self, incident_id: str) -> IncidentReport:
        story = await self.story(incident_id)
        incident, catalog = story.incident, self._catalog()
        tasks = {run.id: await self._records.run_events(run.id) for run in story.runs}
        listing = Listing(
            limit=_EARLIER,
            before=incident.id,
            where={"check_name": incident.check, "live": 0},
        )
        found = await self._engine.read(lambda state: state.list_incidents(listing))
        earlier = [each for each in found if each.subject == incident.subject]
        return make_report(
            host=self._host,
            now=self._clock.now(),
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

    async def explain(self, incident_id: str) -> Explanation:
        incident = await self._find(incident_id)
        policy, host = self._engine.policy, self._engine.host
        now = self._clock.now()
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
        return await self._order(incident_id, Verb.ACKNOWLEDGE, by)

    async def approve(self, incident_id: str, *, by: str, digest: str = "") -> Incident:
        return await self._order(incident_id, Verb.APPROVE, by, digest=digest)

    async def reject(self, incident_id: str, *, by: str) -> Incident:
        return await self._order(incident_id, Verb.REJECT, by)

    async def retry(self, incident_id: str, *, by: str) -> Incident:
        return await self._order(incident_id, Verb.RETRY, by)

    async def close(self, incident_id: str, *, by: str) -> Incident:
        return await self._order(incident_id, Verb.CLOSE, by)

    async def _order(self, incident_id: str, verb: Verb, by: str, *, digest: str = "") -> Incident:
        known = await self._find(incident_id)
        if known.state.ended:
            raise Conflict(f"cannot {verb} incident {known.id}: it is {known.state} already")
        order = Ordered(verb=verb, by=by, target=known.id, digest=digest)
        await self._engine.take(order)
        return await self._find(known.id)

    async def _find(self, incident_id: str) -> Incident:
        number = check_id(incident_id, "i")
        found = await self._engine.read(lambda state: state.find_incident(number))
        if found is None:
            raise NotFound(f"cannot find incident {incident_id}: `hostmend incidents` lists them")
        return found


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
