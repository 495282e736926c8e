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

    def kill(self) -> None:
        self.lab.run(["systemctl", "kill", "-s", "KILL", "--kill-who=all", "nginx"])
        self.lab.wait_for(["systemctl", "is-failed", "nginx"])


@pytest.fixture
def host(lab: Lab) -> Iterator[Host]:
    lab.run(["systemctl", "reset-failed"])
    lab.run(["systemctl", "restart", "nginx"])
    yield Host(lab)
    lab.run(["rm", "-rf", RUNTIME, "/etc/nginx/conf.d/broken.conf"])


@pytest.mark.parametrize("warm", [False, True])
def test_a_killed_service_is_restarted(host: Host, warm: bool) -> None:
    host.kill()
    outcome, detail, events = host.mend(unit="nginx.service", validate=["nginx", "-t"], warm=warm)
    assert outcome == "ok", detail
    assert host.ask("ActiveState") == "active"
    assert [e["task"] for e in events if e["event"] == "task"] == [
        "Run the validation", "Restart the unit",
    ]  # fmt: skip


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


def test_a_service_that_cannot_start_fails_the_run(host: Host) -> None:
    host.lab.write(
        "/run/systemd/system/broken.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n"
    )
    host.lab.run(["systemctl", "daemon-reload"])
    outcome, detail, _ = host.mend(unit="broken.service")
    assert outcome == "failed"
    assert "broken.service" in detail


def test_a_preview_restarts_nothing(host: Host) -> None:
    process = host.ask("MainPID")
    outcome, detail, events = host.mend(
        preview=True, unit="nginx.service", validate=["nginx", "-t"]
    )
    assert outcome == "ok", detail
    assert host.ask("MainPID") == process
    validation = next(e for e in events if e.get("task") == "Run the validation")
    assert validation["check_mode_false"] is True
