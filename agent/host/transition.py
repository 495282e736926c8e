"""What the whole host goes through that forbids repairs: a boot, a shutdown, packages at work."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
from pathlib import Path

from agent.errors import Unavailable
from agent.host.machine import Machine

#: Files that a package manager locks (fcntl(2)) while it changes the system.
PACKAGE_LOCKS = (
    Path("/var/lib/dpkg/lock-frontend"),
    Path("/var/lib/dpkg/lock"),
    Path("/var/lib/rpm/.rpm.lock"),
    Path("/usr/lib/sysimage/rpm/.rpm.lock"),
)
#: Where systemd-logind writes down a shutdown that was ordered for later.
SCHEDULED_SHUTDOWN = Path("/run/systemd/shutdown/scheduled")

#: Seconds before an ordered shutdown from which nothing is begun any more.
_IMMINENT = 60.0
#: A boot that has taken this long is a stuck job by now: repairs must not wait for it.
_LONGEST_BOOT = 600.0

_HOST_STATES = {
    "initializing": "booting",
    "starting": "booting",
    "stopping": "shutting down",
    "maintenance": "in maintenance mode",
}
# struct flock of fcntl(2): type, whence, start, length, process.
_FLOCK = "hhqqi4x"


async def host_transition(machine: Machine) -> str:
    """`booting`, `shutting down`, `in maintenance mode`, `package manager at work`, or empty.

    Needs no process and, with systemd, one small call at most a second. What cannot be known here
    (no systemd, not root and no /proc) counts as none.
    """
    if shutdown_is_imminent(SCHEDULED_SHUTDOWN, machine.clock.now()):
        return "shutting down"
    if machine.systemd is not None:
        try:
            state = _HOST_STATES.get(await machine.systemd.host_state(), "")
        except Unavailable:
            state = ""
        age = asyncio.get_running_loop().time() - machine.systemd.started
        if state and not (state == "booting" and age > _LONGEST_BOOT):
            return state
    if any(is_locked(lock) for lock in PACKAGE_LOCKS):
        return "package manager at work"
    return ""


def shutdown_is_imminent(file: Path, now: float) -> bool:
    """Whether the shutdown written down in this file is near. `now`: seconds since the epoch."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return False
    entries = dict(line.split("=", 1) for line in lines if "=" in line)
    at = entries.get("USEC", "")
    return at.isdigit() and int(at) / 1e6 - now < _IMMINENT


def is_locked(file: Path) -> bool:
    """Whether another process holds a lock on any part of a file. Takes no lock itself."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:
        return _is_listed(file)
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(handle, fcntl.F_GETLK, asked)
    except OSError:
        return _is_listed(file)
    finally:
        os.close(handle)
    kind: int = struct.unpack(_FLOCK, answer)[0]
    return kind != fcntl.F_UNLCK


def _is_listed(file: Path) -> bool:
    """The same from /proc/locks (proc_locks(5)), for a file that must not be opened.

    Only inode numbers are compared: on btrfs and overlayfs stat(2) gives another device than this
    list does.
    """
    try:
        inode = str(file.stat().st_ino)
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return False
    # `1: POSIX  ADVISORY  WRITE 708 08:01:263 0 EOF`; a second word `->` is one that still waits.
    words = [line.split() for line in lines]
    return any(
        len(word) > 5 and word[1] == "POSIX" and word[5].rpartition(":")[2] == inode
        for word in words
    )
