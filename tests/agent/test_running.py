"""A whole agent on this machine, with the demo's check: real look, real playbook, real sender."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from agent_contract import AgentContract, Scene
from agent_place import LIMIT, Place, started, until, wait_for_state
from ports import hold_port

from agent.bootstrap import look_once, open_agent
from agent.checks.demo import MARK
from agent.config.defaults import DEFAULTS
from agent.core.model import State
from agent.errors import ConfigError, Invalid, NotFound, StoreError
from agent.host.page import PageServer
from agent.remedies.client import Spare
from agent.running import RunningAgent


@dataclass(frozen=True, kw_only=True)
class Lived:
    """Where an agent went through a repair and then a failure that it was not to repair."""

    place: Place
    ended: str
    live: str
    run: str


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    place = Place(home=tmp_path_factory.mktemp("lived"), port=hold_port())

    async def live() -> Lived:
        place.configure()
        async with started(place) as agent:
            await agent.look("page")
            place.break_page()
            ended = await wait_for_state(agent, State.RESOLVED)
            place.configure(check=", ladder: []")
            await agent.reload(by="tester")
            place.break_page()
            live = await wait_for_state(agent, State.ESCALATED)
            run = (await agent.runs()).items[0].id
        return Lived(place=place, ended=ended, live=live, run=run)

    return asyncio.run(live())


class TestRunningAgent(AgentContract):
    """The real agent keeps to what the API expects."""

    @pytest.fixture
    async def scene(self, lived: Lived, tmp_path: Path) -> AsyncIterator[Scene]:
        here = lived.place
        settings = here.settings.model_copy(update={"state_dir": tmp_path / "state"})
        shutil.copytree(here.settings.state_dir, settings.state_dir)
        here.break_page()
        server = PageServer(here.port, here.page)
        try:
            async with open_agent(settings) as agent:
                await agent.look("page")
                yield Scene(
                    agent=agent,
                    check="page",
                    live=lived.live,
                    ended=lived.ended,
                    run=lived.run,
                    remedy="restore-demo-page",
                    options={"page": str(here.page)},
                )
        finally:
            server.close()


async def test_a_broken_page_is_restored_proved_and_told(place: Place) -> None:
    place.configure()
    async with started(place) as agent:
        await agent.look("page")
        place.break_page()
        incident_id = await wait_for_state(agent, State.RESOLVED)
        assert MARK in place.page.read_text()
        story = await agent.incident(incident_id)
        assert story.incident.resolved_by == "run"
        assert story.downtime > 0
        assert [run.outcome for run in story.runs] == ["ok"]
        assert story.runs[0].proved
        assert {item.when for item in story.evidence} == {"before", "after"}
        assert any("half a pa" in item.evidence.text for item in story.evidence)
        tasks = [e for e in await agent.run_events(story.runs[0].id) if e["event"] == "task"]
        assert [task["status"] for task in tasks] == ["changed"]
        await until(lambda: len(place.letters) == 1)
        assert b"[healed]" in place.letters[0]


async def test_a_value_that_is_never_shown_is_in_no_message(place: Place) -> None:
    remedy = place.home / "playbooks" / "mend-with-pin"
    remedy.mkdir(parents=True)
    (remedy / "remedy.yml").write_text(
        "summary: Mend the page\nrisk: low\nchanges: files\ntimeout: 60s\n"
        "handles: {demo: [broken]}\n"
        "options: {pin: {no_log: true, required: true, description: Nobody shall know it.}}\n"
    )
    (remedy / "playbook.yml").write_text(
        f"- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        f"    - ansible.builtin.copy: {{dest: {place.page}, content: '<p>whole</p> {MARK}'}}\n"
    )
    place.configure(check=", ladder: [{remedy: mend-with-pin, options: {pin: '471147'}}]")
    async with started(place) as agent:
        place.break_page()
        await wait_for_state(agent, State.RESOLVED)
        await until(lambda: len(place.letters) == 1)
    assert b"mend-with-pin (pin=***)" in place.letters[0]
    assert b"471147" not in place.letters[0]


async def test_an_unusable_configuration_at_a_reload_leaves_the_old_one_at_work(
    place: Place,
) -> None:
    place.configure()
    async with started(place) as agent:
        await agent.look("page")
        place.configure(check=", everry: 2s")
        with pytest.raises(Invalid, match=r"hostmend\.yml:4: checks\.page\.everry"):
            await agent.reload(by="tester")
        assert "everry" in " ".join(agent.status().problems)
        place.break_page()
        await wait_for_state(agent, State.RESOLVED)
        place.configure()
        assert agent.status().problems
        await agent.reload(by="tester")
        assert not agent.status().problems


def find_spares(place: Place) -> list[int]:
    """Processes that wait, with Ansible loaded, for a run of the agent of this place."""
    mine = str(place.settings.runtime_dir).encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            named = (process / "comm").read_text() == "hostmend-play\n"
            if named and mine in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


async def test_a_runner_is_kept_ready_from_the_reload_that_says_so_until_the_one_that_does_not(
    place: Place,
) -> None:
    place.configure()
    async with started(place) as agent:
        assert find_spares(place) == []
        place.configure(more="policy: {warm: true}\n")
        await agent.reload(by="tester")
        await until(lambda: len(find_spares(place)) == 1)
        place.break_page()
        await wait_for_state(agent, State.RESOLVED)
        await until(lambda: len(find_spares(place)) == 1)
        place.configure()
        await agent.reload(by="tester")
        await until(lambda: find_spares(place) == [])


async def test_a_check_that_a_reload_removes_takes_its_incident_with_it(place: Place) -> None:
    place.configure(check=", ladder: []")
    async with started(place) as agent:
        await agent.look("page")
        place.break_page()
        incident_id = await wait_for_state(agent, State.ESCALATED)
        place.settings.config.write_text("version: 1\n")
        await agent.reload(by="tester")
        assert (await agent.incident(incident_id)).incident.state is State.GONE
        assert {check.name for check in agent.checks()} <= set(DEFAULTS)


async def test_an_agent_cannot_start_on_an_unusable_configuration(place: Place) -> None:
    place.configure(check=", ladder: [{remedy: pray}]")
    with pytest.raises(ConfigError, match="there is no remedy `pray`"):
        async with started(place):
            pass


async def test_a_second_agent_on_the_same_state_is_refused(place: Place) -> None:
    place.configure()
    async with started(place):
        with pytest.raises(StoreError, match="another agent uses it"):
            async with open_agent(place.settings):
                pass


async def test_what_an_agent_left_open_is_there_for_the_next(place: Place) -> None:
    place.configure(check=", ladder: []")
    async with started(place) as agent:
        place.break_page()
        await agent.look("page")
        incident_id = await wait_for_state(agent, State.ESCALATED)
    place.configure(check=", ladder: []")
    server = PageServer(place.port, place.page, place.letters.append)
    try:
        async with open_agent(place.settings) as agent:
            assert [i.id for i in agent.status().incidents] == [incident_id]
            place.mend_page()
            await wait_for_state(agent, State.RESOLVED)
            story = await agent.incident(incident_id)
            assert story.incident.resolved_by == "itself"
    finally:
        server.close()


async def test_a_preview_shows_the_difference_and_changes_nothing(place: Place) -> None:
    place.configure(check=", ladder: []")
    async with started(place) as agent:
        place.break_page()
        options = {"page": str(place.page)}
        run = await agent.run_remedy("restore-demo-page", options, preview=True, by="tester")
        async with asyncio.timeout(LIMIT):
            async for event in agent.events(after=0):
                if event.kind == "run" and event.data["state"] == "ended":
                    break
        assert (await agent.run(run.id)).outcome == "ok"
        assert place.page.read_text() == "half a pa"
        (task,) = [e for e in await agent.run_events(run.id) if e["event"] == "task"]
        assert "half a pa" in str(task["diff"])
        assert MARK in str(task["diff"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "option page: it is required"),
        ({"page": "/etc/passwd"}, "is not named by the configuration"),
        ({"page": "relative"}, "option page"),
        ({"pages": "x"}, "it has no option pages"),
    ],
)
async def test_wrong_options_are_refused_and_nothing_is_run(
    place: Place, options: dict[str, str], said: str
) -> None:
    place.configure()
    async with started(place) as agent:
        with pytest.raises(Invalid, match=said):
            await agent.run_remedy("restore-demo-page", options, preview=False, by="tester")
        assert (await agent.runs()).items == ()


async def test_one_look_needs_no_agent(place: Place) -> None:
    place.configure()
    server = PageServer(place.port, place.page)
    try:
        place.break_page()
        seen = {check.name: check.status for check in await look_once(place.settings, ())}
        assert seen == {"page": "critical", "self": "ok"}
        place.mend_page()
        (seen,) = await look_once(place.settings, ("page",))
        assert seen.status == "ok"
        with pytest.raises(NotFound, match="configured are page"):
            await look_once(place.settings, ("nothing",))
    finally:
        server.close()
    assert not place.settings.state_dir.exists()


async def test_a_run_that_changes_data_outlives_its_agent_and_is_found_again(place: Place) -> None:
    gate = place.home / "gate"
    remedy = place.home / "playbooks" / "slow-data"
    remedy.mkdir(parents=True)
    (remedy / "remedy.yml").write_text(
        "summary: Wait for a gate\nrisk: low\nchanges: data\ntimeout: 60s\n"
    )
    (remedy / "playbook.yml").write_text(
        f"- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        f"    - ansible.builtin.wait_for: {{path: {gate}, sleep: 1, timeout: 50}}\n"
    )
    place.configure()
    async with started(place) as agent:
        run = await agent.run_remedy("slow-data", {}, preview=False, by="tester")
        async with asyncio.timeout(LIMIT):
            async for event in agent.events(after=0):
                if event.kind == "task" and event.data["event"] == "started":
                    break
    async with started(place) as agent:
        assert (await agent.run(run.id)).outcome is None
        gate.touch()
        async with asyncio.timeout(LIMIT):
            async for event in agent.events(after=0):
                if event.kind == "run" and event.data["state"] == "ended":
                    break
        assert (await agent.run(run.id)).outcome == "ok"


async def test_a_check_that_a_reload_adds_is_looked_at_with_its_own_options(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the rest of the reload takes."""
    place.configure()
    async with started(place) as agent:

        async def keep_slowly(_spare: Spare, _wanted: bool) -> None:
            await until(lambda: agent._parts.watcher.last("second") is not None)

        monkeypatch.setattr(Spare, "keep", keep_slowly)
        text = place.settings.config.read_text()
        second = f"checks:\n  second: {{type: demo, page: {place.page}, port: {place.port}}}\n"
        place.settings.config.write_text(text.replace("checks:\n", second))
        await agent.reload(by="tester")
        assert agent.check("second").broken == ""
        assert agent.check("second").status == "ok"


async def test_routes_are_checked_again_at_a_reload(place: Place) -> None:
    place.configure()
    good = place.settings.config.read_text()
    bad = good.replace("json://127", "nosuchservice://127")
    async with started(place) as agent:
        for text, broken in ((bad, True), (good, False), (bad, True)):
            place.settings.config.write_text(text)
            await agent.reload(by="tester")
            await until(lambda broken=broken: is_told(agent, "route box") is broken)


def is_told(agent: RunningAgent, word: str) -> bool:
    return any(word in problem for problem in agent.status().problems)


def write_own_remedy(place: Place, summary: str) -> Path:
    """An operator's remedy that puts the demo's page back."""
    path = place.home / "playbooks" / "mend-page"
    path.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o755)
    path.chmod(0o755)
    (path / "remedy.yml").write_text(
        f"summary: {summary}\nhandles: {{demo: [broken]}}\nrisk: low\nchanges: files\n"
        f"timeout: 60s\n"
    )
    (path / "playbook.yml").write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        f"    - ansible.builtin.copy: {{dest: {place.page}, mode: '0644', "
        f'content: "<p>whole</p>\\n{MARK}\\n"}}\n'
    )
    for file in path.iterdir():
        file.chmod(0o644)
    return path


async def test_an_operators_remedy_is_picked_up_at_a_reload_and_heals(place: Place) -> None:
    place.configure()
    async with started(place) as agent:
        assert "mend-page" not in [remedy.name for remedy in agent.remedies()]
        write_own_remedy(place, "Mend the page")
        place.configure(check=", ladder: [{remedy: mend-page}]")
        await agent.reload(by="tester")
        assert agent.remedy("mend-page").summary == "Mend the page"
        place.break_page()
        await wait_for_state(agent, State.RESOLVED)
        assert [run.remedy for run in (await agent.runs()).items] == ["mend-page"]


async def test_a_broken_remedy_of_an_operator_disturbs_no_other(place: Place) -> None:
    """Neither at a reload nor at a start, even where a ladder names it."""
    path = write_own_remedy(place, "Mend the page")
    page = "restore-demo-page, options: {page: " + str(place.page) + "}"
    place.configure(check=f", ladder: [{{remedy: {page}}}, {{remedy: mend-page}}]")
    async with started(place) as agent:
        assert agent.status().problems == ()
        (path / "remedy.yml").chmod(0o666)
        await agent.reload(by="tester")
        [problem] = agent.status().problems
        assert "cannot use remedy mend-page" in problem
        assert "chmod go-w" in problem
        # The ladder ends before it; what stands before it heals as ever.
        assert agent.check("page").ladder == ("restore-demo-page",)
        place.break_page()
        await wait_for_state(agent, State.RESOLVED)
    async with started(place) as agent:
        assert agent.check("page").ladder == ("restore-demo-page",)
        (path / "remedy.yml").chmod(0o644)
        await agent.reload(by="tester")
        assert agent.status().problems == ()
        assert agent.check("page").ladder == ("restore-demo-page", "mend-page")
