"""`hostmend status`: one screen at three in the morning; `pause`, `resume` and `reload`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli.parts import Json, open_client, read_duration
from api.cli.screen import STYLES, Screen, read_instant, tell_ago, tell_exactly, tell_seconds
from api.cli.silences import tell_when

#: Seconds before a recurring maintenance window opens at which `status` begins to say so.
_SOON = 86400.0

#: What an operator can do about a hold; `{id}` is the incident's.
WAYS_OUT = {
    "approval": "hostmend incident approve {id}",
    "paused": "hostmend resume",
    "no remedy": "hostmend incident explain {id}",
}


def show_status(as_json: Json = False) -> None:
    """Show how this host and its agent are.

    Exit codes: 0 shown, whatever it says (use `hostmend check` to test), 3 no agent answers.
    """
    with open_client() as client:
        status = client.get("/v1/status")
    print_status(status, as_json=as_json)


def pause(
    duration: Annotated[
        str | None,
        typer.Option("--for", metavar="D", help="Resume by itself after this: 30m, 2h."),
    ] = None,
    why: Annotated[str, typer.Option("--why", help="Shown to everybody who asks.")] = "",
    as_json: Json = False,
) -> None:
    """Start no more runs; looking and telling go on."""
    order: dict[str, Any] = {"why": why}
    if duration is not None:
        order["for_seconds"] = read_duration(duration, "--for")
    with open_client() as client:
        status = client.post("/v1/pause", order)
    screen = Screen()
    if as_json:
        screen.json(status)
        return
    until = status["paused"]["until"]
    screen.line(f"Runs are paused {f'until {tell_exactly(until)}' if until else 'until resumed'}.")


def resume(as_json: Json = False) -> None:
    """Let runs start again."""
    with open_client() as client:
        status = client.post("/v1/resume")
    screen = Screen()
    if as_json:
        screen.json(status)
        return
    screen.line("Runs may start again.")


def confirm_host(
    keep_tokens: Annotated[
        bool,
        typer.Option("--keep-tokens", help="Of a copy: do not revoke the tokens of the original."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Accept a state that was lost, or is another machine's, as this host's own.

    Until then nothing is repaired, nobody is told, and no token lets anybody in. Exit codes:
    0 done, 1 nothing is in doubt, 3 no agent answers.
    """
    with open_client() as client:
        status = client.post("/v1/confirm", {"keep_tokens": keep_tokens})
    screen = Screen()
    if as_json:
        screen.json(status)
        return
    screen.line("This host is confirmed: it repairs and tells again.")


def reload_config(as_json: Json = False) -> None:
    """Read the configuration again; one that cannot be used changes nothing.

    Exit codes: 0 it is in effect, 1 it cannot be used, 3 no agent answers.
    """
    with open_client() as client:
        status = client.post("/v1/config/reload")
    screen = Screen()
    if as_json:
        screen.json(status)
        return
    count = sum(status["checks_count"].values())
    screen.line(f"{status['config_path']} is in effect: {count} checks.")


def print_status(status: dict[str, Any], *, as_json: bool) -> None:
    screen = Screen()
    if as_json:
        screen.json(status)
        return
    now = read_instant(status["now"])
    counts = status["checks_count"]
    seen = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    screen.line(
        f"{status['host']}: {status['worst']} ({seen or 'no checks'})",
        STYLES.get(status["worst"], ""),
    )
    _print_alarms(screen, status, now)
    if status["incidents"]:
        screen.heading("Incidents")
        for incident in status["incidents"]:
            _print_incident(screen, incident, status["holds"].get(incident["id"]), now)
    else:
        screen.line("No incidents.")
    if status["runs_alive"]:
        screen.heading("Running")
        for run in status["runs_alive"]:
            began = run["started"] or run["planned"]
            who = f"by {run['by']}" if run["by"] else f"for {run['incident']}"
            what = f"{run['remedy']}{' (preview)' if run['preview'] else ''}"
            screen.line(f"  {run['id']}  {what} {who}, began {tell_ago(began, now)}")
    _print_rest(screen, status, now)


def _print_alarms(screen: Screen, status: dict[str, Any], now: float) -> None:
    paused, storm = status["paused"], status["storm"]
    if paused:
        until = f"ends {tell_ago(paused['until'], now)}" if paused["until"] else "until resumed"
        why = f": {paused['why']}" if paused["why"] else ""
        since = tell_ago(paused["since"], now)
        screen.line(f"PAUSED by {paused['by']} {since}, {until}{why}", "bold yellow")
    if storm:
        screen.line(f"STORM: many failures at once, since {tell_ago(storm['since'], now)}", "red")
    for problem in status["problems"]:
        screen.line(f"PROBLEM: {problem}", "bold red")
    for what, why in status["missing"].items():
        screen.line(f"MISSING: {what}: {why}", "yellow")
    for silence in status["silences"]:
        _print_silence(screen, silence, now)


def _print_silence(screen: Screen, silence: dict[str, Any], now: float) -> None:
    """What is in force, and what the configuration opens within a day."""
    begins_in = read_instant(silence["starts"]) - now
    if begins_in > _SOON:
        return
    covers = ", ".join(silence["checks"]) or ", ".join(
        f"{name}={value}" for name, value in silence["labels"].items()
    )
    kind = "MAINTENANCE" if silence["runs"] else "SILENCED"
    who = f" ({silence['id']})" if silence["recurring"] else ""
    comment = f": {silence['comment']}" if silence["comment"] else ""
    line = f"{covers} by {silence['by']}{who}, {tell_when(silence, now)}{comment}"
    if begins_in > 0:
        screen.line(f"Next maintenance: {line}")
    else:
        screen.line(f"{kind} {line}", "yellow")


def _print_incident(
    screen: Screen, incident: dict[str, Any], held: dict[str, Any] | None, now: float
) -> None:
    finding = incident["finding"]
    since = incident["failing_since"]
    passing = "cannot be told now" if finding["status"] == "unknown" else "passes now"
    lasting = f"failing for {tell_seconds(now - read_instant(since))}" if since else passing
    known = ", acknowledged" if incident["acknowledged"] else ""
    name = f"{incident['check']} {incident['subject']}".strip()
    screen.line(
        f"  {incident['id']}  {incident['state']}  {name}: {finding['summary']} ({lasting}{known})",
        STYLES.get(incident["state"], ""),
    )
    if held:
        until = f", changes {tell_ago(held['until'], now)}" if held["until"] else ""
        screen.line(f"      held, {held['hold']}: {held['detail']}{until}")
        if held["hold"] in WAYS_OUT:
            screen.line(f"      {WAYS_OUT[held['hold']].format(id=incident['id'])}")


def _print_rest(screen: Screen, status: dict[str, Any], now: float) -> None:
    screen.line()
    if status["notices_due"]:
        screen.line(f"messages not delivered yet: {status['notices_due']} (hostmend notices)")
    loaded = tell_ago(status["config_loaded"], now)
    started = tell_ago(status["started"], now)
    screen.line(f"hostmend {status['version']}, started {started}")
    screen.line(f"{status['config_path']}, loaded {loaded}")
