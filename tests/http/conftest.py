from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fake_agent import FakeAgent, make_busy_agent
from serving import Web, serve_web


@pytest.fixture
def agent() -> FakeAgent:
    return make_busy_agent()


@pytest.fixture
async def web(tmp_path: Path, agent: FakeAgent) -> AsyncIterator[Web]:
    async with serve_web(tmp_path / "hostmend.sock", agent) as web:
        yield web
