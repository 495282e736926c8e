"""The check `site`: what an audit means as findings."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from audit_scene import Serve, Site, page
from pydantic import ValidationError

from agent.audit.result import Audit
from agent.checks import CHECKS
from agent.checks.site import SITE, SiteOptions, judge, look, read_end
from agent.clock import Clock
from agent.core.model import Finding, Status
from agent.errors import Unavailable
from agent.host.machine import Machine
from agent.host.memory import Memories
from agent.host.processes import find_descendants, read_processes


def complete(url: str, **fields: Any) -> SiteOptions:
    return SiteOptions(
        type="site", url=url, **{"timeout": "20s", "max_rate": 0, "robots": False, **fields}
    )


Look = Callable[[SiteOptions], Awaitable[tuple[Finding, ...]]]


@pytest.fixture
def look_at() -> Look:
    """Looks as an agent does: what one look remembers, the next one knows."""
    memories = Memories()

    async def look_at(options: SiteOptions) -> tuple[Finding, ...]:
        memory = memories.open("pages")
        findings = await look(options, Machine(clock=Clock(), memory=memory))
        memories.keep("pages", memory)
        return findings

    return look_at


def shop(*links: str) -> str:
    return page(*(f'<a href="{link}">x</a>' for link in links))


def short(findings: tuple[Finding, ...], site: Site) -> dict[str, tuple[str, str]]:
    """Subject, below the site -> status and cause."""
    return {f.subject.removeprefix(site.url): (f.status.value, f.cause) for f in findings}


async def test_a_site_that_is_whole_is_one_finding(serve: Serve, look_at: Look) -> None:
    site = await serve({"/": shop("/a"), "/a": page("ok")})
    (finding,) = await look_at(complete(site.url))
    assert (finding.subject, finding.status) == (site.url, Status.OK)
    assert finding.summary.startswith("OK - nothing is wrong; 2 addresses, 2 pages")
    assert finding.measurements["pages_count"] == 2


async def test_a_page_that_breaks_is_a_problem_of_its_own_until_it_is_mended(
    serve: Serve, look_at: Look
) -> None:
    site = await serve({"/": shop("/a", "/b"), "/a": page("ok"), "/b": page("ok")})
    options = complete(site.url)
    await look_at(options)
    broken = site.answers.pop("/a")
    found = await look_at(options)
    assert short(found, site) == {"": ("ok", ""), "a": ("critical", "missing")}
    finding = next(f for f in found if f.subject.endswith("/a"))
    assert finding.summary == f"{site.url}a: 404 Not Found"
    assert finding.facts["Defect 1"] == (
        f"missing: {site.url}a (404 Not Found); from {site.url} line 4 (link)"
    )
    # It stays the same problem, and once it is over that is seen.
    assert short(await look_at(options), site) == short(found, site)
    site.answers["/a"] = broken
    assert short(await look_at(options), site) == {"": ("ok", ""), "a": ("ok", "")}


async def test_a_release_that_breaks_hundreds_of_pages_is_one_problem(
    serve: Serve, look_at: Look
) -> None:
    names = [f"/p{n}" for n in range(200)]
    site = await serve({"/": shop(*names), **dict.fromkeys(names, page("ok"))})
    options = complete(site.url)
    await look_at(options)
    for name in names:
        del site.answers[name]
    found = await look_at(options)
    assert short(found, site) == {"": ("ok", ""), "*": ("critical", "missing")}
    group = next(f for f in found if f.subject.endswith("*"))
    assert group.summary.startswith(f"200 defects of {site.url}, such as missing: {site.url}p")
    assert group.measurements["regressed_count"] == 200
    assert len(group.facts) == 11
    assert group.facts["And"] == "190 more defects"
    # Whatever breaks then is news of its own.
    site.answers["/"] = shop(*names, "/new")
    assert short(await look_at(options), site) == {
        "": ("ok", ""),
        "*": ("critical", "missing"),
        "new": ("critical", "missing"),
    }


async def test_a_site_that_is_down_makes_its_other_problems_unknown(
    serve: Serve, look_at: Look
) -> None:
    site = await serve({"/": shop("/a")})
    options = complete(site.url)
    await look_at(options)
    site.answers["/"] = web.Response(status=500)
    for _ in range(2):
        assert short(await look_at(options), site) == {
            "": ("critical", "down"),
            "a": ("unknown", "unseen"),
        }
    site.answers["/"] = shop("/a")
    assert short(await look_at(options), site) == {"": ("ok", ""), "a": ("critical", "missing")}


async def test_what_is_remembered_of_one_way_of_asking_says_nothing_of_another(
    serve: Serve, look_at: Look
) -> None:
    site = await serve({"/": shop("/a")})
    await look_at(complete(site.url))
    (whole,) = await look_at(complete(site.url, connect="127.0.0.1:1"))
    assert whole.cause == "down"


async def test_rules_name_causes_of_their_own(serve: Serve, look_at: Look) -> None:
    site = await serve({"/": shop("/shop/a"), "/shop/a": page("Traceback")})
    options = complete(
        site.url,
        rules=[{"urls": "/shop/*", "warning": {"crash": "[BODY] == pat(*Traceback*)"}}],
    )
    assert short(await look_at(options), site)["shop/a"] == ("warning", "crash")
    assert SITE.own_causes(options) == {"crash"}


async def test_what_is_known_is_no_problem(serve: Serve, look_at: Look) -> None:
    site = await serve({"/": shop("/a")})
    known = [{"target": "/a", "reason": "moves next week", "until": "2999-01-01"}]
    assert short(await look_at(complete(site.url, known=known)), site) == {"": ("ok", "")}


async def test_a_problem_says_which_deployment_it_came_with(
    serve: Serve, look_at: Look, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    release.mkdir()
    current = tmp_path / "current"
    current.symlink_to(release)
    site = await serve({"/": shop("/a"), "/a": page("ok")})
    options = complete(site.url, deployed=str(current))
    await look_at(options)
    await asyncio.sleep(0.05)
    current.unlink()
    current.symlink_to(release)
    del site.answers["/a"]
    found = await look_at(options)
    assert "it came after the deployment" in next(f for f in found if f.failing).summary
    site.answers["/"] = shop("/a", "/b")
    found = await look_at(options)
    assert not any("deployment" in f.summary for f in found)


async def test_without_a_memory_everything_that_is_broken_is_said(serve: Serve) -> None:
    site = await serve({"/": shop("/a")})
    heard: list[Audit] = []
    for _ in range(2):
        machine = Machine(clock=Clock(), audited=heard.append)
        found = await look(complete(site.url), machine)
        assert short(found, site) == {"": ("ok", ""), "a": ("critical", "missing")}
    assert [audit.site for audit in heard] == [site.url] * 2


def test_an_audit_without_the_time_for_it_says_so() -> None:
    names = ("urls", "pages", "requests", "broken", "blocked", "transient", "unasked")
    audit = Audit(
        site="https://shop.example/",
        began=0.0,
        ended=540.0,
        ending="time",
        why="the time of 540 s was over",
        counts=dict.fromkeys(names, 7),
        groups={"https://shop.example/a": ()},
    )
    whole, unseen = judge(complete("https://shop.example/"), audit)[::-1]
    assert (whole.status, whole.cause) == (Status.UNKNOWN, "incomplete")
    assert whole.measurements["unasked_count"] == 7
    assert (unseen.status, unseen.cause) == (Status.UNKNOWN, "unseen")


async def test_a_child_that_is_killed_breaks_the_look(serve: Serve, look_at: Look) -> None:
    def kill(_request: object) -> str:
        for process in find_descendants(os.getpid(), read_processes()):
            if b"agent.audit.child" in Path(f"/proc/{process.pid}/cmdline").read_bytes():
                os.kill(process.pid, signal.SIGKILL)
        return page("ok")

    site = await serve({"/": kill})
    with pytest.raises(Unavailable, match="signal 9"):
        await look_at(complete(site.url))


# The configuration


def test_it_is_looked_at_rarely_and_given_time() -> None:
    assert CHECKS["site"].defaults["every"] == "15m"
    assert CHECKS["site"].default_ladder(complete("http://shop.example/")) == ()


def test_the_end_of_what_is_known_is_the_end_of_its_day() -> None:
    assert read_end("1970-01-01") == 86_400
    assert read_end("1970-01-01T00:00:10Z") == 10
    assert read_end("1970-01-01T01:00:10+01:00") == 10
    assert read_end(time.strftime("%Y-%m-%d", time.gmtime())) > time.time()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"url": "shop.example"}, "must be an http"),
        ({"only": ["docs"]}, "no pattern of paths"),
        ({"hosts": ["https://cdn.example/"]}, "no host"),
        ({"also": ["data-href"]}, "data-src"),
        ({"connect": "shop.example:443"}, "no address"),
        ({"rules": [{"urls": "/x", "critical": {"a": "nonsense"}}]}, "cannot be read|stands where"),
        ({"rules": [{"urls": "/x", "critical": {"missing": "[STATUS] == 1"}}]}, "another word"),
        ({"known": [{"target": "/x", "until": "2030-01-01"}]}, "reason"),
        ({"known": [{"target": "/x", "reason": "y"}]}, "until"),
        ({"known": [{"target": "/x", "reason": "y", "until": "soon"}]}, "no date"),
        ({"known": [{"target": "x", "reason": "y", "until": "2030-01-01"}]}, "no pattern of addr"),
        (
            {"known": [{"target": "/x", "reason": "y", "until": "2030-01-01", "kinds": ["x"]}]},
            "kin",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        SiteOptions(type="site", **{"url": "https://shop.example/", **fields})
