"""A small client of one agent's API, as the command uses it."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from agent.errors import Conflict, HostmendError, Invalid, NotFound, Unavailable
from api.addresses import is_loopback

# httpx loads its own command with all of rich and pygments if it can, which is half the time that
# `hostmend status` takes. This makes it believe that it cannot.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
import httpx  # noqa: E402

_CONNECT_SECONDS = 5.0
_LONGEST_SECRET = 1024
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


@dataclass(frozen=True, kw_only=True)
class Remote:
    """An agent of another host. Made by `read_remote`, which checks it."""

    url: str
    host: str
    port: int
    secret: str = field(repr=False)
    #: None: plain HTTP.
    tls: ssl.SSLContext | None


class Client:
    """Requests to one agent, through its UNIX socket or over the network. The API's problems are
    raised as errors."""

    def __init__(self, where: Path | Remote, *, timeout: float = 60.0) -> None:
        """`timeout` is the longest wait for any part of an answer, in seconds."""
        self._where = where
        if isinstance(where, Remote):
            transport = httpx.HTTPTransport(verify=where.tls or False)
            url, headers = where.url, {"Authorization": f"Bearer {where.secret}"}
        else:
            # Nothing is encrypted here, and making a TLS context takes longer than asking.
            transport = httpx.HTTPTransport(uds=os.fspath(where), verify=False)
            url, headers = "http://hostmend", {}
        self._http = httpx.Client(
            transport=transport,
            base_url=url,
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=_CONNECT_SECONDS),
            # Proxies of the environment are for other hosts.
            trust_env=False,
        )

    @property
    def _shown(self) -> str:
        return self._where.url if isinstance(self._where, Remote) else str(self._where)

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

    def delete(self, path: str) -> Any:
        """The JSON of one DELETE."""
        return self._send("DELETE", path, headers={"Idempotency-Key": str(uuid.uuid4())})

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
            raise Unreachable(self._say_unreachable(error)) from error
        except httpx.TimeoutException as error:
            raise Unreachable(
                f"cannot reach the agent at {self._shown}: it did not answer in time"
            ) from error
        except httpx.TransportError as error:
            raise Unreachable(
                f"cannot go on with the agent at {self._shown}: the connection ended ({error})"
            ) from error
        if answer.is_success:
            return self._read_json(answer)
        raise _read_problem(answer)

    def _read_json(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError as error:
            raise HostmendError(
                f"cannot read the answer of {self._shown}: it is no JSON; is that an agent?"
            ) from error

    def _knock(self) -> None:
        """Connects once by itself: this knows why it cannot, and httpcore leaves the socket of a
        connection that failed open."""
        if isinstance(self._where, Remote):
            self._knock_at(self._where)
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(_CONNECT_SECONDS)
                probe.connect(os.fspath(self._where))
        except PermissionError as error:
            raise Unreachable(
                f"cannot reach the agent at {self._where}: permission denied; "
                "use root, or a user whom the socket's group has"
            ) from error
        except OSError as error:
            raise Unreachable(self._say_unreachable(error)) from error

    def _knock_at(self, remote: Remote) -> None:
        try:
            with socket.create_connection((remote.host, remote.port), _CONNECT_SECONDS) as probe:
                if remote.tls is not None:
                    # The certificate is checked before the token is sent anywhere.
                    remote.tls.wrap_socket(probe, server_hostname=remote.host).close()
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason or error
            raise Unreachable(
                f"cannot trust the agent at {remote.url}: {why}; "
                "name the certificate that signed its own with --ca-file"
            ) from error
        except OSError as error:
            raise Unreachable(self._say_unreachable(error)) from error

    def _say_unreachable(self, error: Exception) -> str:
        if isinstance(self._where, Remote):
            return f"cannot reach the agent at {self._where.url}: {error}"
        return (
            f"cannot reach the agent at {self._where}: is it running? start it with `hostmend run`"
        )


def open_remote(url: str, token_file: Path | None, ca_file: Path | None) -> Client:
    """A client of an agent on the network. Raises Invalid for what cannot be used."""
    return Client(read_remote(url, token_file, ca_file))


def read_remote(url: str, token_file: Path | None, ca_file: Path | None) -> Remote:
    """An agent's address, checked, with the secret and the certificates to use for it."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise Invalid(f"cannot use the server {url!r}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.host or parts.path.strip("/"):
        raise Invalid(f"cannot use the server {url!r}: write for example https://web1:8642")
    if parts.userinfo or parts.query or parts.fragment:
        raise Invalid("cannot use the server: write it as https://HOST:PORT, and nothing more")
    plain = parts.scheme == "http"
    if plain and not is_loopback(parts.host) and os.environ.get("HOSTMEND_ALLOW_PLAIN") != "1":
        raise Invalid(
            f"cannot use the server {url}: everybody on the way could read the token; "
            "use https, or set HOSTMEND_ALLOW_PLAIN=1"
        )
    if token_file is None:
        raise Invalid(
            f"cannot ask {url}: it takes a token; name a file that holds its secret with "
            "--token-file or HOSTMEND_TOKEN_FILE"
        )
    secret = read_secret_file(token_file)
    return Remote(
        url=f"{parts.scheme}://{parts.netloc.decode()}",
        host=parts.host,
        port=parts.port or (80 if plain else 443),
        secret=secret,
        tls=None if plain else _make_tls(ca_file),
    )


def read_secret_file(path: Path) -> str:
    """A token's secret, alone in a file of its own. Raises Invalid; no error shows content."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_LONGEST_SECRET + 1)
    except OSError as error:
        raise Invalid(f"cannot read the token file {path}: {error.strerror}") from error
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise Invalid(
            f"cannot use the token file {path}: its mode {mode:04o} lets others in; "
            f"run chmod 0600 {path}"
        )
    try:
        secret = content.decode("ascii").strip()
    except UnicodeDecodeError:
        secret = ""
    if not secret or len(secret) > _LONGEST_SECRET or not secret.isprintable() or " " in secret:
        raise Invalid(f"cannot use the token file {path}: it must hold one secret and nothing else")
    return secret


def _make_tls(ca_file: Path | None) -> ssl.SSLContext:
    """The system's certificates, or those of a file and no others."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise Invalid(f"cannot use the certificates in {ca_file}: {why}") from error


def quote_part(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


def _read_problem(answer: httpx.Response) -> HostmendError:
    try:
        detail = str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"cannot read the agent's answer: status {answer.status_code} without a problem"
    return _ERRORS.get(answer.status_code, HostmendError)(detail)
