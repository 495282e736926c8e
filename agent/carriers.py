"""How the worker's intents reach the world: runs become jobs, notices become messages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.clock import Clock
from agent.config import Config
from agent.core.model import Changes, Evidence, Notice, Run
from agent.errors import HostmendError
from agent.notify import delivery
from agent.notify.client import deliver
from agent.notify.message import compose
from agent.remedies.client import JobRequest, JobResult, Spare, attach, discard, run_job
from agent.store.state import Listing, State
from agent.witness import Witness
from agent.worker import Delivery, JobEnd, Read

_log = logging.getLogger(__name__)

#: Seconds that one batch of messages may take in all.
_BATCH_LIMIT = 120.0
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
            batch.append(await self._compose(notice, route.url, route.url_file))

        async def hand_on(result: delivery.DeliveryResult) -> None:
            await on_result(
                Delivery(notice=result.id, ok=result.ok, retry=result.retry, error=result.error)
            )

        await deliver(batch, timeout=_BATCH_LIMIT, on_result=hand_on)

    async def _compose(
        self, notice: Notice, url: str | None, url_file: Path | None
    ) -> delivery.Delivery:
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
        message = compose(
            notice,
            host=self._host,
            origin=self._origin,
            now=self._clock.now(),
            runs=runs,
            before=before,
            after=after,
            public_url=self._config().public_url,
        )
        return delivery.Delivery(
            id=notice.id,
            route=notice.route,
            url=url,
            url_file=str(url_file) if url_file is not None else None,
            title=message.title,
            body=message.body,
            severity=message.severity,
            message_id=message.message_id,
        )


def _mask(run: Run, hidden: Collection[tuple[str, str]]) -> Run:
    """The run without the values that are shown to nobody."""
    options = {k: "***" if (run.remedy, k) in hidden else v for k, v in run.options.items()}
    return replace(run, options=options)
