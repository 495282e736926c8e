"""Carries out what is durable: run rows and notice rows, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from agent.clock import Clock
from agent.core.model import (
    Decision,
    Doubt,
    Event,
    Host,
    Instant,
    Notice,
    NoticeState,
    Ordered,
    Outcome,
    Reason,
    Run,
    RunEnded,
    RunStarted,
    RunState,
)
from agent.errors import Conflict, HostmendError, StoreError
from agent.store.state import State

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: Seconds after which work that could not be recorded is tried again.
_TRY_AGAIN = 2.0
#: Seconds that an agent that stops gives to the last messages: a service has 20 for each.
_LAST_DELIVERY = 30.0
#: A message that its service refuses for good no longer holds back later ones after this.
_POISONED_AFTER = 3


@dataclass(frozen=True, kw_only=True)
class JobEnd:
    """How a job ended, as far as its run is concerned."""

    outcome: Outcome
    ended: Instant
    detail: str = ""


class Jobs(Protocol):
    """What carries out runs: processes in production."""

    async def carry_out(
        self, run: Run, on_event: Callable[[Mapping[str, Any]], None], cancel: asyncio.Event
    ) -> JobEnd:
        """Starts the run's job and waits for its end."""
        ...

    async def rejoin(
        self, run: Run, on_event: Callable[[Mapping[str, Any]], None], cancel: asyncio.Event
    ) -> JobEnd:
        """For a run that was started before this agent was: its end, LOST where nothing is left."""
        ...


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """How an attempt to deliver one notice ended."""

    notice: str
    ok: bool
    #: Whether another attempt may help.
    retry: bool = True
    error: str = ""


class Read(Protocol):
    """Runs a query on the state, in turn with the decisions."""

    async def __call__(self, query: Callable[[State], T], /) -> T: ...


class Deliver(Protocol):
    """What delivers notices: a short-lived child in production."""

    async def __call__(
        self, notices: Sequence[Notice], on_result: Callable[[Delivery], Awaitable[None]]
    ) -> None: ...


class Worker:
    """Claims each intent by a conditional update, does it, marks it.

    Death between any two lines is expected: a claimed run without a job is reported as lost, a
    notice that was sent and not marked is sent again.
    """

    def __init__(
        self,
        *,
        host: Callable[[], Host],
        take: Callable[[Event], Awaitable[Decision]],
        read: Read,
        jobs: Jobs,
        deliver: Deliver,
        next_attempt: Callable[[int, Instant, str], Instant],
        clock: Clock,
        on_run_event: Callable[[Run, Mapping[str, Any]], None],
        on_notice: Callable[[Notice], None],
    ) -> None:
        self._host = host
        self._take = take
        self._read = read
        self._jobs = jobs
        self._deliver = deliver
        self._next_attempt = next_attempt
        self._clock = clock
        self._on_run_event = on_run_event
        self._on_notice = on_notice
        self._alive: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._outliving: set[asyncio.Task[None]] = set()
        self._post: asyncio.Task[None] | None = None
        self._mail = asyncio.Event()
        #: Notices that are under way, by id, and the batches that carry them.
        self._sent_off: dict[str, Notice] = {}
        self._batches: set[asyncio.Task[None]] = set()
        self._closing = False

    def start(self) -> None:
        """Takes up everything that an earlier agent left, then what comes."""
        for run in self._host().runs:
            if run.state is RunState.RUNNING:
                self._spawn(run, self._finish(run, self._jobs.rejoin))
            elif run.state is RunState.PLANNED:
                self._spawn(run, self._start(run))
        self._post = asyncio.get_running_loop().create_task(self._keep_delivering())

    def cancel(self, run_id: str) -> None:
        """Asks the run's job to end. Raises Conflict where it has none."""
        cancel = self._alive.get(run_id)
        if cancel is None:
            raise Conflict(f"cannot cancel run {run_id}: it is not running")
        cancel.set()

    async def drain(self) -> None:
        """Starts nothing new, waits for the runs that are alive, delivers what is due once more.

        A run that changes data is not waited for: it goes on, and the next agent rejoins it.
        """
        self._closing = True
        for task in self._outliving:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._post is not None:
            self._post.cancel()
            await asyncio.wait({self._post})
        # What does not get through now is due to the next agent.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_DELIVERY):
                await self._deliver_due()
        for batch in self._batches:
            batch.cancel()
        while self._batches:
            await asyncio.wait(self._batches)

    def close(self) -> None:
        """Stops at once; what is durable is taken up again by the next agent."""
        self._closing = True
        for task in (*self._tasks, *self._batches, *([self._post] if self._post else [])):
            task.cancel()

    def hear(self, event: Event, decision: Decision) -> None:
        """Takes up what a decision made due, once it is committed."""
        if self._closing:
            return
        for run in decision.runs:
            self._spawn(run, self._start(run))
        if decision.notices or isinstance(event, Ordered):
            self._mail.set()

    def _spawn(self, run: Run, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        for kept in (self._tasks, self._outliving)[: 2 if run.changes.outlives_its_time else 1]:
            kept.add(task)
            task.add_done_callback(kept.discard)

    # Runs

    async def _start(self, run: Run) -> None:
        try:
            await self._record(RunStarted(run=run.id))
        except Conflict:
            return
        await self._finish(run, self._jobs.carry_out)

    async def _finish(
        self,
        run: Run,
        work: Callable[
            [Run, Callable[[Mapping[str, Any]], None], asyncio.Event], Awaitable[JobEnd]
        ],
    ) -> None:
        cancel = self._alive[run.id] = asyncio.Event()
        try:
            end = await work(run, lambda event: self._on_run_event(run, event), cancel)
        except HostmendError as error:
            end = JobEnd(outcome=Outcome.FAILED, ended=self._clock.now(), detail=str(error))
        except Exception as error:
            _log.exception("run %s broke", run.id)
            detail = f"{type(error).__name__}: {error}"
            end = JobEnd(outcome=Outcome.LOST, ended=self._clock.now(), detail=detail)
        finally:
            self._alive.pop(run.id, None)
        event = RunEnded(run=run.id, outcome=end.outcome, ended=end.ended, detail=end.detail)
        await self._record(event)

    async def _record(self, event: Event) -> None:
        """An event that must not get lost: tried until the state takes it."""
        while True:
            try:
                await self._take(event)
            except StoreError as error:
                _log.error("%s; trying again in %g s", error, _TRY_AGAIN)
                await asyncio.sleep(_TRY_AGAIN)
            else:
                return

    # Notices

    async def _keep_delivering(self) -> None:
        while True:
            self._mail.clear()
            try:
                wait = await self._send_off_due()
            except StoreError as error:
                _log.error("cannot deliver notices: %s", error)
                wait = _TRY_AGAIN
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._mail.wait(), wait)

    async def _deliver_due(self) -> float | None:
        """One round of deliveries, to its end; the seconds until the next is due."""
        wait = await self._send_off_due()
        while self._batches:
            await asyncio.gather(*self._batches)
        return wait

    async def _send_off_due(self) -> float | None:
        """Sends off what is due; the seconds until more is, None when nothing waits.

        A route on which something is under way is passed over: its next messages wait for that, and
        no other route does.
        """
        now = self._clock.now()
        taken = {notice.route for notice in self._sent_off.values()}
        waiting = held_back(await self._read(State.due_notices), self._host().doubt)
        waiting = tuple(n for n in waiting if n.route not in taken)
        for notice in [n for n in waiting if now >= n.expires]:
            await self._mark(replace(notice, state=NoticeState.EXPIRED))
        waiting = tuple(n for n in waiting if now < n.expires)
        ready = [n for n in first_in_order(waiting) if n.due <= now]
        if ready:
            self._sent_off.update((notice.id, notice) for notice in ready)
            batch = asyncio.ensure_future(self._deliver_batch(ready))
            self._batches.add(batch)
            batch.add_done_callback(self._batches.discard)
            return 0.0
        candidates = [min(n.due, n.expires) for n in first_in_order(waiting)]
        return max(0.05, min(candidates) - now) if candidates else None

    async def _deliver_batch(self, ready: Sequence[Notice]) -> None:
        open_ones = {notice.id: notice for notice in ready}

        async def mark(result: Delivery) -> None:
            notice = open_ones.pop(result.notice, None)
            if notice is not None:
                await self._mark(self._after(notice, result))
                self._come_back(notice)

        try:
            try:
                await self._deliver(ready, mark)
            except StoreError:
                raise
            except Exception as error:
                _log.exception("the sender broke")
                for notice in list(open_ones.values()):
                    await mark(Delivery(notice=notice.id, ok=False, error=str(error)))
            for notice in list(open_ones.values()):
                said_nothing = "the sender said nothing of it"
                await mark(Delivery(notice=notice.id, ok=False, error=said_nothing))
        except StoreError as error:
            _log.error("cannot deliver notices: %s", error)
            await asyncio.sleep(_TRY_AGAIN)
        finally:
            for notice in ready:
                self._come_back(notice)

    def _come_back(self, notice: Notice) -> None:
        if self._sent_off.pop(notice.id, None) is not None:
            self._mail.set()

    def _after(self, notice: Notice, result: Delivery) -> Notice:
        now, attempts = self._clock.now(), notice.attempts + 1
        if result.ok:
            return replace(
                notice,
                state=NoticeState.DELIVERED,
                attempts=attempts,
                delivered=now,
                error="",
                poisoned=False,
            )
        return replace(
            notice,
            attempts=attempts,
            due=self._next_attempt(attempts, now, notice.id),
            error=result.error,
            poisoned=not result.retry and attempts >= _POISONED_AFTER,
        )

    async def _mark(self, notice: Notice) -> None:
        await self._read(lambda state: state.update_notice(notice))
        self._on_notice(notice)


def held_back(waiting: Sequence[Notice], doubt: Doubt | None) -> tuple[Notice, ...]:
    """What may be delivered: while the state is in doubt, only what the agent says of that."""
    return tuple(
        n
        for n in waiting
        if doubt is None or (n.reason is Reason.AGENT and n.created >= doubt.since)
    )


def first_in_order(waiting: Sequence[Notice]) -> list[Notice]:
    """The notices that may go now: the oldest of each incident on each route.

    One that its service refuses for good steps aside, so that it never blocks later ones.
    """
    first: dict[tuple[str, str], Notice] = {}
    aside = []
    for notice in waiting:
        if notice.poisoned:
            aside.append(notice)
        elif not notice.order:
            first[(notice.route, notice.id)] = notice
        else:
            first.setdefault((notice.route, notice.order), notice)
    return [*first.values(), *aside]
