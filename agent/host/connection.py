"""One connection: a name, an address, TCP or a UNIX socket, TLS, and bytes, all within one time.

Whatever asks over a connection goes this way. Names are resolved without a shared thread pool, an
address can be pinned while TLS goes by the name, and each asking has a connection of its own: what
is kept open between looks proves nothing about whether one can be opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from agent.errors import Unavailable
from agent.host.names import Resolve
from agent.host.url import is_address

_T = TypeVar("_T")

_CHUNK = 64 * 1024
#: Seconds between attempts while the queue of a UNIX socket is full.
_QUEUE_SECONDS = 0.02

#: What this host has run out of says nothing of the target.
_OWN_SHORTAGE = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)


class Trouble(StrEnum):
    """Why there is no answer."""

    #: The port is closed.
    REFUSED = "refused"
    #: It took too long.
    TIMEOUT = "timeout"
    #: No TLS connection came about: the certificate, or the handshake itself.
    TLS = "tls"
    #: The name has no address, or nobody could be asked in time.
    DNS = "dns"
    #: There is no way to it, or something on the way forbids it.
    UNREACHABLE = "unreachable"
    #: The connection was ended before the answer was whole.
    RESET = "reset"
    #: What answers does not speak what was expected, or not correctly.
    INVALID = "invalid"
    #: There is no such UNIX socket.
    MISSING = "missing"


class Family(StrEnum):
    """Which addresses of a name are used."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"

    def has(self, address: str) -> bool:
        return (":" in address) is (self is Family.IPV6)


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Whom to connect to."""

    #: A name, or an address without brackets. TLS goes by it.
    host: str = ""
    port: int = 0
    #: Connect to this address, whatever the name's own is; empty for the name's own.
    address: str = ""
    #: None: addresses of any family.
    family: Family | None = None
    #: The UNIX socket to connect to, in place of the address and the port.
    path: str = ""


@dataclass(kw_only=True)
class Timings:
    """Seconds of each stage; None for one that was not come to, or not needed."""

    dns: float | None = None
    connect: float | None = None
    tls: float | None = None
    #: From what was last sent, or from the connection, to the first byte of the answer.
    first_byte: float | None = None

    def measure(self) -> dict[str, float]:
        """As measurements of a finding."""
        named = {
            "dns_seconds": self.dns,
            "connect_seconds": self.connect,
            "tls_seconds": self.tls,
            "first_byte_seconds": self.first_byte,
        }
        return {name: value for name, value in named.items() if value is not None}

    def describe(self) -> list[str]:
        """A line for each stage, for evidence."""
        named = {
            "Name": self.dns,
            "Connection": self.connect,
            "TLS": self.tls,
            "First byte": self.first_byte,
        }
        return [f"{name}: {value:.3f} s" for name, value in named.items() if value is not None]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why there is no answer."""

    trouble: Trouble
    #: One sentence without a full stop; it names no URL.
    why: str
    #: Those that were tried; none when there was no name to resolve to any.
    addresses: tuple[str, ...] = ()
    timings: Timings = field(default_factory=Timings)
    #: Of TLS: OpenSSL's X509_V_ERR_ number for a certificate that was not accepted, else 0.
    verify_code: int = 0

    @property
    def reached(self) -> bool:
        """Whether there was a connection at all."""
        return self.timings.connect is not None


class Ended(Exception):
    """The exchange ended without an answer. `Connection.run` makes a Failure of it: it stays here
    and in the modules that speak over connections."""

    def __init__(self, trouble: Trouble, why: str, *, verify_code: int = 0) -> None:
        super().__init__(why)
        self.trouble = trouble
        self.why = why
        self.verify_code = verify_code


class Connection:
    """A connection on its way: the stage that it has come to, and what it has found out so far."""

    def __init__(self, peer: Peer, resolve: Resolve, seconds: float) -> None:
        self.stage = "beginning"
        self.timings = Timings()
        #: Where it leads: `127.0.0.1:443`, `/run/app.sock`.
        self.place = peer.path
        self._peer = peer
        self._resolve = resolve
        self._seconds = seconds
        self._addresses: tuple[str, ...] = ()
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + seconds
        self._socket: socket.socket | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._sending: asyncio.Future[None] | None = None
        self._asked = 0.0

    async def run(self, work: Callable[[Connection], Awaitable[_T]]) -> _T | Failure:
        """What `work` makes of it, or why it could not, within its time; then it is closed.

        Raises Unavailable when this host itself cannot even try: no free descriptor, no memory.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await work(self)
        except TimeoutError:
            trouble = Trouble.DNS if self.stage == "resolving the name" else Trouble.TIMEOUT
            return self._fail(
                Ended(trouble, f"{self.stage} took longer than {self._seconds:.3g} s")
            )
        except Ended as ended:
            return self._fail(ended)
        except OSError as error:
            return self._fail(explain_error(error, self.place))
        finally:
            await self.close()

    def _fail(self, ended: Ended) -> Failure:
        return Failure(
            trouble=ended.trouble,
            why=ended.why,
            addresses=self._addresses,
            timings=self.timings,
            verify_code=ended.verify_code,
        )

    async def open(self) -> None:
        """Connects. Raises Ended, and Unavailable as `run` does."""
        began = self._loop.time()
        if self._peer.path:
            await self._connect_to_path(self._peer.path)
        else:
            self._addresses = await self._find_addresses()
            began = self._loop.time()
            await self._connect_to_any()
        self.timings.connect = self._loop.time() - began
        self.stage = "waiting for the answer"
        self._asked = self._loop.time()

    async def secure(self, context: ssl.SSLContext, name: str) -> ssl.SSLObject:
        """Speaks TLS from here on, with a server of this name. Raises Ended."""
        self.stage = f"the TLS handshake with {self.place}"
        began = self._loop.time()
        try:
            self._reader, self._writer = await asyncio.open_connection(
                sock=self._socket, ssl=context, server_hostname=name.rstrip(".")
            )
        except OSError as error:
            raise explain_error(error, self.place) from error
        self._socket = None
        self.timings.tls = self._loop.time() - began
        self.stage = "waiting for the answer"
        self._asked = self._loop.time()
        secured: ssl.SSLObject = self._writer.get_extra_info("ssl_object")
        return secured

    def send(self, data: bytes) -> None:
        """Sends without waiting: who does not read all of it may answer all the same.

        What goes wrong is seen by the next `receive`.
        """
        self._asked = self._loop.time()
        self.timings.first_byte = None
        if self._writer is not None:
            self._writer.write(data)
            return
        assert self._socket is not None  # noqa: S101 - open() was called
        sent = 0
        if self._sending is None:
            with contextlib.suppress(OSError):
                sent = self._socket.send(data)
            if sent == len(data):
                return
        self._sending = asyncio.ensure_future(self._send_rest(self._sending, data[sent:]))

    async def _send_rest(self, earlier: asyncio.Future[None] | None, data: bytes) -> None:
        if earlier is not None:
            await earlier
        if self._socket is not None:
            with contextlib.suppress(OSError):
                await self._loop.sock_sendall(self._socket, data)

    async def receive(self) -> bytes:
        """What has arrived; empty at the end of the connection. Raises Ended."""
        try:
            if self._reader is not None:
                data = await self._reader.read(_CHUNK)
            else:
                assert self._socket is not None  # noqa: S101 - open() was called
                data = await self._loop.sock_recv(self._socket, _CHUNK)
        except OSError as error:
            raise explain_error(error, self.place) from error
        if self.timings.first_byte is None and data:
            self.timings.first_byte = self._loop.time() - self._asked
            self.stage = "reading the answer"
        return data

    async def close(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        if self._writer is not None:
            # Not close(): over TLS that waits for the other side's farewell.
            self._writer.transport.abort()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _find_addresses(self) -> tuple[str, ...]:
        peer = self._peer
        if peer.address:
            return (peer.address,)
        if is_address(peer.host):
            return (peer.host,)
        self.stage = "resolving the name"
        began = self._loop.time()
        try:
            found = await self._resolve(peer.host)
        except Unavailable as error:
            raise Ended(Trouble.DNS, str(error)) from error
        self.timings.dns = self._loop.time() - began
        if peer.family is None:
            return found
        chosen = tuple(address for address in found if peer.family.has(address))
        if not chosen:
            raise Ended(Trouble.DNS, f"{peer.host} has no {peer.family} address")
        return chosen

    async def _connect_to_any(self) -> None:
        """Tries each address in turn, each with its share of the time."""
        first: Ended | None = None
        for position, address in enumerate(self._addresses):
            port = self._peer.port
            self.place = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            self.stage = f"connecting to {self.place}"
            # One address that swallows packets must not use up the time of all.
            left = len(self._addresses) - position
            share = (self._until - self._loop.time()) / left if left > 1 else None
            try:
                async with asyncio.timeout(share):
                    await self._connect_to(address, port)
            except TimeoutError as error:
                words = "timed out" if error.errno else "took too long"
                first = first or Ended(Trouble.TIMEOUT, f"connecting to {self.place} {words}")
            except OSError as error:
                first = first or explain_error(error, self.place)
            else:
                return
        raise first or Ended(Trouble.DNS, "the name has no address")

    async def _connect_to(self, address: str, port: int) -> None:
        host, _, scope = address.partition("%")
        place: tuple[str, int] | tuple[str, int, int, int]
        if ":" in host:
            family = socket.AF_INET6
            place = (host, port, 0, socket.if_nametoindex(scope) if scope else 0)
        else:
            family, place = socket.AF_INET, (host, port)
        await self._loop.sock_connect(self._take_socket(family), place)

    async def _connect_to_path(self, path: str) -> None:
        """Not by asyncio: it takes EAGAIN for a connection under way, and here it means that the
        queue is full (unix(7)), of which nobody tells when it no longer is."""
        self.stage = f"connecting to {path}"
        ours = self._take_socket(socket.AF_UNIX)
        while True:
            try:
                ours.connect(path)
            except BlockingIOError:
                self.stage = f"waiting for a place in the queue of {path}"
                await asyncio.sleep(_QUEUE_SECONDS)
            except PermissionError as error:
                raise Unavailable(
                    f"cannot connect to {path}: hostmend's user may not; its permissions decide"
                ) from error
            except OSError as error:
                raise explain_error(error, path) from error
            else:
                return

    def _take_socket(self, family: socket.AddressFamily) -> socket.socket:
        if self._socket is not None:
            self._socket.close()
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        return self._socket


def explain_error(error: OSError, place: str) -> Ended:
    """What an error says of the target. Raises Unavailable for one that is this host's own."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = f"its certificate is not accepted: {error.verify_message}"
        return Ended(Trouble.TLS, why, verify_code=error.verify_code)
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).lower().replace("_", " ")
        return Ended(Trouble.TLS, f"no TLS connection with {place}: {reason}")
    words = os.strerror(error.errno).lower() if error.errno else str(error)
    if error.errno in _OWN_SHORTAGE:
        raise Unavailable(f"cannot connect to {place}: {words} on this host") from error
    match error:
        case FileNotFoundError():
            return Ended(Trouble.MISSING, f"there is no {place}")
        case ConnectionRefusedError():
            return Ended(Trouble.REFUSED, f"{place} refuses connections")
        case ConnectionError():
            return Ended(Trouble.RESET, f"{place} ended the connection")
        case TimeoutError():
            return Ended(Trouble.TIMEOUT, f"the connection to {place} timed out")
    return Ended(Trouble.UNREACHABLE, f"cannot reach {place}: {words}")
