"""A staging host beside a production host: what is wrong with it fails by its gate."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from drill_host import allow, ask, install_guard, is_clean, make_token, order, wait_for
from lab_agent import LabAgent
from lab_runs import PLAYBOOK
from staging import PLAIN, PRODUCTION, RARE, STAGING, UNIT, UNWATCHED, WATCHED, Pair, failing, join

from agent.lab import Lab

PROMOTION = Path(__file__).parents[2] / "deploy" / "rehearse-and-promote.yml"
FILL = "/srv/data/.hostmend-drill-fill"


@pytest.fixture(scope="module")
def hosts(lab_tree: Path) -> Iterator[Pair]:
    with (
        Lab.boot(lab_tree, hostname="production") as production,
        Lab.boot(lab_tree, hostname="staging") as staging,
    ):
        staging.volume("/srv/data", "16M", fs="tmpfs")
        yield join(production, staging)


def test_a_broken_page_fails(hosts: Pair) -> None:
    hosts.release({RARE: {"status": 500}})
    code, report = hosts.rehearse(pairs=60)
    assert code == 1
    assert failing(report) >= {"broken", "pages"}


@pytest.mark.long
def test_a_slow_endpoint_fails(hosts: Pair) -> None:
    hosts.release({"/search": {"seconds": 0.3}})
    code, report = hosts.rehearse("--no-pages")
    assert (code, failing(report)) == (1, {"latency of endpoints"}), report["gates"]


@pytest.mark.long
def test_a_redirect_to_production_fails(hosts: Pair) -> None:
    hosts.release({"/goods": {"status": 302, "location": f"http://{PRODUCTION}/goods"}})
    code, report = hosts.rehearse("--no-pages")
    assert code == 1
    assert "redirects" in failing(report)


@pytest.mark.long
def test_a_service_without_a_watchdog_fails(hosts: Pair) -> None:
    hosts.release({}, UNWATCHED)
    code, report = hosts.rehearse("--no-pages", *hosts.drills(within="5s"))
    assert code == 1
    agent, users = f"drill kill-service {UNIT}", f"drill kill-service {UNIT}: users"
    assert agent in failing(report)
    assert failing(report) <= {agent, users}
    gate = next(gate for gate in report["gates"] if gate["name"] == agent)
    assert "no check of this host could see it" in gate["summary"]
    hosts.agent.wait(lambda: is_clean(hosts.staging), "the fault to be undone")


@pytest.mark.long
def test_the_mended_clone_passes_with_its_drill(hosts: Pair) -> None:
    hosts.release({})
    code, report = hosts.rehearse(*hosts.drills(), "--html", "/root/report.html")
    assert (code, report["verdict"]) == (0, "pass"), report["gates"]
    (drill,) = report["drills"]
    assert drill["outcome"] == "passed"
    assert {"injected", "detected", "healed", "verified", "undone"} == set(drill["steps_seconds"])
    assert "<h2>Drills</h2>" in hosts.production.read("/root/report.html")
    hosts.agent.wait(lambda: is_clean(hosts.staging), "the fault to be undone")


@pytest.mark.long
def test_the_playbook_promotes_what_passes_and_nothing_else(hosts: Pair) -> None:
    lab = hosts.production
    lab.write("/root/promote.yml", "- ansible.builtin.file: {path: /root/live, state: touch}\n")
    lab.write("/root/deploy/gate.yml", PROMOTION.read_text())
    given = {
        "candidate": f"http://{STAGING}",
        "baseline": f"http://{PRODUCTION}",
        "traffic": ["/root/access.log"],
        "promote_tasks": "/root/promote.yml",
        "drills": [f"kill-service unit={UNIT}"],
        "candidate_agent": f"http://{STAGING}:8642",
        "candidate_token_file": "/root/staging.token",
        "rehearse_options": [
            "--pairs",
            "400",
            "--speed",
            "1000",
            "--max-rate",
            "40",
            "--slower",
            "100",
            "--keep",
        ],
        "reports": "/root/reports",
        "tries": 4,
    }

    def play() -> subprocess.CompletedProcess[str]:
        command = [PLAYBOOK, "-i", "localhost,", "-c", "local", "/root/deploy/gate.yml"]
        return lab.run(
            [*command, "-e", json.dumps(given)],
            check=False,
            timeout=900,
            env={**PLAIN, "PATH": "/opt/hostmend/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"},
        )

    agent = LabAgent(lab)
    agent.install(UNWATCHED)
    agent.start()
    try:
        hosts.release({RARE: {"status": 500}})
        refused = play()
        assert refused.returncode != 0
        assert "Not promoted: exit code 1" in refused.stdout, refused.stdout
        assert lab.run(["test", "-e", "/root/live"], check=False).returncode == 1
        hosts.release({})
        passed = play()
        assert passed.returncode == 0, passed.stdout
        assert lab.run(["test", "-e", "/root/live"], check=False).returncode == 0
        assert "<svg" in lab.read("/root/reports/rehearsal.html")
        kept = agent.get("rehearsals")["items"]
        assert [kept[0]["verdict"], kept[-1]["verdict"]] == ["pass", "fail"]
        shown = agent.run("rehearsal", "show", kept[0]["id"])
        assert f"drill kill-service {UNIT}: users" in shown
        assert kept[0]["id"] in agent.run("rehearsal", "list")
    finally:
        agent.forget()
    hosts.agent.wait(lambda: is_clean(hosts.staging), "the fault to be undone")


def start(hosts: Pair, *options: str) -> subprocess.Popen[str]:
    """A rehearsal that goes on until its drill is under way."""
    before = {drill["id"] for drill in hosts.agent.get("drills")["items"]}
    process = hosts.production.popen(
        hosts.command("--no-pages", *options, pairs=30),
        env=PLAIN,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def is_under_way() -> bool:
        items = hosts.agent.get("drills")["items"]
        return any(d["state"] == "under way" for d in items if d["id"] not in before)

    hosts.agent.wait(is_under_way, "the drill to be under way")
    return process


@pytest.mark.long
def test_a_rehearsal_that_is_killed_leaves_nothing(hosts: Pair) -> None:
    hosts.release({})
    options = hosts.drills("10s", "fill-disk path=/srv/data leave_bytes=4000000")
    with start(hosts, *options) as process:
        assert hosts.staging.run(["test", "-e", FILL], check=False).returncode == 0
        process.kill()
        process.communicate()
    hosts.agent.wait(lambda: is_clean(hosts.staging), "the fault to be undone")
    assert hosts.staging.run(["test", "-e", FILL], check=False).returncode == 1


@pytest.mark.long
def test_an_agent_that_is_killed_leaves_nothing_and_is_no_pass(hosts: Pair) -> None:
    hosts.release({})
    options = hosts.drills("10m", "fill-disk path=/srv/data leave_bytes=4000000")
    with start(hosts, *options) as process:
        hosts.staging.run(["systemctl", "kill", "--signal=KILL", "--kill-who=main", "hostmend"])
        hosts.agent.wait(lambda: is_clean(hosts.staging), "the fault to be undone")
        out, err = process.communicate(timeout=300)
    assert process.returncode == 3, out + err
    assert "went away" in out
    assert hosts.staging.run(["test", "-e", FILL], check=False).returncode == 1


@pytest.mark.long
def test_the_word_of_the_staging_host_opens_no_other(hosts: Pair) -> None:
    """As on an image of it that becomes production."""
    lab = hosts.production
    agent = LabAgent(lab)
    agent.install(WATCHED)
    install_guard(lab)
    agent.start()
    try:
        path = "/etc/hostmend/drills-allowed.json"
        lab.write(path, hosts.staging.read(path), 0o600)
        status, answer = order(lab, make_token(lab), "kill-service", unit=UNIT)
        assert (status, "another machine" in answer["detail"]) == (409, True)
        allow(lab)
        status, answer = order(lab, make_token(lab), "kill-service", unit=UNIT)
        assert status == 202, answer
        ask(lab, make_token(lab), "DELETE", "/v1/drills/d1")
        wait_for(agent, 1, "ended")
        agent.wait(lambda: is_clean(lab), "the fault to be undone")
    finally:
        agent.forget()
