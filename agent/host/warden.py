"""The process that runs programs of others for the agent, and ends all that they start.

It is small, so forking it costs little, and it is a child subreaper: whatever a program starts
stays below this process however it hides (sessions of its own, an empty environment, a parent that
ends), and nothing else is below it. When the agent goes away, everything here ends.

Lines of JSON on stdin, a socket: `{"id", "argv", "environment", "user", "seconds", "limit"}`, where
`user` is null or `[uid, gid, [group, ...]]`, and `{"cancel": id}`. For each order one line comes
back: `{"id", "error"}`, or `{"id", "code", "out", "err", "seconds", "cut", "left"}` with base64.
Nothing beyond the standard library is imported here.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import selectors
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from agent.host.processes import (
    Process,
    become_subreaper,
    end_own_descendants,
    end_processes,
    find_descendants,
    read_children,
    read_environment,
    read_process,
)

#: An environment variable of everything that a program starts: which run it belongs to.
MARK = "HOSTMEND_LOOK"
#: Ctrl-C and a stop are the agent's to take: the warden ends when it hangs up.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CHUNK = 64 * 1024
#: Longest that ending a program may hold up the others, in seconds: a process in state D cannot be
#: killed by anybody.
_END_SECONDS = 0.5
#: How often it is looked for what programs have left, until none is found.
_SWEEPS = 20


class _Run:
    """One program that runs."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        self.id = int(order["id"])
        self.argv = [str(word) for word in order["argv"]]
        self.mark = f"{os.getpid()}:{self.id}"
        self.began = time.monotonic()
        self.deadline = self.began + float(order["seconds"])
        self.room = int(order["limit"])
        self.out, self.err, self.failed = bytearray(), bytearray(), bytearray()
        self.cut = False
        #: It was ended here, and not by itself.
        self.ended = False
        #: It was told of, and is still there.
        self.stuck = False
        #: What is read of it: descriptor -> where it goes.
        self.pipes: dict[int, bytearray] = {}
        self.pid = self._fork(order)
        self.process = read_process(self.pid)

    def _fork(self, order: Mapping[str, Any]) -> int:
        ours, theirs = zip(*(os.pipe() for _ in range(3)), strict=True)
        pid = os.fork()
        if pid == 0:
            _become(order, self.mark, theirs)
        for descriptor in theirs:
            os.close(descriptor)
        for descriptor, place in zip(ours, (self.out, self.err, self.failed), strict=True):
            os.set_blocking(descriptor, False)
            self.pipes[descriptor] = place
        return pid

    @property
    def started(self) -> int:
        return self.process.started if self.process else 0

    def owns(self, process: Process) -> bool:
        """Whether a process says of itself that it is of this program."""
        if process.session == self.pid:
            return True
        return read_environment(process.pid).get(MARK) == self.mark

    def hear(self, descriptor: int) -> bool:
        """Takes what has arrived. Returns whether more may come."""
        try:
            part = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return True
        place = self.pipes[descriptor]
        place += part[: self.room]
        if place is not self.failed:
            self.room -= min(self.room, len(part))
            self.cut = self.cut or not self.room
        return bool(part)

    def hear_last(self) -> None:
        """What it said at its end. Others may hold its output open; they are not waited for."""
        for descriptor in self.pipes:
            before = -1
            while not self.cut and before != self.room:
                before = self.room
                if not self.hear(descriptor):
                    break

    def tell(self, code: int | None, left: int) -> dict[str, Any]:
        if self.failed:
            return {"id": self.id, "error": self.failed.decode(errors="replace")}
        return {
            "id": self.id,
            "code": None if self.ended else code,
            "out": base64.b64encode(self.out).decode(),
            "err": base64.b64encode(self.err).decode(),
            "seconds": time.monotonic() - self.began,
            "cut": self.cut,
            "left": left,
        }


def _become(order: Mapping[str, Any], mark: str, pipes: tuple[int, ...]) -> NoReturn:
    """In the child: becomes the program, or says why not."""
    out, err, failed = pipes
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, standard in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(descriptor, standard)
        for number in (*_IGNORED, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.umask(0o077)
        os.chdir("/")
        if order["user"] is not None:
            uid, gid, groups = order["user"]
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
        if os.geteuid() == 0:
            _check_program(Path(order["argv"][0]))
        environment = {**order["environment"], MARK: mark}
        os.execve(order["argv"][0], order["argv"], environment)  # noqa: S606 - no shell is the point
    except Exception as error:
        os.write(failed, (getattr(error, "strerror", None) or str(error)).encode())
    finally:
        os._exit(127)


def _check_program(path: Path) -> None:
    """Raises ValueError for a program that somebody else than root could change."""
    real = path.resolve(strict=True)
    for each in (real, *real.parents):
        entry = each.stat()
        sticky = stat.S_ISDIR(entry.st_mode) and entry.st_mode & stat.S_ISVTX
        if entry.st_uid != 0 or (entry.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky):
            raise ValueError(
                f"others than root may change {each}, and it would run as root; "
                "let root own it, and chmod go-w"
            )


class Warden:
    """Runs what it is told to until its agent hangs up."""

    def __init__(self, agent: socket.socket) -> None:
        self._agent = agent
        self._agent.setblocking(False)
        self._heard = bytearray()
        self._answers = bytearray()
        self._runs: dict[int, _Run] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(agent, selectors.EVENT_READ, self._hear_agent)
        # A signal for each child that ends, those among them that were adopted.
        woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._selector.register(woken, selectors.EVENT_READ, lambda: self._note_ends(woken))

    def serve(self) -> None:
        while True:
            for key, events in self._selector.select(self._find_wait()):
                if isinstance(key.data, tuple):
                    self._hear_run(*key.data)
                else:
                    if events & selectors.EVENT_WRITE:
                        self._flush()
                    if events & selectors.EVENT_READ:
                        key.data()
            now = time.monotonic()
            for run in [r for r in self._runs.values() if r.deadline <= now and not r.ended]:
                self._end(run)

    def _find_wait(self) -> float | None:
        deadlines = [run.deadline for run in self._runs.values() if not run.ended]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    # The agent

    def _hear_agent(self) -> None:
        try:
            part = self._agent.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            end_own_descendants()
            sys.exit(0)
        *lines, rest = (self._heard + part).split(b"\n")
        self._heard = bytearray(rest)
        for line in lines:
            self._obey(json.loads(line))

    def _obey(self, order: Mapping[str, Any]) -> None:
        if "cancel" in order:
            run = self._runs.get(int(order["cancel"]))
            if run is not None and not run.ended:
                self._end(run)
            return
        for earlier in self._runs.values():
            if earlier.stuck and earlier.argv == order["argv"]:
                self._answer({"id": order["id"], "error": _say_stuck(earlier)})
                return
        try:
            run = _Run(order)
        except OSError as error:
            self._answer({"id": order["id"], "error": error.strerror})
            return
        self._runs[run.id] = run
        for descriptor in run.pipes:
            self._selector.register(descriptor, selectors.EVENT_READ, (run, descriptor))

    def _answer(self, answer: Mapping[str, Any]) -> None:
        self._answers += json.dumps(answer).encode() + b"\n"
        self._flush()

    def _flush(self) -> None:
        with contextlib.suppress(OSError):
            while self._answers:
                del self._answers[: self._agent.send(self._answers)]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._answers else 0)
        self._selector.modify(self._agent, wanted, self._hear_agent)

    # Programs

    def _hear_run(self, run: _Run, descriptor: int) -> None:
        # It may have ended since this was seen.
        if descriptor in run.pipes and run.id in self._runs:
            if not run.hear(descriptor):
                self._selector.unregister(descriptor)
                os.close(descriptor)
                del run.pipes[descriptor]
            if run.cut and not run.ended:
                self._end(run)

    def _note_ends(self, woken: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(woken, _CHUNK)
        ended: list[tuple[_Run, int]] = []
        # A zombie is seen before it is taken, so that its number stays its own until all is done.
        while (found := _wait_for_any(os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            run = next((run for run in self._runs.values() if run.pid == found.si_pid), None)
            if run is not None:
                _kill_group(run.pid)
                run.hear_last()
                self._close_pipes(run)
                del self._runs[run.id]
            _, status = os.waitpid(found.si_pid, 0)
            if run is not None:
                ended.append((run, os.waitstatus_to_exitcode(status)))
        left = self._end_strays([run for run, _ in ended])
        for run, code in ended:
            if not run.stuck:
                self._answer(run.tell(code, left.count(run.id)))

    def _end_strays(self, over: list[_Run]) -> list[int]:
        """Ends what was adopted here and belongs to no program that still runs.

        Returns the numbers of those that are over, once for each process that is known for theirs.
        """
        owners: list[int] = []
        # What is ended may just have started others, which come here then.
        for _ in range(_SWEEPS):
            roots = {run.pid for run in self._runs.values()}
            strays = [c for c in read_children() if c.pid not in roots and not c.zombie]
            left = [stray for stray in strays if self._is_over(stray)]
            if not left:
                break
            owners += [run.id for stray in left for run in over if run.owns(stray)]
            _end_all(left)
        return owners

    def _is_over(self, stray: Process) -> bool:
        runs = self._runs.values()
        if any(run.owns(stray) for run in runs):
            return False
        # One that hides whose it is can only be of a program that began before it did.
        return MARK in read_environment(stray.pid) or all(
            run.started > stray.started for run in runs
        )

    def _end(self, run: _Run) -> None:
        """Its time is over, or it said too much."""
        run.ended = True
        _kill_group(run.pid)
        if run.process is not None:
            _end_all([run.process], session=run.pid, mark=run.mark)
        still = read_process(run.pid)
        if still is not None and not still.zombie:
            run.stuck = True
            self._close_pipes(run)
            self._answer(run.tell(None, 0))

    def _close_pipes(self, run: _Run) -> None:
        for descriptor in run.pipes:
            self._selector.unregister(descriptor)
            os.close(descriptor)
        run.pipes.clear()


def _wait_for_any(options: int) -> Any:
    try:
        return os.waitid(os.P_ALL, 0, options)
    except ChildProcessError:
        return None


def _kill_group(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def _end_all(roots: Iterable[Process], *, session: int = 0, mark: str = "") -> None:
    """Ends these, all that descends from them, and all in that session or with that mark."""
    known = {(root.pid, root.started) for root in roots}
    own = os.getpid()

    def choose(table: Mapping[int, Process]) -> list[Process]:
        below = find_descendants(own, table)
        for process in below:
            ours = process.session == session or (
                mark and read_environment(process.pid).get(MARK) == mark
            )
            if ours or (process.pid, process.started) in known:
                known.add((process.pid, process.started))
                known.update((d.pid, d.started) for d in find_descendants(process.pid, table))
        return [
            process
            for process in below
            if (process.pid, process.started) in known and not process.zombie
        ]

    end_processes(choose, within=_END_SECONDS)


def _say_stuck(run: _Run) -> str:
    return (
        f"an earlier run of it, process {run.pid}, cannot be ended; it probably waits for a disk "
        "or a network filesystem"
    )


def main() -> None:
    """Serves the agent at the other end of stdin."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    become_subreaper()
    with contextlib.suppress(OSError):
        # The agent itself is the last that the kernel should end for want of memory.
        Path("/proc/self/oom_score_adj").write_text("0")
    Warden(socket.socket(fileno=os.dup(0))).serve()


if __name__ == "__main__":
    main()
