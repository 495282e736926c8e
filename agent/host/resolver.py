"""One question to one name server, over UDP and, where the answer is cut short, over TCP.

dnspython packs and unpacks messages (RFC 1035); the way there is our own, as its transports would
load an HTTP client with them. It is imported when the first question is asked.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import Unavailable
from agent.host.connection import Connection, Ended, Failure, Peer, Timings, Trouble
from agent.host.dialogue import Talk

if TYPE_CHECKING:
    import dns.message

#: Largest answer over UDP that is asked for (https://www.dnsflagday.net/2020/), and over TCP.
_PAYLOAD, _LONGEST = 1232, 65535
#: A datagram may be lost: it is sent again after this share of the time.
_AGAIN = 0.3
#: Values of an answer that are kept.
_MOST = 100


class Transport(StrEnum):
    """How a name server is asked."""

    #: UDP, and TCP where the answer is cut short.
    AUTO = "auto"
    UDP = "udp"
    TCP = "tcp"


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked, and of whom."""

    server: str
    port: int
    name: str
    #: `A`, `MX`.
    record: str
    transport: Transport = Transport.AUTO
    #: Whether the server is to ask others.
    recursion: bool = True


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a name server said."""

    #: `NOERROR`, `NXDOMAIN`, `SERVFAIL` (RFC 1035, section 4.1.1, and later ones).
    code: str
    #: The records of the wanted type, sorted, as zone files have them.
    values: tuple[str, ...]
    #: It speaks for the zone.
    authoritative: bool
    #: It is cut short, and there is no longer one.
    truncated: bool
    #: Shortest time that a value may be kept, in seconds; None without values.
    ttl: int | None
    timings: Timings = field(default_factory=Timings)
    #: It came over TCP.
    tcp: bool = False


def read_servers(path: Path = Path("/etc/resolv.conf")) -> tuple[str, ...]:
    """The name servers of resolv.conf(5). Raises Unavailable where there is none."""
    try:
        rows = [line.split() for line in path.read_text(errors="replace").splitlines()]
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}") from error
    found = tuple(row[1] for row in rows if len(row) > 1 and row[0] == "nameserver")
    if not found:
        raise Unavailable(f"cannot tell whom to ask: {path} names no server; write `server`")
    return found


def load() -> None:
    """Imports dnspython, which takes some 30 ms: not for the event loop."""
    import dns.flags
    import dns.message
    import dns.rcode
    import dns.rdatatype  # noqa: F401


async def ask(question: Question, seconds: float) -> Answer | Failure:
    """The answer, within so many seconds. Raises Unavailable as `Connection.run` does."""
    import dns.flags
    import dns.message

    query = dns.message.make_query(
        question.name, question.record, use_edns=0, payload=_PAYLOAD,
        flags=dns.flags.RD if question.recursion else 0,
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    result: Answer | Failure
    if question.transport is not Transport.TCP:
        result = await _ask_udp(question, query, seconds)
        cut = isinstance(result, Answer) and result.truncated
        if not cut or question.transport is Transport.UDP:
            return result
    return await _ask_tcp(question, query, until - loop.time())


async def _ask_udp(
    question: Question, query: dns.message.Message, seconds: float
) -> Answer | Failure:
    loop = asyncio.get_running_loop()
    place = f"{question.server}:{question.port} (UDP)"
    heard: list[str] = []

    def fail(trouble: Trouble, why: str) -> Failure:
        return Failure(trouble=trouble, why=why, addresses=(question.server,))

    family = socket.AF_INET6 if ":" in question.server else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asked:
            asked.setblocking(False)
            # Connected: only this server's answers arrive, and that its port is closed is told.
            asked.connect((question.server, question.port))
            began = loop.time()
            wire = query.to_wire()
            asked.send(wire)
            again = loop.call_later(_AGAIN * seconds, _send_again, asked, wire)
            try:
                async with asyncio.timeout(seconds):
                    while True:
                        data = await loop.sock_recv(asked, _LONGEST)
                        answer = _read(data, query, question)
                        if isinstance(answer, Answer):
                            return replace(answer, timings=Timings(first_byte=loop.time() - began))
                        # Somebody may guess at answers: the true one may still come.
                        heard.append(answer)
            finally:
                again.cancel()
    except TimeoutError:
        if heard:
            return fail(Trouble.INVALID, f"what {place} answers is no answer: {heard[-1]}")
        return fail(Trouble.TIMEOUT, f"{place} did not answer within {seconds:.3g} s")
    except ConnectionRefusedError:
        return fail(Trouble.REFUSED, f"{place} is closed")
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            raise Unavailable(f"cannot ask {place}: {error.strerror} on this host") from error
        return fail(Trouble.UNREACHABLE, f"cannot reach {place}: {(error.strerror or '').lower()}")


def _send_again(asked: socket.socket, wire: bytes) -> None:
    try:
        asked.send(wire)
    except OSError:  # the answer, or its absence, tells
        return


async def _ask_tcp(
    question: Question, query: dns.message.Message, seconds: float
) -> Answer | Failure:
    """RFC 7766: a length of two bytes, then the message."""

    async def exchange(connection: Connection) -> Answer:
        await connection.open()
        talk = Talk(connection, _LONGEST + 2)
        wire = query.to_wire()
        talk.say(struct.pack("!H", len(wire)) + wire)
        (size,) = struct.unpack("!H", await talk.hear_bytes(2))
        answer = _read(await talk.hear_bytes(size), query, question)
        if isinstance(answer, str):
            raise Ended(Trouble.INVALID, f"what {connection.place} answers is no answer: {answer}")
        return replace(answer, timings=connection.timings, tcp=True)

    peer = Peer(host=question.server, port=question.port)
    return await Connection(peer, _resolve_nothing, seconds).run(exchange)


async def _resolve_nothing(name: str) -> tuple[str, ...]:
    raise Unavailable(f"{name} is no address")


def _read(data: bytes, query: dns.message.Message, question: Question) -> Answer | str:
    """The answer to a query, or why it is none."""
    import dns.exception
    import dns.flags
    import dns.message
    import dns.rcode
    import dns.rdatatype

    try:
        message = dns.message.from_wire(data, ignore_trailing=True)
    except dns.message.Truncated as error:
        message = error.message()  # type: ignore[no-untyped-call]
    except (dns.exception.DNSException, ValueError, IndexError, struct.error) as error:
        return f"it cannot be read ({type(error).__name__})"
    if not query.is_response(message):
        return "it is to another question"
    wanted = dns.rdatatype.from_text(question.record)
    sets = [rows for rows in message.answer if rows.rdtype == wanted]
    # Servers turn them round from answer to answer, which is no news.
    values = tuple(sorted(row.to_text() for rows in sets for row in rows))
    return Answer(
        code=dns.rcode.to_text(message.rcode()),
        values=values[:_MOST],
        authoritative=bool(message.flags & dns.flags.AA),
        truncated=bool(message.flags & dns.flags.TC),
        ttl=min((rows.ttl for rows in sets), default=None),
    )
