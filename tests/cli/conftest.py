"""The command in this process, against a real server in front of the agent in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_agent import FakeAgent, make_busy_agent
from serving import serve_web

from api.cli import parts
from api.cli.main import run_command


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Hostmend = Callable[..., Awaitable[Result]]


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory of the test's own; an agent of this host is not seen."""
    monkeypatch.setenv("HOSTMEND_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("HOSTMEND_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("HOSTMEND_CONFIG", str(tmp_path / "hostmend.yml"))
    monkeypatch.setattr(parts, "HOST_SOCKET", tmp_path / "none.sock")
    return tmp_path


@pytest.fixture
async def agent(places: Path) -> AsyncIterator[FakeAgent]:
    agent = make_busy_agent(time.time)
    async with serve_web(places / "hostmend.sock", agent):
        yield agent


@pytest.fixture
def hostmend(capsys: pytest.CaptureFixture[str]) -> Hostmend:
    """Carries out one command line; the server answers meanwhile."""

    async def run(*arguments: str) -> Result:
        capsys.readouterr()
        code = await asyncio.to_thread(run_command, list(arguments))
        said = capsys.readouterr()
        return Result(code, said.out, said.err)

    return run
