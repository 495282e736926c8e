"""What identifies the operator goes to the audited site, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web
from audit_scene import Run, Serve, Site, make_plan, page
from authority import Authority

from agent.audit.address import show_address
from agent.audit.client import order_audit
from agent.audit.credentials import find_secrets, read_credentials
from agent.audit.order import Order
from agent.audit.report_html import write_html
from agent.audit.report_junit import write_junit
from agent.audit.result import dump_audit
from agent.errors import ConfigError, HostmendError, Unavailable

SECRET = "topsecret0123"


def sent(site: Site) -> str:
    return str(site.headers)


async def test_the_site_is_sent_them_with_every_request(serve: Serve, run: Run) -> None:
    site = await serve({"/": page('<a href="/a">x</a><img src="/i.png">'), "/a": page("ok")})
    await run(site, credentials={"Cookie": f"session={SECRET}", "Authorization": "Bearer x"})
    for path in ("/", "/a", "/i.png", "/robots.txt"):
        assert all(h["Cookie"] == f"session={SECRET}" for h in site.headers[path]), path
        assert all(h["Authorization"] == "Bearer x" for h in site.headers[path]), path


async def test_nobody_else_is_sent_them_whatever_way_leads_there(serve: Serve, run: Run) -> None:
    cdn = await serve({"/i.png": b"x", "/a": page("ok")})
    other = await serve({"/": page("ok"), "/a": page("ok")})
    site = await serve(
        {
            "/": page(
                f'<img src="{cdn.root}/i.png"><a href="{other.url}">x</a>',
                '<a href="/to-cdn">x</a><a href="/to-other">x</a>',
            ),
            "/to-cdn": web.Response(status=302, headers={"Location": f"{cdn.root}/a"}),
            "/to-other": web.Response(status=307, headers={"Location": f"{other.root}/a"}),
        }
    )
    await run(
        site.url.replace("http://", f"http://me:{SECRET}@"),
        credentials={"Cookie": f"session={SECRET}"},
        hosts=(f"127.0.0.1:{cdn.port}",),
        external=True,
        robots=False,
    )
    assert {"/i.png", "/a"} <= cdn.paths
    assert {"/", "/a"} <= other.paths
    for elsewhere in (cdn, other):
        assert "Cookie" not in sent(elsewhere)
        assert "Authorization" not in sent(elsewhere)
    assert all("Basic" in h["Authorization"] for h in site.headers["/"])


async def test_a_first_address_that_leads_elsewhere_takes_nothing_with_it(
    serve: Serve, run: Run
) -> None:
    other = await serve({"/": page("ok")})
    site = await serve({"/": web.Response(status=302, headers={"Location": other.url})})
    await run(site, credentials={"Cookie": f"session={SECRET}"}, external=True)
    assert SECRET not in sent(other)


async def test_a_step_from_tls_to_none_takes_nothing_with_it(
    authority: Authority, serve: Serve, run: Run
) -> None:
    site = await serve({"/": page("ok")}, tls=authority.serve_as("127.0.0.1"))
    plain = await serve({"/a": page("ok")})
    site.answers["/"] = page(f'<a href="{plain.root}/a">x</a>')
    await run(
        site,
        ca_file=str(authority.file),
        credentials={"Cookie": f"session={SECRET}"},
        hosts=(f"127.0.0.1:{plain.port}",),
    )
    assert "/a" in plain.paths
    assert SECRET not in sent(plain)


async def test_no_report_shows_them(serve: Serve, run: Run) -> None:
    def echo(request: web.Request) -> web.Response:
        return web.Response(status=404, text=str(dict(request.headers)))

    site = await serve(
        {"/": page(f'<a href="/gone?token={SECRET}">x</a><a href="//u:{SECRET}@[bad/">y</a>')}
    )
    site.answers["/gone"] = echo
    audit = await run(
        site.url.replace("http://", f"http://me:{SECRET}@"),
        credentials={"Cookie": f"session={SECRET}"},
    )
    assert {d.kind for d in audit.defects} == {"missing", "malformed"}
    for report in (dump_audit(audit), write_html(audit), write_junit(audit), repr(audit)):
        assert SECRET not in report


def test_secrets_in_an_address_are_masked() -> None:
    assert show_address("https://me:pw@h.example/a?b=c&key=d") == "https://h.example/a?b=c&key=***"
    assert show_address("/a?token=x") == "/a?token=***"
    assert show_address("https://h.example?a@b") == "https://h.example?a@b"


def test_whole_values_and_long_parts_of_them_are_secret() -> None:
    headers = {"Cookie": "theme=dark; session=abcdefgh", "Authorization": "Bearer 0123456789"}
    found = find_secrets("https://me:word@h.example/?token=t0ken", headers)
    assert {"abcdefgh", "0123456789", "word", "t0ken", "Bearer 0123456789"} <= found
    assert "dark" not in found


async def test_what_a_site_repeats_of_them_is_masked_on_the_way_out(
    serve: Serve, tmp_path: Path
) -> None:
    def echo(request: web.Request) -> web.Response:
        return web.Response(
            text=f"<title>{request.headers['Cookie']}</title>", content_type="text/html"
        )

    site = await serve({"/": echo})
    file = write(tmp_path / "c", f"Cookie: session={SECRET}\n")
    audit = await order_audit(Order(plan=make_plan(site.url, credentials=str(file))))
    assert audit.urls[0].title == "***"
    assert SECRET not in repr(audit)


# The file


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_headers_are_read_from_a_file_of_its_owners_own(tmp_path: Path) -> None:
    text = f"# for the staging site\n\nauthorization: Bearer {SECRET}\nCookie: a=b; c=d\n"
    assert read_credentials(str(write(tmp_path / "c", text))) == {
        "Authorization": f"Bearer {SECRET}",
        "Cookie": "a=b; c=d",
    }


@pytest.mark.parametrize(
    "text", [f"just {SECRET}", f"Cookie {SECRET}", f"Host: {SECRET}", f"Cookie: a\x07{SECRET}"]
)
def test_a_file_that_is_none_is_refused_without_showing_it(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_credentials(str(write(tmp_path / "c", text)))
    assert "c:1" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="chmod 0600"):
        read_credentials(str(write(tmp_path / "c", "Cookie: a=b", 0o644)))
    with pytest.raises(HostmendError, match="mode 0600"):
        read_credentials(str(tmp_path / "none"))
