"""A staging site beside a production site, both real: what is wrong is found by its gate."""

from __future__ import annotations

import asyncio
import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sites import Page, Site, link_all, serving

from agent.errors import Conflict
from agent.rehearsal.rehearsal import Plan, Rehearsal, exit_code, preview, rehearse
from agent.rehearsal.replay import Caution
from agent.rehearsal.report import describe_rehearsal, write_json, write_junit
from agent.rehearsal.report_html import write_html
from agent.rehearsal.verdict import Gate, Limits, Outcome

PATHS = [f"/p{n}" for n in range(6)]
WHOLE = {"/": link_all(PATHS), **{path: Page() for path in PATHS}}
#: Loose enough for a machine that has other work: what is tested here is not speed.
LIMITS = Limits(slower=3.0, slower_p95=20.0, least_pairs=50, least_p95=10_000, lateness=10.0)


def log(tmp_path: Path, count: int = 80) -> Path:
    path = tmp_path / "access.log"
    lines = [
        f'198.51.100.{n % 9} - - [22/Jan/2019:03:56:{n % 60:02} +0330] "GET {PATHS[n % 6]}?n={n} '
        f'HTTP/1.1" 200 52 "-" "Mozilla/5.0"'
        for n in range(count)
    ]
    lines += ['198.51.100.1 - - [22/Jan/2019:03:57:00 +0330] "POST /buy HTTP/1.1" 200 5 "-" "-"']
    path.write_text("\n".join(lines) + "\n")
    return path


def try_it(tmp_path: Path, staging: dict[str, Page], **changes: object) -> Rehearsal:
    production, candidate = Site(WHOLE), Site(staging)

    async def story() -> Rehearsal:
        async with serving(production, candidate):
            pages = {
                path: replace(page, location=page.location.format(production=production.url))
                for path, page in candidate.pages.items()
            }
            candidate.pages = pages
            plan = Plan(
                candidate=candidate.url,
                baseline=production.url,
                traffic=(log(tmp_path),),
                ceiling=200.0,
                speed=100.0,
                limits=LIMITS,
                caution=Caution(errors=0.5),
                **changes,  # type: ignore[arg-type]
            )
            found = await rehearse(plan)
        assert not any(key.startswith("POST") for key in candidate.asked)
        return found

    return asyncio.run(story())


def gate(found: Rehearsal, name: str) -> Gate:
    (one,) = [each for each in found.verdict.gates if each.name == name]
    return one


def failing(found: Rehearsal) -> set[str]:
    return {g.name for g in found.verdict.gates if g.outcome is Outcome.FAIL and g.blocking}


def test_a_clone_passes(tmp_path: Path) -> None:
    found = try_it(tmp_path, dict(WHOLE))
    assert failing(found) == set(), found.verdict
    assert found.verdict.outcome is Outcome.PASS, found.verdict
    assert exit_code(found) == 0
    assert len(found.measured.pairs) == 80
    assert gate(found, "pages").count == 7


def test_a_broken_page_fails_by_its_pages_and_its_traffic(tmp_path: Path) -> None:
    found = try_it(tmp_path, {**WHOLE, "/p3": Page("broken", 500)})
    assert failing(found) >= {"pages", "broken"}
    assert "/p3: " in gate(found, "pages").cases[0]
    assert exit_code(found) == 1


def test_a_candidate_that_fails_nearly_everywhere_is_left_alone(tmp_path: Path) -> None:
    found = try_it(tmp_path, {path: Page("broken", 500) for path in WHOLE}, pages=False)
    assert "requests failed on the candidate" in found.measured.aborted
    assert exit_code(found) == 4


def test_a_page_that_is_gone_fails(tmp_path: Path) -> None:
    without = {path: page for path, page in WHOLE.items() if path != "/p2"}
    assert failing(try_it(tmp_path, without)) >= {"pages", "broken"}


def test_a_slow_endpoint_fails(tmp_path: Path) -> None:
    slow = {**WHOLE, **{path: Page(seconds=1.5) for path in PATHS}}
    assert "latency" in failing(try_it(tmp_path, slow, pages=False))


def test_a_staging_host_that_leads_to_production_fails(tmp_path: Path) -> None:
    away = {**WHOLE, "/p1": Page("", 302, "{production}/p1")}
    found = try_it(tmp_path, away, pages=False)
    assert "redirects" in failing(found)
    assert gate(found, "redirects").cases


def test_what_changed_is_named_and_does_not_decide(tmp_path: Path) -> None:
    other = Page("<!doctype html><title>Another</title>" + "x" * 9000)
    found = try_it(tmp_path, {**WHOLE, "/p4": other})
    changes = gate(found, "changes of pages")
    assert changes.outcome is Outcome.FAIL
    assert not changes.blocking
    assert changes.cases == ("/p4: is called 'Another', not 'Page'",)
    assert found.verdict.outcome is Outcome.PASS


def test_no_traffic_is_no_pass(tmp_path: Path) -> None:
    empty = tmp_path / "empty.log"
    empty.write_text("")
    found = try_it(tmp_path, dict(WHOLE), pages=False)
    assert found.verdict.outcome is Outcome.PASS

    async def story() -> Rehearsal:
        one, other = Site(WHOLE), Site(WHOLE)
        async with serving(one, other):
            return await rehearse(
                Plan(candidate=one.url, baseline=other.url, traffic=(empty,), pages=False)
            )

    nothing = asyncio.run(story())
    assert nothing.verdict.outcome is Outcome.INCONCLUSIVE
    assert exit_code(nothing) == 3


def test_production_is_not_its_own_candidate(tmp_path: Path) -> None:
    async def story(**changes: object) -> None:
        site = Site(WHOLE)
        async with serving(site):
            port = site.url.rpartition(":")[2]
            plan = Plan(
                candidate=f"http://staging.invalid:{port}",
                candidate_at="127.0.0.1",
                baseline=site.url,
                traffic=(log(tmp_path, 3),),
                pages=False,
                speed=100.0,
                **changes,  # type: ignore[arg-type]
            )
            await rehearse(plan)

    with pytest.raises(Conflict, match="so is the baseline"):
        asyncio.run(story())
    asyncio.run(story(same_host=True))


def test_a_log_that_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    plan = Plan(candidate="http://a.invalid", baseline="http://b.invalid", traffic=(tmp_path,))
    with pytest.raises(Conflict, match=r"cannot read the traffic in .*: Is a directory"):
        preview(plan)


def test_a_preview_asks_nothing_and_counts(tmp_path: Path) -> None:
    plan = Plan(
        candidate="http://a.invalid", baseline="http://b.invalid", traffic=(log(tmp_path),), pairs=9
    )
    found = preview(plan)
    assert (found.lines, found.requests, sum(found.skipped.values())) == (81, 9, 1)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    evil = Page("<title><script>alert(1)</script></title>", 200)
    return try_it(
        tmp_path_factory.mktemp("reported"), {**WHOLE, "/p3": Page("x", 500), "/p4": evil}
    )


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not {name for name, _ in attrs} & {"src", "href", "onload"}
        self.seen.add(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, _attrs: object) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_has_plots_and_asks_for_nothing(reported: Rehearsal) -> None:
    page = write_html(reported)
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert {"svg", "polyline", "circle", "table"} <= tags.seen
    assert "script" not in tags.seen
    assert reported.verdict.headline in page


def test_the_data_is_complete_and_plain(reported: Rehearsal) -> None:
    told = json.loads(write_json(reported))
    assert told["verdict"] == "fail"
    assert told["pairs_count"] == 80
    assert {g["name"] for g in told["gates"]} == {g.name for g in reported.verdict.gates}
    assert told["traffic"]["skipped"] == {"not GET or HEAD": 1}
    assert told["pairs"][0]["candidate"]["status"] == 500
    assert told == json.loads(json.dumps(describe_rehearsal(reported)))


def test_junit_has_a_case_for_each_gate(reported: Rehearsal) -> None:
    (suite,) = ET.fromstring(write_junit(reported))
    cases = {case.get("name"): {child.tag for child in case} for case in suite.iter("testcase")}
    assert set(cases) == {g.name for g in reported.verdict.gates}
    assert cases["broken"] == {"failure"}
    assert cases["generator"] == {"system-out"}
    assert suite.get("failures") == str(len(failing(reported)))


def test_credentials_go_to_the_candidate_alone(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("Authorization: Bearer hush-hush-hush\n")
    secret.chmod(0o600)
    found = try_it(tmp_path, dict(WHOLE), credentials=secret)
    assert found.verdict.outcome is Outcome.PASS
    assert "hush" not in write_html(found) + write_json(found) + repr(found)
