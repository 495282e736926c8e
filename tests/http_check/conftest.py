"""Servers that answer exactly what a test wants, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from authority import Authority, make_authority

from agent.checks.http import HttpOptions, gather, look
from agent.clock import Clock
from agent.core.model import Evidence, Finding
from agent.errors import Unavailable
from agent.host.http import HttpClient
from agent.host.machine import Machine

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Served:
    """A server, what it was asked, and by which TLS name."""

    port: int
    asked: list[bytes] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[Served]]]:
    """Serves bytes, or whatever a coroutine does with each connection, on loopback."""
    servers: list[asyncio.Server] = []
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(
        answer: bytes | Speak | Callable[[bytes], bytes],
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> Served:
        served = Served(port=0)

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                # Only the end of the test cancels it.
                with contextlib.suppress(
                    OSError, asyncio.IncompleteReadError, asyncio.CancelledError
                ):
                    head = await reader.readuntil(b"\r\n\r\n")
                    served.asked.append(head)
                    if isinstance(answer, bytes):
                        writer.write(answer)
                    elif asyncio.iscoroutinefunction(answer):
                        await answer(reader, writer)
                    else:
                        writer.write(answer(head))
                    await writer.drain()
            finally:
                tasks.discard(task)
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

        if tls is not None:
            tls.sni_callback = lambda _object, name, _context: served.names.append(name)
        server = await asyncio.start_server(talk, host, 0, ssl=tls)
        servers.append(server)
        served.port = server.sockets[0].getsockname()[1]
        return served

    yield serve
    for server in servers:
        server.close()
    for task in tuple(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for server in servers:
        await server.wait_closed()


async def resolve_nothing(name: str) -> tuple[str, ...]:
    raise Unavailable(f"cannot resolve {name}: nobody knows it")


def complete(**fields: Any) -> HttpOptions:
    return HttpOptions(type="http", **{"timeout": "5s", **fields})


@pytest.fixture
def look_at() -> Callable[..., Awaitable[Finding]]:
    """One look with these options."""

    async def look_at(resolve: Any = resolve_nothing, **fields: Any) -> Finding:
        machine = Machine(clock=Clock(), http=HttpClient(resolve))
        (finding,) = await look(complete(**fields), machine)
        return finding

    return look_at


@pytest.fixture
def gather_of() -> Callable[..., Awaitable[tuple[Evidence, ...]]]:
    """The evidence with these options."""

    async def gather_of(resolve: Any = resolve_nothing, **fields: Any) -> tuple[Evidence, ...]:
        machine = Machine(clock=Clock(), http=HttpClient(resolve))
        options = complete(**fields)
        (finding,) = await look(options, machine)
        return await gather(options, finding, machine)

    return gather_of


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))
