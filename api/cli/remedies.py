"""`hostmend remedies`, `remedy show` and `remedy run`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from agent.errors import HostmendError
from api.cli.parts import Json, open_client
from api.cli.runs import EXIT_OF_OUTCOME, follow_run, list_events
from api.cli.screen import STYLES, Screen, tell_seconds

Name = Annotated[str, typer.Argument(metavar="NAME", help="The remedy's name.")]


def list_remedies(as_json: Json = False) -> None:
    """List the remedies on offer."""
    with open_client() as client:
        found = list(client.pages("/v1/remedies"))
    screen = Screen()
    if as_json:
        screen.json({"items": found, "next": None})
        return
    screen.table(
        ("REMEDY", "RISK", "CHANGES", "USED BY", "SUMMARY"),
        [
            (
                remedy["name"],
                remedy["risk"],
                remedy["changes"],
                ", ".join(remedy["used_by"]),
                remedy["summary"] + (" (replaces the shipped one)" if remedy["replaces"] else ""),
            )
            for remedy in found
        ],
        "No remedies.",
    )


def show(name: Name, as_json: Json = False) -> None:
    """Show one remedy and its options."""
    from api.client import quote_part

    with open_client() as client:
        remedy = client.get(f"/v1/remedies/{quote_part(name)}")
    screen = Screen()
    if as_json:
        screen.json(remedy)
        return
    screen.line(f"{remedy['name']}: {remedy['summary']}", "bold")
    handles = "; ".join(f"{kind}: {', '.join(c)}" for kind, c in remedy["handles"].items())
    replaces = f"the shipped one, {remedy['replaces']}" if remedy["replaces"] else ""
    screen.fields(
        (
            ("handles", handles),
            ("risk", remedy["risk"]),
            ("changes", remedy["changes"]),
            ("timeout", tell_seconds(remedy["timeout_seconds"])),
            ("used by", ", ".join(remedy["used_by"])),
            ("path", remedy["path"]),
            ("digest", remedy["digest"]),
            ("replaces", replaces),
        )
    )
    if remedy["options"]:
        screen.heading("Options")
        screen.table(
            ("NAME", "TYPE", "NEEDED", "DEFAULT", "DESCRIPTION"),
            [
                (
                    option,
                    str(spec.get("type", "")),
                    "yes" if spec.get("required") else "no",
                    "" if spec.get("default") is None else str(spec["default"]),
                    str(spec.get("description", "")),
                )
                for option, spec in remedy["options"].items()
            ],
            "",
        )


def run_remedy(
    name: Name,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "-o", "--option", metavar="KEY=VALUE", help="An option; JSON where it is no text."
        ),
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Only show what it would change.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it until it ends.")] = True,
    as_json: Json = False,
) -> None:
    """Run a remedy by hand, and follow what it does.

    Ctrl-C ends the following, not the run. Exit codes: 0 it went well (or was started, with
    --no-wait), 1 it failed or was lost, or was refused, 2 wrong usage, 3 no agent answers,
    4 it ran out of time, 5 it was cancelled, 6 it asks for a human.
    """
    from api.client import quote_part

    order = {"options": read_options(option or []), "preview": preview}
    screen = Screen()
    with open_client() as client:
        run = client.post(f"/v1/remedies/{quote_part(name)}/runs", order)
        if not as_json:
            screen.line(f"Run {run['id']} of {name}{' (preview)' if preview else ''}:")
        if not wait:
            if as_json:
                screen.json(run)
            else:
                screen.line(f"hostmend run-show {run['id']} shows how it goes.")
            return
        try:
            run = follow_run(client, None if as_json else screen, run)
        except (KeyboardInterrupt, HostmendError):
            typer.echo(
                f"hostmend: run {run['id']} goes on: hostmend run-show {run['id']} shows it, "
                f"hostmend run-cancel {run['id']} ends it",
                err=True,
            )
            raise
        events = list_events(client, run["id"]) if as_json else []
    if as_json:
        screen.json({"run": run, "events": events})
    else:
        outcome = str(run["outcome"])
        detail = f": {run['detail']}" if run["detail"] else ""
        screen.line(f"Run {run['id']}: {outcome}{detail}", STYLES.get(outcome, ""))
    raise typer.Exit(EXIT_OF_OUTCOME.get(str(run["outcome"]), 1))


def read_options(given: list[str]) -> dict[str, Any]:
    """`KEY=VALUE`, where a value that is a JSON list, object, number, true or false is taken as
    such, and anything else as text. Raises a usage error."""
    options: dict[str, Any] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not (equals and name):
            raise typer.BadParameter(f"{item!r} is not KEY=VALUE", param_hint="-o")
        if name in options:
            raise typer.BadParameter(f"{name} is given twice", param_hint="-o")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options
