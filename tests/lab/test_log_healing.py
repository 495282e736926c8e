"""Logs that break under a whole agent with the ladders that it has by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab_agent import LabAgent

from agent.lab import Lab

pytestmark = pytest.mark.long

NGINX = "/var/log/nginx"

#: No check names a ladder but nginx's: each type has one.
CONFIGURATION = f"""\
version: 1
policy: {{runs_per_hour: 30}}
checks:
  web:
    type: service
    unit: nginx.service
    every: 2s
    stable_for: 3s
    ladder:
      - {{remedy: restart-service, options: {{unit: nginx.service, validate: [nginx, -t]}}}}
  errors: {{type: log, path: {NGINX}/error.log, every: 2s, stable_for: 3s, verify_for: 60s}}
  access: {{type: log, path: {NGINX}/access.log, every: 2s, stable_for: 3s, verify_for: 60s}}
  syslog: {{type: log, path: /var/log/syslog, canary: true, every: 3s, stable_for: 3s}}
  journal: {{type: journal, every: 3s, stable_for: 3s, verify_for: 60s}}
  rotation: {{type: service, unit: logrotate.service, every: 2s, stable_for: 3s}}
"""


@pytest.fixture
def running(lab: Lab) -> Iterator[LabAgent]:
    lab.run(["systemctl", "enable", "--now", "rsyslog", "nginx"])
    lab.run(["curl", "-fsS", "http://127.0.0.1/"])
    lab.run(["systemctl", "start", "logrotate"])
    lab.run(["logger", "a first line"])
    lab.wait_for(["test", "-s", "/var/log/syslog"])
    agent = LabAgent(lab)
    agent.install(CONFIGURATION)
    agent.start()
    names = ("web", "errors", "access", "syslog", "journal", "rotation")
    for name in names:
        agent.wait(lambda name=name: is_ok(agent, name), f"a first look at {name}")
    yield agent
    agent.forget()


def is_ok(agent: LabAgent, name: str) -> bool:
    findings = agent.check(name)["findings"]
    return bool(findings) and all(each["status"] == "ok" for each in findings)


def wait_resolved(agent: LabAgent, check: str) -> dict[str, Any]:
    def find() -> dict[str, Any] | None:
        return next(
            (i for i in agent.incidents() if i["check"] == check and i["state"] == "resolved"), None
        )

    found: dict[str, Any] = agent.wait(find, f"the incident of {check} to be resolved")
    return found


def test_a_web_server_whose_log_directory_vanished_is_up_again_root_first(
    running: LabAgent,
) -> None:
    lab = running.lab
    lab.run(
        ["sh", "-c", f"systemctl stop nginx; rm -r {NGINX}; systemctl start nginx"], check=False
    )
    running.wait(
        lambda: lab.run(["curl", "-fsS", "http://127.0.0.1/"], check=False).returncode == 0,
        "the page to be served again",
    )
    assert wait_resolved(running, "web")["resolved_by"] == "run"
    runs = [(run["remedy"], run["outcome"]) for run in running.runs()]
    # The first for either of its logs; the other was whole by then, or found nothing to do.
    assert runs[0] == ("restore-log-directory", "ok")
    assert runs[-1] == ("restart-service", "ok")
    assert {outcome for _, outcome in runs} == {"ok"}
    assert lab.run(["stat", "--format=%U:%G %a", NGINX]).stdout.split() == ["root:adm", "755"]
    for name in ("errors", "access"):
        running.wait(lambda name=name: is_ok(running, name), f"{name} to be well")


def test_each_fault_of_logs_finds_its_remedy_by_itself(running: LabAgent) -> None:
    lab = running.lab
    lab.run(["systemctl", "kill", "-s", "STOP", "rsyslog"])
    lab.run(["rm", f"{NGINX}/access.log"])
    lab.run(["curl", "-fsS", "http://127.0.0.1/"])
    lab.run(["sh", "-c", "ln -s ../nowhere /etc/logrotate.d/again; systemctl start logrotate; "
             "rm /etc/logrotate.d/again"], check=False)  # fmt: skip
    lab.run(["journalctl", "--rotate"])
    archived = "ls /var/log/journal/*/system@*.journal | head -n 1"
    damage = f"dd if=/dev/urandom of=$({archived}) conv=notrunc bs=1 seek=20000 count=4000"
    lab.run(["sh", "-c", damage])
    healed = {
        "syslog": "restart-logging",
        "access": "release-deleted-files",
        "rotation": "repair-logrotate",
        "journal": "repair-journal",
    }
    for check, remedy in healed.items():
        assert wait_resolved(running, check)["resolved_by"] == "run"
        assert remedy in {run["remedy"] for run in running.runs() if run["outcome"] == "ok"}
