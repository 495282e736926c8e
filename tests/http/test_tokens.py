"""Tokens over real TCP: each role does what it may and nothing else."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

import httpx
import pytest
from fake_agent import FakeAgent
from serving import Web, serve_web

from agent import tokens as token_module
from agent.agent import NewToken, Role
from agent.clock import Clock
from agent.store.state import State
from agent.tokens import AT_MOST, KEPT, USE_EVERY, Tokens, hash_secret
from api.app import ROUTES, Route
from api.auth import Access
from api.limits import Rate, Rates

#: Only against hanging.
LONG = 60.0
PARTS = {"name": "web", "id": "i2"}
#: Orders that need a body.
BODIES: Mapping[str, Mapping[str, object]] = {
    "/v1/tokens": {"name": "made", "role": "viewer"},
    "/v1/silences": {"checks": ["web"], "for_seconds": 60},
    "/v1/audits": {"check": "pages"},
    "/v1/rehearsals": {
        "verdict": "pass",
        "headline": "PASS",
        "candidate": "https://staging.example",
        "baseline": "https://shop.example",
        "took_seconds": 1.0,
        "report": {},
    },
    "/v1/drills": {"fault": "kill-service", "options": {"unit": "nginx.service"}},
}


def bearer(new: NewToken) -> dict[str, str]:
    return {"Authorization": f"Bearer {new.secret}"}


@pytest.fixture
async def tokens(agent: FakeAgent) -> dict[Role, NewToken]:
    return {role: await agent.create_token(role, role=role, by="tester") for role in Role}


async def ask(web: Web, route: Route, headers: Mapping[str, str]) -> httpx.Response:
    path = route.path.format(**PARTS)
    body = BODIES.get(route.path) if route.method == "POST" else None
    if route.path != "/v1/events":
        return await web.tcp.request(route.method, path, headers=headers, json=body)
    async with web.tcp.stream(route.method, path, headers=headers) as answer:
        # A stream has no end, and a refusal has.
        content = b"" if answer.status_code == 200 else await answer.aread()
        return httpx.Response(answer.status_code, headers=answer.headers, content=content)


@pytest.mark.parametrize("role", Role)
async def test_each_role_does_what_it_may_and_nothing_else(web, tokens, role, subtests) -> None:
    for route in ROUTES:
        with subtests.test(f"{route.method} {route.path}"):
            answer = await ask(web, route, bearer(tokens[role]))
            if Access(role.value).allows(route.access):
                assert answer.status_code not in (401, 403, 429, 500)
            else:
                assert answer.status_code == 403
                detail = answer.json()["detail"]
                assert f"it takes the role {route.access}, and yours is {role}" in detail


@pytest.mark.parametrize("role", Role)
async def test_what_a_role_may_not_order_is_not_done(web, tokens, role) -> None:
    before = list(web.agent.orders)
    for route in ROUTES:
        if not Access(role.value).allows(route.access):
            await ask(web, route, bearer(tokens[role]))
    assert web.agent.orders == before


async def test_a_revoked_and_an_expired_token_refuse_everywhere(web, tokens, subtests) -> None:
    revoked, expired = tokens[Role.ADMIN], tokens[Role.OPERATOR]
    await web.agent.revoke_token(revoked.token.id, by="tester")
    web.agent.token_list[expired.token.id] = replace(expired.token, expires=web.agent.now())
    for route in ROUTES:
        with subtests.test(f"{route.method} {route.path}"):
            for new in (revoked, expired):
                answer = await ask(web, route, bearer(new))
                if route.access is Access.OPEN:
                    assert answer.status_code == 200
                else:
                    assert answer.status_code == 401
                    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
                    assert new.secret not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "{secret}")],
        [("Authorization", "Basic {secret}")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer {secret}x")],
        [("Authorization", "Bearer {secret} {secret}")],
        [("Authorization", "Bearer {secret}"), ("Authorization", "Bearer {secret}")],
        [("X-Token", "{secret}")],
        [("Cookie", "token={secret}")],
    ],
    ids=str,
)
async def test_a_token_comes_in_one_way_only(web, tokens, headers) -> None:
    secret = tokens[Role.ADMIN].secret
    sent = [(name, value.format(secret=secret)) for name, value in headers]
    assert (await web.tcp.get("/v1/status", headers=sent)).status_code == 401
    assert (await web.tcp.get(f"/v1/status?access_token={secret}")).status_code == 401


async def test_the_scheme_is_read_in_any_case(web, tokens) -> None:
    headers = {"Authorization": f"bEARER  {tokens[Role.VIEWER].secret}"}
    assert (await web.tcp.get("/v1/status", headers=headers)).status_code == 200


async def test_the_life_of_a_token(web) -> None:
    order = {"name": "ci", "role": "operator", "for_seconds": 3600}
    made = await web.unix.post("/v1/tokens", json=order)
    assert made.status_code == 201
    new = made.json()
    headers = {"Authorization": f"Bearer {new['secret']}"}
    paused = await web.tcp.post("/v1/pause", headers=headers)
    assert paused.json()["paused"]["by"] == "token ci (t1)"
    listed = (await web.unix.get("/v1/tokens")).json()["items"]
    assert [(t["id"], t["name"], t["role"]) for t in listed] == [("t1", "ci", "operator")]
    assert listed[0]["used"] is not None
    assert listed[0]["expires"] == "2026-01-31T09:10:00.000Z"
    revoked = await web.unix.delete("/v1/tokens/t1")
    assert (revoked.status_code, revoked.json()["revoked_by"][:4]) == (200, "root")
    assert (await web.tcp.get("/v1/status", headers=headers)).status_code == 401
    listed = (await web.unix.get("/v1/tokens")).json()["items"]
    assert listed[0]["revoked"] is not None
    for token_id in ("t1", "t9"):
        assert (await web.unix.get(f"/v1/tokens/{token_id}")).status_code == 404
        assert (await web.unix.delete(f"/v1/tokens/{token_id}")).status_code == 404


async def test_a_secret_is_in_no_list_no_action_no_problem_and_no_log(web, caplog) -> None:
    caplog.set_level(0)
    order = {"name": "ci", "role": "viewer"}
    new = (await web.unix.post("/v1/tokens", json=order)).json()
    headers = {"Authorization": f"Bearer {new['secret']}"}
    wrong = {"Authorization": f"Bearer {new['secret']}x"}
    said = [
        await web.tcp.post("/v1/pause", headers=headers),
        await web.tcp.get("/v1/status", headers=wrong),
        await web.unix.post("/v1/tokens", json={**order, "role": new["secret"]}),
        await web.unix.delete(f"/v1/tokens/{new['id']}"),
        await web.tcp.get("/v1/status", headers=headers),
        await web.unix.get("/v1/tokens"),
        await web.unix.get(f"/v1/tokens/{new['id']}"),
        await web.unix.get("/v1/actions"),
    ]
    assert [a.status_code for a in said] == [403, 401, 422, 200, 401, 200, 404, 200]
    for answer in said:
        assert new["secret"] not in answer.text + str(answer.headers)
    kept = [r for r in caplog.records if not r.name.startswith(("httpcore", "httpx", "asyncio"))]
    assert new["secret"] not in " ".join(record.getMessage() for record in kept)
    assert "127.0.0.1 sent a token that lets nobody in" in caplog.messages


async def test_no_token_lets_anybody_in_while_the_state_is_in_doubt(web, tokens, subtests) -> None:
    web.agent.doubt = "this host is not confirmed: `hostmend confirm`"
    before = list(web.agent.orders)
    for route in ROUTES:
        with subtests.test(f"{route.method} {route.path}"):
            answer = await ask(web, route, bearer(tokens[Role.ADMIN]))
            if route.access is Access.OPEN:
                assert answer.status_code == 200
                continue
            assert answer.status_code == 403
            if route.path != "/v1/events":
                assert "hostmend confirm" in answer.json()["detail"]
    assert web.agent.orders == before
    # Who has no token is told as little as ever.
    wrong = await web.tcp.get("/v1/status", headers={"Authorization": "Bearer hm_wrong"})
    assert (wrong.status_code, "confirm" in wrong.text) == (401, False)
    assert (await web.unix.get("/v1/status")).status_code == 200
    kept = await web.unix.post("/v1/confirm", json={"keep_tokens": True})
    assert kept.status_code == 200
    headers = bearer(tokens[Role.ADMIN])
    assert (await web.tcp.get("/v1/status", headers=headers)).status_code == 200
    web.agent.doubt = "again"
    assert (await web.unix.post("/v1/confirm")).status_code == 200
    assert (await web.tcp.get("/v1/status", headers=headers)).status_code == 401


async def test_a_stream_ends_when_its_token_does(web, tokens, monkeypatch) -> None:
    monkeypatch.setattr("api.routes.events.KEEP_ALIVE_SECONDS", 0.01)
    new = tokens[Role.VIEWER]
    before = len(asyncio.all_tasks())
    async with asyncio.timeout(LONG):
        async with web.tcp.stream("GET", "/v1/events", headers=bearer(new)) as stream:
            lines = stream.aiter_lines()
            assert await anext(lines) == ": hostmend"
            await web.agent.revoke_token(new.token.id, by="tester")
            async for _ in lines:
                pass
        while len(asyncio.all_tasks()) > before:  # noqa: ASYNC110 - tasks end without an event
            await asyncio.sleep(0.01)


# Limits


async def count_until_refused(web: Web, at_most: int, **parts) -> int:
    for number in range(at_most):
        answer = await web.tcp.request(**{"method": "GET", "url": "/v1/status", **parts})
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.headers["content-type"] == "application/problem+json"
            return number
    return at_most


@pytest.fixture
async def limited(tmp_path, agent: FakeAgent) -> AsyncIterator[Web]:
    slow = 1e-6
    rates = Rates(requests=Rate(burst=5, per_second=slow), failures=Rate(burst=3, per_second=slow))
    async with serve_web(tmp_path / "hostmend.sock", agent, rates=rates) as web:
        yield web


async def test_a_client_that_asks_too_much_is_told_to_wait_and_others_are_not(
    limited, tokens
) -> None:
    assert await count_until_refused(limited, 9, headers=bearer(tokens[Role.VIEWER])) == 5
    assert await count_until_refused(limited, 9, headers=bearer(tokens[Role.ADMIN])) == 5
    for _ in range(9):
        assert (await limited.unix.get("/v1/status")).status_code == 200


async def test_without_a_token_an_address_is_limited_even_at_healthz(limited) -> None:
    assert await count_until_refused(limited, 9, url="/healthz") == 5


async def test_wrong_secrets_are_limited_harder_and_lock_no_right_one_out(limited, tokens) -> None:
    wrong = {"Authorization": "Bearer hm_wrong"}
    assert await count_until_refused(limited, 9, headers=wrong) == 3
    right = await limited.tcp.get("/v1/status", headers=bearer(tokens[Role.VIEWER]))
    assert right.status_code == 200


async def test_orders_that_a_role_may_not_give_cannot_wash_out_the_trail(limited, tokens) -> None:
    headers = bearer(tokens[Role.VIEWER])
    assert (
        await count_until_refused(limited, 9, url="/v1/pause", method="POST", headers=headers) == 3
    )
    assert len(limited.agent.action_list) == 3
    assert (await limited.tcp.get("/v1/status", headers=headers)).status_code == 200


def test_the_ordinary_limits_are_harder_on_failures() -> None:
    rates = Rates()
    assert rates.failures.burst < rates.requests.burst
    assert rates.failures.per_second < rates.requests.per_second


# The real tokens


@pytest.fixture
def state(tmp_path):
    state = State(tmp_path / "state.db", reserve=0)
    yield state
    state.close()


class Now:
    def __init__(self) -> None:
        self.at = Clock().now()

    def __call__(self) -> float:
        return self.at


def open_tokens(state: State, now: Now) -> Tokens:
    async def read(query):
        return query(state)

    return Tokens(state=state, read=read, now=now)


async def test_tokens_outlive_the_agent_and_their_secrets_are_nowhere(state, tmp_path) -> None:
    now = Now()
    new = await open_tokens(state, now).create("ci", role=Role.VIEWER, by="root", seconds=60)
    again = open_tokens(state, now)
    found = await again.authenticate(new.secret)
    assert found is not None
    assert (found.id, found.role) == ("t1", Role.VIEWER)
    for path in tmp_path.iterdir():
        assert new.secret.encode() not in path.read_bytes()
        assert new.secret[3:].encode() not in path.read_bytes()
    now.at += 60
    assert await again.authenticate(new.secret) is None


async def test_a_secret_has_256_bits_of_chance(state) -> None:
    tokens = open_tokens(state, Now())
    secrets = {(await tokens.create("x", role=Role.VIEWER, by="")).secret for _ in range(20)}
    assert len(secrets) == 20
    assert {len(secret) for secret in secrets} == {3 + 43}


async def test_a_use_is_written_at_most_once_a_minute(state) -> None:
    now = Now()
    tokens = open_tokens(state, now)
    new = await tokens.create("ci", role=Role.VIEWER, by="root")
    written = []
    update = state.update_tokens
    state.update_tokens = lambda tokens: (written.extend(t.used for t in tokens), update(tokens))
    first = now.at
    for _ in range(10):
        await tokens.authenticate(new.secret)
        now.at += USE_EVERY / 10
    await tokens.authenticate(new.secret)
    assert written == [first, now.at]
    assert open_tokens(state, now).get("t1").used == now.at


async def test_a_use_that_is_noted_does_not_undo_a_revocation(state) -> None:
    now, go = Now(), asyncio.Event()

    async def read_slowly(query):
        await go.wait()
        return query(state)

    new = await open_tokens(state, now).create("ci", role=Role.VIEWER, by="root")
    tokens = Tokens(state=state, read=read_slowly, now=now)
    revoking = asyncio.create_task(tokens.revoke("t1", by="root"))
    noting = asyncio.create_task(tokens.authenticate(new.secret))
    for _ in range(3):
        await asyncio.sleep(0)
    go.set()
    await asyncio.gather(noting, revoking)
    assert await tokens.authenticate(new.secret) is None
    assert open_tokens(state, now).list()[0].revoked is not None


async def test_every_known_hash_is_compared_in_constant_time(state, monkeypatch) -> None:
    tokens = open_tokens(state, Now())
    made = [await tokens.create("x", role=Role.VIEWER, by="") for _ in range(3)]
    compared, really = [], hmac.compare_digest

    def compare(a: str, b: str) -> bool:
        compared.append((a, b))
        return really(a, b)

    monkeypatch.setattr(token_module.hmac, "compare_digest", compare)
    given = hash_secret(made[0].secret)
    assert await tokens.authenticate(made[0].secret) is not None
    assert compared == [(hash_secret(new.secret), given) for new in made]


async def test_there_is_a_bound_to_living_and_to_dead_tokens(state) -> None:
    from agent.errors import Conflict

    tokens = open_tokens(state, Now())
    for _ in range(AT_MOST):
        await tokens.create("x", role=Role.VIEWER, by="")
    with pytest.raises(Conflict, match="revoke some"):
        await tokens.create("x", role=Role.VIEWER, by="")
    for number in range(1, AT_MOST + 1):
        await tokens.revoke(f"t{number}", by="root")
    for _ in range(5):
        await tokens.create("x", role=Role.VIEWER, by="")
    dead = [token for token in tokens.list() if token.revoked]
    assert len(dead) <= KEPT
    # An id is never used again: the trail names tokens by it.
    assert tokens.list()[0].id == f"t{AT_MOST + 5}"
    assert len(state.load_tokens()) == len(tokens.list())
