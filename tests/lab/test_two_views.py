"""One server that two checks see, as `hostmend init` proposes them: its unit, and itself."""

from __future__ import annotations

import pytest
from lab_agent import MAIL_ROUTE, LabAgent

from agent.lab import Lab

pytestmark = pytest.mark.lab

CONFIGURATION = f"""\
version: 1
checks:
  redis-server: {{type: service, unit: redis-server.service, every: 2s, stable_for: 2s}}
  redis: {{type: redis, unit: redis-server.service, every: 2s, stable_for: 2s}}
routes:
  ops: {{url: "{MAIL_ROUTE}"}}
"""
NEVER_BY_ITSELF = "[Service]\nRestart=no\n"


def test_a_server_that_is_down_is_mended_by_its_unit_and_told_once(lab: Lab) -> None:
    lab.write("/etc/systemd/system/redis-server.service.d/lab.conf", NEVER_BY_ITSELF)
    lab.run(["systemctl", "daemon-reload"])
    lab.run(["systemctl", "start", "redis-server"])
    agent = LabAgent(lab)
    agent.install(CONFIGURATION)
    agent.start_mail()
    agent.start()
    agent.wait(lambda: agent.check("redis")["status"] == "ok", "a first look")
    lab.run(["systemctl", "kill", "--signal=KILL", "--kill-who=all", "redis-server"])
    agent.wait(lambda: agent.runs(), "a run")
    agent.wait(
        lambda: all(i["state"] == "resolved" for i in agent.incidents()), "both to be well again"
    )
    assert [run["remedy"] for run in agent.runs()] == ["restart-service"]
    assert [notice["reason"] for notice in agent.get("notices")["items"]] == ["healed"]
    agent.wait(agent.mails, "the message")
    agent.forget()
