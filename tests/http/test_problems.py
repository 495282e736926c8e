"""Every bad request gets one kind of answer, and no part of the inside."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.core.model import Status
from agent.errors import (
    ConfigError,
    Conflict,
    ImpossibleTransition,
    Invalid,
    NotFound,
    RemedyError,
    StoreError,
    Unavailable,
)
from api.problems import Problem


@dataclass(frozen=True)
class Bad:
    """A request that must be refused."""

    why: str
    method: str
    path: str
    status: int
    says: str
    parts: dict[str, Any] = field(default_factory=dict)


JSON = {"Content-Type": "application/json"}
BAD = [
    Bad("no such path", "GET", "/v1/nothing", 404, "no such path"),
    Bad("a slash too many", "GET", "/v1/status/", 404, "no such path"),
    Bad("no such version", "GET", "/v2/status", 404, "no such path"),
    Bad("wrong method", "DELETE", "/v1/status", 405, "it takes GET"),
    Bad("wrong method", "GET", "/v1/pause", 405, "it takes POST"),
    Bad("limit of nothing", "GET", "/v1/runs?limit=0", 422, "query.limit"),
    Bad("limit too high", "GET", "/v1/incidents?limit=501", 422, "query.limit"),
    Bad("limit no number", "GET", "/v1/notices?limit=ten", 422, "query.limit"),
    Bad("a cursor that is none", "GET", "/v1/runs?before=x", 422, "no id"),
    Bad("a cursor without end", "GET", f"/v1/checks?before={'x' * 201}", 422, "query.before"),
    Bad("no such state", "GET", "/v1/notices?state=lost", 422, "query.state"),
    Bad("neither true nor false", "GET", "/v1/incidents?live=maybe", 422, "query.live"),
    Bad("events before the first", "GET", "/v1/runs/r1/events?after=-1", 422, "query.after"),
    Bad("no such incident", "GET", "/v1/incidents/i77", 404, "i77"),
    Bad("no such check", "POST", "/v1/checks/none/look", 404, "none"),
    Bad("no such run", "POST", "/v1/runs/r77/cancel", 404, "r77"),
    Bad("no such remedy", "POST", "/v1/remedies/none/runs", 404, "none"),
    Bad("ended already", "POST", "/v1/incidents/i1/close", 409, "already"),
    Bad("a run that has ended", "POST", "/v1/runs/r1/cancel", 409, "ended"),
    Bad(
        "a digest that is no longer so",
        "POST",
        "/v1/incidents/i2/approve",
        409,
        "changed",
        {"json": {"digest": "sha256:old"}},
    ),
    Bad(
        "an option that is missing",
        "POST",
        "/v1/remedies/restart-service/runs",
        422,
        "'unit' is required",
        {"json": {}},
    ),
    Bad(
        "an option that is not known",
        "POST",
        "/v1/remedies/restart-service/runs",
        422,
        "'limit'",
        {"json": {"options": {"limit": "all"}}},
    ),
    Bad(
        "options that are a list",
        "POST",
        "/v1/remedies/restart-service/runs",
        422,
        "body.options",
        {"json": {"options": ["unit"]}},
    ),
    Bad("a word not known", "POST", "/v1/pause", 422, "body.until", {"json": {"until": 1}}),
    Bad("time backwards", "POST", "/v1/pause", 422, "for_seconds", {"json": {"for_seconds": -1}}),
    Bad("no time at all", "POST", "/v1/pause", 422, "for_seconds", {"json": {"for_seconds": 0}}),
    Bad(
        "for ever",
        "POST",
        "/v1/pause",
        422,
        "for_seconds",
        {"content": b'{"for_seconds":1e999}', "headers": JSON},
    ),
    Bad("a list", "POST", "/v1/pause", 422, "body", {"json": [1]}),
    Bad("half a body", "POST", "/v1/pause", 400, "JSON", {"content": b'{"why":', "headers": JSON}),
    Bad("no text", "POST", "/v1/pause", 400, "", {"content": b"\xff\xfe", "headers": JSON}),
    Bad("no end", "POST", "/v1/pause", 413, "bytes", {"content": b"{" + b" " * 300_000}),
    Bad(
        "a key too long",
        "POST",
        "/v1/resume",
        400,
        "Idempotency-Key",
        {"headers": {"Idempotency-Key": "x" * 201}},
    ),
    Bad("a form", "POST", "/v1/pause", 415, "application/json", {"data": {"why": "x"}}),
    Bad("no type", "POST", "/v1/pause", 415, "application/json", {"content": b"{}"}),
    Bad(
        "an event that is no number",
        "GET",
        "/v1/events",
        422,
        "last-event-id",
        {"headers": {"Last-Event-ID": "x"}},
    ),
]


async def test_a_bad_request_gets_a_problem_that_says_why(web, subtests) -> None:
    for bad in BAD:
        with subtests.test(f"{bad.why}: {bad.method} {bad.path[:40]}"):
            answer = await web.unix.request(bad.method, bad.path, **bad.parts)
            assert answer.status_code == bad.status, answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            problem = Problem.model_validate(answer.json())
            assert problem.status == bad.status
            assert problem.detail.startswith("cannot ")
            assert bad.says in problem.detail
            assert web.agent.orders == []


ERRORS = (
    (NotFound("cannot find it: gone"), 404),
    (Conflict("cannot do it: busy"), 409),
    (Invalid("cannot use it: wrong"), 422),
    (RemedyError("cannot use it: wrong"), 422),
    (ConfigError("cannot use it: wrong", file="a.yml", line=3, key="checks"), 422),
    (Unavailable("cannot reach D-Bus: gone"), 503),
    (StoreError("cannot write the state: no space"), 503),
)


async def test_an_error_of_the_agent_has_its_status_and_its_words(web, subtests) -> None:
    for error, status in ERRORS:
        with subtests.test(type(error).__name__):
            web.agent.broken = error
            answer = await web.unix.post("/v1/pause")
            assert answer.status_code == status
            assert answer.json()["detail"] == str(error)


async def test_an_unusable_configuration_says_where(web) -> None:
    web.agent.broken = ConfigError("cannot use it: wrong", file="a.yml", line=3, key="checks")
    problem = (await web.unix.post("/v1/pause")).json()
    assert (problem["file"], problem["line"], problem["key"]) == ("a.yml", 3, "checks")


@pytest.mark.parametrize(
    "error", [KeyError("secret-inside"), ImpossibleTransition("secret-inside")], ids=type
)
async def test_a_defect_tells_nothing_but_where_to_look(web, error, caplog) -> None:
    web.agent.broken = error
    answer = await web.unix.get("/v1/status")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert "secret-inside" not in answer.text
    assert "Traceback" not in answer.text
    assert problem["instance"].startswith("urn:uuid:")
    assert problem["instance"] in caplog.text
    assert (await web.unix.get("/v1/status")).status_code == 200


async def test_what_was_sent_is_not_repeated(web) -> None:
    answer = await web.unix.post("/v1/pause", json={"why": ["hunter2"]})
    assert answer.status_code == 422
    assert "hunter2" not in answer.text


async def test_text_that_is_no_text_and_numbers_that_are_none_are_told_all_the_same(web) -> None:
    from dataclasses import replace

    web_check = web.agent.check_list["web"]
    finding = replace(
        web_check.findings[0],
        status=Status.UNKNOWN,
        summary="bad byte \udcff here",
        measurements={"x_percent": float("nan"), "y_percent": float("inf")},
    )
    web.agent.check_list["web"] = replace(web_check, findings=(finding,))
    answer = await web.unix.get("/v1/checks/web")
    assert answer.status_code == 200
    told = json.loads(answer.text)["findings"][0]
    assert told["summary"] == "bad byte ? here"
    assert told["measurements"] == {"x_percent": None, "y_percent": None}
