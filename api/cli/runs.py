"""`hostmend runs`, `run-show` and `run-cancel`, and following a run that is alive."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.parts import EXIT_FAILED, EXIT_OK, Json, Limit, open_client
from api.cli.screen import (
    STYLES,
    Screen,
    read_instant,
    tell_ago,
    tell_exactly,
    tell_options,
    tell_seconds,
)

if TYPE_CHECKING:
    from api.client import Client

#: How a run's end is told by an exit code.
EXIT_OF_OUTCOME = {
    "ok": EXIT_OK,
    "failed": EXIT_FAILED,
    "lost": EXIT_FAILED,
    "timeout": 4,
    "cancelled": 5,
    "needs_human": 6,
}

#: How often a run that is alive is asked what it did, in seconds.
FOLLOW_EVERY = 0.3

RunId = Annotated[str, typer.Argument(metavar="ID", help="The run's id, such as r12.")]


def list_runs(
    incident: Annotated[
        str | None, typer.Option("--incident", help="Only runs for this incident.")
    ] = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """List runs of remedies, newest first."""
    with open_client() as client:
        found = list(client.pages("/v1/runs", at_most=limit, incident=incident))
    screen = Screen()
    if as_json:
        screen.json({"items": found, "next": None})
        return
    screen.table(
        ("ID", "REMEDY", "OUTCOME", "WHEN", "TOOK", "FOR", "DETAIL"),
        [
            (
                run["id"],
                run["remedy"] + (" (preview)" if run["preview"] else ""),
                run["outcome"] or run["state"],
                tell_ago(run["started"] or run["planned"]),
                tell_took(run),
                run["incident"] or run["by"],
                run["detail"],
            )
            for run in found
        ],
        "No runs.",
    )


def show_run(run_id: RunId, as_json: Json = False) -> None:
    """Show one run: what it was for, what it did, how it ended."""
    from api.client import quote_part

    with open_client() as client:
        run = client.get(f"/v1/runs/{quote_part(run_id)}")
        events = list_events(client, run_id)
    screen = Screen()
    if as_json:
        screen.json({"run": run, "events": events})
        return
    print_run(screen, run)
    if events:
        screen.heading("Tasks")
        for event in events:
            print_event(screen, event)


def cancel_run(run_id: RunId, as_json: Json = False) -> None:
    """End a run and everything it started, whatever it changes."""
    from api.client import quote_part

    with open_client() as client:
        run = client.post(f"/v1/runs/{quote_part(run_id)}/cancel")
    screen = Screen()
    if as_json:
        screen.json(run)
        return
    screen.line(f"Run {run['id']}: {run['outcome'] or 'is being cancelled'}.")


def follow_run(client: Client, screen: Screen | None, run: dict[str, Any]) -> dict[str, Any]:
    """Prints what a run does until it ends, and gives it as it is then."""
    from api.client import quote_part

    seen = 0
    while True:
        # Asked before its events: what an ended run did is complete.
        run = client.get(f"/v1/runs/{quote_part(run['id'])}")
        for event in list_events(client, run["id"], seen):
            seen = event["number"]
            if screen is not None:
                print_event(screen, event)
        if run["state"] == "ended":
            return run
        time.sleep(FOLLOW_EVERY)


def list_events(client: Client, run_id: str, after: int | None = 0) -> list[dict[str, Any]]:
    """All events of a run with a number above `after`."""
    from api.client import quote_part

    events: list[dict[str, Any]] = []
    while after is not None:
        page = client.get(f"/v1/runs/{quote_part(run_id)}/events", after=after, limit=500)
        events += page["items"]
        after = page["next"]
    return events


def print_run(screen: Screen, run: dict[str, Any]) -> None:
    outcome = run["outcome"] or run["state"]
    preview = " (preview: it changes nothing)" if run["preview"] else ""
    screen.line(f"Run {run['id']}: {run['remedy']}{preview}, {outcome}", STYLES.get(outcome, ""))
    name = f"{run['check']} {run['subject']}".strip()
    screen.fields(
        (
            ("detail", run["detail"]),
            ("options", tell_options(run["options"])),
            ("asked by", run["by"] or "hostmend itself"),
            ("incident", f"{run['incident']} {name}" if run["incident"] else ""),
            ("planned", tell_exactly(run["planned"])),
            ("started", tell_exactly(run["started"])),
            ("ended", tell_exactly(run["ended"])),
            ("took", tell_took(run)),
            ("proved", "by a look that began after it" if run["proved"] else ""),
            ("changes", f"{run['changes']}, risk {run['risk']}"),
            ("digest", run["digest"]),
        )
    )


def print_event(screen: Screen, event: dict[str, Any]) -> None:
    """One task, and what it said when it did not go well."""
    task = event.get("task") or event.get("action") or event.get("kind") or "task"
    result = str(event.get("status", ""))
    took = event.get("duration")
    timing = f" ({tell_seconds(took)})" if isinstance(took, int | float) else ""
    screen.line(f"  {result or '-':<9} {task}{timing}", STYLES.get(result, ""))
    said = event.get("msg")
    if said and result in ("failed", "unreachable"):
        screen.block(str(said), "            ")
    if event.get("diff"):
        screen.block(str(event["diff"]), "            ")


def tell_took(run: dict[str, Any]) -> str:
    if run["started"] is None or run["ended"] is None:
        return ""
    return tell_seconds(read_instant(run["ended"]) - read_instant(run["started"]))
