"""Certificates and handshakes as servers show them, good and bad."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from authority import Authority
from peers import drip, flood, hang, verdict

from agent.checks.validity import judge_time
from agent.core.model import Finding
from agent.errors import Unavailable
from agent.host.certificate import Certificate
from agent.host.starttls import STARTTLS

Serve = Callable[..., Awaitable[Any]]
Look = Callable[..., Awaitable[Finding]]
Gather = Callable[..., Awaitable[dict[str, str]]]

DAY = 86400.0


def pinned(served: Any, authority: Authority, **fields: Any) -> dict[str, Any]:
    return {
        "host": "shop.example",
        "connect": f"127.0.0.1:{served.port}",
        "ca_file": str(authority.file),
        **fields,
    }


async def test_a_good_certificate_is_ok_and_told(
    serve: Serve, look_at: Look, authority: Authority
) -> None:
    served = await serve(b"", tls=authority.serve_as("shop.example"))
    finding = await look_at("tls", **pinned(served, authority))
    assert verdict(finding) == ("ok", "")
    assert finding.subject == "shop.example:443"
    assert finding.facts["TLS"].startswith("TLSv1.3, TLS_")
    assert finding.facts["Certificate"].startswith("shop.example for shop.example: from Authority")
    assert 29 < finding.measurements["certificate_expires_seconds"] / DAY < 30
    assert finding.measurements["tls_seconds"] > 0


#: A sentence, the certificate, the verdict, and the words that tell it.
BAD: list[tuple[str, str, dict[str, Any], tuple[str, str], str]] = [
    ("ended", "shop.example", {"begins": -30.0, "ends": -1.0}, ("critical", "expired"), "expired"),
    ("not begun", "shop.example", {"begins": 1.0}, ("critical", "not-yet-valid"), "not yet valid"),
    ("another's", "other.example", {}, ("critical", "name"), "not valid for 'shop.example'"),
    ("its own", "shop.example", {"self_signed": True}, ("critical", "untrusted"), "self-signed"),
    (
        "near its end",
        "shop.example",
        {"ends": 10.0},
        ("warning", "expiring"),
        "its certificate ends in",
    ),
    (
        "at its end",
        "shop.example",
        {"ends": 2.0},
        ("critical", "expiring"),
        "its certificate ends in",
    ),
]


@pytest.mark.parametrize(("sentence", "name", "days", "wanted", "words"), BAD)
async def test_bad_certificates(
    sentence: str,
    name: str,
    days: dict[str, Any],
    wanted: tuple[str, str],
    words: str,
    serve: Serve,
    look_at: Look,
    gather_of: Gather,
    authority: Authority,
) -> None:
    served = await serve(b"", tls=authority.serve_as(name, **days))
    fields = pinned(served, authority)
    finding = await look_at("tls", **fields)
    assert verdict(finding) == wanted
    assert words in finding.summary
    chain = (await gather_of("tls", **fields))["Certificates"].splitlines()
    assert chain[0].startswith(f"{name} for {name}: from")


@pytest.mark.parametrize(
    ("name", "days", "wanted"),
    [
        ("other.example", {"self_signed": True}, ("ok", "")),
        ("shop.example", {"begins": -30.0, "ends": -1.0}, ("critical", "expired")),
        ("shop.example", {"begins": 1.0}, ("critical", "not-yet-valid")),
        ("shop.example", {"ends": 10.0}, ("warning", "expiring")),
    ],
)
async def test_where_nothing_is_verified_the_time_counts_all_the_same(
    name: str,
    days: dict[str, Any],
    wanted: tuple[str, str],
    serve: Serve,
    look_at: Look,
    authority: Authority,
) -> None:
    served = await serve(b"", tls=authority.serve_as(name, **days))
    finding = await look_at("tls", **pinned(served, authority, tls="no-verify"))
    assert verdict(finding) == wanted


async def test_an_authority_between_that_ends_first_is_what_counts(
    serve: Serve, look_at: Look, authority: Authority, tmp_path: Path
) -> None:
    between = authority.appoint("Authority between", ends=5.0)
    served = await serve(b"", tls=between.serve_as("shop.example"))
    finding = await look_at("tls", **pinned(served, authority))
    assert verdict(finding) == ("warning", "expiring")
    assert "Authority between in its chain ends in" in finding.summary


async def test_what_is_sent_beside_the_chain_does_not_count(
    serve: Serve, look_at: Look, authority: Authority
) -> None:
    old = authority.appoint("Authority of old", begins=-30.0, ends=-1.0)
    served = await serve(b"", tls=authority.serve_as("shop.example", beside=[old.certificate]))
    assert verdict(await look_at("tls", **pinned(served, authority))) == ("ok", "")


async def test_limits_are_the_configurations(
    serve: Serve, look_at: Look, authority: Authority
) -> None:
    served = await serve(b"", tls=authority.serve_as("shop.example"))
    fields = pinned(served, authority)
    found = await look_at("tls", **fields, warning={"expires": "40d"})
    assert verdict(found) == ("warning", "expiring")
    found = await look_at("tls", **fields, warning={"expires": None}, critical={"expires": "35d"})
    assert verdict(found) == ("critical", "expiring")
    found = await look_at("tls", **fields, warning={"response": "1ms"})
    assert verdict(found) == ("warning", "slow")


async def test_an_older_tls_is_told_where_a_newer_one_is_wanted(
    serve: Serve, look_at: Look, authority: Authority
) -> None:
    context = authority.serve_as("shop.example")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    served = await serve(b"", tls=context)
    fields = pinned(served, authority)
    assert verdict(await look_at("tls", **fields)) == ("ok", "")
    assert verdict(await look_at("tls", **fields, warning={"version": "1.2"})) == ("ok", "")
    found = await look_at("tls", **fields, critical={"version": "1.3"})
    assert verdict(found) == ("critical", "version")
    assert "speaks TLSv1.2, older than TLSv1.3" in found.summary


async def test_a_conversation_within_tls(serve: Serve, look_at: Look, authority: Authority) -> None:
    served = await serve(b"* OK ready\r\n", tls=authority.serve_as("shop.example"))
    fields = pinned(served, authority)
    assert verdict(await look_at("tls", **fields, protocol="imap")) == ("ok", "")
    found = await look_at("tls", **fields, protocol="pop3")
    assert verdict(found) == ("critical", "invalid")
    found = await look_at("tls", **fields, talk=[{"expect": "+OK"}], timeout="100ms")
    assert verdict(found) == ("critical", "unexpected")


async def test_a_server_that_wants_a_certificate_of_ours_gets_it(
    serve: Serve, look_at: Look, authority: Authority
) -> None:
    context = authority.serve_as("shop.example")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.file)
    served = await serve(b"hello\r\n", tls=context)
    fields = pinned(served, authority, talk=[{"expect": "hello"}])
    authority.sign("client.example")
    ours = str(authority.directory / f"{authority.count}.pem")
    assert verdict(await look_at("tls", **fields, client_cert=ours)) == ("ok", "")
    finding = await look_at("tls", **fields)
    # asyncio's server may hang up before its alert is sent.
    assert verdict(finding) in [("critical", "tls"), ("critical", "reset")]


async def test_a_key_that_is_another_certificates_is_no_fault_of_the_server(
    serve: Serve, look_at: Look, authority: Authority
) -> None:
    served = await serve(b"", tls=authority.serve_as("shop.example"))
    authority.sign("one.example")
    one = str(authority.directory / f"{authority.count}.pem")
    authority.sign("two.example")
    two = str(authority.directory / f"{authority.count}.pem")
    fields = pinned(served, authority)
    with pytest.raises(Unavailable, match=r"cannot use the certificate .*key values mismatch"):
        await look_at("tls", **fields, client_cert=one, client_key=two)
    with pytest.raises(Unavailable, match="cannot read authorities from /nowhere"):
        await look_at("tls", **{**fields, "ca_file": "/nowhere"})


# Servers that do not speak TLS


async def test_a_server_without_tls_is_tls(serve: Serve, look_at: Look) -> None:
    served = await serve(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    finding = await look_at("tls", host="127.0.0.1", port=served.port)
    assert verdict(finding) == ("critical", "tls")


@pytest.mark.parametrize("behave", [hang, drip], ids=["hang", "drip"])
async def test_a_handshake_that_does_not_end_is_a_timeout(
    behave: Any, serve: Serve, look_at: Look
) -> None:
    served = await serve(behave)
    finding = await look_at("tls", host="127.0.0.1", port=served.port, timeout="100ms")
    assert finding.status == "critical"
    # A `2` is no record of TLS, which OpenSSL sees once it has five of them.
    assert finding.cause in ("timeout", "tls")


async def test_a_flood_is_no_handshake(serve: Serve, look_at: Look) -> None:
    served = await serve(flood)
    finding = await look_at("tls", host="127.0.0.1", port=served.port)
    assert verdict(finding) == ("critical", "tls")


# STARTTLS


def going_over(context: ssl.SSLContext, *exchanges: tuple[bytes, bytes]) -> Any:
    """Answers each beginning of a line with bytes; with the last one it goes over to TLS."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for asked, answer in exchanges:
            if asked:
                data = await reader.readexactly(len(asked))
                assert data == asked
            writer.write(answer)
            await writer.drain()
        await writer.start_tls(context)
        await reader.readline()

    return behave


PLAIN: dict[str, tuple[tuple[bytes, bytes], ...]] = {
    "smtp": (
        (b"", b"220-mx\r\n220 ESMTP\r\n"),
        (b"EHLO hostmend.invalid\r\n", b"250-mx\r\n250-STARTTLS\r\n250 HELP\r\n"),
        (b"STARTTLS\r\n", b"220 go on\r\n"),
    ),
    "imap": (
        (b"", b"* OK ready\r\n"),
        (b"a STARTTLS\r\n", b"* CAPABILITY IMAP4rev1\r\na OK begin\r\n"),
    ),
    "pop3": ((b"", b"+OK ready\r\n"), (b"STLS\r\n", b"+OK begin\r\n")),
    "ftp": ((b"", b"220 ready\r\n"), (b"AUTH TLS\r\n", b"234 begin\r\n")),
    "postgres": ((b"\0\0\0\x08\x04\xd2\x16\x2f", b"S"),),
}


@pytest.mark.parametrize("protocol", STARTTLS)
async def test_protocols_are_led_over_to_tls(
    protocol: str, serve: Serve, look_at: Look, authority: Authority
) -> None:
    context = authority.serve_as("shop.example", ends=10.0)
    served = await serve(going_over(context, *PLAIN[protocol]))
    finding = await look_at("tls", **pinned(served, authority, starttls=protocol))
    assert verdict(finding) == ("warning", "expiring")


@pytest.mark.parametrize("protocol", STARTTLS)
@pytest.mark.parametrize("behave", [hang, drip, flood], ids=["hang", "drip", "flood"])
async def test_no_way_over_to_tls_is_told_in_time(
    behave: Any, protocol: str, serve: Serve, look_at: Look
) -> None:
    served = await serve(behave)
    finding = await look_at(
        "tls", host="127.0.0.1", port=served.port, starttls=protocol, timeout="100ms"
    )
    assert finding.status == "critical"
    assert finding.cause in ("timeout", "invalid", "tls")


@pytest.mark.parametrize(
    ("protocol", "said", "cause"),
    [
        ("smtp", b"220 mx\r\n250-mx\r\n250 HELP\r\n", "tls"),
        ("smtp", b"421 busy\r\n", "tls"),
        ("smtp", b"220 mx\r\n250 STARTTLS\r\n454 no certificate\r\n", "tls"),
        ("imap", b"* BYE busy\r\n", "tls"),
        ("imap", b"* OK ready\r\na BAD what\r\n", "tls"),
        ("pop3", b"+OK ready\r\n-ERR what\r\n", "tls"),
        ("postgres", b"N", "tls"),
        ("smtp", b"220 mx\r\n250 STARTTLS\r\n220 go\r\n250 injected\r\n", "invalid"),
        ("imap", b"* OK ready\r\na OK go\r\n* injected\r\n", "invalid"),
    ],
)
async def test_servers_that_do_not_go_over_to_tls(
    protocol: str, said: bytes, cause: str, serve: Serve, look_at: Look
) -> None:
    served = await serve(said)
    finding = await look_at("tls", host="127.0.0.1", port=served.port, starttls=protocol)
    assert verdict(finding) == ("critical", cause)


# Judging


def test_the_moment_decides() -> None:
    certificate = Certificate(subject="x", issuer="x", names=(), begins=100.0, ends=200.0)
    found = [judge_time(certificate, 50.0, now) for now in (99.0, 100.0, 150.0, 151.0, 200.0)]
    assert [each[0] if each else "" for each in found] == [
        "not-yet-valid", "", "", "expiring", "expired",
    ]  # fmt: skip
    assert judge_time(certificate, None, 199.0) is None
