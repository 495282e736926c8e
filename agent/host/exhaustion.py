"""Finds out whether a unit failed for want of room: by the log of that start, and on what."""

from __future__ import annotations

import asyncio
import signal
import time

from agent.core.model import Seconds
from agent.errors import Unavailable
from agent.host.journal import read_log
from agent.host.machine import Machine
from agent.host.mounts import Mount, find_mount, pick_filesystems, read_mounts
from agent.host.shortage import Shortage, find_messages, find_paths
from agent.host.units import UnitState

#: Lines that long before the end belong to something else.
_BEFORE: Seconds = 120.0
#: The journal may be so far behind: a log without a word is read again until then.
_BEHIND: Seconds = 5.0
_PATIENCE: Seconds = 1.0
#: Ends that somebody else brought about say nothing of room.
_KILLED = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


async def find_shortage(machine: Machine, state: UnitState) -> Shortage | None:
    """Why a failed unit had no room; None where its log does not say so, or cannot be read."""
    if state.exec_main_code in (2, 3) and state.exec_main_status in _KILLED:
        return None
    key = (state.invocation_id, state.since)
    known = machine.shortages.get(state.id)
    if known is not None and known[0] == key:
        return known[1]
    try:
        found = await _find(machine, state)
    except Unavailable:
        return None
    ended = state.since
    if found is not None or ended is None or machine.clock.now() > ended + _BEHIND:
        machine.shortages[state.id] = (key, found)
    return found


async def _find(machine: Machine, state: UnitState) -> Shortage | None:
    since = None
    if state.since is not None:
        # The journal goes by the wall clock, which may have been set since boot.
        since = time.time() - (machine.clock.now() - state.since) - _BEFORE
    messages = find_messages(await read_log(state.id, state.invocation_id, since=since))
    if not messages:
        return None
    mounts = read_mounts()
    points: dict[str, None] = {}
    for message in messages:
        for path in find_paths(message)[:1]:
            if (mount := find_mount(mounts, path)) is not None:
                points[mount.point] = None
    if not points:
        points = dict.fromkeys(await find_exhausted(machine, mounts))
    return Shortage(line=messages[-1][:200], points=tuple(points))


async def find_exhausted(machine: Machine, mounts: tuple[Mount, ...]) -> list[str]:
    """Mount points on which an ordinary user cannot write now; those that hang are left out."""
    memory = [mount for mount in mounts if mount.kind == "tmpfs"]
    asked = [*pick_filesystems(mounts), *memory]

    async def is_exhausted(mount: Mount) -> bool:
        try:
            return (await machine.space.ask(mount.point, _PATIENCE)).exhausted
        except (OSError, Unavailable):
            return False

    answers = await asyncio.gather(*map(is_exhausted, asked))
    return [mount.point for mount, full in zip(asked, answers, strict=True) if full]
