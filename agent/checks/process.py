"""`type: process`: processes run, in the right number, and do not eat up what there is.

For what systemd runs, `service` knows more: a process is only a sign of a service. This type is for
what has no unit, and for what processes use.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent.checks.check import CheckOptions, CheckType, Proposal, Watch
from agent.checks.values import CorePercent, Duration, Percent, Size
from agent.core.model import Evidence, Finding, Instant, Status
from agent.core.units import format_duration, format_size
from agent.host.census import (
    Identity,
    Table,
    Task,
    count_descriptors,
    read_user,
    sum_up,
)
from agent.host.machine import Machine
from agent.host.processes import read_unit
from agent.host.rates import Window
from agent.host.space import Hung

CAUSES = {
    "missing": "No such process runs.",
    "too-few": "Fewer run than `at_least`.",
    "too-many": "More run than `at_most`.",
    "cpu": "Together they use more of the processor than the limit, on average over `over`.",
    "memory": "Together they hold more memory than the limit.",
    "descriptors": "One of them has nearly as many files open as it may.",
    "old": "One of them has run for longer than the limit.",
    "zombies": "Too many have ended and are not taken note of by their parent.",
    "hung": "The table of processes cannot be read in time.",
    "unavailable": "Processes cannot be seen.",
}

MEASUREMENTS = {
    "processes_count": "How many run.",
    "zombies_count": "How many have ended and are not taken note of.",
    "threads_count": "Threads of all of them.",
    "cpu_percent": "Processor time of all of them over `over`, in percent of one core.",
    "memory_bytes": "Resident memory of all of them; what they share counts for each.",
    "descriptors_percent": "Open files of the one that is nearest to its limit.",
    "oldest_seconds": "For how long the oldest has run.",
}

#: Processes of which open files are counted, and those that evidence shows.
_MOST_COUNTED = 32
_MOST_SHOWN = 20
#: Seconds for which a user's number is believed, and in which it must be found.
_USER_FOR = 300.0
_USER_PATIENCE = 2.0


class Limits(BaseModel):
    """What the processes together may use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpu: CorePercent | None = Field(
        default=None, description="Processor time on average over `over`, `150%`: of one core."
    )
    memory: Size | None = Field(default=None, description="Resident memory of all of them.")
    descriptors: Percent | None = Field(
        default=None, description="Open files of one of them, as a share of what it may have."
    )
    older_than: Duration | None = Field(
        default=None, description="One of them has run for longer than this."
    )
    zombies: int | None = Field(
        default=None, ge=1, description="So many have ended and are not taken note of."
    )


class ProcessOptions(CheckOptions):
    """Processes, chosen by all of `name`, `command` and `user` that are written."""

    type: Literal["process"]
    name: str | None = Field(
        default=None,
        min_length=1,
        description="The process's name, as `ps -o comm` shows it; `*` and `?` as in a shell.",
    )
    command: str | None = Field(
        default=None,
        min_length=1,
        description="The whole command line, with `*` and `?` as in a shell: `*celery*worker*`.",
    )
    user: str | None = Field(
        default=None, min_length=1, description="Whose processes: a user's name or number."
    )
    at_least: int = Field(default=1, ge=0, description="So many must run.")
    at_most: int | None = Field(default=None, ge=0, description="No more may run.")
    over: Duration = Field(default=300.0, description="Time over which `cpu` is averaged.")
    warning: Limits = Field(default_factory=Limits, description="Limits of `warning`.")
    critical: Limits = Field(default_factory=Limits, description="Limits of `critical`.")

    @model_validator(mode="after")
    def _check_choice(self) -> ProcessOptions:
        if self.name is None and self.command is None and self.user is None:
            raise ValueError("needs at least one of `name`, `command` and `user`")
        if self.at_most is not None and self.at_most < self.at_least:
            raise ValueError("`at_most` must not be less than `at_least`")
        return self

    @property
    def label(self) -> str:
        """What people call them."""
        words = self.command or self.name or ""
        return f"{words} of {self.user}".strip() if self.user else words


#: Descriptors are watched by default: a process that has none left fails in strange ways.
_WARNING = Limits.model_construct(descriptors=90.0)


@dataclass(kw_only=True)
class _Usage:
    """Processor time of a changing set of processes, as one counter that only grows."""

    window: Window
    total: float = 0.0
    seen: dict[Identity, float] = field(default_factory=dict)
    #: CLOCK_BOOTTIME in seconds of the last look.
    looked: float | None = None

    def add(self, tasks: Sequence[Task], now: Instant, booted: float) -> None:
        for task in tasks:
            before = self.seen.get(task.identity)
            if before is None and self.looked is not None and task.started_seconds > self.looked:
                before = 0.0
            if before is not None:
                self.total += max(0.0, task.busy_seconds - before)
        self.seen = {task.identity: task.busy_seconds for task in tasks}
        self.looked = booted
        self.window.add(now, self.total)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one look saw of the chosen processes."""

    tasks: tuple[Task, ...]
    zombies: int = 0
    cpu_percent: float | None = None
    #: Share of its descriptors that a process has open, for the one that is nearest to its limit.
    descriptors: tuple[Task, float] | None = None
    #: Instant of the start of the oldest.
    oldest: Instant | None = None


async def look(options: ProcessOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding, on all chosen processes together."""
    try:
        table = await machine.census.table(commands=options.command is not None)
        user = await _find_user(options, machine)
    except Hung as error:
        return (_unclear(options, "hung", str(error)),)
    except (OSError, LookupError) as error:
        return (_unclear(options, "unavailable", f"cannot look at processes: {error}"),)
    if 1 not in table.tasks:
        why = "this user may not see the processes of others (/proc is mounted with hidepid)"
        return (_unclear(options, "unavailable", f"cannot look at processes: {why}"),)
    chosen = choose(options, table, user)
    tasks = tuple(task for task in chosen if not task.zombie)
    machine.deaths.follow(_key(options), (task.identity for task in tasks))
    now = machine.clock.now()
    starts = [machine.clock.at_boottime(task.started_seconds) for task in tasks]
    seen = Seen(
        tasks=tasks,
        zombies=len(chosen) - len(tasks),
        cpu_percent=_measure_cpu(options, machine, tasks, now),
        descriptors=_find_fullest(tasks),
        oldest=min(starts, default=None),
    )
    return (judge(options, seen, now),)


def choose(options: ProcessOptions, table: Table, user: int | None = None) -> list[Task]:
    """The processes that are meant, zombies included. `user`: the number of `options.user`."""
    tasks = table.find(options.name) if options.name else list(table.tasks.values())
    if options.command is not None:
        matches = re.compile(fnmatch.translate(options.command), re.DOTALL).match
        commands = table.commands or {}
        tasks = [task for task in tasks if matches(commands.get(task.pid, ""))]
    if user is not None:
        tasks = [task for task in tasks if read_user(task) == user]
    return tasks


async def _find_user(options: ProcessOptions, machine: Machine) -> int | None:
    """The user's number; None where none is meant. Raises LookupError where there is none."""
    name = options.user
    if name is None or name.isdecimal():
        return None if name is None else int(name)
    notes, now = machine.memory.notes, machine.clock.now()
    known: tuple[str, int, Instant] | None = notes.get("process.user")
    if known is None or known[0] != name or not known[2] <= now < known[2] + _USER_FOR:
        # Users may be kept on another machine.
        number = await machine.space.patience.call(
            f"the user {name}", _USER_PATIENCE, lambda: _read_user_number(name)
        )
        known = notes["process.user"] = (name, number, now)
    return known[1]


def _read_user_number(name: str) -> int:
    import pwd

    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise LookupError(f"there is no user {name}") from None


def _measure_cpu(
    options: ProcessOptions, machine: Machine, tasks: Sequence[Task], now: Instant
) -> float | None:
    notes = machine.memory.notes
    usage: _Usage | None = notes.get("process.cpu")
    if usage is None or usage.window.length != options.over:
        usage = notes["process.cpu"] = _Usage(window=Window(options.over))
    usage.add(tasks, now, now - machine.clock.at_boottime(0.0))
    rate = usage.window.rate
    return None if rate is None else 100.0 * rate


def _find_fullest(tasks: Sequence[Task]) -> tuple[Task, float] | None:
    found: tuple[Task, float] | None = None
    for task in tasks[:_MOST_COUNTED]:
        counted = None if task.kernel else count_descriptors(task)
        if counted is not None and counted[1]:
            share = 100.0 * counted[0] / counted[1]
            if found is None or share > found[1]:
                found = (task, share)
    return found


def judge(options: ProcessOptions, seen: Seen, now: Instant) -> Finding:
    """The finding on what was seen."""
    status, cause, summary = _judge_number(options, len(seen.tasks))
    if status is Status.OK:
        for level, limits in (
            (Status.CRITICAL, options.critical),
            (Status.WARNING, options.warning),
        ):
            if over := _find_excess(options, limits, level, seen, now):
                status, (cause, summary) = level, over
                break
    memory, threads = sum_up(seen.tasks)
    measurements = {
        "processes_count": float(len(seen.tasks)),
        "zombies_count": float(seen.zombies),
        "threads_count": float(threads),
        "memory_bytes": float(memory),
    }
    facts = {}
    if seen.tasks:
        pids = ", ".join(str(task.pid) for task in seen.tasks[:8])
        facts["Processes"] = pids + (", ..." if len(seen.tasks) > 8 else "")
    if seen.cpu_percent is not None:
        measurements["cpu_percent"] = round(seen.cpu_percent, 1)
    if seen.descriptors is not None:
        measurements["descriptors_percent"] = round(seen.descriptors[1], 1)
    if seen.oldest is not None:
        measurements["oldest_seconds"] = round(max(0.0, now - seen.oldest))
    return Finding(
        subject=options.label,
        status=status,
        cause=cause,
        summary=summary,
        measurements=measurements,
        facts=facts,
        resource=f"process:{options.label}",
    )


def _judge_number(options: ProcessOptions, count: int) -> tuple[Status, str, str]:
    label, least, most = options.label, options.at_least, options.at_most
    run = f"{count} process{'' if count == 1 else 'es'} {label} run{'s' if count == 1 else ''}"
    if count < least:
        if not count:
            return Status.CRITICAL, "missing", f"no process {label} runs"
        return Status.CRITICAL, "too-few", f"{run}, and {least} should"
    if most is not None and count > most:
        return Status.CRITICAL, "too-many", f"{run}, and no more than {most} should"
    return Status.OK, "", run


def _find_excess(
    options: ProcessOptions, limits: Limits, level: Status, seen: Seen, now: Instant
) -> tuple[str, str] | None:
    """The first limit that is passed, and what to say of it."""
    label = options.label
    memory, _ = sum_up(seen.tasks)
    descriptors = limits.descriptors
    if level is Status.WARNING and descriptors is None:
        descriptors = _WARNING.descriptors
    if limits.memory is not None and memory > limits.memory:
        return "memory", f"{label} holds {format_size(memory)} of memory"
    fullest = seen.descriptors
    if descriptors is not None and fullest is not None and fullest[1] >= descriptors:
        task, share = fullest
        said = f"process {task.pid} ({task.name}) has {share:.0f} % of its files open"
        return "descriptors", f"{label}: {said}; it can open no more than its limit"
    if limits.cpu is not None and seen.cpu_percent is not None and seen.cpu_percent > limits.cpu:
        window = format_duration(options.over)
        return "cpu", f"{label} used {seen.cpu_percent:.0f} % of a core over {window}"
    if limits.zombies is not None and seen.zombies >= limits.zombies:
        return "zombies", f"{seen.zombies} processes {label} have ended, and nobody takes note"
    age = 0.0 if seen.oldest is None else now - seen.oldest
    if limits.older_than is not None and age > limits.older_than:
        return "old", f"{label} has run for {format_duration(age)}"
    return None


def _unclear(options: ProcessOptions, cause: str, why: str) -> Finding:
    return Finding(
        subject=options.label,
        status=Status.UNKNOWN,
        cause=cause,
        summary=why,
        resource=f"process:{options.label}",
    )


async def gather(
    options: ProcessOptions, _finding: Finding, machine: Machine
) -> tuple[Evidence, ...]:
    """The processes, one a line. Arguments are left out: people write passwords into them."""
    table = await machine.census.table(commands=options.command is not None)
    try:
        chosen = choose(options, table, await _find_user(options, machine))
    except LookupError:
        chosen = []
    chosen.sort(key=lambda task: -task.pages)
    now = machine.clock.now()
    lines = [f"{'PID':>7}  {'STATE':5}  {'MEMORY':>8}  {'CPU':>9}  {'AGE':>10}  NAME"]
    for task in chosen[:_MOST_SHOWN]:
        age = now - machine.clock.at_boottime(task.started_seconds)
        unit = read_unit(task.pid)
        lines.append(
            f"{task.pid:>7}  {task.state:5}  {format_size(task.memory_bytes):>8}  "
            f"{format_duration(task.busy_seconds):>9}  {format_duration(max(0.0, age)):>10}  "
            f"{task.name}{f' ({unit})' if unit else ''}"
        )
    if len(chosen) > _MOST_SHOWN:
        lines.append(f"(and {len(chosen) - _MOST_SHOWN} more)")
    return (Evidence(title=f"Processes {options.label}", text="\n".join(lines)),)


async def propose(machine: Machine) -> tuple[Proposal, ...]:
    """What listens on a TCP port and belongs to no service of systemd."""
    try:
        found = await machine.space.patience.call("the listening processes", 10.0, _find_listening)
    except (OSError, Hung):
        return ()
    return tuple(
        Proposal(
            name=f"process-{re.sub('[^a-z0-9_.-]', '-', name.lower())}",
            options={"type": "process", "name": name},
            why=f"{name} (process {pid}) listens on port {port}, and no service runs it",
        )
        for name, (pid, port) in sorted(found.items())
    )


def _find_listening() -> dict[str, tuple[int, int]]:
    """Name of a process -> its number and port."""
    import psutil

    found: dict[str, tuple[int, int]] = {}
    own = {os.getpid(), os.getppid()}
    for each in psutil.net_connections(kind="tcp"):
        if each.status != psutil.CONN_LISTEN or not each.pid or not each.laddr:
            continue
        if each.pid in own:
            continue
        if read_unit(each.pid).endswith(".service"):
            continue
        with_name = _read_name(each.pid)
        # A forwarding that somebody's login session holds open is no service.
        if with_name and not with_name.startswith("sshd"):
            found.setdefault(with_name, (each.pid, each.laddr.port))
    return found


def _read_name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return ""


def _key(options: ProcessOptions) -> str:
    """What looks follow the processes under: the same for checks that mean the same."""
    chosen: Any = (options.name, options.command, options.user)
    return repr(chosen)


PROCESS = CheckType(
    name="process",
    summary="Processes run, in the right number, and use no more than they should.",
    model=ProcessOptions,
    look=look,
    identity=("name", "command", "user"),
    causes=CAUSES,
    measurements=MEASUREMENTS,
    propose=propose,
    gather=gather,
    watches=lambda options: frozenset({Watch(trigger="pidfd", what=_key(options))}),
    defaults={"timeout": "5s"},
)
