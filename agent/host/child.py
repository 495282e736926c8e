"""A child that works for the agent: what it is told of this host, what it is given, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import sysconfig
from asyncio.subprocess import Process
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import agent

#: Seconds that a child gets to be gone. It is always enough, unless the kernel is stuck.
FAREWELL = 5.0


def make_environment(passed_on: Collection[str]) -> dict[str, str]:
    """All that a child is told of this host; `passed_on`: variables that it takes over."""
    inherited = {name: value for name, value in os.environ.items() if name in passed_on}
    own = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}
    # A checkout is not on the path of its interpreter; an installed package is.
    source = Path(agent.__file__).resolve().parent.parent
    if source != Path(sysconfig.get_path("purelib")).resolve():
        own["PYTHONPATH"] = str(source)
    return {**inherited, **own}


async def hand_over(process: Process, order: bytes) -> None:
    """Gives the child its order, and leaves the pipe open: its end says that nobody waits."""
    assert process.stdin is not None  # noqa: S101 - asked for by whoever started it
    process.stdin.write(order)
    with suppress(ConnectionError):
        await process.stdin.drain()


def kill_group(process: Process) -> None:
    """Ends the child and whatever it started, at once: they are one process group."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


async def see_end(process: Process) -> str:
    """Waits until the child is gone, and says how it went."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(FAREWELL):
            code = await process.wait()
    except TimeoutError:
        return "it does not end"
    return f"signal {-code}" if code < 0 else f"status {code}"
