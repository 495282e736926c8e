"""A test of the routes: a whole agent, real servers, and what it says of each without a secret."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from ports import hold_port

from agent import bootstrap
from agent.errors import Conflict, NotFound
from agent.host.page import PageServer
from agent.running import RunningAgent
from agent.settings import Settings

SECRET = "t0ps3cret"


@pytest.fixture
def letters(tmp_path: Path) -> Iterator[tuple[int, list[dict[str, str]]]]:
    """The port of a server that takes letters, and what it took."""
    taken: list[dict[str, str]] = []
    server = PageServer(0, tmp_path / "none", lambda body: taken.append(json.loads(body)))
    yield server.port, taken
    server.close()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port whose server accepts connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield int(listening.getsockname()[1])


def make_settings(home: Path, routes: str) -> Settings:
    settings = Settings(
        config=home / "hostmend.yml",
        state_dir=home / "state",
        runtime_dir=home / "run",
        listen=("127.0.0.1", 0),
    )
    settings.config.write_text(f"version: 1\n{routes}")
    return settings


@pytest.fixture
async def agent(
    tmp_path: Path, letters: tuple[int, list[dict[str, str]]]
) -> AsyncIterator[RunningAgent]:
    good, dead = letters[0], hold_port()
    url = f"json://me:{SECRET}@127.0.0.1"
    files = {"ops": 0o600, "open": 0o644}
    for name, mode in files.items():
        file = tmp_path / name
        file.write_text(f"{url}:{good}/{name}\n{url}:{dead}/{name}\n")
        file.chmod(mode)
    routes = (
        f"routes:\n"
        f"  webhook: {{url: '{url}:{good}/{SECRET}'}}\n"
        f"  refused: {{url: '{url}:{dead}/{SECRET}'}}\n"
        f"  poisoned: {{url: 'nosuchservice://{SECRET}@nowhere/'}}\n"
        f"  file: {{url_file: ops}}\n"
        f"  open: {{url_file: open}}\n"
        f"  gone: {{url_file: gone}}\n"
    )
    async with bootstrap.open_agent(make_settings(tmp_path, routes)) as running:
        yield running


async def test_each_route_is_tried_and_said_without_its_secrets(
    agent: RunningAgent, letters: tuple[int, list[dict[str, str]]]
) -> None:
    port, taken = letters
    found = {test.route: test for test in await agent.try_routes(by="ann (uid 0)")}
    assert {name: test.ok for name, test in found.items()} == {
        "webhook": True, "refused": False, "poisoned": False, "file": True, "open": False,
        "gone": False,
    }  # fmt: skip
    assert found["webhook"].services == (f"json://127.0.0.1:{port}/…",)
    assert found["webhook"].error == ""
    assert "Apprise knows no such service" in found["poisoned"].error
    # One of its two services took it, and the other is named.
    assert len(found["file"].services) == 2
    assert "cannot send by json://127.0.0.1:" in found["file"].error
    assert "chmod 0600" in found["open"].error
    assert "gone" in found["gone"].error
    assert found["gone"].services == ()
    assert SECRET not in str(found)
    assert sorted(letter["title"].rpartition(" ")[2] for letter in taken) == ["file", "webhook"]
    assert all("[test]" in letter["title"] for letter in taken)
    assert all("ann (uid 0) asked" in letter["message"] for letter in taken)
    # It is no notice: nothing is tried again.
    assert (await agent.notices()).items == ()


async def test_one_can_be_tried_alone_and_none_that_is_not_there(
    agent: RunningAgent, letters: tuple[int, list[dict[str, str]]]
) -> None:
    (only,) = await agent.try_routes(["webhook", "webhook"], by="ann")
    assert (only.route, only.ok) == ("webhook", True)
    assert len(letters[1]) == 1
    with pytest.raises(NotFound, match="cannot test nobody: routes are webhook, refused"):
        await agent.try_routes(["nobody"], by="ann")
    assert len(letters[1]) == 1


async def test_a_test_under_way_is_waited_for(tmp_path: Path, silent_port: int) -> None:
    routes = f"routes: {{dead: {{url: 'json://127.0.0.1:{silent_port}/'}}}}\n"
    async with bootstrap.open_agent(make_settings(tmp_path, routes)) as running:
        first = asyncio.ensure_future(running.try_routes(by="ann"))
        await asyncio.sleep(0)
        with pytest.raises(Conflict, match="a test is under way"):
            await running.try_routes(by="ben")
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        again = asyncio.ensure_future(running.try_routes(by="ben"))
        await asyncio.sleep(0)
        assert not again.done()
        again.cancel()
        await asyncio.wait({again})


async def test_a_host_without_routes_is_told_so(tmp_path: Path) -> None:
    async with bootstrap.open_agent(make_settings(tmp_path, "")) as running:
        with pytest.raises(Conflict, match="none is configured"):
            await running.try_routes(by="ann")
