"""How long a killed nginx is away: hostmend beside systemd and ansible-rulebook, on one host.

    python bench/heal.py [--rounds 8]

Each round kills nginx once under each contender, in turn, so that whatever else the machine does
falls on all of them. What counts is the time from the kill to the first HTTP 200, asked for every
2 ms. Needs root (docs/lab.md). ansible-rulebook takes part with --rulebook, which builds a lab that
has it and the Java it needs (some minutes, once); its source asks systemd every 50 ms.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "lab")]

from lab_agent import LabAgent  # noqa: E402

from agent.lab import Lab, build  # noqa: E402
from agent.lab.tree import runtime_requirements  # noqa: E402

CONFIGURATION = """\
version: 1
policy: {{runs_per_hour: 1000, warm: {warm}}}
checks:
  web:
    type: service
    unit: nginx.service
    every: 10s
    stable_for: 1s
    cool_down: 100ms
    attempts: 100
"""

#: Runs inside the host: kills every process of nginx, then asks until it is served again.
KILL_AND_ASK = """
import http.client, json, os, signal, sys, time
pids = [int(p) for p in open('/sys/fs/cgroup{cgroup}/cgroup.procs').read().split()]
began = time.monotonic()
for pid in pids:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
while time.monotonic() - began < 60:
    try:
        link = http.client.HTTPConnection('127.0.0.1', 80, timeout=1)
        link.request('GET', '/')
        if link.getresponse().status == 200:
            print(json.dumps(time.monotonic() - began))
            sys.exit()
    except OSError:
        pass
    finally:
        link.close()
    time.sleep(0.002)
sys.exit('not served again within 60 s')
"""


#: ansible-rulebook's side: a source that asks systemd, a rule, a playbook.
SOURCE = """
import asyncio, subprocess

async def main(queue, args):
    asked = ["systemctl", "is-failed", "--quiet", "nginx"]
    while True:
        if subprocess.run(asked).returncode == 0:
            await queue.put({"down": True})
            await asyncio.sleep(5)
        await asyncio.sleep(args["delay"])
"""
RULEBOOK = """
- name: nginx
  hosts: localhost
  sources:
    - unit_down: {delay: 0.05}
  rules:
    - name: restart
      condition: event.down == true
      action: {run_playbook: {name: /etc/rulebook/restart.yml}}
"""
PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.systemd_service: {name: nginx, state: restarted}
"""
INVENTORY = "all: {hosts: {localhost: {ansible_connection: local}}}\n"
RULEBOOK_UNIT = """
[Service]
Environment=PATH=/opt/hostmend/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
ExecStart=/opt/hostmend/bin/ansible-rulebook -r /etc/rulebook/rulebook.yml \\
    -i /etc/rulebook/inventory.yml -S /etc/rulebook
"""


@dataclass(frozen=True, kw_only=True)
class Contender:
    name: str
    begin: Callable[[], None]
    end: Callable[[], None]


def measure(lab: Lab) -> float:
    """Seconds from the kill to the first 200."""
    cgroup = lab.run(["systemctl", "show", "-p", "ControlGroup", "--value", "nginx"]).stdout.strip()
    found = lab.run(
        ["sh", "-c", f"ls -d /sys/fs/cgroup{cgroup} /sys/fs/cgroup/*{cgroup} 2>/dev/null"],
        check=False,
    ).stdout.split()
    place = next(f for f in found if "unified" in f or "systemd" in f or f.count("/") > 3)
    script = KILL_AND_ASK.replace("/sys/fs/cgroup{cgroup}", place)
    return float(json.loads(lab.run(["python3", "-c", script], timeout=90).stdout))


def make_contenders(lab: Lab) -> list[Contender]:
    agent = LabAgent(lab)

    def begin_hostmend(warm: bool) -> Callable[[], None]:
        def begin() -> None:
            agent.install(CONFIGURATION.format(warm=str(warm).lower()))
            agent.start()
            agent.wait(lambda: agent.get("checks")["items"][0]["status"] == "ok", "a first look")
            lab.run(["sleep", "3"])

        return begin

    drop_in = "/run/systemd/system/nginx.service.d/bench.conf"

    def begin_systemd() -> None:
        lab.run(["mkdir", "-p", str(Path(drop_in).parent)])
        lab.write(drop_in, "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestart=always\n")
        lab.run(["systemctl", "daemon-reload"])

    def end_systemd() -> None:
        lab.run(["rm", drop_in])
        lab.run(["systemctl", "daemon-reload"])

    def begin_rulebook() -> None:
        lab.run(["mkdir", "-p", "/etc/rulebook"])
        for name, text in (
            ("unit_down.py", SOURCE),
            ("rulebook.yml", RULEBOOK),
            ("restart.yml", PLAYBOOK),
            ("inventory.yml", INVENTORY),
        ):
            lab.write(f"/etc/rulebook/{name}", text)
        lab.write("/etc/systemd/system/rulebook.service", RULEBOOK_UNIT)
        lab.run(["systemctl", "daemon-reload"])
        lab.run(["systemctl", "start", "rulebook"])
        # It says nothing of when it is ready.
        lab.run(["sleep", "12"])

    def end_rulebook() -> None:
        lab.run(["systemctl", "stop", "rulebook"])

    contenders = [
        Contender(name="systemd Restart=always", begin=begin_systemd, end=end_systemd),
        Contender(name="hostmend", begin=begin_hostmend(False), end=agent.forget),
        Contender(name="hostmend, warm", begin=begin_hostmend(True), end=agent.forget),
    ]
    if lab.run(["test", "-x", "/opt/hostmend/bin/ansible-rulebook"], check=False).returncode == 0:
        rulebook = Contender(name="ansible-rulebook", begin=begin_rulebook, end=end_rulebook)
        contenders.append(rulebook)
    else:
        print("ansible-rulebook is not in this lab and takes no part", file=sys.stderr)
    return contenders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--rulebook", action="store_true")
    given = parser.parse_args()
    rounds = given.rounds
    tree = None
    if given.rulebook:
        python = (*runtime_requirements(), "ansible-rulebook>=1.1,<2")
        tree = build(packages=["default-jre-headless"], requirements=python)
    with Lab.boot(tree) as lab:
        contenders = make_contenders(lab)
        seconds: dict[str, list[float]] = {one.name: [] for one in contenders}
        for number in range(rounds):
            for one in contenders:
                lab.run(["systemctl", "reset-failed"], check=False)
                lab.run(["systemctl", "start", "nginx"])
                one.begin()
                try:
                    seconds[one.name].append(measure(lab))
                finally:
                    one.end()
                print(
                    f"round {number + 1} of {rounds}: {one.name} {seconds[one.name][-1]:.3f} s",
                    file=sys.stderr,
                )
    base = statistics.median(seconds[contenders[0].name])
    print(f"kill of nginx to HTTP 200, seconds, {rounds} rounds, interleaved on one host")
    print(f"{'':<26}{'median':>8}{'min':>8}{'max':>8}{'ratio':>8}")
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(f"{name:<26}{median:>8.3f}{min(taken):>8.3f}{max(taken):>8.3f}{median / base:>8.2f}")


if __name__ == "__main__":
    main()
