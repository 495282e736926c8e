"""`type: service`: a systemd unit does what it is there for, or somebody wanted it down.

What is read is systemd's own state, a fact and no sample: one look is enough to believe it.
A unit that is up may still serve nobody; that is for checks of what it serves (`http`, `tcp`).
"""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from agent.checks.check import CheckOptions, CheckType, StepOptions, Watch
from agent.core.model import Evidence, Finding, Status
from agent.errors import Unavailable
from agent.host.exhaustion import find_shortage
from agent.host.intention import find_stop
from agent.host.journal import read_log
from agent.host.machine import Machine
from agent.host.protected import why_never
from agent.host.shortage import Shortage
from agent.host.stops import Stop, StoppedBy
from agent.host.systemd import Systemd
from agent.host.units import UnitState, check_unit_name

CAUSES = {
    "failed": "It ended badly, or could not be started; systemd has given up on it.",
    "stopped": "It is down, and nobody is known to have wanted that.",
    "conflict": "systemd stopped it, because a unit that cannot run beside it was started.",
    "missing": "There is no unit file of this name.",
    "unloadable": "Its unit file cannot be used as it is.",
    "skipped": "A condition in its unit file kept it from starting.",
    "starting": "systemd is starting it.",
    "restarting": "systemd is restarting it by itself, as its Restart= says.",
    "stopping": "systemd is stopping it.",
    "reloading": "It is reading its configuration again.",
    "unclear": "It is down, and neither D-Bus nor the journal tells who wanted that.",
    "unavailable": "systemd cannot be asked.",
}

_UP_SOON = ("start", "restart", "")


class ServiceOptions(CheckOptions):
    """A systemd unit that shall be up."""

    type: Literal["service"]
    unit: Annotated[str, AfterValidator(check_unit_name)] = Field(
        description="The unit with its suffix: `nginx.service`, `backup.timer`."
    )


async def look(options: ServiceOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding, on the unit."""
    systemd = machine.systemd
    if systemd is None:
        why = machine.missing.get("systemd", "systemd is not PID 1 here")
        return (_unavailable(options.unit, why),)
    try:
        state = await systemd.unit(options.unit)
        triggers = await _active_triggers(systemd, state)
        stop = None
        if _needs_reason(state, triggers):
            stop = await find_stop(machine, systemd, state)
    except Unavailable as error:
        return (_unavailable(options.unit, str(error)),)
    if stop is not None and state.since is None:
        # systemd forgets a unit that nothing refers to, as soon as it is down.
        state = replace(state, since=stop.at)
    finding = judge(options.unit, state, stop=stop, triggers=triggers)
    if finding.status is Status.CRITICAL and finding.cause in ("failed", "stopped"):
        shortage = await find_shortage(machine, state)
        if shortage is not None:
            finding = blame(finding, shortage)
    return (finding,)


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


def _rests(state: UnitState, triggers: tuple[str, ...]) -> str:
    """Why `inactive` is this unit's state of rest; empty if it should be up."""
    if triggers:
        return f"waits for {', '.join(triggers)}"
    if state.type == "oneshot" and not state.remain_after_exit:
        return "runs once and ends"
    if state.stop_when_unneeded:
        return "is up only while another unit needs it"
    return ""


def _needs_reason(state: UnitState, triggers: tuple[str, ...]) -> bool:
    """Whether the finding depends on who brought the unit down."""
    if state.load_state in ("masked", "not-found", "error", "bad-setting"):
        return False
    return state.is_down and not _comes_up(state) and not _rests(state, triggers)


def _comes_up(state: UnitState) -> bool:
    """Whether a start of a unit that is down is queued."""
    return state.is_down and state.job is not None and state.job.type in _UP_SOON


def judge(
    unit: str, state: UnitState, *, stop: Stop | None = None, triggers: tuple[str, ...] = ()
) -> Finding:
    """The finding on one state.

    `stop`: who brought the unit down, where that matters. `triggers`: active units that start it.
    """
    up = state.active_state in ("active", "reloading", "refreshing", "activating")
    if state.load_state == "masked":
        return _ok(unit, state, f"{unit} is masked by an operator", intended=not up)
    if state.load_state == "not-found":
        if up:
            summary = f"{unit} runs, but its unit file is gone: it will not start again"
            return _failing(unit, state, Status.WARNING, "missing", summary)
        summary = f"there is no {unit} on this host: install it, or correct the unit of this check"
        return _failing(unit, state, Status.CRITICAL, "missing", summary)
    if state.load_state in ("error", "bad-setting"):
        why = f": {state.load_error}" if state.load_error else ""
        if up:
            summary = f"{unit} runs, but would not start again: its unit file is not usable{why}"
            return _failing(unit, state, Status.WARNING, "unloadable", summary)
        summary = f"{unit} cannot be started: its unit file is not usable{why}"
        return _failing(unit, state, Status.CRITICAL, "unloadable", summary)
    if _comes_up(state):
        return _in_transition(unit, state, "starting")
    match state.active_state:
        case "active":
            return _ok(unit, state, f"{unit} is {_shown(state)}")
        case "activating":
            return _judge_activating(unit, state)
        case "deactivating":
            return _in_transition(unit, state, "stopping")
        case "reloading" | "refreshing":
            return _in_transition(unit, state, "reloading")
        case "failed":
            return _judge_failed(unit, state, stop)
        case "inactive":
            return _judge_inactive(unit, state, stop, triggers)
    summary = f"{unit} is {_shown(state)}"
    return _failing(unit, state, Status.UNKNOWN, "unclear", summary)


def _judge_activating(unit: str, state: UnitState) -> Finding:
    # NRestarts counts from the last start by a job: above 0, systemd's own Restart= is at work.
    if state.sub_state.startswith("auto-restart") or state.n_restarts:
        return _in_transition(unit, state, "restarting")
    if state.type == "oneshot" and not state.remain_after_exit:
        return _ok(unit, state, f"{unit} is at its work")
    return _in_transition(unit, state, "starting")


def _judge_failed(unit: str, state: UnitState, stop: Stop | None) -> Finding:
    if stop is not None and stop.by is StoppedBy.OPERATOR:
        # Java answers a stop with 143, others with a time-out: systemd calls that failed.
        return _ok(unit, state, f"{unit} was stopped by an operator", intended=True)
    how = _ending(state)
    summary = f"{unit} failed: {state.result or 'no result'}{f' ({how})' if how else ''}"
    return _failing(unit, state, Status.CRITICAL, "failed", summary)


def _judge_inactive(
    unit: str, state: UnitState, stop: Stop | None, triggers: tuple[str, ...]
) -> Finding:
    if rest := _rests(state, triggers):
        facts = {"At rest": f"{unit} {rest}"}
        return _ok(unit, state, f"{unit} is at rest: it {rest}", facts=facts)
    stop = stop or Stop(by=StoppedBy.UNCLEAR)
    by = stop.by
    if by is StoppedBy.OPERATOR:
        return _ok(unit, state, f"{unit} was stopped by an operator", intended=True)
    if by is StoppedBy.CONFLICT:
        summary = f"{unit} was stopped by systemd for {stop.unit}, which cannot run beside it"
        return _failing(unit, state, Status.CRITICAL, "conflict", summary)
    if by is StoppedBy.NOBODY and state.unit_file_state.startswith("disabled"):
        summary = f"{unit} is disabled by an operator and was not started since boot"
        return _ok(unit, state, summary, intended=True)
    if by is StoppedBy.UNCLEAR:
        summary = (
            f"{unit} is down, and the journal no longer tells whether an operator wanted that: "
            f"start it, or stop it once more (systemctl stop {unit})"
        )
        return _failing(unit, state, Status.UNKNOWN, "unclear", summary)
    if state.condition_failed or by is StoppedBy.CONDITION:
        summary = f"{unit} was not started: a condition in its unit file was not met"
        return _failing(unit, state, Status.WARNING, "skipped", summary)
    if by is StoppedBy.ITSELF and _starts_on_demand(state):
        rest = "was ended by itself and D-Bus starts it when it is asked for"
        return _ok(unit, state, f"{unit} {rest}", facts={"At rest": f"{unit} {rest}"})
    why = {
        StoppedBy.NOBODY: f"{unit} was not started since boot, and it is not disabled",
        StoppedBy.ITSELF: f"{unit} ended, and nobody stopped it",
        StoppedBy.HOSTMEND: f"{unit} was stopped by a run of hostmend and not started again",
        StoppedBy.DEPENDENCY: f"{unit} is down because {stop.unit or 'a unit it needs'} went down",
    }[by]
    implicates = (f"unit:{stop.unit}",) if by is StoppedBy.DEPENDENCY and stop.unit else ()
    return _failing(unit, state, Status.CRITICAL, "stopped", why, implicates=implicates)


def _starts_on_demand(state: UnitState) -> bool:
    """Whether this is a D-Bus service that nobody has enabled to run all the time."""
    return (
        state.type == "dbus"
        and state.result == "success"
        and not state.unit_file_state.startswith("enabled")
    )


def _ok(
    unit: str,
    state: UnitState,
    summary: str,
    *,
    intended: bool = False,
    facts: dict[str, str] | None = None,
) -> Finding:
    return Finding(
        subject=unit,
        status=Status.OK,
        summary=summary,
        intended=intended,
        since=state.since,
        facts={**_facts(state), **(facts or {})},
        measurements=_measurements(state),
        resource=f"unit:{state.id}",
    )


def _failing(
    unit: str,
    state: UnitState,
    status: Status,
    cause: str,
    summary: str,
    *,
    transition: str = "",
    implicates: tuple[str, ...] = (),
) -> Finding:
    return Finding(
        subject=unit,
        status=status,
        cause=cause,
        summary=summary,
        since=state.since,
        facts=_facts(state),
        measurements=_measurements(state),
        transition=transition,
        resource=f"unit:{state.id}",
        implicates=implicates,
    )


def _in_transition(unit: str, state: UnitState, cause: str) -> Finding:
    summary = f"{unit} is {cause} ({state.sub_state}): left to systemd"
    return _failing(unit, state, Status.UNKNOWN, cause, summary, transition=cause)


def _unavailable(unit: str, why: str) -> Finding:
    return Finding(
        subject=unit,
        status=Status.UNKNOWN,
        cause="unavailable",
        summary=why,
        resource=f"unit:{unit}",
    )


def _shown(state: UnitState) -> str:
    return f"{state.active_state} ({state.sub_state})"


def _ending(state: UnitState) -> str:
    """How the main process ended: `exit code 1`, `killed by SIGKILL`; empty while it runs."""
    match state.exec_main_code:
        case 1:
            return f"exit code {state.exec_main_status}"
        case 2 | 3:
            try:
                name = signal.Signals(state.exec_main_status).name
            except ValueError:
                name = f"signal {state.exec_main_status}"
            dumped = ", core dumped" if state.exec_main_code == 3 else ""
            return f"killed by {name}{dumped}"
    return ""


def _facts(state: UnitState) -> dict[str, str]:
    facts = {"State": _shown(state)}
    if state.id != state.name:
        facts["Unit"] = state.id
    if state.load_state != "loaded":
        facts["Loaded"] = f"{state.load_state} {state.load_error}".strip()
    if state.result and state.result != "success":
        facts["Result"] = state.result
    if state.is_down and (how := _ending(state)):
        facts["Main process"] = how
    if state.active_state == "active" and state.sub_state == "exited" and state.type != "oneshot":
        facts["Note"] = "its process has ended, and nothing of it is left to watch"
    if state.n_restarts:
        facts["Restarted by systemd"] = f"{state.n_restarts} times since it was last started"
    if state.restart:
        facts["Restart policy"] = state.restart
    if state.unit_file_state:
        facts["Unit file"] = state.unit_file_state
    if state.job is not None:
        facts["Job"] = f"{state.job.type or 'unknown'} ({state.job.id})"
    if state.need_daemon_reload:
        facts["Changed on disk"] = "systemd has not read it yet: run systemctl daemon-reload"
    return facts


def _measurements(state: UnitState) -> dict[str, float]:
    known = {
        "memory_bytes": state.memory_current,
        "memory_limit_bytes": state.memory_max,
        "tasks_count": state.tasks_current,
        "tasks_limit_count": state.tasks_max,
    }
    if state.name.endswith(".service"):
        known["restarts_count"] = state.n_restarts
    return {name: float(value) for name, value in known.items() if value is not None}


async def gather(
    options: ServiceOptions, _finding: Finding, machine: Machine
) -> tuple[Evidence, ...]:
    """The unit's state, and the log of its present start only (or of the last one)."""
    unit = options.unit
    if machine.systemd is None:
        return ()
    try:
        state = await machine.systemd.unit(unit)
    except Unavailable as error:
        return (Evidence(title=f"State of {unit}", text=str(error)),)
    lines = [f"{state.id}: {state.description}"]
    lines += [f"{name}: {value}" for name, value in _facts(state).items()]
    if state.main_pid:
        lines.append(f"Main process: {state.main_pid}")
    try:
        log = await read_log(state.id, state.invocation_id)
    except Unavailable as error:
        log = str(error)
    return (
        Evidence(title=f"State of {unit}", text="\n".join(lines)),
        Evidence(title=f"Log of the last start of {unit}", text=log.strip() or "(no lines)"),
    )


def _watch(options: ServiceOptions) -> frozenset[Watch]:
    return frozenset({Watch(trigger="systemd", what=options.unit)})


def _name(options: ServiceOptions) -> frozenset[str]:
    return frozenset({options.unit})


def _default_ladder(options: ServiceOptions) -> tuple[StepOptions, ...]:
    if why_never(options.unit):
        return ()
    return (StepOptions(remedy="restart-service", options={"unit": options.unit}),)


SERVICE = CheckType(
    name="service",
    summary="A systemd unit is up, or an operator wants it down.",
    model=ServiceOptions,
    look=look,
    causes=CAUSES,
    gather=gather,
    watches=_watch,
    default_ladder=_default_ladder,
    defaults={"every": "10s", "timeout": "5s", "confirm": "1 of 1"},
    names=_name,
)
