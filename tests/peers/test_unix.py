"""UNIX sockets: there, gone, left behind, full."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from peers import complete, flood, hang, verdict

from agent.checks import CHECKS
from agent.clock import Clock
from agent.core.model import Finding
from agent.errors import Unavailable
from agent.host.machine import Machine

Serve = Callable[..., Awaitable[Any]]
Look = Callable[..., Awaitable[Finding]]
Gather = Callable[..., Awaitable[dict[str, str]]]


async def test_a_socket_that_takes_connections_is_ok(
    serve: Serve, look_at: Look, tmp_path: Path
) -> None:
    served = await serve(b"+PONG\r\n", path=tmp_path / "app.sock")
    finding = await look_at("unix", path=served.path)
    assert verdict(finding) == ("ok", "")
    assert finding.subject == served.path
    finding = await look_at("unix", path=served.path, protocol="redis")
    assert verdict(finding) == ("ok", "")
    assert b"PING\r\n" in served.heard


async def test_a_socket_that_is_not_there_is_missing(look_at: Look, tmp_path: Path) -> None:
    finding = await look_at("unix", path=f"{tmp_path}/app.sock")
    assert verdict(finding) == ("critical", "missing")
    assert finding.summary.endswith(f"there is no {tmp_path}/app.sock")


async def test_a_socket_that_its_program_left_behind_is_refused(
    look_at: Look, gather_of: Gather, tmp_path: Path
) -> None:
    path = f"{tmp_path}/app.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    assert verdict(await look_at("unix", path=path)) == ("critical", "refused")
    assert (await gather_of("unix", path=path))[f"Who listens on {path}"] == "nobody"


async def test_what_is_no_socket_is_told(look_at: Look, tmp_path: Path) -> None:
    file = tmp_path / "app.sock"
    file.write_text("no socket")
    assert verdict(await look_at("unix", path=str(file))) == ("critical", "refused")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(f"{tmp_path}/log")
        found = await look_at("unix", path=f"{tmp_path}/log")
    assert verdict(found) == ("critical", "unreachable")


async def test_a_socket_whose_queue_is_full_is_a_timeout_and_ok_once_there_is_a_place(
    look_at: Look, tmp_path: Path
) -> None:
    path = f"{tmp_path}/app.sock"
    with socket.socket(socket.AF_UNIX) as full:
        full.bind(path)
        full.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(path)
            finding = await look_at("unix", path=path, timeout="100ms")
            assert verdict(finding) == ("critical", "timeout")
            assert "waiting for a place in the queue" in finding.summary
            full.accept()[0].close()
            assert verdict(await look_at("unix", path=path)) == ("ok", "")


@pytest.mark.parametrize("behave", [hang, flood], ids=["hang", "flood"])
async def test_nonsense_and_silence_are_told_in_time(
    behave: Any, serve: Serve, look_at: Look, tmp_path: Path
) -> None:
    served = await serve(behave, path=tmp_path / "app.sock")
    finding = await look_at(
        "unix", path=served.path, timeout="100ms", talk=[{"expect": "ready"}], answer_limit=10_000
    )
    assert verdict(finding) in [("critical", "timeout"), ("critical", "unexpected")]


async def test_evidence_names_who_listens(serve: Serve, gather_of: Gather, tmp_path: Path) -> None:
    served = await serve(b"", path=tmp_path / "app.sock")
    found = await gather_of("unix", path=served.path)
    assert f"process {os.getpid()}" in found[f"Who listens on {served.path}"]


async def test_sockets_of_programs_that_can_be_greeted_are_proposed(
    serve: Serve, tmp_path: Path
) -> None:
    served = await serve(b"", path=tmp_path / "redis.sock")
    proposals = await CHECKS["unix"].propose(Machine(clock=Clock()))
    (found,) = [p for p in proposals if p.options["path"] == served.path]
    assert found.options["protocol"] == "redis"
    assert complete("unix", dict(found.options)).type == "unix"


async def test_a_socket_that_hostmend_may_not_touch_says_nothing_of_its_program(
    serve: Serve, look_at: Look, tmp_path: Path
) -> None:
    served = await serve(b"", path=tmp_path / "app.sock")
    (tmp_path / "app.sock").chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(Unavailable, match="hostmend's user may not"):
            await look_at("unix", path=served.path)
    finally:
        if root:
            os.seteuid(0)
