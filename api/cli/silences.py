"""`hostmend silence` and `hostmend maintenance`: what is not spoken of, or not touched."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from agent.errors import HostmendError
from api.cli.parts import Json, open_client, read_duration
from api.cli.screen import Screen, clean, read_instant, tell_ago, tell_exactly, tell_seconds
from api.cli.wrapping import carry_out, held_signals

SilenceId = Annotated[str, typer.Argument(metavar="ID", help="The silence's id, such as s7.")]
Checks = Annotated[
    list[str] | None,
    typer.Option("--check", metavar="NAME", help="This check; may be repeated."),
]
All = Annotated[bool, typer.Option("--all", help="Every check of this host.")]
Comment = Annotated[str, typer.Option("--comment", help="Shown to everybody who asks.")]


def add(
    duration: Annotated[
        str, typer.Option("--for", metavar="D", help="End by itself after this: 30m, 2h.")
    ],
    checks: Checks = None,
    subjects: Annotated[
        list[str] | None,
        typer.Option("--subject", metavar="S", help="Only this subject of those checks."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="K=V", help="Checks that carry all of these labels."),
    ] = None,
    everything: All = False,
    comment: Comment = "",
    as_json: Json = False,
) -> None:
    """Mute the notices about some checks from now on. Looking and repairing go on."""
    order = _describe(checks, everything, labels)
    order |= {
        "subjects": subjects or [],
        "for_seconds": read_duration(duration, "--for"),
        "comment": comment,
    }
    with open_client() as client:
        silence = client.post("/v1/silences", order)
    screen = Screen()
    if as_json:
        screen.json(silence)
        return
    screen.line(f"{silence['id']}: {tell_covered(silence)} silent until {_tell_end(silence)}.")


def list_silences(as_json: Json = False) -> None:
    """List silences and maintenance windows that have not ended, and those that recur."""
    with open_client() as client:
        found = list(client.pages("/v1/silences"))
    screen = Screen()
    if as_json:
        screen.json({"items": found, "next": None})
        return
    screen.table(
        ("ID", "KIND", "COVERS", "WHEN", "BY", "COMMENT"),
        [
            (
                silence["id"],
                "maintenance" if silence["runs"] else "silence",
                tell_covered(silence),
                tell_when(silence, time.time()),
                silence["by"],
                silence["comment"],
            )
            for silence in found
        ],
        "No silences.",
    )


def end(silence_id: SilenceId, as_json: Json = False) -> None:
    """End a silence or maintenance window now; what is still wrong speaks again."""
    from api.client import quote_part

    with open_client() as client:
        silence = client.delete(f"/v1/silences/{quote_part(silence_id)}")
    screen = Screen()
    if as_json:
        screen.json(silence)
        return
    screen.line(f"{silence['id']} has ended.")


def run(
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND...", help="What to run meanwhile.")
    ],
    checks: Checks = None,
    everything: All = False,
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="K=V", help="Checks that carry all of these labels."),
    ] = None,
    at_most: Annotated[
        str,
        typer.Option("--for", metavar="D", help="The window's longest time, should this one die."),
    ] = "1h",
    comment: Comment = "",
) -> None:
    """Run a command in a maintenance window: neither messages nor repairs until it has ended.

    The window ends with the command, however that ends, and after --for at the latest. The exit
    code is the command's; 126 it cannot be executed, 127 it was not found, 128 + N signal N ended
    it. If there is no window (exit codes 1, 2, 3), the command is not run.
    """
    order = _describe(checks, everything, labels)
    order |= {
        "for_seconds": read_duration(at_most, "--for"),
        "comment": comment or " ".join(command)[:200],
        "runs": True,
    }
    with held_signals() as received:
        with open_client() as client:
            window = client.post("/v1/silences", order)
        said = f"maintenance {window['id']}: {tell_covered(window)} until {_tell_end(window)}"
        typer.echo(clean(said), err=True)
        try:
            code = carry_out(command, received)
        finally:
            _end_window(window["id"])
    raise typer.Exit(code)


def _end_window(window_id: str) -> None:
    try:
        with open_client() as client:
            client.delete(f"/v1/silences/{window_id}")
    except HostmendError as error:
        print(  # noqa: T201
            f"hostmend: cannot end maintenance {window_id}, it ends by itself: {clean(str(error))}",
            file=sys.stderr,
        )


def _describe(
    checks: list[str] | None, everything: bool, labels: list[str] | None
) -> dict[str, Any]:
    """What is covered. An empty choice never means everything."""
    if everything and (checks or labels):
        raise typer.BadParameter("--all is everything: give no --check and no --label with it")
    if not (everything or checks or labels):
        raise typer.BadParameter("name what is covered: --check, --label or --all")
    pairs: dict[str, str] = {}
    for label in labels or []:
        name, equals, value = label.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{label!r} is not K=V", param_hint="--label")
        pairs[name] = value
    return {"checks": ["*"] if everything else checks or [], "labels": pairs}


def tell_covered(silence: dict[str, Any]) -> str:
    """`web (nginx.service), tier=front`; `everything`."""
    names = ["everything"] if "*" in silence["checks"] else list(silence["checks"])
    if silence["subjects"]:
        names[-1:] = [f"{names[-1]} ({', '.join(silence['subjects'])})"]
    labels = " and ".join(f"{name}={value}" for name, value in silence["labels"].items())
    return ", ".join([*names, *([labels] if labels else [])])


def tell_when(silence: dict[str, Any], now: float) -> str:
    """`ends in 10 min`, `begins in 3 h, for 2 h`."""
    starts, ends = read_instant(silence["starts"]), read_instant(silence["ends"])
    if starts <= now:
        return f"ends {tell_ago(silence['ends'], now)}"
    return f"begins {tell_ago(silence['starts'], now)}, for {tell_seconds(ends - starts)}"


def _tell_end(silence: dict[str, Any]) -> str:
    return tell_exactly(silence["ends"])
