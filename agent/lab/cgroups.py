"""A host's own cgroups. Two hosts that share one end each other's services.

Works with version 1, version 2 and both at once (cgroups(7)).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from agent.errors import Unavailable


def own_cgroups(process: Path = Path("/proc/self")) -> list[Path]:
    """The directory of a process's cgroup in each hierarchy that is mounted.

    Its `cgroup` has the paths, its `mountinfo` (proc_pid_mountinfo(5)) the places.
    """
    paths: dict[frozenset[str], str] = {}
    for line in (process / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        paths[frozenset(controllers.split(",")) - {""}] = path
    known = frozenset[str]().union(*paths)
    found: list[Path] = []
    for line in (process / "mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, place = left.split()[3:5]
        # Version 2 has no controllers in its line; version 1 always has, and so never this key.
        own = paths.get(frozenset(options.split(",")) & known if kind == "cgroup" else frozenset())
        if own is not None:
            inner = os.path.relpath(own, root)
            # Outside of what is mounted here: a container's view. Its root is the best there is.
            found.append(Path(place) if inner.startswith("..") else Path(place, inner))
    return found


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
        members = set[int]().union(*(_members(directory) for directory in present))
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


def _members(directory: Path) -> set[int]:
    pids: set[int] = set()
    for place, _, _ in os.walk(directory):
        with contextlib.suppress(OSError):
            pids.update(map(int, Path(place, "cgroup.procs").read_text().split()))
    return pids


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
