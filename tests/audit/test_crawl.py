"""What is asked for, and what is called broken."""

from __future__ import annotations

import pytest
from aiohttp import web
from audit_scene import Run, Serve, find, page, verdicts

from agent.audit.result import Status

STYLE = {"Content-Type": "text/css"}


def css(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/css")


async def test_a_whole_site_is_fine(serve: Serve, run: Run) -> None:
    site = await serve(
        {
            "/": page('<a href="a">a</a><img src="/logo.png">'),
            "/a": page("<a href=/>home</a>"),
            "/logo.png": web.Response(body=b"png", content_type="image/png"),
        }
    )
    audit = await run(site)
    assert (audit.ending, audit.defects) == ("complete", ())
    assert audit.counts["pages"] == 2
    assert [(seen.status, seen.url) for seen in audit.urls] == [
        (200, site.url),
        (200, f"{site.root}/a"),
        (200, f"{site.root}/logo.png"),
    ]


@pytest.mark.parametrize(
    "part",
    [
        '<a href="/gone">',
        '<map><area href="/gone"></map>',
        '<img src="/gone">',
        '<img srcset="/gone 1x">',
        '<img srcset="data:image/png;base64,AA 1x, /gone 2x">',
        '<picture><source srcset="/gone 480w, /gone 800w"><img></picture>',
        '<video poster="/gone"></video>',
        '<video src="/gone"></video>',
        '<video><source src="/gone"><track src="/gone"></video>',
        '<audio src="/gone"></audio>',
        '<iframe src="/gone"></iframe>',
        '<embed src="/gone">',
        '<object data="/gone"></object>',
        '<input type="image" src="/gone">',
        '<script src="/gone"></script>',
        '<link rel="stylesheet" href="/gone">',
        '<link rel="icon" href="/gone">',
        '<link rel="preload" as="font" href="/gone">',
        '<link rel="modulepreload" href="/gone">',
        '<link rel="next" href="/gone">',
        '<style>body { background: url("/gone") }</style>',
        "<style>@import '/gone';</style>",
        "<style>@import url(/gone) screen;</style>",
        "<style>@font-face { font-family: x; src: url('/gone') format('woff2') }</style>",
        "<p style=\"background-image: url('/gone')\">",
        '<body background="/gone">',
        '<meta http-equiv="refresh" content="5; url=/gone">',
        '<svg><image href="/gone"/></svg>',
        '<noscript><img src="/gone"></noscript>',
        '<base href="/deep/"><a href="../gone">',
    ],
)
async def test_everything_that_a_page_refers_to_is_verified(
    part: str, serve: Serve, run: Run
) -> None:
    site = await serve({"/": page(part)})
    audit = await run(site)
    assert verdicts(audit, site) == {("missing", "/gone")}
    defect = find(audit, "missing")
    assert defect.referrers_count == 1
    assert [(each.page, each.line) for each in defect.referrers] == [(site.url, 4)]


async def test_style_sheets_are_followed_into_each_other(serve: Serve, run: Run) -> None:
    site = await serve(
        {
            "/": page(head='<link rel="stylesheet" href="/css/a.css">'),
            "/css/a.css": css("/* url(no.png) */\n@import 'b.css';\n"),
            "/css/b.css": css(
                "@namespace svg url(http://www.w3.org/2000/svg);\n\n"
                "@font-face { src: url(../f.woff2) }\np { background: url( 'gone.png' ) }"
            ),
            "/f.woff2": web.Response(body=b"f", content_type="font/woff2"),
        }
    )
    audit = await run(site)
    assert verdicts(audit, site) == {("missing", "/css/gone.png")}
    (referrer,) = find(audit, "missing").referrers
    assert (referrer.page, referrer.line, referrer.role) == (f"{site.root}/css/b.css", 4, "image")


@pytest.mark.parametrize(
    "part",
    [
        '<template><a href="/gone"><img src="/gone"></template>',
        '<!-- <a href="/gone"> -->',
        "<script>document.write('<a href=\"/gone\">')</script>",
        '<form action="/gone"><button formaction="/gone">x</button></form>',
        '<img data-src="/gone">',
        '<svg><use href="/gone#icon"/></svg>',
        '<meta property="og:image" content="/gone">',
        '<link rel="preconnect" href="/gone"><link rel="dns-prefetch" href="/gone">',
        '<a href="mailto:a@b.example">m</a><a href="tel:112">t</a><a href="javascript:x()">j</a>',
        '<img src="data:image/png;base64,AAAA"><img src="">',
        '<a href="#top">top</a><a href="#">top</a><a href="#:~:text=some%20words">x</a>',
        '<a href="#!/route"></a><a href="#/route"></a>',
    ],
)
async def test_what_is_no_reference_is_left_alone(part: str, serve: Serve, run: Run) -> None:
    site = await serve({"/": page(part)})
    audit = await run(site)
    assert audit.defects == ()
    assert "/gone" not in site.paths


@pytest.mark.parametrize(
    ("also", "part"),
    [
        ("data-src", '<img data-src="/gone">'),
        ("data-src", '<img data-srcset="/gone 2x">'),
        ("svg-use", '<svg><use xlink:href="/gone#icon"/></svg>'),
        ("og-image", '<meta property="og:image" content="/gone">'),
    ],
)
async def test_what_only_some_sites_use_is_followed_when_asked_for(
    also: str, part: str, serve: Serve, run: Run
) -> None:
    site = await serve({"/": page(part)})
    assert verdicts(await run(site, also=(also,)), site) == {("missing", "/gone")}


async def test_a_missing_place_in_a_page_is_found(serve: Serve, run: Run) -> None:
    site = await serve(
        {
            "/": page(
                '<a href="#here">1</a>',
                '<a href="a#there">2</a>',
                '<a href="a#gr%C3%BCn">3</a>',
                '<a href="old#there">4</a>',
                '<a href="a#gone">5</a>',
                '<a href="a#gone:~:text=x">6</a>',
                '<p id="here">',
            ),
            "/a": page('<a name="there"></a><p id="grün"></p><input name="gone">'),
            "/old": web.Response(status=301, headers={"Location": "/a"}),
        }
    )
    audit = await run(site)
    assert verdicts(audit, site) == {("fragment", "/a#gone")}
    defect = find(audit, "fragment")
    assert [(each.page, each.line) for each in defect.referrers] == [(site.url, 8)]
    assert defect.status is Status.WARNING
    assert (await run(site, fragments=False)).defects == ()


async def test_one_broken_target_is_one_defect_with_its_first_three_referrers(
    serve: Serve, run: Run
) -> None:
    site = await serve(
        {
            "/": page(*(f'<a href="/p{n}">{n}</a>' for n in range(20))),
            **{
                f"/p{n}": page("<p>", '<a href="gone">x</a><a href="gone">y</a>') for n in range(20)
            },
        }
    )
    audit = await run(site)
    (defect,) = audit.defects
    assert defect.referrers_count == 20
    assert [(each.page, each.line) for each in defect.referrers] == [
        (f"{site.root}/p{n}", 5) for n in range(3)
    ]


async def test_a_page_of_another_charset_is_read_and_its_paths_are_sent_as_utf_8(
    serve: Serve, run: Run
) -> None:
    text = page('<a href="café.html">é</a>', title="Übersicht")
    site = await serve(
        {
            "/": web.Response(
                body=text.encode("latin-1"), headers={"Content-Type": "text/html; charset=latin1"}
            ),
            "/caf%C3%A9.html": (
                '<meta charset="windows-1252"><title>caf\xe9</title><a href="/gar\xe7on">x</a>'
            ).encode("cp1252"),
            "/gar%C3%A7on": page("ok"),
        }
    )
    site.answers = {
        **site.answers,
        "/café.html": site.answers["/caf%C3%A9.html"],
        "/garçon": site.answers["/gar%C3%A7on"],
    }
    audit = await run(site)
    assert audit.defects == ()
    assert [seen.title for seen in audit.urls] == ["Übersicht", "café", ""]
    assert audit.urls[1].url == f"{site.root}/caf%C3%A9.html"


@pytest.mark.parametrize(
    ("written", "kind", "hint"),
    [
        ("http://[bad/", "malformed", ""),
        ("http:///", "malformed", ""),
        ("http:/shop.example/a", "malformed", "write http://shop.example/a"),
        ("htps://shop.example/a", "malformed", "write https://shop.example/a"),
        ("shop.example:8080/a", "malformed", "write http://shop.example:8080/a"),
        ("C:\\\\site\\\\a.html", "malformed", ""),
        ("http://a b.example/", "malformed", ""),
        ("docs@shop.example", "missing", "write mailto:docs@shop.example"),
        ("www.shop.example/a", "missing", "write https://www.shop.example/a"),
    ],
)
async def test_what_is_no_address_is_broken_with_a_hint(
    written: str, kind: str, hint: str, serve: Serve, run: Run
) -> None:
    site = await serve({"/": page(f'<a href="{written}">x</a>')})
    defect = find(await run(site), kind)
    assert defect.hint == hint
    assert defect.referrers[0].line == 4


async def test_nothing_that_acts_is_asked(serve: Serve, run: Run) -> None:
    harmful = [
        "/logout", "/user/sign-out", "/wp-login.php?action=logout", "/posts/5/delete",
        "/logout.php", "/?add-to-cart=5", "/unsubscribe?u=1", "/wp-cron.php",
        "/x?do=remove_item&n=1", "/%6Cogout",
    ]  # fmt: skip
    harmless = ["/sql-delete.html", "/how-to-log-out-of-it", "/removed", "/deleted-scenes"]
    links = [f'<a href="{path}">x</a>' for path in harmful + harmless]
    site = await serve({"/": page(*links), **dict.fromkeys(harmless, page("ok"))})
    audit = await run(site)
    assert audit.defects == ()
    assert site.paths.isdisjoint(harmful)
    assert site.paths.issuperset(harmless)
    assert "10 not asked, may change something" in "\n".join(audit.notes)


async def test_an_audit_stays_on_its_site(serve: Serve, run: Run) -> None:
    other = await serve({"/": page('<a href="/more">x</a>'), "/lib.js": "x", "/more": page("")})
    cdn = await serve({"/": page(""), "/logo.png": b"x"})
    site = await serve(
        {
            "/": page(
                f'<a href="{other.url}">x</a><script src="{other.root}/lib.js"></script>',
                f'<img src="{cdn.root}/logo.png"><img src="{cdn.root}/gone.png">',
                '<a href="/away">x</a>',
            ),
            "/away": web.Response(status=302, headers={"Location": f"{other.root}/moved"}),
        }
    )
    audit = await run(site, hosts=(f"127.0.0.1:{cdn.port}",))
    assert other.asked == []
    (defect,) = audit.defects
    assert (defect.kind, defect.target) == ("missing", f"{cdn.root}/gone.png")
    away = next(seen for seen in audit.urls if seen.url.endswith("/away"))
    assert (away.fate, away.redirect) == ("redirect", f"{other.root}/moved")


async def test_other_sites_are_asked_only_when_told_so_and_are_not_read(
    serve: Serve, run: Run
) -> None:
    other = await serve(
        {"/a": page('<a href="/deep">x</a>'), "/no-head": only_get, "/deep": page("")}
    )
    links = [f'<a href="{other.root}/{path}">x</a>' for path in ("a", "gone", "no-head")]
    site = await serve({"/": page(*links)})
    audit = await run(site, external=True, robots=False, retries=0)
    (defect,) = audit.defects
    assert (defect.kind, defect.target) == ("missing", f"{other.root}/gone")
    # It is not this site's own failure.
    assert defect.status is Status.WARNING
    assert "/deep" not in other.paths
    assert ("GET", "/a") not in other.asked


def only_get(request: web.Request) -> web.Response:
    return web.Response(status=405 if request.method == "HEAD" else 200, text="x")


async def test_a_refused_head_is_asked_again_with_get(serve: Serve, run: Run) -> None:
    site = await serve({"/": page('<img src="/i.png"><img src="/j.png">'), "/i.png": only_get})
    audit = await run(site)
    assert verdicts(audit, site) == {("missing", "/j.png")}
    assert site.asked.count(("HEAD", "/i.png")) == site.asked.count(("GET", "/i.png")) == 1


async def test_redirects_are_followed_and_their_referrers_count_for_where_they_lead(
    serve: Serve, run: Run
) -> None:
    site = await serve(
        {
            "/": page('<a href="/old">x</a>', '<a href="/fine">x</a>'),
            "/old": web.Response(status=301, headers={"Location": "older"}),
            "/older": web.Response(status=308, headers={"Location": "/gone"}),
            "/fine": web.Response(status=302, headers={"Location": "/there#part"}),
            "/there": page("ok"),
        }
    )
    audit = await run(site)
    assert verdicts(audit, site) == {("missing", "/gone")}
    defect = find(audit, "missing")
    assert [(each.page, each.line) for each in defect.referrers] == [(site.url, 4)]
    assert "/old" in defect.hint


async def test_redirects_that_lead_nowhere_are_broken(serve: Serve, run: Run) -> None:
    chain = {
        f"/c{n}": web.Response(status=302, headers={"Location": f"/c{n + 1}"}) for n in range(15)
    }
    site = await serve(
        {
            "/": page('<a href="/self">', '<a href="/a">', '<a href="/c0">', '<a href="/bad">'),
            "/self": web.Response(status=302, headers={"Location": "/self"}),
            "/a": web.Response(status=302, headers={"Location": "/b"}),
            "/b": web.Response(status=302, headers={"Location": "/a"}),
            "/bad": web.Response(status=302, headers={"Location": "http://"}),
            "/c15": page("ok"),
            **chain,
        }
    )
    audit = await run(site)
    assert verdicts(audit, site) == {("redirects", path) for path in ("/self", "/a", "/c0", "/bad")}
    assert {"circle" in defect.why for defect in audit.defects} == {True, False}


async def test_a_circle_that_a_cookie_ends_is_none(serve: Serve, run: Run) -> None:
    def welcome(request: web.Request) -> web.Response:
        if request.cookies.get("seen") == "1":
            return web.Response(text="welcome")
        return web.Response(status=302, headers={"Location": "/in", "Set-Cookie": "seen=1; Path=/"})

    site = await serve({"/": page('<a href="/in">x</a>'), "/in": welcome})
    assert (await run(site)).defects == ()


async def test_a_sitemap_is_a_seed(serve: Serve, run: Run) -> None:
    site = await serve({"/": page("ok"), "/lonely": page("ok")})
    site.answers["/sitemap.xml"] = web.Response(
        text=sitemap(f"{site.root}/lonely", f"{site.root}/gone", "https://elsewhere.example/"),
        content_type="application/xml",
    )
    audit = await run(site)
    assert verdicts(audit, site) == {("missing", "/gone")}
    assert site.count("/lonely") == 1
    (referrer,) = find(audit, "missing").referrers
    assert (referrer.page, referrer.line) == (f"{site.root}/sitemap.xml", 4)


def sitemap(*urls: str, index: bool = False) -> str:
    outer, inner = ("sitemapindex", "sitemap") if index else ("urlset", "url")
    rows = "\n".join(f"<{inner}><loc> {url} </loc></{inner}>" for url in urls)
    return (
        '<?xml version="1.0"?>\n'
        f'<{outer} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{rows}\n</{outer}>'
    )


async def test_robots_txt_is_kept_to_and_names_sitemaps(serve: Serve, run: Run) -> None:
    site = await serve(
        {
            "/": page('<a href="/private/a">x</a><a href="/open">x</a>'),
            "/open": page("ok"),
            "/private/a": page("secret"),
            "/found": page("ok"),
        }
    )
    site.answers["/robots.txt"] = web.Response(
        text=f"User-agent: *\nDisallow: /private/\nSitemap: {site.root}/maps.xml\n"
        f"Sitemap: {site.root}/gone.xml\n"
    )
    packed = sitemap(f"{site.root}/more.txt", index=True)
    site.answers["/maps.xml"] = web.Response(text=packed, content_type="text/xml")
    site.answers["/more.txt"] = web.Response(text=f"{site.root}/found\n{site.root}/lost\n")
    audit = await run(site)
    assert "/private/a" not in site.paths
    assert verdicts(audit, site) == {("missing", "/gone.xml"), ("missing", "/lost")}
    assert site.count("/found") == 1
    assert any("robots.txt does not want" in note for note in audit.notes)
    assert ("missing", "/lost") in verdicts(await run(site, robots=False), site)
    assert "/private/a" in site.paths


async def test_a_site_that_wants_no_crawlers_is_left_alone(serve: Serve, run: Run) -> None:
    site = await serve(
        {
            "/": page('<a href="/a">x</a>'),
            "/robots.txt": web.Response(text="User-agent: *\nDisallow: /"),
        }
    )
    audit = await run(site)
    assert (audit.ending, audit.defects) == ("blocked", ())
    assert "robots.txt" in audit.why
    assert "/a" not in site.paths


async def test_a_robots_txt_that_fails_asks_to_stay_away(serve: Serve, run: Run) -> None:
    site = await serve({"/": page('<a href="/a">x</a>'), "/robots.txt": web.Response(status=503)})
    audit = await run(site)
    assert audit.ending == "blocked"
    assert "cannot be read" in audit.why


async def test_only_and_skip_narrow_the_crawl_but_not_what_pages_load(
    serve: Serve, run: Run
) -> None:
    site = await serve(
        {
            "/": page('<a href="/docs/a">x</a><a href="/blog/b">x</a>'),
            "/docs/a": page('<img src="/img/gone.png"><a href="/docs/old/c">x</a>'),
        }
    )
    audit = await run(site, only=("/docs/**",), skip=("/docs/old/**",))
    assert verdicts(audit, site) == {("missing", "/img/gone.png")}
    assert site.paths.isdisjoint({"/blog/b", "/docs/old/c"})


async def test_the_first_address_may_lead_on_within_its_site(serve: Serve, run: Run) -> None:
    site = await serve(
        {
            "/": web.Response(status=301, headers={"Location": "/en/"}),
            "/en/": page('<a href="gone">x</a>'),
        }
    )
    audit = await run(site)
    assert audit.site == f"{site.root}/en/"
    assert verdicts(audit, site) == {("missing", "/en/gone")}


async def test_a_site_that_leads_elsewhere_is_not_audited(serve: Serve, run: Run) -> None:
    other = await serve({"/": page("other")})
    site = await serve({"/": web.Response(status=302, headers={"Location": other.url})})
    audit = await run(site)
    assert (audit.ending, other.asked) == ("elsewhere", [])
    assert other.root in audit.why
