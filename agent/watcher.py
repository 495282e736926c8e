"""Makes looks happen: timers, requests, a limit on how many at once, a limit on how long each."""

from __future__ import annotations

import asyncio
import logging
import math
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.clock import Clock
from agent.core.cleaning import clean_finding, clean_line
from agent.core.model import CheckPolicy, Decision, Finding, Instant, Looked, Seconds, Status
from agent.errors import HostmendError

_log = logging.getLogger(__name__)

#: Looks under way at once, of those that have not run for longer than `PROMPT` seconds.
LIMIT = 32
#: A look that takes longer waits for something, and costs this host nothing meanwhile: it no longer
#: counts in the limit, so that probes that hang never delay another.
PROMPT = 1.0
#: Checks that share a moment, on average: a processor that rests is woken for all of them at once,
#: and what one look has just used is at hand for the next.
_TOGETHER = 30
#: First looks after a start that are begun within a second.
_FIRST_LOOKS = 200
#: Looks by the timer whose lateness is remembered.
_REMEMBERED = 5000
#: A host that slept for less did not: two clocks are never read at once.
_ASLEEP = 0.1
#: Seconds for which looks that pass believe what an earlier look was told of the whole host: only
#: one that fails can lead to a run.
_BELIEVED = 1.0


@dataclass(frozen=True, kw_only=True)
class Lateness:
    """How late the last looks by the timer began, in seconds."""

    count: int
    median: Seconds
    #: 99 of 100 were not later.
    p99: Seconds
    longest: Seconds


@dataclass(kw_only=True)
class _Watched:
    """One check being watched."""

    policy: CheckPolicy
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: list[asyncio.Future[Looked]] = field(default_factory=list)
    last: Looked | None = None
    #: What the last look returned, and the same made fit.
    found: tuple[tuple[Finding, ...], tuple[Finding, ...]] = ((), ())
    task: asyncio.Task[None] | None = None


class Watcher:
    """Looks at every check in its time, and at once when asked. It decides nothing.

    `look` returns a check's findings or raises; `transition` says what the whole host is doing
    that forbids runs; `take` is handed each result. A look past its time is abandoned, never
    waited for.
    """

    def __init__(
        self,
        *,
        look: Callable[[str], Awaitable[tuple[Finding, ...]]],
        transition: Callable[[], Awaitable[str]],
        take: Callable[[Looked], Awaitable[Decision]],
        clock: Clock,
        limit: int = LIMIT,
    ) -> None:
        self._look = look
        self._transition = transition
        self._take = take
        self._clock = clock
        self._slots = asyncio.Semaphore(limit)
        self._checks: dict[str, _Watched] = {}
        self._abandoned: set[asyncio.Future[Any]] = set()
        #: When looks by the timer began, and how late.
        self._late: deque[tuple[Instant, Seconds]] = deque(maxlen=_REMEMBERED)
        #: Looks made since the start.
        self.count = 0
        #: What the host was last said to be doing, and when that was asked.
        self._sampled: tuple[str, Instant | None] = ("", None)
        #: Asks for it now, for all looks that pass in the same moment.
        self._sampling: asyncio.Task[str] | None = None

    def watch(self, checks: Mapping[str, CheckPolicy]) -> None:
        """Watches exactly these checks from now on; those that did not change are left alone."""
        for name in [n for n in self._checks if checks.get(n) != self._checks[n].policy]:
            self._stop(self._checks.pop(name))
        now, moments = self._clock.now(), math.ceil(len(checks) / _TOGETHER)
        for name, policy in checks.items():
            if name not in self._checks:
                watched = _Watched(policy=policy)
                share = _find_share(name, moments)
                keeping = self._keep_looking(watched, now, share)
                watched.task = asyncio.get_running_loop().create_task(keeping)
                self._checks[name] = watched

    def request(self, names: Iterable[str]) -> None:
        """Asks for a look that begins from now on. Unknown names are ignored: they may be gone."""
        for name in names:
            if name in self._checks:
                self._checks[name].wanted.set()

    async def look_now(self, name: str) -> Looked:
        """Looks at one check now, and returns what that look saw once it was decided on."""
        watched = self._checks[name]
        answer: asyncio.Future[Looked] = asyncio.get_running_loop().create_future()
        watched.waiting.append(answer)
        watched.wanted.set()
        return await answer

    def last(self, name: str) -> Looked | None:
        """The last look of a check, if there was one."""
        watched = self._checks.get(name)
        return watched.last if watched else None

    def broken(self) -> Mapping[str, str]:
        """Checks whose last look broke, and what it said."""
        return {
            name: watched.last.broken
            for name, watched in self._checks.items()
            if watched.last is not None and watched.last.broken
        }

    def lateness(self, within: Seconds = math.inf) -> Lateness:
        """How late looks begin, or did lately; all zero before the first."""
        since = self._clock.now() - within
        found = sorted(late for began, late in self._late if began >= since)
        late = found or [0.0]
        return Lateness(
            count=len(found),
            median=late[len(late) // 2],
            p99=late[99 * (len(late) - 1) // 100],
            longest=late[-1],
        )

    def close(self) -> None:
        """Stops looking."""
        for watched in self._checks.values():
            self._stop(watched)
        self._checks.clear()

    def _stop(self, watched: _Watched) -> None:
        if watched.task is not None:
            watched.task.cancel()
        for answer in watched.waiting:
            answer.cancel()

    async def _keep_looking(self, watched: _Watched, start: Instant, share: float) -> None:
        policy = watched.policy
        # The first look does not wait for its turn, as long as there are not too many.
        turn = start + share * policy.every
        spread = min(policy.every, max(1.0, len(self._checks) / _FIRST_LOOKS))
        due = start + share * spread
        first = True
        while True:
            slept = self._clock.slept()
            delay = due - self._clock.now()
            if delay > 0:
                alarm = asyncio.get_running_loop().call_later(delay, watched.wanted.set)
                try:
                    await watched.wanted.wait()
                finally:
                    alarm.cancel()
            watched.wanted.clear()
            answers, watched.waiting = watched.waiting, []
            asleep = self._clock.slept() - slept
            if asleep > _ASLEEP:
                # The alarm did not run on either: that makes nobody late.
                due += asleep
            looked = await self._look_once(watched)
            self.count += 1
            if not first and looked.began >= due:
                self._late.append((looked.began, looked.began - due))
            watched.last = looked
            if first:
                # Its turn may be over already, where first looks had to wait for each other.
                due, first = turn if turn > self._clock.now() else turn + policy.every, False
            else:
                due = max(due + policy.every, self._clock.now() + policy.every / 2)
                due = min(due, self._clock.now() + policy.every)
            try:
                await self._take(looked)
            except HostmendError as error:
                _log.error("cannot record a look of %s: %s", policy.name, error)
            except Exception:
                # Whatever it is, this check is looked at again.
                _log.exception("a look of %s could not be decided on", policy.name)
            for answer in answers:
                if not answer.done():
                    answer.set_result(looked)

    async def _look_once(self, watched: _Watched) -> Looked:
        policy = watched.policy
        findings: tuple[Finding, ...] = ()
        broken = ""
        prompt = min(PROMPT, policy.timeout)
        async with self._slots:
            began = self._clock.now()
            task = asyncio.ensure_future(self._look(policy.name))
            await self._wait(task, prompt)
        if not task.done() and policy.timeout > prompt:
            await self._wait(task, policy.timeout - prompt)
        ended = self._clock.now()
        if not task.done():
            broken = f"the look took longer than {policy.timeout:g} s"
            task.cancel()
            self._abandoned.add(task)
            task.add_done_callback(self._forget)
        elif task.cancelled():
            broken = "the look was cancelled"
        else:
            try:
                findings = _clean(watched, task.result(), ended)
            except Exception as error:
                broken = f"{type(error).__name__}: {error}"
                if not isinstance(error, HostmendError):
                    _log.exception("look of %s broke", policy.name)
        passes = not broken and all(finding.status is Status.OK for finding in findings)
        return Looked(
            check=policy.name,
            began=began,
            ended=ended,
            findings=findings,
            broken=clean_line(broken),
            transition=await self._sample_transition(_BELIEVED if passes else 0.0),
        )

    async def _wait(self, task: asyncio.Future[Any], seconds: Seconds) -> None:
        try:
            await asyncio.wait({task}, timeout=seconds)
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def _sample_transition(self, believed: Seconds) -> str:
        """What the host is doing, as it was at most so long ago."""
        text, sampled = self._sampled
        if sampled is not None and self._clock.now() - sampled < believed:
            return text
        if not believed:
            return await self._ask_transition()
        if self._sampling is None or self._sampling.done():
            self._sampling = asyncio.get_running_loop().create_task(self._ask_transition())
        # Whoever is stopped meanwhile takes the answer from nobody.
        return await asyncio.shield(self._sampling)

    async def _ask_transition(self) -> str:
        now = self._clock.now()
        try:
            text = clean_line(await self._transition())
        except Exception as error:
            _log.warning("cannot tell what the host is doing: %s", error)
            return ""
        self._sampled = text, now
        return text

    def _forget(self, task: asyncio.Future[Any]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()


def _clean(watched: _Watched, found: tuple[Finding, ...], ended: Instant) -> tuple[Finding, ...]:
    """The findings made fit; the very ones of the look before it are fit already."""
    before, cleaned = watched.found
    if found is not before:
        cleaned = tuple(clean_finding(finding, ended) for finding in found)
        watched.found = found, cleaned
    return cleaned


def _find_share(name: str, moments: int) -> float:
    """The share of its interval at which a check has its turn: one of so many moments.

    It spreads looks out, and is the same after a restart.
    """
    return (zlib.crc32(name.encode()) % moments + 0.5) / moments
