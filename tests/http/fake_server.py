"""Serves the agent in memory on real sockets: `fake_server.py SOCKET [--slow-drain]`.

Prints the TCP port once it answers, then `draining` and `drained` when it stops.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from fake_agent import make_busy_agent

from api.server import Listening, serve


@dataclass(frozen=True)
class Places:
    socket_path: Path
    listen: tuple[str, int] = ("127.0.0.1", 0)


async def main(socket_path: Path, *, slow: bool) -> None:
    agent = make_busy_agent(time.time)

    def ready(listening: Listening) -> None:
        print(listening.http[1] if listening.http else 0, flush=True)

    async def drain() -> None:
        print("draining", flush=True)
        if slow:
            await asyncio.Event().wait()
        print("drained", agent.orders, flush=True)

    await serve(agent, Places(socket_path), ready=ready, drain=drain)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), slow="--slow-drain" in sys.argv))
