"""Full disks, hostmend's own among them: cleaned, told, and nothing lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_agent import MAIL_ROUTE, LabAgent, body_of

from agent.lab import Lab

DATA = "/srv/data"
STATE = f"{DATA}/hostmend"

CONFIGURATION = f"""\
version: 1
policy: {{runs_per_hour: 50, storm: {{at: 3, within: 1h, group_wait: 1s}}}}
checks:
  data:
    type: disk
    path: {DATA}
    every: 2s
    stable_for: 2s
    ladder:
      - remedy: clean-disk
        options: {{log_directories: [{DATA}/log], ballast: {DATA}/ballast}}
  web: {{type: service, unit: nginx.service, every: 2s, stable_for: 2s}}
  one: {{type: service, unit: writer@1.service, every: 2s, stable_for: 2s}}
  two: {{type: service, unit: writer@2.service, every: 2s, stable_for: 2s}}
routes:
  ops:
    url: "{MAIL_ROUTE}"
    reasons: [escalated, held, healed, ended, recurring, storm]
"""

WRITER = f"""\
[Unit]
Description=Something that writes
[Service]
ExecStart=/usr/bin/python3 /root/write.py {DATA}/out-%i
"""

WRITE = """\
import sys, time
with open(sys.argv[1], "ab", 0) as file:
    while True:
        file.write(bytes(4096))
        time.sleep(0.2)
"""

#: Fills to the last byte or inode, as root, so that nothing of the reserve is left either.
FILL = """\
import os, sys
what, place = sys.argv[1:]
os.makedirs(place, exist_ok=True)
number = 0
try:
    while what == "inodes":
        open(f"{place}/{number}", "x").close()
        number += 1
except OSError:
    sys.exit(0)
with open(f"{place}/fill", "ab", 0) as file:
    for size in (1 << 20, 4096, 1):
        try:
            while True:
                file.write(bytes(size))
        except OSError:
            pass
"""

#: What is never touched, however old it is.
PRECIOUS = [
    f"{DATA}/mysql/ib_logfile0",
    f"{DATA}/mysql/mariadb-bin.000001",
    f"{DATA}/pgsql/pg_wal/000000010000000000000001",
    f"{DATA}/docker/volumes/shop/_data/orders.1",
    f"{DATA}/backups/shop.1.gz",
    f"{DATA}/mail/root",
    f"{DATA}/tmp/upload.1.gz",
    f"{DATA}/log/app.log",
    f"{DATA}/log/audit.log",
    f"{DATA}/log/audit.log.1",
    f"{DATA}/log/audit.log.2.gz",
    f"{DATA}/log/auth.log",
    f"{DATA}/log/auth.log.2.gz",
    f"{DATA}/log/wtmp",
    f"{DATA}/log/wtmp.1",
    f"{DATA}/log/dump.sql",
    f"{DATA}/log/dump.sql.2.gz",
    f"{DATA}/log/orphan.log.2.gz",
    f"{DATA}/log/below/app.log",
    f"{DATA}/log/below/app.log.2.gz",
    "/var/log/other.log",
    "/var/log/other.log.2.gz",
]

FULL_STORY = ["pending", "open", "repairing", "verifying", "probation", "resolved"]


@pytest.fixture(scope="module")
def agent(lab: Lab) -> LabAgent:
    lab.volume(DATA, "40M")
    lab.write("/etc/systemd/system/writer@.service", WRITER)
    lab.write("/root/fill.py", FILL)
    lab.write("/root/write.py", WRITE)
    lab.write("/root/plant.py", PLANT)
    lab.write(
        "/etc/systemd/system/hostmend.service.d/state.conf",
        f"[Service]\nEnvironment=HOSTMEND_STATE_DIR={STATE}\n",
    )
    installed = LabAgent(lab)
    installed.install(CONFIGURATION)
    for path in PRECIOUS:
        lab.write(path, f"this is {path}\n")
    lab.run(["touch", "-d", "60 days ago", *PRECIOUS])
    # A link with the name of an old log.
    lab.run(["ln", "-s", f"{DATA}/mysql/ib_logfile0", f"{DATA}/log/app.log.9999.gz"])
    return installed


@pytest.fixture
def running(agent: LabAgent) -> Iterator[LabAgent]:
    """Everything up, half of the disk in use, and an agent that knows of nothing."""
    lab = agent.lab
    lab.run(["systemctl", "start", "nginx", "writer@1", "writer@2"])
    agent.start_mail()
    agent.start()
    before = fingerprint(lab)
    yield agent
    assert fingerprint(lab) == before, "something that must never be touched was"
    lab.run(["systemctl", "stop", "writer@1", "writer@2", "mail"])
    agent.forget()
    lab.run(["rm", "-rf", STATE, f"{DATA}/full", f"{DATA}/ballast"])
    lab.run(["sh", "-c", f"rm -f {DATA}/out-*"])
    old = ["-maxdepth", "1", "-type", "f", "-name", "app.log.*"]
    lab.run(["find", f"{DATA}/log", *old, "-delete"])
    lab.run(["systemctl", "reset-failed"], check=False)


def fingerprint(lab: Lab) -> str:
    return lab.run(["sha256sum", *PRECIOUS]).stdout + lab.run(["stat", "-c%Y", *PRECIOUS]).stdout


#: Writes rotated logs that are a month old.
PLANT = """\
import os, sys, time
place, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
month_ago = time.time() - 30 * 86400
for number in range(1, count + 1):
    path = f"{place}/app.log.{number}.gz"
    with open(path, "wb") as file:
        file.write(bytes(size))
    os.utime(path, (month_ago, month_ago))
"""


def plant_logs(lab: Lab, count: int, size: int) -> None:
    lab.run(["python3", "/root/plant.py", f"{DATA}/log", str(count), str(size)])


def fill(lab: Lab, what: str) -> None:
    lab.run(["python3", "/root/fill.py", what, f"{DATA}/full"])


def df(lab: Lab, field: str) -> int:
    words = lab.run(["df", f"--output={field}", DATA]).stdout.split()
    return int(words[-1].rstrip("%"))


def find_incident(agent: LabAgent, check: str, state: str) -> dict[str, Any] | None:
    return next((i for i in agent.incidents() if i["check"] == check and i["state"] == state), None)


def wait_for(agent: LabAgent, check: str, state: str) -> dict[str, Any]:
    found: dict[str, Any] = agent.wait(
        lambda: find_incident(agent, check, state), f"an incident of {check} to be {state}"
    )
    return found


@pytest.mark.parametrize(
    ("what", "field", "count", "size"),
    [("bytes", "avail", 12, 1200 * 1024), ("inodes", "iavail", 2600, 0)],
)
def test_a_disk_without_anything_left_is_cleaned_and_told_and_nothing_is_lost(
    running: LabAgent, what: str, field: str, count: int, size: int
) -> None:
    lab = running.lab
    lab.run(["systemctl", "stop", "writer@1", "writer@2"])
    plant_logs(lab, count, size)
    lab.run(["touch", f"{DATA}/log/app.log.1.gz"])
    fill(lab, what)
    assert df(lab, field) == 0
    incident = wait_for(running, "data", "resolved")
    assert incident["resolved_by"] == "run"
    assert incident["subject"] == DATA
    (run,) = running.runs()
    assert (run["remedy"], run["outcome"]) == ("clean-disk", "ok")
    assert "rotated logs" in run["detail"]
    assert df(lab, "ipcent" if what == "inodes" else "pcent") <= 80
    left = lab.run(["sh", "-c", f"ls {DATA}/log/app.log.* | wc -l"]).stdout
    assert int(left) > 2, "it went on after the target was reached"
    lab.run(["test", "-e", f"{DATA}/log/app.log.1.gz"])
    lab.run(["test", "-L", f"{DATA}/log/app.log.9999.gz"])

    story = running.json("incident", "show", incident["id"])
    assert [t["new"] for t in story["transitions"]] == FULL_STORY
    before = [item["title"] for item in story["evidence"] if item["when"] == "before"]
    assert f"Largest directories of {DATA}" in before
    mail = running.wait(lambda: running.mails(), "the mail")[0]
    assert mail["Subject"].startswith(f"[healed] {DATA}")
    assert "rotated logs" in body_of(mail)
    if what == "inodes":
        assert f"Directories of {DATA} with most files" in before
        return
    running.lab.run(["systemctl", "restart", "hostmend"])
    running.wait(running.answers, "the agent to answer again")
    again = running.json("incident", "show", incident["id"])
    assert [t["new"] for t in again["transitions"]] == FULL_STORY


def test_a_full_disk_that_nobody_can_clean_does_not_keep_a_dead_service_down(
    running: LabAgent,
) -> None:
    lab = running.lab
    lab.run(["systemctl", "stop", "writer@1", "writer@2"])
    size = df(lab, "avail") + df(lab, "used")
    grow = size * 96 // 100 - df(lab, "used") + 64
    lab.run(["sh", "-c", f"mkdir {DATA}/full; head -c {grow}K /dev/zero > {DATA}/full/fill"])
    incident = wait_for(running, "data", "escalated")
    assert "nothing could be freed" in incident["why"]
    assert f"{DATA}/full" in incident["why"], "the largest directory is not named"
    lab.run(["systemctl", "kill", "-s", "KILL", "--kill-who=all", "nginx"])
    healed = wait_for(running, "web", "resolved")
    assert healed["resolved_by"] == "run"
    running.wait(lambda: len(running.mails()) >= 2, "both mails")
    subjects = {str(mail["Subject"]).split(" on ")[0] for mail in running.mails()}
    assert {f"[escalated] {DATA}", "[healed] nginx.service"} <= subjects


@pytest.mark.long
def test_services_that_a_full_disk_killed_come_up_after_it_and_one_message_tells(
    running: LabAgent,
) -> None:
    """Nothing is repaired until all three failed and were told of: no order of arrival matters."""
    lab = running.lab
    running.run("pause")
    plant_logs(lab, 12, 1200 * 1024)
    fill(lab, "bytes")
    for check in ("one", "two"):
        running.wait(
            lambda check=check: blames_the_disk(running, check), f"{check} to fail for want of room"
        )
    wait_for(running, "data", "open")
    running.wait(lambda: storms(running), "the message of a storm")
    assert running.runs() == []

    running.run("resume")
    for check in ("data", "one", "two"):
        wait_for(running, check, "resolved")
    runs = running.runs()
    assert [run["remedy"] for run in runs] == ["clean-disk", "restart-service", "restart-service"]
    assert {run["outcome"] for run in runs} == {"ok"}
    assert storms(running) == ["3 failures at once, treated as one cause"]

    # It lasts for an hour after the last failure, unless somebody sees that differently.
    shorter = CONFIGURATION.replace("within: 1h", "within: 1s")
    lab.write("/etc/hostmend/hostmend.yml", shorter, 0o600)
    try:
        running.run("reload")
        running.wait(lambda: len(storms(running)) > 1, "the message of its end")
    finally:
        lab.write("/etc/hostmend/hostmend.yml", CONFIGURATION, 0o600)
    assert storms(running)[1:] == ["the storm is over; of 3 failures all are over"]
    body = body_of(running.mails()[-1])
    assert body.count("(repaired, proved)") == 3
    assert running.get("status")["storm"] is None
    assert running.get("status")["incidents"] == []


def blames_the_disk(agent: LabAgent, check: str) -> bool:
    incident = find_incident(agent, check, "open")
    return incident is not None and f"no room on {DATA}" in incident["finding"]["summary"]


def storms(agent: LabAgent) -> list[str]:
    """What the mails say after the host's name, which must all be about the storm."""
    subjects = [str(mail["Subject"]).partition(" — ") for mail in agent.mails()]
    assert {subject for subject, _, _ in subjects} <= {"[storm] lab"}
    return [said for _, _, said in subjects]


@pytest.mark.long
def test_a_ballast_buys_time_and_calls_for_a_human(running: LabAgent) -> None:
    lab = running.lab
    lab.run(["systemctl", "stop", "writer@1", "writer@2"])
    running.run("remedy", "run", "make-ballast", "-o", f"path={DATA}/ballast", "-o", "size_mb=8")
    running.wait(
        lambda: lab.run(["test", "-e", f"{DATA}/ballast"], check=False).returncode == 0,
        "the ballast to be made",
    )
    fill(lab, "bytes")
    incident = wait_for(running, "data", "escalated")
    assert "the ballast is spent, which buys time and cures nothing" in incident["why"]
    assert lab.run(["test", "-e", f"{DATA}/ballast"], check=False).returncode == 1
    assert df(lab, "avail") > 4000


ROOT = f"""\
version: 1
checks:
  root: {{type: disk, path: /, every: 2s, stable_for: 2s, timeout: 20s}}
  web: {{type: service, unit: nginx.service, every: 2s, stable_for: 2s}}
routes:
  ops: {{url: "{MAIL_ROUTE}", reasons: [escalated, held, healed, ended]}}
"""


def install_on_root(lab: Lab) -> LabAgent:
    """State, logs, mail and package cache all on `/`."""
    agent = LabAgent(lab)
    agent.install(ROOT)
    lab.write("/root/fill.py", FILL)
    lab.write("/root/plant.py", PLANT)
    lab.run(["systemctl", "start", "nginx"])
    agent.start_mail()
    agent.start()
    return agent


@pytest.mark.long
@pytest.mark.parametrize(
    ("what", "field", "size", "count", "each"),
    [
        ("bytes", "avail", "500m", 40, 3_000_000),
        ("inodes", "iavail", "500m,nr_inodes=9000", 4000, 100),
    ],
    ids=["bytes", "inodes"],
)
def test_a_root_without_anything_left_is_cleaned_and_told_and_nothing_is_lost(
    lab_tree: Path, what: str, field: str, size: str, count: int, each: int
) -> None:
    with Lab.boot(lab_tree, size=size) as lab:
        agent = install_on_root(lab)
        caches = "/var/cache/apt/archives"
        debs = f"for n in $(seq 1 {count}); do head -c {each} /dev/zero > {caches}/p$n.deb; done"
        lab.run(["sh", "-c", f"mkdir -p {caches}; {debs}"])
        lab.write("/var/log/app.log", "live\n")
        lab.run(["python3", "/root/plant.py", "/var/log", "10", "1000000"])
        precious = ["/var/log/audit.log.1", "/tmp/old.1.gz", "/var/lib/mysql/ib_logfile0"]
        for path in precious:
            lab.write(path, path)
        lab.run(["touch", "-d", "60 days ago", *precious])
        lab.run(["python3", "/root/fill.py", what, "/root/full"])
        assert int(lab.run(["df", f"--output={field}", "/"]).stdout.split()[-1]) == 0
        incident = agent.wait(
            lambda: find_incident(agent, "root", "resolved"), "the root to be clean", 120
        )
        assert incident["resolved_by"] == "run"
        (run,) = agent.runs()
        assert "apt's package cache" in run["detail"]
        (mail,) = agent.wait(agent.mails, "the mail")
        assert mail["Subject"].startswith("[healed] /")
        assert [lab.read(path) for path in precious] == precious
        lab.run(["systemctl", "kill", "-s", "KILL", "hostmend"])
        agent.wait(agent.answers, "the agent to answer again")
        story = agent.json("incident", "show", incident["id"])
        assert [t["new"] for t in story["transitions"]] == FULL_STORY
        assert {notice["state"] for notice in story["notices"]} == {"delivered"}
        assert agent.get("status")["problems"] == []


@pytest.mark.long
def test_a_root_that_nobody_can_clean_does_not_keep_a_dead_service_down(lab_tree: Path) -> None:
    with Lab.boot(lab_tree, size="500m") as lab:
        agent = install_on_root(lab)
        used, free = map(int, lab.run(["df", "--output=used,avail", "/"]).stdout.split()[-2:])
        grow = (used + free) * 96 // 100 - used
        lab.run(["sh", "-c", f"mkdir /root/full; head -c {grow}K /dev/zero > /root/full/fill"])
        incident = wait_for(agent, "root", "escalated")
        assert "nothing could be freed on /" in incident["why"]
        assert "/root/full" in incident["why"], "the largest directory is not named"
        lab.run(["systemctl", "kill", "-s", "KILL", "--kill-who=all", "nginx"])
        assert wait_for(agent, "web", "resolved")["resolved_by"] == "run"
        lab.run(["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1/"])
        agent.wait(lambda: len(agent.mails()) >= 2, "both mails")
        subjects = {str(mail["Subject"]).split(" on ")[0] for mail in agent.mails()}
        assert subjects == {"[escalated] /", "[healed] nginx.service"}
        assert find_incident(agent, "root", "escalated"), "the disk was forgotten"
