"""What a host has on this machine while it runs, and how all of it goes.

Everything lies in `hosts/NAME/` of the cache or carries the NAME, and the NAME says whose it is:

    cgroups      the directories of its cgroups, one a line
    console.log  what its console printed
    disk/        tmpfs: the overlay's upper layer, and the images of its volumes
    root/        the overlay: the root of its file system
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import time
from pathlib import Path

from agent.errors import Unavailable
from agent.lab.cgroups import remove_cgroups
from agent.lab.machine import default_cache, execute, remove_tree, say

PREFIX = "hostmend-lab-"
_numbers = itertools.count(1)


def new_name() -> str:
    """A name for a host that this process owns: its number, its start time, a count."""
    pid = os.getpid()
    return f"{PREFIX}{pid}-{_start_time(pid)}-{next(_numbers)}"


def sweep(cache: Path | None = None) -> list[str]:
    """Remove the hosts whose owners are dead and return their names; the others are not touched.

    One that resists (somebody's shell stands in its files) is told and left to the next sweep.
    """
    hosts = (cache or default_cache()) / "hosts"
    hosts.mkdir(parents=True, exist_ok=True)
    with (hosts / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        swept = []
        for directory in sorted(hosts.glob(f"{PREFIX}*")):
            if _owner_lives(directory.name):
                continue
            try:
                discard(directory)
            except Unavailable as error:
                say(f"{directory.name} is left for the next time: {error}")
            else:
                swept.append(directory.name)
    return swept


def remove_cache(cache: Path) -> None:
    """Remove the trees, and what dead hosts left; raises Unavailable while a host lives on them."""
    sweep(cache)
    living = [place.name for place in (cache / "hosts").glob(f"{PREFIX}*")]
    if living:
        raise Unavailable(f"cannot remove {cache}: {', '.join(living)} still runs; end it first")
    for name in ("hosts", "trees"):
        remove_tree(cache / name)


def discard(directory: Path) -> None:
    """End a host's processes and remove its mounts, loop devices, cgroups and files.

    Each step takes for granted only that the ones before it are done, so a discard that was
    interrupted is finished by the next. Raises Unavailable.
    """
    with contextlib.suppress(FileNotFoundError):
        remove_cgroups(map(Path, (directory / "cgroups").read_text().splitlines()))
    _unmount(directory / "root")
    _detach_loops(directory / "disk")
    _unmount(directory / "disk")
    # nspawn removes this itself unless it is killed.
    remove_tree(Path("/run/systemd/nspawn/propagate", directory.name))
    remove_tree(directory)


def _start_time(pid: int) -> str | None:
    """When a process started, in clock ticks since boot (proc_pid_stat(5), field 22)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]


def _owner_lives(name: str) -> bool:
    pid, started = name.removeprefix(PREFIX).split("-")[:2]
    return _start_time(int(pid)) == started


def _unmount(place: Path) -> None:
    deadline = time.monotonic() + 10
    while place.is_mount():
        try:
            execute(["umount", place])
        except Unavailable:
            # Whatever looks through all mounts now and then may stand in it for a moment.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _detach_loops(place: Path) -> None:
    listed = execute(["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"])
    for line in listed.splitlines():
        device, _, file = line.strip().partition(" ")
        if file.strip().startswith(f"{place}/"):
            execute(["losetup", "--detach", device])
