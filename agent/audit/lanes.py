"""The lanes of a crawl: one for each host, with a queue, a pace and what its robots.txt says."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from agent.audit.address import Place, read_place, resolve_address
from agent.audit.extract import Role
from agent.audit.fetch import Answer
from agent.audit.ledger import Entry, Fate, Ledger
from agent.audit.pace import Pace
from agent.audit.plan import Plan
from agent.audit.robots import LONGEST, OPEN, Robots
from agent.audit.scope import Scope
from agent.host.connection import Failure

REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Addresses of other sites: one at a time and at most one a second to each host.
_OUTSIDE_RATE, _OUTSIDE_AT_ONCE = 1.0, 1
#: Redirects of a robots.txt that are followed, as RFC 9309, section 2.3.1.2, has it.
_MOST_REDIRECTS = 5

#: Asks for an address with GET, or with what else is named.
Fetch = Callable[[Place, Callable[[str], bool], int], Awaitable[Answer | Failure]]


@dataclass(kw_only=True)
class Lane:
    """One host: what is to be asked of it, and how fast."""

    place: Place
    #: It belongs to the audited site.
    own: bool
    pace: Pace
    at_once: int
    queue: deque[Entry] = field(default_factory=deque)
    #: Workers that take from the queue.
    working: int = 0
    robots: Robots = OPEN
    prepared: asyncio.Task[None] | None = None
    #: Bad answers in a row.
    streak: int = 0
    #: Clear while it is found out whether the whole host is ill: nothing is asked meanwhile.
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.open.set()


class Lanes:
    """All hosts of a crawl."""

    def __init__(
        self,
        plan: Plan,
        scope: Scope,
        ledger: Ledger,
        fetch: Fetch,
        prepare: Callable[[Place], Awaitable[None]],
    ) -> None:
        self._plan = plan
        self._scope = scope
        self._ledger = ledger
        self._fetch = fetch
        self._prepare = prepare
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[str, Lane] = {}

    def find(self, place: Place) -> Lane:
        lane = self._lanes.get(place.root)
        if lane is None:
            own = self._scope.belongs(place)
            rate, at_once = self._plan.max_rate, self._plan.at_once
            if not own:
                rate = min(rate or _OUTSIDE_RATE, _OUTSIDE_RATE)
                at_once = _OUTSIDE_AT_ONCE
            lane = self._lanes[place.root] = Lane(
                place=place, own=own, pace=Pace(rate, self._loop.time), at_once=at_once
            )
        return lane

    async def prepare(self, lane: Lane) -> None:
        """Once for each host: what its robots.txt says, and what the caller wants to do first."""
        if lane.prepared is None:
            lane.prepared = asyncio.ensure_future(self._prepare_once(lane))
        # One worker that gives up takes nothing away from the others.
        await asyncio.shield(lane.prepared)

    async def close(self) -> None:
        tasks = [lane.prepared for lane in self._lanes.values() if lane.prepared is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _prepare_once(self, lane: Lane) -> None:
        if lane.own:
            await self._prepare(lane.place)
        if lane.own or self._plan.robots:
            await self._read_robots(lane)

    async def _read_robots(self, lane: Lane) -> None:
        place = read_place(f"{lane.place.root}/robots.txt")
        result = await self._ask_for_robots(place, lane)
        for _ in range(_MOST_REDIRECTS):
            location = result.header("Location") if isinstance(result, Answer) else None
            if not isinstance(result, Answer) or result.status not in REDIRECTS or not location:
                break
            target = resolve_address(place, location)
            if not isinstance(target, Place) or not self._scope.belongs(target):
                break
            result = await self._ask_for_robots(target, lane)
        if isinstance(result, Answer) and result.status == 200:
            lane.robots = Robots(result.text, heeded=self._plan.robots)
            if (rate := lane.robots.rate) is not None:
                lane.pace.limit(rate)
        elif self._plan.robots and lane.own and self._asks_to_stay_away(lane, result):
            lane.robots = Robots("", closed=True)
            entry = self._ledger.find(place.url) or self._ledger.add(place, 0)
            entry.fate = Fate.BROKEN
            entry.roles.add(Role.RELATION)
            if isinstance(result, Failure):
                entry.trouble, entry.why = result.trouble.value, result.why
            else:
                entry.status, entry.why = result.status, result.said

    def _asks_to_stay_away(self, lane: Lane, result: Answer | Failure) -> bool:
        """A server that fails does (RFC 9309, section 2.3.1.4).

        Of another host that does not answer at all, what is asked there says it with more right.
        """
        if isinstance(result, Failure):
            return lane.place.root == self._scope.site.root
        return result.status >= 500

    async def _ask_for_robots(self, place: Place, lane: Lane) -> Answer | Failure:
        result = await self._fetch(place, _is_no_page, LONGEST)
        for attempt in range(self._plan.retries if lane.own and self._plan.robots else 0):
            if not _is_failing(result):
                break
            await asyncio.sleep(self._plan.pause_before(attempt))
            result = await self._fetch(place, _is_no_page, LONGEST)
        return result


def _is_failing(result: Answer | Failure) -> bool:
    return isinstance(result, Failure) or result.status >= 500


def _is_no_page(kind: str) -> bool:
    return kind != "text/html"
