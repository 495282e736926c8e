"""What each shipped remedy has in `test/`: a host is broken, healed, and seen to be whole again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.authors.draft import write_draft
from agent.authors.trial import try_remedy
from agent.errors import RemedyError
from agent.lab import Lab, default_cache
from agent.remedies.catalog import SHIPPED

#: Seconds against hanging only.
PATIENCE = 180.0
#: Those that are tried for every change; the others take longer, a database's most of all.
QUICK = frozenset({"restart-service", "clean-disk"})
TESTS = [
    pytest.param(
        test.parent,
        id=test.parent.name,
        marks=[] if test.parent.name in QUICK else [pytest.mark.long],
    )
    for test in sorted(SHIPPED.glob("*/test"))
]


@pytest.mark.parametrize("remedy", TESTS)
def test_a_remedy_mends_what_its_own_test_breaks(lab: Lab, remedy: Path) -> None:
    try_remedy(lab, remedy, say=print)


def test_a_new_remedy_works(lab: Lab, tmp_path: Path) -> None:
    said: list[str] = []
    try_remedy(lab, write_draft("mend-it", tmp_path), say=said.append)
    assert [line.split(" (")[0].split(" after")[0] for line in said] == [
        "prepared: verify.yml passes",
        "broken: verify.yml fails",
        "the agent watches",
        "broken again, with the agent watching",
        "detected",
        "repaired, and proved by a look",
        "resolved",
        "verify.yml passes",
        "run a second time: it was there already",
        "the second run changed nothing",
    ]


@pytest.mark.parametrize(
    ("page", "old", "new", "why"),
    [
        pytest.param(
            "test/break.yml",
            "state: absent",
            "state: touch\n        mode: '0644'",
            "it proves nothing",
            id="nothing is broken",
        ),
        pytest.param(
            "playbook.yml",
            "        force: false\n",
            "        owner: nobody-of-that-name\n",
            "its run is failed: task 'Put the file back' failed",
            id="it fails",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "playbook.yml",
            "      register: file\n",
            "      register: file\n      changed_when: true\n",
            "the second run changed something: 'Put the file back'",
            id="it changes something each time",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "test/hostmend.yml",
            "path: /srv/mend-it/ready",
            "path: /srv/mend-it",
            "waited 10 s for the failure to be detected",
            id="nothing detects it",
            marks=pytest.mark.long,
        ),
    ],
)
def test_what_does_not_work_fails_its_test_and_says_why(
    lab: Lab, tmp_path: Path, page: str, old: str, new: str, why: str
) -> None:
    path = write_draft("mend-it", tmp_path)
    text = (path / page).read_text()
    assert old in text
    (path / page).write_text(text.replace(old, new))
    with pytest.raises(RemedyError, match="mend-it fails its test: ") as failure:
        try_remedy(lab, path, say=print, within=10 if "waited" in why else 120)
    assert why in str(failure.value)
    # Nothing of it is left for the next.
    assert lab.run(["systemctl", "is-active", "hostmend"], check=False).returncode != 0


@pytest.mark.long
def test_a_trial_that_is_interrupted_leaves_no_host(lab_tree: Path, tmp_path: Path) -> None:
    path = write_draft("mend-it", tmp_path)
    hosts = default_cache() / "hosts"
    argv = [sys.executable, "-m", "api.cli", "playbook", "test", str(path)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as trial:
        assert trial.stdout is not None
        assert "a host is up" in trial.stdout.readline()
        own = f"*-{trial.pid}-*"
        assert list(hosts.glob(own))
        trial.send_signal(signal.SIGINT)
        assert trial.wait(PATIENCE) == 130
    assert not list(hosts.glob(own))
