"""A real server on real sockets in front of the agent in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fake_agent import FakeAgent
from fake_server import UNLIMITED, Places

from api.limits import Rates
from api.server import Listening, serve


@dataclass(frozen=True)
class Web:
    """A server, what it stands for, and a client on each way in."""

    agent: FakeAgent
    path: Path
    unix: httpx.AsyncClient
    tcp: httpx.AsyncClient


@contextlib.asynccontextmanager
async def serve_web(
    path: Path, agent: FakeAgent, *, rates: Rates = UNLIMITED, **places: Any
) -> AsyncIterator[Web]:
    """`places`: how `Places` differs from the ordinary."""
    answering: asyncio.Future[Listening] = asyncio.get_running_loop().create_future()

    async def drain() -> None:
        pass

    serving = asyncio.create_task(
        serve(agent, Places(path, **places), ready=answering.set_result, drain=drain, rates=rates)
    )
    await asyncio.wait((serving, answering), return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    listening = answering.result()
    assert listening.http is not None
    scheme = "https" if listening.tls else "http"
    # Making a TLS context takes longer than most tests.
    async with (
        httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(path), verify=False),
            base_url="http://hostmend",
        ) as unix,
        httpx.AsyncClient(
            base_url=f"{scheme}://127.0.0.1:{listening.http[1]}",
            trust_env=False,
            verify=False,
        ) as tcp,
    ):
        yield Web(agent, path, unix, tcp)
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
