"""What an installed agent survives on a real host: drains, reboots, packages at work, kills."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from subprocess import PIPE

import pytest
from lab_agent import LabAgent
from web_agent import install, is_served, kill_nginx, wait_for_end

from agent.lab import Lab

#: Holds the lock that apt and dpkg hold, until its standard input ends.
HOLD_LOCK = """\
import fcntl, sys
file = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def installed(lab: Lab) -> LabAgent:
    return install(lab)


@pytest.fixture
def agent(installed: LabAgent) -> Iterator[LabAgent]:
    """A whole nginx, a mail server, and an agent that knows of nothing."""
    installed.lab.run(["systemctl", "reset-failed"], check=False)
    installed.lab.run(["systemctl", "start", "nginx"])
    installed.start_mail()
    if installed.try_json("status") is None:
        installed.start()
    yield installed
    installed.forget()
    installed.lab.run(["systemctl", "stop", "mail"])


#: Every number in the state, the last that was given, and what has not ended.
COUNT = """
import json, sqlite3
db = sqlite3.connect("/var/lib/hostmend/state.db")
numbers = [n for t in ("incident", "run", "notice") for (n,) in db.execute(f"SELECT id FROM {t}")]
(serial,) = db.execute("SELECT value FROM meta WHERE key = 'serial'").fetchone()
(left,) = db.execute(
    "SELECT (SELECT count(*) FROM incident WHERE live = 1)"
    " + (SELECT count(*) FROM notice WHERE state = 'due')"
    " + (SELECT count(*) FROM run WHERE json_extract(body, '$.state') <> 'ended')"
).fetchone()
print(json.dumps([int(serial), numbers, left]))
"""


def leftovers(lab: Lab) -> list[str]:
    """Processes of runs and senders, whoever owns them."""
    listed = lab.run(["ps", "-eo", "pid,args"]).stdout.splitlines()
    words = ("ansible", "agent.remedies", "agent.notify")
    return [line for line in listed if any(word in line for word in words)]


def test_a_drained_agent_ends_its_run_first(agent: LabAgent) -> None:
    lab = agent.lab
    # A restart that takes a while, so that SIGTERM falls into the run.
    lab.run(["mkdir", "-p", "/run/systemd/system/nginx.service.d"])
    lab.write(
        "/run/systemd/system/nginx.service.d/slow.conf", "[Service]\nExecStartPre=/bin/sleep 3\n"
    )
    lab.run(["systemctl", "daemon-reload"])
    try:
        kill_nginx(lab)
        agent.wait(lambda: [r for r in agent.runs() if r["state"] == "running"], "a run")
        lab.run(["systemctl", "stop", "hostmend"], timeout=120)
        shown = lab.run(
            ["systemctl", "show", "hostmend", "-p", "Result,ExecMainStatus,ExecMainCode"]
        ).stdout
        assert "Result=success" in shown
        assert "ExecMainStatus=0" in shown
        assert is_served(lab)
        assert leftovers(lab) == []
        agent.start()
        (run,) = agent.runs()
        assert (run["state"], run["outcome"]) == ("ended", "ok")
        wait_for_end(agent)
        assert len(agent.runs()) == 1
    finally:
        lab.run(["rm", "-r", "/run/systemd/system/nginx.service.d"])
        lab.run(["systemctl", "daemon-reload"])


def test_packages_at_work_are_left_alone(agent: LabAgent) -> None:
    lab = agent.lab
    with lab.popen(["python3", "-c", HOLD_LOCK], stdin=PIPE, stdout=PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        # What a package's scripts do to a service, and how it looks between the two.
        kill_nginx(lab)
        agent.wait(lambda: agent.json("status")["incidents"], "it to be seen")
        time.sleep(2)
        lab.run(["systemctl", "restart", "nginx"])
        agent.wait(lambda: agent.json("status")["incidents"] == [], "it to be seen as over")
        holder.stdin.close()
    time.sleep(3)
    assert agent.runs() == []
    assert agent.mails() == []


def test_an_incident_outlives_a_reboot_which_itself_is_no_news(agent: LabAgent) -> None:
    lab = agent.lab
    good = lab.read("/etc/nginx/nginx.conf")
    try:
        lab.write("/etc/nginx/nginx.conf", good + "\nthis is no directive;\n")
        kill_nginx(lab)
        agent.wait(
            lambda: [i for i in agent.incidents() if i["state"] == "escalated"],
            "the incident to be escalated",
        )
        agent.wait(lambda: agent.mails(), "its mail")
        before = (agent.incidents()[0]["id"], len(agent.runs()), len(agent.mails()))
        begun = time.monotonic()
        lab.reboot()
        took = time.monotonic() - begun
    finally:
        lab.write("/etc/nginx/nginx.conf", good)
    # Nothing in the agent holds a shutdown: a unit that does would take its TimeoutStopSec.
    assert took < 60
    agent.start_mail()
    agent.wait(lambda: agent.try_json("status") is not None, "the agent after the boot")
    agent.wait(lambda: agent.check("web")["looked"] is not None, "its first look")
    time.sleep(3)
    after = (agent.incidents()[0]["id"], len(agent.runs()), len(agent.mails()))
    assert after == before
    assert agent.json("status")["problems"] == []


#: Leaves a process that only its control group tells from those of others, and goes on.
HIDE = """\
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.command:
        argv: [sh, -c, "setsid --fork env -i sleep 98765 >/dev/null 2>&1 </dev/null"]
    - ansible.builtin.wait_for: {timeout: 300}
"""


def test_what_hides_from_its_run_is_ended_though_all_that_knew_of_it_died_at_once(
    agent: LabAgent,
) -> None:
    lab = agent.lab
    assert "control groups" not in agent.json("status")["missing"]
    place = "/etc/hostmend/playbooks/hide"
    summary = "summary: For a test\nrisk: low\nchanges: service\ntimeout: 10m\n"
    lab.write(f"{place}/remedy.yml", summary)
    lab.write(f"{place}/playbook.yml", HIDE)
    hidden = ["pgrep", "-xf", "sleep 98765"]
    try:
        agent.run("reload")
        agent.run("remedy", "run", "hide", "--no-wait")
        agent.wait(lambda: lab.run(hidden, check=False).returncode == 0, "it to hide")
        (run,) = agent.runs()
        told = json.loads(lab.read(f"/run/hostmend/runs/{run['id']}/job.json"))
        assert "/system.slice/hostmend.service/hostmend-run-" in told["group"]
        main = lab.run(["systemctl", "show", "-P", "MainPID", "hostmend"]).stdout.strip()
        victims = [main, str(told["pid"]), str(told["runner"])]
        lab.run(["kill", "-STOP", *victims])
        lab.run(["kill", "-KILL", *victims])
        agent.wait(lambda: lab.run(hidden, check=False).returncode != 0, "it to be ended")
        agent.wait(
            lambda: [r for r in agent.try_json("runs")["items"] if r["outcome"] == "lost"],
            "the run to be lost",
        )
        lab.wait_for(["test", "!", "-e", told["group"]])
    finally:
        lab.run(["rm", "-r", place])
        lab.run(["pkill", "-xf", "sleep 98765"], check=False)
        agent.wait(lambda: agent.try_json("status"), "the agent to answer again")
        agent.run("reload")


@pytest.mark.long
def test_nothing_is_lost_or_doubled_by_a_hundred_kills(agent: LabAgent) -> None:
    lab = agent.lab
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    begun = int(lab.run(["date", "+%s"]).stdout) + 1
    time.sleep(2)
    for number in range(100):
        if number % 3 == 0 and is_served(lab):
            kill_nginx(lab)
        time.sleep(rng.choice([1.0, 3.0, 8.0]) * rng.random())
        lab.run(["systemctl", "kill", "-s", "KILL", "hostmend"])
    agent.wait(lambda: agent.try_json("status") is not None, "the agent after the last kill")
    agent.wait(lambda: is_served(lab), "the page to be served")
    agent.wait(lambda: agent.json("status")["incidents"] == [], "every incident to end", 180)
    agent.wait(lambda: agent.json("status")["notices_due"] == 0, "every mail to go", 300)

    notices = agent.json("notices", "--limit", "500")["items"]
    runs = agent.json("runs", "--limit", "500")["items"]
    agent.stop()
    serial, numbers, unfinished = json.loads(lab.run(["python3", "-c", COUNT]).stdout)
    print(f"{serial} numbers, {len(runs)} runs, {len(notices)} notices")
    # Each number was given once and is still there: nothing was lost or doubled.
    assert sorted(numbers) == list(range(1, serial + 1))
    assert unfinished == 0
    assert len(runs) > 10
    assert len(notices) > 3
    starts = lab.run(["journalctl", "-u", "nginx", "-o", "cat", "--since", f"@{begun}"]).stdout
    assert starts.count("Started nginx") <= len(runs)

    arrived = Counter(mail["Message-ID"] for mail in agent.mails())
    bodies: dict[str, set[str]] = {}
    for mail in agent.mails():
        bodies.setdefault(mail["Message-ID"], set()).add(mail["Subject"])
    assert len(arrived) == len(notices)
    assert all(len(subjects) == 1 for subjects in bodies.values())
    print(f"{sum(arrived.values()) - len(arrived)} repeated mails")
    agent.wait(lambda: leftovers(lab) == [], "no process to be left over")
