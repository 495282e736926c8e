"""`hostmend notices`, and `hostmend notify test`."""

from __future__ import annotations

from enum import StrEnum
from itertools import islice
from typing import Annotated

import typer

from api.cli.parts import EXIT_FAILED, Json, Limit, open_client
from api.cli.screen import Screen, tell_ago, tell_seconds


class _State(StrEnum):
    DUE = "due"
    DELIVERED = "delivered"
    EXPIRED = "expired"


def list_notices(
    state: Annotated[_State | None, typer.Option("--state", help="Only in this state.")] = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """List messages, newest first: what was said, where to, and whether it arrived."""
    with open_client() as client:
        found = list(client.pages("/v1/notices", at_most=limit, state=state))
    screen = Screen()
    if as_json:
        screen.json({"items": found, "next": None})
        return
    screen.table(
        ("ID", "ROUTE", "REASON", "STATE", "WHEN", "INCIDENT", "ERROR"),
        [
            (
                notice["id"],
                notice["route"],
                notice["reason"],
                notice["state"],
                tell_ago(notice["delivered"] or notice["created"]),
                f"{notice['incident'] or ''} {notice['check']}".strip(),
                notice["error"],
            )
            for notice in islice(found, limit)
        ],
        "No messages.",
    )


def try_routes(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[ROUTE]...", help="Left out: all of them.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Send one message to each route, and say what became of it; secrets are masked.

    Exit codes: 0 each was taken, 1 one was not or cannot be tried, 3 no agent answers.
    """
    with open_client() as client:
        found = client.post("/v1/notices/test", {"routes": names or []})
    screen = Screen()
    if as_json:
        screen.json(found)
    else:
        screen.table(
            ("ROUTE", "RESULT", "TOOK", "SERVICES", "ERROR"),
            [
                (
                    test["route"],
                    "taken" if test["ok"] else "FAILED",
                    tell_seconds(test["took_seconds"]),
                    ", ".join(test["services"]) or "cannot be read",
                    test["error"],
                )
                for test in found["items"]
            ],
            "No routes.",
        )
    if not all(test["ok"] for test in found["items"]):
        raise typer.Exit(EXIT_FAILED)
