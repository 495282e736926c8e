"""A whole agent whose state directory is broken, taken away, copied or lost under it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from ports import hold_port

from agent import bootstrap
from agent.checks.demo import MARK
from agent.core.model import NoticeState, Reason, State
from agent.errors import Conflict
from agent.host.page import PageServer
from agent.running import RunningAgent
from agent.settings import Settings

LIMIT = 60.0


class Place:
    """A page, its server that is also told everything, and an agent's directories."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.page = home / "index.html"
        self.letters: list[bytes] = []
        self.port = hold_port()
        self.settings = Settings(
            config=home / "hostmend.yml",
            state_dir=home / "state",
            runtime_dir=home / "run",
            listen=("127.0.0.1", 0),
        )
        url = f"json://127.0.0.1:{self.port}/"
        self.settings.config.write_text(
            f"version: 1\n"
            f"checks:\n"
            f"  page: {{type: demo, page: {self.page}, port: {self.port}, every: 500ms,\n"
            f"    confirm: 1 of 1, stable_for: 500ms}}\n"
            f"routes:\n"
            f"  box: {{url: '{url}box', reasons: [opened, escalated, held, healed, ended]}}\n"
            f"  other: {{url: '{url}other', reasons: [opened, escalated, held, healed, ended]}}\n"
        )

    @property
    def titles(self) -> list[str]:
        return [str(json.loads(letter)["title"]) for letter in self.letters]

    def mend(self) -> None:
        self.page.write_text(f"<p>whole</p>\n{MARK}\n")

    def smash(self) -> None:
        self.page.write_text("half a pa")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(bootstrap, "_TEND_EVERY", 0.2)
    place = Place(tmp_path)
    place.mend()
    return place


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of an agent that healed once, and has nothing left to say."""
    place = Place(tmp_path_factory.mktemp("lived"))
    place.mend()

    async def live() -> None:
        async with started(place) as agent:
            await heal(place, agent)
            await until(lambda: len(place.letters) == 2)

    asyncio.run(live())
    return place.settings.state_dir


@pytest.fixture
def later(place: Place, lived: Path) -> Place:
    """A place with that state."""
    shutil.copytree(lived, place.settings.state_dir)
    return place


@contextlib.asynccontextmanager
async def started(place: Place) -> AsyncIterator[RunningAgent]:
    server = PageServer(place.port, place.page, place.letters.append)
    try:
        async with bootstrap.open_agent(place.settings) as agent:
            yield agent
    finally:
        server.close()


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not what():  # noqa: ASYNC110 - the world outside has no event to wait for
            await asyncio.sleep(0.05)


async def heal(place: Place, agent: RunningAgent) -> str:
    """Breaks the page and waits for its repair; the incident's id."""
    known = {incident.id for incident in (await agent.incidents()).items}
    place.smash()
    async with asyncio.timeout(LIMIT):
        while True:
            for incident in (await agent.incidents(live=False)).items:
                if incident.id not in known and incident.state is State.RESOLVED:
                    return incident.id
            await asyncio.sleep(0.05)


def change_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_identify_machine", lambda: "another machine")


async def wait_for_doubt(place: Place, agent: RunningAgent, word: str) -> None:
    """It says its doubt once, to the first route, and does nothing else."""
    assert word in " ".join(agent.status().problems)
    assert "hostmend confirm" in " ".join(agent.status().problems)
    await until(lambda: len(place.letters) == 1)
    (title,) = place.titles
    assert title.startswith("[agent]")
    assert word in title
    place.smash()
    await until(lambda: any(i.state is State.OPEN for i in agent.status().incidents))
    (held,) = agent.status().holds.values()
    assert held.hold == "paused"
    assert "not confirmed" in held.detail
    with pytest.raises(Conflict, match="hostmend confirm"):
        await agent.run_remedy(
            "restore-demo-page", {"page": str(place.page)}, preview=False, by="me"
        )
    runs = (await agent.runs()).items
    assert all(run.incident != agent.status().incidents[0].id for run in runs)
    assert len(place.letters) == 1


async def wait_for_healing(place: Place, agent: RunningAgent) -> None:
    await agent.confirm_host(by="me")
    assert agent.status().problems == ()
    await until(lambda: MARK in place.page.read_text())
    await until(lambda: agent.status().incidents == ())
    await until(lambda: sum("[healed]" in title for title in place.titles) == 2)


async def test_a_clone_acts_on_nothing_and_tells_one_route_once_until_confirmed(
    later: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_machine(monkeypatch)
    for _ in range(2):
        # It is still a clone after a restart, and has told of it already.
        later.mend()
        async with started(later) as agent:
            await wait_for_doubt(later, agent, "another machine")
        assert len(later.letters) == 1
    async with started(later) as agent:
        await wait_for_healing(later, agent)
    async with started(later) as agent:
        assert agent.status().problems == ()


async def test_messages_of_the_original_are_not_sent_by_its_clone(
    later: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = sqlite3.connect(later.settings.state_dir / "state.db")
    for number, body in db.execute("SELECT id, body FROM notice").fetchall():
        due = json.loads(body) | {"state": "due", "delivered": None}
        db.execute(
            "UPDATE notice SET state = 'due', body = ? WHERE id = ?", (json.dumps(due), number)
        )
    db.commit()
    db.close()
    change_machine(monkeypatch)
    async with started(later) as agent:
        await wait_for_doubt(later, agent, "another machine")
        assert len((await agent.notices(state="due")).items) == 2
        await agent.confirm_host(by="me")
        await until(lambda: sum("[healed]" in title for title in later.titles) >= 2)


@pytest.mark.parametrize("how", ["corrupt", "gone"])
async def test_an_agent_that_lost_its_state_waits_to_be_confirmed(later: Place, how: str) -> None:
    file = later.settings.state_dir / "state.db"
    if how == "corrupt":
        file.write_bytes(b"no database" * 1000)
    else:
        file.unlink()
    async with started(later) as agent:
        await wait_for_doubt(later, agent, how)
        # Numbers go on, so that old evidence is never shown for new incidents.
        (incident,) = agent.status().incidents
        story = await agent.incident(incident.id)
        assert all(item.taken >= incident.seen for item in story.evidence)
    async with started(later) as agent:
        assert "not confirmed" in " ".join(agent.status().problems)
        await wait_for_healing(later, agent)


async def test_a_first_start_needs_no_confirmation(place: Place) -> None:
    async with started(place) as agent:
        assert agent.status().problems == ()
        await heal(place, agent)


async def test_a_state_directory_that_is_removed_is_written_again_and_told(place: Place) -> None:
    async with started(place) as agent:
        first = await heal(place, agent)
        shutil.rmtree(place.settings.state_dir)
        await until(lambda: any("removed or replaced" in title for title in place.titles))
        second = await heal(place, agent)
        assert agent.status().problems == ()
    async with started(place) as agent:
        assert agent.status().problems == ()
        ended = (await agent.incidents(live=False)).items
        assert [incident.id for incident in ended] == [second, first]
        assert (await agent.incident(second)).evidence


async def test_an_agent_goes_on_in_memory_while_its_disk_fails_and_comes_home(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.store.home._FIRST_WAIT", 0.1)
    away = place.settings.state_dir.with_name("elsewhere")
    async with started(place) as agent:
        first = await heal(place, agent)
        # What stands where the directory was is no directory: nothing can be written there.
        place.settings.state_dir.rename(away)
        place.settings.state_dir.write_text("in the way")
        await until(lambda: any("in memory only" in p for p in agent.status().problems))
        second = await heal(place, agent)
        await until(lambda: any("in memory only" in title for title in place.titles))
        place.settings.state_dir.unlink()
        await until(lambda: not agent.status().problems)
        await until(lambda: any("nothing was lost" in title for title in place.titles))
    async with started(place) as agent:
        ended = (await agent.incidents(live=False)).items
        assert [incident.id for incident in ended] == [second, first]
        notices = (await agent.notices()).items
        assert {notice.state for notice in notices} == {NoticeState.DELIVERED}
        told = [notice for notice in notices if notice.reason is Reason.HEALED]
        assert len(told) == 4
        assert agent.status().problems == ()
