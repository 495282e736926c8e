"""`type: service`: a systemd unit does what it is there for, or somebody wanted it down.

What is read is systemd's own state, a fact and no sample: one look is enough to believe it.
A unit that is up may still serve nobody; that is for checks of what it serves (`http`, `tcp`).
"""

from __future__ import annotations

import fnmatch
import re
import shutil
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from agent.checks.check import CheckOptions, CheckType, Proposal, StepOptions, Watch
from agent.checks.failed_units import look_for_failed
from agent.checks.unit_state import describe_state, judge, make_unavailable, needs_reason
from agent.checks.unit_success import see_success
from agent.checks.unit_wear import KILLS, Limits, is_worn, see_wear
from agent.checks.values import Duration
from agent.core.model import Evidence, Finding, Status
from agent.errors import Unavailable
from agent.host.exhaustion import find_shortage, last_words
from agent.host.intention import find_stop
from agent.host.journal import read_log
from agent.host.kernel import count_group_kills
from agent.host.machine import Machine
from agent.host.memory import Memory
from agent.host.protected import why_never
from agent.host.shortage import Shortage, find_unusable
from agent.host.systemd import Systemd
from agent.host.units import UnitState, check_unit_or_pattern, is_pattern

CAUSES = {
    "failed": "It ended badly, or could not be started; systemd has given up on it.",
    "stopped": "It is down, and nobody is known to have wanted that.",
    "conflict": "systemd stopped it, because a unit that cannot run beside it was started.",
    "missing": "There is no unit file of this name.",
    "unloadable": "Its unit file cannot be used as it is.",
    "skipped": "A condition in its unit file kept it from starting.",
    "starting": "systemd is starting it.",
    "restarting": "systemd is restarting it by itself, as its Restart= says.",
    "restarting-often": "It is up, but systemd restarted it again and again.",
    "memory": "It is up, and has nearly all the memory that it may have.",
    "tasks": "It is up, and has nearly all the processes and threads that it may have.",
    "oom-killed": "It is up, but the kernel killed a process of it for want of memory.",
    "overdue": "It has not succeeded for too long.",
    "stopping": "systemd is stopping it.",
    "reloading": "It is reading its configuration again.",
    "unclear": "It is down, and neither D-Bus nor the journal tells who wanted that.",
    "unavailable": "systemd cannot be asked.",
}

MEASUREMENTS = {
    "memory_bytes": "Memory of all its processes.",
    "memory_limit_bytes": "Its `MemoryMax=`.",
    "tasks_count": "Its processes and threads.",
    "tasks_limit_count": "Its `TasksMax=`.",
    "restarts_count": "Restarts by systemd itself since it was last started by a job.",
    "oom_kills_count": "Processes of it that were killed for want of memory.",
    "success_age_seconds": "Time since it last succeeded; before that, since it is watched.",
}

#: What a restart must be preceded by, where the program that tells is there: never turn a service
#: that is up with an old configuration into one that is down with a new one.
VALIDATIONS = {
    "apache2.service": ("apache2ctl", "configtest"),
    "haproxy.service": ("haproxy", "-c", "-q", "-f", "/etc/haproxy/haproxy.cfg"),
    "httpd.service": ("httpd", "-t"),
    "named.service": ("named-checkconf",),
    "nginx.service": ("nginx", "-t"),
    "postfix.service": ("postfix", "check"),
    "postfix@-.service": ("postfix", "check"),
    "squid.service": ("squid", "-k", "parse"),
}
#: Enabled and running, and yet there for one login or one console.
#: Units that a restart alone does not mend.
_OWN_REMEDIES = {"logrotate.service": "repair-logrotate", "logrotate.timer": "repair-logrotate"}
#: Rotates the logs where this timer runs. Hosts are switched off, and miss one day of it.
_ROTATION_TIMER = "logrotate.timer"
_ROTATION = Proposal(
    name="logrotate",
    options={"type": "service", "unit": "logrotate.service", "succeeded_within": "2d"},
    why="logrotate.timer runs, and logs that nobody rotates fill the disk",
)
_OF_ONE_USER = ("getty@*", "serial-getty@*", "console-getty*", "user@*", "autovt@*")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LONG_RUNNING = frozenset({"simple", "exec", "forking", "notify", "notify-reload", "dbus"})


class ServiceOptions(CheckOptions):
    """A systemd unit that shall be up; or with a pattern, units that shall not have failed."""

    type: Literal["service"]
    unit: Annotated[str, AfterValidator(check_unit_or_pattern)] = Field(
        description="The unit with its suffix: `nginx.service`, `backup.timer`; or a pattern, "
        "`*`, for units that have failed."
    )
    ignore: tuple[str, ...] = Field(
        default=(), description="With a pattern: units that are left out, also as patterns."
    )
    succeeded_within: Duration | None = Field(
        default=None,
        description="What the timer starts, or the unit itself, must succeed this often.",
    )
    warning: Limits = Field(default_factory=Limits, description="Limits of `warning`.")
    critical: Limits = Field(default_factory=Limits, description="Limits of `critical`.")

    @model_validator(mode="after")
    def _check_pattern(self) -> ServiceOptions:
        if is_pattern(self.unit):
            for name in ("succeeded_within", "warning", "critical"):
                if getattr(self, name) not in (None, Limits()):
                    raise ValueError(f"`{name}` is for one unit, and {self.unit} is a pattern")
        elif self.ignore:
            raise ValueError("`ignore` is for a pattern such as `unit: '*'`")
        return self


async def look(options: ServiceOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding on the unit; with a pattern one on each unit that has failed."""
    systemd = machine.systemd
    if systemd is None:
        why = machine.missing.get("systemd", "systemd is not PID 1 here")
        return (make_unavailable(options.unit, why),)

    async def explain(finding: Finding, state: UnitState) -> Finding:
        shortage = await find_shortage(machine, state)
        if words := last_words(machine, state):
            finding = replace(finding, facts={**finding.facts, "Last words": words})
            if path := find_unusable(words):
                # A check of that file knows what is wrong with it, and its repair comes first.
                finding = replace(finding, implicates=(*finding.implicates, f"file:{path}"))
        return finding if shortage is None else blame(finding, shortage)

    try:
        if is_pattern(options.unit):
            return await look_for_failed(options.unit, options.ignore, machine, systemd, explain)
        state = await systemd.unit(options.unit)
        if (before := _find_calm(options, machine.memory, state)) is not None:
            return before
        triggers = await _active_triggers(systemd, state)
        stop = None
        if needs_reason(state, triggers):
            stop = await find_stop(machine, systemd, state)
    except Unavailable as error:
        return (make_unavailable(options.unit, str(error)),)
    if stop is not None and state.since is None:
        # systemd forgets a unit that nothing refers to, as soon as it is down.
        state = replace(state, since=stop.at)
    finding = judge(options.unit, state, stop=stop, triggers=triggers)
    if finding.status is Status.CRITICAL and finding.cause in ("failed", "stopped"):
        finding = await explain(finding, state)
    memory, now = machine.memory, machine.clock.now()
    repaired = machine.repaired(memory.check)
    warning, critical = options.warning, options.critical
    finding = see_wear(finding, state, warning, critical, memory, now, repaired=repaired)
    if options.succeeded_within is not None:
        try:
            finding = await see_success(finding, state, options.succeeded_within, machine, systemd)
        except Unavailable as error:
            return (make_unavailable(options.unit, str(error)),)
    findings = (finding,)
    # What must have succeeded lately ends to be true by itself.
    lasts = state.active_state == "active" and options.succeeded_within is None
    if finding.status is Status.OK and lasts:
        memory.notes["service.calm"] = _Calm(
            options=options,
            state=state,
            kills=finding.measurements.get(KILLS),
            findings=findings,
        )
    return findings


@dataclass(frozen=True, kw_only=True)
class _Calm:
    """What a look found of a unit that is well."""

    options: ServiceOptions
    state: UnitState
    kills: float | None
    findings: tuple[Finding, ...]


def _find_calm(
    options: ServiceOptions, memory: Memory, state: UnitState
) -> tuple[Finding, ...] | None:
    """What the last look found, where nothing at all happened since: most looks end here."""
    calm: _Calm | None = memory.notes.get("service.calm")
    if calm is None or calm.state is not state or calm.options is not options or is_worn(memory):
        return None
    kills = count_group_kills(state.control_group) if state.control_group else None
    return calm.findings if calm.kills == kills else None


def blame(finding: Finding, shortage: Shortage) -> Finding:
    """The finding with the filesystem that the unit's own log names as the reason."""
    where = ", ".join(shortage.points)
    resources = tuple(f"filesystem:{point}" for point in shortage.points)
    return replace(
        finding,
        summary=f"{finding.summary}; it had no room{f' on {where}' if where else ''}",
        facts={**finding.facts, "No room": shortage.line},
        implicates=(*finding.implicates, *resources),
    )


async def _active_triggers(systemd: Systemd, state: UnitState) -> tuple[str, ...]:
    """The sockets, timers and paths that would start a resting unit."""
    if state.active_state != "inactive" or not state.triggered_by:
        return ()
    rows = await systemd.units(state.triggered_by)
    return tuple(sorted(row.id for row in rows if row.active_state == "active"))


async def gather(
    options: ServiceOptions, finding: Finding, machine: Machine
) -> tuple[Evidence, ...]:
    """The unit's state, and the log of its present start only (or of the last one)."""
    unit = finding.subject if is_pattern(options.unit) else options.unit
    if machine.systemd is None or is_pattern(unit):
        return ()
    try:
        state = await machine.systemd.unit(unit)
        if finding.cause == "overdue" and state.starts:
            state = await machine.systemd.unit(state.starts)
    except Unavailable as error:
        return (Evidence(title=f"State of {unit}", text=str(error)),)
    lines = [f"{state.id}: {state.description}"]
    lines += [f"{name}: {value}" for name, value in describe_state(state).items()]
    if state.main_pid:
        lines.append(f"Main process: {state.main_pid}")
    try:
        log = await read_log(state.id, state.invocation_id)
    except Unavailable as error:
        log = str(error)
    unit = state.name
    return (
        Evidence(title=f"State of {unit}", text="\n".join(lines)),
        Evidence(title=f"Log of the last start of {unit}", text=log.strip() or "(no lines)"),
    )


def _watch(options: ServiceOptions) -> frozenset[Watch]:
    if is_pattern(options.unit):
        return frozenset()
    watched = {Watch(trigger="systemd", what=options.unit)}
    if options.succeeded_within is not None and options.unit.endswith(".timer"):
        # What a timer starts has its name, unless its Unit= says otherwise.
        work = f"{options.unit.removesuffix('.timer')}.service"
        watched.add(Watch(trigger="systemd", what=work))
    return frozenset(watched)


def _name(options: ServiceOptions) -> frozenset[str]:
    return frozenset() if is_pattern(options.unit) else frozenset({options.unit})


def _default_ladder(options: ServiceOptions) -> tuple[StepOptions, ...]:
    # A pattern may be for everything, and everything is never restarted.
    if is_pattern(options.unit) or why_never(options.unit):
        return ()
    if remedy := _OWN_REMEDIES.get(options.unit):
        return (StepOptions(remedy=remedy),)
    return (StepOptions(remedy="restart-service", options={"unit": options.unit}),)


async def propose(machine: Machine) -> tuple[Proposal, ...]:
    """Services that are enabled and run for long, the rotation of logs, and what has failed."""
    if machine.systemd is None:
        return ()
    try:
        rows = await machine.systemd.list_units(["*.service"], ["active"])
        running = [row.id for row in rows if row.sub_state == "running"]
        states = [await machine.systemd.unit(name) for name in running]
        rotated = await machine.systemd.list_units([_ROTATION_TIMER], ["active"])
    except Unavailable:
        return ()
    chosen = [state for state in states if _suits(state)]
    proposals = [_propose_one(state) for state in sorted(chosen, key=lambda state: state.id)]
    proposals += [_ROTATION] if rotated else []
    proposals.append(
        Proposal(
            name="failed-units",
            options={"type": "service", "unit": "*"},
            why="whatever else fails on a host should be known",
        )
    )
    return tuple(proposals)


def _suits(state: UnitState) -> bool:
    """Whether somebody wants it up all the time, and a restart of it harms nobody else."""
    return (
        state.type in _LONG_RUNNING
        and state.unit_file_state.startswith("enabled")
        and not state.stop_when_unneeded
        and not why_never(state.id)
        and not any(fnmatch.fnmatchcase(state.id, pattern) for pattern in _OF_ONE_USER)
    )


def _propose_one(state: UnitState) -> Proposal:
    options: dict[str, object] = {"unit": state.id}
    validate = VALIDATIONS.get(state.id)
    if validate is not None and shutil.which(validate[0], path=_PATH):
        options["validate"] = list(validate)
    return Proposal(
        name=re.sub("[^a-z0-9_.-]+", "-", state.id.removesuffix(".service").lower()).strip("-."),
        options={
            "type": "service",
            "unit": state.id,
            "ladder": [{"remedy": "restart-service", "options": options}],
        },
        why=f"{state.id} is enabled and runs: {state.description}",
    )


SERVICE = CheckType(
    name="service",
    summary="A systemd unit is up, or an operator wants it down.",
    model=ServiceOptions,
    look=look,
    identity=("unit",),
    causes=CAUSES,
    measurements=MEASUREMENTS,
    propose=propose,
    gather=gather,
    watches=_watch,
    default_ladder=_default_ladder,
    defaults={"every": "10s", "timeout": "5s", "confirm": "1 of 1"},
    names=_name,
)
