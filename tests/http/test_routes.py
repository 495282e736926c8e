"""What each route gives and does."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from fake_agent import START, make_incident, make_run

from agent.core import model
from agent.core.model import NoticeState, RunState, State
from api.schemas.audits import Audit, AuditResult
from api.schemas.checks import Check
from api.schemas.drills import Drill
from api.schemas.health import Health
from api.schemas.incidents import Explanation, Incident, IncidentStory
from api.schemas.notices import Notice
from api.schemas.rehearsals import Rehearsal, RehearsalResult
from api.schemas.remedies import Remedy
from api.schemas.runs import Run
from api.schemas.status import AgentStatus
from api.schemas.wire import Page, write_instant

SECRET = "hunter2"


async def test_status_is_told_whole(web) -> None:
    status = (await web.unix.get("/v1/status")).json()
    assert AgentStatus.model_validate(status)
    assert status["now"] == "2026-01-31T08:10:00.000Z"
    assert status["worst"] == "critical"
    assert [incident["id"] for incident in status["incidents"]] == ["i2"]
    assert status["holds"]["i2"]["hold"] == "approval"


async def test_a_story_is_told_whole(web) -> None:
    story = (await web.unix.get("/v1/incidents/i1")).json()
    assert IncidentStory.model_validate(story)
    assert story["downtime_seconds"] == 12.5
    assert [step["new"] for step in story["transitions"]][-1] == "resolved"
    assert story["runs"][0]["timeout_seconds"] == 60.0
    assert story["evidence"][0]["text"] == "bind() failed\nexited 1"


ANSWERS: dict[str, Any] = {
    "/v1/checks": Page[Check],
    "/v1/checks/web": Check,
    "/v1/incidents": Page[Incident],
    "/v1/incidents/i2/explain": Explanation,
    "/v1/audits": Page[Audit],
    "/v1/audits?check=pages": Page[Audit],
    "/v1/audits/a1": AuditResult,
    "/v1/rehearsals": Page[Rehearsal],
    "/v1/rehearsals/h1": RehearsalResult,
    "/v1/drills": Page[Drill],
    "/v1/drills/d1": Drill,
    "/v1/remedies": Page[Remedy],
    "/v1/remedies/clean-disk": Remedy,
    "/v1/runs": Page[Run],
    "/v1/runs/r1": Run,
    "/v1/notices": Page[Notice],
    "/readyz": Health,
}
ORDERS = {
    "/v1/resume": "resume",
    "/v1/config/reload": "reload",
    "/v1/incidents/i2/acknowledge": "acknowledge i2",
    "/v1/incidents/i2/reject": "reject i2",
    "/v1/incidents/i2/retry": "retry i2",
    "/v1/incidents/i2/approve": "approve i2",
    "/v1/incidents/i2/close": "close i2",
}


async def test_answers_are_what_their_schemas_say(web, subtests) -> None:
    for path, kind in ANSWERS.items():
        with subtests.test(path):
            answer = await web.unix.get(path)
            assert answer.status_code == 200
            assert kind.model_validate(answer.json(), extra="forbid")


async def test_an_order_reaches_the_agent_with_who_gave_it(web, subtests) -> None:
    for path, order in ORDERS.items():
        with subtests.test(path):
            assert (await web.unix.post(path)).status_code == 200
            verb, by = web.agent.orders[-1]
            assert verb == order
            assert "uid " in by


async def test_a_pause_takes_how_long_and_why(web) -> None:
    answer = await web.unix.post("/v1/pause", json={"for_seconds": 60, "why": "upgrade"})
    paused = answer.json()["paused"]
    assert (paused["until"], paused["why"]) == ("2026-01-31T08:11:00.000Z", "upgrade")


async def test_a_look_is_taken_now(web) -> None:
    answer = await web.unix.post("/v1/checks/root-disk/look")
    assert answer.json()["looked"] == "2026-01-31T08:10:00.000Z"


async def test_a_remedy_is_run_with_options(web) -> None:
    answer = await web.unix.post(
        "/v1/remedies/restart-service/runs",
        json={"options": {"unit": "nginx.service"}, "preview": True},
    )
    assert answer.status_code == 202
    run = answer.json()
    assert (run["options"], run["preview"]) == ({"unit": "nginx.service"}, True)
    assert (await web.unix.get(f"/v1/runs/{run['id']}")).json() == run


async def test_secrets_are_masked_everywhere(web) -> None:
    options = {"unit": "nginx.service", "password": SECRET}
    started = await web.unix.post("/v1/remedies/restart-service/runs", json={"options": options})
    assert started.status_code == 202
    run = started.json()["id"]
    assert web.agent.run_list[run].options["password"] == SECRET
    web.agent.run_list[run] = replace(
        web.agent.run_list[run], incident="i2", state=RunState.RUNNING, ended=None, outcome=None
    )
    told = [started.text]
    for path in (
        "/v1/status",
        "/v1/runs",
        f"/v1/runs/{run}",
        "/v1/incidents/i2",
        "/v1/incidents/i2/explain",
        "/v1/remedies",
        "/v1/remedies/restart-service",
    ):
        told.append((await web.unix.get(path)).text)
    assert not [text for text in told if SECRET in text]
    assert all("***" in text for text in told)


async def collect(web, path: str, limit: int) -> list[str]:
    seen: list[str] = []
    before = None
    for _ in range(100):
        query = {"limit": limit} | ({"before": before} if before else {})
        page = (await web.unix.get(path, params=query)).json()
        assert len(page["items"]) <= limit
        seen += [item.get("id") or item["name"] for item in page["items"]]
        before = page["next"]
        if before is None:
            return seen
    raise AssertionError("the list has no end")


async def test_parts_of_every_list_make_the_whole(web) -> None:
    agent = web.agent
    for number in range(3, 8):
        agent.incident_list[f"i{number}"] = make_incident(number)
        agent.run_list[f"r{number}"] = make_run(number)
        agent.notice_list[f"n{number}"] = replace(agent.notice_list["n1"], id=f"n{number}")
        agent.check_list[f"web{number}"] = replace(agent.check_list["web"], name=f"web{number}")
        agent.remedy_list[f"fix {number}/ö"] = replace(
            agent.remedy_list["clean-disk"], name=f"fix {number}/ö"
        )
    for path, known in (
        ("/v1/incidents", agent.incident_list),
        ("/v1/runs", agent.run_list),
        ("/v1/notices", agent.notice_list),
        ("/v1/checks", agent.check_list),
        ("/v1/remedies", agent.remedy_list),
    ):
        for limit in (1, 2, 3, 7, 500):
            seen = await collect(web, path, limit)
            assert sorted(seen) == sorted(known), path
            if not path.endswith(("checks", "remedies")):
                assert seen == sorted(known, key=lambda name: int(name[1:]), reverse=True)


async def test_lists_can_be_narrowed(web) -> None:
    async def ids(path: str) -> list[str]:
        return [item["id"] for item in (await web.unix.get(path)).json()["items"]]

    assert await ids("/v1/incidents?live=true") == ["i2"]
    assert await ids("/v1/incidents?live=false") == ["i1"]
    assert await ids("/v1/incidents?check=web") == ["i2", "i1"]
    assert await ids("/v1/incidents?check=other") == []
    assert await ids("/v1/runs?incident=i1") == ["r1"]
    assert await ids("/v1/runs?incident=i2") == []
    assert await ids("/v1/notices?state=due") == ["n2"]


async def test_events_of_a_run_come_in_parts(web) -> None:
    first = (await web.unix.get("/v1/runs/r1/events?limit=1")).json()
    assert [event["task"] for event in first["items"]] == ["Validate"]
    assert first["next"] == 1
    rest = (await web.unix.get(f"/v1/runs/r1/events?after={first['next']}")).json()
    assert [event["number"] for event in rest["items"]] == [2]
    assert rest["next"] is None


async def test_a_due_notice_says_when_it_is_tried_again(web) -> None:
    notices = {n["id"]: n for n in (await web.unix.get("/v1/notices")).json()["items"]}
    assert notices["n2"]["due"] == "2026-01-31T08:11:40.000Z"
    assert notices["n1"]["due"] is None
    assert notices["n1"]["state"] == NoticeState.DELIVERED


async def post(web, key: str | None, path: str = "/v1/remedies/restart-service/runs", **body: Any):
    headers = {} if key is None else {"Idempotency-Key": key}
    order = {"options": {"unit": "nginx.service", **body}}
    return await web.unix.post(path, json=order, headers=headers)


async def test_an_order_that_arrives_twice_acts_once(web) -> None:
    first, second = await post(web, "k1"), await post(web, "k1")
    assert first.status_code == second.status_code == 202
    assert first.json() == second.json()
    assert len(web.agent.orders) == 1
    assert (await post(web, "k2")).json()["id"] != first.json()["id"]
    assert (await post(web, None)).status_code == 202
    assert len(web.agent.orders) == 3


async def test_equal_orders_at_one_time_act_once(web, monkeypatch) -> None:
    slow, run_remedy = asyncio.Event(), web.agent.run_remedy

    async def run_slowly(*args: Any, **kwargs: Any) -> model.Run:
        await slow.wait()
        return await run_remedy(*args, **kwargs)

    monkeypatch.setattr(web.agent, "run_remedy", run_slowly)
    orders = [asyncio.create_task(post(web, "k1")) for _ in range(3)]
    while (await web.unix.get("/healthz")).status_code != 200:
        pass
    slow.set()
    answers = await asyncio.gather(*orders)
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(web.agent.orders) == 1


async def test_a_key_stands_for_one_request_only(web) -> None:
    await post(web, "k1")
    for other in (
        await post(web, "k1", unit="other.service"),
        await post(web, "k1", path="/v1/remedies/clean-disk/runs"),
    ):
        assert other.status_code == 422
        assert "Idempotency-Key" in other.json()["detail"]
    assert len(web.agent.orders) == 1


async def test_a_refused_order_may_be_sent_again_with_its_key(web) -> None:
    headers = {"Idempotency-Key": "k1"}
    assert (await web.unix.post("/v1/incidents/i9/close", headers=headers)).status_code == 404
    web.agent.incident_list["i9"] = make_incident(9)
    answer = await web.unix.post("/v1/incidents/i9/close", headers=headers)
    assert answer.json()["state"] == State.RESOLVED


async def test_an_order_that_ended_in_a_defect_is_not_carried_out_again(web) -> None:
    web.agent.broken = KeyError("inside")
    assert (await post(web, "k1")).status_code == 500
    assert (await post(web, "k1")).status_code == 500
    assert web.agent.orders == []


async def test_only_the_latest_keys_are_remembered(web) -> None:
    from api.idempotency import Answers

    async def answer() -> Any:
        return object()

    answers = Answers(at_most=3)
    first = await answers.once("a", "k0", "/p", b"", answer)
    assert await answers.once("a", "k0", "/p", b"", answer) is first
    assert await answers.once("b", "k0", "/p", b"", answer) is not first
    for number in range(1, 4):
        await answers.once("a", f"k{number}", "/p", b"", answer)
    assert len(answers._entries) == 3
    assert await answers.once("a", "k0", "/p", b"", answer) is not first


def test_the_first_second_of_time_is_written_as_such() -> None:
    assert write_instant(0.0) == "1970-01-01T00:00:00.000Z"
    assert write_instant(START + 0.9999) == "2026-01-31T08:00:00.999Z"


async def test_an_audit_is_told_with_its_defects(web) -> None:
    found = (await web.unix.get("/v1/audits/a2")).json()
    assert (found["ending"], found["defects_count"], found["new_count"]) == ("complete", 1, 1)
    assert found["verdict"].startswith("1 DEFECT, 1 known; 20 addresses")
    assert found["defects"][0]["referrers"] == [
        {"page": "https://shop.example/", "line": 12, "role": "link"}
    ]
    listed = (await web.unix.get("/v1/audits?limit=1")).json()
    assert [audit["id"] for audit in listed["items"]] == ["a2"]
    assert "defects" not in listed["items"][0]
    assert (await web.unix.get("/v1/audits/a9")).status_code == 404


async def test_an_audit_is_ordered_by_its_check(web) -> None:
    answer = await web.unix.post("/v1/audits", json={"check": "pages"})
    assert (answer.status_code, answer.json()["name"]) == (202, "pages")
    assert web.agent.orders[-1][0] == "audit pages"
    for check, status in (("web", 422), ("nothing", 404)):
        answer = await web.unix.post("/v1/audits", json={"check": check})
        assert answer.status_code == status


async def test_a_drill_is_started_told_and_ended(web) -> None:
    order = {"fault": "kill-service", "options": {"unit": "nginx.service"}, "within_seconds": 60}
    answer = await web.unix.post("/v1/drills", json=order)
    assert (answer.status_code, answer.json()["id"]) == (202, "d3")
    assert (answer.json()["within_seconds"], answer.json()["outcome"]) == (60, "passed")
    assert web.agent.orders[-1][0] == "drill kill-service"
    assert (await web.unix.delete("/v1/drills/d3")).json()["state"] == "ended"
    for changes, status in (
        ({"fault": "nothing"}, 404),
        ({"options": {"nothing": 1}}, 422),
        ({"within_seconds": 0}, 422),
    ):
        assert (await web.unix.post("/v1/drills", json=order | changes)).status_code == status
    web.agent.no_drills = "this host does not allow any"
    refused = await web.unix.post("/v1/drills", json=order)
    assert (refused.status_code, "does not allow" in refused.json()["detail"]) == (409, True)


async def test_a_rehearsal_is_kept_whole_and_listed_without_its_report(web) -> None:
    order = {
        "verdict": "fail",
        "headline": "FAIL - 1 blocking",
        "candidate": "https://staging.example",
        "baseline": "https://shop.example",
        "took_seconds": 61.5,
        "report": {"gates": [{"name": "broken", "cases": ["/a"]}]},
    }
    answer = await web.unix.post("/v1/rehearsals", json=order)
    assert (answer.status_code, answer.json()["id"]) == (201, "h3")
    assert (await web.unix.get("/v1/rehearsals/h3")).json()["report"] == order["report"]
    listed = (await web.unix.get("/v1/rehearsals?limit=1")).json()["items"]
    assert [(each["id"], "report" in each) for each in listed] == [("h3", False)]
    assert web.agent.action_list == {}
    wrong = await web.unix.post("/v1/rehearsals", json=order | {"verdict": "maybe"})
    assert wrong.status_code == 422
