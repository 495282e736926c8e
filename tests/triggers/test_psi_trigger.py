"""Stalls that the kernel tells of: real ones, where it may be asked for them."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from agent.clock import Clock
from agent.host.machine import Machine
from agent.host.stalls import Stalls
from agent.triggers import psi
from agent.triggers.psi import PsiTrigger

BURN = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"


@pytest.fixture
def machine() -> Machine:
    return Machine(clock=Clock())


async def test_a_real_stall_is_told_or_it_is_said_that_it_cannot_be(machine: Machine) -> None:
    looked = asyncio.Event()
    trigger = PsiTrigger(machine, lambda name: looked.set() if name == "busy" else None)
    await trigger.watch({"cpu": frozenset({"busy"})})
    if not Path("/proc/pressure/cpu").exists():  # noqa: ASYNC240
        assert "cannot be told of stalls" in machine.missing["stalls of cpu"]
        return
    assert machine.missing == {}
    # Twice as much work as there are processors: half of it waits.
    count = 2 * (os.cpu_count() or 1)
    burners = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", BURN) for _ in range(count)
    ]
    began = time.monotonic()
    try:
        async with asyncio.timeout(60):
            await looked.wait()
        print(f"stall to look: {time.monotonic() - began:.2f} s after the work began")
    finally:
        for burner in burners:
            burner.kill()
        for burner in burners:
            await burner.wait()
        trigger.close()


async def test_where_the_kernel_refuses_it_stands_among_what_is_not_watched(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine.missing = {"systemd": "no"}
    monkeypatch.setattr(psi, "find_pressure", lambda what, container: tmp_path / what)
    trigger = PsiTrigger(machine, lambda _name: None)
    await trigger.watch({"memory": frozenset({"a"})})
    assert set(machine.missing) == {"systemd", "stalls of memory"}
    assert "seen at the next look instead" in machine.missing["stalls of memory"]
    await trigger.watch({})
    assert machine.missing == {"systemd": "no"}, "nobody asks for it any more"
    trigger.close()


async def test_a_file_that_takes_no_trigger_is_no_error(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psi, "find_pressure", lambda what, container: Path("/dev/full"))
    trigger = PsiTrigger(machine, lambda _name: None)
    await trigger.watch({"memory": frozenset({"a"})})
    assert "No space left" in machine.missing["stalls of memory"]
    trigger.close()


async def test_what_is_no_longer_watched_holds_no_descriptor(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent(Stalls):
        opened = 0

        def __init__(self, _path: Path, _callback: object) -> None:
            Silent.opened += 1

        def close(self) -> None:
            Silent.opened -= 1

    monkeypatch.setattr(psi, "Stalls", Silent)
    trigger = PsiTrigger(machine, lambda _name: None)
    await trigger.watch({"memory": frozenset({"a"}), "cpu": frozenset({"b"})})
    await trigger.watch({"memory": frozenset({"a", "c"})})
    assert Silent.opened == 1
    trigger.close()
    assert Silent.opened == 0
