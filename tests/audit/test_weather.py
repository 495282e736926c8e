"""Sites in bad weather: what fails now and then, what is slow, what wants to be left alone."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import pytest
from aiohttp import web
from audit_scene import Run, Serve, Speak, find, page, verdicts
from authority import Authority

from agent.audit.plan import Rule
from agent.audit.result import Status


def failing(times: int, status: int = 502, **headers: str):
    """Fails so many times, and is fine then."""
    left = [times]

    def answer(_request: web.Request) -> web.Response:
        left[0] -= 1
        if left[0] >= 0:
            return web.Response(status=status, headers=headers)
        return web.Response(text=page('<a href="/behind">x</a>'), content_type="text/html")

    return answer


async def test_what_fails_once_is_not_reported(serve: Serve, run: Run) -> None:
    site = await serve({"/": page('<a href="/a">x</a>'), "/a": failing(2), "/behind": page("")})
    audit = await run(site)
    assert audit.defects == ()
    assert audit.counts["transient"] == 1
    assert "502 Bad Gateway" in "\n".join(audit.notes)
    # What stands behind it is crawled all the same.
    assert site.count("/behind") == 1


async def test_what_fails_each_time_is_broken(serve: Serve, run: Run) -> None:
    site = await serve({"/": page('<a href="/a">x</a>'), "/a": failing(3), "/behind": page("")})
    audit = await run(site)
    assert verdicts(audit, site) == {("error", "/a")}
    assert site.count("/a") == 3


async def test_a_site_that_wants_fewer_requests_gets_them(serve: Serve, run: Run) -> None:
    times: dict[str, list[float]] = {}

    def busy(request: web.Request) -> web.Response:
        seen = times.setdefault(request.path, [])
        seen.append(asyncio.get_running_loop().time())
        if len(seen) == 1:
            return web.Response(status=429, headers={"Retry-After": "1"})
        return web.Response(text="ok")

    site = await serve({"/": page('<a href="/a">x</a>'), "/a": busy})
    audit = await run(site)
    assert audit.defects == ()
    first, second = times["/a"]
    assert second - first >= 1


async def test_a_site_that_never_lets_us_in_is_blocked_and_not_broken(
    serve: Serve, run: Run
) -> None:
    site = await serve(
        {
            "/": page('<a href="/a">x</a><a href="/b">x</a><a href="/c">x</a><a href="/d">x</a>'),
            "/a": web.Response(status=429),
            "/b": web.Response(status=503, headers={"Retry-After": "0"}),
            "/c": web.Response(status=403),
            "/d": web.Response(status=401),
        }
    )
    audit = await run(site, patience=0.05)
    assert verdicts(audit, site) == {("error", "/b")}
    assert audit.counts["blocked"] == 3
    assert "3 did not let this audit in" in "\n".join(audit.notes)


async def test_a_site_that_is_down_is_one_thing_and_not_thousands(
    run: Run, unused_port: int
) -> None:
    audit = await run(f"http://127.0.0.1:{unused_port}/")
    assert (audit.ending, audit.trouble, audit.defects) == ("down", "refused", ())


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


async def test_a_site_that_dies_in_the_middle_is_down(serve: Serve, run: Run) -> None:
    seen = [0]

    def dying(_request: web.Request) -> web.Response:
        seen[0] += 1
        return web.Response(status=500 if seen[0] > 5 else 200, text=page("x"))

    site = await serve({"/": dying})
    site.answers |= {f"/p{n}": dying for n in range(100)}
    links = [f'<a href="/p{n}">x</a>' for n in range(100)]

    def start(_request: web.Request) -> web.Response:
        if seen[0] > 5:
            return web.Response(status=500)
        return web.Response(text=page(*links), content_type="text/html")

    site.answers["/"] = start
    audit = await run(site)
    assert (audit.ending, audit.defects) == ("down", ())
    assert "went away" in audit.why
    assert len(site.asked) < 80


async def test_many_broken_pages_of_a_site_that_answers_are_all_found(
    serve: Serve, run: Run
) -> None:
    links = [f'<a href="/p{n}">x</a>' for n in range(60)]
    site = await serve({"/": page(*links), "*": web.Response(status=500)})
    site.answers["/robots.txt"] = site.answers["/sitemap.xml"] = web.Response(status=404)
    audit = await run(site)
    assert audit.complete
    assert len(audit.defects) == 60


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "before the answer was whole"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "not HTTP"),
        (b"SSH-2.0-OpenSSH\r\n", "not HTTP"),
        (b"", "before the answer was whole"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n"
            b"Content-Length: 4\r\n\r\nnope",
            "cannot be unpacked",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: br\r\n"
            b"Content-Length: 4\r\n\r\nnope",
            "not asked for",
        ),
    ],
)
async def test_what_is_no_whole_answer_is_broken(
    sent: bytes, why: str, speak: Speak, serve: Serve, run: Run
) -> None:
    async def talk(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        writer.close()

    port = await speak(talk)
    site = await serve({"/": page(f'<a href="http://127.0.0.1:{port}/x">x</a>')})
    audit = await run(site, hosts=(f"127.0.0.1:{port}",), robots=False)
    assert why in find(audit, "unanswered").why


async def test_an_answer_that_never_comes_is_broken(speak: Speak, serve: Serve, run: Run) -> None:
    async def talk(_head: bytes, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    port = await speak(talk)
    site = await serve({"/": page(f'<a href="http://127.0.0.1:{port}/x">x</a>')})
    audit = await run(site, hosts=(f"127.0.0.1:{port}",), robots=False, answer=0.3, retries=1)
    assert "no whole answer within" in find(audit, "unanswered").why


# Limits


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_bomb_is_read_only_as_far_as_allowed(coding: str, serve: Serve, run: Run) -> None:
    plain = b"<a href=/in>x</a>" + b" " * 50_000_000 + b"<a href=/beyond>x</a>"
    packed = gzip.compress(plain) if coding == "gzip" else zlib.compress(plain)
    bomb = web.Response(
        body=packed, headers={"Content-Type": "text/html", "Content-Encoding": coding}
    )
    site = await serve({"/": page('<a href="/bomb">x</a>'), "/bomb": bomb, "/in": page("")})
    audit = await run(site, body=100_000, large=100_000)
    assert verdicts(audit, site) == {("large", "/bomb")}
    assert "/in" in site.paths
    assert "/beyond" not in site.paths
    assert audit.counts["bytes"] < 200_000
    assert "1 are longer than what is read" in "\n".join(audit.notes)


async def test_an_endless_body_is_read_only_as_far_as_allowed(
    speak: Speak, serve: Serve, run: Run
) -> None:
    sent = [0]

    async def talk(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        while not writer.is_closing():
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            sent[0] += 0x10000
            await writer.drain()

    port = await speak(talk)
    site = await serve({"/": page(f'<a href="http://127.0.0.1:{port}/x">x</a>')})
    audit = await run(site, hosts=(f"127.0.0.1:{port}",), robots=False, body=300_000, large=300_000)
    assert find(audit, "large")
    assert sent[0] < 50_000_000


async def test_a_big_file_is_not_read(serve: Serve, run: Run) -> None:
    big = web.Response(body=b"x" * 3_000_000, content_type="application/octet-stream")
    site = await serve({"/": page('<a href="/download">x</a><a href="/a.iso">x</a>')})
    site.answers |= {"/download": big, "/a.iso": big}
    audit = await run(site)
    assert audit.defects == ()
    assert audit.counts["bytes"] < 10_000
    assert [seen.size for seen in audit.urls][1:] == [3_000_000, 3_000_000]
    assert ("GET", "/a.iso") not in site.asked


async def test_a_calendar_without_an_end_has_one(serve: Serve, run: Run) -> None:
    def calendar(request: web.Request) -> web.Response:
        month = int(request.query.get("month", "0"))
        links = f'<a href="/cal?month={month + 1}">n</a><a href="/cal?month={month - 1}">p</a>'
        return web.Response(text=page(links), content_type="text/html")

    site = await serve({"/": page('<a href="/cal?month=1&day=2">x</a>'), "/cal": calendar})
    audit = await run(site, variants=10)
    assert audit.complete
    assert sum(path.startswith("/cal?month") for path in site.paths) == 11
    assert any("same names in their query" in note for note in audit.notes)


async def test_paths_and_clicks_without_an_end_have_one(serve: Serve, run: Run) -> None:
    def deeper(request: web.Request) -> web.Response:
        return web.Response(
            text=page('<a href="a/b/">x</a>', f'<a href="/n/{len(request.path)}/x">x</a>'),
            content_type="text/html",
        )

    site = await serve({"*": deeper, "/sitemap.xml": web.Response(status=404)})
    site.answers["/robots.txt"] = web.Response(status=404)
    audit = await run(site, depth=6)
    assert audit.complete
    assert max(seen.depth for seen in audit.urls) == 6
    assert audit.counts["urls"] < 200
    audit = await run(site, depth=50)
    assert any("again and again" in note for note in audit.notes)


async def test_no_more_addresses_are_asked_than_allowed(serve: Serve, run: Run) -> None:
    links = [f'<a href="/p{n}">x</a>' for n in range(100)]
    site = await serve({"/": page(*links), "*": page("x")})
    site.answers["/robots.txt"] = site.answers["/sitemap.xml"] = web.Response(status=404)
    audit = await run(site, pages=20)
    assert (audit.complete, audit.counts["urls"]) == (True, 20)
    assert any(note.startswith("81 not asked, over the limit") for note in audit.notes)


async def test_an_audit_ends_when_its_time_is_over_and_says_what_it_knows(
    serve: Serve, run: Run
) -> None:
    async def slow(_request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response(text="ok")

    site = await serve({"/": page('<a href="/gone">x</a><a href="/slow">x</a>'), "/slow": slow})
    audit = await run(site, seconds=1.5)
    assert audit.ending == "time"
    assert verdicts(audit, site) == {("missing", "/gone")}
    assert audit.counts["unasked"] == 1


async def test_it_is_no_faster_than_told(serve: Serve, run: Run) -> None:
    site = await serve({"/": page(*(f'<a href="/p{n}">x</a>' for n in range(10))), "*": page("x")})
    began = asyncio.get_running_loop().time()
    await run(site, max_rate=20)
    # The first request of all is before the pace; each other one has a turn.
    assert asyncio.get_running_loop().time() - began > (len(site.asked) - 4) / 20


# Budgets and rules


async def test_only_what_is_slow_each_time_is_slow(serve: Serve, run: Run) -> None:
    seen = {"/once": 0, "/always": 0}

    async def slow(request: web.Request) -> web.Response:
        seen[request.path] += 1
        if request.path == "/always" or seen[request.path] == 1:
            await asyncio.sleep(0.5)
        return web.Response(text=page("ok"), content_type="text/html")

    site = await serve({"/": page('<a href="/once">x</a><a href="/always">x</a>')})
    site.answers |= {"/once": slow, "/always": slow}
    audit = await run(site, slow=0.3)
    assert verdicts(audit, site) == {("slow", "/always")}
    assert seen["/always"] == 3


async def test_pages_and_what_they_load_have_a_largest_size(serve: Serve, run: Run) -> None:
    site = await serve(
        {
            "/": page('<a href="/page">x</a><img src="/i.png"><a href="/b.zip">x</a>'),
            "/page": page("x" * 20_000),
            "/i.png": web.Response(body=b"x" * 20_000, content_type="image/png"),
            "/b.zip": web.Response(body=b"x" * 20_000, content_type="application/zip"),
        }
    )
    assert verdicts(await run(site, large=10_000), site) == {
        ("large", "/page"),
        ("large", "/i.png"),
    }
    assert (await run(site, large=0)).defects == ()


async def test_rules_of_ones_own_hold_for_their_addresses(serve: Serve, run: Run) -> None:
    seen = [0]

    def flapping(_request: web.Request) -> web.Response:
        seen[0] += 1
        return web.Response(text="price: 5" if seen[0] > 1 else "oops", content_type="text/html")

    site = await serve(
        {
            "/": page(*(f'<a href="{p}">x</a>' for p in ("/shop/1", "/shop/2", "/shop/3/x"))),
            "/shop/1": page("price: 5"),
            "/shop/2": page("Traceback (most recent call last)"),
            "/shop/3/x": flapping,
        }
    )
    rules = (
        Rule(
            urls="/shop/**",
            critical={"no-price": "[BODY] != pat(*price*)"},
            warning={"long": "len([BODY]) > 5000"},
        ),
        Rule(urls="/shop/*", warning={"not-html": "[HEADER].content-type != pat(text/html*)"}),
    )
    audit = await run(site, rules=rules)
    (defect,) = audit.defects
    assert (defect.kind, defect.rule, defect.status) == ("rule", "no-price", Status.CRITICAL)
    assert defect.target == f"{site.root}/shop/2"


# Soft 404


def shell(title: str, text: str) -> str:
    menu = " ".join(f"menu{'abcdefghij'[n]}" for n in range(10))
    return page(f"<nav>{menu}</nav><p>{text}</p>", title=title)


async def test_a_page_that_only_says_that_it_is_missing_is_found(serve: Serve, run: Run) -> None:
    def not_found(request: web.Request) -> web.Response:
        text = f"Sorry, {request.path} is not here any more, or it never was"
        return web.Response(text=shell("Not found", text), content_type="text/html")

    site = await serve(
        {
            "/": shell("Home", '<a href="/a">x</a><a href="/b/c">x</a><a href="/gone">x</a>'),
            "/a": shell("Not found", "a page about things that could be found in no shop but ours"),
            "/b/c": shell("C", "what c is"),
            "/b/d": not_found,
            "*": not_found,
        }
    )
    site.answers["/robots.txt"] = site.answers["/sitemap.xml"] = web.Response(status=404)
    audit = await run(site)
    assert verdicts(audit, site) == {("soft-404", "/gone")}
    assert find(audit, "soft-404").referrers_count == 1


async def test_an_application_of_one_page_is_no_heap_of_missing_pages(
    serve: Serve, run: Run
) -> None:
    application = shell("App", '<a href="/a">x</a><a href="/b">x</a><a href="/c">x</a>')
    site = await serve({"*": application, "/sitemap.xml": web.Response(status=404)})
    site.answers["/robots.txt"] = web.Response(status=404)
    audit = await run(site)
    assert audit.defects == ()
    assert any("cannot be told" in note for note in audit.notes)


# TLS


async def test_a_page_with_tls_that_loads_something_without_is_found(
    authority: Authority, serve: Serve, run: Run
) -> None:
    plain = await serve({"/i.png": b"x"})
    site = await serve(
        {"/": page(f'<img src="{plain.root}/i.png"><a href="{plain.root}/page">x</a>')},
        tls=authority.serve_as("127.0.0.1"),
    )
    audit = await run(site, ca_file=str(authority.file))
    (defect,) = audit.defects
    assert (defect.kind, defect.target) == ("mixed", f"{plain.root}/i.png")
    assert defect.hint == f"write https://127.0.0.1:{plain.port}/i.png"


@pytest.mark.parametrize(("days", "found"), [(5.5, "5 days"), (1.1, "1 day"), (20.0, "")])
async def test_a_certificate_that_ends_soon_is_found(
    days: float, found: str, authority: Authority, serve: Serve, run: Run
) -> None:
    site = await serve({"/": page("ok")}, tls=authority.serve_as("127.0.0.1", ends=days))
    audit = await run(site, ca_file=str(authority.file))
    assert [d.why for d in audit.defects] == ([f"its certificate ends in {found}"] if found else [])


async def test_a_certificate_that_is_not_good_is_down_unless_it_need_not_be(
    authority: Authority, serve: Serve, run: Run
) -> None:
    site = await serve({"/": page("ok")}, tls=authority.serve_as("shop.example"))
    audit = await run(site, ca_file=str(authority.file))
    assert (audit.ending, audit.trouble) == ("down", "tls")
    assert (await run(site, verify=False)).ending == "complete"


async def test_an_address_is_pinned_and_the_names_stay(
    authority: Authority, serve: Serve, run: Run
) -> None:
    site = await serve(
        {"/": page('<a href="https://www.shop.example/a">x</a>'), "/a": page("ok")},
        tls=authority.serve_as("shop.example"),
    )
    audit = await run(
        "https://shop.example/", connect=f"127.0.0.1:{site.port}", ca_file=str(authority.file)
    )
    # The certificate is not for www.
    (defect,) = audit.defects
    assert (defect.kind, defect.target) == ("tls", "https://www.shop.example/a")
    assert site.headers["/"][0]["Host"] == "shop.example"
