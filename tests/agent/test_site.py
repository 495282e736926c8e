"""A whole agent that watches a site: what breaks becomes an incident, and is told of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_scene import Serve, Site, page
from audit_scene import serve as serve

from agent.bootstrap import look_once, open_agent
from agent.core.model import Incident, State
from agent.errors import Invalid
from agent.running import RunningAgent
from agent.settings import Settings

LIMIT = 90.0


def make_settings(home: Path, site: Site) -> Settings:
    settings = Settings(
        config=home / "hostmend.yml",
        state_dir=home / "state",
        runtime_dir=home / "run",
        listen=("127.0.0.1", 0),
    )
    settings.config.write_text(
        "version: 1\npolicy: {mode: off, storm: {group_wait: 100ms}}\nchecks:\n"
        f"  pages: {{type: site, url: '{site.url}', max_rate: 0, every: 1h, stable_for: 100ms}}\n"
        "  page: {type: demo, page: /nowhere, every: 1h}\n"
    )
    return settings


async def find_incidents(agent: RunningAgent) -> dict[str, Incident]:
    return {i.subject: i for i in (await agent.incidents(check="pages")).items}


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not what():  # noqa: ASYNC110 - the world outside has no event to wait for
            await asyncio.sleep(0.05)


async def test_a_page_that_breaks_is_an_incident_until_it_is_there_again(
    serve: Serve, tmp_path: Path
) -> None:
    site = await serve({"/": page('<a href="/a">x</a>'), "/a": page("ok")})
    settings = make_settings(tmp_path, site)
    async with open_agent(settings) as agent, asyncio.timeout(LIMIT):
        await agent.look("pages")
        assert await find_incidents(agent) == {}
        whole = site.answers.pop("/a")
        await agent.look("pages")
        (incident,) = (await find_incidents(agent)).values()
        assert incident.subject == f"{site.url}a"
        assert (incident.finding.cause, incident.state.ended) == ("missing", False)

    # Another agent knows it as the same problem.
    async with open_agent(settings) as agent, asyncio.timeout(LIMIT):
        status = await agent.look("pages")
        assert {f.subject for f in status.findings} == {site.url, f"{site.url}a"}
        assert [i.id for i in (await find_incidents(agent)).values()] == [incident.id]
        site.answers["/a"] = whole
        await agent.look("pages")
        await until(
            lambda: incident.id not in {i.id for i in agent.status().incidents},
        )
        (ended,) = (await find_incidents(agent)).values()
        assert ended.state is State.RESOLVED

        audits = (await agent.audits(check="pages")).items
        assert len(audits) >= 4
        assert audits[0].audit.fixed or not audits[0].audit.defects
        whole_audit = await agent.audit(audits[-2].id)
        assert [d.target for d in whole_audit.audit.defects] == [f"{site.url}a"]
        with pytest.raises(Invalid, match="type demo"):
            await agent.start_audit("page", by="tester")
        before = len(site.asked)
        await agent.start_audit("pages", by="tester")
        await until(lambda: len(site.asked) > before)


async def test_one_look_without_an_agent_says_all_that_is_broken(
    serve: Serve, tmp_path: Path
) -> None:
    site = await serve({"/": page(*(f'<a href="/p{n}">x</a>' for n in range(9)))})
    (status,) = await look_once(make_settings(tmp_path, site), ("pages",))
    assert status.status == "critical"
    assert {f.subject for f in status.findings} == {site.url, f"{site.url}*"}


async def test_an_agent_that_ends_leaves_no_audit_behind(serve: Serve, tmp_path: Path) -> None:
    async def hang(_request: object) -> str:
        await asyncio.sleep(60)
        return page("late")

    site = await serve({"/": page('<a href="/hang">x</a>'), "/hang": hang})
    async with open_agent(make_settings(tmp_path, site)) as agent:
        await agent.start_audit("pages", by="tester")
        await until(lambda: "/hang" in site.paths)
    await until(lambda: not list_audits())


def list_audits() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if b"agent.audit.child" in command and path.parent.joinpath("stat").exists():
            found.append(command.decode())
    return found
