"""What each shipped remedy has in `test/`: it breaks a host, and says when that is whole again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_runs import PLAYBOOK, RUNTIME, find_playbooks, mend
from ruamel.yaml import YAML

from agent.lab import Lab
from agent.remedies.catalog import SHIPPED, Catalog

CATALOG = Catalog.load([SHIPPED])
#: Remedies for these take a server up and down several times.
SLOW = frozenset({"mariadb", "postgres", "redis"})
TESTS = [
    pytest.param(
        test,
        id=test.parent.name,
        marks=[pytest.mark.long] if SLOW & CATALOG.get(test.parent.name).handles.keys() else [],
    )
    for test in sorted(SHIPPED.glob("*/test"))
]


@pytest.fixture
def host(lab: Lab) -> Iterator[Lab]:
    yield lab
    lab.run(["rm", "-rf", RUNTIME])


def play(lab: Lab, path: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    return lab.run([PLAYBOOK, "-i", "localhost,", path], check=check, timeout=300)


@pytest.mark.parametrize("test", TESTS)
def test_a_remedy_mends_what_its_own_test_breaks(host: Lab, test: Path) -> None:
    remedy = test.parent.name
    here = f"{find_playbooks(host)}/{remedy}/test"
    play(host, f"{here}/break.yml")
    assert play(host, f"{here}/verify.yml", check=False).returncode != 0, "nothing was broken"
    options = YAML(typ="safe").load(test / "options.yml")
    outcome, detail, _ = mend(host, remedy, **options)
    assert outcome == "ok", detail
    play(host, f"{here}/verify.yml")
    # Whoever runs it twice does no harm.
    outcome, detail, _ = mend(host, remedy, **options)
    assert outcome == "ok", detail
    play(host, f"{here}/verify.yml")
