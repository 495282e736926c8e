"""Digests of a whole agent: sent in their time, once, also when that passed while it was down."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent import digester
from agent.bootstrap import open_agent
from agent.clock import Clock
from agent.config import DigestOptions
from agent.core.model import Notice, Reason
from agent.digester import find_due
from agent.running import RunningAgent
from agent.settings import Settings
from agent.store.state import State

LIMIT = 60.0
DAY = 86400.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digester, "_LOOK_EVERY", 0.05)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "page.html").write_text("whole")
    (tmp_path / "hostmend.yml").write_text(
        f"""\
version: 1
digest: {{days: [mon, thu], timezone: UTC}}
checks:
  page: {{type: demo, page: {tmp_path}/page.html, every: 1h, ladder: []}}
routes:
  boss: {{url: "json://127.0.0.1:9/", reasons: [digest]}}
  phone: {{url: "json://127.0.0.1:9/", reasons: [escalated]}}
"""
    )
    return Settings(
        config=tmp_path / "hostmend.yml",
        state_dir=tmp_path / "state",
        runtime_dir=tmp_path / "run",
        listen=("127.0.0.1", 0),
    )


async def find_digests(agent: RunningAgent) -> list[Notice]:
    page = await agent.notices()
    return [notice for notice in page.items if notice.reason is Reason.DIGEST]


async def until_counted(agent: RunningAgent) -> None:
    """Until digests are counted from some time on."""
    async with asyncio.timeout(LIMIT):
        while agent._parts.engine.host.digested is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def put_back(settings: Settings, seconds: float) -> float:
    """As if the last digest were of so long ago."""
    state = State(settings.state_dir / "state.db")
    at = Clock.anchored(settings.runtime_dir / "clock").now() - seconds
    state.set_meta("digested", str(at))
    state.close()
    return at


async def test_a_digest_that_came_due_while_the_agent_was_down_is_sent_once(
    settings: Settings,
) -> None:
    async with open_agent(settings) as agent:
        await until_counted(agent)
        assert await find_digests(agent) == [], "there was nothing to tell of yet"
    told = put_back(settings, 7 * DAY)
    async with open_agent(settings) as agent:
        async with asyncio.timeout(LIMIT):
            while not (found := await find_digests(agent)):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        (notice,) = found
        assert notice.route == "boss"
        assert notice.details["text"].startswith("7 d on ")
        assert ", 0 problems: 0 repaired" in notice.details["text"]
        host = agent._parts.engine.host
        assert host.digested is not None
        assert host.digested > told + 7 * DAY - 1
        # Several looks at the clock later there is still one.
        await asyncio.sleep(0.3)
        assert len(await find_digests(agent)) == 1
    async with open_agent(settings) as agent:
        await asyncio.sleep(0.3)
        assert len(await find_digests(agent)) == 1


async def test_without_a_schedule_none_is_sent_and_it_can_be_asked_for_all_the_same(
    settings: Settings,
) -> None:
    text = settings.config.read_text()
    settings.config.write_text(text.replace("digest: {days: [mon, thu], timezone: UTC}\n", ""))
    async with open_agent(settings) as agent:
        await asyncio.sleep(0.3)
        assert agent._parts.engine.host.digested is None
        assert await find_digests(agent) == []
        digest = await agent.digest()
        assert digest.until - digest.since == pytest.approx(7 * DAY)
        digest = await agent.digest(seconds=3600.0)
        assert digest.until - digest.since == pytest.approx(3600.0, abs=5.0)


def test_the_next_one_is_due_at_the_next_time_by_the_clock_on_the_wall() -> None:
    schedule = DigestOptions(days=("mon", "thu"), at="07:00", timezone="UTC").make_schedule()

    def due(text: str, ahead: float = 0.0) -> str:
        instant = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() - ahead
        at = find_due(schedule, instant, ahead) + ahead
        return datetime.fromtimestamp(at, UTC).strftime("%a %H:%M")

    assert due("2026-11-23 06:59") == "Mon 07:00"
    assert due("2026-11-23 07:00") == "Thu 07:00"
    assert due("2026-11-23 07:01") == "Thu 07:00"
    assert due("2026-11-26 08:00") == "Mon 07:00"
    assert due("2026-11-23 06:59", ahead=3600.0) == "Mon 07:00"
