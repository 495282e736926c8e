"""Logging in before the request: forms, JSON, cookies, and secrets that nobody sees."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import load_config, show_config
from agent.core.model import Evidence, Finding
from agent.errors import Unavailable
from agent.host.connection import Timings
from agent.host.cookies import Jar
from agent.host.forms import find_form
from agent.host.http import Response
from agent.host.url import parse_url
from agent.remedies.catalog import SHIPPED, Catalog

Serve = Callable[..., Awaitable[Any]]
Look = Callable[..., Awaitable[Finding]]
Gather = Callable[..., Awaitable[tuple[Evidence, ...]]]

FORM = """\
<form action="/search"><input name="q"></form>
<FORM method="post" action="/enter?next=%2Fshop"><input type=hidden name="csrf" value="t&amp;k">
<input name="user"><input type="password" name="password"><button name="go">In</button></form>
"""
SESSION = "s3ss10n-of-ours"


def verdict(finding: Finding) -> tuple[str, str]:
    return finding.status.value, finding.cause


@dataclass
class Shop:
    """A shop behind a log-in."""

    port: int = 0
    #: Method and target, headers, body of each request.
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    #: What the page with the form is.
    form: str = FORM

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, line: str, headers: dict[str, str], body: bytes) -> tuple[str, str, str]:
        """Status, further headers, body."""
        cookies = headers.get("cookie", "")
        if line == "GET /login":
            return "200 OK", "Set-Cookie: pre=1; Path=/\r\n", self.form
        if line == "POST /enter?next=%2Fshop":
            sent = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            good = {"csrf": "t&k", "user": "check", "password": "hunter22"}
            if sent != good or "pre=1" not in cookies:
                return "200 OK", "", f"wrong password: {body.decode()}"
            if headers.get("referer") != f"{self.url}/login":
                return "403 Forbidden", "", "forged"
            more = f"Set-Cookie: sid={SESSION}; Path=/; HttpOnly\r\nLocation: /shop\r\n"
            return "302 Found", more, ""
        if line == "POST /api/login":
            if json.loads(body) != {"user": "check", "password": "hunter22"}:
                return "401 Unauthorized", "", "no"
            return "200 OK", f"Set-Cookie: sid={SESSION}; Path=/\r\nSet-Cookie: api=1\r\n", "{}"
        if f"sid={SESSION}" in cookies:
            return "200 OK", "", f"welcome, {cookies}"
        return "403 Forbidden", "", f"who are you? {cookies}"


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    shop = Shop()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        line = head[0].rpartition(" ")[0]
        shop.asked.append((line, headers, body))
        status, more, text = shop.answer(line, headers, body)
        size = len(text.encode())
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n{more}\r\n{text}".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    shop.port = server.sockets[0].getsockname()[1]
    async with server:
        yield shop


def by_form(**fields: Any) -> dict[str, Any]:
    return {"url": "/login", "form": {"user": "check", "password": "hunter22"}, **fields}


async def test_a_form_is_filled_in_with_what_it_hides(shop: Shop, look_at: Look) -> None:
    finding = await look_at(url=f"{shop.url}/shop", login=by_form())
    assert verdict(finding) == ("ok", "")
    assert [line for line, _, _ in shop.asked] == [
        "GET /login", "POST /enter?next=%2Fshop", "GET /shop", "GET /shop",
    ]  # fmt: skip
    assert finding.subject == f"{shop.url}/shop"
    assert finding.measurements["login_seconds"] > 0


async def test_json_is_posted_as_json(shop: Shop, look_at: Look) -> None:
    login = {"url": "/api/login", "json": {"user": "check", "password": "hunter22"}}
    finding = await look_at(url=f"{shop.url}/api/orders", login=login)
    assert verdict(finding) == ("ok", "")
    assert shop.asked[0][1]["content-type"] == "application/json"
    assert shop.asked[1][1]["cookie"] == f"api=1; sid={SESSION}"
    await look_at(url=f"{shop.url}/shop", login=login)
    # A cookie for /api goes nowhere else.
    assert "api=1" not in shop.asked[-1][1].get("cookie", "")


async def test_secrets_come_from_files(shop: Shop, look_at: Look, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hunter22\n")
    file.chmod(0o600)
    login = by_form(form={"user": "check", "password": {"file": str(file)}})
    assert verdict(await look_at(url=f"{shop.url}/shop", login=login)) == ("ok", "")
    file.chmod(0o644)
    with pytest.raises(Unavailable, match="lets others in"):
        await look_at(url=f"{shop.url}/shop", login=login)
    file.unlink()
    with pytest.raises(Unavailable, match=r"cannot read `login\.password`"):
        await look_at(url=f"{shop.url}/shop", login=login)


async def test_a_log_in_that_is_refused_is_a_cause_of_its_own(shop: Shop, look_at: Look) -> None:
    login = {"url": "/api/login", "json": {"user": "check", "password": "wrong-one"}}
    finding = await look_at(url=f"{shop.url}/shop", login=login)
    assert verdict(finding) == ("critical", "login")
    assert f"{shop.url}/api/login answers 401 Unauthorized" in finding.summary
    assert len(shop.asked) == 1
    # Many forms say 200 to a wrong password: what says no is the configuration's to tell.
    login = by_form(form={"user": "check", "password": "wrong-one"})
    assert verdict(await look_at(url=f"{shop.url}/shop", login=login)) == ("critical", "status")
    login["failed"] = "[BODY] == pat(*wrong password*)"
    assert verdict(await look_at(url=f"{shop.url}/shop", login=login)) == ("critical", "login")
    login["failed"] = "[BODY].code > 3"
    assert verdict(await look_at(url=f"{shop.url}/shop", login=login)) == ("unknown", "unclear")


async def test_a_log_in_that_nobody_answers_fails_as_the_page_would(
    look_at: Look, serve: Serve
) -> None:
    async def hang(_reader: Any, _writer: Any) -> None:
        await asyncio.Event().wait()

    served = await serve(hang)
    finding = await look_at(url=served.url, login=by_form(), timeout="200ms")
    assert verdict(finding) == ("critical", "timeout")
    assert finding.facts["Failed at"] == "the log-in"
    garbage = await serve(b"\x00\xff\r\n\r\n")
    assert verdict(await look_at(url=garbage.url, login=by_form())) == ("critical", "invalid")


async def test_what_is_secret_is_sent_to_no_other_site(
    shop: Shop, serve: Serve, look_at: Look
) -> None:
    other = await serve(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    shop.form = FORM.replace('"/enter?next=%2Fshop"', f'"http://other.example:{other.port}/steal"')

    async def resolve(_name: str) -> tuple[str, ...]:
        return ("127.0.0.1",)

    await look_at(resolve, url=f"{shop.url}/shop", login=by_form())
    assert other.asked == []
    assert shop.asked[1][0] == "POST /login"


async def test_a_page_without_a_form_is_posted_to_itself(shop: Shop, look_at: Look) -> None:
    shop.form = "<p>no form</p>"
    await look_at(url=f"{shop.url}/shop", login=by_form())
    assert shop.asked[1][0] == "POST /login"
    assert parse_qs(shop.asked[1][2].decode()) == {"user": ["check"], "password": ["hunter22"]}


async def test_nothing_secret_is_shown(
    shop: Shop, look_at: Look, gather_of: Gather, tmp_path: Path
) -> None:
    secrets = ("hunter22", SESSION)
    fields = {"url": f"{shop.url}/shop", "login": by_form(), "critical": {"odd": "[STATUS] == 200"}}
    finding = await look_at(**fields)
    shown = repr(finding) + repr(await gather_of(**fields))
    assert "welcome, " in shown
    login = by_form(failed="[BODY] == pat(*wrong*)", form={"user": "x", "password": "hunter22"})
    shown += repr(await look_at(url=f"{shop.url}/shop", login=login))
    shown += repr(await gather_of(url=f"{shop.url}/shop", login=login))
    path = tmp_path / "hostmend.yml"
    path.write_text(f"checks: {{a: {json.dumps({'type': 'http', **fields})}}}")
    config = load_config(path, catalog=Catalog.load((SHIPPED,)))
    shown += show_config(config) + repr(config.checks)
    assert not [secret for secret in secrets if secret in shown]
    assert "url: /login" in show_config(config)


# Families and client certificates


async def test_only_addresses_of_the_wanted_family_are_asked(serve: Serve, look_at: Look) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    served = await serve(answer, host="::1")

    async def resolve(_name: str) -> tuple[str, ...]:
        return ("127.0.0.1", "::1")

    url = f"http://shop.example:{served.port}/"
    assert verdict(await look_at(resolve, url=url, family="ipv6")) == ("ok", "")
    assert verdict(await look_at(resolve, url=url, family="ipv4")) == ("critical", "refused")


async def test_a_server_that_wants_a_certificate_gets_ours(
    serve: Serve, look_at: Look, authority: Any
) -> None:
    context = authority.serve_as("127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.file)
    served = await serve(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", tls=context)
    fields = {"url": f"https://127.0.0.1:{served.port}/", "ca_file": str(authority.file)}
    authority.sign("client.example")
    ours = str(authority.directory / f"{authority.count}.pem")
    assert verdict(await look_at(**fields, client_cert=ours)) == ("ok", "")
    assert verdict(await look_at(**fields))[0] == "critical"
    with pytest.raises(Unavailable, match="cannot use the certificate /nowhere"):
        await look_at(**fields, client_cert="/nowhere.pem")


# Cookies


def answer(*cookies: str) -> Response:
    return Response(
        status=200, reason="OK", headers=tuple(("Set-Cookie", cookie) for cookie in cookies),
        body=b"", cut=False, peer="", timings=Timings(),
    )  # fmt: skip


#: A sentence, the cookie, where it was set, where it might go, and what goes there.
COOKIES = [
    ("back to where it is from", "a=1", "http://x.example/", "http://x.example/b", "a=1"),
    ("to no other host", "a=1", "http://x.example/", "http://y.example/", ""),
    ("to no host below", "a=1", "http://x.example/", "http://a.x.example/", ""),
    ("unless it says", "a=1; Domain=x.example", "http://x.example/", "http://a.x.example", "a=1"),
    ("not for others", "a=1; Domain=y.example", "http://x.example/", "http://y.example/", ""),
    ("not for a country", "a=1; Domain=example", "http://x.example/", "http://y.example/", ""),
    ("within its path", "a=1; Path=/shop", "http://x.example/", "http://x.example/shop/1", "a=1"),
    ("not beside it", "a=1; Path=/shop", "http://x.example/", "http://x.example/shopping", ""),
    ("from where it was set", "a=1", "http://x.example/a/b", "http://x.example/", ""),
    ("in secret only", "a=1; Secure", "https://x.example/", "http://x.example/", ""),
    ("in secret", "a=1; Secure", "https://x.example/", "https://x.example/", "a=1"),
    ("not when it is over", "a=1; Max-Age=0", "http://x.example/", "http://x.example/", ""),
    (
        "nor long ago",
        "a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        "http://x.example/",
        "http://x.example/",
        "",
    ),
    ("with odd words", "a=b=c; What; =x", "http://x.example/", "http://x.example/", "a=b=c"),
    ("no cookie", "nothing", "http://x.example/", "http://x.example/", ""),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "cookie", "there", "to", "wanted"), COOKIES)
def test_where_cookies_go(sentence: str, cookie: str, there: str, to: str, wanted: str) -> None:
    jar = Jar()
    jar.take(parse_url(there), answer(cookie))
    assert jar.header(parse_url(to)) == wanted


def test_a_cookie_is_replaced_and_ended() -> None:
    jar, url = Jar(), parse_url("http://x.example/")
    jar.take(url, answer("a=1", "b=2"))
    jar.take(url, answer("a=3", "b=; Max-Age=-1"))
    assert jar.header(url) == "a=3"


@given(st.lists(st.text(max_size=60), max_size=5))
def test_any_cookies_are_taken_or_not(cookies: list[str]) -> None:
    jar, url = Jar(), parse_url("http://x.example/")
    jar.take(url, answer(*cookies))
    assert "\r" not in jar.header(url)
    assert "\n" not in jar.header(url)


@given(st.text(max_size=300))
def test_any_html_is_read_for_forms(html: str) -> None:
    find_form(html, ["user"])


def test_the_form_with_the_fields_is_found() -> None:
    form = find_form(FORM, ["user", "password"])
    assert form is not None
    assert form.action == "/enter?next=%2Fshop"
    assert form.hidden == {"csrf": "t&k"}
    assert find_form(FORM, ["nothing"]) is None
