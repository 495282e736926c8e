"""Name servers: right, wrong, silent, cut short and talking nonsense."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from peers import verdict

from agent.core.model import Finding
from agent.errors import Unavailable
from agent.host.resolver import read_servers

Look = Callable[..., Awaitable[Finding]]
Gather = Callable[..., Awaitable[dict[str, str]]]
#: What is answered to a query: messages, one after the other, over UDP or TCP.
Reply = Callable[[dns.message.Message, bool], list[bytes]]


@dataclass
class Server:
    port: int
    asked: list[tuple[str, bool]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: Server, reply: Reply) -> None:
        self._server, self._reply = server, reply

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        query = dns.message.from_wire(data)
        self._server.asked.append((query.question[0].to_text(), False))
        for answer in self._reply(query, False):
            self._transport.sendto(answer, address)


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Reply], Awaitable[Server]]]:
    """A name server on loopback, over UDP and TCP on one port."""
    held: list[Any] = []

    async def serve(reply: Reply) -> Server:
        server = Server(port=0)

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            query = dns.message.from_wire(await reader.readexactly(size))
            server.asked.append((query.question[0].to_text(), True))
            for answer in reply(query, True):
                writer.write(struct.pack("!H", len(answer)) + answer)
            writer.close()

        tcp = await asyncio.start_server(talk, "127.0.0.1", 0)
        server.port = tcp.sockets[0].getsockname()[1]
        udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Udp(server, reply), local_addr=("127.0.0.1", server.port)
        )
        held.extend((tcp, udp))
        return server

    yield serve
    for each in held:
        each.close()


def answering(*values: str, record: str = "A", **more: Any) -> Reply:
    def reply(query: dns.message.Message, tcp: bool) -> list[bytes]:
        return [make_answer(query, *values, record=record, **more).to_wire()]

    return reply


def make_answer(
    query: dns.message.Message, *values: str, record: str = "A", code: str = "NOERROR",
    flags: int = 0,
) -> dns.message.Message:  # fmt: skip
    answer = dns.message.make_response(query)
    answer.set_rcode(dns.rcode.from_text(code))
    answer.flags |= flags
    if values:
        answer.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", record, *values))
    return answer


async def test_an_answer_is_ok_and_told(serve: Any, look_at: Look) -> None:
    server = await serve(answering("192.0.2.2", "192.0.2.1"))
    finding = await look_at("dns", name="shop.example", server=server.address)
    assert verdict(finding) == ("ok", "")
    assert finding.subject == f"shop.example A of {server.address}"
    assert finding.summary.endswith("is 192.0.2.1, 192.0.2.2")
    assert finding.facts["From"] == f"{server.address} (UDP)"
    assert finding.measurements["values_count"] == 2
    assert finding.measurements["ttl_seconds"] == 60
    assert server.asked == [("shop.example. IN A", False)]


#: A sentence, what is answered, further options, and the verdict.
ANSWERS: list[tuple[str, Reply, dict[str, Any], tuple[str, str]]] = [
    ("no such name", answering(code="NXDOMAIN"), {}, ("critical", "nxdomain")),
    ("no such name is wanted", answering(code="NXDOMAIN"), {"code": "NXDOMAIN"}, ("ok", "")),
    (
        "a name that should not be",
        answering("192.0.2.1"),
        {"code": "NXDOMAIN"},
        ("critical", "code"),
    ),
    ("a broken zone", answering(code="SERVFAIL"), {}, ("critical", "servfail")),
    ("not for us", answering(code="REFUSED"), {}, ("critical", "refusing")),
    ("not done", answering(code="NOTIMP"), {}, ("critical", "code")),
    ("nothing of the kind", answering(), {}, ("critical", "empty")),
    ("what is expected", answering("192.0.2.1"), {"expect": ["192.0.2.1"]}, ("ok", "")),
    (
        "another than expected",
        answering("192.0.2.9"),
        {"expect": ["192.0.2.1"]},
        ("critical", "unexpected"),
    ),
    (
        "more than expected is fine",
        answering("192.0.2.1", "192.0.2.9"),
        {"expect": ["192.0.2.1"]},
        ("ok", ""),
    ),
    (
        "unless it is not",
        answering("192.0.2.1", "192.0.2.9"),
        {"expect": ["192.0.2.1"], "others": False},
        ("critical", "unexpected"),
    ),
    (
        "names are compared as names",
        answering("10 MX1.Example.", record="MX"),
        {"record": "MX", "expect": ["10 mx1.example"]},
        ("ok", ""),
    ),
    (
        "texts are compared as texts",
        answering('"v=spf1 " "-all"', record="TXT"),
        {"record": "TXT", "expect": ["v=spf1 -all"]},
        ("ok", ""),
    ),
    (
        "with quotes as well",
        answering('"v=spf1 " "-all"', record="TXT"),
        {"record": "TXT", "expect": ['"v=spf1 -all"']},
        ("ok", ""),
    ),
    (
        "and not as names",
        answering('"Word"', record="TXT"),
        {"record": "TXT", "expect": ["word"]},
        ("critical", "unexpected"),
    ),
    (
        "somebody else's word",
        answering("192.0.2.1"),
        {"authoritative": True},
        ("critical", "not-authoritative"),
    ),
    (
        "its own word",
        answering("192.0.2.1", flags=dns.flags.AA),
        {"authoritative": True},
        ("ok", ""),
    ),
    ("slow", answering("192.0.2.1"), {"warning": {"response": "0.001ms"}}, ("warning", "slow")),
]


@pytest.mark.parametrize(("sentence", "reply", "options", "wanted"), ANSWERS)
async def test_answers(
    sentence: str,
    reply: Reply,
    options: dict[str, Any],
    wanted: tuple[str, str],
    serve: Any,
    look_at: Look,
) -> None:
    server = await serve(reply)
    finding = await look_at("dns", name="shop.example", server=server.address, **options)
    assert verdict(finding) == wanted


async def test_the_name_of_an_address_is_asked_for(serve: Any, look_at: Look) -> None:
    server = await serve(answering("shop.example.", record="PTR"))
    finding = await look_at("dns", name="192.0.2.1", record="PTR", server=server.address)
    assert verdict(finding) == ("ok", "")
    assert server.asked == [("1.2.0.192.in-addr.arpa. IN PTR", False)]


# Cut short


def cut(query: dns.message.Message, tcp: bool) -> list[bytes]:
    if tcp:
        return [make_answer(query, "192.0.2.1", "192.0.2.2").to_wire()]
    return [make_answer(query, flags=dns.flags.TC).to_wire()]


async def test_an_answer_that_is_cut_short_is_asked_for_over_tcp(serve: Any, look_at: Look) -> None:
    server = await serve(cut)
    finding = await look_at("dns", name="shop.example", server=server.address)
    assert verdict(finding) == ("ok", "")
    assert finding.facts["From"].endswith("(TCP)")
    assert [tcp for _, tcp in server.asked] == [False, True]
    finding = await look_at("dns", name="shop.example", server=server.address, transport="udp")
    assert verdict(finding) == ("critical", "truncated")
    finding = await look_at("dns", name="shop.example", server=server.address, transport="tcp")
    assert verdict(finding) == ("ok", "")
    assert [tcp for _, tcp in server.asked] == [False, True, False, True]


async def test_no_tcp_behind_an_answer_that_is_cut_short_is_told(serve: Any, look_at: Look) -> None:
    server = await serve(lambda query, tcp: [] if tcp else cut(query, tcp))
    finding = await look_at("dns", name="shop.example", server=server.address)
    assert verdict(finding) == ("critical", "reset")


# No answers


async def test_silence_is_a_timeout_and_is_asked_again(serve: Any, look_at: Look) -> None:
    server = await serve(lambda query, tcp: [])
    finding = await look_at("dns", name="shop.example", server=server.address, timeout="200ms")
    assert verdict(finding) == ("critical", "timeout")
    assert len(server.asked) == 2


async def test_a_lost_datagram_is_no_failure(serve: Any, look_at: Look) -> None:
    lost: list[int] = []

    def reply(query: dns.message.Message, tcp: bool) -> list[bytes]:
        lost.append(1)
        return [] if len(lost) == 1 else answering("192.0.2.1")(query, tcp)

    server = await serve(reply)
    finding = await look_at("dns", name="shop.example", server=server.address, timeout="2s")
    assert verdict(finding) == ("ok", "")


def garble(query: dns.message.Message, tcp: bool) -> list[bytes]:
    return [b"", b"\x00", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 600]


async def test_garbage_is_no_answer(serve: Any, look_at: Look) -> None:
    server = await serve(garble)
    for transport in ("udp", "tcp"):
        finding = await look_at(
            "dns", name="shop.example", server=server.address, transport=transport, timeout="200ms"
        )
        assert verdict(finding) == ("critical", "invalid")


async def test_a_guess_does_not_pass_for_an_answer(serve: Any, look_at: Look) -> None:
    def reply(query: dns.message.Message, tcp: bool) -> list[bytes]:
        guess = make_answer(query, "203.0.113.66")
        guess.id ^= 1
        other = dns.message.make_query("other.example", "A")
        other.id = query.id
        return [
            guess.to_wire(),
            make_answer(other, "203.0.113.66").to_wire(),
            make_answer(query, "192.0.2.1").to_wire(),
        ]

    server = await serve(reply)
    finding = await look_at("dns", name="shop.example", server=server.address)
    assert finding.facts["Answer"] == "192.0.2.1"


async def test_a_closed_port_is_refused(look_at: Look) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    for transport in ("udp", "tcp"):
        finding = await look_at(
            "dns", name="shop.example", server=f"127.0.0.1:{port}", transport=transport
        )
        assert verdict(finding) == ("critical", "refused")


# Servers of this host


async def test_the_servers_of_this_host_are_asked_in_turn(
    serve: Any, look_at: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.checks import dns as checked

    server = await serve(answering("192.0.2.1"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        closed = held.getsockname()[1]
    real = checked.ask
    ports = {"127.0.0.2": closed, "127.0.0.1": server.port}

    async def ask(question: Any, seconds: float) -> Any:
        from dataclasses import replace

        return await real(replace(question, port=ports[question.server]), seconds)

    monkeypatch.setattr(checked, "read_servers", lambda: ("127.0.0.2", "127.0.0.1"))
    monkeypatch.setattr(checked, "ask", ask)
    finding = await look_at("dns", name="shop.example")
    assert verdict(finding) == ("ok", "")
    assert finding.subject == "shop.example A"


def test_name_servers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# x\nnameserver 192.0.2.1\nsearch a\nnameserver ::1\nnameserver\n")
    assert read_servers(path) == ("192.0.2.1", "::1")
    path.write_text("search a\n")
    with pytest.raises(Unavailable, match="names no server"):
        read_servers(path)
    with pytest.raises(Unavailable, match="cannot read"):
        read_servers(tmp_path / "nowhere")


async def test_evidence_is_the_whole_answer(serve: Any, gather_of: Gather) -> None:
    server = await serve(answering("192.0.2.1"))
    (text,) = (await gather_of("dns", name="shop.example", server=server.address)).values()
    assert "Code: NOERROR" in text
    assert "Value: 192.0.2.1" in text


def test_who_asks_nobody_loads_no_library_for_it() -> None:
    program = (
        "import sys; import agent.bootstrap; "
        "print([m for m in ('dns', 'cryptography', 'psutil._pslinux') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.strip() in ("[]", "['psutil._pslinux']")
