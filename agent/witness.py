"""Takes evidence: what an incident looked like before a repair, and after its proof."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from agent.clock import Clock
from agent.core.cleaning import clean_evidence
from agent.core.model import Decision, Event, Evidence, Finding, Incident, State
from agent.errors import HostmendError
from agent.store.history import History, KeptEvidence

_log = logging.getLogger(__name__)

#: Longest that one taking of evidence may last, in seconds.
LIMIT = 10.0


class Witness:
    """Gathers evidence beside the repair, and lets those wait for it who need it.

    `gather` is given a check's name and the finding. Evidence is good to have: what goes wrong is
    logged, and nothing waits longer than `LIMIT`.
    """

    def __init__(
        self,
        *,
        gather: Callable[[str, Finding], Awaitable[tuple[Evidence, ...]]],
        history: History,
        writer: Executor,
        clock: Clock,
    ) -> None:
        self._gather = gather
        self._history = history
        self._writer = writer
        self._clock = clock
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def hear(self, _event: Event, decision: Decision) -> None:
        """Takes evidence of incidents that were just confirmed, or just proved mended."""
        known = {i.id: i for i in (*decision.host.incidents, *decision.ended)}
        for transition in decision.transitions:
            incident = known.get(transition.incident)
            if incident is None:
                continue
            if transition.new is State.OPEN and transition.old is State.PENDING:
                self._start(incident, "before", incident.before)
            elif transition.new is State.PROBATION:
                self._start(incident, "after", incident.finding)

    def _start(self, incident: Incident, stage: str, finding: Finding) -> None:
        earlier = self._under_way.get(incident.id)
        task = asyncio.ensure_future(self._take(earlier, incident, stage, finding))
        self._under_way[incident.id] = task

        def forget(done: asyncio.Task[None]) -> None:
            if self._under_way.get(incident.id) is done:
                del self._under_way[incident.id]

        task.add_done_callback(forget)

    async def _take(
        self, earlier: asyncio.Task[None] | None, incident: Incident, stage: str, finding: Finding
    ) -> None:
        if earlier is not None:
            await asyncio.wait({earlier})
        items = [_describe(finding)]
        try:
            async with asyncio.timeout(LIMIT):
                items += await self._gather(incident.check, finding)
        except TimeoutError:
            items.append(Evidence(title="Incomplete", text=f"it took longer than {LIMIT:g} s"))
        except (HostmendError, OSError) as error:
            items.append(Evidence(title="Incomplete", text=str(error)))
        except Exception as error:
            _log.exception("evidence of %s could not be gathered", incident.id)
            items.append(Evidence(title="Incomplete", text=f"{type(error).__name__}: {error}"))
        taken = self._clock.now()
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(
                self._writer,
                self._history.add_evidence,
                incident.id,
                stage,
                taken,
                tuple(clean_evidence(item) for item in items),
            )
        except HostmendError as error:
            _log.error("cannot keep evidence of %s: %s", incident.id, error)

    async def settle(self, incident_id: str, seconds: float = LIMIT) -> None:
        """Waits until no evidence of an incident is being taken any more, at most so long."""
        task = self._under_way.get(incident_id)
        if task is not None:
            await asyncio.wait({task}, timeout=seconds)

    async def read(self, incident_id: str) -> tuple[KeptEvidence, ...]:
        """Everything that was taken of an incident, oldest first; nothing when it was lost."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._writer, self._history.list_evidence, incident_id
            )
        except HostmendError as error:
            _log.error("cannot read evidence of %s: %s", incident_id, error)
            return ()

    def close(self) -> None:
        for task in self._under_way.values():
            task.cancel()


def _describe(finding: Finding) -> Evidence:
    lines = [finding.summary or finding.status.value]
    lines += [f"{name}: {value}" for name, value in finding.facts.items()]
    lines += [f"{name}: {value:g}" for name, value in finding.measurements.items()]
    return Evidence(title=f"Finding: {finding.status.value}", text="\n".join(lines))
