"""What was reported, and what was not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.checks.push import (
    MOST_SUBJECTS,
    PushOptions,
    gather,
    look,
    read_alert,
    take_reports,
    wants,
)
from agent.clock import Clock
from agent.core.model import Finding, Status
from agent.errors import Invalid
from agent.host.condition import Condition
from agent.host.machine import Machine
from agent.host.memory import Memories, Memory
from agent.told import Alert, Report

HOUR = 3600.0
OK, FAILED = Report(status=Status.OK), Report(status=Status.CRITICAL, summary="no space")


class Hand(Clock):
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 1_000_000.0

    def now(self) -> float:
        return self.at


class Scene:
    """A check `backup` with what it remembers."""

    def __init__(self, **fields: Any) -> None:
        self.options = PushOptions.model_validate({"type": "push", **fields}, strict=False)
        self.clock = Hand()
        self.rows: dict[str, str] = {}
        self.memories = Memories()
        self.repaired: float | None = None

    def report(self, *reports: Report) -> None:
        memory = self.memories.open("backup")
        take_reports(self.options, memory, reports, now=self.clock.at, by="cron")
        self.keep(memory)

    def keep(self, memory: Memory) -> None:
        for key, text in self.memories.keep("backup", memory).items():
            if text is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = text

    def restart(self) -> None:
        self.memories = Memories(("backup", key, text) for key, text in self.rows.items())

    def machine(self, memory: Memory) -> Machine:
        return Machine(
            clock=self.clock,
            memory=memory,
            repaired=lambda _check: self.repaired,
            condition=Condition,
        )

    async def look(self) -> Mapping[str, Finding]:
        memory = self.memories.open("backup")
        found = await look(self.options, self.machine(memory))
        self.keep(memory)
        return {finding.subject: finding for finding in found}

    async def see(self) -> tuple[str, str]:
        """The verdict on the check itself."""
        finding = (await self.look())["backup"]
        return finding.status.value, finding.cause


async def test_before_anything_is_reported_nothing_is_wrong() -> None:
    scene = Scene()
    found = await scene.look()
    assert [f.summary for f in found.values()] == ["nothing was reported yet"]
    assert await scene.see() == ("ok", "")


async def test_a_report_stands_until_the_next_one() -> None:
    scene = Scene()
    scene.report(FAILED)
    scene.clock.at += 100 * HOUR
    finding = (await scene.look())["backup"]
    assert (finding.status, finding.cause, finding.summary) == ("critical", "failed", "no space")
    assert finding.facts["Reported by"] == "cron"
    assert finding.since == 1_000_000.0
    assert finding.measurements["reported_seconds"] == 100 * HOUR
    scene.report(OK)
    assert await scene.see() == ("ok", "")


async def test_reports_survive_a_restart() -> None:
    scene = Scene(expect_every="1h")
    scene.report(FAILED, Report(status=Status.WARNING, subject="db1"))
    scene.restart()
    found = await scene.look()
    assert {subject: finding.status.value for subject, finding in found.items()} == {
        "backup": "critical",
        "db1": "warning",
    }
    scene.report(OK)
    scene.restart()
    scene.clock.at += 2 * HOUR
    assert await scene.see() == ("critical", "silent")


@pytest.mark.parametrize(
    ("report", "verdict"),
    [
        (Report(status=Status.WARNING), ("warning", "failed")),
        (Report(status=Status.WARNING, cause="late"), ("warning", "late")),
        (Report(status=Status.UNKNOWN, cause="late"), ("unknown", "unclear")),
        (Report(status=Status.OK, cause="late"), ("ok", "")),
    ],
)
async def test_what_was_said_is_what_is_found(report: Report, verdict: tuple[str, str]) -> None:
    scene = Scene(causes=["late"])
    scene.report(report)
    assert await scene.see() == verdict


def test_a_cause_that_the_check_does_not_know_is_refused_and_nothing_is_taken() -> None:
    scene = Scene(causes=["late"])
    with pytest.raises(
        Invalid, match="cannot take the cause 'early': the check takes failed, late"
    ):
        scene.report(FAILED, Report(status=Status.CRITICAL, cause="early"))
    assert scene.rows == {}


# Silence


async def test_a_silence_that_is_too_long_is_a_finding() -> None:
    scene = Scene(expect_every="25h")
    assert (await scene.look())[
        "backup"
    ].summary == "nothing was reported yet; it is due in 1 d 1 h"
    scene.clock.at += 25 * HOUR
    assert await scene.see() == ("ok", "")
    scene.clock.at += 1
    finding = (await scene.look())["backup"]
    assert (finding.status, finding.cause) == ("critical", "silent")
    assert finding.summary == "nothing was reported for 1 d 1 h; it should be every 1 d 1 h"
    assert finding.since == 1_000_000.0 + 25 * HOUR
    scene.report(OK)
    assert await scene.see() == ("ok", "")
    scene.clock.at += 26 * HOUR
    assert (await scene.look())["backup"].facts["Last report"] == "reported to be well"


async def test_how_bad_a_silence_is_is_the_configurations() -> None:
    scene = Scene(expect_every="1h", silent="warning")
    await scene.look()
    scene.clock.at += 2 * HOUR
    assert await scene.see() == ("warning", "silent")


async def test_what_failed_last_stays_what_failed() -> None:
    scene = Scene(expect_every="1h")
    scene.report(FAILED)
    scene.clock.at += 2 * HOUR
    assert await scene.see() == ("critical", "failed")
    scene.report(Report(status=Status.WARNING))
    scene.clock.at += 2 * HOUR
    assert await scene.see() == ("critical", "silent")


async def test_without_an_expectation_silence_is_no_finding() -> None:
    scene = Scene()
    scene.report(OK)
    scene.clock.at += 10_000 * HOUR
    assert await scene.see() == ("ok", "")


# Subjects


async def test_a_subject_that_is_well_is_forgotten_after_a_while() -> None:
    scene = Scene(keep_for="1h")
    scene.report(Report(status=Status.CRITICAL, subject="db1"))
    scene.report(Report(status=Status.CRITICAL, subject="db2"))
    scene.report(Report(status=Status.OK, subject="db1"))
    scene.clock.at += HOUR
    assert set(await scene.look()) == {"backup", "db1", "db2"}
    scene.clock.at += 1
    assert set(await scene.look()) == {"backup", "db2"}
    scene.report(OK)
    assert not [key for key in scene.rows if "db1" in key]


async def test_more_subjects_than_anybody_reads_are_refused() -> None:
    scene = Scene()
    many = [Report(status=Status.WARNING, subject=f"s{n}") for n in range(MOST_SUBJECTS)]
    scene.report(*many)
    with pytest.raises(Invalid, match=f"{MOST_SUBJECTS} are the most"):
        scene.report(Report(status=Status.WARNING, subject="one more"))
    scene.report(Report(status=Status.OK, subject="s1"))
    assert (await scene.look())["s1"].status is Status.OK


# Repairs


async def test_what_failed_before_a_repair_says_nothing_of_the_time_after() -> None:
    scene = Scene()
    scene.report(FAILED)
    scene.repaired = scene.clock.at + 5
    scene.clock.at += 10
    finding = (await scene.look())["backup"]
    assert (finding.status, finding.cause) == ("unknown", "unclear")
    assert "before: no space" in finding.summary
    scene.report(FAILED)
    assert await scene.see() == ("critical", "failed")
    scene.report(OK)
    scene.repaired = scene.clock.at + 5
    assert await scene.see() == ("ok", "")


# What is shown


async def test_evidence_is_what_was_reported() -> None:
    scene = Scene()
    scene.report(
        Report(
            status=Status.CRITICAL,
            summary="bad\x1b[31m\nthing",
            facts={"Target": "nas"},
            output="one\n\x1b[31mtwo\npassword=hunter22\n",
        )
    )
    finding = (await scene.look())["backup"]
    assert finding.summary == "bad thing"
    items = await gather(scene.options, finding, scene.machine(scene.memories.open("backup")))
    assert [item.title for item in items] == ["Report on backup", "Output of backup"]
    assert "Target: nas" in items[0].text
    assert items[1].text == "one\ntwo\npassword=***\n"
    (other,) = (await scene.look()).values()
    assert await gather(scene.options, other, scene.machine(Memory())) == ()


async def test_a_command_that_looks_by_itself_knows_of_no_report() -> None:
    scene = Scene()
    memory = scene.memories.open("backup")
    (finding,) = await look(scene.options, Machine(clock=scene.clock, memory=memory))
    assert (finding.status, finding.cause) == ("unknown", "untold")


# Alertmanager


def alert(firing: bool = True, **labels: str) -> Alert:
    return Alert(
        firing=firing,
        labels={"alertname": "DiskFull", "severity": "critical", "team": "shop", **labels},
        annotations={"summary": "no room"},
        since=999.0,
        fingerprint="f00",
    )


def test_a_check_takes_the_alerts_that_carry_its_labels() -> None:
    wanted = Scene(alerts={"team": "shop", "severity": "critical"}).options
    assert wants(wanted, alert())
    assert not wants(wanted, alert(team="other"))
    assert not wants(wanted, alert(severity="warning"))
    assert not wants(Scene().options, alert()), "no labels never mean all"


@pytest.mark.parametrize(
    ("firing", "severity", "status"),
    [
        (True, "critical", Status.CRITICAL),
        (True, "CRITICAL", Status.CRITICAL),
        (True, "warning", Status.WARNING),
        (True, "", Status.WARNING),
        (True, "none", Status.OK),
        (True, "info", Status.OK),
        (False, "critical", Status.OK),
    ],
)
def test_how_bad_an_alert_is(firing: bool, severity: str, status: Status) -> None:
    options = Scene(alerts={"team": "shop"}).options
    assert read_alert(options, alert(firing, severity=severity)).status is status


def test_an_alert_is_named_by_its_labels() -> None:
    options = Scene(alerts={"team": "shop"}, causes=["disk-full"]).options
    report = read_alert(options, alert(instance="web1", device="sda"))
    assert report.subject == "DiskFull device=sda instance=web1"
    assert report.cause == "disk-full"
    assert report.summary == "no room"
    assert report.since == 999.0
    long = read_alert(options, alert(where="x" * 300))
    assert len(long.subject) <= 200
    assert long.subject.endswith("f00")


async def test_an_alert_fires_and_is_resolved() -> None:
    scene = Scene(alerts={"team": "shop"})
    scene.report(read_alert(scene.options, alert()))
    found = await scene.look()
    assert found["DiskFull"].status is Status.CRITICAL
    assert found["DiskFull"].since == 999.0
    assert found["backup"].summary == "all reports were of its subjects"
    scene.report(read_alert(scene.options, alert(firing=False)))
    assert (await scene.look())["DiskFull"].status is Status.OK
