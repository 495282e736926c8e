"""What several commands share: options, exit codes, the way to the agent."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.core.units import parse_duration
from agent.errors import Conflict

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


@dataclass(frozen=True, kw_only=True)
class Server:
    """An agent of another host, as the command line or the environment names it."""

    url: str
    token_file: Path | None
    ca_file: Path | None


#: None: the agent of this host.
server: ContextVar[Server | None] = ContextVar("server", default=None)


@contextmanager
def open_client() -> Iterator[Client]:
    """A client of the agent that `--server` names, or of this user's, or of this host's when the
    user has none."""
    from agent.settings import read_settings
    from api.client import Client, open_remote

    remote = server.get()
    if remote is not None:
        with open_remote(remote.url, remote.token_file, remote.ca_file) as client:
            yield client
        return
    path = read_settings().socket_path
    if not path.exists() and HOST_SOCKET.exists():
        path = HOST_SOCKET
    with Client(path) as client:
        yield client


def read_duration(text: str, option: str) -> float:
    """Seconds, from `30m`; anything else is wrong usage of the option."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def read_url(text: str, option: str) -> str:
    """A URL as it was named, `https://` where no scheme was; anything else is wrong usage."""
    from agent.host.url import parse_url

    whole = text if "://" in text else f"https://{text}"
    try:
        parse_url(whole)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
    return whole


def write_report(path: Path, text: str) -> None:
    """Writes a report; what UTF-8 cannot hold becomes a question mark. Raises Conflict."""
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise Conflict(f"cannot write {path}: {error.strerror}") from error
