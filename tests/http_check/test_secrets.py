"""Secrets of the configuration stay out of whatever is shown, and addresses are read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.config import load_config, show_config
from agent.core.model import Evidence, Finding
from agent.host.url import parse_url
from agent.remedies.catalog import SHIPPED, Catalog

SECRETS = ("hunter22", "tok-1234", "key-5678", "inner-body", "bWU6aHVudGVyMjI=")


async def test_secrets_are_masked_in_findings_and_evidence(
    serve: Callable[..., Awaitable[Any]],
    look_at: Callable[..., Awaitable[Finding]],
    gather_of: Callable[..., Awaitable[tuple[Evidence, ...]]],
) -> None:
    def echo(head: bytes) -> bytes:
        start = b"HTTP/1.1 500 Oops\r\nSet-Cookie: id=theirs\r\nX-Seen: key-5678\r\n"
        return start + b"Content-Length: %d\r\n\r\n" % len(head) + head

    served = await serve(echo)
    fields = {
        "url": f"http://me:hunter22@127.0.0.1:{served.port}/?token=tok-1234&page=2",
        "headers": {"X-Api-Key": "key-5678"},
        "body": "inner-body",
        "method": "POST",
        "critical": {"wrong": '[BODY] != "x" and [HEADER].x-seen != "y"'},
    }
    finding = await look_at(**fields)
    assert finding.subject == f"http://127.0.0.1:{served.port}/?token=***&page=2"
    evidence = await gather_of(**fields)
    shown = repr(finding) + repr(evidence)
    assert not [secret for secret in (*SECRETS, "id=theirs") if secret in shown]
    assert "X-Api-Key: ***" in shown
    titles = [item.title for item in evidence]
    assert titles == [f"Answer of {finding.subject}", "Beginning of the body"]
    assert "Answer: 500 Oops" in evidence[0].text
    assert "Set-Cookie: ***" in evidence[0].text
    assert "First byte:" in evidence[0].text


async def test_evidence_tells_of_names_and_chains(
    serve: Callable[..., Awaitable[Any]],
    gather_of: Callable[..., Awaitable[tuple[Evidence, ...]]],
    authority: Any,
) -> None:
    answer = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    served = await serve(answer, tls=authority.serve_as("shop.example"))

    async def resolve(_name: str) -> tuple[str, ...]:
        return ("127.0.0.1",)

    evidence = await gather_of(
        resolve, url=f"https://shop.example:{served.port}/", ca_file=str(authority.file)
    )
    answered, chain = evidence
    assert "Resolved: 127.0.0.1" in answered.text
    own, issuer = chain.text.splitlines()
    assert own.startswith("shop.example for shop.example: from Authority of the tests")
    assert issuer.startswith("Authority of the tests: from Authority of the tests")


async def test_evidence_of_no_answer_says_why(
    gather_of: Callable[..., Awaitable[tuple[Evidence, ...]]],
) -> None:
    (answered,) = await gather_of(url="http://shop.invalid/")
    assert "No answer: cannot resolve shop.invalid: nobody knows it" in answered.text


def test_secrets_are_masked_in_the_shown_configuration(tmp_path: Path) -> None:
    path = tmp_path / "hostmend.yml"
    path.write_text(
        """
checks:
  secret:
    type: http
    url: "https://me:hunter22@shop.example/?token=tok-1234&page=2"
    method: POST
    body: inner-body
    headers: {X-Api-Key: key-5678, Accept: text/plain}
  plain: {type: http, url: "https://shop.example"}
"""
    )
    config = load_config(path, catalog=Catalog.load((SHIPPED,)))
    shown = show_config(config)
    assert not [secret for secret in SECRETS if secret in shown]
    assert "https://shop.example/?token=***&page=2" in shown
    assert "Accept: text/plain" in shown
    assert "url: https://shop.example\n" in shown
    assert not [secret for secret in SECRETS if secret in repr(config.checks)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://shop.example", "https://shop.example/"),
        ("HTTP://Shop.Example:80/A?b", "http://shop.example/A?b"),
        ("http://[::1]:8080/", "http://[::1]:8080/"),
        ("http://app_1.internal./x", "http://app_1.internal./x"),
        ("http://u:p@x/?api_key=1&a=2&sig=", "http://x/?api_key=***&a=2&sig="),
        ("http://x/ä/%20?q=ö", "http://x/%C3%A4/%20?q=%C3%B6"),
    ],
)
def test_an_address_is_shown_as_it_is_asked_but_for_its_secrets(text: str, shown: str) -> None:
    assert str(parse_url(text)) == shown


@pytest.mark.parametrize(
    "text",
    ["", "shop.example", "ftp://x/", "http://", "http:///a", "http://x:0/", "http://x:99999/",
     "http://a b/", "http://x/\n", "http://[::1/", "http://-:x@/", "http://..example/"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must|host"):
        parse_url(text)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://shop.example/a", "http://shop.example/", True),
        ("https://www.shop.example/", "http://shop.example/", True),
        ("http://shop.example/", "https://shop.example/", False),
        ("https://shop.example:8443/", "https://shop.example/", False),
        ("http://shop.example:8080/b", "http://shop.example:8080/", True),
        ("https://shop.example.evil/", "https://shop.example/", False),
        ("https://api.shop.example/", "https://shop.example/", False),
    ],
)
def test_one_site_is_one_host(one: str, other: str, same: bool) -> None:
    assert parse_url(one).is_site_of(parse_url(other)) is same
