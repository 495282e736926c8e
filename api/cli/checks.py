"""`hostmend check` looks without an agent; `hostmend checks` asks the agent what it saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.errors import HostmendError
from api.cli.parts import Json, open_client
from api.cli.screen import Screen, tell_ago

if TYPE_CHECKING:
    from api.schemas.checks import Check

#: As monitoring plugins have it (Monitoring Plugins Development Guidelines, "Return codes").
EXIT_OF_STATUS = {"ok": 0, "warning": 1, "critical": 2, "unknown": 3}

_Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", help="Checks to look at. Left out: all.", show_default=False),
]


def check(names: _Names = None, as_json: Json = False) -> None:
    """Look once and say what was seen: no repair, and no agent is needed.

    Exit codes, as monitoring plugins have them: 0 ok, 1 warning, 2 critical, 3 unknown, and 3 for
    wrong usage or a configuration that cannot be used.
    """
    import asyncio

    from agent.bootstrap import look_once
    from agent.settings import read_settings
    from api.schemas.checks import Check

    try:
        looked = asyncio.run(look_once(read_settings(), tuple(names or ())))
    except HostmendError as error:
        typer.echo(f"UNKNOWN: {error}", err=True)
        raise typer.Exit(EXIT_OF_STATUS["unknown"]) from error
    seen = [Check.of(one) for one in looked]
    worst = find_worst([one.status for one in seen])
    if as_json:
        Screen().json({"status": worst, "items": [one.model_dump(mode="json") for one in seen]})
    else:
        _print_looks(Screen(), worst, seen)
    raise typer.Exit(EXIT_OF_STATUS[worst])


def find_worst(statuses: Sequence[str]) -> str:
    """Critical before unknown before warning; ok for none."""
    return next((s for s in ("critical", "unknown", "warning") if s in statuses), "ok")


def _print_looks(screen: Screen, worst: str, seen: Sequence[Check]) -> None:
    failing = [one.name for one in seen if one.status != "ok"]
    about = ", ".join(failing) if failing else f"{len(seen)} checks"
    screen.line(f"{worst.upper()}: {about}")
    rows: list[Sequence[str]] = []
    for one in seen:
        if one.broken:
            rows.append((one.name, "", "unknown", one.broken))
        rows.extend((one.name, f.subject, f.status, f.summary) for f in one.findings)
    screen.table(("CHECK", "SUBJECT", "STATUS", "SUMMARY"), rows, "No check is configured.")


def list_checks(as_json: Json = False) -> None:
    """List the agent's checks and what their last looks saw."""
    with open_client() as client:
        found = list(client.pages("/v1/checks"))
    screen = Screen()
    if as_json:
        screen.json({"items": found, "next": None})
        return
    screen.table(
        ("CHECK", "TYPE", "STATUS", "LOOKED", "SUMMARY"),
        [
            (
                one["name"],
                one["type"],
                one["status"],
                tell_ago(one["looked"]) or "not yet",
                _summarize(one),
            )
            for one in found
        ],
        "No check is configured.",
    )


def _summarize(check: dict[str, Any]) -> str:
    if check["broken"]:
        return str(check["broken"])
    failing = [f["summary"] for f in check["findings"] if f["status"] != "ok"]
    return "; ".join(failing)
