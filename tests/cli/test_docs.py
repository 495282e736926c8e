"""The documentation and the command know the same commands, routes and exit codes."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import typer.main

from agent.agent import ActionOutcome, Role
from agent.settings import Settings
from agent.store.state import KEPT_ACTIONS
from agent.tokens import AT_MOST
from api.app import LONGEST_BODY, ROUTES
from api.cli.main import COMMANDS, GROUPS
from api.cli.runs import EXIT_OF_OUTCOME
from api.limits import AT_ONCE, Rates
from api.routes.events import KEEP_ALIVE_SECONDS
from api.schemas.silences import LONGEST_WINDOW
from api.server import REQUEST_SECONDS
from api.sockets import UNREAD_SECONDS, TcpListener

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


@pytest.mark.parametrize("page", ["api.md", "access.md"])
def test_each_path_in_the_documentation_exists(page: str) -> None:
    text = (DOCS / page).read_text()
    patterns = [re.sub(r"\{\w+\}", "[^/]+", route.path) for route in ROUTES]
    found = re.findall(r"(?:/v1|/healthz|/readyz)[\w/{}-]*", text)
    paths = {re.sub(r"\{\w+\}", "x1", match.rstrip(".")) for match in found}
    assert paths
    for path in paths:
        assert any(re.fullmatch(pattern, path) for pattern in patterns), path
    assert f"{LONGEST_BODY // 1024} KiB" in text


def test_each_limit_stands_in_the_documentation() -> None:
    text = (DOCS / "access.md").read_text()
    rates = Rates()
    at_most, each = (
        inspect.signature(TcpListener).parameters[name].default for name in ("at_most", "each")
    )
    for said in (
        f"{rates.requests.burst:g} at once, {rates.requests.per_second:g} a second",
        f"{rates.failures.burst:g} at once, one in {1 / rates.failures.per_second:g} seconds",
        f"{at_most}, and {each} of one address",
        f"{REQUEST_SECONDS:g} seconds",
        f"of one token | {AT_ONCE} |",
        f"is not read | {UNREAD_SECONDS:g} seconds",
        f"{LONGEST_BODY // 1024} KiB",
        f"{KEPT_ACTIONS:,} are kept",
        f"There can be {AT_MOST} that live",
        f"within {KEEP_ALIVE_SECONDS:g} seconds",
    ):
        assert said in text, said
    assert LONGEST_WINDOW == 7 * 86400
    assert "A window lasts a week at most" in text


def test_each_role_and_each_variable_stands_in_the_documentation() -> None:
    text = (DOCS / "access.md").read_text()
    assert re.findall(r"^\| `(\w+)` \| (?:report on|see|all)", text, flags=re.MULTILINE) == list(
        Role
    )
    named = {str(part.validation_alias) for part in Settings.model_fields.values()}
    assert set(re.findall(r"HOSTMEND_\w+", text)) <= named
    assert {name for name in named if re.search("TLS|PLAIN|LISTEN", name)} <= set(
        re.findall(r"HOSTMEND_\w+", text)
    )
    for outcome in ActionOutcome:
        assert f"`{outcome}`" in text
