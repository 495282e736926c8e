"""A page whose application dies behind a web server that goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab_agent import LabAgent

from agent.lab import Lab

CONFIGURATION = """\
version: 1
policy: {runs_per_hour: 20}
checks:
  web:
    type: service
    unit: nginx.service
    every: 1s
    stable_for: 2s
    ladder: [{remedy: restart-service, options: {validate: [nginx, -t]}}]
  shop:
    type: http
    url: http://shop.example/
    connect: 127.0.0.1:8080
    every: 1s
    stable_for: 2s
    depends_on: [web]
    critical: {down: "[STATUS] >= 500"}
    warning: {slow: "[RESPONSE_TIME] > 5s"}
    ladder:
      - {remedy: restart-service, causes: [down, refused], options: {unit: shop.service}}
"""

#: A service, and the probe of what it serves that is paired with it.
DIRECT = """\
checks:
  app: {type: service, unit: shop.service, every: 1s, ladder: []}
  direct:
    type: http
    url: http://127.0.0.1:8000/
    every: 1s
    timeout: 2s
    stable_for: 2s
    depends_on: [app]
    ladder:
      - {remedy: restart-service, causes: [timeout, refused], options: {unit: shop.service}}
"""

APPLICATION = """\
[Service]
ExecStart=/usr/bin/python3 -m http.server --bind 127.0.0.1 --directory /srv/shop 8000
"""

SITE = """\
server {
    listen 127.0.0.1:8080;
    server_name shop.example;
    location / { proxy_pass http://127.0.0.1:8000; }
}
"""


@pytest.fixture(scope="module")
def agent(lab: Lab) -> LabAgent:
    lab.run(["mkdir", "-p", "/srv/shop"])
    lab.write("/srv/shop/index.html", "<h1>Shop</h1>\n")
    lab.write("/etc/systemd/system/shop.service", APPLICATION)
    lab.write("/etc/nginx/conf.d/shop.conf", SITE)
    installed = LabAgent(lab)
    installed.install(CONFIGURATION)
    return installed


@pytest.fixture
def running(agent: LabAgent) -> Iterator[LabAgent]:
    """A whole shop, and an agent that knows of nothing."""
    agent.lab.run(["systemctl", "reset-failed"], check=False)
    agent.lab.run(["systemctl", "restart", "shop", "nginx"])
    agent.wait(lambda: is_served(agent.lab), "the shop to be served")
    agent.start()
    yield agent
    agent.forget()


def is_served(lab: Lab) -> bool:
    answer = lab.run(
        ["curl", "-fsS", "-H", "Host: shop.example", "http://127.0.0.1:8080/"], check=False
    )
    return answer.returncode == 0 and "Shop" in answer.stdout


def find_incident(agent: LabAgent, check: str, *states: str) -> Any:
    found = [i for i in agent.incidents() if i["check"] == check and i["state"] in states]
    return found[0] if found else None


def read_invocation(lab: Lab, unit: str) -> str:
    return lab.run(["systemctl", "show", "-p", "InvocationID", "--value", unit]).stdout.strip()


def test_a_dead_application_behind_a_live_web_server_is_restarted(running: LabAgent) -> None:
    lab = running.lab
    web = read_invocation(lab, "nginx")
    lab.run(["systemctl", "kill", "-s", "KILL", "shop"])
    running.wait(lambda: is_served(lab), "the shop to be served again")
    incident = running.wait(
        lambda: find_incident(running, "shop", "resolved"), "the incident to be resolved"
    )
    assert incident["resolved_by"] == "run"
    assert incident["subject"] == "http://shop.example/"
    (run,) = running.runs()
    assert run["options"]["unit"] == "shop.service"
    assert run["proved"] is True
    assert read_invocation(lab, "nginx") == web

    story = running.json("incident", "show", incident["id"])
    before = "\n".join(i["text"] for i in story["evidence"] if i["when"] == "before")
    assert "502 Bad Gateway" in before
    assert "From: 127.0.0.1:8080" in before


def test_the_application_is_left_alone_while_the_web_server_is_what_failed(
    running: LabAgent,
) -> None:
    lab = running.lab
    application = read_invocation(lab, "shop")
    good = lab.read("/etc/nginx/nginx.conf")
    try:
        # The web server stays down: its remedy refuses to restart it with this.
        lab.write("/etc/nginx/nginx.conf", good + "\nthis is no directive;\n")
        lab.run(["systemctl", "kill", "-s", "KILL", "--kill-who=all", "nginx"])
        running.wait(lambda: find_incident(running, "web", "escalated"), "web to be escalated")
        incident = running.wait(
            lambda: find_incident(running, "shop", "open"), "the shop's incident to be open"
        )
        assert incident["finding"]["cause"] == "refused"
        assert "inhibited" in running.run("incident", "show", incident["id"])
        assert {run["check"] for run in running.runs()} == {"web"}
        assert read_invocation(lab, "shop") == application
    finally:
        lab.write("/etc/nginx/nginx.conf", good)
    lab.run(["systemctl", "reset-failed", "nginx"])
    lab.run(["systemctl", "start", "nginx"])
    ended = running.wait(
        lambda: find_incident(running, "shop", "resolved"), "the shop's incident to resolve"
    )
    assert ended["resolved_by"] == "itself"
    assert {run["check"] for run in running.runs()} == {"web"}


def test_a_unit_that_is_active_and_answers_nobody_is_restarted_and_proved_by_its_probe(
    running: LabAgent,
) -> None:
    lab = running.lab
    lab.write("/etc/hostmend/conf.d/direct.yml", DIRECT)
    running.run("reload")
    lab.run(["systemctl", "kill", "-s", "STOP", "shop"])
    incident = running.wait(
        lambda: find_incident(running, "direct", "resolved"), "the incident to be resolved"
    )
    lab.run(["rm", "/etc/hostmend/conf.d/direct.yml"])
    assert incident["before"]["cause"] == "timeout"
    assert incident["resolved_by"] == "run"
    runs = [run for run in running.runs() if run["check"] == "direct"]
    assert [(run["options"]["unit"], run["proved"]) for run in runs] == [("shop.service", True)]
    # systemd saw nothing of it.
    assert not [i for i in running.incidents() if i["check"] == "app"]
    assert is_served(lab)
