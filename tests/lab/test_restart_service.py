"""The remedy restart-service on a real host: a validation that fails, and systemd's start limit."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from agent.lab import Lab

PYTHON = "/opt/hostmend/bin/python"
#: Carries out one run and prints what was heard and how it ended.
RUN = """
import asyncio, json, sys
from pathlib import Path
from agent.clock import Clock
from agent.remedies.catalog import SHIPPED, Catalog
from agent.remedies.client import JobRequest, Spare, prepare_runtime, run_job

options, number, preview, warm = json.loads(sys.argv[1])
runtime = Path("/run/hostmend-test")


async def main():
    prepare_runtime(runtime)
    spare = Spare(runtime) if warm else None
    while spare and not list(runtime.glob("scratch/*/warm")):
        await spare.refill()
        await asyncio.sleep(0.05)
    remedy = Catalog.load([SHIPPED]).get("restart-service")
    events = []
    result = await run_job(
        JobRequest(
            run_id=number, remedy=remedy.name, remedy_dirs=(SHIPPED,), digest=remedy.digest,
            options=options, timeout=remedy.timeout, runtime_dir=runtime, preview=preview,
            configured=tuple(options.values()),
        ),
        on_event=events.append, cancel=asyncio.Event(), clock=Clock(), spare=spare,
    )
    if spare:
        await spare.close()
    print(json.dumps([result.outcome, result.detail, events]))


asyncio.run(main())
"""


class Host:
    """A lab with nginx running, and runs of the remedy in it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._count = 0

    def mend(self, preview: bool = False, warm: bool = False, **options: object) -> list:
        self._count += 1
        given = json.dumps([options, f"run-{self._count}", preview, warm])
        done = self.lab.run([PYTHON, "-P", "-c", RUN, given])
        return json.loads(done.stdout.splitlines()[-1])

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
    lab.run(["rm", "-rf", "/run/hostmend-test", "/etc/nginx/conf.d/broken.conf"])


@pytest.mark.parametrize("warm", [False, True])
def test_a_killed_service_is_restarted(host: Host, warm: bool) -> None:
    host.kill()
    outcome, detail, events = host.mend(unit="nginx.service", validate=["nginx", "-t"], warm=warm)
    assert outcome == "ok", detail
    assert host.ask("ActiveState") == "active"
    assert [e["task"] for e in events if e["event"] == "task"] == [
        "Run the validation", "Restart the unit",
    ]  # fmt: skip


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


def test_the_remedys_own_test_breaks_and_verifies(host: Host) -> None:
    folder = host.lab.run(
        [PYTHON, "-P", "-c", "from agent.remedies.catalog import SHIPPED; print(SHIPPED)"]
    ).stdout.strip()
    play = ["/opt/hostmend/bin/ansible-playbook", "-i", "localhost,"]
    test = f"{folder}/restart-service/test"
    host.lab.run([*play, f"{test}/break.yml"])
    assert host.lab.run([*play, f"{test}/verify.yml"], check=False).returncode != 0
    host.mend(unit="nginx.service", validate=["nginx", "-t"])
    host.lab.run([*play, f"{test}/verify.yml"])
