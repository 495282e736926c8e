"""The throw-away host is a host, and nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.errors import Unavailable
from agent.lab import Lab, default_cache, sweep

ANSWER = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1/"]


def traces_of(name: str) -> list[str]:
    """Everything on this machine that carries a host's name."""
    found = [line for line in Path("/proc/self/mounts").read_text().splitlines() if name in line]
    loops = subprocess.run(["losetup", "--list"], capture_output=True, text=True, check=True)
    found += [line for line in loops.stdout.splitlines() if name in line]
    for base in (Path("/sys/fs/cgroup"), Path("/run/systemd"), default_cache() / "hosts"):
        found += [str(path) for path in base.rglob(f"*{name}*")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            argv = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            inside = (process / "cgroup").read_text()
        except OSError:
            continue
        if name in argv or name in inside:
            found.append(f"process {process.name}: {argv}")
    return found


def test_systemd_is_its_first_process_and_finds_nothing_wrong(lab: Lab) -> None:
    assert lab.read("/proc/1/comm").strip() == "systemd"
    assert lab.run(["systemctl", "is-system-running"]).stdout.strip() == "running"


def test_run_cannot_execute_anything_as_on_a_real_host(lab: Lab) -> None:
    lab.write("/run/script", "#!/bin/sh\nexit 0\n", 0o755)
    done = lab.run(["sh", "-c", "exec /run/script"], check=False)
    assert done.returncode == 126


def test_the_system_bus_answers(lab: Lab) -> None:
    asked = ["busctl", "--json=short", "get-property", "org.freedesktop.systemd1"]
    asked += ["/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "SystemState"]
    assert '"running"' in lab.run(asked).stdout


def test_nginx_is_there_starts_only_when_told_and_answers(lab: Lab) -> None:
    assert lab.run(["systemctl", "is-enabled", "nginx"], check=False).stdout.strip() == "disabled"
    assert lab.run(["systemctl", "is-active", "nginx"], check=False).stdout.strip() == "inactive"
    lab.run(["systemctl", "start", "nginx"])
    assert lab.run(ANSWER).stdout == "200"


def test_a_service_killed_for_good_is_seen_as_failed(lab: Lab) -> None:
    lab.run(["systemctl", "restart", "nginx"])
    lab.run(["systemctl", "kill", "-s", "KILL", "--kill-who=all", "nginx"])
    lab.wait_for(["systemctl", "is-failed", "nginx"])
    assert lab.run(ANSWER, check=False).returncode == 7
    lab.run(["systemctl", "reset-failed", "nginx"])


def test_the_code_of_this_checkout_is_in_it_and_belongs_to_root(lab: Lab) -> None:
    python = "/opt/hostmend/bin/python"
    lab.run([python, "-P", "-c", "import agent.errors, api, ansible_runner, dbus_fast"])
    where = lab.run([python, "-c", "import agent; print(agent.__path__[0])"]).stdout.strip()
    not_safe = [
        "find",
        where,
        "(",
        "!",
        "-user",
        "root",
        "-o",
        "-perm",
        "/022",
        ")",
        "!",
        "-type",
        "l",
    ]
    assert lab.run(not_safe).stdout == ""
    assert lab.run(["test", "-x", "/usr/local/bin/hostmend"]).returncode == 0


def test_its_network_is_its_own_loopback(lab: Lab) -> None:
    links = lab.run(["ip", "-brief", "link"]).stdout.splitlines()
    assert [line.split()[0] for line in links] == ["lo"]
    assert "127.0.0.1" in lab.run(["getent", "ahosts", "localhost"]).stdout
