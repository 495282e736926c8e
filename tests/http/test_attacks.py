"""What somebody tries who means harm: paths, browsers, floods, keys of others, unread answers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import pytest
from fake_agent import FakeAgent
from serving import Web

from agent.agent import NewToken, Role
from api.app import ROUTES
from api.auth import Access
from api.idempotency import HEADER
from api.limits import AT_ONCE

#: Only against hanging.
LONG = 60.0
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PATCH")
#: Ways to write a path that something in between may read otherwise.
TARGETS = (
    "//healthz", "/healthz/", "/Healthz", "/healthz/.", "/healthz/../v1/status", "/healthz%00",
    "/healthz%2f..%2fv1%2fstatus", "/healthz;/v1/status", "/healthz/v1/status", "/v1/../healthz",
    "/healthz\\..\\v1\\status", "http://x/healthz", "http://x/v1/status", "*", "/", "//v1/status",
    "/v1/status/", "/V1/STATUS", "/v1//status", "/v1/./status", "/v1%2fstatus", "/openapi.json",
    "/docs", "/redoc", "/metrics",
)  # fmt: skip


def bearer(new: NewToken) -> dict[str, str]:
    return {"Authorization": f"Bearer {new.secret}"}


async def send(web: Web, head: str) -> bytes:
    """Bytes as they are, and all that is answered until the connection ends."""
    async with asyncio.timeout(LONG):
        port = web.tcp.base_url.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(head.encode("latin-1"))
            return await reader.read()
        finally:
            writer.close()


async def until(ask: Callable[[], Awaitable[int]], status: int) -> None:
    while await ask() != status:  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("target", TARGETS)
async def test_no_way_to_write_a_path_leads_past_the_token(web, target, subtests) -> None:
    for method in METHODS:
        with subtests.test(method):
            answer = await send(
                web,
                f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                "X-HTTP-Method-Override: GET\r\nX-Original-URL: /healthz\r\n"
                "X-Rewrite-URL: /healthz\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n",
            )
            assert answer.split(b" ")[1] == b"401", answer
    assert web.agent.orders == []


async def test_a_page_in_a_browser_can_order_and_read_nothing(web, subtests) -> None:
    """A browser sends no token by itself, also where a name of the page's leads to loopback."""
    page = {
        "Host": "evil.example:8642",
        "Origin": "http://evil.example",
        "Referer": "http://evil.example/",
        "Sec-Fetch-Site": "cross-site",
        "Content-Type": "text/plain",
        "Cookie": "token=hm_x; session=1",
    }
    asking = {
        **page,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    for route in ROUTES:
        path = route.path.format(name="web", id="i2")
        with subtests.test(f"{route.method} {path}"):
            answers = [
                await web.tcp.request(route.method, path, headers=page),
                await web.tcp.request("OPTIONS", path, headers=asking),
            ]
            for answer in answers:
                assert not [name for name in answer.headers if name.startswith("access-control")]
                assert "set-cookie" not in answer.headers
            if route.access is not Access.OPEN:
                assert [answer.status_code for answer in answers] == [401, 401]
    assert web.agent.orders == []
    assert web.agent.action_list == {}


async def test_a_length_that_is_said_in_two_ways_is_refused_and_ends_the_connection(web) -> None:
    new = await web.agent.create_token("a", role=Role.ADMIN, by="tester")
    before = list(web.agent.orders)
    answer = await send(
        web,
        f"POST /v1/pause HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {new.secret}\r\n"
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        # What a proxy in front would have taken for the body.
        f"POST /v1/resume HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {new.secret}\r\n\r\n",
    )
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"400 Bad Request" in answer
    assert web.agent.orders == before


@pytest.mark.parametrize(
    "head",
    [
        "garbage\r\n\r\n",
        "GET / HTTP/1.1\r\nX: " + "a" * 200_000 + "\r\n\r\n",
        "GET / HTTP/1.1\r\n" + "".join(f"X{n}: a\r\n" for n in range(8000)) + "\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
    ids=["no request", "a long header", "many headers", "two lengths"],
)
async def test_what_is_no_request_is_refused_and_fills_no_log(web, head, caplog) -> None:
    for _ in range(3):
        # What is not read to its end may be answered by the end of the connection alone.
        with contextlib.suppress(ConnectionResetError):
            assert b" 400 " in (await send(web, head)).split(b"\r\n")[0]
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []
    assert (await web.tcp.get("/healthz")).status_code == 200


async def test_one_token_cannot_hold_every_connection(web, monkeypatch) -> None:
    monkeypatch.setattr("api.routes.events.KEEP_ALIVE_SECONDS", 0.05)
    greedy, other = [
        await web.agent.create_token(name, role=Role.VIEWER, by="tester") for name in ("a", "b")
    ]
    head = f"GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {greedy.secret}\r\n\r\n"
    streams = []
    try:
        async with asyncio.timeout(LONG):
            for _ in range(AT_ONCE):
                port = web.tcp.base_url.port
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                streams.append(writer)
                writer.write(head.encode())
                assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            refused = await web.tcp.get("/v1/status", headers=bearer(greedy))
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert (await web.tcp.get("/v1/status", headers=bearer(other))).status_code == 200
            assert (await web.unix.get("/v1/status")).status_code == 200
            streams.pop().close()

            async def ask() -> int:
                return (await web.tcp.get("/v1/status", headers=bearer(greedy))).status_code

            await until(ask, 200)
    finally:
        for writer in streams:
            writer.close()


async def test_an_answer_that_nobody_reads_does_not_hold_its_connection(web, monkeypatch) -> None:
    monkeypatch.setattr("api.sockets.UNREAD_SECONDS", 0.5)
    # So that a second request of this token tells whether the first is still under way.
    monkeypatch.setattr("api.limits.AT_ONCE", 1)
    new = await web.agent.create_token("a", role=Role.VIEWER, by="tester")

    async def ask() -> int:
        return (await web.tcp.get("/v1/status", headers=bearer(new))).status_code

    with socket.socket() as stuck:
        # The least that there is: the rest stays with the server.
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        stuck.connect(("127.0.0.1", web.tcp.base_url.port))
        head = f"GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {new.secret}\r\n\r\n"
        stuck.sendall(head.encode())
        stuck.setblocking(False)
        async with asyncio.timeout(LONG):
            assert b"200 OK" in await asyncio.get_running_loop().sock_recv(stuck, 100)
            assert await ask() == 429
            for _ in range(100):
                await web.agent.happen("look", text="x" * 100_000)
            await until(ask, 200)


async def test_a_key_is_of_one_token_only_and_others_cannot_wash_it_out(
    web, monkeypatch, agent: FakeAgent
) -> None:
    tokens = [await agent.create_token(n, role=Role.OPERATOR, by="tester") for n in ("a", "b")]
    headers = [{**bearer(token), HEADER: "one"} for token in tokens]
    before = len(agent.orders)
    for _ in range(2):
        for each in headers:
            assert (await web.tcp.post("/v1/pause", headers=each)).status_code == 200
    assert len(agent.orders) == before + 2
    for number in range(1200):
        flood = {**bearer(tokens[1]), HEADER: f"flood-{number}"}
        assert (await web.tcp.post("/v1/resume", headers=flood)).status_code == 200
    before = len(agent.orders)
    assert (await web.tcp.post("/v1/pause", headers=headers[0])).status_code == 200
    assert len(agent.orders) == before, "the key of one token was forgotten for another's"


async def test_a_key_is_of_one_method_only(web) -> None:
    made = await web.unix.post("/v1/silences", json={"checks": ["web"], "for_seconds": 60})
    path = f"/v1/silences/{made.json()['id']}"
    assert (await web.unix.delete(path, headers={HEADER: "k"})).status_code == 200
    assert (await web.unix.post(path, headers={HEADER: "k"})).status_code == 405


async def test_what_is_nested_too_deep_is_refused_before_anything_is_done(web) -> None:
    new = await web.agent.create_token("a", role=Role.OPERATOR, by="tester")
    before = list(web.agent.orders)
    for depth in (100, 900, 1000, 50_000):
        body = '{"options": {"a": ' + "[" * depth + "]" * depth + "}}"
        answer = await web.tcp.post(
            "/v1/remedies/restart-service/runs",
            content=body,
            headers={**bearer(new), "Content-Type": "application/json"},
        )
        assert answer.status_code in (400, 422), depth
    assert web.agent.orders == before
