"""`hostmend audit`: crawls a site once and says what is broken; needs no agent."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.core.units import parse_duration, parse_size
from agent.errors import HostmendError
from api.cli.parts import Json, read_url, write_report
from api.cli.screen import STYLES, Screen, clean

if TYPE_CHECKING:
    from agent.audit.plan import Plan
    from agent.audit.result import Audit

EXIT_DEFECTS = 1
#: The site could not be audited, or not to its end.
EXIT_INCOMPLETE = 3

#: Defects that are printed.
_MOST_PRINTED = 50


def audit(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where the crawl begins.")],
    max_rate: Annotated[
        float,
        typer.Option("--max-rate", min=0, metavar="N", help="Requests a second; 0: no limit."),
    ] = 10.0,
    at_once: Annotated[
        int | None,
        typer.Option("--at-once", min=1, max=64, help="Requests at once; 4, 16 without a limit."),
    ] = None,
    connect: Annotated[
        str,
        typer.Option(metavar="ADDRESS[:PORT]", help="Connect there, whatever the site's own is."),
    ] = "",
    hosts: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="HOST", help="Another host that belongs to the site."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="GLOB", help="Only pages of these paths: /docs/**."),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option("--skip", metavar="GLOB", help="Nothing of these paths: /archive/**."),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option("--also", help="Follow these too: data-src, svg-use, og-image."),
    ] = None,
    external: Annotated[
        bool, typer.Option("--external", help="Ask for links to other sites too.")
    ] = False,
    robots: Annotated[
        bool, typer.Option("--robots/--no-robots", help="Keep to robots.txt.")
    ] = True,
    fragments: Annotated[
        bool, typer.Option("--fragments/--no-fragments", help="Judge links into pages.")
    ] = True,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Whether certificates must be good.")
    ] = True,
    ca_file: Annotated[
        Path | None,
        typer.Option("--ca-file", metavar="FILE", help="Certificates to believe, PEM."),
    ] = None,
    credentials: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Header lines that the site is sent, and nobody else: mode 0600."
        ),
    ] = None,
    pages: Annotated[int, typer.Option("--pages", min=1, help="Addresses at most.")] = 10_000,
    depth: Annotated[int, typer.Option("--depth", min=0, help="Clicks at most.")] = 50,
    time: Annotated[str, typer.Option("--time", metavar="D", help="Time at most.")] = "1h",
    slow: Annotated[str, typer.Option("--slow", metavar="D", help="0: nothing is.")] = "5s",
    large: Annotated[str, typer.Option("--large", metavar="SIZE", help="0: nothing is.")] = "5M",
    since: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An earlier result (--json): only what is new counts."),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep there how far it is, so that it can be resumed."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the state file ends, if there is one.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a report there.")
    ] = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Crawl a site once, and say what is broken in it; no agent is needed.

    Exit codes: 0 nothing is wrong (with --since: nothing new), 1 something is, 2 wrong usage, 3 the
    site could not be audited, or not to its end, 130 interrupted.
    """
    from agent.audit.order import Order
    from agent.audit.plan import Plan, choose_pace

    if resume and state is None:
        raise typer.BadParameter("it needs --state FILE", param_hint="--resume")
    plan = Plan(
        url=read_url(url, "URL"),
        connect=connect,
        hosts=tuple(hosts or ()),
        only=tuple(only or ()),
        skip=tuple(skip or ()),
        also=tuple(also or ()),
        external=external,
        robots=robots,
        fragments=fragments,
        verify=verify,
        ca_file=str(ca_file.absolute()) if ca_file else "",
        credentials=str(credentials.absolute()) if credentials else "",
        pages=pages,
        depth=depth,
        seconds=_read(parse_duration, time, "--time"),
        slow=0.0 if slow == "0" else _read(parse_duration, slow, "--slow"),
        large=0 if large == "0" else _read(parse_size, large, "--large"),
        **choose_pace(max_rate, at_once),
    )
    _check_plan(plan)
    earlier = _load(since) if since else None
    order = Order(plan=plan, journal=state.absolute() if state else None, resume=resume)
    try:
        found = asyncio.run(_order(order))
    except HostmendError as error:
        typer.echo(f"hostmend: {clean(str(error))}", err=True)
        raise typer.Exit(EXIT_INCOMPLETE) from error
    if earlier is not None:
        found = _compare(found, earlier)
    _report(found, html, junit, as_json=as_json)
    raise typer.Exit(_find_exit(found))


def _read(parse: Any, text: str, option: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def _check_plan(plan: Plan) -> None:
    from agent.audit.plan import ALSO
    from agent.host.url import read_address

    if plan.connect:
        _read(read_address, plan.connect, "--connect")
    for name in plan.also:
        if name not in ALSO:
            raise typer.BadParameter(f"choose of {', '.join(ALSO)}", param_hint="--also")


def _load(path: Path) -> Audit:
    from agent.audit.result import load_audit

    try:
        return load_audit(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"cannot use {path}: {error}", param_hint="--since") from error


async def _order(order: Any) -> Audit:
    from agent.audit.client import order_audit

    if not sys.stderr.isatty():
        return await order_audit(order)
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("asking for the first page") as status:

        def show(counts: Mapping[str, int]) -> None:
            status.update(
                f"{counts['asked']:,} of {counts['asked'] + counts['waiting']:,} addresses, "
                f"{counts['pages']:,} pages, {counts['broken']:,} broken"
            )

        return await order_audit(order, on_progress=show)


def _compare(found: Audit, earlier: Audit) -> Audit:
    """What is new and what is mended since an earlier result."""
    from dataclasses import replace

    from agent.audit.changes import compare, remember

    change = compare(
        remember(earlier),
        found.defects,
        (seen.url for seen in found.urls if seen.fate in ("fine", "redirect")),
        site=found.site,
        now=found.began,
        complete=found.complete,
    )
    return replace(
        found,
        compared=earlier.began,
        defects=change.defects,
        fixed=change.fixed,
        groups=change.groups,
    )


def _find_exit(found: Audit) -> int:
    if not found.complete:
        return EXIT_INCOMPLETE
    return EXIT_DEFECTS if found.new else 0


def _report(found: Audit, html: Path | None, junit: Path | None, *, as_json: bool) -> None:
    from agent.audit.report_html import write_html
    from agent.audit.report_junit import write_junit
    from agent.audit.result import dump_audit

    for path, write in ((html, write_html), (junit, write_junit)):
        if path is not None:
            write_report(path, write(found))
    if as_json:
        sys.stdout.write(dump_audit(found) + "\n")
    else:
        _print(Screen(), found)


def _print(screen: Screen, found: Audit) -> None:
    from agent.audit.words import tell_more, tell_referrer, tell_verdict

    worst = next((d.status for d in found.found), "unknown" if not found.complete else "ok")
    screen.line(tell_verdict(found), STYLES.get(worst, ""))
    for defect in found.found[:_MOST_PRINTED]:
        screen.line()
        mark = "" if found.new == found.found else (" (new)" if defect.new else " (not new)")
        rule = f" {defect.rule}" if defect.rule else ""
        screen.line(f"{defect.kind}{rule}{mark}  {defect.target}", STYLES.get(defect.status, ""))
        screen.line(f"    {defect.why}" + (f"; {defect.hint}" if defect.hint else ""))
        for referrer in defect.referrers:
            screen.line(f"    from {tell_referrer(referrer)}")
        if more := tell_more(defect):
            screen.line(f"    {more}")
    left = len(found.found) - _MOST_PRINTED
    if left > 0:
        screen.line()
        screen.line(f"and {left:,} more: --json, --html and --junit have all of them")
    if found.fixed:
        screen.heading("Mended since")
        for key in found.fixed[:_MOST_PRINTED]:
            screen.line(f"    {key}")
    if found.notes:
        screen.heading("Notes")
        for note in found.notes:
            screen.line(f"    {note}")
