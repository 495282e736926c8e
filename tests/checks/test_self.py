"""What the agent's check of itself makes of its condition. A whole agent: tests/agent."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from agent.checks.self import AGENT, SELF, STATE, SelfOptions, gather, judge, look
from agent.clock import Clock
from agent.core.model import Finding, Status
from agent.host.condition import Condition, RouteCondition
from agent.host.machine import Machine
from agent.host.rates import Lasting

MB = 2**20


def options(**given: Any) -> SelfOptions:
    return SelfOptions.model_validate({"type": "self", "every": "10s", **given})


def watch(given: SelfOptions, condition: Condition, looks: int = 1) -> dict[str, Finding]:
    """The findings of the last of so many looks."""
    lasting = Lasting()
    for n in range(looks):
        found = judge(given, condition, lasting, 1000.0 + 10 * n)
    for finding in found:
        assert set(finding.measurements) <= set(SELF.measurements)
        assert not finding.cause or finding.cause in SELF.causes
    return {finding.subject: finding for finding in found}


@pytest.mark.parametrize(
    ("sentence", "condition", "given", "looks", "status", "cause"),
    [
        ("an agent at work is ok", Condition(looks=7, memory=60 * MB), {}, 1, "ok", ""),
        ("to be late once is no news", Condition(late=9.0), {}, 5, "ok", ""),
        ("to be late for long is a warning", Condition(late=9.0), {}, 13, "warning", "late"),
        ("what is late can be said", Condition(late=0.3), {"critical": {"late": "200ms"}}, 13,
         "critical", "late"),
        ("a backlog that lasts is a warning", Condition(waiting=500), {}, 13, "warning",
         "backlog"),
        ("a backlog goes before lateness", Condition(waiting=500, late=9.0), {}, 13, "warning",
         "backlog"),
        ("much memory is a warning at once", Condition(memory=401 * MB), {}, 1, "warning",
         "memory"),
        ("two looks that break speak for themselves", Condition(broken={"a": "x", "b": "y"}), {},
         1, "ok", ""),
        ("many that break are the agent's trouble", Condition(broken=dict.fromkeys("abc", "x")),
         {}, 1, "warning", "blind"),
    ],
)  # fmt: skip
def test_what_the_agent_does_makes_one_finding(
    sentence: str,
    condition: Condition,
    given: dict[str, Any],
    looks: int,
    status: str,
    cause: str,
) -> None:
    finding = watch(options(**given), condition, looks)[AGENT]
    assert (finding.status, finding.cause) == (status, cause), sentence


def test_what_cannot_be_recorded_is_a_warning_of_its_own() -> None:
    assert watch(options(), Condition())[STATE].status is Status.OK
    found = watch(options(), Condition(unrecorded=("the disk is full", "no history")))[STATE]
    assert (found.status, found.cause) == (Status.WARNING, "unrecorded")
    assert found.summary == "the disk is full; no history"


@pytest.mark.parametrize(
    ("route", "status", "cause"),
    [
        (RouteCondition(), "ok", ""),
        (RouteCondition(failing=1, oldest=899.0, error="refused"), "ok", ""),
        (RouteCondition(failing=2, oldest=900.0, error="refused"), "critical", "undelivered"),
        (RouteCondition(expired=3), "warning", "lost"),
        (RouteCondition(failing=1, oldest=1e6, error="no", expired=3), "critical", "undelivered"),
    ],
)
def test_each_route_has_a_finding(route: RouteCondition, status: str, cause: str) -> None:
    condition = Condition(routes={"ops": RouteCondition(), "night": route})
    found = watch(options(), condition)
    assert found["route ops"].status is Status.OK
    night = found["route night"]
    assert (night.status, night.cause) == (status, cause)
    assert (route.error in night.summary) or not route.failing


async def test_a_look_without_an_agent_is_ok_and_says_so() -> None:
    (finding,) = await look(options(), Machine(clock=Clock()))
    assert finding.status is Status.OK
    assert "it is the running agent that looks at itself" in finding.summary
    assert await gather(options(), finding, Machine(clock=Clock())) == ()


async def test_evidence_names_what_breaks() -> None:
    condition = Condition(broken={"web": "the look took longer than 5 s"})
    machine = Machine(clock=Clock(), condition=lambda: condition)
    found = {finding.subject: finding for finding in await look(options(), machine)}
    (evidence,) = await gather(options(), found[AGENT], machine)
    assert evidence.text == "web: the look took longer than 5 s"
    assert await gather(options(), found[STATE], machine) == ()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"warning": {"late": 5}}, "needs a unit"),
        ({"warning": {"waiting": 0}}, "greater than or equal to 1"),
        ({"critical": {"memory": 5}}, "500M or 1G"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        options(**given)
