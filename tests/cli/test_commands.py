"""What each command says, and with which exit code it ends."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from fake_agent import START

from agent.core.model import Held, Hold, Outcome, RunState, Silence
from agent.errors import ConfigError, StoreError
from api.schemas.checks import Check
from api.schemas.incidents import Explanation, Incident, IncidentStory
from api.schemas.notices import Notice
from api.schemas.remedies import Remedy
from api.schemas.runs import Run
from api.schemas.status import AgentStatus
from api.schemas.wire import Page

PLAIN = [
    ("status",),
    ("checks",),
    ("incidents", "--all"),
    ("incident", "show", "i1"),
    ("incident", "show", "i2"),
    ("incident", "explain", "i2"),
    ("remedies",),
    ("remedy", "show", "restart-service"),
    ("runs",),
    ("run-show", "r1"),
    ("notices",),
]


def recurring(name: str, starts: float, ends: float, comment: str = "") -> Silence:
    return Silence(
        id=name, starts=starts, ends=ends, by="the configuration", comment=comment,
        checks=("web",), runs=True, recurring=True,
    )  # fmt: skip


async def test_status_tells_everything_on_one_screen(agent, hostmend) -> None:
    now = agent.now()
    agent.problems = ("cannot load /etc/hostmend/hostmend.yml: line 3",)
    agent.missing = {"D-Bus": "no such socket"}
    agent.silence_list = (
        Silence(id="s1", starts=now, ends=now + 600, by="ann", checks=("*",), runs=True),
    )
    agent.windows = (
        recurring("backup", now - 60, now + 600),
        recurring("patches", now + 7200.5, now + 10800.5, comment="patches"),
        recurring("yearly", now + 1e6, now + 2e6),
    )
    agent.hold_runs = True
    await hostmend("pause", "--for", "30m", "--why", "upgrade")
    await hostmend("remedy", "run", "restart-service", "-o", "unit=x.service", "--no-wait")
    result = await hostmend("status")
    assert result.code == 0
    lines = result.out.splitlines()
    assert len(lines) <= 24
    assert lines[0] == "web1: critical (1 critical, 2 unknown)"
    assert "yearly" not in result.out, "it is far away"
    for said in (
        "PAUSED by root",
        ": upgrade",
        "PROBLEM: cannot load",
        "MISSING: D-Bus: no such socket",
        "MAINTENANCE * by ann, ends in",
        "MAINTENANCE web by the configuration (backup), ends in",
        "Next maintenance: web by the configuration (patches), begins in 2 h, for 1 h: patches",
        "i2  open  web nginx.service: nginx.service has failed (failing for",
        "held, approval: restart-service waits for an operator",
        "hostmend incident approve i2",
        "r2  restart-service by root",
        "messages not delivered yet: 1",
    ):
        assert said in result.out, said


async def test_status_of_a_healthy_host_is_short(agent, hostmend) -> None:
    agent.incident_list, agent.check_list, agent.notice_list = {}, {}, {}
    result = await hostmend("status")
    assert result.out.splitlines()[:2] == ["web1: ok (no checks)", "No incidents."]


async def test_a_story_is_told_in_order(agent, hostmend) -> None:
    out = (await hostmend("incident", "show", "i1")).out
    story = (
        "resolved",
        "repaired by hostmend (run r1)",
        "Timeline",
        "pending: first failing look",
        "open: confirmed by 2 of 3 looks",
        "r1 ok after 2 s",
        "Restart the unit",
        "probation: a look after the run passed",
        "told ops: healed",
        "Before",
        "bind() failed",
        "After",
        "active (running)",
    )
    places = [out.index(part) for part in story]
    assert places == sorted(places)
    assert "downtime" in out


async def test_an_incident_that_lives_says_what_comes_next(agent, hostmend) -> None:
    out = (await hostmend("incident", "show", "i2")).out
    assert "it waits for an operator's approval" in out
    assert "held, approval" in out
    assert "hunter2" not in out


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("ack", "is acknowledged"),
        ("approve", "is approved"),
        ("reject", "goes on without that remedy"),
        ("retry", "is tried again"),
        ("close", "is closed"),
    ],
)
async def test_an_order_says_what_it_did_and_refusal_is_1(agent, hostmend, verb, said) -> None:
    done = await hostmend("incident", verb, "i2")
    assert (done.code, done.out) == (0, f"Incident i2 (web nginx.service) {said}.\n")
    refused = await hostmend("incident", verb, "i1")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("hostmend: cannot ")


async def test_an_approval_of_a_remedy_that_changed_is_refused(agent, hostmend) -> None:
    refused = await hostmend("incident", "approve", "i2", "--digest", "sha256:old")
    assert refused.code == 1
    assert "changed" in refused.err
    assert (await hostmend("incident", "approve", "i2", "--digest", "sha256:abc")).code == 0


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome.OK, 0),
        (Outcome.FAILED, 1),
        (Outcome.LOST, 1),
        (Outcome.TIMEOUT, 4),
        (Outcome.CANCELLED, 5),
        (Outcome.NEEDS_HUMAN, 6),
    ],
)
async def test_a_run_is_followed_to_its_end(agent, hostmend, outcome, code) -> None:
    agent.hold_runs = True
    following = asyncio.create_task(
        hostmend("remedy", "run", "restart-service", "-o", "unit=x.service", "-o", "password=a=b")
    )
    while "r2" not in agent.run_list:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.01)
    assert agent.run_list["r2"].options == {"unit": "x.service", "password": "a=b"}
    agent.run_event_list["r2"].append(
        {"number": 2, "task": "See", "status": "failed", "msg": "no\nsuch \x1b[31munit"}
    )
    agent.run_list["r2"] = replace(
        agent.run_list["r2"],
        state=RunState.ENDED,
        ended=agent.now(),
        outcome=outcome,
        detail="the end",
    )
    result = await following
    assert result.code == code
    lines = [line.strip() for line in result.out.splitlines()]
    assert lines[0] == "Run r2 of restart-service:"
    assert lines[1].startswith("changed   Restart the unit")
    assert lines[2:5] == ["failed    See", "no", "such  [31munit"]
    assert lines[-1] == f"Run r2: {outcome}: the end"


async def test_options_that_are_json_are_taken_as_such(agent, hostmend) -> None:
    agent.remedy_list["any"] = replace(
        agent.remedy_list["clean-disk"], name="any", options={n: {} for n in "abcdef"}
    )
    given = ("a=1", "b=true", "c=[1, 2]", "d=text", "e=", "f=nginx.service")
    options = [part for item in given for part in ("-o", item)]
    assert (await hostmend("remedy", "run", "any", "--preview", *options)).code == 0
    run = agent.run_list["r2"]
    assert run.preview
    assert run.options == {
        "a": 1,
        "b": True,
        "c": [1, 2],
        "d": "text",
        "e": "",
        "f": "nginx.service",
    }


async def test_a_run_can_be_cancelled(agent, hostmend) -> None:
    agent.hold_runs = True
    await hostmend("remedy", "run", "restart-service", "-o", "unit=x", "--no-wait")
    assert (await hostmend("run-cancel", "r2")).out == "Run r2: cancelled.\n"
    assert (await hostmend("run-cancel", "r2")).code == 1


async def test_pause_and_resume(agent, hostmend) -> None:
    assert "until resumed" in (await hostmend("pause")).out
    assert agent.paused is not None
    assert "(in 30 min)" in (await hostmend("pause", "--for", "30m")).out
    assert (await hostmend("resume")).code == 0
    assert agent.paused is None


async def test_a_configuration_that_cannot_be_used_is_refused(agent, hostmend) -> None:
    assert "is in effect: 3 checks" in (await hostmend("reload")).out
    agent.config_error = ConfigError("no such key", file="hostmend.yml", line=3, key="cheks")
    refused = await hostmend("reload")
    assert refused.code == 1
    assert "hostmend.yml:3: cheks: no such key" in refused.err


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("status",), AgentStatus),
        (("pause",), AgentStatus),
        (("resume",), AgentStatus),
        (("reload",), AgentStatus),
        (("checks",), Page[Check]),
        (("incidents",), Page[Incident]),
        (("incident", "show", "i1"), IncidentStory),
        (("incident", "explain", "i2"), Explanation),
        (("incident", "ack", "i2"), Incident),
        (("remedies",), Page[Remedy]),
        (("remedy", "show", "clean-disk"), Remedy),
        (("remedy", "run", "restart-service", "-o", "unit=x", "--no-wait"), Run),
        (("runs",), Page[Run]),
        (("notices",), Page[Notice]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_json_is_what_the_api_gives(agent, hostmend, arguments, kind: Any) -> None:
    result = await hostmend(*arguments, "--json")
    assert (result.code, result.err) == (0, "")
    assert kind.model_validate_json(result.out, extra="forbid")


async def test_a_run_and_its_events_are_json_together(agent, hostmend) -> None:
    for arguments in (("run-show", "r1"), ("remedy", "run", "restart-service", "-o", "unit=x")):
        told = json.loads((await hostmend(*arguments, "--json")).out)
        assert Run.model_validate(told["run"])
        assert [event["number"] for event in told["events"]]


@pytest.mark.parametrize("arguments", PLAIN, ids=" ".join)
async def test_what_is_piped_is_plain(agent, hostmend, arguments) -> None:
    long = "x" * 300
    for item in (*agent.incident_list.values(),):
        finding = replace(item.finding, summary=f"{long} \x1b[31m[bold]\n\u009b2J")
        agent.incident_list[item.id] = replace(item, finding=finding, before=finding)
    result = await hostmend(*arguments)
    assert result.code == 0
    assert not [c for c in result.out if (ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0]
    assert not [c for c in result.out if "\u2500" <= c <= "\u259f"]
    if long in result.out:
        assert "[bold]" in result.out
    if arguments[0] == "incidents":
        assert len(result.out.splitlines()) == 3


@pytest.mark.parametrize("arguments", [*PLAIN, ("pause",)], ids=" ".join)
async def test_without_an_agent_the_error_says_what_to_do(hostmend, places, arguments) -> None:
    result = await hostmend(*arguments)
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        f"hostmend: cannot reach the agent at {places}/hostmend.sock: is it running? "
        "start it with `hostmend run`\n"
    )


async def test_the_agent_of_the_host_is_used_by_those_without_their_own(
    agent, hostmend, places, monkeypatch
) -> None:
    from api.cli import parts

    monkeypatch.setattr(parts, "HOST_SOCKET", places / "hostmend.sock")
    monkeypatch.setenv("HOSTMEND_RUNTIME_DIR", str(places / "mine"))
    assert (await hostmend("status")).code == 0


async def test_a_part_of_the_agent_that_is_away_is_a_failure(agent, hostmend) -> None:
    agent.broken = StoreError("cannot read the state: no space left")
    result = await hostmend("status")
    assert (result.code, result.err) == (1, "hostmend: cannot read the state: no space left\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("status", "--nothing"),
        ("incident", "show"),
        ("pause", "--for", "5"),
        ("pause", "--for", "soon"),
        ("remedy", "run", "x", "-o", "unit"),
        ("remedy", "run", "x", "-o", "a=1", "-o", "a=2"),
        ("runs", "--limit", "0"),
        ("notices", "--state", "lost"),
        ("incident",),
        (),
    ],
    ids=" ".join,
)
async def test_wrong_usage_is_2(hostmend, arguments) -> None:
    result = await hostmend(*arguments)
    assert result.code == 2
    assert "Usage: hostmend" in result.err + result.out


async def test_lists_have_as_many_as_asked_for(agent, hostmend) -> None:
    assert len((await hostmend("incidents", "--all", "-n", "1")).out.splitlines()) == 2
    assert len((await hostmend("notices", "--state", "due")).out.splitlines()) == 2
    assert (await hostmend("runs", "--incident", "i2")).out == "No runs.\n"


async def test_a_name_with_a_slash_is_one_name(agent, hostmend) -> None:
    for arguments in (("incident", "show", "../status"), ("remedy", "show", "a/b")):
        result = await hostmend(*arguments)
        assert (result.code, result.out) == (1, "")


async def test_when_a_hold_ends_is_told(agent, hostmend) -> None:
    agent.held["i2"] = Held(hold=Hold.COOLING_DOWN, detail="a pause", until=agent.now() + 90)
    assert "held, cooling down: a pause, changes in 1 min 30 s" in (await hostmend("status")).out
    assert f"until {START}" not in (await hostmend("incident", "show", "i2")).out


async def test_a_test_of_the_routes_says_what_became_of_each(agent, hostmend) -> None:
    result = await hostmend("notify", "test")
    assert result.code == 1
    ops, phone = result.out.splitlines()[1:]
    assert ops.split()[:2] == ["ops", "taken"]
    assert "mailto://mx.example:25/…" in ops
    assert phone.split()[:2] == ["phone", "FAILED"]
    assert phone.endswith("503 busy")
    assert (await hostmend("notify", "test", "ops")).code == 0
    shown = await hostmend("notify", "test", "ops", "--json")
    assert [test["ok"] for test in json.loads(shown.out)["items"]] == [True]
    missing = await hostmend("notify", "test", "nobody")
    assert (missing.code, missing.out) == (1, "")
    assert "nobody" in missing.err
    agent.route_tests.clear()
    assert "none is configured" in (await hostmend("notify", "test")).err
