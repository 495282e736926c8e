"""`hostmend run`: the agent itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.running import RunningAgent
    from agent.settings import Settings
    from api.server import Listening

#: The configuration cannot be used.
EXIT_CONFIG = 2


def run() -> None:
    """Run the agent and its API in the foreground, until SIGTERM or Ctrl-C.

    SIGHUP reads the configuration again. Exit codes: 0 stopped as asked, 1 it cannot start,
    2 the configuration cannot be used.
    """
    import asyncio
    import logging

    from agent.settings import read_settings

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    # Each request of a check would be a line.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        asyncio.run(_serve(read_settings()))
    except ConfigError as error:
        typer.echo(f"hostmend: {error}", err=True)
        raise typer.Exit(EXIT_CONFIG) from error


async def _serve(settings: Settings) -> None:
    from agent import __version__
    from agent.bootstrap import open_agent
    from api.server import serve

    async with open_agent(settings) as agent:
        await serve(
            agent,
            settings,
            ready=lambda listening: _say_ready(agent, listening),
            drain=agent.drain,
            version=__version__,
        )


def _say_ready(agent: RunningAgent, listening: Listening) -> None:
    if listening.http is None:
        agent.problems["http"] = listening.problem
    status = agent.status()
    checks = sum(status.checks_count.values())
    typer.echo(f"hostmend {status.version} watches {checks} checks of {status.host}")
    typer.echo(f"configuration: {status.config_path}")
    typer.echo(f"socket: {listening.socket}")
    if listening.http is not None:
        host, port = listening.http
        scheme = "https" if listening.tls else "http"
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"HTTP: {scheme}://{shown}:{port}/healthz")
    for name, why in status.missing.items():
        typer.echo(f"missing: {name}: {why}")
    for problem in status.problems:
        typer.echo(f"problem: {problem}")
