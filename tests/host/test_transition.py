"""The host's transitions, without systemd. With it: tests/lab/test_service_check.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.clock import Clock
from agent.host import transition
from agent.host.machine import Machine
from agent.host.transition import host_transition, is_locked, shutdown_is_imminent

HOLD = """
import fcntl, sys
with open(sys.argv[1], "w") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A file that another process holds a lock on, as dpkg does."""
    file = tmp_path / "lock-frontend"
    argv = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        yield file
        holder.communicate()


def test_a_lock_of_another_process_is_seen_and_gone_with_it(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.touch()
    assert not is_locked(file)
    argv = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert is_locked(file)
        holder.communicate()
    assert not is_locked(file)


def test_looking_at_a_lock_does_not_take_it(locked: Path, tmp_path: Path) -> None:
    free = tmp_path / "free"
    free.touch()
    assert not is_locked(free)
    take = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    subprocess.run([sys.executable, "-c", take, str(free)], check=True)


def test_a_file_that_cannot_be_opened_is_looked_up_in_the_list_of_locks(locked: Path) -> None:
    assert transition._is_listed(locked)
    other = locked.with_name("other")
    other.touch()
    assert not transition._is_listed(other)


def test_a_lock_file_that_is_not_there_is_not_locked(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "nothing")


async def test_a_package_manager_at_work_is_a_transition(
    locked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transition, "PACKAGE_LOCKS", (locked,))
    assert await host_transition(Machine(clock=Clock())) == "package manager at work"


async def test_a_quiet_host_without_systemd_is_in_no_transition(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(transition, "PACKAGE_LOCKS", (tmp_path / "lock",))
    monkeypatch.setattr(transition, "SCHEDULED_SHUTDOWN", tmp_path / "scheduled")
    assert await host_transition(Machine(clock=Clock())) == ""


@pytest.mark.parametrize(
    ("text", "imminent"),
    [
        ("USEC=1000030000000\nWARN_WALL=1\nMODE=reboot\n", True),
        ("USEC=1003600000000\nWARN_WALL=1\nMODE=reboot\n", False),
        ("USEC=999000000000\nMODE=poweroff\n", True),
        ("USEC=soon\n", False),
        ("", False),
    ],
)
def test_a_shutdown_within_a_minute_is_imminent(tmp_path: Path, text: str, imminent: bool) -> None:
    file = tmp_path / "scheduled"
    file.write_text(text)
    assert shutdown_is_imminent(file, 1_000_000.0) is imminent


def test_no_ordered_shutdown_is_not_imminent(tmp_path: Path) -> None:
    assert not shutdown_is_imminent(tmp_path / "scheduled", 1_000_000.0)
