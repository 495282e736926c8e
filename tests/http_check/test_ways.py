"""The way to an answer: names, pinned addresses, TLS, redirects, and this host's own part in it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.core.model import Evidence, Finding
from agent.errors import Unavailable
from agent.host.names import LIMIT, Names
from agent.host.url import read_address
from agent.host.visit import Redirects, Whither, parse_redirects

Serve = Callable[..., Awaitable[Any]]
Look = Callable[..., Awaitable[Finding]]
Gather = Callable[..., Awaitable[tuple[Evidence, ...]]]

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def verdict(finding: Finding) -> tuple[str, str]:
    return finding.status.value, finding.cause


def redirect(location: str, status: str = "302 Found") -> bytes:
    return f"HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


# Names


async def test_a_name_is_resolved_and_each_address_is_tried(serve: Serve, look_at: Look) -> None:
    served = await serve(GOOD)

    async def resolve(name: str) -> tuple[str, ...]:
        assert name == "shop.example"
        return ("127.0.0.9", "::1", "127.0.0.1")

    finding = await look_at(resolve, url=f"http://shop.example:{served.port}/")
    assert verdict(finding) == ("ok", "")
    assert finding.facts["From"] == f"127.0.0.1:{served.port}"
    assert finding.measurements["dns_seconds"] >= 0
    assert f"Host: shop.example:{served.port}\r\n".encode() in served.asked[0]


async def test_names_of_other_scripts_are_asked_as_dns_knows_them(
    serve: Serve, look_at: Look
) -> None:
    served = await serve(GOOD)
    names: list[str] = []

    async def resolve(name: str) -> tuple[str, ...]:
        names.append(name)
        return ("127.0.0.1",)

    await look_at(resolve, url=f"http://bücher.example:{served.port}/")
    assert names == ["xn--bcher-kva.example"]


async def test_a_name_that_nobody_knows_is_dns(look_at: Look) -> None:
    finding = await look_at(url="http://shop.invalid/")
    assert verdict(finding) == ("critical", "dns")
    assert "nobody knows it" in finding.summary


async def test_a_resolver_that_hangs_is_dns_and_delays_nobody_else(look_at: Look) -> None:
    go_on = threading.Event()
    calls: list[str] = []

    def look_up(name: str) -> tuple[str, ...]:
        calls.append(name)
        if name == "hangs.example":
            go_on.wait(60)
        return ("127.0.0.1",)

    names = Names(look_up)
    try:
        async with asyncio.timeout(30):
            finding = await look_at(names.resolve, url="http://hangs.example/", timeout="200ms")
            assert verdict(finding) == ("critical", "dns")
            assert "resolving the name took longer" in finding.summary
            again = await look_at(names.resolve, url="http://hangs.example/", timeout="200ms")
            assert verdict(again) == ("critical", "dns")
            assert await names.resolve("other.example") == ("127.0.0.1",)
        assert calls == ["hangs.example", "other.example"], "one thread for a name under way"
        waiting = asyncio.ensure_future(names.resolve("hangs.example"))
        await asyncio.sleep(0)
        go_on.set()
        async with asyncio.timeout(30):
            assert await waiting == ("127.0.0.1",)
            assert await names.resolve("hangs.example") == ("127.0.0.1",)
        assert calls.count("hangs.example") == 2
    finally:
        go_on.set()


async def test_more_names_than_threads_are_resolved_in_turn() -> None:
    go_on = threading.Event()
    full = threading.Event()
    alive: list[str] = []

    def look_up(name: str) -> tuple[str, ...]:
        alive.append(name)
        if len(alive) >= LIMIT:
            full.set()
        go_on.wait(60)
        return (name,)

    names = Names(look_up)
    wanted = [f"n{number}.example" for number in range(LIMIT + 10)]
    found = [asyncio.ensure_future(names.resolve(name)) for name in wanted]
    try:
        async with asyncio.timeout(60):
            assert await asyncio.to_thread(full.wait, 60)
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(alive) == LIMIT
            go_on.set()
            assert await asyncio.gather(*found) == [(name,) for name in wanted]
    finally:
        go_on.set()


async def test_the_systems_own_resolver_is_asked() -> None:
    names = Names()
    async with asyncio.timeout(60):
        assert "127.0.0.1" in await names.resolve("localhost")
        with pytest.raises(Unavailable, match="cannot resolve"):
            await names.resolve("no label may hold " + "x" * 64)


# Pinned addresses and TLS


async def test_a_pinned_address_keeps_host_and_tls_name(
    serve: Serve, look_at: Look, authority: Any
) -> None:
    served = await serve(GOOD, tls=authority.serve_as("shop.example"))
    finding = await look_at(
        url="https://shop.example/",
        connect=f"127.0.0.1:{served.port}",
        ca_file=str(authority.file),
    )
    assert verdict(finding) == ("ok", "")
    assert finding.subject == "https://shop.example/"
    assert served.names == ["shop.example"]
    assert b"Host: shop.example\r\n" in served.asked[0]
    days = finding.measurements["certificate_expires_seconds"] / 86400
    assert 29 < days < 30
    assert finding.measurements["tls_seconds"] > 0


@pytest.mark.parametrize(
    ("sentence", "name", "days", "words"),
    [
        ("expired", "shop.example", {"begins": -30.0, "ends": -1.0}, "certificate has expired"),
        ("another host's", "other.example", {}, "not valid for 'shop.example'"),
        ("self-signed", "shop.example", {"self_signed": True}, "self-signed certificate"),
        ("not yet valid", "shop.example", {"begins": 1.0}, "not yet valid"),
    ],
)
async def test_a_bad_certificate_is_tls_unless_it_need_not_be_good(
    sentence: str,
    name: str,
    days: dict[str, Any],
    words: str,
    serve: Serve,
    look_at: Look,
    gather_of: Gather,
    authority: Any,
) -> None:
    served = await serve(GOOD, tls=authority.serve_as(name, **days))
    fields = {
        "url": "https://shop.example/",
        "connect": f"127.0.0.1:{served.port}",
        "ca_file": str(authority.file),
        "headers": {"Authorization": "Bearer secret-of-ours"},
    }
    finding = await look_at(**fields)
    assert verdict(finding) == ("critical", "tls")
    assert words in finding.summary

    evidence = {item.title: item.text for item in await gather_of(**fields)}
    chain = evidence["Certificates"].splitlines()
    assert chain[0].startswith(f"{name} for {name}: from")
    assert len(chain) == (1 if sentence == "self-signed" else 2)
    assert all(b"secret-of-ours" not in asked for asked in served.asked), "sent to a stranger"

    finding = await look_at(
        **fields, tls="no-verify", warning={"ending": "[CERTIFICATE_EXPIRATION] < 48h"}
    )
    wanted = ("warning", "ending") if sentence == "expired" else ("ok", "")
    assert verdict(finding) == wanted


async def test_the_systems_authorities_do_not_know_ours(
    serve: Serve, look_at: Look, authority: Any
) -> None:
    served = await serve(GOOD, tls=authority.serve_as("127.0.0.1"))
    finding = await look_at(url=f"https://127.0.0.1:{served.port}/")
    assert verdict(finding) == ("critical", "tls")


async def test_an_address_has_certificates_too(serve: Serve, look_at: Look, authority: Any) -> None:
    served = await serve(GOOD, tls=authority.serve_as("127.0.0.1"))
    url = f"https://127.0.0.1:{served.port}/"
    assert verdict(await look_at(url=url, ca_file=str(authority.file))) == ("ok", "")


async def test_a_server_without_tls_is_tls(serve: Serve, look_at: Look) -> None:
    async def speak_no_tls(_reader: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(speak_no_tls, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        finding = await look_at(url=f"https://127.0.0.1:{port}/")
    assert verdict(finding) == ("critical", "tls")


async def test_a_missing_file_of_authorities_is_no_fault_of_the_page(look_at: Look) -> None:
    with pytest.raises(Unavailable, match=r"cannot read authorities from /nowhere\.pem"):
        await look_at(url="https://127.0.0.1:1/", ca_file="/nowhere.pem")


async def test_a_renewed_file_of_authorities_is_read_again(
    serve: Serve, authority: Any, tmp_path: Path
) -> None:
    from agent.host.connection import Failure
    from agent.host.http import HttpClient, Request, Response
    from agent.host.tls import Trust
    from agent.host.url import parse_url

    served = await serve(GOOD, tls=authority.serve_as("127.0.0.1"))
    file = tmp_path / "authorities.pem"
    stranger = authority.serve_as("stranger.example", self_signed=True)
    assert stranger is not None
    file.write_bytes((authority.directory / f"{authority.count}.pem").read_bytes())
    client = HttpClient()
    request = Request(url=parse_url(f"https://127.0.0.1:{served.port}/"), trust=Trust(ca_file=file))
    assert isinstance(await client.fetch(request, 10), Failure)
    file.write_bytes(authority.file.read_bytes())
    assert isinstance(await client.fetch(request, 10), Response)


# Redirects


async def test_redirects_within_the_site_are_followed(serve: Serve, look_at: Look) -> None:
    def answer(head: bytes) -> bytes:
        if head.startswith(b"GET / "):
            return redirect("/one")
        return redirect("two?x=1") if head.startswith(b"GET /one ") else GOOD

    served = await serve(answer)
    finding = await look_at(url=served.url)
    assert verdict(finding) == ("ok", "")
    assert finding.facts["Redirected to"] == f"{served.url}two?x=1"
    assert finding.subject == served.url


async def test_a_redirect_from_http_to_https_keeps_the_pinned_address(
    serve: Serve, look_at: Look, authority: Any
) -> None:
    secure = await serve(GOOD, tls=authority.serve_as("shop.example"))
    plain = await serve(redirect(f"https://shop.example:{secure.port}/"))
    finding = await look_at(
        url="http://shop.example/",
        connect=f"127.0.0.1:{plain.port}",
        ca_file=str(authority.file),
    )
    # A port of its own is a site of its own.
    assert verdict(finding) == ("warning", "elsewhere")
    assert f"https://shop.example:{secure.port}/" in finding.summary
    finding = await look_at(
        resolve_to_loopback,
        url="http://shop.example/",
        connect=f"127.0.0.1:{plain.port}",
        ca_file=str(authority.file),
        redirects="follow",
    )
    assert verdict(finding) == ("ok", "")


async def resolve_to_loopback(_name: str) -> tuple[str, ...]:
    return ("127.0.0.1",)


async def test_another_site_is_reported_and_not_asked(serve: Serve, look_at: Look) -> None:
    other = await serve(GOOD)
    served = await serve(redirect(f"http://production.example:{other.port}/?token=abcdef"))
    finding = await look_at(resolve_to_loopback, url=served.url)
    assert verdict(finding) == ("warning", "elsewhere")
    assert f"another site, http://production.example:{other.port}/?token=***" in finding.summary
    assert other.asked == []


async def test_another_site_gets_no_secret_of_ours(serve: Serve, look_at: Look) -> None:
    other = await serve(GOOD)
    served = await serve(redirect(f"http://other.example:{other.port}/", "307 Temporary Redirect"))
    finding = await look_at(
        resolve_to_loopback,
        url=f"http://me:password@127.0.0.1:{served.port}/",
        redirects="follow",
        method="POST",
        body="x",
        headers={"X-Api-Key": "abc", "Cookie": "a=b", "Accept": "text/plain"},
    )
    assert verdict(finding) == ("ok", "")
    first, second = served.asked[0].decode(), other.asked[0].decode()
    assert "Authorization: Basic bWU6cGFzc3dvcmQ=" in first
    assert "X-Api-Key: abc" in first
    assert second.startswith("POST / ")
    assert "Accept: text/plain" in second
    assert not any(word in second for word in ("Authorization", "Api-Key", "Cookie"))


async def test_see_other_is_fetched_and_not_posted(serve: Serve, look_at: Look) -> None:
    served = await serve(
        lambda head: redirect("/done", "303 See Other") if head.startswith(b"POST") else GOOD
    )
    headers = {"Content-Type": "text/plain"}
    finding = await look_at(url=served.url, method="POST", body="x", headers=headers)
    assert verdict(finding) == ("ok", "")
    assert served.asked[1].startswith(b"GET /done ")
    assert b"ontent-" not in served.asked[1]


async def test_a_redirect_loop_is_told_after_five(serve: Serve, look_at: Look) -> None:
    served = await serve(redirect("/"))
    finding = await look_at(url=served.url)
    assert verdict(finding) == ("critical", "redirects")
    assert len(served.asked) == 6
    await look_at(url=served.url, redirects="stay(1)")
    assert len(served.asked) == 8


async def test_a_redirect_to_nowhere_is_told(serve: Serve, look_at: Look) -> None:
    served = await serve(redirect("mailto:somebody"))
    assert verdict(await look_at(url=served.url)) == ("critical", "redirects")


async def test_a_redirect_is_the_answer_where_none_is_followed(serve: Serve, look_at: Look) -> None:
    served = await serve(redirect("https://elsewhere.example/"))
    finding = await look_at(
        url=served.url,
        redirects="never",
        critical={"moved": '[STATUS] != 302 or [HEADER].location != "https://elsewhere.example/"'},
    )
    assert verdict(finding) == ("ok", "")


def test_policies_for_redirects_are_read() -> None:
    assert parse_redirects("stay") == Redirects(whither=Whither.STAY, most=5)
    assert parse_redirects("follow(10)") == Redirects(whither=Whither.FOLLOW, most=10)
    assert parse_redirects("never").whither is Whither.NEVER
    for text in ("", "never(3)", "stay(0)", "stay()", "follow (2)", "stay(100)"):
        with pytest.raises(ValueError, match="write stay, follow or never"):
            parse_redirects(text)


def test_addresses_are_read() -> None:
    assert read_address("127.0.0.1:443") == ("127.0.0.1", 443)
    assert read_address("127.0.0.1") == ("127.0.0.1", None)
    assert read_address("[::1]:443") == ("::1", 443)
    assert read_address("::1") == ("::1", None)
    assert read_address("[::1]") == ("::1", None)
    for text in ("", "localhost:80", "127.0.0.1:0", "127.0.0.1:70000", "127.0.0.1:", "[::1", "1"):
        with pytest.raises(ValueError, match="is no address"):
            read_address(text)


# This host's own part

#: Runs looks inside a network namespace of its own and prints their verdicts.
_LOOK = """
import asyncio, json, subprocess, sys
from agent.checks.http import HttpOptions, look
from agent.clock import Clock
from agent.errors import Unavailable
from agent.host.http import HttpClient
from agent.host.machine import Machine
from agent.host.routes import find_route

def ip(*words):
    subprocess.run(["ip", *words], check=True)

async def resolve(name):
    raise Unavailable(f"cannot resolve {name}: Temporary failure in name resolution")

async def look_at(**fields):
    options = HttpOptions(type="http", **{"timeout": "2s", **fields})
    (finding,) = await look(options, Machine(clock=Clock(), http=HttpClient(resolve)))
    return [finding.status, finding.cause, finding.summary]

async def main():
"""


def run_apart(program: str) -> list[list[str]]:
    """Runs a program in a network namespace of its own, where loopback is up and nothing else."""
    text = _LOOK + "".join(f"    {line}\n" for line in program.strip().splitlines())
    text += "\nprint(json.dumps(asyncio.run(main())))\n"
    done = subprocess.run(
        [
            "unshare",
            "--net",
            "sh",
            "-c",
            'ip link set lo up && exec "$0" -c "$1"',
            sys.executable,
            text,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = json.loads(done.stdout)
    return found


def test_a_host_without_a_route_blames_itself() -> None:
    remote, name, own, pinned = run_apart(
        """
        return [
            await look_at(url="http://203.0.113.5/"),
            await look_at(url="http://shop.example/"),
            await look_at(url="http://127.0.0.1/"),
            await look_at(url="http://shop.example/", connect="127.0.0.1:80"),
        ]
        """.replace("\n        ", "\n")
    )
    assert remote[:2] == ["unknown", "offline"]
    assert "this host is offline, no route to 203.0.113.5" in remote[2]
    assert name[:2] == ["unknown", "offline"]
    assert own[:2] == ["critical", "refused"]
    assert pinned[:2] == ["critical", "refused"]


def test_a_host_whose_link_is_gone_blames_itself_and_one_with_a_link_the_other() -> None:
    cut, unheard, silent = run_apart(
        """
        ip("link", "add", "up0", "type", "veth", "peer", "name", "far0")
        ip("address", "add", "192.0.2.2/24", "dev", "up0")
        ip("link", "set", "up0", "up")
        ip("route", "add", "default", "via", "192.0.2.1")
        cut = await look_at(url="http://203.0.113.5/", timeout="500ms")
        ip("link", "set", "far0", "up")
        while not find_route("192.0.2.1").link:
            await asyncio.sleep(0.01)
        unheard = await look_at(url="http://203.0.113.5/", timeout="500ms")
        silent = await look_at(
            url="http://203.0.113.5/", timeout="500ms", reference="192.0.2.1:53"
        )
        return [cut, unheard, silent]
        """.replace("\n        ", "\n")
    )
    assert cut[:2] == ["unknown", "offline"]
    assert "up0 has no link" in cut[2]
    assert unheard[:2] == ["critical", "timeout"]
    assert silent[:2] == ["unknown", "offline"]
    assert "the reference 192.0.2.1:53 does not answer either" in silent[2]


def test_an_address_of_this_host_is_not_another_host() -> None:
    (own,) = run_apart(
        """
        import socket
        ip("address", "add", "192.0.2.2/32", "dev", "lo")
        full = socket.socket()
        full.bind(("192.0.2.2", 80))
        full.listen(0)
        fill = [socket.socket() for _ in range(4)]
        for each in fill:
            each.setblocking(False)
            each.connect_ex(("192.0.2.2", 80))
        url = "http://192.0.2.2/"
        return [await look_at(url=url, timeout="500ms", reference="203.0.113.1:53")]
        """.replace("\n        ", "\n")
    )
    assert own[:2] == ["critical", "timeout"]


def test_a_reference_that_answers_if_only_to_refuse_clears_this_host() -> None:
    (found,) = run_apart(
        """
        ip("link", "add", "up0", "type", "veth", "peer", "name", "far0")
        ip("address", "add", "192.0.2.2/24", "dev", "up0")
        ip("link", "set", "far0", "up")
        ip("link", "set", "up0", "up")
        ip("route", "add", "default", "via", "192.0.2.1")
        while not find_route("192.0.2.1").link:
            await asyncio.sleep(0.01)
        return [await look_at(url="http://shop.example/", reference="192.0.2.2:53")]
        """.replace("\n        ", "\n")
    )
    assert found[:2] == ["critical", "dns"]
