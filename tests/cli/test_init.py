"""`hostmend init` and `hostmend arm`. What is found on a real host is in tests/lab/test_init.py."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from fake_agent import FakeAgent

SHADOW = (
    "version: 1\npolicy: {mode: shadow}\nchecks:\n  web: {type: service, unit: nginx.service}\n"
)


async def test_where_there_is_none_a_configuration_in_shadow_is_written(
    hostmend: Any, places: Path
) -> None:
    path = places / "hostmend.yml"
    result = await hostmend("init")
    assert result.code == 0
    assert str(path) in result.out
    assert path.stat().st_mode & 0o777 == 0o600
    assert "mode: shadow" in path.read_text()
    assert (await hostmend("config", "validate")).code == 0


async def test_a_configuration_is_never_written_again(hostmend: Any, places: Path) -> None:
    path = places / "hostmend.yml"
    path.write_text(SHADOW)
    for words in (["init"], ["init", "--explain"], ["init", "--json"]):
        result = await hostmend(*words)
        assert result.code == 0
        assert path.read_text() == SHADOW
    assert json.loads(result.out)["written"] is None


async def test_explaining_writes_nothing(hostmend: Any, places: Path) -> None:
    assert (await hostmend("init", "--explain")).code == 0
    assert not (places / "hostmend.yml").exists()


@pytest.mark.parametrize("command", [["init"], ["arm", "--yes"]])
async def test_a_configuration_that_cannot_be_used_is_said(
    hostmend: Any, places: Path, command: list[str]
) -> None:
    (places / "hostmend.yml").write_text("checks: {web: {type: servise}}\n")
    result = await hostmend(*command)
    assert result.code == 2
    assert "hostmend.yml:1: checks.web.type" in result.err


async def test_nothing_can_be_armed_without_a_configuration(hostmend: Any) -> None:
    result = await hostmend("arm", "--yes")
    assert result.code == 1
    assert "hostmend init" in result.err


async def test_arming_without_an_agent_changes_the_file(hostmend: Any, places: Path) -> None:
    path = places / "hostmend.yml"
    path.write_text(SHADOW)
    result = await hostmend("arm", "--yes")
    assert result.code == 0, result.err
    assert path.read_text() == SHADOW.replace("shadow", "auto")
    assert "nothing is known" in result.out
    again = await hostmend("arm", "--yes")
    assert (again.code, again.out) == (0, "It is not in shadow: policy.mode is auto.\n")


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("", 130), ("y\n", 0)])
async def test_it_asks_before_it_arms(
    hostmend: Any, places: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    path = places / "hostmend.yml"
    path.write_text(SHADOW)
    assert (await hostmend("arm")).code == code
    assert (path.read_text() == SHADOW) == (code != 0)


async def test_the_agent_takes_it_and_its_record_is_shown(
    hostmend: Any, places: Path, agent: FakeAgent
) -> None:
    (places / "hostmend.yml").write_text(SHADOW)
    result = await hostmend("arm", "--yes")
    assert result.code == 0, result.err
    assert "The agent has taken it." in result.out


async def test_a_check_that_says_so_itself_stays_in_shadow(hostmend: Any, places: Path) -> None:
    (places / "hostmend.yml").write_text(
        SHADOW.replace("nginx.service}", "nginx.service, mode: shadow}")
    )
    result = await hostmend("arm", "--yes")
    assert "Still in shadow, as they say themselves: web." in result.out
