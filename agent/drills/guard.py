"""The guard of a drill: a process of its own that injects the fault and undoes it, come what may.

`hostmend-drill.service` runs it, and systemd starts it again should it be killed, and at boot. It
asks nobody whether it may undo: it does so when it is told to stop, when the drill's time is over,
and whenever it begins and finds a fault that was injected before. It never injects one twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.clock import Clock
from agent.core.model import Changes, Outcome
from agent.drills.marker import MARKER, require_marker
from agent.drills.place import KEEP, RUNTIME, Place, Record, read_boottime, write_progress
from agent.errors import HostmendError
from agent.host.identity import read_identity
from agent.host.journal import boot_id
from agent.remedies.client import (
    JobRequest,
    JobResult,
    OnEvent,
    discard,
    prepare_runtime,
    run_job,
)

_log = logging.getLogger(__name__)

#: Seconds between looks at the clock, and the longest wait between two tries at undoing.
_TICK = 0.5
_LONGEST_WAIT = 60.0


@dataclass(frozen=True, kw_only=True)
class Guard:
    """One guard, over one drill."""

    place: Place
    runtime: Path
    marker: Path
    clock: Clock

    async def run(self) -> int:
        """The exit code: 0, nothing is left to undo. Raises HostmendError."""
        record = self.place.read()
        if record is None:
            return 0
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        prepare_runtime(self.runtime)
        if not record.begun:
            if why := self._why_not(record):
                self.place.clear()
                write_progress(self.runtime, record.id, "refused", why)
                return 0
            record = self.place.mark_begun(record)
            await self._inject(record, stop)
        await self._undo(record)
        self.place.clear()
        write_progress(self.runtime, record.id, "undone")
        return 0

    def _why_not(self, record: Record) -> str:
        """Why the fault must not be injected now; empty when it may be."""
        if record.boot != boot_id():
            return "the host was booted before the fault was injected"
        if read_boottime() >= record.until:
            return "its time was over before the fault was injected"
        try:
            require_marker(self.marker, read_identity(), self.clock.now())
        except HostmendError as error:
            return str(error)
        return ""

    async def _inject(self, record: Record, stop: asyncio.Event) -> None:
        """Inject the fault and wait for the drill's end; what follows undoes, however it went."""
        write_progress(self.runtime, record.id, "injecting")
        began = read_boottime()

        def hear(event: Mapping[str, Any]) -> None:
            # The last task that changes something is the fault: hostmend may see it before the
            # playbook is over.
            nonlocal began
            if event.get("event") == "task" and event.get("changed"):
                began = float(event["at"]) - float(event.get("duration") or 0.0)

        result = await self._play(record, f"{record.id}-inject", stop, on_event=hear)
        if result.outcome is not Outcome.OK:
            write_progress(self.runtime, record.id, "refused", result.detail)
            return
        write_progress(self.runtime, record.id, "injected", result.detail, at=began)
        until = min(record.until, read_boottime() + record.lasts)
        while not stop.is_set() and read_boottime() < until:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _TICK)

    async def _undo(self, record: Record) -> None:
        """Until it succeeds: there is nobody else to do it."""
        wait = 1.0
        # Nobody can call this off.
        never = asyncio.Event()
        while True:
            write_progress(self.runtime, record.id, "undoing")
            result = await self._play(record, f"{record.id}-undo", never, undo=True)
            if result.outcome is Outcome.OK:
                return
            _log.error("cannot undo %s: %s; it is tried again", record.fault, result.detail)
            write_progress(self.runtime, record.id, "stuck", result.detail)
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    async def _play(
        self,
        record: Record,
        name: str,
        cancel: asyncio.Event,
        *,
        undo: bool = False,
        on_event: OnEvent = lambda _event: None,
    ) -> JobResult:
        with contextlib.suppress(HostmendError):
            discard(name, self.runtime)
        request = JobRequest(
            run_id=name,
            remedy=record.fault,
            remedy_dirs=(self.place.faults,),
            digest=record.digest,
            options={**record.options, KEEP: str(self.place.keep)},
            timeout=record.timeout,
            runtime_dir=self.runtime,
            changes=Changes.FILES,
            undo=undo,
        )
        return await run_job(request, on_event=on_event, cancel=cancel, clock=self.clock)


async def stand_guard() -> int:
    """What `hostmend drill guard` does; see the module. Raises HostmendError."""
    return await Guard(place=Place(), runtime=RUNTIME, marker=MARKER, clock=Clock()).run()
