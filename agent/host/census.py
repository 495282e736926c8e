"""Who runs on this machine: one short-lived table of all processes for whoever asks (proc(5)).

To read /proc of many processes costs milliseconds, so a table is shared for a second, and is read
in a thread: `ps` is known to hang on the command line of a process that is stuck in its memory.
"""

from __future__ import annotations

import asyncio
import fnmatch
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from agent.core.model import Seconds
from agent.host.space import Hung, Patience

#: A table is shared for so long.
SHARED: Seconds = 1.0
#: The kernel keeps so many characters of a process's name (TASK_COMM_LEN, with its closing zero).
NAME_LENGTH = 15
#: Bytes of a command line that are read.
_COMMAND_LIMIT = 4096
#: A command line is read again after this, since programs write their state into it; and when it
#: was read so soon after the start that it may be that of before execve(2).
_TITLE_FOR: Seconds = 60.0
_YOUNG: Seconds = 5.0
#: Processes whose command line may hang before no more is tried.
_MOST_STUCK = 8
#: PF_KTHREAD in linux/sched.h
_KERNEL_THREAD = 0x00200000

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

#: A pid and when it began: an identity that is never used twice.
Identity = tuple[int, int]


class Task(NamedTuple):
    """One process, from /proc/PID/stat. A tuple, because hundreds are made at a time."""

    pid: int
    parent: int
    #: Clock ticks after boot.
    started: int
    #: At most `NAME_LENGTH` characters.
    name: str
    #: One letter: R, S, D, T, Z, X ...
    state: str
    flags: int
    #: Clock ticks of processor time, in user and kernel mode.
    ticks: int
    threads: int
    pages: int

    @property
    def identity(self) -> Identity:
        return (self.pid, self.started)

    @property
    def zombie(self) -> bool:
        """Ended, and its parent has not taken note of it yet."""
        return self.state in "ZX"

    @property
    def kernel(self) -> bool:
        """A thread of the kernel."""
        return bool(self.flags & _KERNEL_THREAD)

    @property
    def busy_seconds(self) -> float:
        return self.ticks / _TICKS

    @property
    def memory_bytes(self) -> int:
        """Resident memory; what is shared with others counts in full."""
        return self.pages * _PAGE

    @property
    def started_seconds(self) -> float:
        """When it began: CLOCK_BOOTTIME in seconds."""
        return self.started / _TICKS


@dataclass(kw_only=True)
class Table:
    """All processes at one time."""

    #: CLOCK_MONOTONIC in seconds when its reading began.
    began: float
    tasks: dict[int, Task]
    #: Command lines by pid, words joined by blanks; None where they were not asked for.
    commands: dict[int, str] | None = None
    _by_name: dict[str, list[Task]] | None = field(default=None, repr=False)

    def find(self, name: str) -> list[Task]:
        """Processes of that name; `*`, `?` and `[...]` stand for what they do in a shell."""
        if self._by_name is None:
            self._by_name = {}
            for task in self.tasks.values():
                self._by_name.setdefault(task.name, []).append(task)
        if not set(name) & set("*?["):
            return list(self._by_name.get(name[:NAME_LENGTH], ()))
        matches = re.compile(fnmatch.translate(name)).match
        return [task for known, of in self._by_name.items() if matches(known) for task in of]


class Census:
    """Reads tables, each for all who ask within a second. Use it from one event loop only."""

    def __init__(self, *, root: Path = Path("/proc"), seconds: Seconds = 3.0) -> None:
        """`seconds`: how long a reading may take."""
        self._root = root
        self._seconds = seconds
        self._patience = Patience()
        self._kept: Table | None = None
        self._reading: asyncio.Task[Table] | None = None
        self._with_commands = False
        #: What was read of each process: its name then, its command line, when, and for good.
        self._titles: dict[Identity, tuple[str, str, float]] = {}
        self._at: Identity | None = None
        self._stuck: set[Identity] = set()

    async def table(self, *, commands: bool = False) -> Table:
        """All processes, as they were at most a second ago. Raises Hung, or OSError."""
        if commands and not self._with_commands:
            self._with_commands = True
            self.forget()
        kept = self._kept
        if kept is not None and time.monotonic() - kept.began < SHARED:
            return kept
        reading = self._reading
        if reading is None:
            reading = self._reading = asyncio.ensure_future(self._read(self._with_commands))
            reading.add_done_callback(self._keep)
        return await asyncio.shield(reading)

    def bury(self, identity: Identity) -> None:
        """That process is known to have ended: it is in no table any more."""
        tasks = self._kept.tasks if self._kept else {}
        found = tasks.get(identity[0])
        if self._kept is not None and found is not None and found.identity == identity:
            # A table of its own: whoever looks at the old one goes on with it.
            left = {pid: task for pid, task in tasks.items() if pid != identity[0]}
            self._kept = Table(began=self._kept.began, tasks=left, commands=self._kept.commands)

    def forget(self) -> None:
        """What was read before now counts no more."""
        self._kept = None
        self._reading = None

    def _keep(self, reading: asyncio.Task[Table]) -> None:
        failed = reading.cancelled() or reading.exception() is not None
        if self._reading is reading:
            self._reading = None
            self._kept = None if failed else reading.result()

    async def _read(self, commands: bool) -> Table:
        table = await self._patience.call(
            "the table of processes", self._seconds, lambda: read_table(self._root)
        )
        if commands:
            table.commands = await self._read_commands(table)
        return table

    async def _read_commands(self, table: Table) -> dict[int, str]:
        """Command lines; that of a process which hangs is left out from then on."""
        self._stuck &= {task.identity for task in table.tasks.values()}
        while True:
            # A name of its own for each attempt: one that hangs must not hold up the next.
            name = f"the command lines of processes ({len(self._stuck)} are stuck)"
            try:
                return await self._patience.call(
                    name, self._seconds / 2, lambda: self._fill_commands(table)
                )
            except Hung:
                stuck = self._at
                if stuck is None or len(self._stuck) >= _MOST_STUCK:
                    raise
                self._stuck.add(stuck)

    def _fill_commands(self, table: Table) -> dict[int, str]:
        now, booted = time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
        titles: dict[Identity, tuple[str, str, float]] = {}
        found: dict[int, str] = {}
        for task in table.tasks.values():
            known = self._titles.get(task.identity)
            if known is None or known[0] != task.name or now >= known[2]:
                command = ""
                if task.identity not in self._stuck and not task.kernel:
                    self._at = task.identity
                    command = _read_command(self._root / str(task.pid) / "cmdline")
                young = booted - task.started_seconds < _YOUNG
                known = (task.name, command, now if young else now + _TITLE_FOR)
            titles[task.identity] = known
            found[task.pid] = known[1]
        self._titles = titles
        return found


def read_table(root: Path = Path("/proc")) -> Table:
    """A fresh table, without command lines. Raises OSError."""
    began = time.monotonic()
    tasks: dict[int, Task] = {}
    base = os.fspath(root)
    for name in os.listdir(base):  # noqa: PTH208 - a tenth of the time
        if name[0] not in "123456789":
            continue
        try:
            handle = os.open(f"{base}/{name}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            text = os.read(handle, 1024)
        except OSError:
            continue
        finally:
            os.close(handle)
        task = parse_stat(text)
        if task is not None:
            tasks[task.pid] = task
    return Table(began=began, tasks=tasks)


def parse_stat(text: bytes) -> Task | None:
    """One /proc/PID/stat; None for what is none. The name in it may hold anything."""
    before, opening, rest = text.partition(b"(")
    name, closing, after = rest.rpartition(b")")
    fields = after.split()
    if not opening or not closing or len(fields) < 22:
        return None
    try:
        return Task(
            pid=int(before),
            parent=int(fields[1]),
            started=int(fields[19]),
            name=name.decode(errors="replace"),
            state=fields[0].decode(),
            flags=int(fields[6]),
            ticks=int(fields[11]) + int(fields[12]),
            threads=int(fields[17]),
            pages=int(fields[21]),
        )
    except ValueError:
        return None


def _read_command(path: Path) -> str:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        text = os.read(handle, _COMMAND_LIMIT)
    except OSError:
        return ""
    finally:
        os.close(handle)
    return text.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")


def read_user(task: Task, root: Path = Path("/proc")) -> int | None:
    """The effective user's number; None where the process has ended.

    The directory of a process belongs to it, also where its files are root's (proc(5), dumpable).
    """
    try:
        return os.stat(root / str(task.pid)).st_uid  # noqa: PTH116
    except OSError:
        return None


def count_descriptors(task: Task, root: Path = Path("/proc")) -> tuple[int, int] | None:
    """How many files a process has open, and how many it may (its soft limit).

    None where that cannot be known: it has ended, or is another user's.
    """
    base = f"{os.fspath(root)}/{task.pid}"
    try:
        # Since Linux 6.2 the size of this directory is the number of its entries.
        count = os.stat(f"{base}/fd").st_size or len(os.listdir(f"{base}/fd"))  # noqa: PTH116, PTH208
        with open(f"{base}/limits", "rb") as file:  # noqa: PTH123
            for line in file:
                if line.startswith(b"Max open files"):
                    return count, int(line.split()[3])
    except (OSError, ValueError, IndexError):
        pass
    return None


def sum_up(tasks: Iterable[Task]) -> tuple[int, int]:
    """Resident bytes and threads of several processes."""
    memory = threads = 0
    for task in tasks:
        memory += task.memory_bytes
        threads += task.threads
    return memory, threads
