"""Real monitoring plugins on a host, in good states and bad ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from lab_agent import LabAgent

from agent.lab import PYTHON, Lab

PLUGINS = "/usr/lib/nagios/plugins"
CONFIGURATION = f"""\
version: 1
policy: {{runs_per_hour: 20}}
checks:
  load: {{type: plugin, every: 1h, command: [{PLUGINS}/check_load, -w, "500", -c, "1000"]}}
  overload: {{type: plugin, every: 1h, command: [{PLUGINS}/check_load, -w, "0,0,0", -c, "500"]}}
  srv: {{type: plugin, every: 1h, command: [{PLUGINS}/check_disk, -w, 20%, -c, 10%, -p, /srv]}}
  procs: {{type: plugin, every: 1h, command: [{PLUGINS}/check_procs, -c, "1:", -C, nginx]}}
  wrong: {{type: plugin, every: 1h, command: [{PLUGINS}/check_load, --what]}}
  dummy: {{type: plugin, every: 1h, command: [{PLUGINS}/check_dummy, "1", so so]}}
  who: {{type: plugin, every: 1h, command: [/usr/bin/id, -un]}}
  web:
    type: plugin
    command: [{PLUGINS}/check_http, -H, 127.0.0.1, -t, "5"]
    every: 1s
    confirm: 1 of 1
    stable_for: 2s
    ladder: [{{remedy: restart-service, causes: [critical], options: {{unit: nginx.service}}}}]
  hung:
    type: plugin
    command: [/bin/sh, -c, "setsid sleep 1234.5 & env -i setsid sleep 1234.5 & sleep 1234.5"]
    every: 1s
    timeout: 2s
"""


@pytest.fixture(scope="module")
def agent(lab: Lab) -> LabAgent:
    lab.volume("/srv", "32M")
    lab.volume("/frozen", "16M")
    installed = LabAgent(lab)
    installed.install(CONFIGURATION)
    lab.run(["systemctl", "start", "nginx"])
    return installed


def look(agent: LabAgent, *names: str) -> Mapping[str, Any]:
    """What `hostmend check` says of each: its one finding."""
    done = agent.lab.run(["hostmend", "check", "--json", *names], check=False)
    items = json.loads(done.stdout)["items"]
    assert [item["name"] for item in items if item["broken"]] == []
    return {item["name"]: item["findings"][0] for item in items}


def count_left(lab: Lab) -> int:
    found = lab.run(["pgrep", "-fxc", "sleep 1234.5"], check=False).stdout.strip()
    return int(found or 0)


def test_real_plugins_say_what_is(agent: LabAgent) -> None:
    found = look(agent, "load", "overload", "srv", "procs", "wrong", "dummy", "who")
    verdicts = {name: (f["status"], f["cause"]) for name, f in found.items()}
    assert verdicts == {
        "load": ("ok", ""),
        "overload": ("warning", "warning"),
        "srv": ("ok", ""),
        "procs": ("ok", ""),
        "wrong": ("unknown", "unknown"),
        "dummy": ("warning", "warning"),
        "who": ("ok", ""),
    }
    assert set(found["load"]["measurements"]) == {
        "load1_count", "load5_count", "load15_count", "run_seconds", "exit_code",
    }  # fmt: skip
    assert found["srv"]["measurements"]["srv_bytes"] >= 0
    assert found["procs"]["measurements"]["procs_count"] >= 1
    assert "load1 = " in found["overload"]["facts"]["Beyond its limits"]
    assert found["dummy"]["summary"] == "WARNING: so so"
    assert found["who"]["summary"] == "nobody"


def test_real_plugins_say_what_is_bad(agent: LabAgent) -> None:
    lab = agent.lab
    lab.run(["systemctl", "stop", "nginx"])
    lab.run(["sh", "-c", "dd if=/dev/zero of=/srv/fill bs=1M 2>/dev/null; true"])
    try:
        found = look(agent, "srv", "procs", "web")
    finally:
        lab.run(["rm", "/srv/fill"])
        lab.run(["systemctl", "start", "nginx"])
    assert {f["status"] for f in found.values()} == {"critical"}
    assert "DISK CRITICAL" in found["srv"]["summary"]
    assert "(critical: over" in found["srv"]["facts"]["Beyond its limits"]


def test_a_plugin_that_cannot_be_ended_is_told_and_not_joined_by_others(agent: LabAgent) -> None:
    # Who writes to a frozen filesystem is in state D until it thaws.
    lab = agent.lab
    lab.run(["fsfreeze", "--freeze", "/frozen"])
    program = (
        "import asyncio, json\n"
        "from agent.checks.plugin import PluginOptions, look\n"
        "from agent.clock import Clock\n"
        "from agent.host.machine import Machine\n"
        "async def main():\n"
        "    machine = Machine(clock=Clock())\n"
        "    def plugin(script):\n"
        "        return PluginOptions.model_validate({'type': 'plugin', 'timeout': '2s',\n"
        "            'user': 'root', 'command': ['/bin/sh', '-c', script]}, strict=False)\n"
        "    async def see(script):\n"
        "        (found,) = await look(plugin(script), machine)\n"
        "        print(json.dumps([found.status, found.cause, found.summary]), flush=True)\n"
        "    await see('echo x >/frozen/file && echo written')\n"
        "    await see('echo x >/frozen/file && echo written')\n"
        "    await see('echo fine')\n"
        "    input()\n"
        "    await asyncio.sleep(1)\n"
        "    await see('echo x >/frozen/file && echo written')\n"
        "    await machine.close()\n"
        "asyncio.run(main())\n"
    )
    thawed = False
    with lab.popen([PYTHON, "-c", program], stdin=-1, stdout=-1, text=True) as looking:
        try:
            first, second, third = (json.loads(looking.stdout.readline()) for _ in range(3))
            lab.run(["fsfreeze", "--unfreeze", "/frozen"])
            thawed = True
            looking.stdin.write("\n")
            looking.stdin.flush()
            fourth = json.loads(looking.stdout.readline())
        finally:
            if not thawed:
                lab.run(["fsfreeze", "--unfreeze", "/frozen"])
    assert first[:2] == ["unknown", "timeout"]
    assert second[:2] == ["unknown", "unavailable"]
    assert "cannot be ended" in second[2]
    assert third == ["ok", "", "fine"]
    assert fourth == ["ok", "", "written"]


@pytest.fixture
def running(agent: LabAgent) -> Iterator[LabAgent]:
    agent.start()
    yield agent
    agent.forget()


def test_a_repair_is_proved_by_the_plugin_that_asked_for_it(running: LabAgent) -> None:
    lab = running.lab
    lab.run(["systemctl", "kill", "-s", "KILL", "--kill-who=all", "nginx"])

    def healed() -> list[dict[str, Any]]:
        found = [i for i in running.incidents() if i["check"] == "web"]
        return [incident for incident in found if incident["state"] == "resolved"]

    (incident,) = running.wait(healed, "the incident of web to be resolved")
    assert incident["resolved_by"] == "run"
    assert incident["subject"] == "check_http"
    story = running.json("incident", "show", incident["id"])
    assert any(item["title"] == "Output of check_http" for item in story["evidence"])


def test_nothing_is_left_of_plugins_that_hang(running: LabAgent) -> None:
    lab = running.lab
    running.wait(
        lambda: find_finding(running, "hung") == "timeout", "the plugin to be past its time"
    )
    lab.wait_for(lambda: count_left(lab) == 3)
    running.stop()
    assert count_left(lab) == 0
    running.start()
    lab.wait_for(lambda: count_left(lab) == 3)
    lab.run(["systemctl", "kill", "-s", "KILL", "hostmend"])
    # The unit starts it again at once, and that one's plugin begins anew.
    lab.wait_for(lambda: count_left(lab) <= 3)
    running.stop()
    assert count_left(lab) == 0
    zombies = lab.run(["sh", "-c", "ps -eo stat= | grep -c '^Z' || true"]).stdout.strip()
    assert zombies == "0"


def find_finding(agent: LabAgent, name: str) -> str:
    found = next(c for c in agent.get("checks")["items"] if c["name"] == name)
    return str(found["findings"][0]["cause"]) if found["findings"] else ""
