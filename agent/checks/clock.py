"""`type: clock`: the host knows what time it is, and its clock does not jump.

hostmend's own instants never step, so a clock that does harms no look and no wait here. It harms
certificates, databases, logs, and whatever compares times with other hosts.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.checks.check import CheckOptions, CheckType, Proposal
from agent.checks.values import Duration
from agent.clock import Clock
from agent.core.model import CheckPolicy, Evidence, Finding, Instant, Seconds, Status
from agent.core.units import format_duration
from agent.errors import Unavailable
from agent.host.command import run_command
from agent.host.machine import Machine
from agent.host.rates import Lasting
from agent.host.timesync import Discipline, find_daemon, read_discipline

CAUSES = {
    "unsynchronised": "Nothing has kept the clock right for too long.",
    "error": "The clock may be wrong by more than the limit.",
    "stepped": "The clock jumped.",
    "drifting": "The hardware's clock is so far off that it can hardly be kept right.",
    "unavailable": "The kernel cannot be asked.",
}

MEASUREMENTS = {
    "error_seconds": "The most that the clock may be wrong, as far as the kernel knows.",
    "offset_seconds": "What the clock is being moved by at the moment.",
    "drift_ppm": "By how much it is made to go faster than the hardware, in millionths.",
    "step_seconds": "The last jump, forward above 0, while it is shown.",
}

SUBJECT = "clock"

#: Two readings of clocks that are further apart say nothing: this program was not running.
_CLOSE: Seconds = 0.02
_ATTEMPTS = 5
#: What a program that tells of the clock is given.
_PATIENCE: Seconds = 3.0


class Limits(BaseModel):
    """When the clock is not right."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unsynced: Duration | None = Field(
        default=None, description="Nothing has kept the clock right for so long."
    )
    error: Duration | None = Field(
        default=None, description="The clock may be wrong by more than this."
    )
    step: Duration | None = Field(
        default=None, description="Between two looks it jumped by more than this."
    )
    drift: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="It goes so many millionths too fast or too slow; 500 can be made up for.",
    )


class ClockOptions(CheckOptions):
    """The host's clock."""

    type: Literal["clock"]
    warning: Limits = Field(default_factory=Limits, description="Limits of `warning`.")
    critical: Limits = Field(default_factory=Limits, description="Limits of `critical`.")
    steps_for: Duration = Field(default=3600.0, description="That it jumped is shown for so long.")


_WARNING = Limits.model_construct(unsynced=1800.0, step=1.0, drift=450.0)


@dataclass(frozen=True, kw_only=True)
class Step:
    """A jump of the clock."""

    seconds: Seconds
    at: Instant


@dataclass(kw_only=True)
class _Notes:
    lasting: Lasting
    #: The wall clock less the instants that never step, and whether it was right, at the last look.
    ahead: Seconds | None = None
    synchronised: bool = False
    step: Step | None = None


async def look(options: ClockOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding, on the clock."""
    if machine.container:
        summary = "the clock is that of the machine around this container"
        return (Finding(subject=SUBJECT, status=Status.OK, summary=summary),)
    try:
        discipline = read_discipline()
    except Unavailable as error:
        return (
            Finding(
                subject=SUBJECT, status=Status.UNKNOWN, cause="unavailable", summary=str(error)
            ),
        )
    notes: _Notes = machine.memory.notes.setdefault("clock", _Notes(lasting=Lasting()))
    now = machine.clock.now()
    watch_steps(options, notes, discipline, machine.clock)
    finding = judge(options, discipline, notes.step, notes.lasting, now)
    if finding.cause == "unsynchronised":
        finding = _name_daemon(finding, await find_daemon(machine.systemd))
    return (finding,)


def watch_steps(options: ClockOptions, notes: _Notes, discipline: Discipline, clock: Clock) -> None:
    """Compares the wall clock with the one that never steps, and remembers a jump."""
    ahead = _read_ahead(clock)
    if ahead is None:
        return
    before, notes.ahead = notes.ahead, ahead
    # The first time that it is set right after a boot, it may well jump.
    first, notes.synchronised = not notes.synchronised, discipline.synchronised
    least = min(_limit(each, options, "step") for each in (Status.WARNING, Status.CRITICAL))
    expected = first and discipline.synchronised
    if before is not None and abs(ahead - before) > least and not expected:
        notes.step = Step(seconds=ahead - before, at=clock.now())


def _read_ahead(clock: Clock) -> Seconds | None:
    for _ in range(_ATTEMPTS):
        earlier = clock.now()
        wall = clock.wall()
        later = clock.now()
        if later - earlier < _CLOSE:
            return wall - (earlier + later) / 2
    return None


def _limit(level: Status, options: ClockOptions, name: str) -> float:
    written = options.critical if level is Status.CRITICAL else options.warning
    value = getattr(written, name)
    if value is None and level is Status.WARNING:
        value = getattr(_WARNING, name)
    return float("inf") if value is None else float(value)


def judge(
    options: ClockOptions,
    discipline: Discipline,
    step: Step | None,
    lasting: Lasting,
    now: Instant,
) -> Finding:
    """The finding on what the kernel says. `lasting`: since when the clock is not kept right."""
    status, cause = Status.OK, ""
    wrong = format_duration(discipline.error)
    summary = f"the clock is kept right, to within {wrong}"
    if not discipline.synchronised:
        summary = "the clock is not kept right, which is usual for a while after a boot"
    if step is not None and now >= step.at + options.steps_for:
        step = None
    drift = abs(discipline.drift_ppm)
    for level in (Status.WARNING, Status.CRITICAL):
        wanted = _limit(level, options, "unsynced")
        unsynced = lasting.see(
            f"{level}:unsynced",
            not discipline.synchronised,
            now=now,
            wanted=wanted,
            every=options.every or CheckPolicy.every,
        )
        found = ""
        if unsynced:
            found = f"nothing has kept the clock right for {format_duration(wanted)}"
            cause = "unsynchronised"
        elif discipline.synchronised and discipline.error > _limit(level, options, "error"):
            found, cause = f"the clock may be wrong by {wrong}", "error"
        elif step is not None and abs(step.seconds) > _limit(level, options, "step"):
            way = "forward" if step.seconds > 0 else "back"
            span = format_duration(abs(step.seconds))
            ago = format_duration(max(0.0, now - step.at))
            found, cause = f"the clock jumped {way} by {span}, {ago} ago", "stepped"
        elif drift > _limit(level, options, "drift"):
            found = f"the hardware's clock is off by {drift:.0f} millionths"
            cause = "drifting"
        if found:
            status, summary = level, found
    measured = {
        "error_seconds": round(discipline.error, 6),
        "offset_seconds": round(discipline.offset, 9),
        "drift_ppm": round(discipline.drift_ppm, 3),
    }
    if step is not None:
        measured["step_seconds"] = round(step.seconds, 3)
    return Finding(
        subject=SUBJECT,
        status=status,
        cause=cause,
        summary=summary,
        measurements=measured,
        since=step.at if step is not None and cause == "stepped" else None,
        resource="clock",
    )


def _name_daemon(finding: Finding, unit: str) -> Finding:
    how = (
        f"{unit} runs: see whether it reaches its servers"
        if unit
        else "nothing that keeps it runs: install chrony or systemd-timesyncd"
    )
    return replace(finding, summary=f"{finding.summary}; {how}")


async def gather(
    _options: ClockOptions, _finding: Finding, machine: Machine
) -> tuple[Evidence, ...]:
    """What chrony or systemd says of their servers, where they are."""
    commands = (
        ("chronyc", ["chronyc", "-n", "tracking"]),
        ("chronyc", ["chronyc", "-n", "sources"]),
        ("timedatectl", ["timedatectl", "--no-pager", "timesync-status"]),
        ("timedatectl", ["timedatectl", "--no-pager", "status"]),
    )
    items = []
    if machine.container:
        return ()
    for program, argv in commands:
        if shutil.which(program) is None:
            continue
        try:
            printed = await run_command(argv, seconds=_PATIENCE)
        except Unavailable:
            continue
        if printed.code == 0 and printed.out.strip():
            items.append(Evidence(title=" ".join(argv), text=printed.out.strip()))
    return tuple(items)


async def propose(machine: Machine) -> tuple[Proposal, ...]:
    """Every host but a container has a clock of its own."""
    if machine.container:
        return ()
    why = "what compares times with other hosts needs a clock that is right"
    return (Proposal(name="clock", options={"type": "clock"}, why=why),)


CLOCK = CheckType(
    name="clock",
    summary="The host knows what time it is, and its clock does not jump.",
    model=ClockOptions,
    look=look,
    identity=(),
    causes=CAUSES,
    measurements=MEASUREMENTS,
    propose=propose,
    gather=gather,
    defaults={"every": "1m", "timeout": "5s"},
)
