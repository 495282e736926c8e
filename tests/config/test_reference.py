"""docs/configuration.md, docs/checks.md and the program say the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pydantic import BaseModel

from agent.checks import CHECKS
from agent.checks.check import CheckOptions, StepOptions
from agent.config import (
    Config,
    MaintenanceOptions,
    PolicyOptions,
    RouteOptions,
    config_schema,
    describe_config,
    load_config,
)
from agent.config.load import TOP_LEVEL
from agent.core.model import Reason
from agent.remedies.catalog import SHIPPED, Catalog
from agent.settings import Settings
from api.cli.config import make_app

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "configuration.md").read_text()
CHECKS_PAGE = (DOCS / "checks.md").read_text()


def sections(page: str = PAGE) -> Mapping[str, str]:
    parts = re.split(r"^##+ (.+)$", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def table(section: str, first: str, page: str = PAGE) -> Mapping[str, tuple[str, ...]]:
    """The table of a section whose first column is `first`: its first cells, without backticks."""
    rows: dict[str, tuple[str, ...]] = {}
    within = False
    for line in sections(page)[section].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            within = False
        elif cells[0] == first:
            within = True
        elif within and not cells[0].startswith("---"):
            rows[cells[0].strip("`")] = tuple(cell.strip("`") for cell in cells[1:])
    return rows


def keys(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


@pytest.fixture
def shown(load: Callable[..., Config]) -> Mapping[str, object]:
    return describe_config(load("checks: {data: {type: volume, path: /data}}"))


def written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_every_key_of_the_top_level_is_there_and_no_other() -> None:
    assert set(table("Top level", "key")) == set(TOP_LEVEL)


def test_every_key_of_policy_is_there_with_its_default_and_no_other(
    shown: Mapping[str, Mapping[str, object]],
) -> None:
    defaults: dict[str, str] = {}
    for key, value in shown["policy"].items():
        if isinstance(value, Mapping):
            defaults |= {f"{key}.{below}": written(each) for below, each in value.items()}
        else:
            defaults[key] = written(value)
    assert {key: cells[0] for key, cells in table("Policy", "key").items()} == defaults
    assert {key.partition(".")[0] for key in defaults} == keys(PolicyOptions)


def test_every_key_of_checks_is_there_with_its_default_and_no_other(
    shown: Mapping[str, Mapping[str, Mapping[str, object]]],
) -> None:
    rows = table("Checks", "key")
    assert set(rows) == keys(CheckOptions)
    check = shown["checks"]["data"]
    for key, cells in rows.items():
        if key not in ("type", "mode", "ladder"):
            assert cells[0] == written(check[key]), key


def test_every_key_of_a_step_is_there_and_no_other() -> None:
    assert set(table("Ladders", "key")) == keys(StepOptions)


def test_every_key_of_routes_is_there_and_no_other(load: Callable[..., Config]) -> None:
    rows = table("Routes", "key")
    assert set(rows) == keys(RouteOptions)
    (route,) = load("routes: {r: {url: 'json://x'}}").policy.routes
    assert rows["reasons"][0] == f"[{', '.join(route.reasons)}]"
    assert rows["severity"][0] == route.severity
    assert set(table("Routes", "reason")) == set(Reason)


def test_every_key_of_maintenance_is_there_with_its_default_and_no_other(
    load: Callable[..., Config],
) -> None:
    rows = table("Maintenance", "key")
    assert set(rows) == keys(MaintenanceOptions)
    shown = describe_config(load("maintenance: {x: {at: 00:00, for: 1h, checks: ['*']}}"))
    for key, value in shown["maintenance"]["x"].items():
        if key not in ("at", "for", "checks", "timezone"):
            written_as = f"[{', '.join(value)}]" if isinstance(value, list) else written(value)
            assert rows[key][0] == written_as, key


@pytest.mark.parametrize("name", CHECKS)
def test_every_type_of_check_is_there_with_all_that_it_has_and_no_more(name: str) -> None:
    section, kind = f"`type: {name}`", CHECKS[name]
    own = keys(kind.model) - keys(CheckOptions)
    assert set(table(section, "key", CHECKS_PAGE)) == own
    assert set(table(section, "cause", CHECKS_PAGE)) == set(kind.causes)
    assert set(table(section, "measurement", CHECKS_PAGE)) == set(kind.measurements)
    for key, value in kind.defaults.items():
        if value != table("Checks", "key")[key][0]:
            assert f"`{key}: {value}`" in sections(CHECKS_PAGE)[section]


def test_every_described_type_exists_and_they_are_in_order() -> None:
    described = re.findall(r"^## `type: (\w+)`$", CHECKS_PAGE, flags=re.MULTILINE)
    assert described == sorted(CHECKS)


def test_every_variable_is_there_and_no_other() -> None:
    fields = Settings.model_fields.values()
    assert set(table("Environment", "variable")) == {str(f.validation_alias) for f in fields}


def test_every_command_is_there_and_no_other() -> None:
    app = make_app(find_remedies=lambda _settings: Catalog())
    commands = {callback.callback.__name__ for callback in app.registered_commands}  # type: ignore[union-attr]
    described = re.findall(r"^\| `hostmend config (\w+)", PAGE, flags=re.MULTILINE)
    assert set(described) == commands


@pytest.mark.parametrize("name", CHECKS)
def test_a_measurement_says_its_unit(name: str) -> None:
    units: tuple[str, ...] = (
        "percent",
        "bytes",
        "seconds",
        "count",
        "second",
        "code",
        "ratio",
        "ppm",
    )
    units += ("uid", "gid", "mode")
    assert [m for m in CHECKS[name].measurements if m.rpartition("_")[2] not in units] == []


def test_the_examples_are_what_they_say(tmp_path: Path) -> None:
    catalog = Catalog.load([SHIPPED])
    examples = re.findall(
        r"^```yaml\n(.*?)^```", PAGE + CHECKS_PAGE, flags=re.MULTILINE | re.DOTALL
    )
    assert examples
    for example in examples:
        path = tmp_path / "hostmend.yml"
        path.write_text(example)
        load_config(path, catalog=catalog)


def test_every_key_of_every_type_is_described_for_editors() -> None:
    nameless = [
        f"{name}.{key}"
        for name, model in config_schema(CHECKS)["$defs"].items()
        for key, value in model.get("properties", {}).items()
        if not value.get("description") and "const" not in value
    ]
    assert nameless == []


def test_a_default_in_the_schema_is_as_a_configuration_writes_it() -> None:
    kinds = {"string": str, "integer": int, "number": int | float, "boolean": bool}
    wrong = [
        f"{name}.{key}: {value['default']!r}"
        for name, model in config_schema(CHECKS)["$defs"].items()
        for key, value in model.get("properties", {}).items()
        if value.get("default") is not None and value.get("type") in kinds
        if not isinstance(value["default"], kinds[value["type"]])
    ]
    assert wrong == []
