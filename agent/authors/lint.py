"""All that is wrong with a remedy, by hostmend's own rules and those of ansible-lint.

hostmend's rules need nothing but hostmend, so they work on any host that runs remedies. The gate of
hostmend itself has ansible-lint call them (`ansible_lint_rules/`): one implementation, two ways.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from agent.authors.playbook import read_playbooks
from agent.authors.rules import RULES, Draft, Problem
from agent.checks import CHECKS
from agent.checks.check import CheckType
from agent.errors import RemedyError, Unavailable
from agent.remedies.catalog import Catalog, check_owner, walk_remedy
from agent.remedies.description import Remedy, read_description

#: Seconds for all of ansible-lint's work; it takes a few for each remedy.
_PATIENCE = 600.0
_TESTS = ("break.yml", "options.yml", "verify.yml")
#: A drill's fault has no test of its own: a drill is one. It has a way back instead.
_UNDO = "undo.yml"
_FAULTS = "faults"


def find_drafts(paths: Sequence[Path]) -> list[Path]:
    """The remedies that these paths mean: each is one, or a directory of several.

    Raises RemedyError for a path that is neither.
    """
    found: list[Path] = []
    for path in paths:
        if (path / "remedy.yml").is_file() or (path / "playbook.yml").is_file():
            found.append(path)
            continue
        below = [
            entry
            for entry in (*path.glob("*"), *path.glob(f"{_FAULTS}/*"))
            if entry.is_dir() and entry.name != _FAULTS and not entry.name.startswith((".", "_"))
        ]
        if not below:
            raise RemedyError(
                f"cannot find a remedy at {path}: one is a directory with remedy.yml "
                "and playbook.yml"
            )
        found.extend(sorted(below))
    return found


def lint_remedy(path: Path) -> list[Problem]:
    """What hostmend's rules find, in order of file and line."""
    path = path.absolute()
    found = list(_check_permissions(path))
    try:
        remedy = read_description(path.name, path, "")
        if not found:
            _refuse_broken(path)
        draft = Draft(remedy=remedy, pages=read_playbooks(path))
        found.extend(_check_description(remedy))
    except RemedyError as error:
        text = str(error).removeprefix(f"cannot use remedy {path.name}: ")
        found.append(_at_description(path, text.removeprefix(f"{path / 'remedy.yml'}: ")))
        return sorted(found)
    for rule in RULES.values():
        found.extend(rule(draft))
    texts = draft.pages.texts
    return sorted({p for p in found if not _is_excused(p, texts.get(p.file, ()))})


def _is_excused(problem: Problem, lines: Sequence[str]) -> bool:
    if not 1 <= problem.line <= len(lines):
        return False
    _, marked, rest = lines[problem.line - 1].partition("# noqa:")
    return bool(marked) and f"hostmend[{problem.rule}]" in rest


def _at_description(path: Path, text: str, key: str = "", rule: str = "description") -> Problem:
    file = path / "remedy.yml"
    line = 1
    if key:
        with suppress(OSError, UnicodeDecodeError):
            for number, written in enumerate(file.read_text().splitlines(), 1):
                if re.search(rf"(?:^|[\s{{,]){re.escape(key)}\s*:", written):
                    line = number
                    break
    return Problem(file=file, line=line, rule=rule, text=text)


def _check_permissions(path: Path) -> Iterator[Problem]:
    """One problem for all that others could write to: one command mends them together."""
    refused: list[tuple[Path, str]] = []
    for place in (path.parent, path, *walk_remedy(path)):
        try:
            check_owner(path.name, place, place.stat(), frozenset({0, os.geteuid()}))
        except OSError as error:
            refused.append((place, f"{place}: {error.strerror}"))
        except RemedyError as error:
            refused.append((place, str(error).removeprefix(f"cannot use remedy {path.name}: ")))
    if refused:
        place, text = refused[0]
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        yield Problem(file=place, line=1, rule="permissions", text=text + more)


def _refuse_broken(path: Path) -> None:
    """Raises RemedyError for what the catalogue refuses."""
    for problem in Catalog.load([path.parent], only=path.name).problems:
        raise problem


def _check_description(remedy: Remedy) -> Iterator[Problem]:
    path = remedy.path
    for kind, causes in remedy.handles.items():
        if kind not in CHECKS:
            known = ", ".join(CHECKS)
            yield _at_description(path, f"there is no check type `{kind}`; there are {known}", kind)
        elif not _names_own_causes(CHECKS[kind]):
            for cause in sorted(set(causes) - set(CHECKS[kind].causes)):
                known = ", ".join(CHECKS[kind].causes)
                yield _at_description(
                    path, f"a `{kind}` check has no cause `{cause}`; it has {known}", kind
                )
    written = _read_all(path)
    for name, option in remedy.options.items():
        if not option.description:
            yield _at_description(path, f"option `{name}` has no description", name)
        # What a drill's undo needs is handed to every fault.
        if not re.search(rf"\b{name}\b", written) and not _is_fault(path):
            yield _at_description(path, f"option `{name}` is used nowhere", name)
    wanted = (_UNDO,) if _is_fault(path) else tuple(f"test/{name}" for name in _TESTS)
    for name in wanted:
        if not (path / name).is_file():
            yield _at_description(path, f"there is no {name}: nobody can show that it works")


def _is_fault(path: Path) -> bool:
    return path.parent.name == _FAULTS


def _names_own_causes(kind: CheckType) -> bool:
    """Whether a check's configuration adds causes to those of its type."""
    (default,) = [field.default for field in fields(CheckType) if field.name == "own_causes"]
    return kind.own_causes is not default


def _read_all(path: Path) -> str:
    """All that a remedy does something with, as one text."""
    parts = []
    for file in walk_remedy(path):
        if file.suffix in (".yml", ".yaml", ".py", ".j2", ".sh") and file.name != "remedy.yml":
            with suppress(OSError, UnicodeDecodeError):
                parts.append(file.read_text())
    return "\n".join(parts)


def find_ansible_lint() -> str | None:
    """The command ansible-lint: beside this Python, or where PATH says; None if there is none."""
    beside = Path(sys.executable).parent / "ansible-lint"
    return str(beside) if beside.is_file() else shutil.which("ansible-lint")


def run_ansible_lint(program: str, remedies: Sequence[Path]) -> list[Problem]:
    """What ansible-lint's production profile finds in their playbooks and those of their tests.

    Raises Unavailable if it cannot be run.
    """
    here = Path(os.path.commonpath([path.absolute() for path in remedies]))
    # File by file: of directories it takes what git knows, and an operator's are in none.
    files = sorted(
        str(file.relative_to(here))
        for path in remedies
        for file in (*path.absolute().glob("*.yml"), *path.absolute().glob("test/*.yml"))
        if file.name != "remedy.yml"
    )
    argv = [program, "--offline", "--profile=production", "--strict", "--nocolor", "-q"]
    argv += ["-f", "codeclimate", *files]
    environment = {**os.environ, "PATH": f"{Path(program).parent}:{os.environ.get('PATH', '')}"}
    try:
        done = subprocess.run(
            argv,
            cwd=here,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        found = json.loads(done.stdout or "[]")
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"cannot run {program}: {error}") from None
    # 2: it has found something; anything else is its own trouble.
    if done.returncode not in (0, 2):
        words = " ".join(done.stderr.split())[-500:]
        raise Unavailable(f"cannot run {program}: it ended with {done.returncode}: {words}")
    return sorted({_read_issue(issue, here) for issue in found})


def _read_issue(issue: Mapping[str, Any], here: Path) -> Problem:
    """One issue in Code Climate's form, as ansible-lint writes it."""
    place = issue["location"]
    begin = (place.get("lines") or place["positions"])["begin"]
    text = str(issue["description"])
    if body := (issue.get("content") or {}).get("body"):
        text = f"{text}: {' '.join(str(body).split())[:200]}"
    return Problem(
        file=here / str(place["path"]),
        line=int(begin["line"] if isinstance(begin, dict) else begin),
        rule=str(issue["check_name"]),
        text=text,
    )
