"""A whole agent that cannot tell anybody, or cannot record, says so of itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.bootstrap import open_agent
from agent.clock import Clock
from agent.core.model import Decision, Finding, Host, Notice, NoticeState, Reason, Status, Tick
from agent.running import RunningAgent
from agent.selfwatch import Selfwatch
from agent.settings import Settings
from agent.watcher import Watcher

LIMIT = 60.0


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody else gets and nobody answers at."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


@pytest.fixture
async def agent(tmp_path: Path, closed_port: int) -> AsyncIterator[RunningAgent]:
    config = tmp_path / "hostmend.yml"
    config.write_text(
        "checks:\n"
        "  self: {type: self, every: 200ms, undelivered_for: 10ms, confirm: 1 of 1}\n"
        f"  page: {{type: demo, page: {tmp_path}/page, port: {closed_port}, ladder: [],\n"
        "    every: 200ms, confirm: 1 of 1}\n"
        "policy: {storm: {group_wait: 10ms}}\n"
        "routes:\n"
        f"  ops: {{url: 'json://127.0.0.1:{closed_port}/', reasons: [opened, escalated]}}\n"
    )
    settings = Settings(
        config=config,
        state_dir=tmp_path / "state",
        runtime_dir=tmp_path / "run",
        listen=("127.0.0.1", 0),
    )
    async with open_agent(settings) as running:
        yield running


async def wait_for(agent: RunningAgent, subject: str, cause: str) -> Finding:
    async with asyncio.timeout(LIMIT):
        while True:
            for finding in (await agent.look("self")).findings:
                if finding.subject == subject and finding.cause == cause:
                    return finding
            await asyncio.sleep(0.1)


async def test_a_message_that_nobody_takes_is_critical_with_what_was_said(
    agent: RunningAgent,
) -> None:
    finding = await wait_for(agent, "route ops", "undelivered")
    assert finding.status is Status.CRITICAL
    assert finding.measurements["undelivered_count"] >= 1
    assert finding.measurements["undelivered_seconds"] > 0
    assert "route ops has not delivered" in finding.summary


async def test_the_agent_counts_its_looks_and_its_memory(agent: RunningAgent) -> None:
    first = await wait_for(agent, "agent", "")
    finding = await wait_for(agent, "agent", "")
    assert finding.measurements["looks_count"] > first.measurements["looks_count"]
    assert finding.measurements["memory_bytes"] > 2**20
    assert finding.measurements["late_seconds"] < LIMIT
    assert {f.subject for f in (await agent.look("self")).findings} == {
        "agent",
        "state",
        "route ops",
    }


class Parts(Watcher):
    """The watcher and the engine of an agent that does nothing."""

    waiting = 0

    def __init__(self) -> None:
        async def nothing(*_words: object) -> object:
            return ()

        super().__init__(look=nothing, transition=nothing, take=nothing, clock=Clock())  # type: ignore[arg-type]


def notice(number: int, **given: object) -> Notice:
    whole = Notice(id=f"n{number}", route="ops", reason=Reason.HEALED, created=100.0, expires=900.0)
    return replace(whole, **given)  # type: ignore[arg-type]


def test_messages_count_from_their_first_failure_until_they_are_delivered_or_given_up() -> None:
    parts, now = Parts(), 200.0

    class Now(Clock):
        def now(self) -> float:
            return now

    watch = Selfwatch(
        watcher=parts,
        engine=parts,  # type: ignore[arg-type]
        routes=lambda: ("ops", "night"),
        find_troubles=lambda: ("", "no history"),
        clock=Now(),
    )
    decision = Decision(host=Host(), notices=(notice(1), notice(2), notice(3)))
    watch.hear(Tick(), decision)
    assert watch().routes["ops"].failing == 0, "nobody has tried yet"
    watch.hear_notice(notice(1, attempts=1, error="refused"))
    watch.hear_notice(notice(2, attempts=4, error="refused", created=150.0))
    route = watch().routes["ops"]
    assert (route.failing, route.oldest, route.error) == (2, 100.0, "refused")
    assert watch().routes["night"].failing == 0
    watch.hear_notice(notice(1, attempts=2, state=NoticeState.DELIVERED))
    watch.hear_notice(notice(2, attempts=5, state=NoticeState.EXPIRED))
    route = watch().routes["ops"]
    assert (route.failing, route.expired) == (0, 1)
    now += 86_401
    assert watch().routes["ops"].expired == 0
    assert watch().unrecorded == ("no history",)
