"""`hostmend demo`: a page of its own to break and see healed; needs no root and no systemd."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.core.units import format_duration
from agent.errors import Conflict

if TYPE_CHECKING:
    from agent.feed import LiveEvent
    from agent.running import RunningAgent
    from agent.settings import Settings

_CONFIGURATION = """\
# Written by `hostmend demo`: one page, repaired by the remedy restore-demo-page.
version: 1
checks:
  page:
    type: demo
    page: {page}
    port: {port}
routes:
  terminal:
    url: json://127.0.0.1:{port}/letters
    reasons: [opened, escalated, held, healed, ended, recurring, storm, agent]
"""

_BROKEN = "<h1>500 Oops</h1>\n<p>Somebody deployed half a page.\n"

_LABELS = {
    "look": ("LOOK", typer.colors.CYAN),
    "incident": ("INCIDENT", typer.colors.YELLOW),
    "run": ("RUN", typer.colors.BLUE),
    "task": ("TASK", typer.colors.BLUE),
    "proof": ("PROOF", typer.colors.GREEN),
    "notice": ("NOTICE", typer.colors.MAGENTA),
    "demo": ("DEMO", typer.colors.WHITE),
}

_Port = Annotated[int, typer.Option("--port", help="Where the page is served, on 127.0.0.1.")]


def make_app() -> typer.Typer:
    """The command group; without a subcommand it runs the demo."""
    app = typer.Typer(
        name="demo", help="A page of its own to break and see healed.", rich_markup_mode=None
    )

    @app.callback(invoke_without_command=True)
    def demo(
        context: typer.Context,
        port: _Port = 8643,
        once: Annotated[
            bool,
            typer.Option("--once", help="Break the page, wait until it is healed, and end."),
        ] = False,
    ) -> None:
        """Serve a page, watch it, and show what happens to it, until Ctrl-C.

        Exit codes: 0 ended as asked, 1 it cannot start or, with --once, the page was not healed.
        """
        if context.invoked_subcommand is None:
            asyncio.run(_run_demo(port, once=once))

    @app.command("break")
    def break_page() -> None:
        """Break the page of the demo that runs."""
        page = _home() / "page" / "index.html"
        if not page.exists():
            raise Conflict("cannot break the page: no demo runs; start it with `hostmend demo`")
        page.write_text(_BROKEN)
        typer.echo(f"{page} is broken now; watch the other terminal")

    return app


def _home() -> Path:
    from agent.settings import read_settings

    return read_settings().state_dir / "demo"


def _settle(home: Path, port: int) -> Settings:
    """A demo's own places: it never touches an agent that is installed here."""
    from agent.remedies.catalog import SHIPPED
    from agent.settings import Settings, read_settings

    page = home / "page" / "index.html"
    page.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    page.write_bytes((SHIPPED / "restore-demo-page" / "files" / "index.html").read_bytes())
    configuration = home / "hostmend.yml"
    configuration.write_text(_CONFIGURATION.format(page=json.dumps(str(page)), port=port))
    runtime = read_settings().runtime_dir / "demo"
    return Settings(
        config=configuration,
        state_dir=home / "state",
        runtime_dir=runtime,
        listen=("127.0.0.1", 0),
    )


async def _run_demo(port: int, *, once: bool) -> None:
    from agent.bootstrap import open_agent
    from agent.host.page import PageServer

    home = _home()
    settings = _settle(home, port)
    page = home / "page" / "index.html"
    letters: asyncio.Queue[bytes] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def take_letter(body: bytes) -> None:
        loop.call_soon_threadsafe(letters.put_nowait, body)

    server = PageServer(port, page, take_letter)
    try:
        async with open_agent(settings) as agent:
            _say("demo", f"a page is served at http://127.0.0.1:{port}/ and looked at every 2 s")
            for name, why in agent.status().missing.items():
                _say("demo", f"missing: {name}: {why}")
            watching = [
                asyncio.ensure_future(_show_events(agent, after=0)),
                asyncio.ensure_future(_show_letters(letters)),
            ]
            try:
                if once:
                    await _break_and_wait(agent, page)
                else:
                    _say("demo", "break it from another terminal: hostmend demo break")
                    _say("demo", "end with Ctrl-C")
                    await asyncio.Event().wait()
            except asyncio.CancelledError:
                _say("demo", "ending")
            finally:
                for task in watching:
                    task.cancel()
    finally:
        server.close()
        page.unlink(missing_ok=True)


async def _break_and_wait(agent: RunningAgent, page: Path) -> None:
    async with asyncio.timeout(90):
        await agent.look("page")
        _say("demo", f"breaking {page}")
        page.write_text(_BROKEN)  # noqa: ASYNC240  # a few bytes
        healed = False
        async for event in agent.events():
            if event.kind == "incident" and event.data["new"] in ("resolved", "escalated"):
                healed = event.data["resolved_by"] == "run"
            if event.kind == "notice" and event.data["state"] == "delivered" and healed:
                break
        # The letter is on its way to the terminal.
        await asyncio.sleep(0.2)


async def _show_events(agent: RunningAgent, after: int) -> None:
    async for event in agent.events(after=after):
        line = _tell(event)
        if line is not None:
            _say(*line)


async def _show_letters(letters: asyncio.Queue[bytes]) -> None:
    while True:
        body = await letters.get()
        try:
            letter = json.loads(body)
        except ValueError:
            continue
        _say("notice", f"arrived: {letter.get('title', '')}")
        for line in str(letter.get("message", "")).splitlines():
            typer.echo(f"           | {line}")


def _tell(event: LiveEvent) -> tuple[str, str] | None:
    """One event as the kind and text of a line; None for what would only be noise."""
    data: Any = event.data
    match event.kind:
        case "look":
            for finding in data["findings"]:
                return "look", f"{finding['status']}: {finding['summary']}"
            return "look", data["broken"] or "nothing to see"
        case "incident" if data["new"] == "probation":
            return "proof", "a look that began after the run saw the page whole"
        case "incident" if data["new"] == "resolved":
            down = format_duration(data["downtime_seconds"])
            by = f"by the {data['resolved_by']}"
            return "incident", f"{data['incident']} resolved {by}; the page was down for {down}"
        case "incident":
            return "incident", f"{data['incident']} is {data['new']}: {data['why']}"
        case "run" if data["state"] == "ended":
            return "run", f"{data['run']} ended {data['outcome']}: {data['detail']}"
        case "run":
            return "run", f"{data['run']} {data['state']}: {data['remedy']}"
        case "task" if data.get("event") == "task":
            return "task", f"{data['status']}: {data['task']}"
        case "notice" if data["state"] == "due" and data["attempts"]:
            return "notice", f"not delivered yet, tried again: {data['error']}"
        case "notice" if data["state"] == "delivered":
            return "notice", f"{data['reason']} delivered to {data['route']}"
    return None


def _say(kind: str, text: str) -> None:
    label, colour = _LABELS[kind]
    typer.echo(typer.style(f"{label:<9}", fg=colour, bold=True) + f"  {text}")
