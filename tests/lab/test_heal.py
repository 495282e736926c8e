"""The main job on a real host: from a killed service to the mail about it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab_agent import MAIL_ROUTE, LabAgent, body_of

from agent.lab import Lab

#: However slow this machine is: what is healed is told once, as healed.
CONFIGURATION = f"""\
version: 1
policy: {{runs_per_hour: 20, storm: {{group_wait: 10m}}}}
checks:
  web:
    type: service
    unit: nginx.service
    every: 2s
    stable_for: 3s
    ladder:
      - {{remedy: restart-service, options: {{unit: nginx.service, validate: [nginx, -t]}}}}
routes:
  ops:
    url: "{MAIL_ROUTE}"
    reasons: [opened, approval, escalated, held, healed, ended, recurring]
"""


@pytest.fixture(scope="module")
def agent(lab: Lab) -> LabAgent:
    installed = LabAgent(lab)
    installed.install(CONFIGURATION)
    return installed


@pytest.fixture
def running(agent: LabAgent) -> Iterator[LabAgent]:
    """A whole nginx, a mail server, and an agent that knows of nothing."""
    agent.lab.run(["systemctl", "reset-failed"], check=False)
    agent.lab.run(["systemctl", "start", "nginx"])
    agent.start_mail()
    agent.start()
    yield agent
    agent.forget()
    agent.lab.run(["systemctl", "stop", "mail"])


def is_served(lab: Lab) -> bool:
    answer = lab.run(["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1/"], check=False)
    return answer.returncode == 0


def kill_nginx(lab: Lab) -> None:
    lab.run(["systemctl", "kill", "-s", "KILL", "--kill-who=all", "nginx"])


def test_a_killed_nginx_serves_again_and_the_mail_tells_with_evidence(running: LabAgent) -> None:
    assert is_served(running.lab)
    kill_nginx(running.lab)
    running.wait(lambda: is_served(running.lab), "the page to be served again")
    incident = running.wait(
        lambda: next((i for i in running.incidents() if i["state"] == "resolved"), None),
        "the incident to be resolved",
    )
    assert incident["resolved_by"] == "run"
    assert incident["check"] == "web"
    (run,) = running.runs()
    assert run["outcome"] == "ok"
    assert run["proved"] is True

    story = running.json("incident", "show", incident["id"])
    assert [t["new"] for t in story["transitions"]] == [
        "pending", "open", "repairing", "verifying", "probation", "resolved",
    ]  # fmt: skip
    assert {item["when"] for item in story["evidence"]} == {"before", "after"}
    before = "\n".join(i["text"] for i in story["evidence"] if i["when"] == "before")
    assert "signal" in before.lower()
    assert "KILL" in before

    mail = running.wait(lambda: running.mails(), "the mail")[0]
    assert mail["Subject"].startswith("[healed] nginx.service on lab")
    body = body_of(mail)
    assert "Evidence before" in body
    assert "Evidence after" in body
    assert "restart-service" in body
    assert "KILL" in body
    assert len(running.mails()) == 1


def test_what_an_operator_stops_stays_stopped(running: LabAgent) -> None:
    running.lab.run(["systemctl", "stop", "nginx"])
    seen = running.wait(
        lambda: next(
            (
                check
                for check in running.json("checks")["items"]
                if any(finding["intended"] for finding in check["findings"])
            ),
            None,
        ),
        "the check to see an operator's intention",
    )
    assert seen["status"] == "ok"
    assert "stopped by an operator" in seen["findings"][0]["summary"]
    assert "stopped by an operator" in running.run("check", "web", check=False)
    assert running.incidents() == []
    assert not is_served(running.lab)


def test_a_stop_while_the_agent_was_away_is_respected_too(running: LabAgent) -> None:
    running.stop()
    running.lab.run(["systemctl", "stop", "nginx"])
    running.start()
    running.wait(lambda: running.check("web")["findings"], "the first look of the new agent")
    assert running.check("web")["findings"][0]["intended"] is True
    assert running.incidents() == []
    assert running.runs() == []
    assert not is_served(running.lab)


def test_a_death_while_the_agent_was_away_is_healed(running: LabAgent) -> None:
    running.stop()
    kill_nginx(running.lab)
    assert not is_served(running.lab)
    running.start()
    running.wait(lambda: is_served(running.lab), "the page to be served again")


def test_a_broken_configuration_is_not_restarted_but_told(running: LabAgent) -> None:
    lab = running.lab
    good = lab.read("/etc/nginx/nginx.conf")
    try:
        lab.write("/etc/nginx/nginx.conf", good + "\nthis is no directive;\n")
        kill_nginx(lab)
        incident = running.wait(
            lambda: next((i for i in running.incidents() if i["state"] == "escalated"), None),
            "the incident to be escalated",
        )
        (run,) = running.runs()
        assert run["outcome"] == "needs_human"
        assert "unknown directive" in run["detail"]
        starts = lab.run(
            ["systemctl", "show", "-p", "ActiveState", "--value", "nginx"]
        ).stdout.strip()
        assert starts == "failed"
        mail = running.wait(lambda: running.mails(), "the mail")[0]
        assert "unknown directive" in body_of(mail)
        assert mail["Subject"].startswith("[escalated]")
    finally:
        lab.write("/etc/nginx/nginx.conf", good)
    lab.run(["systemctl", "reset-failed", "nginx"])
    lab.run(["systemctl", "start", "nginx"])
    ended = running.wait(
        lambda: next((i for i in running.incidents() if i["state"] == "resolved"), None),
        "the incident to resolve by itself once it is mended by hand",
    )
    assert ended["id"] == incident["id"]
    assert ended["resolved_by"] == "itself"
    assert len(running.runs()) == 1


def test_mail_that_cannot_be_delivered_at_first_arrives_later(running: LabAgent) -> None:
    running.lab.run(["systemctl", "stop", "mail"])
    kill_nginx(running.lab)
    running.wait(
        lambda: any(n["attempts"] >= 1 for n in running.json("notices")["items"]),
        "a first attempt at delivery",
    )
    assert running.mails() == []
    running.start_mail()
    running.wait(lambda: running.mails(), "the mail, by a later attempt")
    (notice,) = running.json("notices")["items"]
    assert notice["state"] == "delivered"
    assert notice["attempts"] >= 2
    assert len(running.mails()) == 1


FLAKY = """\
[Service]
ExecStart=/bin/sleep 2
"""

FLAKY_CONFIGURATION = """\
version: 1
policy: {runs_per_hour: 20, retry_after: 5s}
checks:
  flaky:
    type: service
    unit: flaky.service
    every: 1s
    stable_for: 30s
    cool_down: 500ms
    attempts: 2
routes:
  ops:
    url: "ROUTE"
    reasons: [approval, escalated, held, healed, ended, recurring]
"""


def test_what_dies_again_and_again_is_never_healed_but_escalated_once(agent: LabAgent) -> None:
    lab = agent.lab
    agent.install(FLAKY_CONFIGURATION.replace("ROUTE", MAIL_ROUTE))
    lab.write("/etc/systemd/system/flaky.service", FLAKY)
    lab.run(["systemctl", "daemon-reload"])
    lab.run(["systemctl", "start", "flaky"])
    agent.start_mail()
    agent.start()
    try:
        incident = agent.wait(
            lambda: next((i for i in agent.incidents() if i["state"] == "escalated"), None),
            "the incident to be escalated",
        )
        assert len(agent.runs()) == 2
        # Giving up is not for ever: it is tried again, slowly, and says nothing new.
        agent.wait(lambda: len(agent.runs()) >= 3, "a slow try")
        agent.wait(lambda: agent.incidents()[0]["state"] == "escalated", "it to fail as well")
        assert [i["id"] for i in agent.incidents()] == [incident["id"]]
        agent.wait(lambda: agent.mails(), "the mail")
        assert [m["Subject"].split("]")[0] for m in agent.mails()] == ["[escalated"]
        # What finally stays up is over.
        lab.write("/etc/systemd/system/flaky.service", "[Service]\nExecStart=/bin/sleep 600\n")
        lab.run(["systemctl", "daemon-reload"])
        lab.run(["systemctl", "restart", "flaky"])
        agent.wait(lambda: agent.incidents()[0]["state"] == "resolved", "the end", 120)
    finally:
        lab.run(["systemctl", "stop", "flaky"])
        agent.forget()
        agent.install(CONFIGURATION)


def test_an_ordinary_user_can_run_the_demo(lab: Lab) -> None:
    lab.run(["install", "-d", "-o", "daemon", "-m", "700", "/tmp/demo"])
    done = lab.run(
        [
            "runuser", "-u", "daemon", "--",
            "env", "HOME=/tmp/demo", "HOSTMEND_STATE_DIR=/tmp/demo/s",
            "HOSTMEND_RUNTIME_DIR=/tmp/demo/r", "hostmend", "demo", "--once",
        ],
        timeout=120,
    )  # fmt: skip
    for word in ("LOOK", "INCIDENT", "RUN", "TASK", "PROOF", "NOTICE", "resolved by the run"):
        assert word in done.stdout
