"""A host's own cgroups. Two hosts that share one end each other's services."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from agent.errors import Unavailable
from agent.host.cgroups import list_members


def make_cgroup(directory: Path) -> None:
    """Create a cgroup that takes processes; raises Unavailable."""
    try:
        directory.mkdir(exist_ok=True)
        # cpuset(7): in version 1, none is taken before there are processors and memory nodes.
        if not (directory / "cgroup.type").exists():
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (directory / name).exists():
                    (directory / name).write_text((directory.parent / name).read_text())
    except OSError as error:
        raise Unavailable(f"cannot boot a lab: cannot make cgroup {directory}: {error}") from error


def empty_cgroups(cgroups: Iterable[Path]) -> None:
    """End all processes in these cgroups, and remove the cgroups below; raises Unavailable."""
    present = [directory for directory in cgroups if directory.is_dir()]
    deadline = time.monotonic() + 30
    while True:
        members = set[int]().union(*(list_members(directory) for directory in present))
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        below = sum(_remove_below(directory) for directory in present)
        if not members and not below:
            return
        if time.monotonic() > deadline:
            raise Unavailable(f"cannot end a lab: processes {sorted(members)} do not die")
        time.sleep(0.01)


def remove_cgroups(cgroups: Iterable[Path]) -> None:
    """Empty and remove these cgroups; raises Unavailable."""
    cgroups = list(cgroups)
    empty_cgroups(cgroups)
    for directory in cgroups:
        with contextlib.suppress(FileNotFoundError):
            directory.rmdir()


def _remove_below(directory: Path) -> int:
    """Remove the cgroups below this one that are empty; returns how many are not."""
    left = 0
    for place, _, _ in os.walk(directory, topdown=False):
        if Path(place) != directory:
            try:
                Path(place).rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                left += 1
    return left
