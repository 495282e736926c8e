"""`hostmend playbook`: a first draft, and what is wrong with a remedy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from agent.authors import lint
from agent.authors.rules import RULES
from agent.remedies.catalog import Catalog

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def without_ansible_lint(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on most hosts."""
    monkeypatch.setattr(lint, "find_ansible_lint", lambda: None)


async def test_a_new_remedy_is_on_offer_and_nothing_is_wrong_with_it(hostmend, tmp_path) -> None:
    written = await hostmend("playbook", "new", "mend-it")
    assert written.code == 0
    path = tmp_path / "playbooks" / "mend-it"
    assert f"hostmend playbook lint {path}" in written.out
    catalog = Catalog.load([tmp_path / "playbooks"])
    assert catalog.problems == ()
    assert list(catalog.remedies) == ["mend-it"]
    assert {file.name for file in path.glob("test/*")} == {
        "prepare.yml", "break.yml", "verify.yml", "options.yml", "hostmend.yml",
    }  # fmt: skip
    assert not any("NEW-REMEDY" in file.read_text() for file in path.rglob("*.yml"))
    # With ansible-lint, at its production profile.
    linted = await hostmend("playbook", "lint")
    assert (linted.code, linted.err) == (0, "")
    assert linted.out == "1 remedy: nothing to mend\n"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Mend", "lower case letters"),
        ("../mend", "lower case letters"),
        ("faults", "directory beside the remedies"),
        ("taken", "is there already"),
    ],
)
async def test_a_name_that_cannot_be_is_refused_and_nothing_written(
    hostmend, tmp_path, name, why
) -> None:
    (tmp_path / "own" / "taken").mkdir(parents=True)
    written = await hostmend("playbook", "new", name, "--dir", str(tmp_path / "own"))
    assert written.code == 1
    assert why in written.err
    assert [entry.name for entry in (tmp_path / "own").iterdir()] == ["taken"]
    assert list((tmp_path / "own" / "taken").iterdir()) == []


async def test_what_is_wrong_is_told_with_file_line_and_rule(
    hostmend, tmp_path, monkeypatch, without_ansible_lint
) -> None:
    await hostmend("playbook", "new", "mend-it", "--dir", str(tmp_path))
    page = tmp_path / "mend-it" / "playbook.yml"
    page.write_text(page.read_text().replace("- name: Put the file back", "- name: Put {{ path }}"))
    monkeypatch.chdir(tmp_path)
    told = await hostmend("playbook", "lint", "mend-it")
    assert told.code == 1
    line = page.read_text().splitlines().index("    - name: Put {{ path }}") + 1
    assert f"mend-it/playbook.yml:{line}: name-template: " in told.out
    assert told.out.endswith("1 remedy: 1 to mend\n")
    assert "ansible-lint is not installed: only hostmend's own rules were asked" in told.err

    [item] = json.loads((await hostmend("playbook", "lint", "mend-it", "--json")).out)["items"]
    assert (item["file"], item["line"], item["rule"]) == (str(page), line, "name-template")


async def test_a_path_that_is_no_remedy_is_refused(hostmend, tmp_path) -> None:
    told = await hostmend("playbook", "lint", str(tmp_path / "nowhere"))
    assert told.code == 1
    assert "cannot find a remedy at" in told.err


def test_each_rule_stands_in_the_documentation() -> None:
    text = (DOCS / "writing-remedies.md").read_text().partition("## Rules")[2]
    described = set(re.findall(r"^\| `([a-z-]+)` \|", text, flags=re.MULTILINE))
    assert described == {*RULES, "argv", "description", "permissions"}
