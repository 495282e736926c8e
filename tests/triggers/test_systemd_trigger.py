"""How signals become looks. Real signals are in tests/lab/test_service_check.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import pytest

from agent.clock import Clock
from agent.host.systemd import Systemd
from agent.triggers.systemd import SystemdTrigger


class Signals(Systemd):
    """A connection whose signals are given by the test."""

    async def watch(self, names: Iterable[str], callback: Callable[[str], None]) -> None:
        self.names = set(names)
        self.give = callback


@pytest.fixture
def signals() -> Signals:
    return Signals(Clock())


async def test_the_first_signal_is_passed_on_at_once(signals: Signals) -> None:
    looks: list[str] = []
    trigger = SystemdTrigger(signals, looks.append)
    await trigger.watch({"web.service": frozenset({"web", "shop"})})
    assert signals.names == {"web.service"}
    signals.give("web.service")
    assert looks == ["shop", "web"]
    trigger.close()


async def test_a_burst_makes_two_looks_the_second_after_its_last_signal(signals: Signals) -> None:
    looks: list[str] = []
    again = asyncio.Event()

    def look(check: str) -> None:
        looks.append(check)
        if len(looks) == 2:
            again.set()

    trigger = SystemdTrigger(signals, look)
    await trigger.watch({"web.service": frozenset({"web"})})
    for _ in range(20):
        signals.give("web.service")
    assert looks == ["web"]
    async with asyncio.timeout(30):
        await again.wait()
    assert looks == ["web", "web"]
    trigger.close()


async def test_a_burst_of_one_unit_does_not_hold_up_another(signals: Signals) -> None:
    looks: list[str] = []
    trigger = SystemdTrigger(signals, looks.append)
    await trigger.watch({"web.service": frozenset({"web"}), "db.service": frozenset({"db"})})
    signals.give("web.service")
    signals.give("web.service")
    signals.give("db.service")
    assert looks == ["web", "db"]
    trigger.close()


async def test_what_is_no_longer_watched_is_not_looked_at(signals: Signals) -> None:
    looks: list[str] = []
    trigger = SystemdTrigger(signals, looks.append)
    await trigger.watch({"web.service": frozenset({"web"})})
    await trigger.watch({})
    signals.give("web.service")
    assert looks == []


async def test_a_closed_trigger_says_nothing(signals: Signals) -> None:
    looks: list[str] = []
    trigger = SystemdTrigger(signals, looks.append)
    await trigger.watch({"web.service": frozenset({"web"})})
    signals.give("web.service")
    signals.give("web.service")
    trigger.close()
    signals.give("web.service")
    assert looks == ["web"]
