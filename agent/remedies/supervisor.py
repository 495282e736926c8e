"""A job's own process: it owns one run and everything that the run starts."""

from __future__ import annotations

import os
import selectors
import shutil
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from agent.core.model import Changes, Outcome
from agent.errors import Conflict, RemedyError
from agent.host.processes import end_own_descendants, read_process
from agent.host.secret_file import read_secret_file
from agent.remedies.catalog import Catalog
from agent.remedies.lines import Line
from agent.remedies.options import check_options, make_inert
from agent.remedies.preview import find_unchecked
from agent.remedies.protocol import (
    RunPlace,
    now,
    place_of,
    read_line,
    scratch_of,
    write_line,
    write_whole,
)
from agent.remedies.request import JobRequest, read_request
from agent.remedies.surroundings import brings_modules, choose_interpreter

if TYPE_CHECKING:
    from agent.remedies.job import RunnerProcess

#: Kept of a run's events in its directory, in bytes; later ones are only told live.
_MAX_KEPT = 2_000_000
#: Seconds that the last words may take to get out.
_FAREWELL = 1.0


class Supervisor:
    """One run, from the request to the end."""

    def __init__(self, scratch: Path, runner: RunnerProcess, group: Path | None) -> None:
        self._scratch = scratch
        self._group = group
        self._token = scratch.name
        self._pid = runner.pid
        self._work = os.fdopen(runner.work, "wb")
        self._agent = Line(0, 1)
        #: Lines of the agent's that came together with the request.
        self._orders: list[bytes] = []
        self._runner = Line(runner.events, None)
        self._attached: list[Line] = []
        self._listener: socket.socket | None = None
        self._connections: list[socket.socket] = []
        self._events: BinaryIO | None = None
        self._kept = 0
        self._place: RunPlace | None = None
        self._request: JobRequest | None = None
        self._data = False
        self._deadline: float | None = None
        self._stats: Mapping[str, Any] = {"stats": None, "stats_at": None}

    def run(self) -> int:
        """Returns the exit code of this process: 0, or 1 when there was nothing to do."""
        line = self._wait_for_request()
        if line is None:
            self._leave()
            return 1
        try:
            started = self._start(line)
        except Exception as error:
            # Whatever is wrong with the request, the agent must hear it from here.
            self._end(Outcome.FAILED, str(error) or repr(error))
            return 0
        self._emit(started)
        end = self._hear_orders()
        while end is None:
            end = self._step()
        self._end(*end)
        return 0

    def _wait_for_request(self) -> bytes | None:
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            selector.register(self._runner.read_fd or 0, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fd != 0:
                        return None  # a runner that ends without work is broken
                    lines = self._agent.read()
                    if lines:
                        self._orders = lines[1:]
                        return lines[0]
                    if self._agent.closed:
                        return None

    def _start(self, line: bytes) -> dict[str, object]:
        """Validate everything and hand the work to the runner. Raises HostmendError, OSError."""
        request = self._request = read_request(line)
        if self._scratch != scratch_of(request.runtime_dir, self._token):
            raise Conflict(f"cannot run {request.remedy}: {request.runtime_dir} is not this job's")
        remedy = Catalog.load(request.remedy_dirs, only=request.remedy).get(request.remedy)
        if remedy.digest != request.digest:
            raise RemedyError(
                f"cannot run {remedy.name}: it has changed since the run was planned "
                f"(sha256 {remedy.digest[:12]}, planned {request.digest[:12]})"
            )
        options = check_options(
            remedy.name, remedy.options, request.options, configured=request.configured
        )
        vault = remedy.vault_password_file or ""
        if vault:
            # Ansible itself would take one that everybody may read, or write.
            read_secret_file(vault, "vault_password_file")
        self._data = remedy.changes is Changes.DATA and not request.preview
        place = place_of(request.runtime_dir, request.run_id)
        place.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            place.path.mkdir(mode=0o700)
        except FileExistsError:
            raise Conflict(
                f"cannot run {remedy.name}: run {request.run_id} was started before"
            ) from None
        self._place = place
        self._events = place.events.open("ab", buffering=0)
        own, runner = read_process(os.getpid()), read_process(self._pid)
        identity = {
            "pid": os.getpid(),
            "started": own.started if own else 0,
            "runner": self._pid,
            "runner_started": runner.started if runner else 0,
            "token": self._token,
            "group": str(self._group) if self._group else "",
            # A preview changes nothing: the death of the agent ends it, whatever the remedy.
            "changes": Changes.FILES if request.preview else remedy.changes,
        }
        write_whole(place.job, identity)
        self._listen(place)
        unchecked = find_unchecked(remedy.path) if request.preview else frozenset()
        work = {
            "run_id": request.run_id,
            "playbook": str(remedy.path / "undo.yml" if request.undo else remedy.playbook),
            "variables": {name: make_inert(value) for name, value in options.items()},
            "preview": request.preview,
            "interpreter": choose_interpreter(remedy.path, remedy.interpreter),
            "collections": list(remedy.collections),
            "vault": vault,
            # Ansible reads its settings and packs its modules once: for these too early.
            "fresh": bool(remedy.collections or vault) or brings_modules(remedy.path),
            "changes": identity["changes"],
            "result": str(place.result),
            "unchecked": sorted(unchecked),
            "secrets": [
                str(value)
                for name, value in options.items()
                if remedy.options[name].no_log and isinstance(value, str | int | float)
            ],
        }
        self._work.write(write_line(work))
        self._work.flush()
        self._deadline = now() + request.timeout
        return {
            "event": "started",
            "at": now(),
            **{key: identity[key] for key in ("pid", "runner", "runner_started", "changes")},
            "run_id": request.run_id,
            "remedy": remedy.name,
            "digest": remedy.digest,
            "preview": request.preview,
            "timeout": request.timeout,
            "unchecked": len(unchecked),
        }

    def _listen(self, place: RunPlace) -> None:
        directory = os.open(place.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            # By descriptor: a path of its own may be longer than the 107 bytes of unix(7).
            self._listener.bind(f"/proc/self/fd/{directory}/{place.socket.name}")
            self._listener.listen(4)
            self._listener.setblocking(False)
        finally:
            os.close(directory)

    def _step(self) -> tuple[Outcome, str] | None:
        """Wait for one thing to happen. Returns outcome and detail once the run is over."""
        with selectors.DefaultSelector() as selector:
            for line in (self._agent, self._runner, *self._attached):
                if line.read_fd is not None and not line.closed:
                    selector.register(line.read_fd, selectors.EVENT_READ, line)
            for line in (self._agent, *self._attached):
                if line.pending and line.write_fd is not None:
                    if line.write_fd == line.read_fd and not line.closed:
                        both = selectors.EVENT_READ | selectors.EVENT_WRITE
                        selector.modify(line.write_fd, both, line)
                    else:
                        selector.register(line.write_fd, selectors.EVENT_WRITE, line)
            if self._listener:
                selector.register(self._listener, selectors.EVENT_READ, self._listener)
            wait = None
            if self._deadline is not None:
                wait = max(0.0, self._deadline - now())
            ready = selector.select(wait)
        for key, _ in ready:
            if isinstance(key.data, Line):
                key.data.flush()
        if any(key.data is self._listener for key, _ in ready):
            self._accept()
        if ended := self._hear_runner():
            return ended
        if ended := self._hear_orders():
            return ended
        return self._look_at_clock()

    def _hear_runner(self) -> tuple[Outcome, str] | None:
        for text in self._runner.read():
            event = read_line(text)
            if event is None:
                continue
            if event.get("event") == "ended":
                self._stats = event
                return Outcome(event["outcome"]), str(event["detail"])
            if event.get("event") == "stats":
                self._stats = {"stats": event["stats"], "stats_at": event["at"]}
            self._emit(event)
        if self._runner.closed:
            return Outcome.LOST, f"the process that ran the playbook went away{self._why_gone()}"
        return None

    def _why_gone(self) -> str:
        with suppress(ChildProcessError):
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                return f" (exit code {os.waitstatus_to_exitcode(status)})"
        return ""

    def _hear_orders(self) -> tuple[Outcome, str] | None:
        for line in (self._agent, *self._attached):
            if not line.closed:
                self._orders += line.read()
        orders, self._orders = self._orders, []
        if any((read_line(text) or {}).get("cancel") is True for text in orders):
            return Outcome.CANCELLED, "cancelled; everything it had started was ended"
        self._attached = [line for line in self._attached if not line.closed]
        if self._agent.closed and not self._data:
            return Outcome.LOST, "the agent went away; everything the run had started was ended"
        return None

    def _look_at_clock(self) -> tuple[Outcome, str] | None:
        if self._deadline is None or self._request is None or now() < self._deadline:
            return None
        self._deadline = None
        if self._data:
            self._emit({"event": "overdue", "at": now()})
            return None
        return (
            Outcome.TIMEOUT,
            f"not over within {self._request.timeout:g} s; everything it had started was ended",
        )

    def _accept(self) -> None:
        assert self._listener is not None  # noqa: S101 - only called when it is ready
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        self._connections.append(connection)
        line = Line(connection.fileno(), connection.fileno())
        if self._place:
            with suppress(OSError):
                line.queue(self._place.events.read_bytes(), must=True)
        self._attached.append(line)

    def _emit(self, event: Mapping[str, object]) -> None:
        text = write_line(event)
        must = event["event"] != "task"
        if self._events and (must or self._kept + len(text) <= _MAX_KEPT):
            # A full tmpfs must not end the run.
            with suppress(OSError):
                self._kept += self._events.write(text)
        for line in (self._agent, *self._attached):
            line.queue(text, must=must)

    def _end(self, outcome: Outcome, detail: str) -> None:
        """End all that is left, then say so: in the result first, as the agent may be gone."""
        left = end_own_descendants()
        if left:
            pids = ", ".join(str(process.pid) for process in left)
            detail = f"{detail} (processes {pids} cannot be ended)"
        shutil.rmtree(self._scratch, ignore_errors=True)
        ended = {
            "event": "ended",
            "run_id": self._request.run_id if self._request else None,
            "outcome": outcome,
            "detail": detail,
            "stats": self._stats["stats"],
            "stats_at": self._stats["stats_at"],
            "ended_at": now(),
            "left": len(left),
        }
        if self._place:
            with suppress(OSError):
                write_whole(self._place.result, ended)
            with suppress(OSError):
                self._place.socket.unlink()
        self._emit(ended)
        self._say_farewell()

    def _say_farewell(self) -> None:
        until = now() + _FAREWELL
        while (left := until - now()) > 0:
            waiting = [line for line in (self._agent, *self._attached) if line.pending]
            if not waiting:
                return
            with selectors.DefaultSelector() as selector:
                for line in waiting:
                    selector.register(line.write_fd or 0, selectors.EVENT_WRITE, line)
                for key, _ in selector.select(left):
                    key.data.flush()

    def _leave(self) -> None:
        end_own_descendants()
        shutil.rmtree(self._scratch, ignore_errors=True)
