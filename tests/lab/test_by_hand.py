"""Every shipped remedy by hand, with plain ansible-playbook, as the head of its playbook says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lab_runs import PLAYBOOK, find_playbooks

from agent.lab import Lab
from agent.remedies.catalog import SHIPPED, Catalog

REMEDIES = Catalog.load([SHIPPED]).remedies
#: Seconds against hanging only.
PATIENCE = 600.0


@pytest.mark.parametrize("name", REMEDIES)
def test_a_playbook_says_how_it_is_run_by_hand(name: str) -> None:
    """With all that is required, and with nothing that is no option."""
    remedy = REMEDIES[name]
    head = re.match(r"(?:#.*\n)+", remedy.playbook.read_text())
    assert head is not None
    said = head[0].replace("\n#", " ").partition("By hand:")[2]
    assert "ansible-playbook playbook.yml" in said
    given = set(re.findall(r"-e ([a-z_]+)=", said)) | set(re.findall(r'"([a-z_]+)":', said))
    assert given <= remedy.options.keys()
    assert {option for option, known in remedy.options.items() if known.required} <= given


@pytest.mark.long
@pytest.mark.parametrize("name", REMEDIES)
def test_a_remedy_works_by_hand(lab: Lab, name: str) -> None:
    """Without hostmend, without an inventory, and with the options of its test."""
    here = f"{find_playbooks(lab)}/{name}"

    def play(*words: str, check: bool = True) -> int:
        return lab.run([PLAYBOOK, *words], check=check, timeout=PATIENCE).returncode

    play(f"{here}/test/break.yml")
    assert play(f"{here}/test/verify.yml", check=False) != 0, "nothing was broken"
    play(f"{here}/playbook.yml", "-e", f"@{here}/test/options.yml")
    play(f"{here}/test/verify.yml")


def test_each_remedy_has_a_test_that_this_is_made_of() -> None:
    assert {Path(path).parent.name for path in SHIPPED.glob("*/test")} == REMEDIES.keys()
