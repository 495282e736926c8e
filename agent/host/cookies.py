"""Cookies of one visit: taken from answers, and sent where they belong (RFC 6265)."""

from __future__ import annotations

import email.utils
import time
from dataclasses import dataclass

from agent.host.http import Response
from agent.host.url import Url, is_address

#: Cookies of one visit, and characters of each.
_MOST, _LONGEST = 50, 4096


@dataclass(frozen=True, kw_only=True)
class _Cookie:
    value: str
    host: str
    #: It goes to hosts below that one too.
    below: bool
    path: str
    secure: bool


class Jar:
    """The cookies of one visit. Nothing of it outlives that."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, str], _Cookie] = {}

    def take(self, url: Url, response: Response) -> None:
        """Keeps what an answer to a request for this address sets, and forgets what it ends."""
        for name, line in response.headers:
            if name.lower() == "set-cookie" and len(line) <= _LONGEST:
                self._take_one(url, line)

    def header(self, url: Url) -> str:
        """What `Cookie` is to hold in a request for this address; empty for none."""
        path = url.target.partition("?")[0]
        found = [
            (name, cookie)
            for (name, _, _), cookie in self._kept.items()
            if _is_for(cookie, url, path)
        ]
        # Longer paths first (section 5.4).
        found.sort(key=lambda pair: -len(pair[1].path))
        return "; ".join(f"{name}={cookie.value}" for name, cookie in found)

    def values(self) -> frozenset[str]:
        return frozenset(cookie.value for cookie in self._kept.values())

    def _take_one(self, url: Url, line: str) -> None:
        pair, *attributes = line.split(";")
        name, equals, value = pair.strip().partition("=")
        if not (name and equals) or not line.isprintable():
            return
        told = {}
        for attribute in attributes:
            key, _, word = attribute.strip().partition("=")
            told[key.strip().lower()] = word.strip()
        domain = told.get("domain", "").lstrip(".").lower()
        if domain and not _is_below(url.host, domain):
            return
        path = told.get("path", "")
        if not path.startswith("/"):
            path = url.target.partition("?")[0].rpartition("/")[0] or "/"
        host = domain or url.host
        place = (name, host, path)
        self._kept.pop(place, None)
        if not _has_ended(told) and len(self._kept) < _MOST:
            self._kept[place] = _Cookie(
                value=value.strip(),
                host=host,
                below=bool(domain),
                path=path,
                secure="secure" in told,
            )


def _is_for(cookie: _Cookie, url: Url, path: str) -> bool:
    there = _is_below(url.host, cookie.host) if cookie.below else url.host == cookie.host
    within = path == cookie.path or path.startswith(f"{cookie.path.rstrip('/')}/")
    return there and within and (url.scheme == "https" or not cookie.secure)


def _is_below(host: str, domain: str) -> bool:
    """Section 5.1.3; a domain of one label is a whole country's, or nobody's."""
    if host == domain:
        return True
    return "." in domain and host.endswith(f".{domain}") and not is_address(host)


def _has_ended(told: dict[str, str]) -> bool:
    age = told.get("max-age", "")
    if age.lstrip("-").isdecimal():
        return int(age) <= 0
    if expires := told.get("expires"):
        try:
            return email.utils.parsedate_to_datetime(expires).timestamp() <= time.time()
        except (ValueError, OverflowError):
            return False
    return False
