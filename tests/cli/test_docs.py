"""The documentation and the command know the same commands, routes and exit codes."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main

from api.app import LONGEST_BODY, ROUTES
from api.cli.main import COMMANDS, GROUPS
from api.cli.runs import EXIT_OF_OUTCOME

DOCS = Path(__file__).parents[2] / "docs"
#: Groups that are made elsewhere.
DEMO = {"demo", "demo break"}
CONFIG = {"config validate", "config show", "config schema"}


def read_commands(text: str) -> list[str]:
    return re.findall(r"^### `hostmend ([a-z -]+)`$", text, flags=re.MULTILINE)


def test_each_command_stands_in_the_documentation_and_the_other_way_round() -> None:
    described = read_commands((DOCS / "cli.md").read_text())
    known = {
        *COMMANDS,
        *DEMO,
        *CONFIG,
        *(f"{g} {verb}" for g, (_, verbs) in GROUPS.items() for verb in verbs),
    }
    assert set(described) == known
    assert len(described) == len(known)


async def test_each_command_of_config_stands_in_the_documentation() -> None:
    from agent.remedies.catalog import Catalog
    from api.cli.config import make_app

    group = typer.main.get_command(make_app(find_remedies=lambda _settings: Catalog()))
    assert {f"config {name}" for name in group.commands} == CONFIG


async def test_each_command_explains_itself(hostmend) -> None:
    groups = [(group, verb) for group, (_, verbs) in GROUPS.items() for verb in verbs]
    for words in [(), *((name,) for name in COMMANDS), *groups]:
        result = await hostmend(*words, "--help")
        assert result.code == 0, words
        assert result.out.startswith(f"Usage: hostmend {' '.join(words)}".rstrip()), words
        assert "Exit codes" in (await hostmend("--help")).out


def test_each_exit_code_of_a_run_stands_in_the_documentation() -> None:
    section = (DOCS / "cli.md").read_text().partition("### `hostmend remedy run`")[2]
    table = section.partition("###")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, flags=re.MULTILINE)} == set(
        EXIT_OF_OUTCOME.values()
    )


def test_each_path_in_the_documentation_exists() -> None:
    text = (DOCS / "api.md").read_text()
    patterns = [re.sub(r"\{\w+\}", "[^/]+", route.path) for route in ROUTES]
    paths = {match.rstrip(".") for match in re.findall(r"(?:/v1|/healthz|/readyz)[\w/-]*", text)}
    assert paths
    for path in paths:
        assert any(re.fullmatch(pattern, path) for pattern in patterns), path
    assert f"{LONGEST_BODY // 1024} KiB" in text
