"""`hostmend incidents` and what can be done with one."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.parts import Json, Limit, open_client
from api.cli.screen import Screen, tell_ago, tell_exactly, tell_options
from api.cli.story import print_story, tell_name


class ReportForm(StrEnum):
    MARKDOWN = "markdown"
    HTML = "html"
    JSON = "json"


IncidentId = Annotated[str, typer.Argument(metavar="ID", help="The incident's id, such as i12.")]


def list_incidents(
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Those that have ended, too.")
    ] = False,
    check: Annotated[str | None, typer.Option("--check", help="Only of this check.")] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List incidents, newest first; without --all only those that have not ended."""
    live = None if everything else True
    with open_client() as client:
        found = list(client.pages("/v1/incidents", at_most=limit, live=live, check=check))
    screen = Screen()
    if as_json:
        screen.json({"items": found, "next": None})
        return
    screen.table(
        ("ID", "STATE", "CHECK", "SUBJECT", "BEGAN", "SUMMARY"),
        [
            (
                incident["id"],
                incident["state"],
                incident["check"],
                incident["subject"],
                tell_ago(incident["began"]),
                incident["before" if incident["ended"] else "finding"]["summary"],
            )
            for incident in found
        ],
        "No incidents.",
    )


def show(incident_id: IncidentId, as_json: Json = False) -> None:
    """Tell an incident's story: what failed, what was done, what proved it, what comes next."""
    from api.cli.runs import list_events

    with open_client() as client:
        story = client.get(_path(incident_id))
        if as_json:
            Screen().json(story)
            return
        tasks = {run["id"]: list_events(client, run["id"]) for run in story["runs"]}
        live = story["incident"]["ended"] is None
        explained = client.get(f"{_path(incident_id)}/explain") if live else None
    print_story(Screen(), story, tasks, explained)


def report(
    incident_id: IncidentId,
    form: Annotated[
        ReportForm, typer.Option("--format", "-f", help="How it is written.")
    ] = ReportForm.MARKDOWN,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there.")
    ] = None,
) -> None:
    """Write an incident's report: a draft for a review without blame, of what was observed."""
    with open_client() as client:
        found = client.get(f"{_path(incident_id)}/report")
    if form is ReportForm.JSON:
        del found["markdown"], found["html"]
        text = json.dumps(found, indent=2) + "\n"
    else:
        text = found[form.value]
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(
            f"cannot write {output}: {error.strerror}", param_hint="--output"
        ) from error


def explain(incident_id: IncidentId, as_json: Json = False) -> None:
    """Explain why nothing runs now, or what will: every gate before the next step."""
    with open_client() as client:
        explained = client.get(f"{_path(incident_id)}/explain")
    screen = Screen()
    if as_json:
        screen.json(explained)
        return
    incident = explained["incident"]
    screen.line(f"Incident {incident['id']}: {tell_name(incident)}, {incident['state']}", "bold")
    budget = explained["budget"]
    remedy = explained["remedy"]
    screen.fields(
        (
            ("next", explained["next"]),
            ("remedy", f"{remedy} {tell_options(explained['options'])}" if remedy else "none"),
            ("digest", explained["digest"]),
            ("attempts", ", ".join(f"{k} {v}" for k, v in explained["attempts"].items())),
            ("budget", f"{budget['used']} of {budget['allowed']} runs within the hour"),
        )
    )
    if not explained["gates"]:
        screen.line("Nothing holds it.")
        return
    screen.heading("Held by")
    for held in explained["gates"]:
        until = f", until {tell_exactly(held['until'])}" if held["until"] else ""
        screen.line(f"  {held['hold']}: {held['detail']}{until}")


def acknowledge(incident_id: IncidentId, as_json: Json = False) -> None:
    """Say that you know of it; reminders stop."""
    _order(incident_id, "acknowledge", "is acknowledged", as_json)


def approve(
    incident_id: IncidentId,
    digest: Annotated[
        str, typer.Option("--digest", help="Refuse if the remedy is no longer this one.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Let the run that waits for approval start."""
    _order(incident_id, "approve", "is approved", as_json, digest=digest)


def reject(incident_id: IncidentId, as_json: Json = False) -> None:
    """Refuse the run that waits for approval."""
    _order(incident_id, "reject", "goes on without that remedy", as_json)


def retry(incident_id: IncidentId, as_json: Json = False) -> None:
    """Try its remedies again now."""
    _order(incident_id, "retry", "is tried again", as_json)


def close(incident_id: IncidentId, as_json: Json = False) -> None:
    """End it by your word; if the next look fails, there is a new one."""
    _order(incident_id, "close", "is closed", as_json)


def _order(incident_id: str, verb: str, done: str, as_json: bool, **order: Any) -> None:
    with open_client() as client:
        incident = client.post(f"{_path(incident_id)}/{verb}", order)
    screen = Screen()
    if as_json:
        screen.json(incident)
        return
    screen.line(f"Incident {incident['id']} ({tell_name(incident)}) {done}.")


def _path(incident_id: str) -> str:
    from api.client import quote_part

    return f"/v1/incidents/{quote_part(incident_id)}"
