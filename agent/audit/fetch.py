"""One request of an audit. The only module that imports aiohttp.

aiohttp keeps connections open between requests, which `agent.host.http` does not, and costs a
third of httpx's time. Redirects are never followed here: each is an address of its own, and what
identifies the operator goes to the audited site alone.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import re
import socket
import ssl
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

from agent.audit.address import Place, place_of
from agent.audit.extract import decode
from agent.audit.plan import Plan
from agent.audit.robots import AGENT
from agent.errors import Unavailable
from agent.host.connection import Failure, Trouble, explain_error
from agent.host.names import Resolve
from agent.host.tls import Contexts, Trust
from agent.host.url import is_address, parse_url, read_address, write_basic

_CHUNK = 64 * 1024
#: A body that is not wanted is read to its end if it is no longer than this, in bytes: that costs
#: less than a new connection.
_CHEAP = 64 * 1024
_HEAD_LIMIT = 32 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said to one request. It is what `agent.host.conditions` judges."""

    status: int
    reason: str
    headers: Mapping[str, str] = field(repr=False)
    #: Unpacked; empty when it was not wanted.
    body: bytes = field(repr=False)
    #: Bytes of the body, unpacked as far as it was read; None: not known.
    size: int | None
    #: The body is longer than what was read of it.
    cut: bool
    #: From the request to the end of the body, or to its head when that was all.
    response_seconds: float
    certificate_expires_seconds: float | None = None

    @property
    def said(self) -> str:
        """The status in words: `404 Not Found`."""
        reason = "".join(letter for letter in self.reason[:40] if letter.isprintable())
        return f"{self.status} {reason}".rstrip()

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "")

    @property
    def kind(self) -> str:
        """The media type without parameters, in small letters; empty for what is none."""
        return _read_kind(self.content_type)

    @property
    def body_length(self) -> int:
        return len(self.body)

    @property
    def text(self) -> str:
        return decode(self.body, self.content_type)

    def header(self, name: str) -> str | None:
        return self.headers.get(name)


class Fetcher:
    """Asks for addresses. An asynchronous context: leaving it closes every connection."""

    def __init__(self, plan: Plan, resolve: Resolve, credentials: Mapping[str, str]) -> None:
        """`credentials`: headers for the audited site."""
        self._plan = plan
        url = parse_url(plan.url)
        self._site = place_of(url)
        self._secret = dict(credentials)
        if url.user is not None:
            self._secret.setdefault("Authorization", f"Basic {write_basic(url.user)}")
        self._pin = read_address(plan.connect) if plan.connect else None
        self._resolver = _Resolver(resolve)
        self._session: aiohttp.ClientSession | None = None
        self._context: ssl.SSLContext | None = None

    async def __aenter__(self) -> Fetcher:
        connector = aiohttp.TCPConnector(limit=0, resolver=self._resolver, ttl_dns_cache=300)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=self._plan.answer),
            headers={"User-Agent": AGENT, "Accept": "*/*", "Accept-Encoding": "identity"},
            max_line_size=_HEAD_LIMIT,
            max_field_size=_HEAD_LIMIT,
        )
        return self

    async def __aexit__(self, *_arguments: object) -> None:
        if self._session is not None:
            await self._session.close()

    def adopt(self, site: Place) -> None:
        """The audited site turned out to be there: what its first address redirects to."""
        self._site = site

    async def find_whether_inner(self) -> None:
        """Learns whether the site is on an address that is not public.

        Only then are others of that kind asked: pages must not send an audit of a public site into
        a private network.
        """
        host = self._site.host
        if self._pin is not None:
            addresses: tuple[str, ...] = (self._pin[0],)
        elif is_address(host):
            addresses = (host,)
        else:
            try:
                addresses = await self._resolver.look_up(host)
            except Unavailable:
                addresses = ()
        self._resolver.inner = any(not _is_public(address) for address in addresses)

    async def fetch(
        self,
        place: Place,
        *,
        method: str = "GET",
        wants: Callable[[str], bool] = lambda _kind: True,
        limit: int | None = None,
        cookies: str = "",
    ) -> Answer | Failure:
        """One request and its answer. `wants`: whether a body of that media type is read.

        `limit`: bytes of the body, else the plan's. Raises Unavailable when this host itself
        cannot even try.
        """
        assert self._session is not None  # noqa: S101 - entered
        if is_address(place.host) and not self._resolver.allows(place.host):
            return _refuse_inner(place.host)
        headers = dict(self._secret) if place.root == self._site.root else {}
        if cookies:
            mine = headers.get("Cookie", "")
            headers["Cookie"] = f"{mine}; {cookies}" if mine else cookies
        url, name = place.url, None
        if self._pin is not None and _is_host_of(place, self._site):
            url, name = self._redirect_to_pin(place), place.host.rstrip(".")
            headers["Host"] = place.authority
        began = asyncio.get_running_loop().time()
        try:
            async with self._session.request(
                method,
                yarl.URL(url, encoded=True),
                headers=headers,
                allow_redirects=False,
                server_hostname=name,
                ssl=self._find_context() if place.scheme == "https" else True,
            ) as response:
                most = self._plan.body if limit is None else limit
                body, size, cut = await _read_body(response, method, wants, most)
                return Answer(
                    status=response.status,
                    reason=response.reason or "",
                    headers=response.headers,
                    body=body,
                    size=size,
                    cut=cut,
                    response_seconds=asyncio.get_running_loop().time() - began,
                )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, zlib.error) as error:
            return self._explain(error, place)

    def _find_context(self) -> ssl.SSLContext:
        """Loaded when it is needed first: the system's authorities take 50 ms."""
        if self._context is None:
            file = Path(self._plan.ca_file) if self._plan.ca_file else None
            trust = Trust(verify=self._plan.verify, ca_file=file, speaks=("http/1.1",))
            self._context = Contexts().get(trust)
        return self._context

    def _redirect_to_pin(self, place: Place) -> str:
        assert self._pin is not None  # noqa: S101 - asked before
        address, port = self._pin
        # A pinned port is that of the site's own; another one is taken as it is named.
        if port is None or place.port != self._site.port:
            port = place.port
        shown = f"[{address}]" if ":" in address else address
        return f"{place.scheme}://{shown}:{port}{place.target}"

    def _explain(self, error: Exception, place: Place) -> Failure:
        """Why there is no answer. Raises Unavailable for a reason that is this host's own."""
        trouble, why = Trouble.INVALID, f"the answer is not HTTP: {_write(error)}"
        match error:
            case aiohttp.ClientConnectorDNSError():
                trouble, why = Trouble.DNS, str(error.os_error)
            case aiohttp.ClientConnectorCertificateError():
                inner = error.certificate_error
                if isinstance(inner, OSError):
                    ended = explain_error(inner, place.authority)
                    trouble, why = ended.trouble, ended.why
                else:
                    trouble, why = Trouble.TLS, f"its certificate is not accepted: {inner}"
            case aiohttp.ClientConnectorError():
                ended = explain_error(error.os_error, place.authority)
                trouble, why = ended.trouble, ended.why
            case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError():
                trouble = Trouble.RESET
                why = "the connection ended before the answer was whole"
            case TimeoutError():
                trouble = Trouble.TIMEOUT
                why = f"there was no whole answer within {self._plan.answer:g} s"
            case zlib.error():
                why = f"its body cannot be unpacked: {error}"
            case OSError():
                ended = explain_error(error, place.authority)
                trouble, why = ended.trouble, ended.why
        known = self._resolver.known.get(place.host, ())
        addresses = (place.host,) if is_address(place.host) else known
        return Failure(trouble=trouble, why=why, addresses=addresses)


def _write(error: Exception) -> str:
    """An error in one line; those of aiohttp's parser draw a picture below it."""
    return re.sub(r"\s+", " ", str(error).partition(":\n")[0] or type(error).__name__)[:200]


def _is_host_of(place: Place, site: Place) -> bool:
    return place.host.removeprefix("www.") == site.host.removeprefix("www.")


def _read_kind(content_type: str) -> str:
    kind = content_type.partition(";")[0].strip().lower()
    return kind if re.fullmatch(r"[a-z0-9!#$&^_.+-]{1,80}/[a-z0-9!#$&^_.+-]{1,80}", kind) else ""


async def _read_body(
    response: aiohttp.ClientResponse, method: str, wants: Callable[[str], bool], limit: int
) -> tuple[bytes, int | None, bool]:
    """The body as far as it is wanted, its size, and whether it was cut."""
    length = response.content_length
    coding = response.headers.get("Content-Encoding", "").strip().lower()
    packed = coding not in ("", "identity")
    if method == "HEAD":
        return b"", None if packed else length, False
    wanted = wants(_read_kind(response.headers.get("Content-Type", "")))
    if not packed and length is not None and length <= (limit if wanted else _CHEAP):
        body = await response.read()
        return (body if wanted else b""), len(body), False
    if not wanted:
        # Its end would cost more than another connection does.
        response.close()
        return b"", None if packed else length, False
    inflate = _make_inflate(coding) if packed else None
    body_so_far = bytearray()
    raw = 0
    async for part in response.content.iter_chunked(_CHUNK):
        raw += len(part)
        if inflate is not None:
            # Never more than one byte over the limit, however much is packed into it.
            part = inflate.decompress(part, limit - len(body_so_far) + 1)
        body_so_far += part
        if len(body_so_far) > limit or raw > limit:
            response.close()
            return bytes(body_so_far[:limit]), None if packed else length, True
    if inflate is not None and raw and not inflate.eof:
        raise zlib.error("it ends too early")
    return bytes(body_so_far), len(body_so_far), False


def _make_inflate(coding: str) -> zlib._Decompress:
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise zlib.error(f"it is packed as {coding[:40]}, which was not asked for")
    return zlib.decompressobj(wbits=47)


@functools.lru_cache(maxsize=1024)
def _is_public(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_global


def _refuse_inner(host: str) -> Failure:
    why = f"{host} is no public address, and pages of a public site do not lead there"
    return Failure(trouble=Trouble.UNREACHABLE, why=why)


class _Resolver(AbstractResolver):
    """Names to addresses, in threads that delay nobody and hold nothing up at the end."""

    def __init__(self, look_up: Resolve) -> None:
        self.look_up = look_up
        #: Addresses that are not public may be asked.
        self.inner = True
        #: Those of each name, as they were found last.
        self.known: dict[str, tuple[str, ...]] = {}

    def allows(self, address: str) -> bool:
        return self.inner or _is_public(address)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del family  # all there are
        try:
            found = await self.look_up(host)
        except Unavailable as error:
            raise OSError(str(error)) from error
        self.known[host] = found
        allowed = [address for address in found if self.allows(address)]
        if found and not allowed:
            raise OSError(_refuse_inner(host).why)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in allowed
        ]

    async def close(self) -> None:
        pass
