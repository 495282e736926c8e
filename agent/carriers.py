"""How the worker's intents reach the world: runs become jobs, notices become messages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.agent import RouteTest
from agent.clock import Clock
from agent.config import Config, Route
from agent.core.model import Changes, Evidence, Notice, Run
from agent.core.text import mask_values
from agent.errors import HostmendError
from agent.notify import delivery
from agent.notify.client import deliver
from agent.notify.masking import describe_url
from agent.notify.message import Message, compose, compose_test
from agent.notify.url_file import read_url_file
from agent.remedies.client import JobRequest, JobResult, Spare, attach, discard, run_job
from agent.store.state import Listing, State
from agent.witness import Witness
from agent.worker import Delivery, JobEnd, Read

_log = logging.getLogger(__name__)

#: Seconds that one batch of messages may take in all.
_BATCH_LIMIT = 120.0
#: The same of a test, for which somebody waits: a service has 20 for each message.
_TEST_LIMIT = 30.0
#: Longest that a message waits for evidence, in seconds.
_PATIENCE = 5.0


class JobCarrier:
    """Carries out runs as jobs, each a process of its own with everything that it starts."""

    def __init__(
        self,
        *,
        config: Callable[[], Config],
        remedy_dirs: Sequence[Path],
        runtime_dir: Path,
        witness: Witness,
        clock: Clock,
        spare: Spare,
    ) -> None:
        self._config = config
        self._remedy_dirs = tuple(remedy_dirs)
        self._runtime_dir = runtime_dir
        self._witness = witness
        self._clock = clock
        self._spare = spare

    async def carry_out(
        self, run: Run, on_event: Callable[[Mapping[str, Any]], None], cancel: asyncio.Event
    ) -> JobEnd:
        if run.incident is not None and run.changes is not Changes.SERVICE:
            # What is about to be changed must have been seen first; a restart leaves the log.
            await self._witness.settle(run.incident)
        request = JobRequest(
            run_id=run.id,
            remedy=run.remedy,
            remedy_dirs=self._remedy_dirs,
            digest=run.digest,
            options=run.options,
            timeout=run.timeout,
            runtime_dir=self._runtime_dir,
            preview=run.preview,
            changes=run.changes,
            configured=tuple(self._config().configured),
        )
        # An earlier agent with the same numbers (a lost state) may have left a directory.
        with contextlib.suppress(HostmendError):
            discard(run.id, self._runtime_dir)
        result = await run_job(
            request, on_event=on_event, cancel=cancel, clock=self._clock, spare=self._spare
        )
        await self._spare.refill()
        return self._end(result)

    async def rejoin(
        self, run: Run, on_event: Callable[[Mapping[str, Any]], None], cancel: asyncio.Event
    ) -> JobEnd:
        result = await attach(
            run.id, self._runtime_dir, on_event=on_event, cancel=cancel, clock=self._clock
        )
        return self._end(result)

    def _end(self, result: JobResult) -> JobEnd:
        return JobEnd(outcome=result.outcome, ended=result.ended, detail=result.detail)

    def forget(self, run_id: str) -> None:
        """Removes what is kept of a run whose outcome is durable now."""
        try:
            discard(run_id, self._runtime_dir)
        except HostmendError as error:
            _log.warning("%s", error)


class Mail:
    """Composes due notices and has the sender deliver them."""

    def __init__(
        self,
        *,
        config: Callable[[], Config],
        read: Read,
        witness: Witness,
        host: str,
        origin: str,
        clock: Clock,
    ) -> None:
        self._config = config
        self._read = read
        self._witness = witness
        self._host = host
        self._origin = origin
        self._clock = clock

    async def __call__(
        self, notices: Sequence[Notice], on_result: Callable[[Delivery], Awaitable[None]]
    ) -> None:
        batch = []
        for notice in notices:
            route = self._config().routes.get(notice.route)
            if route is None:
                error = f"route {notice.route} is not configured any more"
                await on_result(Delivery(notice=notice.id, ok=False, retry=False, error=error))
                continue
            batch.append(_address(notice.id, notice.route, route, await self._compose(notice)))

        async def hand_on(result: delivery.DeliveryResult) -> None:
            await on_result(
                Delivery(notice=result.id, ok=result.ok, retry=result.retry, error=result.error)
            )

        await deliver(batch, timeout=_BATCH_LIMIT, on_result=hand_on)

    async def try_routes(self, names: Sequence[str], by: str) -> tuple[RouteTest, ...]:
        """One message to each of these configured routes, and what became of it."""
        routes = self._config().routes
        batch = []
        for name in names:
            message = compose_test(
                name, host=self._host, origin=self._origin, by=by, number=uuid.uuid4().hex[:12]
            )
            batch.append(_address(name, name, routes[name], message))
        begun, found = self._clock.now(), dict[str, RouteTest]()

        async def note(result: delivery.DeliveryResult) -> None:
            found[result.id] = RouteTest(
                route=result.id,
                services=await asyncio.to_thread(_describe_services, routes[result.id]),
                ok=result.ok,
                error=result.error,
                took=self._clock.now() - begun,
            )

        await deliver(batch, timeout=_TEST_LIMIT, on_result=note)
        return tuple(found[name] for name in names)

    async def _compose(self, notice: Notice) -> Message:
        incident = notice.incident
        before: list[Evidence] = []
        after: list[Evidence] = []
        runs: tuple[Run, ...] = ()
        if incident is not None:
            await self._witness.settle(incident.id, _PATIENCE)
            for kept in await self._witness.read(incident.id):
                (before if kept.stage == "before" else after).append(kept.evidence)
            listing = Listing(limit=20, where={"incident": incident.id})
            found = await self._read(lambda state: State.list_runs(state, listing))
            runs = tuple(_mask(run, self._config().hidden) for run in found)
        return compose(
            notice,
            host=self._host,
            origin=self._origin,
            now=self._clock.now(),
            runs=runs,
            before=before,
            after=after,
            public_url=self._config().public_url,
        )


def _address(key: str, name: str, route: Route, message: Message) -> delivery.Delivery:
    return delivery.Delivery(
        id=key,
        route=name,
        url=route.url,
        url_file=str(route.url_file) if route.url_file is not None else None,
        title=message.title,
        body=message.body,
        severity=message.severity,
        message_id=message.message_id,
    )


def _describe_services(route: Route) -> tuple[str, ...]:
    """Where a route leads, without its secrets."""
    try:
        urls = [route.url] if route.url is not None else read_url_file(str(route.url_file))
    except HostmendError:
        # What is wrong with the file stands in the result.
        return ()
    return tuple(describe_url(url) for url in urls)


def _mask(run: Run, hidden: Collection[tuple[str, str]]) -> Run:
    """The run without the values that are shown to nobody."""
    secret = {option for remedy, option in hidden if remedy == run.remedy}
    return replace(run, options=mask_values(run.options, secret))
