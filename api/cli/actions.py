"""`hostmend actions`: who ordered what."""

from __future__ import annotations

from api.cli.parts import Json, Limit, open_client
from api.cli.screen import Screen, tell_ago


def list_actions(limit: Limit = 20, as_json: Json = False) -> None:
    """List orders, newest first: who gave them, and what became of them."""
    with open_client() as client:
        found = list(client.pages("/v1/actions", at_most=limit))
    screen = Screen()
    if as_json:
        screen.json({"items": found, "next": None})
        return
    screen.table(
        ("ID", "WHEN", "BY", "WHAT", "OUTCOME", "PARTICULARS"),
        [
            (
                action["id"],
                tell_ago(action["at"]),
                action["by"],
                f"{action['what']} {action['target']}".strip(),
                action["outcome"],
                action["why"] or " ".join(filter(None, (action["made"], action["details"]))),
            )
            for action in found
        ],
        "No orders.",
    )
