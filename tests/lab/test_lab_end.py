"""Nothing of a host stays on this machine, however its owner ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.lab import Lab, default_cache, sweep

GET = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1/"]
OWNER = """
import sys, time
from pathlib import Path
from agent.lab import Lab
with Lab.boot(Path(sys.argv[1])) as lab:
    lab.volume("/srv/data", "16M")
    lab.run(["systemctl", "start", "nginx"])
    lab.popen(["sleep", "1000"])
    print(lab.name, flush=True)
    time.sleep(1000)
"""


def traces_of(name: str) -> list[str]:
    """Everything on this machine that carries a host's name."""
    found = [line for line in Path("/proc/self/mounts").read_text().splitlines() if name in line]
    loops = ["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"]
    listed = subprocess.run(loops, capture_output=True, text=True, check=True).stdout
    found += [line for line in listed.splitlines() if name in line]
    for base in ("/sys/fs/cgroup", "/run/systemd", default_cache() / "hosts"):
        # Other hosts come and go meanwhile, which os.walk takes as it is.
        for folder, folders, files in os.walk(base):
            found += [f"{folder}/{n}" for n in (*folders, *files) if n.startswith(name)]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes().decode() + (process / "cgroup").read_text()
            told += (process / "root").readlink().as_posix()
        except OSError:
            continue
        if name in told:
            found.append(f"process {process.name}: {told}")
    return found


@contextmanager
def owner_of_a_host(tree: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that has booted a host and sleeps, and the host's name."""
    argv = [sys.executable, "-c", OWNER, str(tree)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        try:
            yield owner, owner.stdout.readline().strip()
        finally:
            owner.kill()
            owner.wait()
            sweep()


def test_nothing_is_left_when_it_was_used_and_done_with(lab_tree: Path) -> None:
    with Lab.boot(lab_tree) as host:
        host.volume("/srv/data", "16M")
        host.run(["systemctl", "start", "nginx"])
        host.run(["sh", "-c", "sleep 1000 >/dev/null 2>&1 &"])
        busy = host.popen(["sleep", "1000"])
        assert len(traces_of(host.name)) > 10
    assert busy.returncode is not None
    assert traces_of(host.name) == []


def test_nothing_is_left_when_a_test_fails(lab_tree: Path) -> None:
    names = []

    def fail_in_a_host() -> None:
        with Lab.boot(lab_tree) as host:
            names.append(host.name)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_a_host()
    assert traces_of(names[0]) == []


def test_nothing_is_left_when_its_owner_is_terminated(lab_tree: Path) -> None:
    with owner_of_a_host(lab_tree) as (owner, name):
        owner.terminate()
        owner.wait()
        assert traces_of(name) == []


def test_what_a_killed_owner_left_is_swept_away_and_live_hosts_are_not(
    lab_tree: Path, lab: Lab
) -> None:
    lab.run(["systemctl", "start", "nginx"])
    with owner_of_a_host(lab_tree) as (owner, name), owner_of_a_host(lab_tree) as (_, other):
        assert name.startswith("hostmend-lab-")
        owner.kill()
        owner.wait()
        sweep()
        assert traces_of(name) == []
        assert len(traces_of(other)) > 10
        assert lab.run(GET).stdout == "200"


def test_two_hosts_at_once_do_not_disturb_each_other(lab_tree: Path, lab: Lab) -> None:
    lab.run(["systemctl", "restart", "nginx"])
    with Lab.boot(lab_tree) as other:
        assert lab.read("/etc/machine-id") != other.read("/etc/machine-id")
        assert other.run(GET, check=False).returncode == 7
        other.run(["systemctl", "start", "nginx"])
        lab.run(["systemctl", "kill", "-s", "KILL", "--kill-who=all", "nginx"])
        lab.wait_for(["systemctl", "is-failed", "nginx"])
        assert other.run(GET).stdout == "200"
        lab.run(["systemctl", "reset-failed", "nginx"])
        lab.run(["systemctl", "start", "nginx"])
    assert lab.run(GET).stdout == "200"
    assert lab.run(["systemctl", "is-system-running"]).stdout.strip() == "running"
