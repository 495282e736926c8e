"""`hostmend rehearse`: the gate that a release passes before it is production."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.errors import Conflict, HostmendError
from api.cli.parts import Json, Limit, open_client, read_duration, read_url, write_report
from api.cli.screen import Screen, clean, tell_ago

if TYPE_CHECKING:
    from agent.rehearsal.drills import DrillOrder
    from agent.rehearsal.rehearsal import Plan, Preview, Rehearsal
    from agent.rehearsal.verdict import Gate
    from api.client import Client

#: Nothing was concluded, and why is said.
EXIT_INCONCLUSIVE = 3

_STYLES = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "warning": "yellow"}


def rehearse(
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="The release's URL.")],
    baseline: Annotated[str, typer.Option(metavar="URL", help="What runs today, to compare with.")],
    traffic: Annotated[
        list[Path] | None,
        typer.Option(metavar="LOG", help="Access logs, plain or gzipped; oldest first."),
    ] = None,
    candidate_at: Annotated[
        str,
        typer.Option(metavar="ADDRESS[:PORT]", help="Connect there, whatever its name's own is."),
    ] = "",
    baseline_at: Annotated[
        str, typer.Option(metavar="ADDRESS[:PORT]", help="Likewise for the baseline.")
    ] = "",
    pairs: Annotated[
        int, typer.Option(min=1, max=1_000_000, metavar="N", help="Requests asked of both.")
    ] = 1000,
    speed: Annotated[
        float, typer.Option(min=0.001, metavar="N", help="Times faster than the log.")
    ] = 1.0,
    max_rate: Annotated[
        float, typer.Option("--max-rate", min=0.1, max=2000, metavar="N", help="Pairs a second.")
    ] = 20.0,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="REGEX", help="Writes that are asked too: '^POST /search$'."),
    ] = None,
    slower: Annotated[
        float, typer.Option(min=0, metavar="PERCENT", help="So much slower is let pass.")
    ] = 10.0,
    expected_ratio: Annotated[
        float,
        typer.Option(min=0.01, max=100, metavar="N", help="Unlike hardware: times the baseline."),
    ] = 1.0,
    pages: Annotated[
        bool, typer.Option("--pages/--no-pages", help="Audit every page of both first.")
    ] = True,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Whether certificates must be good.")
    ] = True,
    ca_file: Annotated[
        Path | None, typer.Option("--ca-file", metavar="FILE", help="Certificates to believe, PEM.")
    ] = None,
    credentials: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Header lines that the candidate is sent: mode 0600."),
    ] = None,
    same_host: Annotated[
        bool, typer.Option("--same-host", help="Both may be one address and port.")
    ] = False,
    drill: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'FAULT KEY=VALUE...'", help="Inject this fault while traffic goes on."
        ),
    ] = None,
    drill_within: Annotated[
        str, typer.Option(metavar="D", help="Each must be detected, healed, verified by then.")
    ] = "2m",
    candidate_agent: Annotated[
        str, typer.Option(metavar="URL", help="The candidate's own agent, for drills.")
    ] = "",
    candidate_token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A token of it with the role driller.")
    ] = None,
    candidate_agent_ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Who signed its certificate, PEM.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Draws the same sample again.")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be asked; ask nothing.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report with plots there.")
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write JUnit XML there.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Have this host's agent keep the report.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Try a release beside what runs today: every page, and users' real requests.

    Exit codes: 0 pass, 1 fail, 2 wrong usage, 3 inconclusive, 4 ended for safety.
    """
    from agent.rehearsal.rehearsal import Plan, exit_code, preview
    from agent.rehearsal.verdict import Limits

    for pattern in allow or ():
        try:
            re.compile(pattern)
        except re.error as error:
            raise typer.BadParameter(f"{pattern!r}: {error}", param_hint="--allow") from error
    plan = Plan(
        candidate=read_url(candidate, "CANDIDATE"),
        baseline=read_url(baseline, "--baseline"),
        candidate_at=_read_place(candidate_at, "--candidate-at"),
        baseline_at=_read_place(baseline_at, "--baseline-at"),
        traffic=tuple(traffic or ()),
        allow=tuple(allow or ()),
        pairs=pairs,
        speed=speed,
        ceiling=max_rate,
        pages=pages,
        verify=verify,
        ca_file=ca_file,
        credentials=credentials,
        same_host=same_host,
        seed=seed,
        limits=Limits(slower=slower / 100, expected_ratio=expected_ratio),
        drills=tuple(_read_drill(text, drill_within) for text in drill or ()),
    )
    if plan.drills and not candidate_agent:
        raise typer.BadParameter(
            "drills are ordered of the candidate's agent: name it", param_hint="--candidate-agent"
        )
    screen = Screen()
    try:
        if dry_run:
            _print_preview(screen, preview(plan), as_json=as_json)
            return
        agent = _open_agent(candidate_agent, candidate_token_file, candidate_agent_ca)
        found = asyncio.run(_rehearse(plan, agent))
        _write_reports(found, html, junit)
    except Conflict as error:
        typer.echo(f"hostmend: {clean(str(error))}", err=True)
        raise typer.Exit(2) from error
    except HostmendError as error:
        typer.echo(f"hostmend: {clean(str(error))}", err=True)
        raise typer.Exit(EXIT_INCONCLUSIVE) from error
    if as_json:
        from agent.rehearsal.report import write_json

        sys.stdout.write(write_json(found) + "\n")
    else:
        _print(screen, found)
    if keep:
        _keep(found)
    raise typer.Exit(exit_code(found))


def _keep(found: Rehearsal) -> None:
    """What goes wrong is told, and changes no verdict."""
    from agent.rehearsal.report import describe_rehearsal

    report = describe_rehearsal(found)
    order = {
        **{key: report[key] for key in ("verdict", "headline", "candidate", "baseline")},
        "took_seconds": found.ended - found.began,
        "report": report,
    }
    try:
        with open_client() as client:
            kept = client.post("/v1/rehearsals", order)
        typer.echo(f"hostmend: the agent keeps it as {kept['id']}", err=True)
    except HostmendError as error:
        typer.echo(f"hostmend: the report is not kept: {clean(str(error))}", err=True)


def list_rehearsals(limit: Limit = 20, as_json: Json = False) -> None:
    """List rehearsals whose reports were kept, newest first."""
    with open_client() as client:
        found = list(client.pages("/v1/rehearsals", at_most=limit))
    screen = Screen()
    if as_json:
        screen.json({"items": found, "next": None})
        return
    rows = [
        (each["id"], tell_ago(each["kept"]), each["candidate"], each["headline"]) for each in found
    ]
    screen.table(("ID", "WHEN", "CANDIDATE", "VERDICT"), rows, "No rehearsals.")


def show_rehearsal(
    rehearsal_id: Annotated[str, typer.Argument(metavar="ID", help="Its id, such as h3.")],
    as_json: Json = False,
) -> None:
    """One rehearsal: its verdict and every gate; `--json` has the whole report."""
    from api.client import quote_part

    with open_client() as client:
        found = client.get(f"/v1/rehearsals/{quote_part(rehearsal_id)}")
    screen = Screen()
    if as_json:
        screen.json(found)
        return
    screen.line(found["headline"], _STYLES.get(found["verdict"], ""))
    screen.line(
        f"  {found['candidate']} beside {found['baseline']}, kept {tell_ago(found['kept'])}"
    )
    for gate in found["report"].get("gates", ()):
        failed = gate["outcome"] == "fail" and not gate["blocking"]
        mark = "warning" if failed else gate["outcome"]
        screen.line(f"  {mark:<12} {gate['name']}: {gate['summary']}", _STYLES.get(mark, ""))
        for case in gate["cases"][:5]:
            screen.line(f"               {case}")


def _read_place(text: str, name: str) -> str:
    from agent.host.url import read_address

    try:
        if text:
            read_address(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=name) from error
    return text


def _read_drill(text: str, within: str) -> DrillOrder:
    from agent.rehearsal.drills import DrillOrder

    try:
        words = shlex.split(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: {error}", param_hint="--drill") from error
    options = dict(word.partition("=")[::2] for word in words[1:] if "=" in word)
    if not words or len(options) != len(words) - 1:
        raise typer.BadParameter(
            f"{text!r}: write for example 'kill-service unit=nginx.service'", param_hint="--drill"
        )
    seconds = read_duration(within, "--drill-within")
    return DrillOrder(fault=words[0], options=options, within=seconds)


class _CandidateAgent:
    """The candidate's agent over its API."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def count_incidents(self) -> int:
        found = await asyncio.to_thread(self._client.get, "/v1/incidents", live="true")
        return len(found["items"])

    async def start(self, order: DrillOrder) -> Mapping[str, Any]:
        wanted = {
            "fault": order.fault,
            "options": dict(order.options),
            "within_seconds": order.within,
        }
        told: Mapping[str, Any] = await asyncio.to_thread(self._client.post, "/v1/drills", wanted)
        return told

    async def show(self, drill_id: str) -> Mapping[str, Any]:
        told: Mapping[str, Any] = await asyncio.to_thread(
            self._client.get, f"/v1/drills/{drill_id}"
        )
        return told

    async def end(self, drill_id: str) -> None:
        await asyncio.to_thread(self._client.delete, f"/v1/drills/{drill_id}")


def _open_agent(url: str, token_file: Path | None, ca_file: Path | None) -> _CandidateAgent | None:
    """Raises HostmendError where it cannot be reached: before anything is asked of anybody."""
    if not url:
        return None
    from api.client import open_remote

    client = open_remote(url, token_file, ca_file)
    with client:
        client.get("/v1/drills", limit=1)
    return _CandidateAgent(open_remote(url, token_file, ca_file))


async def _rehearse(plan: Plan, agent: _CandidateAgent | None) -> Rehearsal:
    from agent.rehearsal.rehearsal import rehearse as carry_out

    if not sys.stderr.isatty():
        return await carry_out(plan, agent=agent)
    from rich.console import Console

    with Console(stderr=True).status("reading the traffic") as status:

        def show(stage: str, done: int, of: int) -> None:
            status.update(f"{stage}: {done:,} of {of:,}")

        return await carry_out(plan, progress=show, agent=agent)


def _write_reports(found: Rehearsal, html: Path | None, junit: Path | None) -> None:
    from agent.rehearsal.report import write_junit
    from agent.rehearsal.report_html import write_html

    for path, write in ((html, write_html), (junit, write_junit)):
        if path is not None:
            write_report(path, write(found))


def _print(screen: Screen, found: Rehearsal) -> None:
    verdict = found.verdict
    screen.line(verdict.headline, _STYLES[verdict.outcome.value])
    for gate in verdict.gates:
        mark = _mark(gate)
        screen.line(f"  {mark:<12} {gate.name}: {gate.summary}", _STYLES[mark])
        for case in gate.cases[:5]:
            screen.line(f"               {case}")
        if len(gate.cases) > 5:
            screen.line(f"               and {len(gate.cases) - 5} more (--html, --json)")
    if found.skipped:
        said = ", ".join(f"{count} {why.value}" for why, count in found.skipped.items())
        screen.line(f"Lines of the log that were not asked: {said}.")


def _mark(gate: Gate) -> str:
    failed = gate.outcome.value == "fail"
    return "warning" if failed and not gate.blocking else gate.outcome.value


def _print_preview(screen: Screen, found: Preview, *, as_json: bool) -> None:
    told: dict[str, Any] = {
        "lines_count": found.lines,
        "skipped": {why.value: count for why, count in found.skipped.items()},
        "requests_count": found.requests,
        "seconds": found.seconds,
        "rate_per_second": found.rate,
        "spacing": found.spacing,
        "groups": dict(found.groups),
    }
    if as_json:
        screen.json(told)
        return
    screen.line(
        f"{found.requests:,} of {found.lines:,} lines would be asked of both sides, in "
        f"{found.seconds:.0f} s, {found.rate:.1f} a second."
    )
    for why, count in found.skipped.items():
        screen.line(f"  {count:>7,}  not asked: {why.value}")
    rows = [(group, f"{count:,}") for group, count in list(found.groups.items())[:20]]
    screen.table(("KIND OF REQUEST", "ASKED"), rows, "Nothing would be asked.")
