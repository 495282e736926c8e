"""`hostmend playbook`: for people who write remedies."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from agent.errors import Unavailable
from api.cli.parts import EXIT_FAILED, Json, read_duration
from api.cli.screen import Screen

#: This machine cannot have a throw-away host.
EXIT_NO_LAB = 3


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Its name: lower case letters, digits and -.")
    ],
    directory: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Where; default: the operator's own remedies."),
    ] = None,
) -> None:
    """Write a remedy that works, with its test, to begin with.

    Exit codes: 0 it is written, 1 it cannot be.
    """
    from agent.authors.draft import write_draft

    path = write_draft(name, directory or _own_remedies())
    screen = Screen()
    screen.line(f"{path} is a remedy that works. Make it yours, and look at it with")
    screen.line(f"  hostmend playbook lint {path}")
    screen.line(f"  hostmend playbook test {path}")


def lint(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="Remedies, or directories of them; default: the operator's own.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what is wrong with remedies: description, permissions, idempotence, safety.

    hostmend's own rules are asked always, ansible-lint at its production profile where it is
    installed. Exit codes: 0 nothing is wrong, 1 something is, or it could not be looked at.
    """
    from agent.authors.lint import (
        find_ansible_lint,
        find_drafts,
        lint_remedy,
        run_ansible_lint,
    )

    drafts = find_drafts(paths or [_own_remedies()])
    found = [problem for draft in drafts for problem in lint_remedy(draft)]
    program, trouble = find_ansible_lint(), ""
    if program is None:
        trouble = "ansible-lint is not installed: only hostmend's own rules were asked"
    else:
        try:
            found += run_ansible_lint(program, drafts)
        except Unavailable as error:
            trouble = str(error)
    found.sort()
    screen = Screen()
    if as_json:
        items = [
            {"file": str(p.file), "line": p.line, "rule": p.rule, "text": p.text} for p in found
        ]
        screen.json({"items": items, "next": None, "left_out": trouble})
    else:
        for problem in found:
            file = os.path.relpath(problem.file) if _is_below(problem.file) else problem.file
            screen.line(f"{file}:{problem.line}: {problem.rule}: {problem.text}")
        said = f"{len(found)} to mend" if found else "nothing to mend"
        screen.line(f"{len(drafts)} {'remedy' if len(drafts) == 1 else 'remedies'}: {said}")
    if trouble:
        typer.echo(f"hostmend: {trouble}", err=True)
    # Where ansible-lint is installed and cannot work, nobody knows that nothing is wrong.
    if found or (trouble and program):
        raise typer.Exit(EXIT_FAILED)


def try_out(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The remedy's directory.")],
    within: Annotated[
        str,
        typer.Option(metavar="D", help="From the break to the end of its incident, at most."),
    ] = "5m",
) -> None:
    """Try a remedy on a throw-away host: break, detect, repair, verify, and run it once more.

    It takes root and boots a Debian under systemd-nspawn, which is gone at the end, also after
    Ctrl-C. Exit codes: 0 it passed, 1 it did not, 2 wrong usage, 3 there can be no such host here,
    130 interrupted.
    """
    from agent.authors.trial import try_remedy
    from agent.lab import Lab

    seconds = read_duration(within, "--within")
    screen = Screen()
    begun = time.monotonic()

    def say(line: str) -> None:
        screen.line(f"{time.monotonic() - begun:6.1f} s  {line}")

    if not path.is_dir():
        raise typer.BadParameter(f"{path} is no directory", param_hint="PATH")
    try:
        with Lab.boot() as lab:
            say("a host is up")
            try_remedy(lab, path, say=say, within=seconds)
    except Unavailable as error:
        typer.echo(f"hostmend: {error}", err=True)
        raise typer.Exit(EXIT_NO_LAB) from None
    say("passed")


def _is_below(file: Path) -> bool:
    return file.is_relative_to(Path.cwd())


def _own_remedies() -> Path:
    from agent.bootstrap import remedy_dirs
    from agent.settings import read_settings

    return remedy_dirs(read_settings())[-1]
