"""A page, its server, and an agent that watches it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from agent.bootstrap import open_agent
from agent.checks.demo import MARK
from agent.core.model import State
from agent.host.page import PageServer
from agent.running import RunningAgent
from agent.settings import Settings

LIMIT = 60.0


@dataclass(kw_only=True)
class Place:
    """A page, its server, and where an agent that watches it keeps its things."""

    home: Path
    port: int
    letters: list[bytes] = field(default_factory=list)

    @property
    def page(self) -> Path:
        return self.home / "index.html"

    @property
    def settings(self) -> Settings:
        return Settings(
            config=self.home / "hostmend.yml",
            state_dir=self.home / "state",
            runtime_dir=self.home / "run",
            listen=("127.0.0.1", 0),
        )

    def configure(self, check: str = "", more: str = "") -> None:
        self.settings.config.write_text(
            f"version: 1\n"
            f"checks:\n"
            f"  page: {{type: demo, page: {self.page}, port: {self.port}, every: 500ms,\n"
            f"    confirm: 1 of 1, stable_for: 500ms{check}}}\n"
            f"routes:\n"
            f"  box: {{url: 'json://127.0.0.1:{self.port}/', "
            f"reasons: [opened, escalated, held, healed, ended]}}\n"
            f"{more}"
        )

    def break_page(self) -> None:
        self.page.write_text("half a pa")

    def mend_page(self) -> None:
        self.page.write_text(f"<p>whole</p>\n{MARK}\n")


@contextlib.asynccontextmanager
async def started(place: Place) -> AsyncIterator[RunningAgent]:
    place.mend_page()
    server = PageServer(place.port, place.page, place.letters.append)
    try:
        async with open_agent(place.settings) as agent:
            yield agent
    finally:
        server.close()


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not what():  # noqa: ASYNC110 - the world outside has no event to wait for
            await asyncio.sleep(0.05)


async def wait_for_state(agent: RunningAgent, state: State) -> str:
    async with asyncio.timeout(LIMIT):
        async for event in agent.events(after=0):
            if event.kind == "incident" and event.data["new"] == state:
                return str(event.data["incident"])
    raise AssertionError("the feed ended")
