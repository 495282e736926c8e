"""What the memory check makes of figures. Real kills: tests/host/test_kills.py."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
from pydantic import ValidationError

from agent.checks import memory
from agent.checks.memory import (
    KILLS,
    MEMORY,
    SUBJECT,
    Kills,
    MemoryOptions,
    Seen,
    gather,
    judge,
    judge_kills,
    look,
)
from agent.checks.values import parse_amount
from agent.clock import Clock
from agent.core.model import Finding, Status
from agent.errors import Unavailable
from agent.host.journal import boot_id
from agent.host.kernel import MemoryFigures, Pressure
from agent.host.kills import Victim
from agent.host.machine import Machine
from agent.host.rates import Lasting

GB, MB = 2**30, 2**20
CALM = Pressure(some10=0, some60=0, some300=0)
HALF = Seen(figures=MemoryFigures(total=8 * GB, available=4 * GB), pressure=CALM)
MARIADB = Victim(pid=8, name="mariadbd", memory=GB, unit="mariadb.service", limited=False)
APP = Victim(pid=9, name="app", memory=MB, unit="app.service", limited=True)


def options(**given: Any) -> MemoryOptions:
    whole = {"type": "memory", "every": "10s", "timeout": "5s", **given}
    return MemoryOptions.model_validate(whole)


def left(available: int, total: int = 8 * GB) -> Seen:
    return replace(HALF, figures=MemoryFigures(total=total, available=available))


def pressed(share: float) -> Seen:
    return replace(HALF, pressure=Pressure(some10=share, some60=share, some300=share))


def watch(given: MemoryOptions, *seen: Seen, every: float = 10.0) -> list[Finding]:
    """The findings of looks that follow each other."""
    lasting = Lasting()
    return [judge(given, each, lasting, 1000.0 + n * every) for n, each in enumerate(seen)]


@pytest.mark.parametrize(
    ("sentence", "seen", "given", "status", "cause"),
    [
        ("half is left", HALF, {}, "ok", ""),
        ("a large host with a gigabyte left is fine", left(GB, 64 * GB), {}, "ok", ""),
        ("a large host with less is a warning", left(GB - 1, 64 * GB), {}, "warning", "low"),
        ("a small host with a tenth left is fine", left(60 * MB, 512 * MB), {}, "ok", ""),
        ("a small host with less is a warning", left(45 * MB, 512 * MB), {}, "warning", "low"),
        ("hardly anything left is critical", left(15 * MB, 512 * MB), {}, "critical", "low"),
        ("a share can be the limit", left(GB), {"warning": {"available": "20%"}}, "warning", "low"),
        ("a size can be the limit", left(3 * GB), {"critical": {"available": "3500M"}}, "critical",
         "low"),
        ("waiting for a quarter of the time is a warning", pressed(25), {}, "warning", "pressure"),
        ("waiting for most of it is critical", pressed(60), {}, "critical", "pressure"),
        ("some waiting is fine", pressed(24), {}, "ok", ""),
        ("swapping is fine where pressure is measured", replace(HALF, swapping=50.0 * MB), {},
         "ok", ""),
        ("swapping stands for pressure that is not measured",
         replace(HALF, swapping=50.0 * MB, pressure=None, why_no_pressure="no"), {}, "warning",
         "swapping"),
        ("swapping can be a limit anywhere", replace(HALF, swapping=50.0 * MB),
         {"critical": {"swapping": "20M"}}, "critical", "swapping"),
        ("a critical limit goes before a warning", replace(pressed(30),
         figures=MemoryFigures(total=512 * MB, available=15 * MB)), {}, "critical", "low"),
        ("a host that says it has no memory breaks nothing", left(0, 0), {}, "ok", ""),
    ],
)  # fmt: skip
def test_what_lasts_is_told(
    sentence: str, seen: Seen, given: dict[str, Any], status: str, cause: str
) -> None:
    *_, finding = watch(options(**given), *[seen] * 13)
    assert (finding.status, finding.cause) == (status, cause), sentence
    assert finding.subject == SUBJECT
    assert set(finding.measurements) <= set(MEMORY.measurements)


def test_a_peak_is_no_news() -> None:
    low = left(15 * MB, 512 * MB)
    found = watch(options(), *[low] * 12, HALF, *[low] * 12)
    assert {finding.status for finding in found} == {Status.OK}


def test_it_is_told_once_it_has_lasted_and_ends_at_once() -> None:
    low = left(15 * MB, 512 * MB)
    found = watch(options(), *[low] * 14, HALF)
    assert [finding.status.value for finding in found] == [*["ok"] * 12, *["critical"] * 2, "ok"]
    assert found[12].summary.endswith("are left for programs, for 2 min at least")


def test_a_night_in_which_the_host_slept_does_not_count() -> None:
    low, lasting = left(15 * MB, 512 * MB), Lasting()
    assert judge(options(), low, lasting, 0.0).status is Status.OK
    assert judge(options(), low, lasting, 8 * 3600.0).status is Status.OK


def test_without_pressure_the_finding_says_so() -> None:
    (finding,) = watch(options(), replace(HALF, pressure=None, why_no_pressure="boot with psi=1"))
    assert (finding.status, finding.facts["Pressure"]) == (Status.OK, "boot with psi=1")


@pytest.mark.parametrize(
    ("victims", "unnamed", "status", "cause"),
    [
        ((MARIADB,), 0, "critical", "oom-killed"),
        ((APP,), 0, "warning", "oom-limit"),
        ((APP, MARIADB), 0, "critical", "oom-killed"),
        ((APP,), 1, "critical", "oom-killed"),
        ((), 1, "critical", "oom-killed"),
    ],
)
def test_a_kill_is_critical_unless_only_a_group_was_at_its_limit(
    victims: tuple[Victim, ...], unnamed: int, status: str, cause: str
) -> None:
    known = Kills(boot="b", count=3, at=1000.0, victims=victims, unnamed=unnamed)
    finding = judge_kills(options(), known, 1001.0)
    assert (finding.status, finding.cause, finding.since) == (status, cause, 1000.0)
    assert (victims[-1].name if victims else "nothing names") in finding.summary
    assert judge_kills(options(), known, 1000.0 + 1800.0).status is Status.OK
    assert judge_kills(options(kills_for="1h"), known, 1000.0 + 1800.0).failing


async def see_kills(machine: Machine) -> Finding:
    return next(each for each in await look(options(), machine) if each.subject == KILLS)


async def test_kills_of_before_the_first_look_are_no_news_and_those_while_away_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = 5

    async def name(most: int) -> list[Victim]:
        return [MARIADB, APP][-most:]

    monkeypatch.setattr(memory, "count_kills", lambda **_: count)
    monkeypatch.setattr(memory, "read_victims", name)
    machine = Machine(clock=Clock())
    assert (await see_kills(machine)).status is Status.OK
    # The agent is away meanwhile; what it remembered is durable.
    away = Machine(clock=Clock(), memory=replace(machine.memory, notes={}))
    count = 6
    found = await see_kills(away)
    assert (found.cause, found.measurements["kills_count"]) == ("oom-limit", 6)
    count = 8
    found = await see_kills(away)
    assert found.cause == "oom-killed"
    assert found.facts["Killed"].count("process") == 3


async def test_a_boot_begins_to_count_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "count_kills", lambda **_: 2)
    machine = Machine(clock=Clock())
    of_before = Kills(boot="another boot", count=1, at=machine.clock.now(), victims=(APP,))
    machine.memory.put("memory.kills", asdict(of_before))
    assert (await see_kills(machine)).status is Status.OK
    assert machine.memory.get("memory.kills")["boot"] == boot_id()


@pytest.mark.parametrize("kept", [None, 5, "x", {}, {"boot": "b"}, {"victims": [{"pid": 1}]}])
async def test_what_is_remembered_may_be_garbage(
    kept: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "count_kills", lambda **_: 2)
    machine = Machine(clock=Clock())
    machine.memory.put("memory.kills", kept)
    assert (await see_kills(machine)).status is Status.OK


async def test_a_log_that_cannot_be_read_leaves_the_victim_unnamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(_most: int) -> list[Victim]:
        raise Unavailable("cannot read the journal: no")

    monkeypatch.setattr(memory, "read_victims", refuse)
    counts = iter((1, 2))
    monkeypatch.setattr(memory, "count_kills", lambda **_: next(counts))
    machine = Machine(clock=Clock())
    await see_kills(machine)
    found = await see_kills(machine)
    assert (found.status, found.cause) == (Status.CRITICAL, "oom-killed")
    assert "a process that nothing names" in found.summary


async def test_where_nothing_counts_kills_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "count_kills", lambda **_: None)
    for container, words in ((True, "around this container"), (False, "since Linux 4.13")):
        found = await see_kills(Machine(clock=Clock(), container=container))
        assert found.status is Status.OK
        assert words in found.summary


async def test_figures_that_cannot_be_read_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> MemoryFigures:
        raise Unavailable("cannot read /proc/meminfo: it does not say what is available")

    monkeypatch.setattr(memory, "read_memory", refuse)
    first, _ = await look(options(), Machine(clock=Clock()))
    assert (first.status, first.cause) == (Status.UNKNOWN, "unavailable")


async def test_a_look_at_this_machine_is_complete() -> None:
    found = await look(options(), Machine(clock=Clock()))
    assert [finding.subject for finding in found] == [SUBJECT, KILLS]
    assert found[0].measurements["available_bytes"] > 0


async def test_evidence_names_who_holds_most_memory() -> None:
    machine = Machine(clock=Clock())
    known = Kills(boot=boot_id(), count=1, at=machine.clock.now(), victims=(MARIADB,))
    machine.memory.put("memory.kills", asdict(known))
    finding = Finding(subject=KILLS, status=Status.CRITICAL, cause="oom-killed")
    items = {item.title: item.text for item in await gather(options(), finding, machine)}
    assert len(items["Processes that hold most memory"].splitlines()) > 3
    assert "mariadb.service" in items["Killed by the kernel"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"warning": {"available": "10"}}, None),
        ({"warning": {"available": "lots"}}, "10% or 500M"),
        ({"warning": {"available": "0%"}}, "10% or 500M"),
        ({"warning": {"available": "101%"}}, "10% or 500M"),
        ({"warning": {"pressure": 30}}, "85%"),
        ({"critical": {"swapping": 5}}, "500M or 1G"),
        ({"lasting": "0s"}, "greater than 0"),
        ({"lasting": 120}, "needs a unit"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, Any], words: str | None) -> None:
    if words is None:
        assert options(**given)
        return
    with pytest.raises(ValidationError, match=words):
        options(**given)


@pytest.mark.parametrize(("text", "amount"), [("10%", 100), ("0.5%", 5), ("2K", 2048)])
def test_amounts_are_shares_or_sizes(text: str, amount: float) -> None:
    assert parse_amount(text, 1000) == amount
