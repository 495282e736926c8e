"""Drills on a real host: passed where hostmend heals, and nothing left behind whoever is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from drill_host import (
    RECORD,
    allow,
    ask,
    drill,
    install_guard,
    is_clean,
    make_token,
    order,
    wait_for,
)
from lab_agent import LabAgent

from agent.lab import Lab

DATA = "/srv/data"
UNIT = "nginx.service"
FILL = f"{DATA}/.hostmend-drill-fill"

CONFIGURATION = f"""\
version: 1
policy: {{runs_per_hour: 500}}
checks:
  web: {{type: service, unit: {UNIT}, every: 2s, stable_for: 2s, cool_down: 1s, attempts: 100}}
  data:
    type: disk
    path: {DATA}
    every: 2s
    stable_for: 2s
    cool_down: 1s
    attempts: 100
    ladder: [{{remedy: clean-disk, options: {{log_directories: [{DATA}/log]}}}}]
"""
#: The same without a check of the service.
BLIND = "version: 1\nchecks:\n  data: {type: disk, path: /srv/data, every: 5s}\n"


@pytest.fixture(scope="module")
def agent(lab: Lab) -> LabAgent:
    lab.volume(DATA, "40M")
    installed = LabAgent(lab)
    installed.install(CONFIGURATION)
    install_guard(lab)
    lab.run(["systemctl", "enable", "hostmend", "nginx"])
    return installed


@pytest.fixture
def secret(agent: LabAgent) -> Iterator[str]:
    """A whole nginx, half of the disk in use by old logs, and an agent that knows of nothing."""
    lab = agent.lab
    lab.run(["systemctl", "start", "nginx"])
    lab.run(["mkdir", "-p", f"{DATA}/log"])
    lab.write(f"{DATA}/log/app.log", "live\n")
    lab.run(["dd", "if=/dev/zero", f"of={DATA}/log/app.log.1.gz", "bs=1M", "count=18"])
    lab.run(["touch", "-d", "60 days ago", f"{DATA}/log/app.log.1.gz"])
    allow(lab)
    agent.start()
    agent.wait(lambda: agent.check("web")["status"] == "ok", "a first look")
    yield make_token(lab)
    wait_until_whole(agent)
    agent.forget()


def is_whole(lab: Lab) -> bool:
    left = lab.run(["sh", "-c", f"ls -d {FILL} /run/systemd/system/{UNIT}.d 2>/dev/null || true"])
    runs = lab.run(["systemctl", "is-active", "--quiet", UNIT], check=False).returncode == 0
    return runs and not left.stdout.strip()


def wait_until_whole(agent: LabAgent) -> None:
    agent.wait(lambda: is_clean(agent.lab) and is_whole(agent.lab), "the fault to be undone")


def kill(lab: Lab, unit: str) -> None:
    lab.run(["systemctl", "kill", "--signal=KILL", "--kill-who=main", unit])


def test_a_service_that_hostmend_restarts_passes(agent: LabAgent, secret: str) -> None:
    status, started = order(agent.lab, secret, "kill-service", unit=UNIT)
    assert status == 202, started
    found = wait_for(agent, 1, "ended")
    assert found["outcome"] == "passed", found
    assert found["injected"] <= found["detected"] <= found["healed"] <= found["verified"]
    assert found["verified"] <= found["undone"]
    (run,) = agent.runs()
    assert (run["remedy"], run["outcome"]) == ("restart-service", "ok")
    assert found["incidents"] == [agent.incidents()[0]["id"]]
    wait_until_whole(agent)
    shown = agent.run("drill", "list")
    assert "kill-service" in shown
    assert "passed" in shown


@pytest.mark.long
def test_a_full_disk_that_hostmend_cleans_passes(agent: LabAgent, secret: str) -> None:
    assert order(agent.lab, secret, "fill-disk", path=DATA)[0] == 202
    found = wait_for(agent, 1, "ended")
    assert found["outcome"] == "passed", found
    assert not agent.lab.run(["sh", "-c", f"ls {DATA}/log/*.gz || true"]).stdout
    wait_until_whole(agent)


def test_a_host_refuses_without_its_own_marker(agent: LabAgent, secret: str) -> None:
    lab = agent.lab
    path = "/etc/hostmend/drills-allowed.json"
    marker = json.loads(lab.read(path))
    for text, mode, said in (
        (None, 0o600, "does not allow any"),
        (json.dumps(marker | {"machine": "0" * 16}), 0o600, "another machine"),
        (json.dumps(marker | {"until": 1.0}), 0o600, "is over"),
        (json.dumps(marker | {"until": 9e9}), 0o600, "lasts longer"),
        (json.dumps(marker), 0o666, "others may write"),
        ("{", 0o600, "not what"),
    ):
        if text is None:
            lab.run(["hostmend", "drill", "forbid"])
        else:
            lab.write(path, text, mode)
        status, answer = order(lab, secret, "kill-service", unit=UNIT)
        assert (status, said in answer["detail"]) == (409, True), answer
    allow(lab)
    lab.run(["systemctl", "disable", "hostmend-drill"])
    status, answer = order(lab, secret, "kill-service", unit=UNIT)
    assert (status, "systemctl enable" in answer["detail"]) == (503, True), answer
    lab.run(["systemctl", "enable", "hostmend-drill"])
    for role in ("operator", "viewer"):
        other = lab.run(["hostmend", "token", "create", role, "--role", role]).stdout.strip()
        assert order(lab, other, "kill-service", unit=UNIT)[0] == 403
    assert agent.get("drills")["items"] == []


@pytest.mark.long
def test_a_fault_that_is_refused_changes_nothing(agent: LabAgent, secret: str) -> None:
    lab = agent.lab
    lab.run(["systemctl", "stop", "nginx"])
    for number, (fault, options) in enumerate(
        (
            ("kill-service", {"unit": UNIT}),
            ("stop-service-hard", {"unit": UNIT}),
            ("fill-disk", {"path": f"{DATA}/log"}),
            ("exhaust-inodes", {"path": "/run"}),
            ("fill-memory", {"unit": UNIT}),
            ("drop-network", {"address": "127.0.0.1"}),
            ("drop-network", {"address": "0.0.0.0"}),
            ("expire-certificate", {"path": "/etc/hostname", "key": "/etc/hostname"}),
            ("break-log-directory", {"path": "/etc", "unit": "cron.service"}),
        ),
        1,
    ):

        def is_taken(fault: str = fault, options: dict[str, str] = options) -> bool:
            # Not at once: that nginx is down is a suspicion at first, and then its operator's wish.
            return order(lab, secret, fault, **options)[0] == 202

        agent.wait(is_taken, f"{fault} to be taken")
        found = wait_for(agent, number, "ended")
        assert found["outcome"] == "aborted", found
        assert found["detail"].startswith("the fault was not injected: "), found
        agent.wait(lambda: is_clean(lab), "the guard to be gone")
    assert lab.run(["systemctl", "is-active", UNIT], check=False).stdout.strip() == "inactive"
    lab.run(["systemctl", "start", "nginx"])


@pytest.mark.long
def test_what_nobody_sees_fails_and_is_undone(agent: LabAgent, secret: str) -> None:
    lab = agent.lab
    lab.write("/etc/hostmend/hostmend.yml", BLIND, 0o600)
    try:
        agent.run("reload")
        assert order(lab, secret, "kill-service", within=3, unit=UNIT)[0] == 202
        assert order(lab, secret, "kill-service", unit=UNIT)[0] == 409, "one at a time"
        found = wait_for(agent, 1, "ended")
        assert (found["outcome"], found["checks"]) == ("failed", [])
        assert "no check of this host could see it" in found["detail"]
        wait_until_whole(agent)
    finally:
        lab.write("/etc/hostmend/hostmend.yml", CONFIGURATION, 0o600)


@pytest.mark.parametrize(
    "killed", ["hostmend", pytest.param("hostmend-drill", marks=pytest.mark.long)]
)
def test_whoever_is_killed_in_the_middle_leaves_nothing(
    agent: LabAgent, secret: str, killed: str
) -> None:
    lab = agent.lab
    assert order(lab, secret, "fill-disk", path=DATA, leave_bytes=8_000_000, within=600)[0] == 202
    wait_for(agent, 1, "under way")
    assert lab.run(["test", "-e", FILL], check=False).returncode == 0
    kill(lab, killed)
    wait_until_whole(agent)
    agent.wait(agent.answers, "the agent to answer")
    found = wait_for(agent, 1, "ended")
    assert found["outcome"] == "aborted", found


@pytest.mark.long
@pytest.mark.parametrize("killed", [True, False])
def test_without_any_agent_the_guard_undoes_it_by_itself(
    agent: LabAgent, secret: str, killed: bool
) -> None:
    lab = agent.lab
    within = 600 if killed else 1
    answer = order(lab, secret, "fill-disk", path=DATA, leave_bytes=8_000_000, within=within)
    assert answer[0] == 202
    lab.wait_for(["test", "-e", FILL])
    lab.run(["systemctl", "mask", "--runtime", "hostmend"])
    kill(lab, "hostmend")
    if killed:
        assert json.loads(lab.read(RECORD))["begun"] is True
        kill(lab, "hostmend-drill")
    wait_until_whole(agent)
    lab.run(["systemctl", "unmask", "--runtime", "hostmend"])
    agent.start()
    assert wait_for(agent, 1, "ended")["outcome"] in ("aborted", "failed")


@pytest.mark.long
def test_a_host_that_loses_its_power_undoes_it_at_boot(agent: LabAgent, secret: str) -> None:
    lab = agent.lab
    assert order(lab, secret, "fill-disk", path=DATA, leave_bytes=8_000_000, within=600)[0] == 202
    wait_for(agent, 1, "under way")
    lab.run(["sync"])
    lab.reboot(crash=True)
    wait_until_whole(agent)
    agent.wait(agent.answers, "the agent to answer")
    assert wait_for(agent, 1, "ended")["outcome"] == "aborted"


@pytest.mark.long
def test_who_ends_a_drill_has_it_undone_at_once(agent: LabAgent, secret: str) -> None:
    lab = agent.lab
    assert order(lab, secret, "fill-disk", path=DATA, leave_bytes=8_000_000, within=600)[0] == 202
    wait_for(agent, 1, "under way")
    status, answer = ask(lab, secret, "DELETE", "/v1/drills/d1")
    assert (status, answer["outcome"]) == (200, "aborted")
    assert "token gate" in wait_for(agent, 1, "ended")["detail"]
    wait_until_whole(agent)
    assert drill(agent, 1)["trouble"] == ""
