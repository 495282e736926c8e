"""What hostmend looks at without being told to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.checks import CHECKS
from agent.config import describe_config, load_config, load_config_errors
from agent.config.defaults import ALWAYS, DEFAULTS, choose_defaults
from agent.core.model import Mode
from agent.remedies.catalog import SHIPPED, Catalog

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.load((SHIPPED,))


@pytest.fixture(autouse=True)
def booted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose PID 1 is systemd, whatever this machine has."""
    monkeypatch.setattr("agent.config.load.has_systemd", lambda: True)


def load(tmp_path: Path, text: str | None, catalog: Catalog):  # type: ignore[no-untyped-def]
    path = tmp_path / "hostmend.yml"
    if text is not None:
        path.write_text(text)
    return load_config(path, catalog=catalog)


@pytest.mark.parametrize("text", [None, "", "routes: {}", "checks: {}", "checks:\n"])
def test_while_nothing_is_named_every_default_is_looked_at_and_nothing_is_repaired(
    tmp_path: Path, catalog: Catalog, text: str | None
) -> None:
    config = load(tmp_path, text, catalog)
    assert set(config.checks) == set(config.defaults) == set(DEFAULTS)
    assert {step for check in config.checks.values() for step in check.policy.ladder} == set()
    assert config.policy.mode is (Mode.OFF if text is None else Mode.AUTO)


def test_checks_that_are_named_take_the_place_of_all_but_the_agent_itself(
    tmp_path: Path, catalog: Catalog
) -> None:
    config = load(tmp_path, "checks: {web: {type: service, unit: a.service}}", catalog)
    assert list(config.checks) == ["web", "self"]
    assert config.defaults == ALWAYS


def test_defaults_stand_beside_checks_where_that_is_said_and_give_way_to_a_name(
    tmp_path: Path, catalog: Catalog
) -> None:
    text = "defaults: true\nchecks: {memory: {type: memory, every: 1h}, a: {type: cpu}}"
    config = load(tmp_path, text, catalog)
    assert set(config.checks) == {*DEFAULTS, "a"}
    assert config.checks["memory"].policy.every == 3600.0
    assert config.defaults == set(DEFAULTS) - {"memory"}


def test_without_defaults_there_are_none(tmp_path: Path, catalog: Catalog) -> None:
    assert load(tmp_path, "defaults: false", catalog).checks == {}
    text = "defaults: false\nchecks: {a: {type: cpu}}"
    assert set(load(tmp_path, text, catalog).checks) == {"a"}


def test_who_looks_at_the_agent_by_another_name_has_one_such_check(
    tmp_path: Path, catalog: Catalog
) -> None:
    config = load(tmp_path, "checks: {watcher: {type: self, lasting: 5m}}", catalog)
    assert set(config.checks) == {"watcher"}


@pytest.mark.parametrize("value", ["yes", "1", '"true"', "[]"])
def test_defaults_are_true_or_false(tmp_path: Path, catalog: Catalog, value: str) -> None:
    path = tmp_path / "hostmend.yml"
    path.write_text(f"version: 1\ndefaults: {value}\n")
    (error,) = load_config_errors(path, catalog=catalog)
    assert (error.line, error.key) == (2, "defaults")
    assert "true or false" in error.message


def test_what_is_in_effect_is_shown(tmp_path: Path, catalog: Catalog) -> None:
    shown = describe_config(load(tmp_path, None, catalog))["checks"]
    assert set(shown) == set(DEFAULTS)
    assert {name: check["type"] for name, check in shown.items()} == {
        name: check["type"] for name, check in DEFAULTS.items()
    }
    assert all(check["ladder"] == [] for check in shown.values())


def test_a_program_without_a_type_has_no_such_default() -> None:
    types = {"disk": 1, "memory": 1}
    assert set(choose_defaults(None, {}, types, systemd=True)) == {"disks", "memory"}


def test_without_systemd_nothing_is_looked_at_that_is_systemds(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.config.load.has_systemd", lambda: False)
    config = load(tmp_path, None, catalog)
    assert set(config.checks) == set(DEFAULTS) - {"failed-units", "journal"}


def test_the_page_has_every_default_and_no_other() -> None:
    section = PAGE.partition("## Defaults")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `([\w-]+)` \| `\{(.*?)\}` \|", section, flags=re.MULTILINE))
    assert list(rows) == sorted(DEFAULTS)
    for name, written in rows.items():
        assert written.startswith(f"type: {DEFAULTS[name]['type']}")
        assert DEFAULTS[name]["type"] in CHECKS
