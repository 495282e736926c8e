"""`hostmend token`: who may come in over the network."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from api.cli.parts import Json, Limit, open_client, read_duration
from api.cli.screen import Screen, tell_ago, tell_exactly

TokenId = Annotated[str, typer.Argument(metavar="ID", help="The token's id, such as t3.")]


class _Role(StrEnum):
    REPORTER = "reporter"
    VIEWER = "viewer"
    DRILLER = "driller"
    OPERATOR = "operator"
    ADMIN = "admin"


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for, or who has it.")],
    role: Annotated[_Role, typer.Option("--role", help="What its holder may do.")],
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="D", help="Let nobody in after this: 12h, 30d."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a token. Its secret is printed this once, and kept nowhere.

    The secret goes to the standard output, alone on its line; everything else to standard error.
    """
    order: dict[str, Any] = {"name": name, "role": role}
    if expires is not None:
        order["for_seconds"] = read_duration(expires, "--expires")
    with open_client() as client:
        new = client.post("/v1/tokens", order)
    if as_json:
        Screen().json(new)
        return
    until = f"expires {tell_exactly(new['expires'])}" if new["expires"] else "does not expire"
    typer.echo(f"Token {new['id']} for {new['name']}: {new['role']}, {until}.", err=True)
    typer.echo("This is shown once; keep it in a file with mode 0600:", err=True)
    Screen().line(new["secret"])


def list_tokens(limit: Limit = 50, as_json: Json = False) -> None:
    """List tokens, newest first, without their secrets."""
    with open_client() as client:
        found = list(client.pages("/v1/tokens", at_most=limit))
    screen = Screen()
    if as_json:
        screen.json({"items": found, "next": None})
        return
    screen.table(
        ("ID", "NAME", "ROLE", "STATE", "CREATED", "BY", "USED"),
        [
            (
                token["id"],
                token["name"],
                token["role"],
                _tell_state(token),
                tell_ago(token["created"]),
                token["created_by"],
                tell_ago(token["used"]) or "never",
            )
            for token in found
        ],
        "No tokens: nobody comes in over the network.",
    )


def revoke(token_id: TokenId, as_json: Json = False) -> None:
    """Let nobody in with this token any more."""
    from api.client import quote_part

    with open_client() as client:
        token = client.delete(f"/v1/tokens/{quote_part(token_id)}")
    screen = Screen()
    if as_json:
        screen.json(token)
        return
    screen.line(f"Token {token['id']} ({token['name']}) lets nobody in any more.")


def _tell_state(token: dict[str, Any]) -> str:
    if token["revoked"]:
        return f"revoked {tell_ago(token['revoked'])}"
    if token["expires"] is None:
        return "lives"
    told = tell_ago(token["expires"])
    return f"expired {told}" if told.endswith("ago") else f"expires {told}"
