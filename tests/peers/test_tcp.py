"""TCP ports: open, closed, silent, slow and talking nonsense."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers import complete, drip, flood, hang, verdict
from ports import hold_port

from agent.checks import CHECKS
from agent.clock import Clock
from agent.config import load_config, show_config
from agent.core.model import Finding
from agent.host.connection import Connection, Ended, Failure, Peer
from agent.host.dialogue import GREETINGS, Talk, show_bytes
from agent.host.machine import Machine
from agent.remedies.catalog import SHIPPED, Catalog

Serve = Callable[..., Awaitable[Any]]
Look = Callable[..., Awaitable[Finding]]
Gather = Callable[..., Awaitable[dict[str, str]]]


async def test_a_port_that_takes_connections_is_ok(serve: Serve, look_at: Look) -> None:
    served = await serve(b"")
    finding = await look_at("tcp", port=served.port)
    assert verdict(finding) == ("ok", "")
    assert finding.subject == f"127.0.0.1:{served.port}"
    assert finding.summary == f"127.0.0.1:{served.port} takes connections"
    assert set(finding.measurements) == {"response_seconds", "connect_seconds"}


async def test_a_closed_port_is_refused(look_at: Look) -> None:
    port = hold_port()
    finding = await look_at("tcp", port=port)
    assert verdict(finding) == ("critical", "refused")
    assert finding.summary == (
        f"127.0.0.1:{port} does not answer: 127.0.0.1:{port} refuses connections"
    )


async def test_a_port_whose_queue_is_full_is_a_timeout(look_at: Look) -> None:
    # Half-open for us: the kernel lets our SYN by, and nobody takes the connection.
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        try:
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(("127.0.0.1", port))
            finding = await look_at("tcp", port=port, timeout="100ms")
        finally:
            for each in waiting:
                each.close()
    assert verdict(finding) == ("critical", "timeout")
    assert "connecting to 127.0.0.1" in finding.summary


async def test_a_name_without_address_is_dns(look_at: Look) -> None:
    finding = await look_at("tcp", host="db.invalid", port=5432)
    assert verdict(finding) == ("critical", "dns")


async def test_only_addresses_of_the_wanted_family_are_tried(serve: Serve, look_at: Look) -> None:
    served = await serve(b"", host="::1")

    async def resolve(_name: str) -> tuple[str, ...]:
        return ("127.0.0.1", "::1")

    fields = {"host": "db.example", "port": served.port}
    assert verdict(await look_at("tcp", resolve, family="ipv6", **fields)) == ("ok", "")
    found = await look_at("tcp", resolve, family="ipv4", **fields)
    assert verdict(found) == ("critical", "refused")
    assert found.facts["Addresses"] == "127.0.0.1"

    async def resolve_to_old(_name: str) -> tuple[str, ...]:
        return ("127.0.0.1",)

    found = await look_at("tcp", resolve_to_old, family="ipv6", **fields)
    assert verdict(found) == ("critical", "dns")
    assert "db.example has no ipv6 address" in found.summary


# What is sent and expected


async def answer_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(b"you said " + line)
        await writer.drain()


async def test_a_conversation_is_led_step_by_step(serve: Serve, look_at: Look) -> None:
    served = await serve(answer_back)
    talk = [
        {"send": "one\r\n", "expect": "you said one"},
        {"send": "two ä\r\n"},
        {"expect": "two ä"},
    ]
    finding = await look_at("tcp", port=served.port, talk=talk)
    assert verdict(finding) == ("ok", "")
    assert finding.measurements["answer_bytes"] == len(b"you said one\r\nyou said two  a\r\n")
    assert finding.facts["Answer"].startswith("you said one")


async def test_what_was_expected_before_is_not_taken_twice(serve: Serve, look_at: Look) -> None:
    served = await serve(answer_back)
    talk = [{"send": "one\r\n", "expect": "one"}, {"expect": "one"}]
    finding = await look_at("tcp", port=served.port, talk=talk, timeout="100ms")
    assert verdict(finding) == ("critical", "unexpected")


async def test_another_answer_than_the_expected_one_is_unexpected(
    serve: Serve, look_at: Look, gather_of: Gather
) -> None:
    async def deny(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"-ERR \x1b[31mno\x00way\r\n")

    served = await serve(deny)
    fields = {"port": served.port, "talk": [{"send": "PING\r\n", "expect": "+PONG"}]}
    finding = await look_at("tcp", **fields)
    assert verdict(finding) == ("critical", "unexpected")
    # Whatever a server says, it does nothing to a terminal.
    assert r'does not answer "+PONG", but "-ERR \x1b[31mno\x00way\r\n"' in finding.summary
    text = (await gather_of("tcp", **fields))[f"Answer of {finding.subject}"]
    assert r'Heard: "-ERR \x1b[31mno\x00way\r\n"' in text


@pytest.mark.parametrize(
    ("sentence", "behave", "cause"),
    [
        ("a peer that never speaks", hang, "timeout"),
        ("a peer that speaks a byte now and then", drip, "unexpected"),
        ("a peer that never stops speaking", flood, "unexpected"),
    ],
)
async def test_peers_without_an_answer_are_told_in_time(
    sentence: str, behave: Any, cause: str, serve: Serve, look_at: Look
) -> None:
    served = await serve(behave)
    finding = await look_at(
        "tcp", port=served.port, talk=[{"expect": "hello"}], timeout="100ms", answer_limit=10_000
    )
    assert verdict(finding) == ("critical", cause)
    assert finding.measurements.get("answer_bytes", 0) <= 10_000


async def test_an_answer_over_the_limit_is_invalid_where_nothing_else_was_expected(
    serve: Serve, look_at: Look
) -> None:
    served = await serve(flood)
    finding = await look_at("tcp", port=served.port, protocol="smtp", answer_limit=1000)
    assert verdict(finding) == ("critical", "invalid")
    assert "says more than 1000 bytes within a line" in finding.summary


async def test_a_peer_that_hangs_up_is_a_reset(serve: Serve, look_at: Look) -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    served = await serve(hang_up)
    finding = await look_at("tcp", port=served.port, talk=[{"expect": "hello"}])
    assert verdict(finding) == ("critical", "reset")

    async def end(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hel")

    served = await serve(end)
    finding = await look_at("tcp", port=served.port, protocol="ssh")
    assert verdict(finding) == ("critical", "reset")
    assert 'ended within a line, after "hel"' in finding.summary


async def test_a_peer_that_answers_without_reading_is_heard(serve: Serve, look_at: Look) -> None:
    async def shout(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"enough!\r\n")
        await writer.drain()
        await asyncio.Event().wait()

    served = await serve(shout)
    talk = [{"send": "x" * (8 * 1024 * 1024), "expect": "enough"}]
    assert verdict(await look_at("tcp", port=served.port, talk=talk)) == ("ok", "")


async def test_more_than_fits_at_once_arrives_whole_and_in_order(
    serve: Serve, look_at: Look
) -> None:
    size = 4 * 1024 * 1024

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readexactly(2 * size + 1)
        good = data == b"a" * size + b"b" * size + b"\n"
        writer.write(b"good" if good else b"bad")

    served = await serve(count)
    talk = [{"send": "a" * size}, {"send": "b" * size}, {"send": "\n", "expect": "good"}]
    assert verdict(await look_at("tcp", port=served.port, talk=talk)) == ("ok", "")


async def test_slow_is_a_finding_where_a_limit_says_so(serve: Serve, look_at: Look) -> None:
    async def dawdle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        writer.write(b"hello")

    served = await serve(dawdle)
    fields = {"port": served.port, "talk": [{"expect": "hello"}]}
    found = await look_at("tcp", **fields, warning={"response": "10ms"})
    assert verdict(found) == ("warning", "slow")
    found = await look_at(
        "tcp", **fields, warning={"response": "1ms"}, critical={"response": "10ms"}
    )
    assert verdict(found) == ("critical", "slow")
    assert verdict(await look_at("tcp", **fields, warning={"response": "10s"})) == ("ok", "")


async def test_what_is_sent_is_shown_nowhere(
    serve: Serve, look_at: Look, gather_of: Gather, tmp_path: Path
) -> None:
    served = await serve(answer_back)
    talk = [{"send": "AUTH hunter22\r\n", "expect": "+OK"}]
    fields = {"port": served.port, "talk": talk, "timeout": "100ms"}
    finding = await look_at("tcp", **fields)
    assert finding.facts["Answer"] == '"you said AUTH ***\\r\\n"'
    assert "hunter22" not in repr(finding) + repr(await gather_of("tcp", **fields))
    path = tmp_path / "hostmend.yml"
    path.write_text(f"checks: {{a: {json.dumps({'type': 'tcp', **fields})}}}")
    config = load_config(path, catalog=Catalog.load((SHIPPED,)))
    assert "hunter22" not in show_config(config) + repr(config.checks)
    assert "expect: +OK" in show_config(config)


# Greetings


def mysql_packet(number: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([number]) + body


GREETED = mysql_packet(0, b"\x0a10.11.6-MariaDB\0" + b"\x01\0\0\0" + b"x" * 60)
DENIED = mysql_packet(2, b"\xff\x15\x04#28000Access denied for user 'hostmend'")

#: A sentence, the protocol, what is said at once, and the verdict.
SAID: list[tuple[str, str, bytes, tuple[str, str]]] = [
    ("a mail server", "smtp", b"220 mx ESMTP\r\n221 Bye\r\n", ("ok", "")),
    ("of several lines", "smtp", b"220-mx\r\n220-wait\r\n220 ESMTP\r\n", ("ok", "")),
    ("that serves nobody", "smtp", b"421 4.3.2 too busy\r\n", ("critical", "refusing")),
    ("that has no service", "smtp", b"554 no SMTP here\r\n", ("critical", "refusing")),
    ("that is a web server", "smtp", b"HTTP/1.1 400 Bad\r\n", ("critical", "invalid")),
    ("with another code", "smtp", b"2200 mx\r\n", ("critical", "invalid")),
    ("a mail box", "imap", b"* OK [CAPABILITY IMAP4rev1] ready\r\n", ("ok", "")),
    ("a mail box that knows us", "imap", b"* PREAUTH ready\r\n", ("ok", "")),
    ("a mail box that is full", "imap", b"* BYE too many\r\n", ("critical", "refusing")),
    ("no mail box", "imap", b"+OK ready\r\n", ("critical", "invalid")),
    ("an older mail box", "pop3", b"+OK ready\r\n", ("ok", "")),
    ("one that is locked", "pop3", b"-ERR [SYS/TEMP] later\r\n", ("critical", "refusing")),
    ("files", "ftp", b"220 (vsFTPd)\r\n", ("ok", "")),
    ("a shell", "ssh", b"SSH-2.0-OpenSSH_9.2\r\n", ("ok", "")),
    ("a shell with a word before", "ssh", b"Go away\r\nSSH-2.0-x\r\n", ("ok", "")),
    ("a shell of another age", "ssh", b"SSH-1.5-x\r\n" * 60, ("critical", "invalid")),
    ("too many shells", "ssh", b"Exceeded MaxStartups\r\n", ("critical", "refusing")),
    ("a cache", "redis", b"+PONG\r\n", ("ok", "")),
    ("a cache with a password", "redis", b"-NOAUTH Authentication required.\r\n", ("ok", "")),
    ("a cache that loads", "redis", b"-LOADING data\r\n", ("critical", "refusing")),
    ("a cache that is protected", "redis", b"-DENIED mode\r\n", ("critical", "refusing")),
    ("no cache", "redis", b"220 mx\r\n", ("critical", "invalid")),
    ("another cache", "memcached", b"VERSION 1.6.18\r\n", ("ok", "")),
    ("a database that knows us not", "mysql", GREETED + DENIED, ("ok", "")),
    (
        "a database that asks for another proof first",
        "mysql",
        GREETED + mysql_packet(2, b"\xfecaching_sha2_password\0abc\0") + DENIED,
        ("ok", ""),
    ),
    (
        "a database with too many clients",
        "mysql",
        mysql_packet(0, b"\xff\x10\x04#08004Too many connections"),
        ("critical", "refusing"),
    ),
    (
        "a database that has blocked us",
        "mysql",
        mysql_packet(0, b"\xff\x69\x04Host 'x' is blocked"),
        ("critical", "refusing"),
    ),
    (
        "a database that takes nobody from here",
        "mysql",
        mysql_packet(0, b"\xff\x6a\x04Host 'x' is not allowed"),
        ("ok", ""),
    ),
    (
        "a database that goes down",
        "mysql",
        GREETED + mysql_packet(2, b"\xff\x1d\x04#08S01Server shutdown in progress"),
        ("critical", "refusing"),
    ),
    ("no database", "mysql", b"SSH-2.0-OpenSSH_9.2\r\n", ("critical", "invalid")),
    ("a database of another age", "mysql", mysql_packet(0, b"\x095.0\0x"), ("critical", "invalid")),
]


@pytest.mark.parametrize(("sentence", "protocol", "said", "wanted"), SAID)
async def test_greetings(
    sentence: str,
    protocol: str,
    said: bytes,
    wanted: tuple[str, str],
    serve: Serve,
    look_at: Look,
) -> None:
    served = await serve(said)
    assert verdict(await look_at("tcp", port=served.port, protocol=protocol)) == wanted


async def test_a_refusal_is_told_in_the_servers_words(serve: Serve, look_at: Look) -> None:
    served = await serve(mysql_packet(0, b"\xff\x10\x04#08004Too many connections"))
    finding = await look_at("tcp", port=served.port, protocol="mysql")
    assert finding.summary.endswith("serves nobody: error 1040: Too many connections")


async def test_one_takes_leave_as_the_protocol_has_it(serve: Serve, look_at: Look) -> None:
    served = await serve(b"220 mx ESMTP\r\n")
    finding = await look_at("tcp", port=served.port, protocol="smtp")
    assert finding.facts["Answer"] == "220 mx ESMTP"
    assert served.heard == [b"QUIT\r\n"]


@pytest.mark.parametrize("protocol", GREETINGS)
@pytest.mark.parametrize("behave", [hang, drip, flood], ids=["hang", "drip", "flood"])
async def test_no_greeting_is_told_in_time(
    behave: Any, protocol: str, serve: Serve, look_at: Look
) -> None:
    served = await serve(behave)
    finding = await look_at("tcp", port=served.port, protocol=protocol, timeout="100ms")
    assert finding.status == "critical"
    assert finding.cause in ("timeout", "invalid")


class Heard(Connection):
    """A connection on which some bytes have arrived, and no more will."""

    def __init__(self, parts: list[bytes]) -> None:
        super().__init__(Peer(), lambda _name: asyncio.sleep(0, ()), 60)
        self._parts = parts

    def send(self, data: bytes) -> None:
        del data

    async def receive(self) -> bytes:
        return self._parts.pop(0) if self._parts else b""


@given(
    protocol=st.sampled_from(sorted(GREETINGS)),
    start=st.sampled_from([b"", *(said for _, _, said, _ in SAID)]),
    parts=st.lists(st.binary(min_size=1, max_size=40), max_size=5),
)
def test_whatever_is_said_is_a_greeting_or_none(
    protocol: str, start: bytes, parts: list[bytes]
) -> None:
    async def greet() -> str:
        talk = Talk(Heard([*([start] if start else []), *parts]), 1000)
        try:
            greeting = await GREETINGS[protocol](talk)
        except Ended as ended:
            return ended.why
        return greeting.words

    assert asyncio.run(greet()).isprintable()


@given(st.binary(max_size=300))
def test_bytes_are_shown_in_one_line_of_limited_length(data: bytes) -> None:
    shown = show_bytes(data, 50)
    assert shown.isprintable()
    assert len(shown) <= 53


# This host's own part


async def test_evidence_names_who_listens(serve: Serve, gather_of: Gather) -> None:
    served = await serve(hang)
    found = await gather_of("tcp", port=served.port, protocol="smtp", timeout="100ms")
    assert "waiting for the answer took longer" in found[f"Answer of 127.0.0.1:{served.port}"]
    listens = found[f"Who listens on port {served.port} of this host"]
    assert listens.startswith(f"127.0.0.1:{served.port}: ")
    port = hold_port()
    found = await gather_of("tcp", port=port)
    assert found[f"Who listens on port {port} of this host"] == "nobody"


async def test_a_host_without_descriptors_blames_nobody(
    serve: Serve, look_at: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.errors import Unavailable

    served = await serve(b"")

    def fail(*_arguments: Any) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("agent.host.connection.socket.socket", fail)
    with pytest.raises(Unavailable, match="too many open files on this host"):
        await look_at("tcp", port=served.port)


async def test_what_listens_here_is_proposed() -> None:
    machine = Machine(clock=Clock())
    proposals = await CHECKS["tcp"].propose(machine)
    for proposal in proposals:
        options = complete("tcp", dict(proposal.options))
        assert options.type == "tcp"


def test_a_failure_knows_whether_there_was_a_connection() -> None:
    from agent.host.connection import Timings, Trouble

    assert not Failure(trouble=Trouble.TIMEOUT, why="").reached
    assert Failure(trouble=Trouble.TIMEOUT, why="", timings=Timings(connect=0.1)).reached
