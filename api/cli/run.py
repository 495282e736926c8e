"""`hostmend run`: the agent itself."""

from __future__ import annotations


def run() -> None:
    """Run the agent and its API in the foreground, until SIGTERM or Ctrl-C.

    SIGHUP reads the configuration again. Exit codes: 0 stopped as asked, 1 it cannot start.
    """
    import asyncio

    from agent.bootstrap import run_agent  # type: ignore[attr-defined]
    from agent.settings import read_settings

    asyncio.run(run_agent(read_settings()))
