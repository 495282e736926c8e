"""When a digest is due, and what it is made of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from agent.checks.service import ServiceOptions
from agent.checks.unit_wear import read_restarts
from agent.config import Config
from agent.core.model import Digested, Incident, Instant, ResolvedBy, Schedule, Seconds, Transition
from agent.engine import Engine
from agent.errors import HostmendError
from agent.host.memory import Memories
from agent.reports.digest import LONGEST_DIGEST, Digest, make_digest, write_digest, write_headline
from agent.store.state import KEPT, Listing, State
from agent.watcher import Watcher

_log = logging.getLogger(__name__)

#: Seconds between looks at the clock on the wall, which may be set meanwhile.
_LOOK_EVERY = 20.0

#: What a digest is of where none was ever sent: seconds.
_DIGEST_FOR = 7 * 86400.0


class Digester:
    """Puts digests together, and hands each to the engine when its time has come.

    A digest whose time came while the agent was down is sent as it starts, once.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        watcher: Watcher,
        config: Callable[[], Config],
        memories: Memories,
        host: str,
    ) -> None:
        self._engine = engine
        self._watcher = watcher
        self._config = config
        self._memories = memories
        self._host = host
        self._started = engine.now()

    async def make_last(self, seconds: Seconds | None = None) -> Digest:
        """What happened within the last so many seconds; None: since the last digest was sent."""
        now, told = self._engine.now(), self._engine.host.digested
        if seconds is None:
            seconds = _DIGEST_FOR if told is None else now - told
        return await self.make(now - min(seconds, LONGEST_DIGEST))

    async def make(self, since: Instant) -> Digest:
        """What happened from then until now."""
        until = self._engine.now()

        def read(state: State) -> tuple[tuple[Incident, ...], Mapping[str, Sequence[Transition]]]:
            # Those that live and as many of those that ended as are kept at all.
            found = state.list_incidents(Listing(limit=2 * KEPT))
            healed = [i for i in found if i.resolved_by is ResolvedBy.RUN]
            return found, {i.id: state.list_transitions(i.id) for i in healed}

        incidents, transitions = await self._engine.read(read)
        checks = self._config().checks
        last = {name: self._watcher.last(name) for name in checks}
        return make_digest(
            host=self._host,
            since=since,
            until=until,
            started=self._started,
            incidents=incidents,
            transitions=transitions,
            restarts={
                (name, check.options.unit): read_restarts(self._memories.open(name))
                for name, check in checks.items()
                if isinstance(check.options, ServiceOptions)
            },
            findings={name: looked.findings if looked else () for name, looked in last.items()},
        )

    async def keep_sending(self) -> None:
        """Sends each digest in its time, until it is cancelled."""
        while True:
            try:
                await self._send_if_due()
            except HostmendError as error:
                _log.error("cannot send a digest: %s", error)
            await asyncio.sleep(_LOOK_EVERY)

    async def _send_if_due(self) -> None:
        options, host = self._config().digest, self._engine.host
        if options is None or host.doubt is not None:
            return
        now = self._engine.now()
        if host.digested is None:
            await self._engine.take(Digested(until=now, headline=""))
        elif now >= find_due(options.make_schedule(), host.digested, host.wall_ahead):
            digest = await self.make(max(host.digested, now - LONGEST_DIGEST))
            await self._engine.take(
                Digested(
                    until=digest.until, headline=write_headline(digest), text=write_digest(digest)
                )
            )


def find_due(schedule: Schedule, digested: Instant, wall_ahead: Seconds) -> Instant:
    """When the next digest after one is sent; schedules go by the wall clock."""
    begin, end = schedule.find_span(digested + wall_ahead)
    if begin <= digested + wall_ahead:
        begin, _ = schedule.find_span(end)
    return begin - wall_ahead
