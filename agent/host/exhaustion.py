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
from agent.host.shortage import Shortage, find_last_words, find_messages, find_paths
from agent.host.units import UnitState

#: Lines that long before the end belong to something else.
_BEFORE: Seconds = 120.0
#: The journal may be so far behind: a log without a word is read again until then.
_BEHIND: Seconds = 5.0
#: While a filesystem is full, so long is waited for it in a look.
_PAUSES: tuple[Seconds, ...] = (0.1, 0.3, 0.6)
_PATIENCE: Seconds = 1.0
#: Ends that somebody else brought about say nothing of room.
_KILLED = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


async def find_shortage(machine: Machine, state: UnitState) -> Shortage | None:
    """Why a failed unit had no room; None where its log does not say so, or cannot be read."""
    if state.exec_main_code in (2, 3) and state.exec_main_status in _KILLED:
        return None
    key = _key(state)
    known = machine.shortages.get(state.id)
    if known is not None and known[0] == key:
        return known[1]
    try:
        mounts = read_mounts()
        found = await _find(machine, state, mounts)
        if found is None and _is_fresh(machine, state) and await find_exhausted(machine, mounts):
            # A death is known before the journal has taken the last words.
            for pause in _PAUSES:
                await asyncio.sleep(pause)
                if (found := await _find(machine, state, mounts)) is not None:
                    break
    except Unavailable:
        return None
    if found is not None or not _is_fresh(machine, state):
        machine.shortages[state.id] = (key, found)
    return found


def last_words(machine: Machine, state: UnitState) -> str:
    """What a failed unit said last, where its log was read to find a shortage; empty: nothing."""
    key, words = machine.last_words.get(state.id, (None, ""))
    return words if key == _key(state) else ""


def _key(state: UnitState) -> object:
    """One end of a unit."""
    return (state.invocation_id, state.since)


def _is_fresh(machine: Machine, state: UnitState) -> bool:
    """Whether the journal may still be behind."""
    return state.since is not None and machine.clock.now() < state.since + _BEHIND


async def _find(machine: Machine, state: UnitState, mounts: tuple[Mount, ...]) -> Shortage | None:
    since = None
    if state.since is not None:
        # The journal goes by the wall clock, which may have been set since boot.
        since = time.time() - (machine.clock.now() - state.since) - _BEFORE
    log = await read_log(state.id, state.invocation_id, since=since)
    machine.last_words[state.id] = (_key(state), find_last_words(log))
    messages = find_messages(log)
    if not messages:
        return None
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
