"""`type: memory`: programs get the memory that they ask for, and none was killed for want of it.

A peak is no problem: limits must be passed for a while. That the kernel killed a process is a fact
that stays true, so it is shown for a while after it happened.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.checks.check import CheckOptions, CheckType, Proposal, Watch
from agent.checks.values import Amount, Duration, Percent, Size, parse_amount
from agent.core.model import CheckPolicy, Evidence, Finding, Instant, Status
from agent.core.units import format_duration, format_size
from agent.errors import Unavailable
from agent.host.journal import boot_id
from agent.host.kernel import (
    MemoryFigures,
    Pressure,
    count_kills,
    find_pressure,
    read_memory,
    read_pressure,
)
from agent.host.kills import Victim, read_victims
from agent.host.machine import Machine
from agent.host.processes import read_unit
from agent.host.rates import Lasting, Window
from agent.host.space import Hung

CAUSES = {
    "low": "Little memory is left for programs.",
    "pressure": "Work waits for memory for a large part of the time.",
    "swapping": "Much is read back from swap all the time.",
    "oom-killed": "The kernel killed a process, since the host had no memory left.",
    "oom-limit": "The kernel killed a process, since its control group reached its own limit.",
    "unavailable": "The kernel cannot be asked.",
}

MEASUREMENTS = {
    "available_bytes": "What programs can still take without swapping.",
    "available_percent": "The same as a share of all memory.",
    "size_bytes": "All memory of this host, or what this container may take.",
    "swap_used_percent": "Share of swap that is used.",
    "swapped_in_bytes_per_second": "Read back from swap, over `lasting`.",
    "pressure_percent": "Share of the last minute in which some of the work waited for memory.",
    "kills_count": "Processes killed for want of memory since boot.",
}

#: The subjects of the two findings.
SUBJECT, KILLS = "memory", "out-of-memory kills"

#: Where `available` is not written: a share, and a size that is enough however large the host is.
_AVAILABLE = {Status.WARNING: (0.10, 2**30), Status.CRITICAL: (0.04, 2**28)}
_PRESSURE = {Status.WARNING: 25.0, Status.CRITICAL: 60.0}
#: Where pressure is not measured, swapping stands for it: bytes per second.
_SWAPPING = {Status.WARNING: 10 * 2**20, Status.CRITICAL: None}

#: Victims that are remembered, and processes that evidence shows.
_MOST_VICTIMS = 10
_MOST_SHOWN = 12


class Limits(BaseModel):
    """What must be passed for as long as `lasting` says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    available: Amount | None = Field(
        default=None, description="Less than this is left for programs: `10%` or `500M`."
    )
    pressure: Percent | None = Field(
        default=None, description="Share of a minute in which some of the work waits for memory."
    )
    swapping: Size | None = Field(
        default=None, description="Read back from swap in a second, on average over `lasting`."
    )


class MemoryOptions(CheckOptions):
    """The memory of this host."""

    type: Literal["memory"]
    warning: Limits = Field(default_factory=Limits, description="Limits of `warning`.")
    critical: Limits = Field(default_factory=Limits, description="Limits of `critical`.")
    lasting: Duration = Field(
        default=120.0, description="A limit must be passed for so long without a break."
    )
    kills_for: Duration = Field(
        default=1800.0, description="That a process was killed is shown for so long."
    )


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one look saw of memory."""

    figures: MemoryFigures
    #: None, and why, where the kernel does not measure it.
    pressure: Pressure | None = None
    why_no_pressure: str = ""
    #: Bytes per second; None until a whole `lasting` was seen.
    swapping: float | None = None


@dataclass(frozen=True, kw_only=True)
class Kills:
    """Kills since the first look, as they are remembered."""

    boot: str
    #: The kernel's count when they were last found out.
    count: int
    #: When the last one was found out; None: none since the first look of this boot.
    at: Instant | None = None
    victims: tuple[Victim, ...] = ()
    #: How many of the last ones the kernel's log names.
    unnamed: int = 0


async def look(options: MemoryOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding on memory, and one on processes that were killed."""
    try:
        seen = _see(options, machine)
    except Unavailable as error:
        found = _unavailable(str(error))
    else:
        notes = machine.memory.notes
        lasting: Lasting = notes.setdefault("memory.lasting", Lasting())
        found = judge(options, seen, lasting, machine.clock.now())
    return (found, await _look_for_kills(options, machine))


def _see(options: MemoryOptions, machine: Machine) -> Seen:
    figures = read_memory(container=machine.container)
    pressure, why = None, ""
    try:
        pressure = read_pressure(find_pressure("memory", container=machine.container))
    except Unavailable as error:
        why = str(error)
    notes = machine.memory.notes
    window: Window | None = notes.get("memory.swapped")
    if window is None or window.length != options.lasting:
        window = notes["memory.swapped"] = Window(options.lasting)
    window.add(machine.clock.now(), figures.swapped_in)
    return Seen(figures=figures, pressure=pressure, why_no_pressure=why, swapping=window.rate)


def judge(options: MemoryOptions, seen: Seen, lasting: Lasting, now: Instant) -> Finding:
    """The finding on memory. `lasting`: since when each limit is passed."""
    figures = seen.figures
    share = 100 * figures.available / figures.total if figures.total else 0.0
    left = (
        f"{format_size(figures.available)} of {format_size(figures.total)} memory are left "
        f"for programs ({share:.0f} %)"
    )
    status, cause, summary = Status.OK, "", left
    for level, limits in ((Status.WARNING, options.warning), (Status.CRITICAL, options.critical)):
        # Each is asked for, so that each counts its own time. The first that lasts is told.
        lasted = [
            (each, words)
            for each, words in _find_passed(limits, level, seen).items()
            if lasting.see(
                f"{level}:{each}",
                bool(words),
                now=now,
                # That is an average over this time already.
                wanted=0.0 if each == "swapping" else options.lasting,
                every=options.every or CheckPolicy.every,
            )
        ]
        if lasted:
            status, (cause, words) = level, lasted[0]
            summary = f"{words}, for {format_duration(options.lasting)} at least"
    facts = {}
    if seen.pressure is None:
        facts["Pressure"] = seen.why_no_pressure
    if figures.limited:
        facts["Limit"] = "that of this container"
    return Finding(
        subject=SUBJECT,
        status=status,
        cause=cause,
        summary=summary,
        measurements=_measurements(seen, share),
        facts=facts,
        resource="memory",
    )


def _find_passed(limits: Limits, level: Status, seen: Seen) -> dict[str, str]:
    """Each cause, with what to say where its limit is passed; empty where it is not."""
    figures, pressure = seen.figures, seen.pressure
    part, most = _AVAILABLE[level]
    least = (
        min(part * figures.total, most)
        if limits.available is None
        else parse_amount(limits.available, figures.total)
    )
    low = figures.available < least
    left = f"only {format_size(figures.available)} of {format_size(figures.total)} memory"
    waiting = limits.pressure if limits.pressure is not None else _PRESSURE[level]
    waits = pressure.some60 if pressure is not None and pressure.some60 >= waiting else 0.0
    usual = _SWAPPING[level] if pressure is None else None
    rate = limits.swapping if limits.swapping is not None else usual
    swaps = seen.swapping or 0.0
    swaps = swaps if rate is not None and swaps > rate else 0.0
    return {
        "low": f"{left} are left for programs" if low else "",
        "pressure": f"work waits for memory in {waits:.0f} % of the time" if waits else "",
        "swapping": f"{format_size(swaps)} a second are read back from swap" if swaps else "",
    }


def _measurements(seen: Seen, share: float) -> dict[str, float]:
    figures = seen.figures
    found = {
        "available_bytes": float(figures.available),
        "available_percent": round(share, 1),
        "size_bytes": float(figures.total),
    }
    if figures.swap_total:
        used = figures.swap_total - figures.swap_free
        found["swap_used_percent"] = round(100 * used / figures.swap_total, 1)
    if seen.swapping is not None:
        found["swapped_in_bytes_per_second"] = round(seen.swapping, 1)
    if seen.pressure is not None:
        found["pressure_percent"] = seen.pressure.some60
    return found


# Processes that were killed


async def _look_for_kills(options: MemoryOptions, machine: Machine) -> Finding:
    count = count_kills(container=machine.container)
    if count is None:
        why = (
            "this kernel does not count kills, or only for the machine around this container"
            if machine.container
            else "this kernel does not count kills: they can be seen since Linux 4.13"
        )
        return Finding(subject=KILLS, status=Status.OK, summary=f"not watched: {why}")
    known = _recall(machine)
    if known is None or known.boot != boot_id() or count < known.count:
        known = Kills(boot=boot_id(), count=count)
    elif count > known.count:
        known = await _find_out(known, count, machine)
    machine.memory.put("memory.kills", asdict(known))
    return judge_kills(options, known, machine.clock.now())


async def _find_out(known: Kills, count: int, machine: Machine) -> Kills:
    more = count - known.count
    named: list[Victim] = []
    if not machine.container:
        try:
            named = await read_victims(min(more, _MOST_VICTIMS))
        except Unavailable:
            named = []
    return Kills(
        boot=known.boot,
        count=count,
        at=machine.clock.now(),
        victims=(*known.victims, *named)[-_MOST_VICTIMS:],
        unnamed=max(0, more - len(named)),
    )


def _recall(machine: Machine) -> Kills | None:
    kept: Any = machine.memory.get("memory.kills")
    try:
        victims = tuple(Victim(**victim) for victim in kept["victims"])
        return Kills(**{**kept, "victims": victims})
    except (TypeError, KeyError):
        return None


def judge_kills(options: MemoryOptions, known: Kills, now: Instant) -> Finding:
    """The finding on processes that were killed."""
    measured = {"kills_count": float(known.count)}
    if known.at is None or now >= known.at + options.kills_for:
        before = f", {known.count} since boot" if known.count else ""
        return Finding(
            subject=KILLS,
            status=Status.OK,
            summary=f"no process was killed for want of memory lately{before}",
            measurements=measured,
        )
    victims = known.victims
    who = ", ".join(str(victim) for victim in victims[-3:]) or "a process that nothing names"
    if len(victims) > 3 or (victims and known.unnamed):
        who = f"{who} and others"
    limited = bool(victims) and not known.unnamed and all(each.limited for each in victims)
    if limited:
        status, cause = Status.WARNING, "oom-limit"
        summary = f"the kernel killed {who}: its control group may take no more memory"
    else:
        status, cause = Status.CRITICAL, "oom-killed"
        summary = f"the kernel killed {who}: there was no memory left"
    return Finding(
        subject=KILLS,
        status=status,
        cause=cause,
        summary=summary,
        measurements=measured,
        facts={"Killed": "; ".join(str(victim) for victim in victims)} if victims else {},
        since=known.at,
    )


def _unavailable(why: str) -> Finding:
    return Finding(subject=SUBJECT, status=Status.UNKNOWN, cause="unavailable", summary=why)


async def gather(
    _options: MemoryOptions, finding: Finding, machine: Machine
) -> tuple[Evidence, ...]:
    """Who holds most memory now, and whom the kernel killed."""
    items = []
    try:
        table = await machine.census.table()
        largest = sorted(table.tasks.values(), key=lambda task: -task.pages)[:_MOST_SHOWN]
        lines = []
        for task in largest:
            unit = read_unit(task.pid)
            of = f" ({unit})" if unit else ""
            lines.append(f"{format_size(task.memory_bytes):>8}  {task.name} {task.pid}{of}")
        items.append(Evidence(title="Processes that hold most memory", text="\n".join(lines)))
    except (OSError, Hung) as error:
        items.append(Evidence(title="Processes that hold most memory", text=str(error)))
    if finding.subject == KILLS and (known := _recall(machine)) is not None and known.victims:
        lines = [f"{format_size(each.memory):>8}  {each}" for each in known.victims]
        items.append(Evidence(title="Killed by the kernel", text="\n".join(lines)))
    return tuple(items)


async def propose(_machine: Machine) -> tuple[Proposal, ...]:
    """Every host has memory."""
    why = "every host runs short of memory one day"
    return (Proposal(name="memory", options={"type": "memory"}, why=why),)


MEMORY = CheckType(
    name="memory",
    summary="Programs get the memory that they ask for, and none was killed for want of it.",
    model=MemoryOptions,
    look=look,
    identity=(),
    causes=CAUSES,
    measurements=MEASUREMENTS,
    propose=propose,
    gather=gather,
    watches=lambda _options: frozenset({Watch(trigger="psi", what="memory")}),
    defaults={"timeout": "5s"},
)
