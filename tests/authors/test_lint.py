"""One bad playbook per rule, and what is said of it; and what looks like one and is none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.authors import lint
from agent.authors.lint import find_drafts, lint_remedy
from agent.authors.rules import RULES
from agent.errors import RemedyError
from agent.remedies.catalog import SHIPPED

HERE = Path(__file__).parent
BAD = sorted((HERE / "bad").glob("*.yml"))
GOOD = sorted((HERE / "good").glob("*.yml"))
ROOT = HERE.parents[1]

DESCRIPTION = """\
summary: Mend it
risk: low
changes: files
timeout: 60s
options:
  path: {type: path, required: true, description: Where.}
"""


def write(root: Path, name: str, playbook: str, description: str = DESCRIPTION) -> Path:
    """A remedy that is whole but for what is given."""
    path = root / name
    (path / "test").mkdir(parents=True)
    (path / "remedy.yml").write_text(description)
    (path / "playbook.yml").write_text(playbook)
    for test in ("break", "verify", "options"):
        (path / "test" / f"{test}.yml").write_text("---\n")
    for entry in (root, path, *path.rglob("*")):
        entry.chmod(0o755 if entry.is_dir() else 0o644)
    return path


def write_page(root: Path, page: Path) -> Path:
    """The page's first line says what is expected, and what its remedy.yml says differently."""
    head = page.read_text().splitlines()[0]
    description = DESCRIPTION
    for key in ("changes", "risk"):
        if f"{key}: " in head:
            said = head.partition(f"{key}: ")[2].partition(";")[0]
            description = "\n".join(
                f"{key}: {said}" if line.startswith(f"{key}:") else line
                for line in description.splitlines()
            )
    return write(root, page.stem, page.read_text(), description)


def expected(page: Path) -> str:
    return page.read_text().splitlines()[0].removeprefix("# expect: ").partition(";")[0]


def told(path: Path) -> list[str]:
    return [f"{problem.line} {problem.rule}" for problem in lint_remedy(path)]


@pytest.mark.parametrize("page", BAD, ids=lambda page: page.stem)
def test_a_bad_playbook_is_one_problem_with_its_line(tmp_path: Path, page: Path) -> None:
    assert told(write_page(tmp_path, page)) == [expected(page)]


@pytest.mark.parametrize("page", GOOD, ids=lambda page: page.stem)
def test_a_good_playbook_is_no_problem(tmp_path: Path, page: Path) -> None:
    assert told(write_page(tmp_path, page)) == []


def test_each_rule_has_a_bad_playbook() -> None:
    # argv is found by the function for shells.
    assert {expected(page).split()[1] for page in BAD} == {*RULES, "argv"}


def test_the_shipped_remedies_and_faults_have_no_problem() -> None:
    drafts = find_drafts([SHIPPED])
    assert {"restart-service", "kill-service"} <= {draft.name for draft in drafts}
    found = [p for draft in drafts for p in lint_remedy(draft) if p.rule != "permissions"]
    assert found == []


def test_ansible_lint_finds_the_same_by_the_same_rules(tmp_path: Path) -> None:
    for page in BAD:
        write_page(tmp_path, page)
    program = lint.find_ansible_lint()
    assert program is not None
    config = (ROOT / ".ansible-lint").read_text().replace("- agent/", f"- {ROOT}/agent/")
    (tmp_path / ".ansible-lint").write_text(config)
    done = subprocess.run(
        [program, "-f", "pep8", "--nocolor", "-q", *(f"{p.stem}/playbook.yml" for p in BAD)],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    for page in BAD:
        line, rule = expected(page).split()
        said = f"{page.stem}/playbook.yml:{line}: hostmend[{rule}]"
        assert said in done.stdout, (said, done.stdout)


def test_what_ansible_lint_finds_is_told_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "mend", "- hosts: localhost\n  connection: local\n  tasks: []\n")
    program = lint.find_ansible_lint()
    assert program is not None
    found = lint.run_ansible_lint(program, [path])
    assert [(p.file, p.line, p.rule) for p in found if p.rule.startswith("name")] == [
        (path / "playbook.yml", 1, "name[play]")
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("risk: low", "risk: huge", "1 description risk"),
        ("timeout", "handles: {disc: [full]}\ntimeout", "4 description there is no check type"),
        ("timeout", "handles: {disk: [fat]}\ntimeout", "4 description a `disk` check has no cause"),
        (", description: Where.", "", "6 description option `path` has no description"),
        ("options:", "options:\n  more: {description: More.}", "6 description option `more` is"),
    ],
)
def test_a_bad_description_is_told(tmp_path: Path, old: str, new: str, said: str) -> None:
    page = (HERE / "good" / "a-last-word.yml").read_text()
    [problem] = lint_remedy(write(tmp_path, "mend", page, DESCRIPTION.replace(old, new)))
    assert f"{problem.line} {problem.rule} {problem.text}".startswith(said)
    assert problem.file == tmp_path / "mend" / "remedy.yml"


def test_a_cause_that_a_configuration_names_is_no_problem(tmp_path: Path) -> None:
    page = (HERE / "good" / "a-last-word.yml").read_text()
    description = DESCRIPTION.replace("timeout", "handles: {http: [sold-out]}\ntimeout")
    assert lint_remedy(write(tmp_path, "mend", page, description)) == []


def test_a_remedy_without_a_test_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, "mend", (HERE / "good" / "a-last-word.yml").read_text())
    (path / "test" / "verify.yml").unlink()
    [problem] = lint_remedy(path)
    assert "no test/verify.yml" in problem.text


def test_what_others_may_write_to_is_told_once(tmp_path: Path) -> None:
    path = write(tmp_path, "mend", (HERE / "good" / "a-last-word.yml").read_text())
    for entry in path.rglob("*.yml"):
        entry.chmod(0o664)
    [problem] = lint_remedy(path)
    assert problem.rule == "permissions"
    assert "chmod go-w (and 4 more)" in problem.text


def test_a_link_that_leads_outside_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, "mend", (HERE / "good" / "a-last-word.yml").read_text())
    (path / "files").symlink_to("/etc/passwd")
    [problem] = lint_remedy(path)
    assert "leads outside" in problem.text


def test_a_playbook_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    [problem] = lint_remedy(write(tmp_path, "mend", "- name: [\n"))
    assert "playbook.yml" in problem.text


def test_tasks_of_an_included_file_count_in_their_place(tmp_path: Path) -> None:
    page = (HERE / "good" / "a-last-word.yml").read_text()
    page += "    - name: Go on\n      ansible.builtin.include_tasks: more.yml\n"
    path = write(tmp_path, "mend", page)
    (path / "more.yml").write_text("- name: See {{ path }}\n  ansible.builtin.meta: noop\n")
    (path / "more.yml").chmod(0o644)
    [problem] = lint_remedy(path)
    assert (problem.file.name, problem.line, problem.rule) == ("more.yml", 1, "name-template")


def test_a_directory_of_remedies_means_all_of_them(tmp_path: Path) -> None:
    page = (HERE / "good" / "a-last-word.yml").read_text()
    for name in ("b", "a"):
        write(tmp_path, name, page)
    (tmp_path / "_shared").mkdir()
    names: Sequence[str] = [draft.name for draft in find_drafts([tmp_path])]
    assert names == ["a", "b"]
    with pytest.raises(RemedyError, match="cannot find a remedy at"):
        find_drafts([tmp_path / "_shared"])
