"""A small client of one agent's API, as the command uses it."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from agent.errors import Conflict, HostmendError, Invalid, NotFound, Unavailable

# httpx loads its own command with all of rich and pygments if it can, which is half the time that
# `hostmend status` takes. This makes it believe that it cannot.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
import httpx  # noqa: E402

_CONNECT_SECONDS = 5.0
_ERRORS: Mapping[int, type[HostmendError]] = {
    400: Invalid,
    404: NotFound,
    409: Conflict,
    413: Invalid,
    422: Invalid,
    503: Unavailable,
}


class Unreachable(Unavailable):
    """No agent answers."""


class Client:
    """Requests to one agent through its UNIX socket. The API's problems are raised as errors."""

    def __init__(self, socket_path: Path, *, timeout: float = 60.0) -> None:
        """`timeout` is the longest wait for any part of an answer, in seconds."""
        self._path = socket_path
        self._http = httpx.Client(
            # Nothing is encrypted here, and making a TLS context takes longer than asking.
            transport=httpx.HTTPTransport(uds=os.fspath(socket_path), verify=False),
            base_url="http://hostmend",
            timeout=httpx.Timeout(timeout, connect=_CONNECT_SECONDS),
            # Proxies of the environment are for other hosts.
            trust_env=False,
        )

    def __enter__(self) -> Self:
        """Raises Unreachable when no agent answers."""
        self._knock()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of one GET. `query` values that are None are left out."""
        asked = {name: value for name, value in query.items() if value is not None}
        return self._send("GET", path, params=asked)

    def post(self, path: str, order: Mapping[str, Any] | None = None) -> Any:
        """The JSON of one POST. It has a key of its own: should it arrive twice, it acts once."""
        return self._send(
            "POST", path, json=dict(order or {}), headers={"Idempotency-Key": str(uuid.uuid4())}
        )

    def pages(self, path: str, *, at_most: int | None = None, **query: Any) -> Iterator[Any]:
        """The items of a list, part by part, at most so many."""
        before: str | None = None
        left = at_most
        while left is None or left > 0:
            limit = 500 if left is None else min(left, 500)
            page = self.get(path, limit=limit, before=before, **query)
            yield from page["items"]
            before = page["next"]
            if before is None:
                return
            if left is not None:
                left -= len(page["items"])

    def _send(self, method: str, path: str, **parts: Any) -> Any:
        try:
            answer = self._http.request(method, path, **parts)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(self._say_unreachable()) from error
        except httpx.TimeoutException as error:
            raise Unreachable(
                f"cannot reach the agent at {self._path}: it did not answer in time"
            ) from error
        except httpx.TransportError as error:
            raise Unreachable(
                f"cannot go on with the agent at {self._path}: the connection ended ({error})"
            ) from error
        if answer.is_success:
            return answer.json()
        raise _read_problem(answer)

    def _knock(self) -> None:
        """Connects once by itself: this knows why it cannot, and httpcore leaves the socket of a
        connection that failed open."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(_CONNECT_SECONDS)
                probe.connect(os.fspath(self._path))
        except PermissionError as error:
            raise Unreachable(
                f"cannot reach the agent at {self._path}: permission denied; "
                "use root, or a user whom the socket's group has"
            ) from error
        except OSError as error:
            raise Unreachable(self._say_unreachable()) from error

    def _say_unreachable(self) -> str:
        return (
            f"cannot reach the agent at {self._path}: is it running? start it with `hostmend run`"
        )


def quote_part(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


def _read_problem(answer: httpx.Response) -> HostmendError:
    try:
        detail = str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"cannot read the agent's answer: status {answer.status_code} without a problem"
    return _ERRORS.get(answer.status_code, HostmendError)(detail)
