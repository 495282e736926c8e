"""`hostmend audit`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from audit_scene import Serve, page
from audit_scene import serve as serve

from api.cli.main import run_command


def fast(url: str, *more: str) -> tuple[str, ...]:
    return ("audit", url, "--max-rate", "0", "--no-robots", *more)


async def test_a_site_without_a_defect_is_ok(hostmend, serve: Serve) -> None:
    site = await serve({"/": page("ok")})
    result = await hostmend(*fast(site.url))
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("OK - nothing is wrong; 1 address, 1 page")


async def test_what_is_broken_is_said_with_where_it_is(hostmend, serve: Serve) -> None:
    site = await serve({"/": page('<a href="docs@shop.example">x</a>')})
    result = await hostmend(*fast(site.url))
    assert result.code == 1
    assert result.out.splitlines()[:5] == [
        result.out.splitlines()[0],
        "",
        f"missing  {site.url}docs@shop.example",
        "    404 Not Found; write mailto:docs@shop.example",
        f"    from {site.url} line 4 (link)",
    ]


async def test_it_comes_as_json_junit_and_html_and_is_compared(
    hostmend, serve: Serve, tmp_path: Path
) -> None:
    site = await serve({"/": page('<a href="/a">x</a><a href="/b">x</a>'), "/b": page("ok")})
    files = ("--junit", str(tmp_path / "r.xml"), "--html", str(tmp_path / "r.html"))
    result = await hostmend(*fast(site.url, "--json", *files))
    assert result.code == 1
    found = json.loads(result.out)
    assert [defect["target"] for defect in found["defects"]] == [f"{site.url}a"]
    assert [seen["status"] for seen in found["urls"]] == [200, 404, 200]
    assert "<testsuite" in (tmp_path / "r.xml").read_text()
    assert "<!doctype html>" in (tmp_path / "r.html").read_text()

    earlier = tmp_path / "earlier.json"
    earlier.write_text(result.out)
    result = await hostmend(*fast(site.url, "--since", str(earlier)))
    assert (result.code, "none new" in result.out) == (0, True)
    site.answers["/a"] = site.answers.pop("/b")
    result = await hostmend(*fast(site.url, "--since", str(earlier)))
    assert result.code == 1
    assert f"Mended since\n    missing {site.url}a" in result.out


async def test_a_site_that_cannot_be_audited_has_its_own_exit_code(hostmend) -> None:
    result = await hostmend(*fast("http://127.0.0.1:1/"))
    assert result.code == 3
    assert "NOT AUDITED - http://127.0.0.1:1/: it does not answer" in result.out
    result = await hostmend(*fast("http://127.0.0.1:1/", "--credentials", "/none"))
    assert (result.code, result.out) == (3, "")
    assert "cannot read credentials /none" in result.err


async def test_an_interrupted_audit_is_resumed(hostmend, serve: Serve, tmp_path: Path) -> None:
    site = await serve({"/": page('<a href="/a">x</a>'), "/a": page("ok")})
    state = str(tmp_path / "state")
    (tmp_path / "notes").write_text("something else\n")
    assert (await hostmend(*fast(site.url, "--state", state, "--resume"))).code == 0
    result = await hostmend(*fast(site.url, "--state", str(tmp_path / "notes"), "--resume"))
    assert result.code == 3
    assert "it is no state file of an audit" in result.err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("audit",), "Missing argument"),
        (("audit", "http://a b/"), "must hold no space"),
        (("audit", "ftp://shop.example/"), "http"),
        (("audit", "shop.example", "--also", "data-href"), "data-src"),
        (("audit", "shop.example", "--connect", "shop.example"), "no address"),
        (("audit", "shop.example", "--time", "5"), "duration"),
        (("audit", "shop.example", "--resume"), "--state"),
        (("audit", "shop.example", "--since", "/none"), "cannot use"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_asked(
    arguments: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(list(arguments)) == 2
    assert why in capsys.readouterr().err
