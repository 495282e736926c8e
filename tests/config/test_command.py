"""`hostmend config`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from agent.checks.check import CheckType
from agent.errors import RemedyError
from agent.remedies.catalog import Catalog
from api.cli.config import make_app

Run = Callable[..., Result]
Write = Callable[..., Path]


@pytest.fixture
def run(
    types: Mapping[str, CheckType],
    catalog: Catalog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    monkeypatch.setenv("HOSTMEND_CONFIG", str(tmp_path / "hostmend.yml"))
    # As in the whole command, where the group stands beside others.
    app = typer.Typer()
    app.add_typer(make_app(find_remedies=lambda _settings: catalog, types=types))
    return lambda *words: CliRunner().invoke(app, ["config", *map(str, words)])


GOOD = "checks: {web: {type: unit, unit: nginx.service}}\nroutes: {ops: {url: 'json://x:pw@y.example'}}\n"
BAD = "policy: {slots: 0}\nchecks:\n  web: {type: unti}\n"


def test_validate_says_what_there_is(run: Run, write: Write) -> None:
    write(GOOD)
    result = run("validate")
    assert (result.exit_code, result.output) == (0, "ok: 1 checks, 1 routes\n")


def test_validate_says_all_that_is_wrong(run: Run, write: Write) -> None:
    path = write(BAD)
    result = run("validate")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"{path}:1: policy.slots: must be greater than or equal to 1",
        f"{path}:3: checks.web.type: there is no type of check `unti`; did you mean `unit`?",
    ]


def test_a_remedy_that_cannot_be_used_is_a_warning(
    catalog: Catalog,
    types: Mapping[str, CheckType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Write,
) -> None:
    path = write("checks: {web: {type: unit, unit: a.service, ladder: [{remedy: mend}]}}\n")
    monkeypatch.setenv("HOSTMEND_CONFIG", str(path))
    broken = replace(
        catalog,
        problems=(RemedyError("cannot use remedy mend: it is odd"),),
        broken=frozenset({"mend"}),
    )
    app = typer.Typer()
    app.add_typer(make_app(find_remedies=lambda _settings: broken, types=types))
    result = CliRunner().invoke(app, ["config", "validate"])
    assert (result.exit_code, result.stdout) == (0, "ok: 1 checks, 0 routes\n")
    assert result.stderr == "warning: cannot use remedy mend: it is odd\n"


def test_validate_takes_another_file(run: Run, write: Write, tmp_path: Path) -> None:
    write(BAD)
    other = tmp_path / "other/new.yml"
    other.parent.mkdir()
    other.write_text(GOOD)
    assert run("validate", other).exit_code == 0
    result = run("validate", tmp_path / "none.yml")
    assert (result.exit_code, result.stderr) == (
        2,
        f"{tmp_path}/none.yml: cannot read it: no such file\n",
    )


def test_validate_without_a_file_says_what_that_means(run: Run, tmp_path: Path) -> None:
    result = run("validate")
    assert (result.exit_code, result.output) == (
        0,
        f"ok: there is no {tmp_path}/hostmend.yml; hostmend only reports\n",
    )


def test_validate_as_json(run: Run, write: Write) -> None:
    path = write(GOOD)
    assert json.loads(run("validate", "--json").stdout) == {
        "ok": True,
        "files": [str(path)],
        "checks": 1,
        "routes": 1,
        "errors": [],
        "warnings": [],
    }
    write(BAD)
    result = run("validate", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["errors"][0] == {
        "file": str(path),
        "line": 1,
        "key": "policy.slots",
        "message": "must be greater than or equal to 1",
    }


def test_show_prints_what_is_in_effect_without_secrets(run: Run, write: Write) -> None:
    write(GOOD)
    result = run("show")
    assert result.exit_code == 0
    assert "runs_per_hour: 6" in result.stdout
    assert "url: json://" in result.stdout
    assert "pw" not in result.stdout
    assert json.loads(run("show", "--json").stdout)["checks"]["web"]["unit"] == "nginx.service"


def test_show_of_a_bad_configuration_says_what_is_wrong(run: Run, write: Write) -> None:
    write(BAD)
    result = run("show")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "policy.slots" in result.stderr


def test_schema_names_the_types_and_the_remedies(run: Run) -> None:
    schema = json.loads(run("schema").stdout)
    assert "UnitOptions" in schema["$defs"]
    assert schema["$defs"]["StepOptions"]["properties"]["remedy"]["enum"] == [
        "grow-volume",
        "restart-service",
    ]


@pytest.mark.parametrize("command", ["validate", "show", "schema"])
def test_a_bad_environment_is_told(run: Run, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTMEND_LISTEN", "foo")
    result = run(command)
    assert result.exit_code == 2
    assert result.stderr.startswith("HOSTMEND_LISTEN: cannot use it")
