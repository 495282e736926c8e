"""`hostmend check`, `run` and `config` hand over to what is wired elsewhere."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from fake_agent import make_busy_agent, make_finding

from agent.agent import CheckStatus
from agent.core.model import Status
from agent.errors import ConfigError, NotFound, Unavailable
from agent.settings import Settings


@pytest.fixture
def bootstrap(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stands for the module that wires everything."""
    module = ModuleType("agent.bootstrap")
    monkeypatch.setitem(sys.modules, "agent.bootstrap", module)
    return module


def see(*statuses: Status) -> tuple[CheckStatus, ...]:
    check = make_busy_agent().check_list["web"]
    return tuple(
        replace(check, name=f"web{n}", status=status, findings=(make_finding(status),))
        for n, status in enumerate(statuses)
    )


@pytest.mark.parametrize(
    ("statuses", "code", "word"),
    [
        ((), 0, "OK: 0 checks"),
        ((Status.OK, Status.OK), 0, "OK: 2 checks"),
        ((Status.OK, Status.WARNING), 1, "WARNING: web1"),
        ((Status.WARNING, Status.UNKNOWN), 3, "UNKNOWN: web0, web1"),
        ((Status.UNKNOWN, Status.CRITICAL), 2, "CRITICAL: web0, web1"),
    ],
)
async def test_a_look_ends_as_monitoring_plugins_do(
    bootstrap, hostmend, statuses, code, word
) -> None:
    async def look_once(settings: Settings, names: tuple[str, ...]) -> tuple[CheckStatus, ...]:
        assert isinstance(settings, Settings)
        assert names == ("web", "db")
        return see(*statuses)

    bootstrap.look_once = look_once
    result = await hostmend("check", "web", "db")
    assert result.code == code
    assert result.out.splitlines()[0] == word
    told = json.loads((await hostmend("check", "web", "db", "--json")).out)
    assert len(told["items"]) == len(statuses)


@pytest.mark.parametrize(
    "error", [NotFound("cannot find check x"), ConfigError("no such key", file="a.yml", line=1)]
)
async def test_what_cannot_be_looked_at_is_unknown(bootstrap, hostmend, error) -> None:
    async def look_once(_settings: Settings, _names: tuple[str, ...]) -> tuple[CheckStatus, ...]:
        raise error

    bootstrap.look_once = look_once
    result = await hostmend("check", "x")
    assert result.code == 3
    assert str(error) in result.err


async def test_a_look_that_broke_says_so(bootstrap, hostmend) -> None:
    broken = replace(see(Status.UNKNOWN)[0], findings=(), broken="it took longer than 10 s")

    async def look_once(_settings: Settings, _names: tuple[str, ...]) -> tuple[CheckStatus, ...]:
        return (broken,)

    bootstrap.look_once = look_once
    result = await hostmend("check")
    assert result.code == 3
    assert "it took longer than 10 s" in result.out


async def test_wrong_usage_of_check_is_unknown_and_not_critical(hostmend) -> None:
    assert (await hostmend("check", "--nothing")).code == 3


async def test_an_agent_that_cannot_start_says_why(bootstrap, hostmend) -> None:
    def open_agent(_settings: Settings) -> Any:
        raise Unavailable("cannot open the state: another agent has it")

    bootstrap.open_agent = open_agent
    result = await hostmend("run")
    assert result.code == 1
    assert result.err.endswith("hostmend: cannot open the state: another agent has it\n")


async def test_an_agent_whose_configuration_cannot_be_used_is_told_apart(
    bootstrap, hostmend
) -> None:
    def open_agent(_settings: Settings) -> Any:
        raise ConfigError("no such key", file="a.yml", line=1)

    bootstrap.open_agent = open_agent
    result = await hostmend("run")
    assert result.code == 2
    assert result.err.endswith("hostmend: a.yml:1: no such key\n")


async def test_config_is_mounted_with_its_own_exit_codes(bootstrap, hostmend, places) -> None:
    from agent.remedies.catalog import Catalog

    bootstrap.find_remedies = lambda _settings: Catalog()
    assert (await hostmend("config", "validate")).code == 0
    (places / "hostmend.yml").write_text("version: 1\ncheks: {}\n")
    refused = await hostmend("config", "validate")
    assert refused.code == 2
    assert "cheks" in refused.err
    assert "validate" in (await hostmend("config", "--help")).out
    assert (await hostmend("config", "nothing")).code == 2
