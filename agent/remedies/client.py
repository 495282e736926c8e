"""The agent's side of a run: start a job, follow it, and clear away what a dead one left.

    spare = Spare(runtime_dir)                  # optional: a job that is ready before it is needed
    await spare.refill()
    result = await run_job(JobRequest(...), on_event=print, cancel=asyncio.Event(), spare=spare)
    discard(result.run_id, runtime_dir)         # once its outcome is durable elsewhere

- `run_job(request, *, on_event, cancel, clock, spare, grace) -> JobResult` carries one run out.
  It never raises for a run that goes wrong, and it never hangs: past `timeout + grace` it ends the
  run's processes from outside and says so. `on_event` gets each event as a dict (see `protocol`)
  in order; what it raises is logged and ignored. Setting `cancel` ends the run, whatever the
  remedy changes. Cancelling the task that awaits it (a shutdown) ends a `service` or `files` run
  and waits for that; a `data` run is left to itself, for `attach` to find.
- `attach(run_id, runtime_dir, *, on_event, cancel, clock, grace) -> JobResult` after a restart of
  the agent: follows a run that is still alive, with all its events from the beginning, or reads
  how it ended. LOST when nothing is known of it, or when it went away without a word; then what
  it left is ended here.
- `discard(run_id, runtime_dir)` removes what is kept of a run; refused while it is alive.
- `pack_modules(runtime_dir)` once, while nothing is urgent: later runs are shorter.
- `prepare_runtime(runtime_dir)` once at the agent's start: makes the agent a child subreaper and
  removes temporary files of jobs that no longer live.

The agent must never call `waitpid(-1)`. Layout of the runtime directory: `runs/<run id>/`,
`scratch/<token>/`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.clock import Clock
from agent.core.model import Changes, Instant, Outcome, Seconds
from agent.core.text import clean_text
from agent.errors import Conflict, Unavailable
from agent.host.cgroups import PREFIX, find_place, list_members, remove, remove_empty
from agent.host.processes import (
    Process,
    become_subreaper,
    end_tree,
    find_marked,
    is_alive,
    read_process,
    reap_strays,
)
from agent.remedies.process import JobProcess
from agent.remedies.protocol import (
    MARK,
    MAX_LINE,
    place_of,
    read_line,
    scratch_of,
    shelf_of,
)
from agent.remedies.request import JobRequest, write_request

__all__ = [
    "JobRequest", "JobResult", "Spare", "attach", "discard", "pack_modules", "prepare_runtime",
    "run_job",
]  # fmt: skip

_log = logging.getLogger(__name__)

OnEvent = Callable[[Mapping[str, Any]], None]

#: Seconds beyond its timeout, or after a cancel, that a job has to end by itself.
GRACE = 15.0
#: Seconds between looks at a process that is not our child.
_LOOK = 0.2


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """How a run ended."""

    run_id: str
    outcome: Outcome
    #: One sentence.
    detail: str
    #: When everything that it had started was gone.
    ended: Instant
    #: Ansible's counts: ok, changed, failures, unreachable, skipped, rescued, ignored.
    stats: Mapping[str, int] | None = None
    #: When the playbook itself was over, a little before `ended`.
    stats_at: Instant | None = None
    events_count: int = 0


class Spare:
    """A job that has everything imported and waits for a request, replaced when it was used.

    It saves a run the start of Python and all imports, ansible-playbook's above all, and costs the
    memory of three processes that share a part of it.
    """

    def __init__(self, runtime_dir: Path) -> None:
        self._runtime_dir = runtime_dir
        self._job: JobProcess | None = None
        self._wanted = True
        self._closed = False
        self._turn = asyncio.Lock()

    @property
    def alive(self) -> bool:
        """Whether there is one."""
        return self._job is not None and not self._job.exited.is_set()

    async def keep(self, wanted: bool) -> None:
        """From now on keep one ready, or none: then the one that waits is ended."""
        async with self._turn:
            self._wanted = wanted
            await (self._fill() if wanted else self._drop())

    async def refill(self) -> None:
        """Start one if there is none and one is wanted.

        What goes wrong is logged: a run can start its own.
        """
        async with self._turn:
            await self._fill()

    async def _fill(self) -> None:
        if self._closed or not self._wanted or self.alive:
            return
        await self._drop()
        try:
            self._job = JobProcess.start(self._runtime_dir)
        except OSError as error:
            _log.warning("cannot keep a job ready: %s", error)

    def take(self, runtime_dir: Path) -> JobProcess | None:
        """The job, if it is alive and for that directory. It is the caller's from here on."""
        job, usable = self._job, runtime_dir == self._runtime_dir
        if job is None or not usable or job.exited.is_set():
            return None
        self._job = None
        return job

    async def close(self) -> None:
        """End it; nothing is kept ready any more."""
        self._closed = True
        async with self._turn:
            await self._drop()

    async def _drop(self) -> None:
        job, self._job = self._job, None
        if job:
            job.hang_up()
            with suppress(TimeoutError):
                await asyncio.wait_for(job.exited.wait(), GRACE)
            await _clear(job)
            job.close()


async def run_job(
    request: JobRequest,
    *,
    on_event: OnEvent,
    cancel: asyncio.Event,
    clock: Clock,
    spare: Spare | None = None,
    grace: Seconds = GRACE,
) -> JobResult:
    """Carry out one run; see the module. Raises Invalid for a run id that is no file name."""
    place = place_of(request.runtime_dir, request.run_id)
    spared = spare.take(request.runtime_dir) if spare else None
    try:
        job = spared or JobProcess.start(request.runtime_dir)
    except OSError as error:
        return JobResult(
            run_id=request.run_id,
            outcome=Outcome.FAILED,
            detail=f"cannot start a job in {request.runtime_dir}: {error.strerror}",
            ended=clock.now(),
        )
    tale = _Tale(request.run_id, on_event, clock)
    data = request.changes is Changes.DATA and not request.preview
    try:
        await job.write(write_request(request))
        late = await _follow(
            job.lines(),
            tale,
            cancel,
            order_end=job.cancel,
            within=None if data else request.timeout + grace,
            grace=grace,
        )
    except asyncio.CancelledError:
        if data and tale.ended is None and not cancel.is_set():
            job.close()
        else:
            await _finish(job, tale, grace)
        raise
    if late:
        return await _finish_from_outside(job, tale, late, grace)
    await _finish(job, tale, grace)
    if spared and tale.untold and not place.path.exists():
        # It had died while it waited, and never made the run its own.
        return await run_job(request, on_event=on_event, cancel=cancel, clock=clock, grace=grace)
    if tale.ended is None and data:
        await _wait_for_runner(job, tale, cancel)
    return tale.tell(request.runtime_dir, clean_text(job.last_words))


async def attach(
    run_id: str,
    runtime_dir: Path,
    *,
    on_event: OnEvent,
    cancel: asyncio.Event,
    clock: Clock,
    grace: Seconds = GRACE,
) -> JobResult:
    """Follow a run that another agent process started; see the module."""
    place = place_of(runtime_dir, run_id)
    tale = _Tale(run_id, on_event, clock)
    try:
        identity = json.loads(place.job.read_bytes())
    except (OSError, ValueError):
        return tale.tell(runtime_dir, "nothing is known of it")
    try:
        reader, writer = await _connect(place.path)
    except OSError:
        await asyncio.to_thread(reap_strays)
    else:

        async def order_end() -> None:
            with suppress(OSError):
                writer.write(b'{"cancel": true}\n')
                await writer.drain()

        try:
            await _follow(
                _read_lines(reader), tale, cancel, order_end=order_end, within=None, grace=grace
            )
        finally:
            writer.close()
    if tale.ended is None:
        await _outlast(identity, cancel, data=identity.get("changes") == Changes.DATA)
    await _clear_identity(identity)
    shutil.rmtree(scratch_of(runtime_dir, str(identity["token"])), ignore_errors=True)
    return tale.tell(runtime_dir, "")


def discard(run_id: str, runtime_dir: Path) -> None:
    """Remove what is kept of a run; nothing to do is fine. Raises Conflict while it is alive."""
    place = place_of(runtime_dir, run_id)
    with suppress(OSError, ValueError):
        identity = json.loads(place.job.read_bytes())
        if is_alive(identity["pid"], identity["started"]):
            raise Conflict(f"cannot discard run {run_id}: its job is still alive")
    shutil.rmtree(place.path, ignore_errors=True)


def prepare_runtime(runtime_dir: Path) -> None:
    """At the agent's start. Raises Unavailable where it cannot work."""
    try:
        become_subreaper()
        for name in ("runs", "scratch"):
            (runtime_dir / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        # Another agent's: Ansible's own code may have changed since.
        shutil.rmtree(shelf_of(runtime_dir), ignore_errors=True)
        shelf_of(runtime_dir).mkdir(mode=0o700)
        for scratch in (runtime_dir / "scratch").iterdir():
            if not find_marked(MARK, scratch.name):
                shutil.rmtree(scratch, ignore_errors=True)
        with suppress(Unavailable):
            remove_empty(find_place())
    except OSError as error:
        raise Unavailable(f"cannot use the runtime directory {runtime_dir}: {error}") from None


async def pack_modules(runtime_dir: Path) -> None:
    """Have Ansible's common modules packed, by a job that never gets a request.

    What goes wrong is logged: Ansible packs what it needs by itself.
    """
    spare = Spare(runtime_dir)
    try:
        await spare.refill()
        while spare.alive and not any(shelf_of(runtime_dir).iterdir()):  # noqa: ASYNC110 - a file
            await asyncio.sleep(_LOOK)
    finally:
        await spare.close()


class _Tale:
    """What a run has told so far."""

    def __init__(self, run_id: str, on_event: OnEvent, clock: Clock) -> None:
        self._run_id = run_id
        self._on_event = on_event
        self._clock = clock
        self._count = 0
        self.ended: Mapping[str, Any] | None = None
        self.started: Mapping[str, Any] = {}

    @property
    def untold(self) -> bool:
        """Not a word was heard."""
        return self._count == 0

    def hear(self, line: bytes) -> None:
        event = read_line(line)
        if event is None or "event" not in event:
            return
        self._count += 1
        if event["event"] == "ended":
            self.ended = event
        elif event["event"] == "started":
            self.started = event
        try:
            self._on_event(event)
        except Exception:
            _log.exception("an event of run %s could not be taken", self._run_id)

    def tell(self, runtime_dir: Path, last_words: str) -> JobResult:
        """The result as it was told, or as the run's directory holds it, or LOST."""
        ended = self.ended
        if ended is None:
            with suppress(OSError):
                path = place_of(runtime_dir, self._run_id).result
                ended = read_line(path.read_bytes())
        if ended is None:
            words = f": {last_words}" if last_words else ""
            return self.say(Outcome.LOST, f"its job went away without a word{words}")
        at = ended.get("stats_at")
        return JobResult(
            run_id=self._run_id,
            outcome=Outcome(ended["outcome"]),
            detail=str(ended["detail"]),
            ended=self._clock.at_boottime(float(ended["ended_at"])),
            stats=ended.get("stats"),
            stats_at=self._clock.at_boottime(float(at)) if at is not None else None,
            events_count=self._count,
        )

    def say(self, outcome: Outcome, detail: str) -> JobResult:
        return JobResult(
            run_id=self._run_id,
            outcome=outcome,
            detail=detail,
            ended=self._clock.now(),
            events_count=self._count,
        )


async def _follow(
    lines: AsyncIterator[bytes],
    tale: _Tale,
    cancel: asyncio.Event,
    *,
    order_end: Callable[[], Any],
    within: Seconds | None,
    grace: Seconds,
) -> Outcome | None:
    """Hear everything until the other side ends. Returns why its time was over, or None."""

    async def hear() -> None:
        async for line in lines:
            tale.hear(line)

    hearing = asyncio.ensure_future(hear())
    cancelling = asyncio.ensure_future(cancel.wait())
    try:
        await asyncio.wait(
            {hearing, cancelling}, timeout=within, return_when=asyncio.FIRST_COMPLETED
        )
        if not hearing.done() and not cancelling.done():
            return Outcome.TIMEOUT
        if not hearing.done():
            await order_end()
            await asyncio.wait({hearing}, timeout=grace)
            if not hearing.done():
                return Outcome.CANCELLED
        await hearing
        return None
    finally:
        for task in (hearing, cancelling):
            task.cancel()
        await asyncio.gather(hearing, cancelling, return_exceptions=True)


async def _finish(job: JobProcess, tale: _Tale, grace: Seconds) -> None:
    """The job has said its last word, or must: wait for its end, and see that nothing is left."""
    job.hang_up()
    with suppress(TimeoutError):
        await asyncio.wait_for(job.exited.wait(), grace)
    goes_on = job.exited.is_set() and tale.started.get("changes") == Changes.DATA
    if not job.exited.is_set() or (tale.ended is None and not goes_on):
        await _clear(job, tale)
    else:
        await asyncio.to_thread(reap_strays)
        if job.group and tale.ended is not None:
            if list_members(job.group):
                await asyncio.to_thread(end_tree, [], group=job.group)
            await asyncio.to_thread(remove, job.group)
    job.close()


async def _finish_from_outside(
    job: JobProcess, tale: _Tale, why: Outcome, grace: Seconds
) -> JobResult:
    left = await _clear(job, tale)
    job.close()
    detail = (
        f"its job did not end by itself within {grace:g} s after "
        f"{'its timeout' if why is Outcome.TIMEOUT else 'the cancel'}; "
        "it and everything it had started was ended from outside"
    )
    if left:
        detail += f", but for processes {', '.join(str(process.pid) for process in left)}"
    return tale.say(why, detail)


async def _clear(job: JobProcess, tale: _Tale | None = None) -> list[Process]:
    """End what is left of a job, and remove its temporary files."""
    roots = job.identify()
    if tale and tale.started:
        runner = read_process(int(tale.started["runner"]))
        if runner and runner.started == tale.started["runner_started"]:
            roots.append(runner)
    left = await asyncio.to_thread(
        end_tree,
        roots,
        mark=(MARK, job.token),
        own=frozenset({job.pid}),
        strays_since=job.started,
        group=job.group,
    )
    shutil.rmtree(job.scratch, ignore_errors=True)
    return left


async def _wait_for_runner(job: JobProcess, tale: _Tale, cancel: asyncio.Event) -> None:
    """The supervisor of a data run died: its runner goes on to the end of the playbook alone."""
    pid, started = tale.started.get("runner"), tale.started.get("runner_started")
    if isinstance(pid, int) and isinstance(started, int):
        while is_alive(pid, started) and not cancel.is_set():
            await _pause(cancel)
    await _clear(job, tale)


async def _outlast(identity: Mapping[str, Any], cancel: asyncio.Event, *, data: bool) -> None:
    """Nobody answers for the run: wait for its processes where they end by themselves."""
    loop = asyncio.get_running_loop()
    until = loop.time() + GRACE
    while not cancel.is_set() and (data or loop.time() < until):
        if not any(
            is_alive(identity[pid], identity[started])
            for pid, started in (("pid", "started"), ("runner", "runner_started"))
        ):
            return
        await _pause(cancel)


async def _pause(cancel: asyncio.Event) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(cancel.wait(), _LOOK)


async def _clear_identity(identity: Mapping[str, Any]) -> None:
    found = [read_process(int(identity[name])) for name in ("pid", "runner")]
    starts = (identity["started"], identity["runner_started"])
    roots = [
        process
        for process, started in zip(found, starts, strict=True)
        if process and process.started == started
    ]
    token, group = str(identity["token"]), Path(identity.get("group", ""))
    await asyncio.to_thread(
        end_tree,
        roots,
        mark=(MARK, token),
        # What is written there is not believed blindly: a group of others would be ended whole.
        group=group if group.name == f"{PREFIX}{token}" else None,
    )


async def _connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return await asyncio.open_unix_connection(
            f"/proc/self/fd/{directory}/socket", limit=MAX_LINE
        )
    finally:
        os.close(directory)


async def _read_lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    with suppress(OSError, ValueError):
        while line := await reader.readline():
            yield line
