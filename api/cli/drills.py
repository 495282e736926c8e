"""`hostmend drill`: faults injected on purpose, where a host allows them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import parts
from api.cli.parts import EXIT_FAILED, Json, Limit, open_client, read_duration
from api.cli.screen import Screen, tell_ago

if TYPE_CHECKING:
    from api.client import Client

#: Seconds between looks at a drill that is waited for.
_TICK = 0.5

DrillId = Annotated[str, typer.Argument(metavar="ID", help="The drill's id, such as d3.")]


def allow(
    lasts: Annotated[
        str, typer.Option("--for", metavar="D", help="Forbid them by itself after this: 2h, 1d.")
    ],
) -> None:
    """Let drills be started on this host for a while. Never on one that users depend on.

    It writes a file that names this machine: a copy of the host allows nothing. It needs no agent.
    """
    from agent.drills.marker import LONGEST, MARKER, require_root, write_marker
    from agent.host.identity import read_identity

    _refuse_server("allow")
    require_root()
    seconds = read_duration(lasts, "--for")
    if not 0 < seconds <= LONGEST:
        raise typer.BadParameter("at most 7 days", param_hint="--for")
    write_marker(MARKER, read_identity(), now=time.time(), seconds=seconds, by="root")
    Screen().line(f"This host allows drills for {lasts}: {MARKER}")


def forbid() -> None:
    """Let no drill be started on this host any more. One that is under way goes on."""
    from agent.drills.marker import MARKER, remove_marker

    _refuse_server("forbid")
    said = "allows no drills any more." if remove_marker(MARKER) else "allowed none."
    Screen().line(f"This host {said}")


def list_faults(as_json: Json = False) -> None:
    """List the faults on offer, with their options. It needs no agent."""
    from agent.bootstrap import find_faults
    from agent.settings import read_settings

    _refuse_server("faults")
    found = find_faults(read_settings())
    screen = Screen()
    if as_json:
        items = [
            {
                "name": fault.name,
                "summary": fault.summary,
                "seen_by": list(fault.handles),
                "options": {
                    name: {
                        "type": option.type,
                        "required": option.required,
                        "default": option.default,
                        "description": option.description,
                    }
                    for name, option in fault.options.items()
                    if name != "keep"
                },
            }
            for fault in found.remedies.values()
        ]
        screen.json({"items": items, "next": None})
        return
    rows = [
        (
            fault.name,
            " ".join(
                name if option.required else f"[{name}]"
                for name, option in fault.options.items()
                if name != "keep"
            ),
            fault.summary,
        )
        for fault in found.remedies.values()
    ]
    screen.table(("FAULT", "OPTIONS", "WHAT IT DOES"), rows, "No faults.")


def run(
    fault: Annotated[str, typer.Argument(metavar="FAULT", help="`hostmend drill faults` lists.")],
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="An option of the fault."),
    ] = None,
    within: Annotated[
        str, typer.Option(metavar="D", help="It must be detected, healed and verified by then.")
    ] = "2m",
    as_json: Json = False,
) -> None:
    """Inject a fault, wait until hostmend has healed it or not, and see it undone.

    Exit codes: 0 it passed, 1 it did not, or could not be started.
    """
    order = {
        "fault": fault,
        "options": _read_options(option or []),
        "within_seconds": read_duration(within, "--within"),
    }
    with open_client() as client:
        drill = client.post("/v1/drills", order)
        drill = _wait_for_end(client, drill)
    screen = Screen()
    if as_json:
        screen.json(drill)
    else:
        _print(screen, drill)
    if drill["outcome"] != "passed":
        raise typer.Exit(EXIT_FAILED)


def list_drills(limit: Limit = 20, as_json: Json = False) -> None:
    """List drills, newest first, and what came of them."""
    with open_client() as client:
        found = list(client.pages("/v1/drills", at_most=limit))
    screen = Screen()
    if as_json:
        screen.json({"items": found, "next": None})
        return
    screen.table(
        ("ID", "WHEN", "FAULT", "STATE", "OUTCOME", "PARTICULARS"),
        [
            (
                drill["id"],
                tell_ago(drill["ordered"]),
                drill["fault"],
                drill["state"],
                drill["outcome"] or "",
                drill["trouble"] or drill["detail"],
            )
            for drill in found
        ],
        "No drills.",
    )


def show(drill_id: DrillId, as_json: Json = False) -> None:
    """One drill: what was injected, and when it was detected, healed, verified and undone."""
    from api.client import quote_part

    with open_client() as client:
        drill = client.get(f"/v1/drills/{quote_part(drill_id)}")
    screen = Screen()
    if as_json:
        screen.json(drill)
    else:
        _print(screen, drill)


def end(drill_id: DrillId, as_json: Json = False) -> None:
    """Have a drill's fault undone now."""
    from api.client import quote_part

    with open_client() as client:
        drill = client.delete(f"/v1/drills/{quote_part(drill_id)}")
        drill = _wait_for_end(client, drill)
    screen = Screen()
    if as_json:
        screen.json(drill)
    else:
        _print(screen, drill)


def guard() -> None:
    """What hostmend-drill.service runs: inject the fault that is on record, and undo it.

    Started by hand it undoes what is left of a drill, and needs no agent for it.
    """
    import asyncio
    import logging

    from agent.drills.guard import stand_guard
    from agent.drills.marker import require_root

    _refuse_server("guard")
    require_root()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    raise typer.Exit(asyncio.run(stand_guard()))


def _refuse_server(name: str) -> None:
    if parts.server.get() is not None:
        raise typer.BadParameter(f"`drill {name}` is about this host alone", param_hint="--server")


def _read_options(given: list[str]) -> dict[str, str]:
    options = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{each!r} is not KEY=VALUE", param_hint="--option")
        options[key] = value
    return options


def _wait_for_end(client: Client, drill: dict[str, Any]) -> dict[str, Any]:
    """Waits; Ctrl-C has it undone at once."""
    path = f"/v1/drills/{drill['id']}"
    try:
        while drill["state"] != "ended":
            time.sleep(_TICK)
            drill = client.get(path)
    except KeyboardInterrupt:
        client.delete(path)
        raise
    return drill


def _print(screen: Screen, drill: dict[str, Any]) -> None:
    told = drill["outcome"] or drill["state"]
    style = {"passed": "green", "failed": "bold red"}.get(told, "yellow")
    screen.line(f"{drill['id']} {drill['fault']}: {told}", style)
    for line in (drill["detail"], drill["trouble"]):
        if line:
            screen.line(f"  {line}")
    for name in ("injected", "detected", "healed", "verified", "undone"):
        screen.line(f"  {name:<9} {drill[name] or '-'}")
    if drill["incidents"]:
        screen.line(f"  incidents {', '.join(drill['incidents'])}")
