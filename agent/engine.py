"""Event -> decision -> one transaction, in order."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from typing import TypeVar

from agent.clock import Clock
from agent.core.decide import decide
from agent.core.model import Decision, Event, Host, Instant, Policy, Reconfigured, Tick
from agent.errors import HostmendError, StoreError
from agent.store.state import State

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: Seconds between attempts to let time pass while the state cannot be written.
_TRY_AGAIN = 1.0


#: Called after a failed read or write, with the host as the last commit left it: whether the state
#: now lives where it can be used, so that it may be tried once more.
Rescue = Callable[[StoreError, Host], bool]


#: Called on the event loop after a decision was committed, in order.
Listener = Callable[[Event, Decision], None]


#: An event, who waits for the decision on it, and what came of it.
_Asked = tuple[Event, "asyncio.Future[Decision]"]
_Answered = tuple[Event, "asyncio.Future[Decision]", Decision | Exception]


class Engine:
    """The one owner of the state. Every event passes through its single writer thread.

    The host is kept in memory as the last commit left it; the file is exclusively ours, so the
    two cannot differ.
    """

    def __init__(
        self,
        *,
        state: State,
        clock: Clock,
        policy: Policy,
        writer: Executor,
        rescue: Rescue = lambda _error, _host: False,
    ) -> None:
        self._state = state
        self._rescue = rescue
        self._clock = clock
        self._policy = policy
        self._writer = writer
        self._host = state.load_host()
        self._listeners: list[Listener] = []
        self._last = Decision(host=self._host)
        self._alarm: asyncio.TimerHandle | None = None
        #: Events that wait for the writer, and those that it is at.
        self.waiting = 0
        # What has not been decided yet, and whether the writer's thread is at it.
        self._asked: deque[_Asked] = deque()
        self._deciding = False
        self._turn = threading.Lock()
        self._ticking: set[asyncio.Task[None]] = set()

    @property
    def host(self) -> Host:
        """The host as of the last commit."""
        return self._last.host

    @property
    def last(self) -> Decision:
        """The last decision: its holds and its wake are those in force."""
        return self._last

    @property
    def policy(self) -> Policy:
        return self._policy

    def now(self) -> Instant:
        return self._clock.now()

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    async def take(self, event: Event) -> Decision:
        """Decides on one event and commits what follows. Raises what `decide` raises, and
        StoreError when the commit failed; then nothing has changed.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Decision] = loop.create_future()
        self.waiting += 1
        with self._turn:
            self._asked.append((event, answer))
            decides, self._deciding = self._deciding, True
        if not decides:
            self._writer.submit(self._decide_all, loop)
        return await answer

    async def reconfigure(self, policy: Policy) -> Decision:
        """Takes a new policy into force. Where the state cannot be written, the old one stays."""
        loop, old = asyncio.get_running_loop(), self._policy
        await loop.run_in_executor(self._writer, self._set_policy, policy)
        try:
            return await self.take(Reconfigured())
        except StoreError:
            await loop.run_in_executor(self._writer, self._set_policy, old)
            raise

    def _set_policy(self, policy: Policy) -> None:
        self._policy = policy

    async def read(self, query: Callable[[State], T]) -> T:
        """Runs a query on the state, in turn with the decisions."""

        def ask() -> T:
            try:
                return query(self._state)
            except StoreError as error:
                if not self._rescue(error, self._host):
                    raise
                return query(self._state)

        return await asyncio.get_running_loop().run_in_executor(self._writer, ask)

    async def tend(self, work: Callable[[Host], None]) -> None:
        """Runs work on the state's own thread, in turn with the decisions."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._writer, lambda: work(self._host))

    def close(self) -> None:
        """Stops the alarm; the state itself is closed by whoever opened it."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _decide_all(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the writer's thread: decides until nobody waits. Looks that share a moment, and change
        nothing, are answered together; whatever was committed is handed on at once.
        """
        answered: list[_Answered] = []
        while True:
            with self._turn:
                if not self._asked:
                    self._deciding = False
                    break
                event, answer = self._asked.popleft()
            commits = self._state.commits
            result: Decision | Exception
            try:
                result = self._take(event)
            except Exception as error:
                result = error
            answered.append((event, answer, result))
            if self._state.commits != commits:
                loop.call_soon_threadsafe(self._hand_on, answered)
                answered = []
        if answered:
            loop.call_soon_threadsafe(self._hand_on, answered)

    def _hand_on(self, answered: list[_Answered]) -> None:
        before = self._last
        for event, answer, result in answered:
            self.waiting -= 1
            if isinstance(result, Exception):
                if not answer.done():
                    answer.set_exception(result)
                continue
            self._last = result
            for listener in self._listeners:
                try:
                    listener(event, result)
                except Exception:
                    # The decision stands: it is committed, and the others must hear of it.
                    _log.exception("a listener could not take a decision")
            # Whoever was cancelled meanwhile wants no answer, but the listeners heard of it.
            if not answer.done():
                answer.set_result(result)
        if self._last is not before:
            self._set_alarm(self._last)

    def _take(self, event: Event) -> Decision:
        old = self._see_wall_clock(self._host)
        decision = decide(old, event, self._policy, self._clock.now())
        try:
            self._save(old, decision)
        except StoreError:
            # A failed COMMIT may have reached the disk: believe the file, keep what is only ours.
            self._state.load()
            kept = self._state.load_host()
            self._host = replace(
                kept,
                looked=old.looked,
                transition=old.transition,
                transition_seen=old.transition_seen,
            )
            raise
        self._host = decision.host
        return decision

    def _see_wall_clock(self, host: Host) -> Host:
        """The host as the wall clock stands to instants; less than a second is no change."""
        ahead = self._clock.wall_ahead()
        if abs(ahead - host.wall_ahead) < 1.0:
            return host
        # Whole seconds, with which instants are added and taken away without rounding.
        return replace(host, wall_ahead=float(round(ahead)))

    def _save(self, old: Host, decision: Decision) -> None:
        before = self._state.commits
        try:
            self._state.save(old, decision)
        except StoreError as error:
            if not self._rescue(error, old):
                raise
            if self._state.commits == before:
                self._state.save(old, decision)

    def _set_alarm(self, decision: Decision) -> None:
        self.close()
        if decision.wake is not None:
            delay = max(0.001, decision.wake - self._clock.now())
            self._alarm = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        task = asyncio.get_running_loop().create_task(self._take_tick())
        self._ticking.add(task)
        task.add_done_callback(self._ticking.discard)

    async def _take_tick(self) -> None:
        try:
            await self.take(Tick())
        except Exception as error:
            # Time must go on whatever it was: what is due is said by nobody else.
            known = isinstance(error, HostmendError)
            _log.error("%s; trying again in %s s", error, _TRY_AGAIN, exc_info=not known)
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_later(_TRY_AGAIN, self._tick)
