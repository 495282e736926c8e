"""Logging in before a site is asked: by its form, or with JSON. What comes of it are cookies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from agent.host.connection import Failure
from agent.host.cookies import Jar
from agent.host.forms import Form, find_form
from agent.host.http import HttpClient, Request
from agent.host.url import Url
from agent.host.visit import Redirects, Visit, visit

_FORM, _JSON = "application/x-www-form-urlencoded", "application/json"


@dataclass(frozen=True, kw_only=True)
class Login:
    """How one logs in."""

    url: Url
    #: What is sent, by name.
    values: Mapping[str, str]
    #: As JSON; else as the page's own form is sent, with what that hides.
    as_json: bool = False


async def log_in(
    client: HttpClient, login: Login, request: Request, jar: Jar, seconds: float
) -> Visit:
    """The answer to a log-in, its redirects followed; cookies are in the jar.

    `request` is what follows: the log-in goes the same way (address, certificates, headers).
    Raises Unavailable as `HttpClient.fetch` does.
    """
    until = asyncio.get_running_loop().time() + seconds
    way = replace(request, url=login.url, method="GET", body=b"")
    if not (login.url.is_site_of(request.url) or request.url.is_site_of(login.url)):
        # What is for the one site is not for the other.
        way = replace(way, headers={}, address="", port=None, socket="")
    headers = dict(way.headers)
    if login.as_json:
        sent = replace(
            way,
            method="POST",
            body=json.dumps(dict(login.values)).encode(),
            headers={**headers, "Content-Type": _JSON},
        )
    else:
        page = await visit(client, way, Redirects(), seconds, jar=jar)
        if isinstance(page.result, Failure) or page.astray is not None:
            return page
        form = find_form(page.result.text, login.values) or Form()
        target = _find_target(page.request.url, form)
        sent = replace(
            page.request,
            url=target,
            method="POST",
            body=urlencode({**form.hidden, **login.values}).encode(),
            # Without it some frameworks take a form for a forged one.
            headers={**headers, "Content-Type": _FORM, "Referer": _write_origin(page.request.url)},
        )
    left = until - asyncio.get_running_loop().time()
    return await visit(client, sent, Redirects(), left, jar=jar)


def _find_target(page: Url, form: Form) -> Url:
    """Where the form goes; what is secret is never sent to another site."""
    target = page.join(form.action) if form.action else page
    return target if target is not None and target.is_site_of(page) else page


def _write_origin(url: Url) -> str:
    return f"{url.scheme}://{url.authority}{url.target.partition('?')[0]}"
