"""What the service check makes of a state. Real units: tests/lab/test_service_check.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from agent.checks import CHECKS, service, unit_wear
from agent.checks.service import CAUSES, ServiceOptions, look
from agent.checks.unit_state import judge
from agent.clock import Clock
from agent.core.model import Status
from agent.host.machine import Machine
from agent.host.stops import Stop, StoppedBy
from agent.host.systemd import Systemd
from agent.host.units import Job, UnitState

UP = UnitState(
    name="web.service",
    id="web.service",
    active_state="active",
    sub_state="running",
    result="success",
    type="notify",
    restart="no",
    unit_file_state="enabled",
    invocation_id="1" * 32,
    since=1000.0,
    main_pid=7,
)
DOWN = replace(UP, active_state="inactive", sub_state="dead", main_pid=0, exec_main_code=1)
FAILED = replace(
    UP,
    active_state="failed",
    sub_state="failed",
    main_pid=0,
    result="signal",
    exec_main_code=2,
    exec_main_status=9,
)
ONESHOT = replace(DOWN, type="oneshot")
STARTING = replace(UP, active_state="activating", sub_state="start")

OPERATOR = Stop(by=StoppedBy.OPERATOR)
ITSELF = Stop(by=StoppedBy.ITSELF)
NOBODY = Stop(by=StoppedBy.NOBODY)
UNCLEAR = Stop(by=StoppedBy.UNCLEAR)

#: A sentence, the state, who brought it down, and the finding: status, cause, intended, transition.
CASES = [
    ("an active service is ok", UP, None, "ok", "", False, ""),
    (
        "a oneshot that has run and stays active is ok",
        replace(UP, type="oneshot", sub_state="exited", remain_after_exit=True),
        None,
        "ok",
        "",
        False,
        "",
    ),
    ("a failed service is critical", FAILED, ITSELF, "critical", "failed", False, ""),
    (
        "a failed service is critical, journal or not",
        FAILED,
        UNCLEAR,
        "critical",
        "failed",
        False,
        "",
    ),
    (
        "a failed service that is failed because it answered a stop with an error is intended",
        replace(FAILED, result="exit-code", exec_main_code=1, exec_main_status=143),
        OPERATOR,
        "ok",
        "",
        True,
        "",
    ),
    (
        "a failed oneshot is critical",
        replace(FAILED, type="oneshot"),
        ITSELF,
        "critical",
        "failed",
        False,
        "",
    ),
    (
        "a service that ended without a stop job is critical",
        DOWN,
        ITSELF,
        "critical",
        "stopped",
        False,
        "",
    ),
    ("a service that an operator stopped is intended", DOWN, OPERATOR, "ok", "", True, ""),
    (
        "a service that a run of hostmend left stopped is critical",
        DOWN,
        Stop(by=StoppedBy.HOSTMEND),
        "critical",
        "stopped",
        False,
        "",
    ),
    (
        "a service that went down with what it needs is critical",
        DOWN,
        Stop(by=StoppedBy.DEPENDENCY, unit="db.service"),
        "critical",
        "stopped",
        False,
        "",
    ),
    (
        "a service that gave way to a rival is critical, of a cause that no restart is for",
        DOWN,
        Stop(by=StoppedBy.CONFLICT, unit="other.service"),
        "critical",
        "conflict",
        False,
        "",
    ),
    (
        "an enabled service that never ran is critical",
        DOWN,
        NOBODY,
        "critical",
        "stopped",
        False,
        "",
    ),
    (
        "a static service that never ran is critical",
        replace(DOWN, unit_file_state="static"),
        NOBODY,
        "critical",
        "stopped",
        False,
        "",
    ),
    (
        "a disabled service that never ran is intended",
        replace(DOWN, unit_file_state="disabled"),
        NOBODY,
        "ok",
        "",
        True,
        "",
    ),
    (
        "a disabled service that ran and ended is critical",
        replace(DOWN, unit_file_state="disabled"),
        ITSELF,
        "critical",
        "stopped",
        False,
        "",
    ),
    ("a stop that nobody can explain is unknown", DOWN, UNCLEAR, "unknown", "unclear", False, ""),
    ("a stop that nobody asked about is unknown", DOWN, None, "unknown", "unclear", False, ""),
    (
        "a service that a condition keeps down is a warning",
        replace(DOWN, condition_failed=True),
        NOBODY,
        "warning",
        "skipped",
        False,
        "",
    ),
    (
        "a service that an operator stopped is intended, whatever its condition says",
        replace(DOWN, condition_failed=True),
        OPERATOR,
        "ok",
        "",
        True,
        "",
    ),
    ("a oneshot at rest is ok", ONESHOT, None, "ok", "", False, ""),
    (
        "a oneshot that should stay active and does not is critical",
        replace(ONESHOT, remain_after_exit=True),
        ITSELF,
        "critical",
        "stopped",
        False,
        "",
    ),
    ("a oneshot at its work is ok", replace(STARTING, type="oneshot"), None, "ok", "", False, ""),
    (
        "a service that is up only when needed is ok at rest",
        replace(DOWN, stop_when_unneeded=True),
        None,
        "ok",
        "",
        False,
        "",
    ),
    (
        "a D-Bus service that ended by itself is ok, unless it is enabled",
        replace(DOWN, type="dbus", unit_file_state="static"),
        ITSELF,
        "ok",
        "",
        False,
        "",
    ),
    (
        "an enabled D-Bus service that ended by itself is critical",
        replace(DOWN, type="dbus"),
        ITSELF,
        "critical",
        "stopped",
        False,
        "",
    ),
    (
        "a starting service is left to systemd",
        STARTING,
        None,
        "unknown",
        "starting",
        False,
        "starting",
    ),
    (
        "a service between two automatic restarts is left to systemd",
        replace(STARTING, sub_state="auto-restart"),
        None,
        "unknown",
        "restarting",
        False,
        "restarting",
    ),
    (
        "a service that systemd is starting again is left to it",
        replace(STARTING, n_restarts=2),
        None,
        "unknown",
        "restarting",
        False,
        "restarting",
    ),
    (
        "a stopping service is left to systemd",
        replace(UP, active_state="deactivating", sub_state="stop-sigterm"),
        None,
        "unknown",
        "stopping",
        False,
        "stopping",
    ),
    (
        "a reloading service is left to systemd",
        replace(UP, active_state="reloading", sub_state="reload"),
        None,
        "unknown",
        "reloading",
        False,
        "reloading",
    ),
    (
        "a failed service whose start is queued is left to systemd",
        replace(FAILED, job=Job(id=3, type="start")),
        None,
        "unknown",
        "starting",
        False,
        "starting",
    ),
    (
        "a failed service whose stop is queued is judged by what is known of it",
        replace(FAILED, job=Job(id=3, type="stop")),
        OPERATOR,
        "ok",
        "",
        True,
        "",
    ),
    (
        "a masked service is intended",
        replace(DOWN, load_state="masked", unit_file_state="masked"),
        None,
        "ok",
        "",
        True,
        "",
    ),
    (
        "a masked service that still runs is ok and no wish",
        replace(UP, load_state="masked", unit_file_state="masked"),
        None,
        "ok",
        "",
        False,
        "",
    ),
    (
        "a service that does not exist is critical",
        replace(DOWN, load_state="not-found", unit_file_state=""),
        None,
        "critical",
        "missing",
        False,
        "",
    ),
    (
        "a service that runs without its unit file is a warning",
        replace(UP, load_state="not-found"),
        None,
        "warning",
        "missing",
        False,
        "",
    ),
    (
        "a service with an unusable unit file is critical",
        replace(DOWN, load_state="bad-setting", load_error="no ExecStart="),
        None,
        "critical",
        "unloadable",
        False,
        "",
    ),
    (
        "a service that runs, with an unusable unit file, is a warning",
        replace(UP, load_state="bad-setting"),
        None,
        "warning",
        "unloadable",
        False,
        "",
    ),
    (
        "a state that this program does not know is unknown",
        replace(UP, active_state="resting"),
        None,
        "unknown",
        "unclear",
        False,
        "",
    ),
]


@pytest.mark.parametrize(
    ("state", "stop", "status", "cause", "intended", "transition"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_each_state_makes_one_finding(
    state: UnitState, stop: Stop | None, status: str, cause: str, intended: bool, transition: str
) -> None:
    finding = judge("web.service", state, stop=stop)
    assert (finding.status, finding.cause) == (status, cause)
    assert (finding.intended, finding.transition) == (intended, transition)
    assert finding.subject == "web.service"
    assert finding.resource == "unit:web.service"
    assert "web.service" in finding.summary
    assert not cause or cause in CAUSES


def test_a_service_that_a_socket_starts_is_ok_at_rest_and_a_fact_says_so() -> None:
    finding = judge("web.service", DOWN, triggers=("web.socket",))
    assert finding.status is Status.OK
    assert not finding.intended
    assert finding.facts["At rest"] == "web.service waits for web.socket"


def test_a_failed_service_says_how_its_process_ended_and_since_when() -> None:
    finding = judge("web.service", FAILED, stop=ITSELF)
    assert finding.summary == "web.service failed: signal (killed by SIGKILL)"
    assert finding.facts["Result"] == "signal"
    assert finding.facts["Main process"] == "killed by SIGKILL"
    assert finding.since == 1000.0


def test_an_exited_service_that_is_no_oneshot_is_ok_with_a_note() -> None:
    finding = judge("web.service", replace(UP, sub_state="exited", remain_after_exit=True))
    assert finding.status is Status.OK
    assert "nothing of it is left to watch" in finding.facts["Note"]


def test_what_systemd_restarted_by_itself_is_counted() -> None:
    finding = judge("web.service", replace(UP, n_restarts=4, memory_current=4096))
    assert finding.measurements == {"restarts_count": 4.0, "memory_bytes": 4096.0}
    assert finding.facts["Restarted by systemd"] == "4 times since it was last started"


def test_a_service_that_went_down_with_another_names_it() -> None:
    stop = Stop(by=StoppedBy.DEPENDENCY, unit="db.service")
    assert judge("web.service", DOWN, stop=stop).implicates == ("unit:db.service",)


def test_an_alias_is_the_subject_and_the_real_unit_the_resource() -> None:
    finding = judge("mysql.service", replace(UP, name="mysql.service", id="mariadb.service"))
    assert finding.subject == "mysql.service"
    assert finding.resource == "unit:mariadb.service"
    assert finding.facts["Unit"] == "mariadb.service"


async def test_without_systemd_the_finding_is_unknown_and_says_why() -> None:
    machine = Machine(clock=Clock(), missing={"systemd": "systemd is not PID 1 here: no"})
    options = ServiceOptions(type="service", unit="web.service")
    (finding,) = await look(options, machine)
    assert (finding.status, finding.cause) == (Status.UNKNOWN, "unavailable")
    assert finding.summary == "systemd is not PID 1 here: no"


def test_the_page_on_services_names_every_cause() -> None:
    page = (Path(__file__).parents[2] / "docs" / "services.md").read_text()
    assert [cause for cause in CAUSES if f"`{cause}`" not in page] == []


@pytest.mark.parametrize(
    "unit",
    ["nginx.service", "postgresql@15-main.service", "a\\x2db.mount", "backup.timer", "x.y.service"],
)
def test_a_complete_unit_name_is_taken(unit: str) -> None:
    assert ServiceOptions(type="service", unit=unit).unit == unit


@pytest.mark.parametrize(
    ("unit", "way_out"),
    [
        ("nginx", "write nginx.service"),
        ("nginx.1", "write nginx.1.service"),
        ("", "write for example nginx.service"),
        (".service", "write for example nginx.service"),
        ("getty@.service", "name an instance, such as getty@main.service"),
        ("system.slice", "use one of these kinds"),
        ("ng inx.service", "letters, digits"),
        ("a/b.service", "letters, digits"),
        ("nginx.service\n", "letters, digits"),
        ("é.service", "letters, digits"),
        ("a" * 250 + ".service", "letters, digits"),
    ],
)
def test_an_incomplete_unit_name_is_refused_with_the_way_out(unit: str, way_out: str) -> None:
    with pytest.raises(ValidationError, match=way_out):
        ServiceOptions(type="service", unit=unit)


def test_logrotate_is_repaired_rather_than_restarted() -> None:
    options = ServiceOptions(type="service", unit="logrotate.service")
    (step,) = CHECKS["service"].default_ladder(options)
    assert step.remedy == "repair-logrotate"


def test_the_default_ladder_restarts_the_unit_that_the_check_names() -> None:
    options = ServiceOptions(type="service", unit="nginx.service")
    (step,) = CHECKS["service"].default_ladder(options)
    assert step.remedy == "restart-service"
    assert step.options == {"unit": "nginx.service"}
    assert CHECKS["service"].names(options) == {"nginx.service"}
    assert {watch.what for watch in CHECKS["service"].watches(options)} == {"nginx.service"}


@pytest.mark.parametrize(
    "unit", ["dbus.service", "systemd-journald.service", "ssh.service", "hostmend.service"]
)
def test_what_the_host_hangs_on_has_no_default_ladder(unit: str) -> None:
    options = ServiceOptions(type="service", unit=unit)
    assert CHECKS["service"].default_ladder(options) == ()


class Answering(Systemd):
    """Always in the state that it was given."""

    state = UP

    async def unit(self, name: str) -> UnitState:
        return self.state


async def test_a_unit_of_which_nothing_is_new_is_found_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kills = 0
    for module in (service, unit_wear):
        monkeypatch.setattr(module, "count_group_kills", lambda _group: kills)
    systemd = Answering(Clock())
    systemd.state = replace(UP, control_group="/web")
    machine = Machine(clock=Clock(), systemd=systemd)
    options = ServiceOptions(type="service", unit="web.service")
    first = await look(options, machine)
    assert first[0].status is Status.OK
    assert await look(options, machine) is first
    limited = ServiceOptions(type="service", unit="web.service", warning={"tasks": "50%"})
    found = await look(limited, machine)
    assert found is not first, "a reload changed what is looked for"

    systemd.state = replace(systemd.state, n_restarts=5)
    (worn,) = await look(options, machine)
    assert worn.cause == "restarting-often"
    assert (await look(options, machine))[0].cause == "restarting-often", "it is not well yet"

    systemd.state, machine = replace(UP, control_group="/web"), Machine(clock=Clock())
    machine.systemd = systemd
    first = await look(options, machine)
    kills = 1
    assert (await look(options, machine))[0].cause == "oom-killed"
    assert (await look(options, machine))[0].cause == "oom-killed", "it is not well yet"

    systemd.state = replace(FAILED, control_group="")
    assert (await look(options, machine))[0].status is Status.CRITICAL
