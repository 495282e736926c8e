"""Addresses of the web: their parts, what is one site, and how they look without secrets."""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urljoin, urlsplit

from agent.core.text import MASK

_PORTS = {"http": 80, "https": 443}
#: What the name of a secret holds, as a query's key or a header's name.
_SECRET_NAME = re.compile(
    r"(?i)pass|pwd|secret|token|credential|cookie|auth|session|sign|key|code|jwt|bearer|^sig$|^sid$"
)
#: Characters that a path or query keeps (RFC 3986), `%` because what is escaped stays so.
_PATH = "/:@!$&'()*+,;=~%-._"
_QUERY = _PATH + "?"


@dataclass(frozen=True, kw_only=True)
class Url:
    """One address. `str()` and `repr()` show it without its secrets."""

    #: `http` or `https`.
    scheme: str
    #: A name as DNS knows it (IDNA), or an address without brackets.
    host: str
    port: int
    #: Path and query, escaped.
    target: str = field(repr=False)
    #: User and password, when the address carries them.
    user: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def is_address(self) -> bool:
        """Whether the host is an address that nobody has to look up."""
        return is_address(self.host)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{mask_query(self.target)}"

    def join(self, location: str) -> Url | None:
        """Where a redirect leads; None where that is no address of the web."""
        try:
            return parse_url(urljoin(f"{self.scheme}://{self.authority}{self.target}", location))
        except ValueError:
            return None

    def is_site_of(self, other: Url) -> bool:
        """Whether it is the same site: the host, with or without `www.`, and no step to http.

        A port of its own is a site of its own; those of http and https are one.
        """
        if self.scheme == "http" and other.scheme == "https":
            return False
        usual = self.port == _PORTS[self.scheme] and other.port == _PORTS[other.scheme]
        same_port = usual or (self.port == other.port and self.scheme == other.scheme)
        return same_port and self.host.removeprefix("www.") == other.host.removeprefix("www.")


def parse_url(text: str) -> Url:
    """The parts of an http:// or https:// address.

    Raises ValueError; its message never repeats the address, which may hold a secret.
    """
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        raise ValueError("must hold no space: escape it as %20")
    wanted = "must be an http:// or https:// address, such as https://shop.example/"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(wanted) from error
    if parts.scheme not in _PORTS or not parts.hostname or port == 0:
        raise ValueError(wanted)
    host = read_host(parts.hostname)
    path = quote(parts.path or "/", safe=_PATH)
    query = f"?{quote(parts.query, safe=_QUERY)}" if parts.query else ""
    user = None
    if parts.username is not None or parts.password is not None:
        user = (unquote(parts.username or ""), unquote(parts.password or ""))
    return Url(
        scheme=parts.scheme,
        host=host,
        port=port or _PORTS[parts.scheme],
        target=path + query,
        user=user,
    )


def read_host(host: str) -> str:
    """A name as DNS knows it (IDNA), or an address as it is. Raises ValueError."""
    if is_address(host):
        return host
    try:
        name = host.encode("idna").decode("ascii").lower()
    except UnicodeError as error:
        raise ValueError("its host is no name that DNS knows") from error
    # An underscore is no part of a host name, but of many names inside of networks.
    if not re.fullmatch(r"(?=.{1,253}\.?$)(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?", name):
        raise ValueError("its host is no name that DNS knows")
    return name


def is_address(host: str) -> bool:
    """Whether a host is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def read_address(text: str) -> tuple[str, int | None]:
    """Address and port of `127.0.0.1:443`, `[::1]:443` or either without a port.

    Raises ValueError with the way out.
    """
    match = re.fullmatch(r"\[([^\]]+)\](?::(\d{1,5}))?|([\d.]+)(?::(\d{1,5}))?|([^\[\]]+)", text)
    try:
        if match is None:
            raise ValueError
        host = match[1] or match[3] or match[5]
        port = match[2] or match[4]
        ipaddress.ip_address(host)
        if port is not None and not 1 <= int(port) <= 65535:
            raise ValueError
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no address: write for example 127.0.0.1:443, [::1]:443 or 127.0.0.1"
        ) from error
    return host, int(port) if port else None


def is_secret_name(name: str) -> bool:
    """Whether what goes by this name in a header or a query is taken for a secret."""
    return _SECRET_NAME.search(name) is not None


def mask_query(target: str) -> str:
    """A path and query in which the values of secrets are masked."""
    path, mark, query = target.partition("?")
    return path + mark + "&".join(_mask_parameter(part) for part in query.split("&"))


def _mask_parameter(part: str) -> str:
    name, mark, value = part.partition("=")
    return f"{name}={MASK}" if mark and value and is_secret_name(unquote(name)) else part


def list_secrets(url: Url) -> frozenset[str]:
    """The secrets of an address, as they may turn up in other texts."""
    values = {
        value
        for part in url.target.partition("?")[2].split("&")
        for name, _, value in [part.partition("=")]
        if is_secret_name(unquote(name))
    }
    values |= {unquote(value) for value in values}
    if url.user is not None:
        values |= {url.user[1], write_basic(url.user)}
    return frozenset(values)


def write_basic(user: tuple[str, str]) -> str:
    """User and password as the Basic scheme carries them (RFC 7617)."""
    return base64.b64encode(":".join(user).encode()).decode()


def mask_secrets(text: str, secrets: Iterable[str]) -> str:
    """A text without these secrets, the longest first. Shorter than four letters they are words."""
    for secret in sorted((s for s in secrets if len(s) > 3), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text
