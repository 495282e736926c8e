"""Recurring maintenance windows in a running agent, and the wall clock that they go by."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from agent_place import Place, started, until, wait_for_state

from agent.checks.demo import MARK
from agent.clock import Clock
from agent.config.schedule import local_zone
from agent.core.model import Hold, Policy, State, Tick
from agent.engine import Engine
from agent.errors import Conflict
from agent.store.state import State as StateFile


def open_now(name: str) -> str:
    """A window that opened ten minutes ago and is open for hours."""
    at = datetime.now(local_zone()) - timedelta(minutes=10)
    return f"  {name}: {{at: '{at:%H:%M}', for: 10h, checks: [page], comment: dump}}\n"


async def test_what_fails_in_a_window_waits_for_its_end_and_is_repaired_then(place: Place) -> None:
    later = "  later: {at: 00:00, for: 1m, weeks: [fifth], days: [mon], checks: ['*']}\n"
    place.configure(more=f"maintenance:\n{open_now('backup')}{later}")
    async with started(place) as agent:
        await agent.look("page")
        place.break_page()
        incident_id = await wait_for_state(agent, State.OPEN)
        held = agent.status().holds[incident_id]
        assert (held.hold, held.detail) == (Hold.SILENCED, "maintenance window backup: dump")
        explained = await agent.explain(incident_id)
        assert "maintenance window backup: dump" in explained.next
        assert [gate.hold for gate in explained.gates] == [Hold.SILENCED]

        listed = (await agent.silences()).items
        assert [(s.id, s.recurring, s.runs) for s in listed] == [
            ("backup", True, True),
            ("later", True, True),
        ]
        assert listed[0].starts <= agent.status().now < listed[0].ends
        assert listed[1].starts > agent.status().now
        assert await agent.silence("backup") == listed[0]
        assert agent.status().silences == listed
        with pytest.raises(Conflict, match="cannot end maintenance window backup: the config"):
            await agent.end_silence("backup", by="tester")

        place.configure()
        await agent.reload(by="tester")
        await wait_for_state(agent, State.RESOLVED)
        assert MARK in place.page.read_text()
        await until(lambda: len(place.letters) == 1)
        assert b"[healed]" in place.letters[0]


async def test_windows_come_after_what_was_ordered_page_by_page(place: Place) -> None:
    place.configure(more=f"maintenance:\n{open_now('b-dump')}{open_now('a-dump')}")
    async with started(place) as agent:
        for _ in range(3):
            await agent.add_silence(by="tester", seconds=600.0, checks=("*",))
        expected = ["s3", "s2", "s1", "a-dump", "b-dump"]
        assert [s.id for s in (await agent.silences()).items] == expected
        for limit in (1, 2, 3, 4):
            seen: list[str] = []
            before = None
            while True:
                page = await agent.silences(limit=limit, before=before)
                assert len(page.items) <= limit
                seen += [s.id for s in page.items]
                before = page.next
                if before is None:
                    break
            assert seen == expected


class SetClock(Clock):
    """A clock whose wall clock somebody sets."""

    ahead = 0.0

    def wall_ahead(self) -> float:
        return self.ahead


async def test_a_wall_clock_that_is_set_is_followed(tmp_path: Path) -> None:
    clock = SetClock()
    state = StateFile(tmp_path / "state.db", reserve=0)
    with ThreadPoolExecutor(1) as writer:
        engine = Engine(state=state, clock=clock, policy=Policy(), writer=writer)
        seen = []
        for ahead in (0.0, 0.9, 3600.4, 3601.2, -7.0):
            clock.ahead = ahead
            await engine.take(Tick())
            seen.append(engine.host.wall_ahead)
        await asyncio.get_running_loop().run_in_executor(writer, state.close)
    assert seen == [0.0, 0.0, 3600.0, 3601.0, -7.0]


def test_a_clock_knows_how_far_the_wall_clock_is_ahead() -> None:
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    assert round(Clock(boot).wall_ahead()) == 0
    assert round(Clock(boot - 3600.0).wall_ahead()) == 3600
