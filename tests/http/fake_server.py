"""Serves the agent in memory on real sockets: `fake_server.py SOCKET [--slow-drain]`.

Prints the TCP port and an admin's secret once it answers, then `draining` and `drained` when it
stops.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from fake_agent import make_busy_agent

from agent.agent import Role, Token
from api.limits import Rate, Rates
from api.server import Listening, serve

#: For tests that ask more than any client.
UNLIMITED = Rates(
    requests=Rate(burst=1e9, per_second=1e9), failures=Rate(burst=1e9, per_second=1e9)
)


@dataclass(frozen=True)
class Places:
    socket_path: Path
    listen: tuple[str, int] = ("127.0.0.1", 0)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allow_plain: bool = False


async def main(socket_path: Path, *, slow: bool) -> None:
    agent = make_busy_agent(time.time)
    secret = "hm_lasting"
    agent.lasting[secret] = Token(
        id="t0", name="tester", role=Role.ADMIN, created=time.time(), created_by="fake_server"
    )

    def ready(listening: Listening) -> None:
        print(listening.http[1] if listening.http else 0, secret, flush=True)

    async def drain() -> None:
        print("draining", flush=True)
        if slow:
            await asyncio.Event().wait()
        print("drained", agent.orders, flush=True)

    await serve(agent, Places(socket_path), ready=ready, drain=drain, rates=UNLIMITED)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), slow="--slow-drain" in sys.argv))
