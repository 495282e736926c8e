"""The remedy restart-service on a real host: a validation that fails, and systemd's start limit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab_runs import RUNTIME, mend

from agent.lab import Lab


class Host:
    """A lab with nginx running, and runs of the remedy in it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def mend(self, **given: Any) -> tuple[str, str, list[dict[str, Any]]]:
        return mend(self.lab, "restart-service", **given)

    def ask(self, what: str, unit: str = "nginx.service") -> str:
        command = ["systemctl", "show", "--value", "-p", what, unit]
        return self.lab.run(command).stdout.strip()

    def write_unit(self, name: str, lines: str) -> None:
        self.lab.write(f"/run/systemd/system/{name}.service", f"[Service]\n{lines}\n")
        self.lab.run(["systemctl", "daemon-reload"])

    def kill(self) -> None:
        self.lab.run(["systemctl", "kill", "-s", "KILL", "--kill-who=all", "nginx"])
        self.lab.wait_for(["systemctl", "is-failed", "nginx"])


def find_done(events: list[dict[str, Any]]) -> list[str]:
    """The tasks that were carried out."""
    return [e["task"] for e in events if e["event"] == "task" and e["status"] != "skipped"]


@pytest.fixture
def host(lab: Lab) -> Iterator[Host]:
    lab.run(["systemctl", "reset-failed"])
    lab.run(["systemctl", "restart", "nginx"])
    yield Host(lab)
    units = [f"{name}.service" for name in ("re", "one", "two", "stopped", "dead", "broken")]
    lab.run(["systemctl", "stop", *units], check=False)
    lab.run(["rm", "-f", *(f"/run/systemd/system/{unit}" for unit in units)])
    lab.run(["rm", "-rf", RUNTIME, "/etc/nginx/conf.d/broken.conf"])


@pytest.mark.parametrize("warm", [False, True])
def test_a_killed_service_is_restarted(host: Host, warm: bool) -> None:
    host.kill()
    outcome, detail, events = host.mend(unit="nginx.service", validate=["nginx", "-t"], warm=warm)
    assert outcome == "ok", detail
    assert host.ask("ActiveState") == "active"
    assert find_done(events) == ["Run the validation", "Restart the unit"]


def test_what_a_run_is_given_does_not_go_to_the_systems_log(host: Host) -> None:
    """Options may be secret, and the log may lie just where there is no room."""
    host.kill()
    for warm in (False, True):
        outcome, detail, _ = host.mend(unit="nginx.service", validate=["nginx", "-t"], warm=warm)
        assert outcome == "ok", detail
    said = host.lab.run(["journalctl", "-o", "cat", "--no-pager"]).stdout
    assert "Invoked with" not in said
    assert "ansible" not in said


def test_a_validation_that_fails_leaves_the_service_alone_and_asks_for_a_human(host: Host) -> None:
    process = host.ask("MainPID")
    host.lab.write("/etc/nginx/conf.d/broken.conf", "nonsense;\n")
    outcome, detail, _ = host.mend(unit="nginx.service", validate=["nginx", "-t"])
    assert outcome == "needs_human"
    assert "nginx -t fails, so nginx.service was not restarted" in detail
    assert "broken.conf" in detail
    assert host.ask("MainPID") == process


def test_systemds_start_limit_does_not_stand_in_the_way(host: Host) -> None:
    host.lab.write(
        "/run/systemd/system/limited.service",
        "[Unit]\nStartLimitBurst=1\nStartLimitIntervalSec=1h\n"
        "[Service]\nExecStart=/bin/sleep infinity\n",
    )
    host.lab.run(["systemctl", "daemon-reload"])
    host.lab.run(["systemctl", "start", "limited"])
    host.lab.run(["systemctl", "kill", "-s", "KILL", "limited"])
    host.lab.wait_for(["systemctl", "is-failed", "limited"])
    assert host.lab.run(["systemctl", "start", "limited"], check=False).returncode != 0
    outcome, detail, _ = host.mend(unit="limited.service")
    assert outcome == "ok", detail
    assert host.ask("ActiveState", "limited.service") == "active"
    host.lab.run(["systemctl", "stop", "limited"])


def test_a_service_that_cannot_start_fails_the_run_with_what_that_start_logged(host: Host) -> None:
    host.write_unit(
        "broken", "Type=oneshot\nExecStart=/bin/sh -c 'echo no $(date +%%s) keys; exit 3'"
    )
    host.lab.run(["systemctl", "start", "broken"], check=False)
    outcome, detail, events = host.mend(unit="broken.service")
    assert outcome == "failed"
    assert "broken.service could not be started" in detail
    (read,) = [e for e in events if e.get("task") == "Read what that start logged"]
    assert len([line for line in read["stdout"].splitlines() if line.startswith("no ")]) == 1
    assert " keys" in detail


RELOADABLE = "ExecStart=/bin/sleep infinity\nExecReload=/bin/sh -c {}"


def test_a_reload_comes_first_where_it_is_asked_for(host: Host) -> None:
    host.write_unit("re", RELOADABLE.format("true"))
    host.lab.run(["systemctl", "start", "re"])
    process = host.ask("MainPID", "re.service")
    outcome, detail, events = host.mend(unit="re.service", reload=True)
    assert outcome == "ok", detail
    assert host.ask("MainPID", "re.service") == process
    assert find_done(events)[-1] == "Reload the unit"


@pytest.mark.parametrize("why", ["it fails", "there is none", "it is down"])
def test_a_restart_follows_where_no_reload_can_be(host: Host, why: str) -> None:
    reload = "" if why == "there is none" else "false" if why == "it fails" else "true"
    lines = RELOADABLE.format(reload) if reload else "ExecStart=/bin/sleep infinity"
    host.write_unit("re", lines)
    host.lab.run(["systemctl", "restart", "re"])
    process = host.ask("MainPID", "re.service")
    if why == "it is down":
        host.lab.run(["systemctl", "kill", "-s", "KILL", "re"])
        host.lab.wait_for(["systemctl", "is-failed", "re"])
    outcome, detail, _ = host.mend(unit="re.service", reload=True)
    assert outcome == "ok", detail
    assert host.ask("MainPID", "re.service") not in (process, "0")


def test_those_that_depend_on_it_follow_in_order_but_for_one_that_was_stopped(host: Host) -> None:
    names = ("one", "two", "stopped", "dead")
    for name in names:
        host.write_unit(name, "ExecStart=/bin/sleep infinity")
        host.lab.run(["systemctl", "start", name])
    host.lab.run(["systemctl", "stop", "stopped"])
    host.lab.run(["systemctl", "kill", "-s", "KILL", "dead"])
    host.lab.wait_for(["systemctl", "is-failed", "dead"])
    dependants = ["two.service", "stopped.service", "dead.service", "one.service"]
    outcome, detail, _ = host.mend(unit="nginx.service", dependants=dependants)
    assert outcome == "ok", detail
    began = {
        name: int(host.ask("ActiveEnterTimestampMonotonic", f"{name}.service"))
        for name in ("nginx", "two", "dead", "one")
    }
    assert sorted(began, key=lambda name: began[name]) == ["nginx", "two", "dead", "one"]
    assert host.ask("ActiveState", "stopped.service") == "inactive"


def test_a_preview_restarts_nothing(host: Host) -> None:
    process = host.ask("MainPID")
    outcome, detail, events = host.mend(
        preview=True, unit="nginx.service", validate=["nginx", "-t"]
    )
    assert outcome == "ok", detail
    assert host.ask("MainPID") == process
    validation = next(e for e in events if e.get("task") == "Run the validation")
    assert validation["check_mode_false"] is True
