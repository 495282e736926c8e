"""How a look is made: the check's own code, this machine, and what the check remembers."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor

from agent.audit.result import Audit
from agent.checks.push import PushOptions, take_reports
from agent.clock import Clock
from agent.config import Config
from agent.core.model import Decision, Event, Evidence, Finding, Looked
from agent.host.machine import Machine
from agent.host.memory import Memories, Memory
from agent.store.history import History
from agent.told import Report


class Looks:
    """Makes looks, and keeps what they remember once they were decided on."""

    def __init__(
        self,
        *,
        config: Callable[[], Config],
        machine: Machine,
        memories: Memories,
        take: Callable[[Event], Awaitable[Decision]],
        keep_audit: Callable[[str, Audit], None],
        history: History,
        writer: Executor,
        clock: Clock,
    ) -> None:
        """`take` decides on an event; `keep_audit` is given what a check's audit found."""
        self._config = config
        self._machine = machine
        self._memories = memories
        self._take = take
        self._keep_audit = keep_audit
        self._history = history
        self._writer = writer
        self._clock = clock
        #: Of looks that are under way, or not yet decided on.
        self._remembered: dict[str, Memory] = {}

    async def look(self, name: str) -> tuple[Finding, ...]:
        check = self._config().checks[name]
        memory = self._remembered[name] = self._memories.open(name)
        seen = self._machine.remember(memory)
        seen.audited = functools.partial(self._keep_audit, name)
        return await check.type.look(check.options, seen)

    async def gather(self, name: str, finding: Finding) -> tuple[Evidence, ...]:
        """Evidence of what a look found."""
        check = self._config().checks.get(name)
        if check is None:
            # A reload took it away meanwhile.
            return ()
        memory = self._memories.open(name)
        return await check.type.gather(check.options, finding, self._machine.remember(memory))

    async def take(self, looked: Looked) -> Decision:
        """Has a look decided on."""
        memory = self._remembered.pop(looked.check, None)
        decision = await self._take(looked)
        if memory is None or looked.broken:
            return decision
        # Only now: what a look was told and nobody decided on must be found again.
        if changed := self._memories.keep(looked.check, memory):
            loop = asyncio.get_running_loop()
            loop.run_in_executor(self._writer, self._history.remember, looked.check, changed)
        return decision

    async def remember(
        self, name: str, options: PushOptions, reports: Sequence[Report], by: str
    ) -> None:
        """Keeps reports on a check, durably, for its next look. Raises Invalid."""
        memory = self._memories.open(name)
        take_reports(options, memory, reports, now=self._clock.now(), by=by)
        changed = self._memories.keep(name, memory)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._writer, self._history.remember, name, changed)
