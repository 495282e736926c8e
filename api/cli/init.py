"""`hostmend init` looks at this host and writes a configuration; `hostmend arm` turns it on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.errors import ConfigError, HostmendError, Unavailable
from api.cli.parts import EXIT_FAILED, EXIT_USAGE, Json, open_client
from api.cli.screen import Screen

if TYPE_CHECKING:
    from pathlib import Path

    from agent.checks.check import Proposal
    from agent.discovery import Discovery

#: Incidents that `arm` reads to tell what shadow recorded.
_RECORD = 1000


def init(
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what was found and why; write nothing.")
    ] = False,
    add: Annotated[
        bool,
        typer.Option("--add", help="Write what is not configured yet to a new file in conf.d."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Look at this host and write a configuration for what runs here, in shadow.

    Where there is a configuration already, it says what that one does not cover, and changes
    nothing. Exit codes: 0 done, 1 it cannot be written, 2 the configuration cannot be used.
    """
    import asyncio

    from agent.bootstrap import discover
    from agent.discovery import find_free_file, write_checks, write_configuration, write_new_file
    from agent.settings import read_settings

    try:
        settings = read_settings()
        found = asyncio.run(discover(settings))
    except ConfigError as error:
        typer.echo(f"hostmend: {error}", err=True)
        raise typer.Exit(EXIT_USAGE) from error
    written: Path | None = None
    try:
        if not explain and not settings.config.exists():
            write_new_file(settings.config, write_configuration(found.new))
            written = settings.config
        elif not explain and add and found.new:
            written = find_free_file(settings.config)
            write_new_file(written, write_checks(found.new))
    except ConfigError as error:
        typer.echo(f"hostmend: {error}", err=True)
        raise typer.Exit(EXIT_FAILED) from error
    screen = Screen()
    if as_json:
        screen.json(_describe(found, written))
        return
    for trouble in found.troubles:
        typer.echo(f"hostmend: {trouble}", err=True)
    if explain:
        _print_proposals(screen, found)
    elif written is not None:
        screen.line(f"{written}: {_count(found.new)}, in shadow unless your policy says otherwise.")
        screen.table(("CHECK", "TYPE", "WHY"), _rows(found.new), "Nothing was found to check.")
        screen.line("Next: say who is told (routes), then `hostmend arm` to let it repair.")
    else:
        screen.line(f"{settings.config} stays as it is.")
        _print_proposals(screen, found)
        if found.new:
            screen.line("`hostmend init --add` writes what is new to conf.d.")


def arm(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Turn repairs on: `policy.mode` becomes `auto` where it is `shadow`.

    Shows what hostmend would have done until now, and asks. Exit codes: 0 it is armed, 1 it cannot
    be, or you said no, 2 the configuration cannot be used.
    """
    from agent.bootstrap import find_remedies
    from agent.config import arm as arm_files
    from agent.config import load_config
    from agent.core.model import Mode
    from agent.settings import read_settings

    screen = Screen()
    try:
        settings = read_settings()
        config = load_config(settings.config, catalog=find_remedies(settings))
        if not config.files:
            typer.echo("hostmend: cannot arm: there is no configuration: hostmend init", err=True)
            raise typer.Exit(EXIT_FAILED)
        if config.policy.mode is not Mode.SHADOW:
            screen.line(f"It is not in shadow: policy.mode is {config.policy.mode}.")
            return
        _print_record(screen)
        if not yes and not typer.confirm("Let hostmend repair by itself from now on?"):
            raise typer.Exit(EXIT_FAILED)
        changed = arm_files(config.files)
    except ConfigError as error:
        typer.echo(f"hostmend: {error}", err=True)
        raise typer.Exit(EXIT_USAGE) from error
    screen.line(f"{changed}: policy.mode is auto.")
    alone = [n for n, check in config.checks.items() if check.policy.mode is Mode.SHADOW]
    if alone:
        screen.line(f"Still in shadow, as they say themselves: {', '.join(alone)}.")
    try:
        with open_client() as client:
            client.post("/v1/config/reload")
        screen.line("The agent has taken it.")
    except Unavailable:
        screen.line("No agent runs; it will begin with it.")
    except HostmendError as error:
        typer.echo(f"hostmend: the agent did not take it: {error}", err=True)
        raise typer.Exit(EXIT_FAILED) from error


def _print_record(screen: Screen) -> None:
    """What shadow recorded, if an agent can tell."""
    try:
        with open_client() as client:
            incidents = list(client.pages("/v1/incidents", at_most=_RECORD))
    except HostmendError:
        screen.line("No agent answers, so nothing is known of what it would have done.")
        return
    would = [incident for incident in incidents if incident["shadowed"]]
    if not would:
        screen.line("Nothing has failed since it watches that it would have repaired.")
        return
    rows: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for incident in would:
        key = (incident["check"], incident["subject"], ", ".join(incident["shadowed"]))
        rows.setdefault(key, []).append(incident)
    screen.table(
        ("CHECK", "SUBJECT", "WOULD HAVE RUN", "TIMES", "ENDED BY ITSELF"),
        [
            (*key, str(len(each)), str(sum(i["resolved_by"] == "itself" for i in each)))
            for key, each in rows.items()
        ],
        "",
    )


def _print_proposals(screen: Screen, found: Discovery) -> None:
    screen.heading("New")
    screen.table(("CHECK", "TYPE", "WHY"), _rows(found.new), "Nothing that is not configured.")
    if found.known:
        screen.heading("Configured already")
        rows = [(name, p.options["type"], p.why) for name, p in found.known.items()]
        screen.table(("CHECK", "TYPE", "WHY"), rows, "")
    if found.unfound:
        screen.heading("Configured, and not found by looking around")
        screen.line(f"  {', '.join(found.unfound)}")


def _rows(proposals: tuple[Proposal, ...]) -> list[tuple[str, str, str]]:
    return [(p.name, str(p.options["type"]), p.why) for p in proposals]


def _count(proposals: tuple[Proposal, ...]) -> str:
    return "1 check" if len(proposals) == 1 else f"{len(proposals)} checks"


def _describe(found: Discovery, written: Path | None) -> dict[str, Any]:
    def show(name: str, proposal: Proposal) -> dict[str, Any]:
        return {"name": name, "options": dict(proposal.options), "why": proposal.why}

    return {
        "written": str(written) if written else None,
        "new": [show(p.name, p) for p in found.new],
        "known": [show(name, p) for name, p in found.known.items()],
        "unfound": list(found.unfound),
        "troubles": list(found.troubles),
    }
