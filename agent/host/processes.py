"""Processes of this machine: who descends from whom, and ending a whole tree for good.

Killing a process group is not enough: Ansible's workers call setsid(2), and a child may ignore
SIGTERM. What holds is a child subreaper (prctl(2), PR_SET_CHILD_SUBREAPER): orphans come back to
it, so its descendants are everything that was ever started below it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.host import cgroups

#: linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36
_PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class Process:
    """One line of /proc/PID/stat (proc(5))."""

    pid: int
    parent: int
    session: int
    #: Clock ticks after boot; with the pid it is an identity that is never used twice.
    started: int
    #: One letter: R, S, D, T, Z, X ...
    state: str

    @property
    def zombie(self) -> bool:
        """Ended, and its parent has not taken note of it yet."""
        return self.state in "ZX"


def become_subreaper() -> None:
    """Make orphans among this process's descendants its own children. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot become a child subreaper: {os.strerror(code)}")


def read_process(pid: int) -> Process | None:
    """The process of that number, or None where there is none."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The command's name is in parentheses and may itself hold parentheses and spaces.
    fields = text.rpartition(")")[2].split()
    return Process(
        pid=pid,
        state=fields[0],
        parent=int(fields[1]),
        session=int(fields[3]),
        started=int(fields[19]),
    )


def read_processes() -> dict[int, Process]:
    """Every process that this one can see."""
    found = (read_process(int(path.name)) for path in _PROC.iterdir() if path.name.isdecimal())
    return {process.pid: process for process in found if process}


def read_unit(pid: int, root: Path = _PROC) -> str:
    """The systemd unit that a process belongs to, from its cgroup; empty for none.

    systemd's own hierarchy is `0::` where there is one only, and `name=systemd` or `0::` beside
    others (cgroups(7)).
    """
    try:
        lines = (root / str(pid) / "cgroup").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    paths = [line.split(":", 2) for line in lines]
    for wanted in ("name=systemd", ""):
        for parts in paths:
            if len(parts) == 3 and parts[1] == wanted:
                names = [part for part in parts[2].split("/") if "." in part]
                units = [name for name in names if name.endswith((".service", ".scope"))]
                if units:
                    return units[-1]
    return ""


def read_children() -> list[Process]:
    """The children of this process, those that it has adopted among them.

    By proc_pid_task_children(5), which is much less work than a look at every process.
    """
    found = []
    for thread in (_PROC / "self" / "task").iterdir():
        with suppress(OSError):
            for number in (thread / "children").read_text().split():
                if (process := read_process(int(number))) is not None:
                    found.append(process)
    return found


def read_environment(pid: int) -> dict[str, str]:
    """What a process was started with; empty where that may not be known."""
    try:
        rows = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    pairs = (row.decode(errors="replace").partition("=") for row in rows)
    return {name: value for name, equals, value in pairs if equals}


def is_alive(pid: int, started: int) -> bool:
    """Whether exactly that process runs still; a zombie does not."""
    process = read_process(pid)
    return process is not None and process.started == started and not process.zombie


def find_descendants(root: int, table: Mapping[int, Process]) -> list[Process]:
    """All that descend from `root`, without it, parents first."""
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    queue = [root]
    while queue:
        for child in children.get(queue.pop(), ()):
            found.append(child)
            queue.append(child.pid)
    return found


def find_marked(name: str, value: str) -> list[Process]:
    """Processes that were started with `name=value` in their environment, without this one."""
    mark = f"{name}={value}".encode()
    found = []
    for process in read_processes().values():
        if process.zombie or process.pid == os.getpid():
            continue
        with suppress(OSError):
            if mark in (_PROC / str(process.pid) / "environ").read_bytes().split(b"\0"):
                found.append(process)
    return found


def send_signal(process: Process, number: int) -> bool:
    """Signal exactly this process, never another that got its number. False: it is not there."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        now = read_process(process.pid)
        if now is None or now.started != process.started or now.zombie:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def end_processes(
    choose: Callable[[Mapping[int, Process]], Iterable[Process]],
    *,
    within: float,
    reap: Callable[[Iterable[Process]], None] = lambda _processes: None,
) -> list[Process]:
    """Stop, then kill what `choose` finds among all processes, again and again until it finds none.

    Stopping first keeps them from starting more while the list is made. Children of the caller
    stay zombies until `reap` has waited for them. Returns what is left after `within` seconds: a
    process in uninterruptible sleep (state D) cannot be killed by anybody.
    """
    deadline = time.monotonic() + within
    pause = 0.001
    while True:
        stopped: dict[int, Process] = {}
        while new := [
            process
            for process in choose(read_processes())
            if process.pid not in stopped and not process.zombie
        ]:
            for process in new:
                send_signal(process, signal.SIGSTOP)
                stopped[process.pid] = process
        for process in stopped.values():
            send_signal(process, signal.SIGKILL)
        reap(stopped.values())
        left = list(choose(read_processes()))
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def end_own_descendants(*, within: float = 10.0) -> list[Process]:
    """End everything below this process, zombies included.

    Only for a process that has no other use for its children: it waits for all of them.
    """

    def reap(_processes: Iterable[Process]) -> None:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    own = os.getpid()
    return end_processes(lambda table: find_descendants(own, table), within=within, reap=reap)


def reap_strays() -> None:
    """Take note of the ends of adopted orphans, which nobody else here waits for.

    A zombie child in a session that is neither the caller's nor its own was never started by the
    caller, but came back to it as a subreaper.
    """
    caller, session = os.getpid(), os.getsid(0)
    for process in read_processes().values():
        mine = process.session in (session, process.pid)
        if process.parent == caller and process.zombie and not mine:
            with suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)


def end_tree(
    roots: Iterable[Process],
    *,
    mark: tuple[str, str] | None = None,
    own: frozenset[int] = frozenset(),
    strays_since: int | None = None,
    group: Path | None = None,
    within: float = 10.0,
) -> list[Process]:
    """From outside: end these processes, all that descends from them, all that carry the mark, and
    all in the control group, which is removed.

    The caller should be their subreaper. `own` are children of the caller that somebody else
    waits for; every other one that becomes the caller's child is reaped here, by its number.
    With `strays_since` (clock ticks after boot) also what the caller has adopted and what began
    after that: a child in a session that is neither the caller's nor the child's own was never
    started by the caller.
    """
    known = {(process.pid, process.started) for process in roots}
    caller, session = os.getpid(), os.getsid(0)

    def choose(table: Mapping[int, Process]) -> list[Process]:
        if mark:
            known.update((process.pid, process.started) for process in find_marked(*mark))
        if group:
            members = cgroups.list_members(group) & table.keys()
            known.update((pid, table[pid].started) for pid in members)
        for process in table.values():
            if (
                strays_since is not None
                and process.parent == caller
                and process.session not in (session, process.pid)
                and process.started >= strays_since
            ):
                known.add((process.pid, process.started))
            if (process.pid, process.started) in known:
                known.update((d.pid, d.started) for d in find_descendants(process.pid, table))
        return [
            process
            for process in table.values()
            if (process.pid, process.started) in known
            and not (process.zombie and (process.pid in own or process.parent != caller))
        ]

    def reap(processes: Iterable[Process]) -> None:
        del processes
        for pid, started in known:
            process = read_process(pid)
            if (
                process
                and process.started == started
                and process.zombie
                and process.parent == caller
                and pid not in own
            ):
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    if group:
        cgroups.freeze(group)
    left = end_processes(choose, within=within, reap=reap)
    if group:
        cgroups.remove(group)
    return left
