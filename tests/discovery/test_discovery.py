"""Proposals become a configuration, and are held against one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from agent.checks import CHECKS
from agent.checks.check import CheckType, Proposal
from agent.clock import Clock
from agent.config import Config, load_config
from agent.core.model import Mode
from agent.discovery import (
    Discovery,
    compare,
    find_free_file,
    find_proposals,
    write_checks,
    write_configuration,
    write_new_file,
)
from agent.errors import ConfigError
from agent.host.machine import Machine
from agent.remedies.catalog import SHIPPED, Catalog


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.load((SHIPPED,))


def service(name: str, unit: str) -> Proposal:
    options = {"type": "service", "unit": unit, "ladder": [{"remedy": "restart-service"}]}
    return Proposal(name=name, options=options, why=f"{unit} is enabled\nand runs")


def load(tmp_path: Path, text: str, catalog: Catalog) -> Config:
    path = tmp_path / "hostmend.yml"
    path.write_text(text)
    return load_config(path, catalog=catalog)


def discover(tmp_path: Path, text: str, catalog: Catalog, *proposals: Proposal) -> Discovery:
    return compare(proposals, load(tmp_path, text, catalog), catalog)


def test_the_file_that_is_written_loads_in_shadow_and_says_why(
    tmp_path: Path, catalog: Catalog
) -> None:
    found = (service("web", "nginx.service"), service("db", "mariadb.service"))
    text = write_configuration(found)
    config = load(tmp_path, text, catalog)
    assert config.policy.mode is Mode.SHADOW
    assert [name for name in config.checks if name not in config.defaults] == ["web", "db"]
    assert "  # nginx.service is enabled and runs\n  web:\n" in text
    assert discover(tmp_path, text, catalog, *found).new == ()


def test_a_host_with_nothing_has_a_file_that_loads(tmp_path: Path, catalog: Catalog) -> None:
    config = load(tmp_path, write_configuration(()), catalog)
    assert set(config.checks) == config.defaults


def test_what_is_configured_under_any_name_and_with_any_edits_is_known(
    tmp_path: Path, catalog: Catalog
) -> None:
    text = "checks: {mine: {type: service, unit: nginx.service, every: 3s, ladder: []}}"
    web, db = service("web", "nginx.service"), service("mine", "mariadb.service")
    found = discover(tmp_path, text, catalog, web, db)
    assert dict(found.known) == {"mine": web}
    assert found.new == (replace(db, name="mine-service"),)


def test_names_are_made_fit_and_unique(tmp_path: Path, catalog: Catalog) -> None:
    names = ["PostgreSQL@15-Main", "postgresql 15-main", "postgresql-15-main.", "", "--"]
    proposals = [service(name, f"u{n}.service") for n, name in enumerate(names)]
    found = discover(tmp_path, "", catalog, *proposals)
    assert [p.name for p in found.new] == [
        "postgresql-15-main",
        "postgresql-15-main-service",
        "postgresql-15-main-2",
        "check",
        "check-service",
    ]


def test_two_proposals_of_one_thing_are_one(tmp_path: Path, catalog: Catalog) -> None:
    found = discover(
        tmp_path, "", catalog, service("a", "nginx.service"), service("b", "nginx.service")
    )
    assert [p.name for p in found.new] == ["a"]


def test_a_proposal_that_a_configuration_would_refuse_is_a_trouble(
    tmp_path: Path, catalog: Catalog
) -> None:
    found = discover(tmp_path, "", catalog, service("bad", "nginx"), service("ok", "a.service"))
    assert [p.name for p in found.new] == ["ok"]
    assert found.troubles == (
        "cannot propose bad: 'nginx' does not end in a kind of unit that can be checked: "
        "write nginx.service",
    )


def proposing(*answers: Proposal | BaseException) -> CheckType:
    async def propose(_machine: Machine) -> tuple[Proposal, ...]:
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return tuple(a for a in answers if isinstance(a, Proposal))

    return replace(CHECKS["service"], propose=propose)


async def test_a_type_that_stumbles_does_not_hide_what_others_found() -> None:
    types = {
        "disk": replace(proposing(OSError("no such host")), name="disk"),
        "service": proposing(service("web", "nginx.service")),
    }
    found, troubles = await find_proposals(Machine(clock=Clock()), types)
    assert [p.name for p in found] == ["web"]
    assert troubles == ("cannot look around for disk: OSError: no such host",)


async def test_a_server_with_a_check_of_its_own_is_not_greeted_as_well() -> None:
    redis = Proposal(name="redis", options={"type": "redis", "unit": "redis.service"}, why="")
    greetings = [
        Proposal(name=name, options={"type": "tcp", "port": port, "protocol": name}, why="")
        for name, port in (("redis", 6379), ("smtp", 25))
    ]
    types = {
        "tcp": replace(proposing(*greetings), name="tcp"),
        "redis": replace(CHECKS["redis"], propose=proposing(redis).propose),
    }
    found, _ = await find_proposals(Machine(clock=Clock()), types)
    assert [(p.name, p.options["type"]) for p in found] == [("smtp", "tcp"), ("redis", "redis")]
    types["redis"] = replace(types["redis"], propose=proposing().propose)
    found, _ = await find_proposals(Machine(clock=Clock()), types)
    assert [p.name for p in found] == ["redis", "smtp"]


async def test_a_type_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_machine: Machine) -> tuple[Proposal, ...]:
        await asyncio.Event().wait()
        return ()

    monkeypatch.setattr("agent.discovery.PATIENCE", 0.01)
    types = {"service": replace(CHECKS["service"], propose=hang)}
    found, troubles = await find_proposals(Machine(clock=Clock()), types)
    assert found == ()
    assert troubles == ("cannot look around for service: it took longer than 0.01 s",)


def test_what_is_found_later_goes_to_a_file_of_its_own(tmp_path: Path, catalog: Catalog) -> None:
    main = tmp_path / "hostmend.yml"
    main.write_text(write_configuration((service("web", "nginx.service"),)))
    for name, number in (("db", 1), ("cache", 2)):
        path = find_free_file(main)
        assert path.name == ("init.yml" if number == 1 else "init-2.yml")
        write_new_file(path, write_checks((service(name, f"{name}.service"),)))
        assert path.stat().st_mode & 0o777 == 0o600
    config = load_config(main, catalog=catalog)
    assert list(config.checks) == ["web", "cache", "db", "self"]
    assert config.defaults == {"self"}


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "hostmend.yml"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="there is one already"):
        write_new_file(path, "another")
    assert path.read_text() == "mine"
