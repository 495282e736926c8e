"""One request over HTTP, and what came of it, within a time and limits on every size.

asyncio's streams and h11: an address can be pinned while the Host header and TLS go by the URL's
name, names are resolved without a shared thread pool, and nothing is loaded that the agent's own
server does not need anyway (httpx: 10 MB). Each request has a connection of its own: what is kept
open between looks proves nothing about whether one can be opened.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import errno
import functools
import os
import re
import socket
import ssl
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import h11

from agent import __version__
from agent.errors import Unavailable
from agent.host.certificate import Certificate, read_chain
from agent.host.names import Names, Resolve
from agent.host.url import Url, is_address, write_basic

#: Bytes of a body that are read, decoded or not.
BODY_LIMIT = 1024 * 1024
#: Bytes of a status line with its headers.
_HEAD_LIMIT = 64 * 1024
_CHUNK = 64 * 1024
#: TLS contexts kept; each distinct `ca_file` needs one.
_CONTEXTS = 32

#: What this host has run out of says nothing of the target.
_OWN_SHORTAGE = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)
#: Charsets that bodies come in. Python has more codecs: some are no charsets, some are slow.
_CHARSET = re.compile(
    r"utf-?(?:8|16|32)(?:-?[bl]e)?|(?:us-)?ascii|iso-?8859-\d+|latin-?1|windows-125\d|cp\d+"
    r"|koi8-[ru]|gb2312|gbk|gb18030|big5|euc-(?:jp|kr)|shift[-_]jis|iso-2022-jp",
    re.IGNORECASE,
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
    #: What answers does not speak HTTP, or not correctly.
    INVALID = "invalid"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked, and of whom."""

    url: Url
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    #: Connect to this address, whatever the name's own is; empty for the name's own.
    address: str = ""
    #: Connect to this port; None for the URL's.
    port: int | None = None
    verify: bool = True
    #: Certificates of authorities to trust, PEM; None for the system's.
    ca_file: Path | None = None
    body_limit: int = BODY_LIMIT
    #: Keep the whole chain of certificates, not only the server's own.
    chain: bool = False


@dataclass(kw_only=True)
class Timings:
    """Seconds of each stage; None for one that was not come to, or not needed."""

    dns: float | None = None
    connect: float | None = None
    tls: float | None = None
    #: From the request to the first byte of its answer.
    first_byte: float | None = None


@dataclass(frozen=True, kw_only=True)
class Response:
    """A whole answer, or as much of it as was wanted."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    #: Decoded from its Content-Encoding.
    body: bytes = field(repr=False)
    #: The body is longer than what was read of it.
    cut: bool
    #: Where it came from: `127.0.0.1:443`.
    peer: str
    timings: Timings
    #: Of TLS: the server's certificate first.
    chain: tuple[Certificate, ...] = ()

    def header(self, name: str) -> str | None:
        """The values of one header, joined by a comma; None when there is none."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(found) if found else None

    @functools.cached_property
    def text(self) -> str:
        """The body in its charset, as far as that goes; UTF-8 unless it says otherwise."""
        named = re.search(r"charset\s*=\s*\"?([\w.-]+)", self.header("content-type") or "")
        charset = named[1] if named and _CHARSET.fullmatch(named[1]) else "utf-8"
        try:
            return self.body.decode(codecs.lookup(charset).name, errors="replace")
        except LookupError:
            return self.body.decode(errors="replace")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why there is no answer."""

    trouble: Trouble
    #: One sentence without a full stop; it names no URL.
    why: str
    #: Those that were tried; none when there was no name to resolve to any.
    addresses: tuple[str, ...] = ()
    timings: Timings = field(default_factory=Timings)


class _Ended(Exception):
    """The exchange ended without an answer. Stays within this module."""

    def __init__(self, trouble: Trouble, why: str) -> None:
        super().__init__(why)
        self.trouble = trouble
        self.why = why


class HttpClient:
    """Makes requests. It keeps TLS contexts, and no connections."""

    def __init__(self, resolve: Resolve | None = None) -> None:
        #: The addresses of a name.
        self.resolve = resolve or Names().resolve
        self._contexts: dict[tuple[bool, Path | None, int], ssl.SSLContext] = {}

    async def fetch(self, request: Request, seconds: float) -> Response | Failure:
        """One request and its answer, within so many seconds. Follows no redirect.

        Raises Unavailable when this host itself cannot even try: no free descriptor, a `ca_file`
        that cannot be read.
        """
        exchange = _Exchange(request, self.resolve, seconds)
        if request.url.scheme == "https":
            exchange.context = self._context(request)
        try:
            async with asyncio.timeout(seconds):
                return await exchange.run()
        except TimeoutError:
            trouble = Trouble.DNS if exchange.stage == "resolving the name" else Trouble.TIMEOUT
            why = f"{exchange.stage} took longer than {seconds:.3g} s"
            return exchange.make_failure(trouble, why)
        except _Ended as ended:
            return exchange.make_failure(ended.trouble, ended.why)
        finally:
            await exchange.close()

    def _context(self, request: Request) -> ssl.SSLContext:
        """Loading the certificates of authorities takes milliseconds and memory: once is enough."""
        file = request.ca_file if request.verify else None
        try:
            changed = file.stat().st_mtime_ns if file else 0
            key = (request.verify, file, changed)
            if key not in self._contexts:
                context = make_context(file, verify=request.verify)
                while len(self._contexts) >= _CONTEXTS:
                    del self._contexts[next(iter(self._contexts))]
                self._contexts[key] = context
            return self._contexts[key]
        except OSError as error:
            raise _no_authorities(file, error) from error


def make_context(ca_file: Path | None, *, verify: bool) -> ssl.SSLContext:
    """TLS for HTTP/1.1. Raises Unavailable for authorities that cannot be read."""
    if verify:
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise _no_authorities(ca_file, error) from error
    else:
        # Without the system's authorities, which take up to 5 MB.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_authorities(file: Path | None, error: OSError) -> Unavailable:
    return Unavailable(f"cannot read authorities from {file}: {error.strerror or error}")


class _Exchange:
    """One request on its way: the stage it has come to, and the connection to be closed."""

    def __init__(self, request: Request, resolve: Resolve, seconds: float) -> None:
        self.request = request
        self.context: ssl.SSLContext | None = None
        self.stage = "beginning"
        self._resolve = resolve
        self._addresses: tuple[str, ...] = ()
        self._timings = Timings()
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + seconds
        self._socket: socket.socket | None = None
        self._writer: asyncio.StreamWriter | None = None

    def make_failure(self, trouble: Trouble, why: str) -> Failure:
        return Failure(trouble=trouble, why=why, addresses=self._addresses, timings=self._timings)

    async def close(self) -> None:
        if self._writer is not None:
            # Not close(): over TLS that waits for the other side's farewell.
            self._writer.transport.abort()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        if self._socket is not None:
            self._socket.close()

    async def run(self) -> Response:
        request = self.request
        self._addresses = await self._find_addresses()
        port = request.port or request.url.port
        peer = await self._connect(port)
        reader, writer = await self._open(peer)
        chain: tuple[Certificate, ...] = ()
        if (secured := writer.get_extra_info("ssl_object")) is not None:
            chain = read_chain(secured, whole=request.chain)
        self.stage = "waiting for the answer"
        try:
            answer = _Reading(request)
            writer.write(answer.sent)
            asked = self._loop.time()
            while not answer.done:
                data = await reader.read(_CHUNK)
                if self._timings.first_byte is None and data:
                    self._timings.first_byte = self._loop.time() - asked
                    self.stage = "reading the answer"
                answer.take(data)
        except OSError as error:
            raise _explain(error, peer) from error
        return replace(answer.make_response(), peer=peer, timings=self._timings, chain=chain)

    async def _find_addresses(self) -> tuple[str, ...]:
        if self.request.address:
            return (self.request.address,)
        host = self.request.url.host
        if is_address(host):
            return (host,)
        self.stage = "resolving the name"
        began = self._loop.time()
        try:
            found = await self._resolve(host)
        except Unavailable as error:
            raise _Ended(Trouble.DNS, str(error)) from error
        self._timings.dns = self._loop.time() - began
        return found

    async def _connect(self, port: int) -> str:
        """Tries each address in turn, each with its share of the time, and returns who answered."""
        first: _Ended | None = None
        began = self._loop.time()
        for position, address in enumerate(self._addresses):
            peer = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            self.stage = f"connecting to {peer}"
            # One address that swallows packets must not use up the time of all.
            left = len(self._addresses) - position
            share = (self._until - self._loop.time()) / left if left > 1 else None
            try:
                async with asyncio.timeout(share):
                    await self._connect_to(address, port)
            except TimeoutError as error:
                words = "timed out" if error.errno else "took too long"
                first = first or _Ended(Trouble.TIMEOUT, f"connecting to {peer} {words}")
            except OSError as error:
                first = first or _explain(error, peer)
            else:
                self._timings.connect = self._loop.time() - began
                return peer
        raise first or _Ended(Trouble.DNS, "the name has no address")

    async def _connect_to(self, address: str, port: int) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        host, _, scope = address.partition("%")
        place: tuple[str, int] | tuple[str, int, int, int]
        if ":" in host:
            family = socket.AF_INET6
            place = (host, port, 0, socket.if_nametoindex(scope) if scope else 0)
        else:
            family, place = socket.AF_INET, (host, port)
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        await self._loop.sock_connect(self._socket, place)

    async def _open(self, peer: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.context is None:
            reader, self._writer = await asyncio.open_connection(sock=self._socket)
        else:
            self.stage = f"the TLS handshake with {peer}"
            began = self._loop.time()
            name = self.request.url.host.rstrip(".")
            try:
                reader, self._writer = await asyncio.open_connection(
                    sock=self._socket, ssl=self.context, server_hostname=name
                )
            except OSError as error:
                raise _explain(error, peer) from error
            self._timings.tls = self._loop.time() - began
        self._socket = None
        return reader, self._writer


def _explain(error: OSError, peer: str) -> _Ended:
    return _Ended(*judge_error(error, peer))


def judge_error(error: OSError, peer: str) -> tuple[Trouble, str]:
    """What an error says of the target, in a word and in words.

    Raises Unavailable for one that is this host's own.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return Trouble.TLS, f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).lower().replace("_", " ")
        return Trouble.TLS, f"no TLS connection with {peer}: {reason}"
    words = os.strerror(error.errno).lower() if error.errno else str(error)
    if error.errno in _OWN_SHORTAGE:
        raise Unavailable(f"cannot connect to {peer}: {words} on this host") from error
    match error:
        case ConnectionRefusedError():
            return Trouble.REFUSED, f"{peer} refuses connections"
        case ConnectionError():
            return Trouble.RESET, f"{peer} ended the connection"
        case TimeoutError():
            return Trouble.TIMEOUT, f"the connection to {peer} timed out"
    return Trouble.UNREACHABLE, f"cannot reach {peer}: {words}"


class _Reading:
    """An answer as it arrives, in h11's hands; no I/O."""

    def __init__(self, request: Request) -> None:
        self.done = False
        self._limit = request.body_limit
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_LIMIT)
        self._head: h11.Response | None = None
        self._body = bytearray()
        self._raw = 0
        self._cut = False
        self._inflate: zlib._Decompress | None = None
        #: The request in bytes.
        self.sent = b"".join(self._write(request))

    def _write(self, request: Request) -> Iterator[bytes]:
        events = [
            h11.Request(
                method=request.method, target=request.url.target, headers=_make_headers(request)
            ),
            *([h11.Data(data=request.body)] if request.body else []),
            h11.EndOfMessage(),
        ]
        for event in events:
            yield self._connection.send(event) or b""

    def take(self, data: bytes) -> None:
        """Bytes that arrived; none at the end of the connection."""
        try:
            self._connection.receive_data(data)
            while not self.done:
                match self._connection.next_event():
                    case h11.Response() as head:
                        self._begin(head)
                    case h11.Data() as part:
                        self._add(bytes(part.data))
                    case h11.EndOfMessage() | h11.ConnectionClosed():
                        self._finish()
                    case h11.NEED_DATA | h11.PAUSED:
                        break
        except h11.RemoteProtocolError as error:
            if data:
                raise _Ended(Trouble.INVALID, f"the answer is not HTTP: {error}") from error
            where = "in the middle of its body" if self._head else "before an answer"
            raise _Ended(Trouble.RESET, f"the connection ended {where}") from error
        except zlib.error as error:
            why = f"its body cannot be unpacked: {error}"
            raise _Ended(Trouble.INVALID, why) from error

    def _begin(self, head: h11.Response) -> None:
        self._head = head
        coding = _find(head, b"content-encoding")
        if coding in (b"gzip", b"x-gzip", b"deflate"):
            self._inflate = zlib.decompressobj(wbits=47)

    def _add(self, part: bytes) -> None:
        self._raw += len(part)
        if self._inflate is not None:
            # Never more than one byte over the limit, however much is packed into it.
            part = self._inflate.decompress(part, self._limit - len(self._body) + 1)
        self._body += part
        if len(self._body) > self._limit or self._raw > self._limit:
            del self._body[self._limit :]
            self._cut = self.done = True

    def _finish(self) -> None:
        self.done = True
        if self._inflate is not None and self._raw and not self._inflate.eof:
            raise _Ended(Trouble.INVALID, "its body cannot be unpacked: it ends too early")

    def make_response(self) -> Response:
        head = self._head
        if head is None:
            raise _Ended(Trouble.INVALID, "the answer is not HTTP")
        return Response(
            status=head.status_code,
            reason=bytes(head.reason).decode("latin-1"),
            headers=tuple(
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in head.headers.raw_items()
            ),
            body=bytes(self._body),
            cut=self._cut,
            peer="",
            timings=Timings(),
        )


def _find(head: h11.Response, name: bytes) -> bytes:
    return b",".join(value.strip().lower() for key, value in head.headers if key == name)


def _make_headers(request: Request) -> list[tuple[str, str]]:
    """The request's own headers win over what is sent otherwise."""
    own = {
        "host": ("Host", request.url.authority),
        "user-agent": ("User-Agent", f"hostmend/{__version__}"),
        "accept": ("Accept", "*/*"),
        # Packing costs both sides more than loopback does.
        "accept-encoding": ("Accept-Encoding", "identity"),
        "connection": ("Connection", "close"),
    }
    if request.url.user is not None:
        own["authorization"] = ("Authorization", f"Basic {write_basic(request.url.user)}")
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        own["content-length"] = ("Content-Length", str(len(request.body)))
    return list({**own, **{n.lower(): (n, v) for n, v in request.headers.items()}}.values())
