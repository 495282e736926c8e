"""What the check makes of answers, good, bad and hostile, from real servers on loopback."""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from ports import hold_port

from agent.core.model import Finding

Serve = Callable[..., Awaitable[Any]]
Look = Callable[..., Awaitable[Finding]]


def whole(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def verdict(finding: Finding) -> tuple[str, str]:
    return finding.status.value, finding.cause


async def test_a_page_is_ok_and_measured(serve: Serve, look_at: Look) -> None:
    served = await serve(whole(b"hello"))
    finding = await look_at(url=served.url)
    assert verdict(finding) == ("ok", "")
    assert finding.subject == served.url
    assert finding.resource == f"url:{served.url}"
    assert finding.measurements["status_code"] == 200
    assert finding.measurements["body_bytes"] == 5
    times = {"response_seconds", "connect_seconds", "first_byte_seconds"}
    assert times < set(finding.measurements)
    assert finding.summary.startswith(f"{served.url} answers 200 OK in ")


#: A sentence, the answer, further options, and the verdict.
ANSWERS: list[tuple[str, bytes, dict[str, Any], tuple[str, str]]] = [
    ("no content is an answer", b"HTTP/1.1 204 No Content\r\n\r\n", {}, ("ok", "")),
    ("an error is critical by default", whole(b"", "404 Not Found"), {}, ("critical", "status")),
    (
        "an own condition replaces the default",
        whole(b"", "404 Not Found"),
        {"critical": {"down": "[STATUS] >= 500"}},
        ("ok", ""),
    ),
    (
        "the configured cause is the finding's",
        whole(b"", "503 Service Unavailable"),
        {"critical": {"down": "[STATUS] >= 500"}},
        ("critical", "down"),
    ),
    (
        "a warning is a warning",
        whole(b"Fatal Error: no database"),
        {"warning": {"broken": "[BODY] == pat(*Error*)"}},
        ("warning", "broken"),
    ),
    (
        "critical goes before warning",
        whole(b"", "500 Oops"),
        {"warning": {"odd": "[STATUS] != 200"}},
        ("critical", "status"),
    ),
    (
        "the first condition that holds names the cause",
        whole(b"x", "500 Oops"),
        {
            "critical": {
                "one": "[STATUS] == 404",
                "two": "len([BODY]) == 1",
                "three": "[STATUS] > 1",
            }
        },
        ("critical", "two"),
    ),
    (
        "chunks are one body",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        {"critical": {"wrong": '[BODY] != "abcde"'}},
        ("ok", ""),
    ),
    (
        "a body may end with the connection",
        b"HTTP/1.0 200 OK\r\n\r\nold",
        {"critical": {"wrong": '[BODY] != "old"'}},
        ("ok", ""),
    ),
    (
        "answers of the interim are passed over",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + whole(b""),
        {},
        ("ok", ""),
    ),
    (
        "JSON that says no charset and is not UTF-8 is read as far as it goes",
        whole('{"name": "Zürich", "ok": true}'.encode("latin-1")),
        {"critical": {"wrong": "[BODY].ok != true"}},
        ("ok", ""),
    ),
    (
        "JSON is read in the charset that it names",
        whole(
            '{"name": "Zürich"}'.encode("latin-1"),
            "200 OK",
            "Content-Type: application/json; charset=ISO-8859-1",
        ),
        {"critical": {"wrong": '[BODY].name != "Zürich"'}},
        ("ok", ""),
    ),
    (
        "a charset that is no charset does no harm",
        whole(b"abc-def", "200 OK", "Content-Type: text/html; charset=punycode"),
        {"critical": {"wrong": '[BODY] != "abc-def"'}},
        ("ok", ""),
    ),
    (
        "HTML where JSON is wanted is unlike it",
        whole(b"<html>maintenance</html>"),
        {"critical": {"sick": '[BODY].status != "ok"'}},
        ("critical", "sick"),
    ),
    (
        "a number that is not there cannot be judged",
        whole(b"<html>maintenance</html>"),
        {"critical": {"queue": "[BODY].queue > 100"}},
        ("unknown", "unclear"),
    ),
    (
        "JSON nested without end is no JSON",
        whole(b"[" * 100_000),
        {"critical": {"sick": '[BODY].status != "ok"'}},
        ("critical", "sick"),
    ),
    (
        "a header is compared",
        whole(b"", "200 OK", "X-Cache: MISS"),
        {"warning": {"cold": '[HEADER].x-cache == "MISS"'}},
        ("warning", "cold"),
    ),
    (
        "a packed body is unpacked",
        whole(gzip.compress(b"hello"), "200 OK", "Content-Encoding: gzip"),
        {"critical": {"wrong": '[BODY] != "hello"'}},
        ("ok", ""),
    ),
    (
        "deflate is unpacked too",
        whole(zlib.compress(b"hello"), "200 OK", "Content-Encoding: deflate"),
        {"critical": {"wrong": '[BODY] != "hello"'}},
        ("ok", ""),
    ),
    (
        "a packed body that is none is invalid",
        whole(b"hello", "200 OK", "Content-Encoding: gzip"),
        {},
        ("critical", "invalid"),
    ),
    (
        "a packed body that ends too early is invalid",
        whole(gzip.compress(b"hello")[:-4], "200 OK", "Content-Encoding: gzip"),
        {},
        ("critical", "invalid"),
    ),
    ("a body that ends midway is a reset", whole(b"12345")[:-2], {}, ("critical", "reset")),
    ("headers that end midway are a reset", b"HTTP/1.1 200 OK\r\nX-", {}, ("critical", "reset")),
    ("no answer at all is a reset", b"", {}, ("critical", "reset")),
    ("another protocol is invalid", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", {}, ("critical", "invalid")),
    (
        "headers without end are invalid",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000,
        {},
        ("critical", "invalid"),
    ),
]


@pytest.mark.parametrize(
    ("answer", "options", "wanted"), [case[1:] for case in ANSWERS], ids=[c[0] for c in ANSWERS]
)
async def test_answer(
    answer: bytes, options: Any, wanted: tuple[str, str], serve: Serve, look_at: Look
) -> None:
    served = await serve(answer)
    assert verdict(await look_at(url=served.url, **options)) == wanted


async def test_a_gzip_bomb_is_read_to_the_limit_and_no_further(serve: Serve, look_at: Look) -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    served = await serve(whole(bomb, "200 OK", "Content-Encoding: gzip"))
    tracemalloc.start()
    try:
        finding = await look_at(url=served.url)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 10_000_000
    assert verdict(finding) == ("ok", "")
    assert finding.measurements["body_bytes"] == 1024 * 1024
    assert "longer than" in finding.facts["Body"]


async def send_without_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def test_an_endless_body_is_judged_by_its_beginning_unless_the_body_matters(
    serve: Serve, look_at: Look
) -> None:
    served = await serve(send_without_end)
    finding = await look_at(url=served.url, body_limit=100_000)
    assert verdict(finding) == ("ok", "")
    assert finding.measurements["body_bytes"] == 100_000
    finding = await look_at(url=served.url, critical={"sick": '[BODY] != "ok"'})
    assert verdict(finding) == ("unknown", "unclear")


async def say_nothing(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def drip_headers(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"y")
        await writer.drain()
        await asyncio.sleep(0.01)


async def drip_body(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b"y")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("speak", [say_nothing, drip_headers, drip_body])
async def test_slowness_is_a_timeout_before_the_look_itself_is_given_up(
    speak: Any, serve: Serve, look_at: Look
) -> None:
    served = await serve(speak)
    async with asyncio.timeout(30):
        finding = await look_at(url=served.url, timeout="400ms")
    assert verdict(finding) == ("critical", "timeout")
    assert "took longer than 0.32 s" in finding.summary


async def test_a_connection_that_is_reset_is_told_as_one(serve: Serve, look_at: Look) -> None:
    async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken = writer.get_extra_info("socket")
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()

    served = await serve(reset)
    assert verdict(await look_at(url=served.url)) == ("critical", "reset")


async def test_a_closed_port_is_refused(look_at: Look) -> None:
    port = hold_port()
    finding = await look_at(url=f"http://127.0.0.1:{port}/")
    assert verdict(finding) == ("critical", "refused")
    assert f"127.0.0.1:{port} refuses connections" in finding.summary
    assert finding.facts["Addresses"] == "127.0.0.1"


async def test_the_loopback_of_ipv6_is_asked_by_its_address(serve: Serve, look_at: Look) -> None:
    served = await serve(whole(b""), host="::1")
    finding = await look_at(url=f"http://[::1]:{served.port}/")
    assert verdict(finding) == ("ok", "")
    assert f"Host: [::1]:{served.port}\r\n".encode() in served.asked[0]


async def test_head_is_asked_and_its_length_promises_nothing(serve: Serve, look_at: Look) -> None:
    served = await serve(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    assert verdict(await look_at(url=served.url, method="HEAD")) == ("ok", "")
    assert served.asked[0].startswith(b"HEAD / HTTP/1.1\r\n")


async def test_method_headers_and_body_are_sent_as_configured(serve: Serve, look_at: Look) -> None:
    bodies: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(await reader.readexactly(8))
        writer.write(whole(b""))

    served = await serve(take)
    finding = await look_at(
        url=f"{served.url}health/é?a=1 b".replace(" ", "%20"),
        method="POST",
        headers={"User-Agent": "probe", "X-Own": "1"},
        body='{"a": 1}',
    )
    assert verdict(finding) == ("ok", "")
    head = served.asked[0].decode()
    assert head.startswith("POST /health/%C3%A9?a=1%20b HTTP/1.1\r\n")
    assert "User-Agent: probe\r\n" in head
    assert "hostmend" not in head
    assert "X-Own: 1\r\n" in head
    assert "Content-Length: 8\r\n" in head
    assert bodies == [b'{"a": 1}']


async def test_also_tells_what_else_is_wrong(serve: Serve, look_at: Look) -> None:
    served = await serve(whole(b"", "500 Oops"))
    finding = await look_at(
        url=served.url,
        critical={"down": "[STATUS] >= 500"},
        warning={"empty": "len([BODY]) == 0", "fine": "[STATUS] == 1"},
    )
    assert finding.facts["Also"] == "empty"
    assert finding.summary == f"{served.url} answers 500 Oops: [STATUS] >= 500"


async def test_looks_leave_no_descriptor_open_however_they_end(
    serve: Serve, look_at: Look, authority: Any
) -> None:
    served = [
        await serve(whole(b"")),
        await serve(send_without_end),
        await serve(say_nothing),
        await serve(say_nothing, tls=authority.serve_as("127.0.0.1")),
    ]
    urls = [f"http://127.0.0.1:{each.port}/" for each in served[:3]]
    urls += [f"https://127.0.0.1:{served[3].port}/", f"http://127.0.0.1:{hold_port()}/"]
    for url in urls:
        await look_at(url=url, timeout="300ms", ca_file=str(authority.file))
    assert not list_peers() & {each.port for each in served}


def list_peers() -> set[int | None]:
    """The ports that descriptors of this process are connected to."""
    return {peer_of(int(fd.name)) for fd in Path("/proc/self/fd").iterdir()}


def peer_of(fd: int) -> int | None:
    """The port that a descriptor of ours is connected to."""
    try:
        with socket.socket(fileno=os.dup(fd)) as connection:
            peer = connection.getpeername()
    except OSError:
        return None
    return int(peer[1]) if connection.family is socket.AF_INET else None
