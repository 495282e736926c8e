"""Who gets in, and as whom."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest
from fake_agent import FakeAgent

from api.app import ROUTES
from api.auth import Access, TcpPeer, UnixPeer, find_user_name, identify
from api.sockets import open_unix_socket

ME = f"uid {os.getuid()}, pid {os.getpid()}"


async def test_whoever_uses_the_socket_is_known_by_user_and_process(web) -> None:
    answer = await web.unix.post("/v1/pause")
    assert answer.status_code == 200
    name = find_user_name(os.getuid())
    assert answer.json()["paused"]["by"] == f"{name} ({ME})"


#: What somebody might send to be taken for somebody else.
FORGED = (
    {},
    {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=unix"},
    {"Authorization": "Bearer anything"},
    {"hostmend.peer": "UnixPeer(pid=1, uid=0, gid=0)", "hostmend.caller": "root"},
    {"Host": "hostmend"},
)


async def test_over_tcp_only_healthz_answers_strangers(web, subtests) -> None:
    for route in ROUTES:
        path = route.path.format(name="web", id="i1")
        with subtests.test(f"{route.method} {path}"):
            for headers in FORGED:
                answer = await web.tcp.request(route.method, path, headers=headers)
                if route.path == "/healthz":
                    assert answer.json() == {"status": "ok"}
                    continue
                assert answer.status_code == 401
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.headers["www-authenticate"].startswith('Bearer realm="hostmend"')
    assert web.agent.orders == []
    assert web.agent.action_list == {}


async def test_over_tcp_nothing_tells_what_exists(web) -> None:
    for path in ("/", "/openapi.json", "/docs", "/nothing", "/v1/", "//healthz", "/healthz/"):
        for method in ("GET", "POST", "DELETE", "OPTIONS"):
            assert (await web.tcp.request(method, path)).status_code == 401, path


async def test_what_is_not_http_gets_a_problem(web) -> None:
    reader, writer = await asyncio.open_unix_connection(str(web.path))
    writer.write(b"this is not http\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer


def test_only_a_route_that_says_so_is_open() -> None:
    assert [route.path for route in ROUTES if route.access is Access.OPEN] == ["/healthz"]


def test_tokens_and_the_configuration_are_for_admins_and_nothing_else_is() -> None:
    assert {(r.method, r.path) for r in ROUTES if r.access is Access.ADMIN} == {
        ("POST", "/v1/config/reload"),
        ("GET", "/v1/tokens"),
        ("GET", "/v1/tokens/{id}"),
        ("POST", "/v1/tokens"),
        ("DELETE", "/v1/tokens/{id}"),
    }


def test_nothing_that_acts_is_for_viewers() -> None:
    assert {r.path for r in ROUTES if r.acts and Access.VIEWER.allows(r.access)} == set()


def test_who_reports_sees_nothing_and_orders_nothing() -> None:
    assert {(r.method, r.path) for r in ROUTES if Access.REPORTER.allows(r.access)} == {
        ("GET", "/healthz"),
        ("POST", "/v1/checks/{name}/findings"),
        ("POST", "/v1/hooks/alertmanager"),
    }


def test_faults_are_injected_by_drillers_and_admins_alone() -> None:
    faults = {(r.method, r.path) for r in ROUTES if r.access is Access.DRILLER}
    assert faults == {("POST", "/v1/drills"), ("DELETE", "/v1/drills/{id}")}
    may = {role for role in Access if role.allows(Access.DRILLER)}
    assert may == {Access.DRILLER, Access.ADMIN}
    acts = {(r.method, r.path) for r in ROUTES if r.acts and Access.DRILLER.allows(r.access)}
    assert acts == faults


async def test_a_request_without_a_known_connection_has_no_caller(agent: FakeAgent) -> None:
    assert await identify({"type": "http"}, agent) is None
    peer = TcpPeer(address="::1")
    assert await identify({"type": "http", "state": {"hostmend.peer": peer}}, agent) is None


def test_a_user_without_a_name_is_known_by_number(tmp_path: Path) -> None:
    passwd = tmp_path / "passwd"
    passwd.write_text("root:x:0:0:root:/root:/bin/bash\nbroken\n")
    assert find_user_name(0, passwd) == "root"
    assert find_user_name(7, passwd) == ""
    assert find_user_name(0, tmp_path / "none") == ""


async def test_a_user_beyond_passwd_is_known_by_number(agent: FakeAgent) -> None:
    peer = UnixPeer(pid=5, uid=4294967294, gid=0)
    caller = await identify({"type": "http", "state": {"hostmend.peer": peer}}, agent)
    assert caller is not None
    assert caller.by == "uid 4294967294, pid 5"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_socket_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        listener = open_unix_socket(tmp_path / "run" / "hostmend.sock")
    finally:
        os.umask(before)
    with listener.socket:
        mode = (tmp_path / "run" / "hostmend.sock").stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
        assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
        assert sorted(entry.name for entry in (tmp_path / "run").iterdir()) == ["hostmend.sock"]
    listener.remove()
    assert not (tmp_path / "run" / "hostmend.sock").exists()


def test_a_group_may_be_let_in(tmp_path: Path) -> None:
    import grp

    group = grp.getgrgid(os.getgid()).gr_name
    listener = open_unix_socket(tmp_path / "hostmend.sock", group=group)
    with listener.socket:
        assert stat.S_IMODE(listener.path.stat().st_mode) == 0o660
    listener.remove()


def test_a_socket_that_is_another_agents_by_now_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "hostmend.sock"
    mine = open_unix_socket(path)
    mine.socket.close()
    other = open_unix_socket(path)
    with other.socket:
        mine.remove()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    other.remove()


async def test_a_client_that_hangs_up_early_harms_nobody(web, agent: FakeAgent) -> None:
    for _ in range(3):
        _, writer = await asyncio.open_unix_connection(str(web.path))
        writer.write(b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    assert (await web.unix.get("/healthz")).status_code == 200
    assert agent.orders == []
