"""Control groups: what was started in one cannot leave it by changing its parent, session or
environment. Works with version 1, version 2 and both at once (cgroups(7))."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from agent.errors import Unavailable

#: What the names of groups made here begin with.
PREFIX = "hostmend-run-"
#: How often a group that somebody removes before it is joined is made again.
_TRIES = 3


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


def find_place() -> Path:
    """The own cgroup in a hierarchy in which groups below it can be made.

    Version 2 first, in which a whole group can be frozen. Raises Unavailable, which says why there
    is none.
    """
    try:
        places = own_cgroups()
    except OSError as error:
        raise Unavailable(f"cannot find the own control group: {error.strerror}") from None
    # cpuset(7): in version 1 a new group takes no process before it was given processors.
    fit = [place for place in places if not (place / "cpuset.cpus").exists() or _is_second(place)]
    why = "none is mounted"
    for place in sorted(fit, key=_is_second, reverse=True):
        probe = place / f"{PREFIX}probe-{os.getpid()}"
        try:
            probe.mkdir()
            probe.rmdir()
        except OSError as error:
            why = f"{place}: {error.strerror}"
        else:
            return place
    raise Unavailable(f"cannot make a control group: {why}")


def _is_second(place: Path) -> bool:
    return (place / "cgroup.controllers").exists()


def join(group: Path) -> bool:
    """Make that group and put this process into it, and so all that it starts; False: it failed."""
    for _ in range(_TRIES):
        with suppress(OSError):
            group.mkdir(exist_ok=True)
            (group / "cgroup.procs").write_text("0")
            return True
    return False


def list_members(group: Path) -> set[int]:
    """The processes in it and in groups below it; none where this process is one of them: what it
    is itself a part of is not what it has started."""
    pids: set[int] = set()
    for place, _, _ in os.walk(group):
        with suppress(OSError):
            pids.update(map(int, Path(place, "cgroup.procs").read_text().split()))
    return set() if os.getpid() in pids else pids


def freeze(group: Path) -> None:
    """Lets none of them go on, so that they can be counted and killed while none is started anew.

    In version 2 (cgroup.freeze, Linux 5.2; a frozen process can be killed). Elsewhere nothing.
    """
    with suppress(OSError):
        if list_members(group):
            (group / "cgroup.freeze").write_text("1")


def remove(group: Path, within: float = 2.0) -> None:
    """Removes it and the groups below it, if nothing is in them any more.

    The kernel holds a group for a moment after the end of its last process: it is tried again for
    so many seconds. Blocks meanwhile.
    """
    until = time.monotonic() + within
    while group.exists():
        for place, _, _ in os.walk(group, topdown=False):
            with suppress(OSError):
                Path(place).rmdir()
        if list_members(group) or time.monotonic() > until:
            return
        if group.exists():
            time.sleep(0.02)


def remove_empty(place: Path) -> None:
    """Removes what is left below a cgroup of groups that were made here."""
    for group in place.glob(f"{PREFIX}*"):
        remove(group, within=0.0)
