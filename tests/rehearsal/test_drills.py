"""Drills within a rehearsal: the candidate's agent says how it went, and its users say so too."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sites import Page, Site, serving
from test_rehearsal import LIMITS, WHOLE, failing, gate, log

from agent.errors import Conflict
from agent.rehearsal import drills
from agent.rehearsal.drills import DrillOrder, repeat
from agent.rehearsal.rehearsal import Plan, Rehearsal, exit_code, rehearse
from agent.rehearsal.replay import Caution
from agent.rehearsal.report import write_json, write_junit
from agent.rehearsal.report_html import write_html
from agent.rehearsal.traffic import Asked, Schedule
from agent.rehearsal.verdict import Outcome

ORDER = DrillOrder(fault="kill-service", options={"unit": "shop.service"}, within=20.0)
BROKEN = {path: Page("down", 503) for path in WHOLE}


def write_instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


@dataclass
class Agent:
    """A candidate's agent: its fault breaks a site for a while. Its clock is an hour behind."""

    site: Site
    heals: bool = True
    #: The site stays broken after the fault is undone.
    breaks: bool = False
    refuses: str = ""
    incidents: int = 0
    told: dict[str, Any] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)

    async def count_incidents(self) -> int:
        self.incidents = max(0, self.incidents - 1)
        return self.incidents

    async def start(self, order: DrillOrder) -> Mapping[str, Any]:
        if self.refuses:
            raise Conflict(self.refuses)
        self.told = {
            "id": "d1",
            "state": "under way",
            "outcome": None,
            "detail": "",
            "trouble": "",
            "ordered": write_instant(self.now()),
            "injected": write_instant(self.now()),
        }
        self.site.pages = BROKEN
        self.started.set()
        self.until = asyncio.get_running_loop().time() + 1.0
        return dict(self.told)

    def now(self) -> float:
        return time.time() - 3600

    async def show(self, drill_id: str) -> Mapping[str, Any]:
        assert drill_id == "d1"
        if asyncio.get_running_loop().time() >= self.until and self.told["state"] != "ended":
            self.site.pages = BROKEN if self.breaks else WHOLE
            now = write_instant(self.now())
            self.told |= {"state": "ended", "undone": now, "detail": "as it was"}
            if self.heals:
                self.told |= {"outcome": "passed", "healed": now, "verified": now}
            else:
                self.told |= {"outcome": "failed"}
        return dict(self.told)

    async def end(self, drill_id: str) -> None:
        self.ended.append(drill_id)


def drill(tmp_path: Path, **agent: Any) -> tuple[Rehearsal, Agent]:
    production, candidate = Site(WHOLE), Site(WHOLE)
    host = Agent(candidate, **agent)

    async def story() -> Rehearsal:
        async with serving(production, candidate):
            plan = Plan(
                candidate=candidate.url,
                baseline=production.url,
                traffic=(log(tmp_path),),
                ceiling=100.0,
                speed=100.0,
                pages=False,
                limits=LIMITS,
                caution=Caution(errors=0.5),
                drills=(ORDER,),
            )
            return await rehearse(plan, agent=host)

    return asyncio.run(story()), host


@pytest.fixture(autouse=True)
def settle_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drills, "_SETTLE", 2.0)


def test_what_heals_passes_though_users_saw_it(tmp_path: Path) -> None:
    found, _ = drill(tmp_path)
    assert failing(found) == set(), found.verdict
    assert exit_code(found) == 0
    users = gate(found, "drill kill-service shop.service: users")
    assert users.observed is not None
    assert 0 < users.observed < ORDER.within
    assert found.drilled is not None
    assert any(pair.candidate.failed for pair in found.drilled.pairs)
    # What fails on purpose says nothing of the release.
    assert not any(pair.candidate.failed for pair in found.measured.pairs)
    (tale,) = found.drilled.tales
    assert tale.steps["injected"] <= tale.steps["verified"] == tale.steps["undone"]
    assert tale.steps["verified"] == pytest.approx(tale.ended, abs=1.0)


def test_what_does_not_heal_fails_by_its_own_gate(tmp_path: Path) -> None:
    found, _ = drill(tmp_path, heals=False)
    assert failing(found) == {"drill kill-service shop.service"}
    assert exit_code(found) == 1


def test_users_who_are_not_served_after_it_fail_it_whatever_the_agent_says(
    tmp_path: Path,
) -> None:
    found, _ = drill(tmp_path, breaks=True)
    assert failing(found) == {"drill kill-service shop.service: users"}
    assert (
        "after the fault was undone"
        in gate(found, "drill kill-service shop.service: users").summary
    )


def test_a_drill_that_is_refused_is_no_pass(tmp_path: Path) -> None:
    found, _ = drill(tmp_path, refuses="cannot start a drill: this host does not allow any")
    assert found.verdict.outcome is Outcome.INCONCLUSIVE
    assert exit_code(found) == 3
    assert "does not allow" in gate(found, "drill kill-service shop.service").summary


def test_a_drill_waits_until_earlier_incidents_are_over(tmp_path: Path) -> None:
    found, host = drill(tmp_path, incidents=3)
    assert host.incidents == 0
    assert exit_code(found) == 0


def test_the_reports_tell_of_drills(tmp_path: Path) -> None:
    found, _ = drill(tmp_path)
    page = write_html(found)
    assert "<h2>Drills</h2>" in page
    assert 'rect class="pass"' in page
    (told,) = json.loads(write_json(found))["drills"]
    assert (told["id"], told["outcome"], told["options"]) == (
        "d1",
        "passed",
        {"unit": "shop.service"},
    )
    assert 'name="drill kill-service shop.service: users"' in write_junit(found)


async def test_a_rehearsal_that_is_interrupted_ends_its_drill() -> None:
    host = Agent(Site(WHOLE))

    now = asyncio.get_running_loop().time()
    task = asyncio.ensure_future(drills._run_one(ORDER, host, now))
    await host.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert host.ended == ["d1"]


def test_traffic_goes_on_for_as_long_as_drills_may_and_writes_are_not_repeated() -> None:
    requests = [
        Asked(at=0.0, method=method, target="/", status=200, client="")
        for method in ("GET", "POST", "HEAD")
    ]
    schedule = Schedule(due=(0.0, 1.0, 2.0), rate=1.0, spacing="log")
    asked, due = repeat(requests, schedule, 30.0)
    assert {each.method for each in asked} == {"GET", "HEAD"}
    assert due.due[:4] == (0.0, 2.0, 3.0, 5.0)
    assert due.due[-1] >= 30.0
    assert len(asked) == len(due.due)
    assert repeat(requests[1:2], Schedule(due=(0.0,), rate=1.0, spacing="log"), 30.0)[0] == ()
