"""From an empty host to a repaired service: hostmend init, shadow, hostmend arm."""

from __future__ import annotations

import json

from lab_agent import LabAgent

from agent.lab import Lab

SITE = """
server {
    listen 8080;
    server_name shop.example;
    location / { return 200 "open"; }
}
"""


def test_what_runs_here_is_proposed_recorded_in_shadow_and_repaired_once_armed(lab: Lab) -> None:
    lab.write("/etc/nginx/conf.d/shop.conf", SITE)
    lab.run(["systemctl", "enable", "--now", "nginx"])
    agent = LabAgent(lab)
    lab.run(["rm", "-f", "/etc/hostmend/hostmend.yml"])
    found = json.loads(lab.run(["hostmend", "init", "--json"]).stdout)
    assert found["troubles"] == []
    checks = {each["name"]: each["options"] for each in found["new"]}
    assert checks["nginx"]["unit"] == "nginx.service"
    assert checks["nginx"]["ladder"][0]["options"]["validate"] == ["nginx", "-t"]
    assert checks["shop.example-http"]["connect"] == "127.0.0.1:8080"
    assert checks["failed-units"] == {"type": "service", "unit": "*"}
    units = {options.get("unit") for options in checks.values()}
    assert not units & {"dbus.service", "systemd-journald.service", "ssh.service"}

    # Again: nothing is new, and nothing is written.
    written = lab.read("/etc/hostmend/hostmend.yml")
    again = json.loads(lab.run(["hostmend", "init", "--json"]).stdout)
    assert (again["new"], again["written"]) == ([], None)
    assert {each["name"] for each in again["known"]} == set(checks)
    assert lab.read("/etc/hostmend/hostmend.yml") == written

    agent.install(written)
    agent.start()
    seen = lab.run(["hostmend", "check"], check=False)
    assert "critical" not in seen.stdout, seen.stdout
    kill = ["systemctl", "kill", "-s", "KILL", "--kill-who=all", "nginx"]
    lab.run(kill)
    agent.wait(lambda: any(i["shadowed"] for i in agent.incidents()), "shadow to record")
    assert agent.runs() == []
    assert lab.run(["systemctl", "is-active", "nginx"], check=False).stdout.strip() == "failed"

    told = lab.run(["hostmend", "arm", "--yes"]).stdout
    assert "restart-service" in told
    assert "mode: auto" in lab.read("/etc/hostmend/hostmend.yml")
    agent.wait(
        lambda: (
            lab.run(["systemctl", "is-active", "--quiet", "nginx"], check=False).returncode == 0
        ),
        "the repair",
    )
    agent.wait(lambda: [r["outcome"] for r in agent.runs()] == ["ok"], "the run's end")
