"""The server's own life: events, signals, drain, sockets that are taken."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fake_agent import FakeAgent
from fake_server import Places

from agent.errors import Unavailable
from api.server import Listening, serve

ROOT = Path(__file__).parents[2]
#: Only against hanging.
LONG = 60.0


async def read_events(stream: httpx.Response, count: int) -> list[dict[str, str]]:
    """The next events of a stream; comments are passed over."""
    events: list[dict[str, str]] = []
    event: dict[str, str] = {}
    async for line in stream.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            event[name] = value
        else:
            if "data" in event:
                events.append(event)
            event = {}
        if len(events) == count:
            break
    return events


async def test_what_happens_is_told_as_it_happens(web) -> None:
    async with asyncio.timeout(LONG), web.unix.stream("GET", "/v1/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.aiter_lines()
        assert await anext(lines) == ": hostmend"
        reader = asyncio.create_task(anext(lines))
        while not reader.done():
            await web.agent.happen("incident", id="i2", state="open")
            await asyncio.sleep(0.01)
        assert await reader == "retry: 2000"


async def test_events_go_on_after_the_last_one_seen(web) -> None:
    for number in range(1, 6):
        await web.agent.happen("look", number=number)
    headers = {"Last-Event-ID": "3"}
    async with (
        asyncio.timeout(LONG),
        web.unix.stream("GET", "/v1/events", headers=headers) as stream,
    ):
        events = await read_events(stream, 2)
    assert [event["id"] for event in events] == ["4", "5"]
    assert events[0]["event"] == "look"
    told = json.loads(events[0]["data"])
    assert told["data"] == {"number": 4}
    assert told["at"].endswith("Z")


async def test_a_stream_that_a_client_leaves_leaves_nothing_behind(web) -> None:
    before = len(asyncio.all_tasks())
    async with asyncio.timeout(LONG):
        for _ in range(5):
            headers = {"Last-Event-ID": "0"}
            async with web.unix.stream("GET", "/v1/events", headers=headers) as stream:
                await anext(stream.aiter_lines())
        while len(asyncio.all_tasks()) > before:  # noqa: ASYNC110 - tasks end without an event
            await asyncio.sleep(0.01)


async def test_an_idle_stream_is_kept_alive(web, monkeypatch) -> None:
    monkeypatch.setattr("api.routes.events.KEEP_ALIVE_SECONDS", 0.01)
    async with asyncio.timeout(LONG), web.unix.stream("GET", "/v1/events") as stream:
        async for line in stream.aiter_lines():
            if line == ": ping":
                return
    raise AssertionError("nothing was sent")


@contextlib.asynccontextmanager
async def start(path: Path, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that serves the agent in memory, once it answers."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "tests/http/fake_server.py"),
        str(path),
        *options,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(LONG):
            assert int((await process.stdout.readline()).split()[0]) > 0
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def read_rest(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    async with asyncio.timeout(LONG):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
async def test_a_signal_to_stop_drains_and_exits_well(tmp_path: Path, number) -> None:
    path = tmp_path / "s.sock"
    async with start(path) as process:
        transport = httpx.AsyncHTTPTransport(uds=str(path), verify=False)
        # A client that never lets go, and one that says nothing at all.
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://x") as client,
            client.stream("GET", "/v1/events") as stream,
        ):
            # Kept, for httpx hangs up when it is collected.
            lines = stream.aiter_lines()
            await anext(lines)
            _, silent = await asyncio.open_unix_connection(str(path))
            process.send_signal(number)
            code, out, err = await read_rest(process)
            silent.close()
    assert (code, err) == (0, "")
    assert out.split()[:2] == ["draining", "drained"]
    assert not path.exists()


async def test_people_are_answered_while_it_drains_and_a_second_signal_ends_that(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s.sock"
    async with start(path, "--slow-drain") as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(LONG):
            assert await process.stdout.readline() == b"draining\n"
        transport = httpx.AsyncHTTPTransport(uds=str(path), verify=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            # Longer than uvicorn takes to see a signal of its own.
            for _ in range(15):
                assert (await client.get("/v1/status")).status_code == 200
                await asyncio.sleep(0.1)
            answer = await client.get("/readyz")
            assert answer.status_code == 503
            assert "shutting down" in answer.json()["detail"]
        process.send_signal(signal.SIGTERM)
        code, out, _ = await read_rest(process)
    assert (code, out) == (0, "")


async def test_a_hangup_reloads_and_a_bad_configuration_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with start(path) as process:
        transport = httpx.AsyncHTTPTransport(uds=str(path), verify=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            process.send_signal(signal.SIGHUP)
            # An answer after the signal: it was not what ended the process.
            assert (await client.get("/healthz")).status_code == 200
        process.send_signal(signal.SIGTERM)
        code, out, _ = await read_rest(process)
    assert code == 0
    assert "('reload', 'SIGHUP')" in out


async def test_the_socket_of_an_agent_that_was_killed_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with start(path) as process:
        process.kill()
        await process.wait()
        assert path.is_socket()
    async with start(path) as process:
        transport = httpx.AsyncHTTPTransport(uds=str(path), verify=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            assert (await client.get("/healthz")).status_code == 200


async def test_the_socket_of_an_agent_that_lives_is_refused(web, agent: FakeAgent) -> None:
    with pytest.raises(Unavailable, match=rf"process {os.getpid()}\) answers there"):
        await serve_again(agent, web.path)
    assert (await web.unix.get("/healthz")).status_code == 200


async def test_a_file_in_the_sockets_place_is_left_alone(tmp_path: Path, agent: FakeAgent) -> None:
    path = tmp_path / "hostmend.sock"
    path.write_text("precious")
    with pytest.raises(Unavailable, match="something else"):
        await serve_again(agent, path)
    assert path.read_text() == "precious"


async def serve_again(
    agent: FakeAgent, path: Path, listen: tuple[str, int] = ("127.0.0.1", 0)
) -> None:
    async def drain() -> None:
        pass

    await serve(agent, Places(path, listen), ready=lambda _listening: None, drain=drain)


async def test_a_taken_tcp_port_does_not_keep_the_agent_from_its_work(
    tmp_path: Path, agent: FakeAgent
) -> None:
    answering: asyncio.Future[Listening] = asyncio.get_running_loop().create_future()

    async def drain() -> None:
        pass

    with socket.create_server(("127.0.0.1", 0)) as taken:
        places = Places(tmp_path / "s.sock", taken.getsockname()[:2])
        serving = asyncio.create_task(serve(agent, places, ready=answering.set_result, drain=drain))
        async with asyncio.timeout(LONG):
            listening = await answering
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
    assert listening.http is None
    assert "set HOSTMEND_LISTEN" in listening.problem
    assert not places.socket_path.exists()
