"""The trail: every order is on record, whoever gave it and whatever became of it."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from fake_agent import make_incident

from agent.agent import ActionOutcome
from agent.errors import ConfigError, StoreError
from api.app import ROUTES

PARTS = {"name": "web", "id": "i2"}


async def read_trail(web) -> list[dict]:
    return (await web.unix.get("/v1/actions")).json()["items"]


def test_only_reports_leave_no_entry() -> None:
    assert {route.path for route in ROUTES if not route.recorded} == {
        "/v1/checks/{name}/findings",
        "/v1/hooks/alertmanager",
        "/v1/rehearsals",
    }


async def test_every_order_leaves_one_entry_whatever_becomes_of_it(web, subtests) -> None:
    for route in ROUTES:
        with subtests.test(f"{route.method} {route.path}"):
            web.agent.action_list.clear()
            if route.path == "/v1/events":
                continue
            await web.unix.request(route.method, route.path.format(**PARTS))
            found = list(web.agent.action_list.values())
            if not (route.acts and route.recorded):
                assert found == []
                continue
            (entry,) = found
            assert entry.what == route.endpoint.__name__
            assert entry.target == (
                "web" if "{name}" in route.path else "i2" if "{id}" in route.path else ""
            )
            assert f"pid {os.getpid()}" in entry.by
            assert entry.outcome in (ActionOutcome.OK, ActionOutcome.REFUSED)
            assert (entry.outcome is ActionOutcome.REFUSED) == bool(entry.why)


async def test_an_order_is_told_with_what_it_said_and_made(web) -> None:
    order = {"options": {"unit": "nginx.service", "password": "geheim"}, "preview": True}
    run = await web.unix.post("/v1/remedies/restart-service/runs", json=order)
    (entry,) = await read_trail(web)
    assert (entry["what"], entry["target"], entry["outcome"], entry["made"]) == (
        "run_remedy",
        "restart-service",
        "ok",
        run.json()["id"],
    )
    assert entry["details"] == (
        '{"options": {"unit": "nginx.service", "password": "***"}, "preview": true}'
    )


async def test_a_refusal_is_told_with_its_reason_and_without_what_was_sent(web) -> None:
    web.agent.incident_list["i9"] = make_incident(9)
    await web.unix.post("/v1/incidents/i1/close")
    await web.unix.post("/v1/pause", json={"for_seconds": "geheim"})
    typing_error, conflict = await read_trail(web)
    assert conflict["outcome"] == typing_error["outcome"] == "refused"
    assert conflict["why"] == "cannot close incident i1: it is resolved already"
    assert "body.for_seconds" in typing_error["why"]
    assert "geheim" not in str(typing_error)


async def test_a_role_that_was_too_low_is_told(web) -> None:
    from agent.agent import Role

    new = await web.agent.create_token("dash", role=Role.VIEWER, by="tester")
    headers = {"Authorization": f"Bearer {new.secret}"}
    await web.tcp.post("/v1/incidents/i2/close", headers=headers)
    (entry,) = await read_trail(web)
    assert (entry["by"], entry["outcome"]) == ("token dash (t1)", "refused")
    assert "it takes the role operator, and yours is viewer" in entry["why"]


async def test_a_defect_is_told_as_such(web) -> None:
    web.agent.broken = KeyError("inside")
    await web.unix.post("/v1/pause")
    (entry,) = await read_trail(web)
    assert (entry["outcome"], entry["why"]) == ("failed", "a defect; see the log")


async def test_an_order_that_arrives_twice_is_one_entry(web) -> None:
    for _ in range(2):
        await web.unix.post("/v1/pause", headers={"Idempotency-Key": "k"})
    assert len(await read_trail(web)) == 1


async def test_what_cannot_be_put_on_record_is_not_done(web) -> None:
    web.agent.trail_error = StoreError("cannot write state.db: disk I/O error")
    answer = await web.unix.post("/v1/pause")
    assert answer.status_code == 503
    assert web.agent.orders == []


async def test_an_order_is_on_record_while_it_is_carried_out(web, monkeypatch) -> None:
    go = asyncio.Event()

    async def pause(**_parts: object) -> None:
        await go.wait()

    monkeypatch.setattr(web.agent, "pause", pause)
    asked = asyncio.create_task(web.unix.post("/v1/pause"))
    while not (found := await read_trail(web)):
        pass
    assert found[0]["outcome"] == "begun"
    go.set()
    await asked
    assert (await read_trail(web))[0]["outcome"] == "ok"


async def test_long_words_do_not_fill_the_trail(web) -> None:
    await web.unix.post(f"/v1/incidents/{'x' * 5000}/close")
    await web.unix.post("/v1/pause", json={"why": "y" * 500})
    for entry in await read_trail(web):
        assert len(entry["target"]) <= 200
        assert len(entry["why"]) <= 1000


@pytest.mark.parametrize("wrong", [None, ConfigError("cannot read it")])
async def test_a_reload_by_signal_is_an_order_too(web, wrong) -> None:
    web.agent.config_error = wrong
    os.kill(os.getpid(), signal.SIGHUP)
    while not (found := await read_trail(web)) or found[0]["outcome"] == "begun":
        pass
    assert [(a["by"], a["what"]) for a in found] == [("SIGHUP", "reload_config")]
    assert found[0]["outcome"] == ("refused" if wrong else "ok")


async def test_the_trail_comes_in_parts(web) -> None:
    for _ in range(5):
        await web.unix.post("/v1/resume")
    seen, before = [], None
    while True:
        query = {"limit": 2, **({"before": before} if before else {})}
        page = (await web.unix.get("/v1/actions", params=query)).json()
        seen += [entry["id"] for entry in page["items"]]
        before = page["next"]
        if before is None:
            break
    assert seen == ["a5", "a4", "a3", "a2", "a1"]
