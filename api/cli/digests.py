"""`hostmend digest`: what happened over some days."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from api.cli.parts import Json, open_client, read_duration


def digest(
    duration: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="D", help="Of this long: 12h, 7d. Left out: since the last was sent."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell what was repaired, what recurs, what is forecast and what waits, over some days."""
    query = ""
    if duration is not None:
        query = f"?seconds={read_duration(duration, '--for'):g}"
    with open_client() as client:
        found = client.get(f"/v1/digest{query}")
    if as_json:
        del found["text"]
        typer.echo(json.dumps(found, indent=2))
    else:
        typer.echo(found["text"], nl=False)
