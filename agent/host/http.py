"""One request over HTTP, and what came of it, within a time and limits on every size.

A connection of our own and h11: an address can be pinned while the Host header and TLS go by the
URL's name, and nothing is loaded that the agent's own server does not need anyway (httpx: 10 MB).
"""

from __future__ import annotations

import codecs
import functools
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import h11

from agent import __version__
from agent.host.certificate import Certificate, read_chain
from agent.host.connection import Connection, Ended, Failure, Family, Peer, Timings, Trouble
from agent.host.names import Names, Resolve
from agent.host.tls import Contexts, Trust
from agent.host.url import Url, write_basic

#: Bytes of a body that are read, decoded or not.
BODY_LIMIT = 1024 * 1024
#: Bytes of a status line with its headers.
_HEAD_LIMIT = 64 * 1024

#: Charsets that bodies come in. Python has more codecs: some are no charsets, some are slow.
_CHARSET = re.compile(
    r"utf-?(?:8|16|32)(?:-?[bl]e)?|(?:us-)?ascii|iso-?8859-\d+|latin-?1|windows-125\d|cp\d+"
    r"|koi8-[ru]|gb2312|gbk|gb18030|big5|euc-(?:jp|kr)|shift[-_]jis|iso-2022-jp",
    re.IGNORECASE,
)


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
    #: Connect to this UNIX socket, whatever the URL's host is; empty: over TCP.
    socket: str = ""
    #: None: addresses of any family.
    family: Family | None = None
    trust: Trust = field(default_factory=Trust)
    body_limit: int = BODY_LIMIT
    #: Keep the whole chain of certificates, not only the server's own.
    chain: bool = False


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


class HttpClient:
    """Makes requests. It keeps TLS contexts, and no connections."""

    def __init__(self, resolve: Resolve | None = None) -> None:
        #: The addresses of a name.
        self.resolve = resolve or Names().resolve
        self.contexts = Contexts()

    def connect(self, peer: Peer, seconds: float) -> Connection:
        """A connection for whatever else is spoken, which has so many seconds from now on."""
        return Connection(peer, self.resolve, seconds)

    async def fetch(self, request: Request, seconds: float) -> Response | Failure:
        """One request and its answer, within so many seconds. Follows no redirect.

        Raises Unavailable when this host itself cannot even try: no free descriptor, a file of
        certificates that cannot be read.
        """
        url = request.url
        context = None
        if url.scheme == "https":
            context = self.contexts.get(replace(request.trust, speaks=("http/1.1",)))
        peer = Peer(
            host=url.host,
            port=request.port or url.port,
            address=request.address,
            family=request.family,
            path=request.socket,
        )

        async def exchange(connection: Connection) -> Response:
            await connection.open()
            chain: tuple[Certificate, ...] = ()
            if context is not None:
                secured = await connection.secure(context, url.host)
                chain = read_chain(secured, whole=request.chain)
            answer = _Reading(request)
            connection.send(answer.sent)
            while not answer.done:
                answer.take(await connection.receive())
            response = answer.make_response()
            return replace(response, peer=connection.place, timings=connection.timings, chain=chain)

        return await self.connect(peer, seconds).run(exchange)


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
                raise Ended(Trouble.INVALID, f"the answer is not HTTP: {error}") from error
            where = "in the middle of its body" if self._head else "before an answer"
            raise Ended(Trouble.RESET, f"the connection ended {where}") from error
        except zlib.error as error:
            why = f"its body cannot be unpacked: {error}"
            raise Ended(Trouble.INVALID, why) from error

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
            raise Ended(Trouble.INVALID, "its body cannot be unpacked: it ends too early")

    def make_response(self) -> Response:
        head = self._head
        if head is None:
            raise Ended(Trouble.INVALID, "the answer is not HTTP")
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
