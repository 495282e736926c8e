"""Servers and audits for these tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from audit_scene import Run, Site, Speak, Talk, make_plan
from audit_scene import serve as serve
from authority import Authority, make_authority

from agent.audit.auditor import audit_site
from agent.audit.order import Order
from agent.audit.result import Audit
from agent.clock import Clock


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def speak() -> AsyncIterator[Speak]:
    """Serves whatever a coroutine writes to each connection, on loopback; gives the port."""
    servers: list[asyncio.Server] = []
    tasks: set[asyncio.Task[Any]] = set()

    async def speak(talk: Talk) -> int:
        async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    while True:
                        head = await reader.readuntil(b"\r\n\r\n")
                        await talk(head, writer)
                        if writer.is_closing():
                            break
            except asyncio.CancelledError:
                pass
            finally:
                tasks.discard(task)
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

        server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
        servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    yield speak
    for server in servers:
        server.close()
    for task in tuple(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def run() -> Run:
    """One audit in this process."""

    async def run(
        site: Site | str,
        *,
        credentials: Mapping[str, str] | None = None,
        order: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Audit:
        plan = make_plan(site if isinstance(site, str) else site.url, **fields)
        return await audit_site(
            Order(plan=plan, **(order or {})), credentials=credentials or {}, clock=Clock()
        )

    return run
