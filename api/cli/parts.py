"""What several commands share: options, exit codes, the way to the agent."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from api.client import Client

EXIT_OK = 0
#: The agent refused, or what was asked for failed.
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3

#: Where the agent of the whole host listens, for users who run none of their own.
HOST_SOCKET = Path("/run/hostmend/hostmend.sock")

Json = Annotated[bool, typer.Option("--json", help="Print JSON, as the API gives it.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="At most this many.")]


@contextmanager
def open_client() -> Iterator[Client]:
    """A client of this user's agent, or of this host's when the user has none."""
    from agent.settings import read_settings
    from api.client import Client

    path = read_settings().socket_path
    if not path.exists() and HOST_SOCKET.exists():
        path = HOST_SOCKET
    with Client(path) as client:
        yield client
