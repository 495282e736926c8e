"""Containers of the real Podman, through the API that it shares with Docker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from lab_agent import LabAgent

from agent.lab import PYTHON, Lab

SOCKET = "/run/podman/podman.sock"
CONFIGURATION = """\
version: 1
policy: {runs_per_hour: 100}
checks:
  engine: {type: service, unit: engine.service, every: 1s, mode: "off"}
  good: {type: container, name: good, every: 1s}
  stopped: {type: container, name: stopped, every: 1s}
  dies: {type: container, name: dies, every: 1s, engine: engine.service}
  loops: {type: container, name: loops, every: 1s, restarts: 3 in 10m}
  sick: {type: container, name: sick, every: 1s}
  gone: {type: container, name: gone, every: 1s}
  all: {type: container, every: 1s}
"""
#: Its network and cgroups need more than a host within a host has.
PODMAN = "podman --storage-driver vfs"
RUN = f"{PODMAN} run -d --cgroups=disabled --network=none --log-driver=k8s-file"
IMAGE = "local/busybox:1"
MAKE = f"""\
set -e
mkdir -p /root/image/bin
cp /bin/busybox /root/image/bin/
for name in sh sleep false; do ln -s busybox /root/image/bin/$name; done
tar -C /root/image -c . | {PODMAN} import - {IMAGE}
{RUN} --name good --restart=always {IMAGE} /bin/sleep 10000
{RUN} --name stopped {IMAGE} /bin/sh -c 'trap "exit 143" TERM; while :; do sleep 0.1; done'
{RUN} --name dies {IMAGE} /bin/sh -c 'echo last words; exit 3'
{RUN} --name loops --restart=always {IMAGE} /bin/sh -c 'sleep 0.5; exit 4'
{RUN} --name sick --health-cmd=/bin/false --health-interval=disable --health-retries=1 \\
    {IMAGE} /bin/sleep 10000
{PODMAN} healthcheck run sick || true
"""
ENGINE = f"[Service]\nExecStart=/usr/bin/{PODMAN} system service --time=0 unix://{SOCKET}\n"


@pytest.fixture(scope="module")
def agent(lab: Lab) -> LabAgent:
    lab.write("/root/make.sh", MAKE)
    # With its output in files: what Podman leaves running would hold pipes open.
    lab.run(["sh", "-c", "sh /root/make.sh >/root/made 2>&1 </dev/null"], timeout=240)
    lab.write("/etc/systemd/system/engine.service", ENGINE)
    installed = LabAgent(lab)
    installed.install(CONFIGURATION)
    lab.run(["systemctl", "start", "engine"])
    lab.wait_for(["test", "-S", SOCKET])
    return installed


@pytest.fixture
def running(agent: LabAgent) -> Iterator[LabAgent]:
    agent.start()
    yield agent
    agent.forget()


def read(agent: LabAgent) -> Mapping[str, Any]:
    return {check["name"]: check["findings"] for check in agent.json("checks")["items"]}


def find(agent: LabAgent, name: str) -> tuple[str, str]:
    found = read(agent)[name]
    return (found[0]["status"], found[0]["cause"]) if found else ("", "")


def podman(agent: LabAgent, *words: str) -> None:
    line = f"{PODMAN} {' '.join(words)} >/dev/null 2>&1 </dev/null"
    agent.lab.run(["sh", "-c", line], timeout=120)


def test_real_containers_are_judged(running: LabAgent) -> None:
    wanted = {
        "good": ("ok", ""),
        "dies": ("critical", "failed"),
        "sick": ("critical", "unhealthy"),
        "gone": ("critical", "missing"),
        "loops": ("critical", "looping"),
    }
    for name, verdict in wanted.items():
        running.wait(lambda n=name, v=verdict: find(running, n) == v, f"{name} to be {verdict}")
    # Those that the engine should start again, or that tell of their health.
    assert {finding["subject"] for finding in read(running)["all"]} == {"good", "loops", "sick"}
    running.wait(
        lambda: [
            i for i in running.incidents() if i["check"] == "dies" and i["state"] != "pending"
        ],
        "an incident of the one that died",
    )
    (incident,) = [i for i in running.incidents() if i["check"] == "dies"]
    story = running.json("incident", "show", incident["id"])
    texts = {item["title"]: item["text"] for item in story["evidence"]}
    assert texts["Log of dies"] == "last words"


@pytest.mark.long
def test_what_an_operator_stops_is_never_taken_for_a_failure(running: LabAgent) -> None:
    running.wait(lambda: find(running, "stopped") == ("ok", ""), "the container to run")
    # Podman tells of a kill, and of a stop it does not.
    podman(running, "kill", "stopped")
    running.wait(lambda: read(running)["stopped"][0]["intended"], "the order to be believed")
    assert find(running, "stopped") == ("ok", "")
    podman(running, "start", "stopped")
    running.wait(lambda: not read(running)["stopped"][0]["intended"], "the container to run again")
    podman(running, "stop", "-t", "20", "stopped")
    running.wait(lambda: find(running, "stopped") == ("unknown", "unclear"), "the stop to be seen")
    # What it would start again by itself was stopped by somebody.
    podman(running, "stop", "-t", "1", "good")
    running.wait(lambda: read(running)["good"][0]["intended"], "the stop to be believed")
    podman(running, "start", "good")


def test_a_container_waits_for_its_engine(running: LabAgent) -> None:
    def gates() -> list[str]:
        found = [
            i
            for i in running.incidents()
            if i["check"] == "dies" and i["state"] in ("open", "escalated")
        ]
        return [
            gate["detail"]
            for incident in found
            for gate in running.json("incident", "explain", incident["id"])["gates"]
        ]

    running.wait(lambda: find(running, "dies") == ("critical", "failed"), "it to be dead")
    running.wait(gates, "its incident")
    blamed = "engine fails and this depends on it"
    assert not [gate for gate in gates() if blamed in gate]
    running.lab.run(["systemctl", "kill", "-s", "KILL", "engine"])
    running.wait(lambda: find(running, "engine") == ("critical", "failed"), "the engine to be down")
    running.wait(lambda: [gate for gate in gates() if blamed in gate], "the engine to be blamed")
    running.lab.run(["systemctl", "reset-failed", "engine"])
    running.lab.run(["systemctl", "start", "engine"])
    running.wait(lambda: find(running, "dies") == ("critical", "failed"), "the engine to answer")


@pytest.mark.long
def test_a_stopped_and_a_hung_engine_are_unknown(running: LabAgent) -> None:
    running.wait(lambda: find(running, "good") == ("ok", ""), "the container to run")
    lab = running.lab
    lab.run(["systemctl", "kill", "-s", "STOP", "engine"])
    try:
        running.wait(lambda: find(running, "good") == ("unknown", "unavailable"), "the hang", 120)
    finally:
        lab.run(["systemctl", "kill", "-s", "CONT", "engine"])
    running.wait(lambda: find(running, "good") == ("ok", ""), "the engine to answer again")
    lab.run(["systemctl", "stop", "engine"])
    running.wait(lambda: find(running, "good") == ("unknown", "unavailable"), "the stop")
    lab.run(["systemctl", "start", "engine"])
    running.wait(lambda: find(running, "good") == ("ok", ""), "the engine to answer again")


def test_real_containers_are_proposed(agent: LabAgent) -> None:
    program = (
        "import asyncio\n"
        "from agent.checks import CHECKS\n"
        "from agent.clock import Clock\n"
        "from agent.host.machine import Machine\n"
        "async def main():\n"
        "    found = await CHECKS['container'].propose(Machine(clock=Clock()))\n"
        "    print(found[0].why)\n"
        "asyncio.run(main())\n"
    )
    said = agent.lab.run([PYTHON, "-c", program]).stdout.strip()
    assert said == f"the engine at {SOCKET} has good, loops, sick"
