"""Reports on a whole agent: they become incidents, survive a restart, and lead to one repair."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.agent import Alert, Report
from agent.bootstrap import look_once, open_agent
from agent.core.model import State, Status
from agent.errors import Conflict, Invalid
from agent.running import RunningAgent
from agent.settings import Settings

LIMIT = 60.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "page.html").write_text("whole")
    (tmp_path / "hostmend.yml").write_text(
        f"""\
version: 1
checks:
  backup: {{type: push, every: 1h, expect_every: 1d, stable_for: 200ms}}
  alerts:
    type: push
    every: 1h
    verify_for: 500ms
    cool_down: 100ms
    alerts: {{team: shop}}
    ladder:
      - {{remedy: restore-demo-page, causes: [failed], options: {{page: {tmp_path}/page.html}}}}
  page: {{type: demo, page: {tmp_path}/page.html, every: 1h, ladder: []}}
"""
    )
    return Settings(
        config=tmp_path / "hostmend.yml",
        state_dir=tmp_path / "state",
        runtime_dir=tmp_path / "run",
        listen=("127.0.0.1", 0),
    )


def find_states(agent: RunningAgent, check: str) -> list[State]:
    return [i.state for i in agent.status().incidents if i.check == check]


async def test_a_report_is_an_incident_until_another_one_ends_it(settings: Settings) -> None:
    async with open_agent(settings) as agent:
        found = await agent.tell(
            "backup", Report(status=Status.CRITICAL, summary="no space"), by="cron"
        )
        assert found.status == "critical"
        assert find_states(agent, "backup") == [State.ESCALATED]
    async with open_agent(settings) as agent:
        # Nothing was reported to this one.
        await agent.look("backup")
        (incident,) = [i for i in agent.status().incidents if i.check == "backup"]
        assert incident.state is State.ESCALATED
        assert incident.finding.summary == "no space"
        await agent.tell("backup", Report(status=Status.OK), by="cron")
        async with asyncio.timeout(LIMIT):
            while find_states(agent, "backup"):
                await agent.look("backup")
                await asyncio.sleep(0.05)
        with pytest.raises(Conflict, match="it looks by itself"):
            await agent.tell("page", Report(status=Status.OK), by="cron")
        report = Report(status=Status.WARNING, cause="odd")
        with pytest.raises(Invalid, match="cannot take the cause"):
            await agent.tell("backup", report, by="cron")


async def test_one_report_leads_to_one_repair_and_the_next_report_proves_it(
    settings: Settings,
) -> None:
    labels = {"alertname": "PageBroken", "severity": "critical", "team": "shop"}
    async with open_agent(settings) as agent:
        taken = await agent.tell_alerts(
            [Alert(firing=True, labels=labels), Alert(firing=True, labels={"team": "other"})],
            by="token am (t1)",
        )
        assert (dict(taken.checks), taken.ignored) == ({"alerts": 1}, 1)
        async with asyncio.timeout(LIMIT):
            while not (runs := (await agent.runs()).items) or runs[0].alive:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            # Looks go on, and none of them can say more than the report before the repair did.
            for _ in range(20):
                await agent.look("alerts")
                await asyncio.sleep(0.05)
        assert len((await agent.runs()).items) == 1
        (incident,) = [i for i in agent.status().incidents if i.check == "alerts"]
        assert incident.finding.status is Status.UNKNOWN
        await agent.tell_alerts([Alert(firing=False, labels=labels)], by="token am (t1)")
        (incident,) = [i for i in agent.status().incidents if i.check == "alerts"]
        assert incident.state is State.PROBATION


async def test_a_look_without_an_agent_knows_of_no_report(settings: Settings) -> None:
    (found,) = await look_once(settings, ("backup",))
    assert found.status == "unknown"
