"""A request with the redirects that it leads through."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, replace
from enum import StrEnum

from agent.host.connection import Failure
from agent.host.cookies import Jar
from agent.host.http import HttpClient, Request, Response
from agent.host.url import Url

_DEFAULT_MOST = 5
_WRITTEN = re.compile(r"(stay|follow)(?:\(([1-9][0-9]?)\))?|(never)")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Request headers that may go to another site: none of them holds a secret.
_HARMLESS = frozenset({"accept", "accept-encoding", "accept-language", "user-agent"})


class Whither(StrEnum):
    """Which redirects are followed."""

    #: Those within the site.
    STAY = "stay"
    #: Everywhere.
    FOLLOW = "follow"
    #: None: the redirect itself is the answer.
    NEVER = "never"


@dataclass(frozen=True, kw_only=True)
class Redirects:
    """A policy for redirects."""

    whither: Whither = Whither.STAY
    most: int = _DEFAULT_MOST


def parse_redirects(text: str) -> Redirects:
    """`stay`, `follow`, `never`, and a limit: `stay(2)`. Raises ValueError with the way out."""
    match = _WRITTEN.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is no policy for redirects: write stay, follow or never, "
            "or a limit with it, such as follow(10)"
        )
    if match[3]:
        return Redirects(whither=Whither.NEVER, most=0)
    return Redirects(whither=Whither(match[1]), most=int(match[2] or _DEFAULT_MOST))


class Astray(StrEnum):
    """What is wrong with where redirects lead."""

    #: To another site, which is not asked.
    ELSEWHERE = "elsewhere"
    #: Nowhere, or on and on.
    LOST = "lost"


@dataclass(frozen=True, kw_only=True)
class Visit:
    """What came of a request and its redirects."""

    #: The last answer, or why there was none.
    result: Response | Failure
    #: The request that it was of.
    request: Request
    #: Every address that was asked, without its secrets, the first one first.
    way: tuple[str, ...]
    #: Seconds from the beginning to the end of it all.
    seconds: float
    astray: Astray | None = None
    #: What is wrong, in words.
    why: str = ""


async def visit(
    client: HttpClient,
    request: Request,
    redirects: Redirects,
    seconds: float,
    *,
    jar: Jar | None = None,
) -> Visit:
    """Makes a request and follows its redirects, all within so many seconds.

    Cookies of the jar are sent where they belong, and new ones are kept in it; without one there
    are none. A pinned address holds for the whole site. Raises Unavailable as `HttpClient.fetch`
    does.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    way: list[str] = []

    def conclude(result: Response | Failure, astray: Astray | None = None, why: str = "") -> Visit:
        return Visit(
            result=result,
            request=request,
            way=tuple(way),
            seconds=loop.time() - began,
            astray=astray,
            why=why,
        )

    while True:
        way.append(str(request.url))
        asked = request if jar is None else _add_cookies(request, jar)
        result = await client.fetch(asked, seconds - (loop.time() - began))
        if jar is not None and isinstance(result, Response):
            jar.take(request.url, result)
        if isinstance(result, Failure) or result.status not in _REDIRECTS:
            return conclude(result)
        location = result.header("location")
        if redirects.whither is Whither.NEVER or location is None:
            return conclude(result)
        target = request.url.join(location)
        if target is None:
            return conclude(result, Astray.LOST, "redirects to what is no address of the web")
        same_site = target.is_site_of(request.url)
        if redirects.whither is Whither.STAY and not same_site:
            return conclude(result, Astray.ELSEWHERE, f"redirects to another site, {target}")
        if len(way) > redirects.most:
            why = f"redirects more than {redirects.most} times, at last to {target}"
            return conclude(result, Astray.LOST, why)
        request = _follow(request, target, result.status, same_site=same_site)


def _add_cookies(request: Request, jar: Jar) -> Request:
    cookies = jar.header(request.url)
    if not cookies or any(name.lower() == "cookie" for name in request.headers):
        return request
    return replace(request, headers={**request.headers, "Cookie": cookies})


def _follow(request: Request, url: Url, status: int, *, same_site: bool) -> Request:
    """The request that a redirect leads to (RFC 9110, section 15.4)."""
    # A pinned port is the first URL's; another one (https after http) is taken as it is named.
    port = request.port if url.port == request.url.port else None
    following = replace(request, url=replace(url, user=url.user or request.url.user), port=port)
    if status == 303 or (status in (301, 302) and request.method == "POST"):
        method = "HEAD" if request.method == "HEAD" else "GET"
        headers = {n: v for n, v in request.headers.items() if not n.lower().startswith("content-")}
        following = replace(following, method=method, body=b"", headers=headers)
    if not same_site:
        headers = {n: v for n, v in following.headers.items() if n.lower() in _HARMLESS}
        following = replace(following, url=url, address="", port=None, headers=headers)
    return following
