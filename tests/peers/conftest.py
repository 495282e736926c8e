"""Peers that say exactly what a test wants, over TCP or a UNIX socket."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from authority import Authority, make_authority
from peers import complete, resolve_nothing

from agent.checks import CHECKS
from agent.clock import Clock
from agent.core.model import Evidence, Finding
from agent.host.http import HttpClient
from agent.host.machine import Machine

Behave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Served:
    """A peer, and what it was told."""

    port: int = 0
    path: str = ""
    heard: list[bytes] = field(default_factory=list)


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[Served]]]:
    """Says bytes, or does whatever a coroutine does with each connection, on loopback."""
    servers: list[asyncio.Server] = []
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(
        behave: bytes | Behave,
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        path: Path | None = None,
    ) -> Served:
        served = Served()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                # Only the end of the test cancels it.
                with contextlib.suppress(
                    OSError, asyncio.IncompleteReadError, asyncio.CancelledError
                ):
                    if isinstance(behave, bytes):
                        writer.write(behave)
                        while line := await reader.readline():
                            served.heard.append(line)
                    else:
                        await behave(reader, writer)
                    await writer.drain()
            finally:
                tasks.discard(task)
                writer.close()
                with contextlib.suppress(OSError, asyncio.CancelledError):
                    await writer.wait_closed()

        if path is not None:
            server = await asyncio.start_unix_server(talk, path)
            served.path = str(path)
        else:
            server = await asyncio.start_server(talk, host, 0, ssl=tls)
            served.port = server.sockets[0].getsockname()[1]
        servers.append(server)
        return served

    yield serve
    for server in servers:
        server.close()
    for task in tuple(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for server in servers:
        await server.wait_closed()


@pytest.fixture
def look_at() -> Callable[..., Awaitable[Finding]]:
    """One look of a type with these options."""

    async def look_at(kind: str, resolve: Any = resolve_nothing, **fields: Any) -> Finding:
        machine = Machine(clock=Clock(), http=HttpClient(resolve))
        (finding,) = await CHECKS[kind].look(complete(kind, fields), machine)
        return finding

    return look_at


@pytest.fixture
def gather_of() -> Callable[..., Awaitable[dict[str, str]]]:
    """The evidence of a look with these options: titles and texts."""

    async def gather_of(kind: str, resolve: Any = resolve_nothing, **fields: Any) -> dict[str, str]:
        machine = Machine(clock=Clock(), http=HttpClient(resolve))
        options = complete(kind, fields)
        (finding,) = await CHECKS[kind].look(options, machine)
        items: tuple[Evidence, ...] = await CHECKS[kind].gather(options, finding, machine)
        return {item.title: item.text for item in items}

    return gather_of


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))
