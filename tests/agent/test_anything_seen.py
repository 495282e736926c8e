"""A check that sees the worst: numbers without end, text that is none. Real store, API and mail."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import pytest
from agent_place import Place, started, until, wait_for_state
from serving import serve_web

from agent.checks import CHECKS
from agent.checks.check import CheckOptions, CheckType
from agent.core.model import Evidence, Finding, State, Status

UGLY = "a\udcff\x00\x1b[31mb\u202e\r\nc" + "x" * 10_000
FINDING = Finding(
    subject=f"/srv/{UGLY}",
    status=Status.CRITICAL,
    cause=UGLY,
    summary=UGLY,
    measurements={"inf": math.inf, "nan": math.nan, "minus": -math.inf, "one": 1.0, UGLY: 2.0},
    facts={UGLY: UGLY},
    since=math.nan,
    resource=UGLY,
    implicates=(UGLY,) * 1000,
)


class UglyOptions(CheckOptions):
    type: Literal["ugly"]


async def look(_options: UglyOptions, _machine: object) -> tuple[Finding, ...]:
    return (FINDING,)


async def gather(_options: UglyOptions, _finding: Finding, _machine: object) -> tuple[Evidence]:
    return (Evidence(title=UGLY, text=UGLY),)


def read(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


async def test_nothing_chokes_on_what_a_check_saw(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ugly = CheckType(
        name="ugly", summary="It sees the worst.", model=UglyOptions, look=look, causes={},
        gather=gather, defaults={"confirm": "1 of 1", "every": "1s"},
    )  # fmt: skip
    monkeypatch.setitem(CHECKS, "ugly", ugly)  # type: ignore[arg-type, unused-ignore]
    place.configure()
    text = place.settings.config.read_text()
    ugly_check = "checks:\n  worst: {type: ugly}\n"
    place.settings.config.write_text(text.replace("checks:\n", ugly_check))
    async with started(place) as agent:
        incident = await wait_for_state(agent, State.ESCALATED)
        await until(lambda: len(place.letters) == 1)
        assert b"[escalated]" in place.letters[0]
        async with serve_web(tmp_path / "s", agent) as web:  # type: ignore[arg-type, unused-ignore]
            for path in ("status", "checks", "checks/worst", "incidents", f"incidents/{incident}",
                         f"incidents/{incident}/explain", "notices"):  # fmt: skip
                answer = await web.unix.get(f"/v1/{path}")
                assert answer.status_code == 200, (path, answer.text)
                read(answer.text)
            shown = read((await web.unix.get(f"/v1/incidents/{incident}")).text)
            acted = await web.unix.post(f"/v1/incidents/{incident}/acknowledge", json={})
            assert acted.status_code == 200
    seen = shown["incident"]["finding"]
    assert seen["measurements"].keys() > {"one"}
    assert set(seen["measurements"].values()) == {1.0, 2.0}
    assert seen["subject"].startswith("/srv/a\ufffdb cxxx")
    assert len(seen["subject"]) <= 300
    assert seen["since"] is None
    assert {item["when"] for item in shown["evidence"]} == {"before"}
    assert any(item["text"].startswith("a\ufffdb\ncxxx") for item in shown["evidence"])

    async with started(place) as again:
        assert [i.id for i in again.status().incidents] == [incident]
