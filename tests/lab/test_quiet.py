"""A healthy host on which people work: hostmend sees everything, and has nothing to say."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_agent import MAIL_ROUTE, LabAgent

from agent.config.defaults import DEFAULTS
from agent.documents import write_document
from agent.lab import Lab

PACKAGE = {
    "DEBIAN/control": """\
Package: hm-service
Version: {version}
Architecture: all
Maintainer: Nobody <nobody@example.org>
Description: a service that its package restarts
""",
    "DEBIAN/postinst": "#!/bin/sh\nset -e\nsystemctl daemon-reload\nsystemctl restart hm-service\n",
    "lib/systemd/system/hm-service.service": "[Service]\nExecStart=/bin/sleep {version}00000\n",
}


@pytest.fixture(scope="module")
def agent(lab_tree: Path) -> Iterator[LabAgent]:
    with Lab.boot(lab_tree) as lab:
        for version in (1, 2):
            place = f"/root/build/{version}"
            for path, text in PACKAGE.items():
                mode = 0o755 if path.endswith("postinst") else 0o644
                lab.write(f"{place}/{path}", text.format(version=version), mode)
            lab.run(["dpkg-deb", "--build", place, f"/root/hm-service_{version}_all.deb"])
        unit = "[Service]\nType=oneshot\nExecStart={}\n"
        lab.write("/etc/systemd/system/job.service", unit.format("/bin/true"))
        lab.write("/etc/systemd/system/badjob.service", unit.format("/bin/false"))
        yield LabAgent(lab)


@pytest.fixture
def bare(agent: LabAgent) -> Iterator[LabAgent]:
    """The agent at work without any configuration."""
    agent.install("")
    agent.lab.run(["rm", "/etc/hostmend/hostmend.yml"])
    agent.start()
    yield agent
    agent.forget()


def count_looks(agent: LabAgent) -> float:
    """Looks since the agent's start, as it says of itself."""
    for check in agent.get("checks")["items"]:
        for finding in check["findings"]:
            if check["name"] == "self" and finding["subject"] == "agent":
                return float(finding["measurements"]["looks_count"])
    return 0.0


def test_without_a_configuration_it_looks_at_what_every_host_has(bare: LabAgent) -> None:
    def all_ok() -> bool:
        checks = {check["name"]: check["status"] for check in bare.get("checks")["items"]}
        return checks == dict.fromkeys(DEFAULTS, "ok")

    bare.wait(all_ok, "every default to be looked at and ok")
    assert bare.run("status").startswith(f"lab: ok ({len(DEFAULTS)} ok)")
    told = bare.lab.run(["hostmend", "check"], check=False)
    assert (told.returncode, told.stdout.splitlines()[0]) == (
        0,
        f"OK: {len(DEFAULTS)} checks",
    )


def test_without_a_configuration_it_reports_and_repairs_nothing(bare: LabAgent) -> None:
    bare.lab.run(["systemctl", "start", "badjob"], check=False)
    incident = bare.wait(
        lambda: next(iter(bare.incidents()), None), "the failed unit to be an incident"
    )
    assert (incident["check"], incident["subject"]) == ("failed-units", "badjob.service")
    bare.wait(
        lambda: bare.incidents()[0]["state"] == "escalated",
        "a human to be asked for, as no remedy is",
    )
    assert bare.runs() == []
    bare.lab.run(["systemctl", "reset-failed", "badjob"])
    bare.wait(
        lambda: bare.incidents()[0]["state"] in ("probation", "resolved"), "it to be well again"
    )


WORK = """
import os, subprocess, sys, time
def sh(line):
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'{line} ended with {done.returncode}: {done.stdout}{done.stderr}')
rounds = 0
while not os.path.exists('/run/enough'):
    sh('apt-get install --yes --allow-downgrades /root/hm-service_1_all.deb')
    sh('apt-get install --yes /root/hm-service_2_all.deb')
    sh('logrotate --force /etc/logrotate.conf')
    sh('systemctl restart nginx')
    sh('systemctl reload nginx')
    sh('systemctl start job')
    sh('systemctl daemon-reload')
    sh('apt-get remove --purge --yes hm-service')
    rounds += 1
    time.sleep(0.2)
print(rounds)
"""


#: An hour of looks at `every: 10s` is 360 of each check.
@pytest.mark.parametrize("looks", [60, pytest.param(360, marks=pytest.mark.long)])
def test_looks_at_a_healthy_host_that_is_worked_on_make_no_incident(
    agent: LabAgent, looks: int
) -> None:
    checks = {name: {**options, "every": "100ms"} for name, options in DEFAULTS.items()}
    checks["web"] = {"type": "service", "unit": "nginx.service", "every": "100ms", "ladder": []}
    written = textwrap.indent(write_document(checks), "  ")
    route = f'{{url: "{MAIL_ROUTE}", reasons: [opened, escalated, held, ended, agent]}}'
    agent.install(f"version: 1\nchecks:\n{written}routes: {{ops: {route}}}\n")
    agent.lab.run(["systemctl", "reset-failed"])
    agent.lab.run(["rm", "-f", "/run/enough"])
    agent.lab.run(["systemctl", "start", "nginx"])
    agent.start_mail()
    agent.start()
    wanted = looks * len(checks)
    worker = agent.lab.popen(["python3", "-c", WORK], stdout=-1, stderr=-1, text=True)
    try:
        agent.wait(
            lambda: worker.poll() is not None or count_looks(agent) >= wanted,
            f"{wanted} looks",
            seconds=400,
        )
    finally:
        agent.lab.write("/run/enough", "")
        out, err = worker.communicate(timeout=120)
    assert worker.returncode == 0, err
    assert int(out) >= 2
    print(f"{count_looks(agent):.0f} looks while packages were installed {2 * int(out)} times")
    assert agent.incidents() == []
    assert agent.mails() == []
    agent.forget()
