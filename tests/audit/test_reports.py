"""What reports say, and that nothing of a hostile site gets through them."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from audit_scene import Run, Serve, page
from hypothesis import given
from hypothesis import strategies as st

from agent.audit.report_html import write_html
from agent.audit.report_junit import write_junit
from agent.audit.result import (
    MEANINGS,
    Audit,
    AuditReader,
    Defect,
    Kind,
    Referrer,
    Seen,
    dump_audit,
    load_audit,
    write_audit,
)
from agent.audit.words import tell_verdict

EVIL = "\"'><script>alert(1)</script>\x00\x1b[31m&amp;\u202e"


def make_audit(text: str = "x", **fields: object) -> Audit:
    url = f"https://shop.example/{text}"
    defects = tuple(
        Defect(
            kind=kind,
            target=url,
            status=kind.status,
            why=text,
            hint=text,
            rule=text if kind is Kind.RULE else "",
            referrers_count=9,
            referrers=(
                Referrer(page=url, line=7, role="link"),
                Referrer(page=text, line=None, role="x"),
            ),
            since=5.0,
            known=text if kind is Kind.SLOW else "",
            lapsed=text,
        )
        for kind in Kind
    )
    seen = Seen(
        url=url, fate="fine", status=200, type=text, title=text, size=5, seconds=0.1, depth=1,
        redirect=text, referrers_count=1, why=text, tries=0,
    )  # fmt: skip
    return replace(
        Audit(
            site=url,
            began=0.0,
            ended=3.0,
            ending="complete",
            counts={"urls": 1170, "pages": 1, "bytes": 2048, "requests": 3, "transient": 1},
            defects=defects,
            notes=(text,),
            fixed=(text,),
            groups={text: (0, 1)},
            urls=(seen,),
        ),
        **fields,
    )


class Elements(HTMLParser):
    """Every element of a page, and every attribute that could load or run something."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on"), name
            assert name not in ("src", "srcset", "style", "action", "formaction", "data"), name
            if name == "href":
                self.links.append(value or "")

    def handle_data(self, data: str) -> None:
        self.words += data


def read_elements(text: str) -> Elements:
    elements = Elements()
    elements.feed(text)
    elements.close()
    return elements


@pytest.mark.parametrize("text", [EVIL, "javascript:alert(1)", "</style><img src=x onerror=1>"])
def test_nothing_of_a_site_becomes_a_part_of_the_page(text: str) -> None:
    found = read_elements(write_html(make_audit(text)))
    assert found.tags <= {
        "html", "head", "meta", "title", "style", "body", "main", "header", "h1", "h2", "small",
        "a", "div", "p", "dl", "dt", "dd", "section", "article", "span", "ul", "li", "details",
        "summary", "table", "thead", "tbody", "tr", "th", "td", "footer",
    }  # fmt: skip
    assert all(link.startswith(("https://", "http://")) for link in found.links)


@given(st.text(st.characters(exclude_categories=[])))
def test_whatever_a_site_says_can_be_written(text: str) -> None:
    audit = make_audit(text)
    found = read_elements(write_html(audit))
    assert all(link.startswith(("https://", "http://")) for link in found.links)
    assert "script" not in found.tags
    ET.fromstring(write_junit(audit))


def test_a_report_stands_alone() -> None:
    text = write_html(make_audit())
    assert "default-src &#x27;none&#x27;" in text
    assert not re.search(r"@import|url\(|<script|<link|<img|http-equiv=.refresh", text)
    assert "prefers-color-scheme: dark" in text
    for kind in set(Kind) - {Kind.SLOW}:
        assert MEANINGS[kind] in read_elements(text).words


def test_one_case_for_each_broken_target() -> None:
    root = ET.fromstring(write_junit(make_audit()))
    (suite,) = root
    assert suite.attrib["tests"] == str(len(Kind) + 1)
    assert suite.attrib["failures"] == str(len(Kind) - 1)
    assert suite.attrib["skipped"] == "1"
    failure = suite.find("testcase[@classname='audit.missing']/failure")
    assert failure is not None
    assert "line 7 (link)" in (failure.text or "")
    broken = ET.fromstring(write_junit(make_audit(ending="down", why="it is gone", defects=())))
    error = broken.find("testsuite/testcase/error")
    assert error is not None
    assert "it is gone" in error.attrib["message"]


def test_the_first_line_says_it_all() -> None:
    extent = "1,170 addresses, 1 page, 2 KB in 3.0 s"
    whole = make_audit()
    count = len(Kind) - 1
    assert tell_verdict(whole) == f"{count} DEFECTS, 1 known; {extent}"
    old = tuple(replace(defect, new=False) for defect in whole.defects[:1])
    assert tell_verdict(replace(whole, defects=old)) == f"1 DEFECT, none new; {extent}"
    assert tell_verdict(replace(whole, defects=())) == f"OK - nothing is wrong; {extent}"
    down = replace(whole, ending="down", why="it refuses", defects=())
    assert tell_verdict(down) == f"NOT AUDITED - {whole.site}: it refuses"
    over = replace(whole, ending="time", why="the time was over", defects=old)
    assert tell_verdict(over).startswith("INCOMPLETE - the time was over; 1 defect so far")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_result_travels_and_is_kept_as_it_is(text: str) -> None:
    audit = make_audit(text)
    reader = AuditReader()
    for row in write_audit(audit):
        reader.take(json.loads(json.dumps(row)))
    assert reader.audit == audit
    assert load_audit(dump_audit(replace(audit, book={"at": 1.0}))) == audit


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": 1}', '{"format": 9}', "nonsense"])
def test_what_is_no_result_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        load_audit(text)


async def test_a_title_of_a_site_does_no_harm(serve: Serve, run: Run) -> None:
    title = "</title><script>alert(1)</script>&lt;b&gt;"
    site = await serve({"/": page('<a href="/?a=%22%3E%3Cscript%3E">x</a>', title=title)})
    found = read_elements(write_html(await run(site)))
    assert "script" not in found.tags
