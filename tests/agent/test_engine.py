"""The engine when a decision cannot be made, or not be kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from agent_place import until

from agent import engine as engine_module
from agent.clock import Clock
from agent.core.model import Decision, Pause, Policy
from agent.engine import Engine
from agent.errors import StoreError
from agent.store.state import State


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    with ThreadPoolExecutor(1) as writer:
        state = State(tmp_path / "state.db", reserve=0)
        engine = Engine(state=state, clock=Clock(), policy=Policy(runs_per_hour=1), writer=writer)
        yield engine
        engine.close()
        writer.submit(state.close).result()


async def test_a_policy_that_could_not_be_taken_is_not_in_force(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_: Any) -> bool:
        raise StoreError("cannot write it: no room")

    with monkeypatch.context() as broken:
        broken.setattr(engine._state, "save", save)
        with pytest.raises(StoreError):
            await engine.reconfigure(Policy(runs_per_hour=2))
    assert engine.policy.runs_per_hour == 1
    await engine.reconfigure(Policy(runs_per_hour=2))
    assert engine.policy.runs_per_hour == 2


async def test_time_goes_on_after_a_decision_that_broke(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_TRY_AGAIN", 0.01)
    broken: list[Exception] = [KeyError("a defect"), StoreError("no room")]
    real = engine_module.decide

    def decide(host: Any, event: Any, policy: Policy, now: float) -> Decision:
        if broken:
            raise broken.pop()
        return real(host, event, policy, now)

    now = engine.now()
    pause = Pause(by="anna", since=now, until=now + 0.2)
    engine._host = replace(engine.host, paused=pause)
    engine._last = Decision(host=engine._host)
    monkeypatch.setattr(engine_module, "decide", decide)
    engine._tick()
    await until(lambda: not broken and engine.host.paused is None)
