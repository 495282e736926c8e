"""What a report of an incident says, hides and escapes."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from agent.core.model import (
    Changes,
    Evidence,
    Finding,
    Incident,
    Notice,
    NoticeState,
    Outcome,
    Reason,
    ResolvedBy,
    Risk,
    Run,
    RunState,
    State,
    Status,
    Transition,
)
from agent.reports.incident import Earlier, Exhibit, IncidentReport, make_report
from agent.reports.markdown import render_markdown
from agent.reports.page import render_page

T = 1_790_000_000.0
BAD = Finding(
    subject="nginx.service",
    status=Status.CRITICAL,
    cause="failed",
    summary="nginx.service failed: signal (killed by SIGKILL)",
)
INCIDENT = Incident(
    id="i7",
    check="web",
    subject="nginx.service",
    state=State.RESOLVED,
    finding=replace(BAD, status=Status.OK, cause="", summary="nginx.service is active"),
    looked=T + 70,
    before=BAD,
    after=replace(BAD, status=Status.OK, cause="", summary="nginx.service is active"),
    began=T,
    opened=T + 0.2,
    entered=T + 70,
    ended=T + 70,
    resolved_by=ResolvedBy.RUN,
    why="stayed whole for 1 min",
    seen=T + 0.1,
    look_ended=T + 70,
    healed_by="r9",
    downtime=3.5,
)
RUN = Run(
    id="r9",
    remedy="restart-service",
    options={"unit": "nginx.service", "password": "hunter2", "count": 3},
    risk=Risk.LOW,
    changes=Changes.SERVICE,
    timeout=60.0,
    lock="unit:nginx.service",
    digest="d",
    planned=T + 0.3,
    state=RunState.ENDED,
    incident="i7",
    started=T + 0.4,
    ended=T + 2.0,
    outcome=Outcome.OK,
    detail="restarted with hunter2",
    proved=True,
)
TASK = {
    "event": "task",
    "task": "Restart the unit",
    "status": "changed",
    "msg": "restarted, password=hunter2",
    "stdout": "started <b>nginx</b>",
    "diff": "--- before\n+++ after\n-state: dead\n+state: up\n```\n",
}


def make(**other: Any) -> IncidentReport:
    given: dict[str, Any] = {
        "host": "web1",
        "now": T + 100,
        "incident": INCIDENT,
        "downtime": 3.5,
        "transitions": (
            Transition(incident="i7", at=T + 0.2, old=State.PENDING, new=State.OPEN, why="seen"),
            Transition(
                incident="i7", at=T + 2.2, old=State.VERIFYING, new=State.PROBATION, why="proved"
            ),
        ),
        "runs": (RUN,),
        "tasks": {"r9": (TASK, {"event": "stats"})},
        "notices": (),
        "evidence": (
            Exhibit(
                stage="before",
                taken=T + 1,
                evidence=Evidence(title="Log", text="token: abc\x1b[2J"),
            ),
        ),
        "earlier": Earlier(count=0, incidents=()),
        "secrets": {"restart-service": ("password",)},
    }
    return make_report(**{**given, **other})


def test_it_says_how_long_it_took_to_see_and_to_repair() -> None:
    report = make()
    assert report.detected_after == pytest.approx(0.1)
    assert report.repaired_after == pytest.approx(2.0)
    assert report.downtime == 3.5
    assert report.summary == (
        "On web1: nginx.service failed: signal (killed by SIGKILL). It failed for 3.5 s. "
        "hostmend repaired it (run r9), and a later look proved it."
    )
    assert [moment.at for moment in report.timeline] == sorted(m.at for m in report.timeline)
    assert report.left == ()


def test_what_is_not_known_is_not_said() -> None:
    report = make(incident=replace(INCIDENT, began=INCIDENT.seen, healed_by=None))
    assert report.detected_after is None
    assert report.repaired_after is None


@pytest.mark.parametrize("render", [render_markdown, render_page])
def test_secrets_are_hidden_wherever_they_occur(render: Any) -> None:
    text = render(make())
    assert "hunter2" not in text
    assert "abc" not in text
    assert "password=***" in text.replace("\\*", "*")


def test_what_came_from_outside_is_no_markup() -> None:
    evil = replace(BAD, summary="| a | <script>alert(1)</script> [x](http://evil/) `y`")
    report = make(incident=replace(INCIDENT, before=evil))
    markdown, page = render_markdown(report), render_page(report)
    assert "<script>" not in page
    assert "\x1b" not in page + markdown
    outside = re.sub(r"(?ms)^(`{3,})$.*?^\1$", "", markdown)
    assert "<script>" not in outside.replace("\\<script\\>", "")
    assert "[x](" not in outside


def test_a_code_block_is_not_ended_by_its_content() -> None:
    markdown = render_markdown(make())
    assert "````\n--- before" in markdown


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_for_nothing() -> None:
    tags = _Tags()
    tags.feed(render_page(make()))
    assert tags.open == []
    assert tags.links == []


def test_what_is_left_is_named() -> None:
    failed = replace(RUN, id="r8", outcome=Outcome.FAILED, detail="no")
    human = replace(RUN, id="r9", outcome=Outcome.NEEDS_HUMAN, detail="run this: fsck")
    message = Notice(
        id="n1",
        route="ops",
        reason=Reason.ESCALATED,
        created=T,
        expires=T + 9,
        state=NoticeState.EXPIRED,
        error="refused",
    )
    report = make(
        incident=replace(
            INCIDENT, state=State.ESCALATED, ended=None, resolved_by=None, why="nothing helped"
        ),
        runs=(failed, human),
        notices=(message,),
        earlier=Earlier(count=2, incidents=(replace(INCIDENT, id="i3"),)),
    )
    assert report.left == (
        "A human is needed: nothing helped",
        "Run r8 of restart-service ended failed: find out why.",
        "Run r9 of restart-service asked for a human: run this: fsck",
        "It happened 2 times before: a repair is no cure for its cause.",
        "The message to ops (escalated) did not arrive: refused",
    )
    assert "i3" in render_markdown(report)
    assert "i3" in render_page(report)


def test_a_preview_is_no_repair() -> None:
    preview = replace(RUN, preview=True, outcome=Outcome.FAILED)
    assert make(runs=(preview,)).left == ()
