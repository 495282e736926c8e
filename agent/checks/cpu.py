"""`type: cpu`: work gets the processor time that it asks for.

A busy processor is no problem: that is what it is for. What makes people wait is work that queues,
and time that the hypervisor gives to others. Everything is an average over many minutes.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.checks.check import CheckOptions, CheckType
from agent.checks.values import Duration, Percent
from agent.core.model import Evidence, Finding, Status
from agent.core.units import format_duration, format_size
from agent.errors import Unavailable
from agent.host.kernel import (
    ProcessorFigures,
    find_pressure,
    read_load,
    read_pressure,
    read_processors,
)
from agent.host.machine import Machine
from agent.host.processes import read_unit
from agent.host.rates import Window

CAUSES = {
    "load": "Much more work wants to run than there are processors.",
    "steal": "The hypervisor gives this host's time to others.",
    "iowait": "Processors are idle because work waits for disks.",
    "busy": "Processors are hardly ever idle.",
    "pressure": "Work waits for a processor for a large part of the time.",
    "unavailable": "The kernel cannot be asked.",
}

MEASUREMENTS = {
    "load_ratio": "Load over 15 minutes, for each processor.",
    "processors_count": "Processors of this host.",
    "busy_percent": "Time in which processors did something, over `over`.",
    "steal_percent": "Time that the hypervisor gave to others, over `over`.",
    "iowait_percent": "Time in which processors were idle and work waited for disks, over `over`.",
    "pressure_percent": "Share of the last five minutes in which some of the work waited.",
}

SUBJECT = "cpu"

#: Seconds over which processes are compared for evidence.
_COMPARED = 1.0
_MOST_SHOWN = 12


class Limits(BaseModel):
    """What must be passed on average."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    load: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Load for each processor, `4.0`."
    )
    steal: Percent | None = Field(default=None, description="Time that the hypervisor takes.")
    iowait: Percent | None = Field(default=None, description="Time spent waiting for disks.")
    busy: Percent | None = Field(default=None, description="Time in which processors work.")
    pressure: Percent | None = Field(
        default=None, description="Share of five minutes in which some of the work waits."
    )


class CpuOptions(CheckOptions):
    """The processors of this host."""

    type: Literal["cpu"]
    warning: Limits = Field(default_factory=Limits, description="Limits of `warning`.")
    critical: Limits = Field(default_factory=Limits, description="Limits of `critical`.")
    over: Duration = Field(
        default=900.0, description="Time over which `busy`, `steal` and `iowait` are averaged."
    )


#: Limits of those who write none. Few hosts have four times as much to do as they can for a quarter
#: of an hour, and none should lose a quarter of its time to others.
_WARNING = Limits.model_construct(load=4.0, steal=25.0)


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Processor time over a window, in percent."""

    busy: float
    steal: float
    iowait: float


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one look saw of the processors."""

    #: Over 15 minutes, of all processors together.
    load: float
    processors: int
    #: None until the whole window was seen.
    shares: Shares | None = None
    pressure: float | None = None
    why_no_pressure: str = ""


@dataclass(kw_only=True)
class _Windows:
    total: Window
    idle: Window
    steal: Window
    iowait: Window

    def add(self, now: float, figures: ProcessorFigures) -> Shares | None:
        for name in ("total", "idle", "steal", "iowait"):
            getattr(self, name).add(now, getattr(figures, name))
        whole = self.total.rate
        idle, steal, iowait = self.idle.rate, self.steal.rate, self.iowait.rate
        if not whole or idle is None or steal is None or iowait is None:
            return None
        return Shares(
            busy=100 * max(0.0, whole - idle - iowait - steal) / whole,
            steal=100 * steal / whole,
            iowait=100 * iowait / whole,
        )


async def look(options: CpuOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding, on all processors together."""
    try:
        figures, load = read_processors(), read_load()[2]
    except Unavailable as error:
        return (
            Finding(
                subject=SUBJECT,
                status=Status.UNKNOWN,
                cause="unavailable",
                summary=str(error),
            ),
        )
    notes = machine.memory.notes
    windows: _Windows | None = notes.get("cpu.windows")
    if windows is None or windows.total.length != options.over:
        windows = notes["cpu.windows"] = _Windows(
            total=Window(options.over),
            idle=Window(options.over),
            steal=Window(options.over),
            iowait=Window(options.over),
        )
    shares = windows.add(machine.clock.now(), figures)
    pressure, why = None, ""
    try:
        pressure = read_pressure(find_pressure("cpu", container=machine.container)).some300
    except Unavailable as error:
        why = str(error)
    seen = Seen(
        load=load,
        processors=os.cpu_count() or 1,
        shares=shares,
        pressure=pressure,
        why_no_pressure=why,
    )
    return (judge(options, seen),)


def judge(options: CpuOptions, seen: Seen) -> Finding:
    """The finding on what was seen."""
    each = seen.load / seen.processors
    status, cause = Status.OK, ""
    summary = f"the load is {each:.2f} for each of {seen.processors} processors"
    levels = ((Status.CRITICAL, options.critical), (Status.WARNING, _fill(options.warning)))
    for level, limits in levels:
        if over := _find_excess(options, limits, seen):
            status, (cause, summary) = level, over
            break
    measured = {"load_ratio": round(each, 2), "processors_count": float(seen.processors)}
    if seen.shares is not None:
        measured["busy_percent"] = round(seen.shares.busy, 1)
        measured["steal_percent"] = round(seen.shares.steal, 1)
        measured["iowait_percent"] = round(seen.shares.iowait, 1)
    if seen.pressure is not None:
        measured["pressure_percent"] = seen.pressure
    return Finding(
        subject=SUBJECT,
        status=status,
        cause=cause,
        summary=summary,
        measurements=measured,
        facts={"Pressure": seen.why_no_pressure} if seen.why_no_pressure else {},
        resource="cpu",
    )


def _fill(written: Limits) -> Limits:
    """The limits of `warning` in effect: each has its own default."""
    return Limits.model_construct(
        load=written.load if written.load is not None else _WARNING.load,
        steal=written.steal if written.steal is not None else _WARNING.steal,
        iowait=written.iowait,
        busy=written.busy,
        pressure=written.pressure,
    )


def _find_excess(options: CpuOptions, limits: Limits, seen: Seen) -> tuple[str, str] | None:
    """The first limit that is passed, and what to say of it."""
    each, shares, span = seen.load / seen.processors, seen.shares, format_duration(options.over)
    if limits.load is not None and each > limits.load:
        return "load", (
            f"for 15 minutes {seen.load:.1f} processes wanted to run at once, "
            f"and there are {seen.processors} processors"
        )
    if shares is not None:
        if limits.steal is not None and shares.steal > limits.steal:
            return "steal", f"over {span} the hypervisor took {shares.steal:.0f} % of the time"
        if limits.iowait is not None and shares.iowait > limits.iowait:
            return "iowait", f"over {span} work waited for disks in {shares.iowait:.0f} % of it"
        if limits.busy is not None and shares.busy > limits.busy:
            return "busy", f"over {span} processors worked in {shares.busy:.0f} % of it"
    pressure = seen.pressure
    if limits.pressure is not None and pressure is not None and pressure > limits.pressure:
        return "pressure", f"for 5 minutes work waited for a processor in {pressure:.0f} % of it"
    return None


async def gather(_options: CpuOptions, _finding: Finding, machine: Machine) -> tuple[Evidence, ...]:
    """What uses the processors now, measured over a second, and what waits for a disk."""
    first = await machine.census.table()
    before = {task.identity: task.busy_seconds for task in first.tasks.values()}
    await asyncio.sleep(_COMPARED)
    machine.census.forget()
    second = await machine.census.table()
    span = max(second.began - first.began, 0.001)
    rows = [
        (100 * (task.busy_seconds - before.get(task.identity, task.busy_seconds)) / span, task)
        for task in second.tasks.values()
    ]
    rows.sort(key=lambda row: (-row[0], row[1].pid))
    lines = []
    for percent, task in rows[:_MOST_SHOWN]:
        unit = read_unit(task.pid)
        lines.append(
            f"{percent:>5.0f} %  {format_size(task.memory_bytes):>8}  {task.name} {task.pid}"
            f"{f' ({unit})' if unit else ''}"
        )
    waiting = [f"{task.name} {task.pid}" for _, task in rows if task.state == "D"]
    items = [Evidence(title="Processes that use most of the processors", text="\n".join(lines))]
    if waiting:
        text = "\n".join(waiting[:_MOST_SHOWN])
        items.append(Evidence(title="Processes that wait for a disk", text=text))
    return tuple(items)


CPU = CheckType(
    name="cpu",
    summary="Work gets the processor time that it asks for.",
    model=CpuOptions,
    look=look,
    identity=(),
    causes=CAUSES,
    measurements=MEASUREMENTS,
    gather=gather,
    defaults={"every": "30s", "timeout": "5s"},
)
