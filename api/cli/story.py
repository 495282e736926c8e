"""An incident as a story: when what happened, what was seen before and after, what comes next."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from api.cli.runs import print_event, tell_took
from api.cli.screen import (
    STYLES,
    Screen,
    read_instant,
    tell_exactly,
    tell_options,
    tell_seconds,
)

_ENDS = {
    "run": "repaired by hostmend (run {run})",
    "itself": "it went away by itself",
    "operator": "ended by an operator",
}


def tell_name(incident: dict[str, Any]) -> str:
    return f"{incident['check']} {incident['subject']}".strip()


def print_story(
    screen: Screen,
    story: dict[str, Any],
    tasks: dict[str, list[dict[str, Any]]],
    explained: dict[str, Any] | None,
) -> None:
    """Prints all of it. `tasks` are the events of each run; `explained` is None once it ended."""
    incident = story["incident"]
    state = incident["state"]
    screen.line(f"Incident {incident['id']}: {tell_name(incident)}, {state}", STYLES.get(state, ""))
    screen.fields(
        (
            ("what", incident["before"]["summary"]),
            ("now", incident["finding"]["summary"]),
            ("began", tell_exactly(incident["began"])),
            ("ended", tell_exactly(incident["ended"])),
            ("downtime", tell_seconds(story["downtime_seconds"])),
            ("outcome", _tell_end(incident)),
            ("known to", incident["acknowledged"]),
        )
    )
    if explained is not None:
        _print_next(screen, story["held"], explained)
    screen.heading("Timeline")
    _print_timeline(screen, story, tasks)
    for when in ("before", "after"):
        _print_evidence(screen, story, when)


def _tell_end(incident: dict[str, Any]) -> str:
    if incident["state"] == "gone":
        return "its subject, or its check, no longer exists"
    return _ENDS.get(incident["resolved_by"], "").format(run=incident["healed_by"])


def _print_next(screen: Screen, held: dict[str, Any] | None, explained: dict[str, Any]) -> None:
    screen.heading("Next")
    screen.line(f"  {explained['next']}")
    if held:
        until = f", until {tell_exactly(held['until'])}" if held["until"] else ""
        screen.line(f"  held, {held['hold']}: {held['detail']}{until}")
    if explained["remedy"]:
        screen.line(f"  remedy: {explained['remedy']} {tell_options(explained['options'])}")
    if held and held["hold"] == "approval":
        screen.line(f"  hostmend incident approve {explained['incident']['id']}")


def _print_timeline(
    screen: Screen, story: dict[str, Any], tasks: dict[str, list[dict[str, Any]]]
) -> None:
    incident = story["incident"]
    # At one instant, in the order of this list.
    moments: list[tuple[str, str, str | None]] = [(incident["began"], "began to fail", None)]
    for step in story["transitions"]:
        moments.append((step["at"], f"{step['new']}: {step['why']}", None))
    for run in story["runs"]:
        asked = f", asked for by {run['by']}" if run["by"] else ""
        options = tell_options(run["options"])
        began = run["started"] or run["planned"]
        verb = "started" if run["started"] else "planned"
        moments.append((began, f"run {run['id']} {verb}: {run['remedy']} {options}{asked}", None))
        if run["ended"]:
            proved = ", proved by a later look" if run["proved"] else ""
            ended = f"run {run['id']} {run['outcome']} after {tell_took(run)}: {run['detail']}"
            moments.append((run["ended"], ended + proved, run["id"]))
    for notice in story["notices"]:
        if notice["delivered"]:
            said = f"told {notice['route']}: {notice['reason']}"
            moments.append((notice["delivered"], said, None))
        else:
            error = f" ({notice['error']})" if notice["error"] else ""
            said = f"message to {notice['route']}, {notice['reason']}: {notice['state']}{error}"
            moments.append((notice["created"], said, None))
    start = read_instant(incident["began"])
    for at, text, run_id in sorted(moments, key=lambda moment: read_instant(moment[0])):
        local = datetime.fromtimestamp(read_instant(at)).astimezone()
        clock = local.isoformat(sep=" ", timespec="seconds")[:19]
        screen.line(f"  {clock}  +{tell_seconds(read_instant(at) - start):<12} {text}")
        for event in tasks.get(run_id or "", ()):
            print_event(screen, event)


def _print_evidence(screen: Screen, story: dict[str, Any], when: str) -> None:
    finding = story["incident"][when]
    items = [item for item in story["evidence"] if item["when"] == when]
    if finding is None and not items:
        return
    screen.heading("Before" if when == "before" else "After")
    if finding is not None:
        screen.line(f"  {finding['status']}: {finding['summary']}")
        seen = {**finding["measurements"], **finding["facts"]}
        for name, value in seen.items():
            screen.line(f"    {name}: {value}")
    for item in items:
        screen.line(f"  {item['title']}, {tell_exactly(item['taken'])}")
        screen.block(item["text"])
