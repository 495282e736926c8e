"""What systemd says of a unit, as values: names, object paths and properties."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.clock import Clock
from agent.core.model import Instant

#: Kinds of units that can be looked at. Devices, slices and scopes have no start of their own.
KINDS = ("service", "socket", "timer", "path", "mount", "automount", "swap", "target")

_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]+")
#: The same with what stands for others in a shell.
_PATTERN = re.compile(r"[A-Za-z0-9:_.\\@*?!\[\]-]{1,255}")
_WILD = frozenset("*?[")
#: "Not set", or "no limit", in properties that are counts (systemd's UINT64_MAX).
_UNSET = 2**64 - 1
_UNIT_PATH = "/org/freedesktop/systemd1/unit/"


def check_unit_name(name: str) -> str:
    """The name itself if systemd would take it for a unit, else ValueError with the way out.

    The rules are those of systemd.unit(5): at most 255 characters, letters, digits and `:-_.\\@`,
    a suffix that is a kind of unit, and an instance wherever there is an `@`.
    """
    if not name:
        raise ValueError("a unit name is empty: write for example nginx.service")
    if len(name) > 255 or not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a unit name: use letters, digits and :-_.\\@ only, "
            "such as nginx.service"
        )
    prefix, dot, kind = name.rpartition(".")
    if not dot or kind not in KINDS:
        known = (*KINDS, "slice", "scope", "device")
        way_out = (
            f"use one of these kinds: {', '.join(KINDS)}"
            if dot and kind in known
            else f"write {name}.service"
        )
        raise ValueError(f"{name!r} does not end in a kind of unit that can be checked: {way_out}")
    if not prefix or prefix.startswith("@"):
        raise ValueError(f"{name!r} has nothing before its suffix: write for example nginx.service")
    if prefix.endswith("@"):
        raise ValueError(f"{name!r} is a template: name an instance, such as {prefix}main.{kind}")
    return name


def is_pattern(text: str) -> bool:
    """Whether it is meant for several units: `*`, `app-*.service`."""
    return bool(_WILD & set(text))


def check_unit_or_pattern(text: str) -> str:
    """A unit's name, or a pattern as `systemctl list-units` takes it; else ValueError."""
    if not is_pattern(text):
        return check_unit_name(text)
    if not _PATTERN.fullmatch(text):
        raise ValueError(
            f"{text!r} is no pattern for units: use letters, digits, :-_.\\@ and *, ?, [...], "
            "such as app-*.service"
        )
    return text


def unit_path(name: str) -> str:
    """The D-Bus object of a unit. Reading from it makes systemd load the unit if need be.

    Every byte but ASCII letters and digits (and a leading digit) is written as `_` and two hex
    digits: sd_bus_path_encode(3).
    """
    return _UNIT_PATH + "".join(
        chr(byte)
        if chr(byte).isascii() and chr(byte).isalnum() and not (at == 0 and chr(byte).isdigit())
        else f"_{byte:02x}"
        for at, byte in enumerate(name.encode())
    )


def kind_interface(name: str) -> str:
    """The D-Bus interface of a unit's kind: `org.freedesktop.systemd1.Service`."""
    return "org.freedesktop.systemd1." + name.rpartition(".")[2].capitalize()


@dataclass(frozen=True, kw_only=True)
class Job:
    """Something that systemd is about to do with a unit."""

    id: int
    #: `start`, `stop`, `restart`, `reload` ...; empty when it ended before it was read.
    type: str


@dataclass(frozen=True, kw_only=True)
class UnitRow:
    """One line of systemd's list of units."""

    #: The primary name: that of the unit file, where the name asked for is an alias.
    id: str
    description: str
    load_state: str
    active_state: str
    sub_state: str
    path: str
    job: Job | None


@dataclass(frozen=True, kw_only=True)
class UnitState:
    """One unit as systemd sees it. The meaning of the values: org.freedesktop.systemd1(5)."""

    #: As it was asked for.
    name: str
    #: The primary name, which differs for an alias (`mysql.service` is `mariadb.service`).
    id: str
    description: str = ""
    load_state: str = "loaded"
    #: Why it could not be loaded.
    load_error: str = ""
    active_state: str = "inactive"
    sub_state: str = "dead"
    #: How it last ended: `success`, `exit-code`, `signal`, `oom-kill`, `timeout` ...
    result: str = ""
    #: `simple`, `notify`, `oneshot` ...; empty for units that are no services.
    type: str = ""
    remain_after_exit: bool = False
    #: `no`, `on-failure`, `always` ...; empty for units that are no services.
    restart: str = ""
    #: How often systemd itself restarted it since it was last started by a job.
    n_restarts: int = 0
    main_pid: int = 0
    #: How the main process ended: CLD_EXITED (1), CLD_KILLED (2), CLD_DUMPED (3); 0: it has not.
    exec_main_code: int = 0
    #: Its exit code, or the signal's number.
    exec_main_status: int = 0
    #: CLOCK_MONOTONIC in seconds when it ended; 0: it has not, or systemd has forgotten it.
    exec_main_ended: float = 0.0
    #: One start of the unit; empty before the first.
    invocation_id: str = ""
    #: `enabled`, `disabled`, `static`, `masked`, `generated` ...; empty without a unit file.
    unit_file_state: str = ""
    can_start: bool = True
    need_daemon_reload: bool = False
    #: When it went down, or else when its state last changed; None when it never did.
    since: Instant | None = None
    #: CLOCK_MONOTONIC in seconds of the last time it left `inactive`, left `active`, and became
    #: inactive or failed; 0 when that never was, or when systemd has forgotten it.
    left_inactive: float = 0.0
    left_active: float = 0.0
    became_inactive: float = 0.0
    #: The wall clock at the earlier of `left_active` and `became_inactive`; 0: none.
    end_wall: float = 0.0
    #: A condition in the unit file kept it from its last start.
    condition_failed: bool = False
    #: What is queued for it.
    job: Job | None = None
    #: What a timer, socket or path starts; empty for other units.
    starts: str = ""
    #: Sockets, timers and paths that start it.
    triggered_by: tuple[str, ...] = ()
    #: Units whose end is its end too.
    binds_to: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    #: Units that cannot run beside it, without targets (all conflict with shutdown.target).
    conflicts: tuple[str, ...] = ()
    stop_when_unneeded: bool = False
    #: Its control group, `/system.slice/nginx.service`; empty without one.
    control_group: str = ""
    #: Bytes and numbers of its control group; None where unknown or unlimited.
    memory_current: int | None = None
    memory_max: int | None = None
    tasks_current: int | None = None
    tasks_max: int | None = None

    @property
    def is_down(self) -> bool:
        """Whether it is at rest and not up: the question then is who brought it there."""
        return self.active_state in ("inactive", "failed")


def read_state(
    name: str, unit: Mapping[str, Any], own: Mapping[str, Any], job: Job | None, clock: Clock
) -> UnitState:
    """A unit's state from the properties of its interfaces: `...Unit`, and that of its own kind."""

    def seconds(key: str) -> float:
        return float(unit.get(key, 0)) / 1e6

    def count(key: str) -> int | None:
        value = own.get(key, _UNSET)
        return None if value == _UNSET else int(value)

    # A start that systemd refuses (start limit) changes the state too, from failed to failed.
    down = unit.get("ActiveState") in ("inactive", "failed")
    changed = (down and seconds("InactiveEnterTimestampMonotonic")) or seconds(
        "StateChangeTimestampMonotonic"
    )
    ends = [seconds("ActiveExitTimestamp"), seconds("InactiveEnterTimestamp")]
    return UnitState(
        name=name,
        id=unit.get("Id", name),
        description=unit.get("Description", ""),
        load_state=unit.get("LoadState", ""),
        load_error=unit.get("LoadError", ("", ""))[1],
        active_state=unit.get("ActiveState", ""),
        sub_state=unit.get("SubState", ""),
        result=own.get("Result", ""),
        type=own.get("Type", "") if name.endswith(".service") else "",
        remain_after_exit=own.get("RemainAfterExit", False),
        restart=own.get("Restart", "") if name.endswith(".service") else "",
        n_restarts=own.get("NRestarts", 0),
        main_pid=own.get("MainPID", 0),
        exec_main_code=own.get("ExecMainCode", 0),
        exec_main_status=own.get("ExecMainStatus", 0),
        exec_main_ended=float(own.get("ExecMainExitTimestampMonotonic", 0)) / 1e6,
        invocation_id=bytes(unit.get("InvocationID", b"")).hex(),
        unit_file_state=unit.get("UnitFileState", ""),
        can_start=unit.get("CanStart", True),
        need_daemon_reload=unit.get("NeedDaemonReload", False),
        since=clock.at_monotonic(changed) if changed else None,
        left_inactive=seconds("InactiveExitTimestampMonotonic"),
        left_active=seconds("ActiveExitTimestampMonotonic"),
        became_inactive=seconds("InactiveEnterTimestampMonotonic"),
        end_wall=min((end for end in ends if end), default=0.0),
        condition_failed=bool(unit.get("ConditionTimestamp", 0))
        and not unit.get("ConditionResult", True),
        job=job,
        starts=own.get("Unit", "") if not name.endswith(".service") else "",
        triggered_by=tuple(unit.get("TriggeredBy", ())),
        binds_to=tuple(unit.get("BindsTo", ())),
        requires=tuple(unit.get("Requires", ())),
        conflicts=tuple(
            sorted(
                other
                for other in {*unit.get("Conflicts", ()), *unit.get("ConflictedBy", ())}
                if not other.endswith(".target")
            )
        ),
        stop_when_unneeded=unit.get("StopWhenUnneeded", False),
        control_group=own.get("ControlGroup", ""),
        memory_current=count("MemoryCurrent"),
        memory_max=count("MemoryMax"),
        tasks_current=count("TasksCurrent"),
        tasks_max=count("TasksMax"),
    )
