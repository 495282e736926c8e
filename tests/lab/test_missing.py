"""An agent that lacks root, systemd, D-Bus or a machine of its own says so and does the rest."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from subprocess import PIPE, STDOUT
from typing import Any

import pytest
from lab_agent import MAIL_ROUTE, LabAgent

from agent.lab import Lab

CONFIGURATION = """\
version: 1
policy: {unknown_for: 3s}
checks:
  web: {type: service, unit: nginx.service, every: 1s, stable_for: 1s, cool_down: 1s}
  root: {type: disk, path: /, every: 1s}
"""
HOME = "/var/tmp/agent"
#: Where an agent that is not the host's own keeps its things.
APART = {
    "HOSTMEND_CONFIG": f"{HOME}/hostmend.yml",
    "HOSTMEND_STATE_DIR": f"{HOME}/state",
    "HOSTMEND_RUNTIME_DIR": f"{HOME}/run",
    "HOSTMEND_LISTEN": "127.0.0.1:0",
}
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]
#: PIDs of its own, and neither systemd's nor D-Bus's sockets in reach.
CONTAINED = [
    *("unshare", "--pid", "--fork", "--mount-proc", "--mount", "sh", "-ec"),
    'mount -t tmpfs none /run; exec "$@"',
    "sh",
]
WITHOUT_SYSTEMD = [
    *("unshare", "--mount", "sh", "-ec"),
    'mount -t tmpfs none /run/systemd; exec "$@"',
    "sh",
]


@pytest.fixture
def host(lab: Lab) -> Iterator[Lab]:
    lab.run(["systemctl", "start", "nginx"])
    lab.run(["mkdir", "-p", HOME])
    lab.write(f"{HOME}/hostmend.yml", CONFIGURATION)
    lab.run(["chown", "-R", "65534:65534", HOME])
    yield lab
    lab.run(["rm", "-rf", HOME])


@contextlib.contextmanager
def agent_in(lab: Lab, way: Sequence[str]) -> Iterator[Any]:
    """An agent that is started in this way, and what asks it with the command's words."""
    asking = AS_NOBODY if way == AS_NOBODY else []

    def ask(*words: str) -> Any:
        done = lab.run([*asking, "hostmend", *words, "--json"], check=False, env=APART)
        return json.loads(done.stdout) if done.returncode == 0 else None

    # By the shell, so that the end of the agent is the end of all that it was started in.
    with lab.popen([*way, "hostmend", "run"], env=APART, stdout=PIPE, stderr=STDOUT) as process:
        try:
            lab.wait_for(lambda: ask("status"))
            lab.wait_for(lambda: all(c["looked"] for c in ask("checks")["items"]))
            yield ask
        finally:
            lab.run(["pkill", "-TERM", "-xf", ".*/python -P .*/hostmend run"], check=False)
            process.communicate(timeout=60)


def see(ask: Any, check: str) -> tuple[str, str]:
    (found,) = [c for c in ask("checks")["items"] if c["name"] == check]
    (finding,) = found["findings"]
    return finding["status"], finding["summary"]


def test_without_root_it_says_what_it_cannot_see_and_watches_the_rest(host: Lab) -> None:
    with agent_in(host, AS_NOBODY) as ask:
        missing = ask("status")["missing"]
        assert "not root" in missing["root"]
        assert "group systemd-journal" in missing["journal"]
        assert "Permission denied" in missing["control groups"]
        assert "systemd" not in missing
        assert see(ask, "web")[0] == "ok"
        assert see(ask, "root")[0] == "ok"
        host.run(["systemctl", "kill", "-s", "KILL", "--kill-who=all", "nginx"])
        # It may not restart it, and says so.
        host.wait_for(lambda: [i for i in ask("incidents")["items"] if i["state"] == "escalated"])
        assert "restart-service" in {run["remedy"] for run in ask("runs")["items"]}
    text = host.run(["cat", f"{HOME}/hostmend.yml"], check=True)
    assert text.stdout == CONFIGURATION


def test_without_systemd_it_says_so_and_calls_services_unknown(host: Lab) -> None:
    with agent_in(host, WITHOUT_SYSTEMD) as ask:
        missing = ask("status")["missing"]
        assert "systemd is not PID 1 here" in missing["systemd"]
        status, summary = see(ask, "web")
        assert status == "unknown"
        assert "systemd is not PID 1 here" in summary
        assert see(ask, "root")[0] == "ok"
        assert ask("runs")["items"] == []


def test_in_a_container_it_says_what_is_not_its_own(host: Lab) -> None:
    with agent_in(host, CONTAINED) as ask:
        missing = ask("status")["missing"]
        assert "this is a container" in missing["kernel"]
        assert "systemd is not PID 1 here" in missing["systemd"]
        assert see(ask, "web")[0] == "unknown"
        assert see(ask, "root")[0] == "ok"


def test_without_dbus_it_says_so_and_goes_on_once_that_is_there(host: Lab) -> None:
    agent = LabAgent(host)
    route = f'routes: {{ops: {{url: "{MAIL_ROUTE}", reasons: [opened, healed]}}}}\n'
    agent.install(CONFIGURATION + route)
    agent.start_mail()
    bus = ["dbus.socket", "dbus.service"]
    try:
        host.run(["systemctl", "mask", "--runtime", *bus])
        host.run(["systemctl", "stop", *bus])
        host.run(["systemctl", "kill", "-s", "KILL", "--kill-who=all", "nginx"])
        agent.start()
        assert "install and start dbus" in agent.get("status")["missing"]["systemd"]
        assert "MISSING: systemd: cannot reach D-Bus" in agent.run("status")
        assert "passes now" not in agent.run("status")
        # What cannot be known is told, and nothing is done about it.
        (mail,) = agent.wait(agent.mails, "a mail that nothing can be said of the service")
        assert mail["Subject"].startswith("[unknown] nginx.service")
        assert agent.runs() == []
        host.run(["systemctl", "unmask", "--runtime", *bus])
        host.run(["systemctl", "start", *bus])
        agent.wait(lambda: "systemd" not in agent.get("status")["missing"], "systemd again")
        agent.wait(lambda: agent.runs(), "the service to be repaired")
        host.wait_for(["systemctl", "is-active", "nginx"])
        # Lost while it runs, it is said as well.
        host.run(["systemctl", "stop", *bus])
        agent.wait(lambda: "systemd" in agent.get("status")["missing"], "the loss to be said")
    finally:
        host.run(["systemctl", "unmask", "--runtime", *bus])
        host.run(["systemctl", "start", *bus])
        agent.forget()
