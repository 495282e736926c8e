"""Whom the kernel killed for want of memory: what its log says of that.

The lines are written by mm/oom_kill.c: `oom-kill:constraint=...,task_memcg=...,pid=...` since Linux
5.0, and `Out of memory: Killed process ...` for each victim.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from agent.host.journal import read_kernel_log

_KMSG = "/dev/kmsg"
#: Most that is read of the kernel's log: its ring holds less than this on all but odd hosts.
_MOST_BYTES = 16 * 2**20
#: A record of the ring is at most so long (kernel.h, PRINTKRB_RECORD_MAX and its prefix).
_RECORD = 8192

_KILLED = re.compile(
    r"(?P<where>Memory cgroup out of memory|Out of memory)[^:]*: Killed process (?P<pid>\d+) "
    r"\((?P<name>.*)\),? (?:UID|total-vm).*?anon-rss:(?P<anon>\d+)kB"
)
_CHOSEN = re.compile(
    r"oom-kill:constraint=.*?,task_memcg=(?P<cgroup>/.*?),task=.*,pid=(?P<pid>\d+),uid="
)


@dataclass(frozen=True, kw_only=True)
class Victim:
    """One process that the kernel killed."""

    pid: int
    name: str
    #: Its own memory when it was killed, in bytes.
    memory: int
    #: The systemd unit that it belonged to; empty where the kernel does not say.
    unit: str
    #: Only a limit of its control group was reached, and not the host's memory.
    limited: bool

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid}{f' of {self.unit}' if self.unit else ''})"


def find_victims(lines: Iterable[str]) -> list[Victim]:
    """The victims that lines of the kernel's log name, oldest first."""
    units: dict[int, str] = {}
    found = []
    for line in lines:
        if chosen := _CHOSEN.search(line):
            units[int(chosen["pid"])] = _find_unit(chosen["cgroup"])
        elif killed := _KILLED.search(line):
            pid = int(killed["pid"])
            found.append(
                Victim(
                    pid=pid,
                    name=killed["name"],
                    memory=int(killed["anon"]) * 1024,
                    unit=units.get(pid, ""),
                    limited=killed["where"].startswith("Memory cgroup"),
                )
            )
    return found


def _find_unit(cgroup: str) -> str:
    parts = [part for part in cgroup.split("/") if part.endswith((".service", ".scope"))]
    return parts[-1] if parts else ""


async def read_victims(most: int) -> list[Victim]:
    """The last so many victims, oldest first, from the kernel's own log, or the journal's copy.

    Raises Unavailable where this user may read neither.
    """
    try:
        lines = await asyncio.to_thread(read_ring)
    except OSError:
        lines = (await read_kernel_log()).splitlines()
    return find_victims(lines)[-most:]


def read_ring(path: str = _KMSG) -> list[str]:
    """The messages that the kernel still holds, oldest first. Raises OSError.

    Each read(2) of /dev/kmsg returns one record: `level,number,time,flag;text` and lines of
    properties (Documentation/ABI/testing/dev-kmsg).
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    lines: list[str] = []
    left = _MOST_BYTES
    try:
        while left > 0:
            try:
                record = os.read(handle, _RECORD)
            except BlockingIOError:
                break
            except BrokenPipeError:
                # What was to be read next is overwritten already; the next is the oldest left.
                continue
            if not record:
                break
            left -= len(record)
            text = record.decode(errors="replace").partition(";")[2]
            lines.append(text.partition("\n")[0])
    finally:
        os.close(handle)
    return lines
