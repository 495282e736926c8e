"""`hostmend notices`."""

from __future__ import annotations

from enum import StrEnum
from itertools import islice
from typing import Annotated

import typer

from api.cli.parts import Json, Limit, open_client
from api.cli.screen import Screen, tell_ago


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
