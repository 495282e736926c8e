"""What is said over a connection: texts that a check sends and expects, and greetings by name.

A greeting proves that a server of that kind answers. It logs in nowhere, and takes its leave as the
protocol has it, where leaving without a word would fill the server's log.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from agent.host.connection import Connection, Ended, Trouble

#: Bytes of an answer that are read at most, unless a check says otherwise.
ANSWER_LIMIT = 64 * 1024
#: Longest wait for an answer to a goodbye, in seconds.
_FAREWELL = 0.5
#: What is repeated of an answer, in characters.
_SHOWN = 200
#: Lines that a server may send before its own: RFC 4253, section 4.2, names no number.
_MOST_LINES = 50


@dataclass(frozen=True, kw_only=True)
class Greeting:
    """What a server said of itself."""

    #: Its own words, fit to show.
    words: str
    #: It answers, but serves nobody now.
    refuses: bool = False
    #: How one takes leave of it; empty: by hanging up.
    farewell: bytes = b""


class Talk:
    """Both sides of a conversation; what was heard is kept up to a limit."""

    def __init__(self, connection: Connection, limit: int = ANSWER_LIMIT) -> None:
        #: All that was heard.
        self.heard = bytearray()
        self._connection = connection
        self._limit = limit
        #: What of it was taken note of.
        self._taken = 0

    def say(self, data: bytes) -> None:
        self._connection.send(data)

    async def hear_text(self, text: bytes) -> None:
        """Listens until a text comes, which may be amid others."""
        while (at := self.heard.find(text, self._taken)) < 0:
            await self._hear_more(f"without {show_bytes(text)}")
        self._taken = at + len(text)

    async def hear_line(self) -> bytes:
        """The next line, without its end."""
        while (end := self.heard.find(b"\n", self._taken)) < 0:
            await self._hear_more("within a line")
        line = bytes(self.heard[self._taken : end]).removesuffix(b"\r")
        self._taken = end + 1
        return line

    async def hear_bytes(self, count: int) -> bytes:
        while len(self.heard) < self._taken + count:
            await self._hear_more("within a packet")
        self._taken += count
        return bytes(self.heard[self._taken - count : self._taken])

    async def take_leave(self, farewell: bytes) -> None:
        """Says goodbye and waits a moment for the answer; whether there is one does not matter."""
        self.say(farewell)
        with contextlib.suppress(Ended, TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await self.hear_line()

    def check_silence(self) -> None:
        """Raises Ended where more was said than was taken note of: before TLS begins, it would be
        taken for what is said within it."""
        if len(self.heard) > self._taken:
            raise Ended(Trouble.INVALID, "it goes on talking where TLS was to begin")

    async def _hear_more(self, where: str) -> None:
        if len(self.heard) >= self._limit:
            raise Ended(Trouble.INVALID, f"it says more than {self._limit} bytes {where}")
        data = await self._connection.receive()
        if not data:
            before = f", after {show_bytes(self.heard)}" if self.heard else ""
            raise Ended(Trouble.RESET, f"the connection ended {where}{before}")
        self.heard += data[: self._limit - len(self.heard)]


def show_bytes(data: bytes | bytearray, most: int = _SHOWN) -> str:
    """Bytes from elsewhere as one line of quoted text, whatever they are."""
    text = bytes(data[: most + 1]).decode(errors="backslashreplace")
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f'"{shown[:most]}{"…" if len(shown) > most else ""}"'


# Greetings

Greet = Callable[[Talk], Awaitable[Greeting]]


@dataclass(frozen=True, kw_only=True)
class _Lines:
    """A protocol of lines, in which the server speaks first or answers a question."""

    #: What the line of a server that serves begins with.
    greets: re.Pattern[bytes]
    #: What that of a server begins with that serves nobody now.
    refuses: re.Pattern[bytes]
    asks: bytes = b""
    farewell: bytes = b""
    #: Other lines may come first.
    patient: bool = False


_LINES = {
    # RFC 959, section 4.2
    "ftp": _Lines(
        greets=re.compile(rb"220[ -]|120[ -]"),
        refuses=re.compile(rb"[45]\d\d[ -]"),
        farewell=b"QUIT\r\n",
    ),
    # RFC 9051, section 7.1
    "imap": _Lines(
        greets=re.compile(rb"\* (?:OK|PREAUTH)(?: |$)", re.IGNORECASE),
        refuses=re.compile(rb"\* BYE(?: |$)", re.IGNORECASE),
        farewell=b"a LOGOUT\r\n",
    ),
    # https://github.com/memcached/memcached/blob/master/doc/protocol.txt
    "memcached": _Lines(
        greets=re.compile(rb"VERSION "),
        refuses=re.compile(rb"(?:SERVER_)?ERROR"),
        asks=b"version\r\n",
        farewell=b"quit\r\n",
    ),
    # RFC 1939, section 3
    "pop3": _Lines(
        greets=re.compile(rb"\+OK(?: |$)"),
        refuses=re.compile(rb"-ERR(?: |$)"),
        farewell=b"QUIT\r\n",
    ),
    # https://redis.io/docs/latest/develop/reference/protocol-spec/: one that wants a password or
    # forbids PING serves those who have it.
    "redis": _Lines(
        greets=re.compile(rb"\+PONG|-NOAUTH |-NOPERM "),
        refuses=re.compile(rb"-"),
        asks=b"PING\r\n",
        farewell=b"QUIT\r\n",
    ),
    # RFC 5321, section 4.2
    "smtp": _Lines(
        greets=re.compile(rb"220(?:[ -]|$)"),
        refuses=re.compile(rb"[45]\d\d(?:[ -]|$)"),
        farewell=b"QUIT\r\n",
    ),
    # RFC 4253, section 4.2
    "ssh": _Lines(
        greets=re.compile(rb"SSH-(?:2\.0|1\.99)-"),
        refuses=re.compile(rb"Exceeded MaxStartups|Not allowed at this time"),
        patient=True,
    ),
}


async def _greet_by_lines(talk: Talk, protocol: str) -> Greeting:
    lines = _LINES[protocol]
    if lines.asks:
        talk.say(lines.asks)
    for _ in range(_MOST_LINES if lines.patient else 1):
        line = await talk.hear_line()
        greets = lines.greets.match(line) is not None
        if greets or lines.refuses.match(line):
            # All of several lines (`220-`): else the end of the connection cuts it short.
            while re.match(rb"\d\d\d-", line):
                line = await talk.hear_line()
            words = show_bytes(talk.heard.splitlines()[0])[1:-1]
            farewell = lines.farewell if greets else b""
            return Greeting(words=words, refuses=not greets, farewell=farewell)
    raise Ended(Trouble.INVALID, f"what answers does not speak {protocol}: {show_bytes(line)}")


# MySQL and MariaDB
# https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html

_CAPABILITIES = 0x00000200 | 0x00008000 | 0x00080000  # PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH
_LARGEST_PACKET = 1 << 24
_UTF8 = 33
#: Errors of a server that is there for others: it knows no such user, or takes none from here.
_KNOWS_US_NOT = frozenset({1044, 1045, 1130, 1251, 1524, 1698, 2061, 3118, 3159})


async def _greet_mysql(talk: Talk) -> Greeting:
    """Its greeting, and then a log-in that it refuses.

    Leaving after the greeting counts as an attack: after `max_connect_errors` of them the server
    blocks this host (error 1129). A refused log-in does not.
    """
    packet, number = await _hear_packet(talk)
    if packet[:1] == b"\xff":
        return _read_refusal(packet)
    version, end, _ = packet[1:].partition(b"\0")
    if packet[:1] != b"\x0a" or not end or len(version) > 100:
        raise Ended(Trouble.INVALID, f"what answers does not speak mysql: {show_bytes(packet)}")
    words = show_bytes(version)[1:-1]
    asked = struct.pack("<IIB23x", _CAPABILITIES, _LARGEST_PACKET - 1, _UTF8)
    _say_packet(talk, number + 1, asked + b"hostmend\0" + b"\0" + b"mysql_native_password\0")
    packet, number = await _hear_packet(talk)
    if packet[:1] == b"\xfe":  # another way of proving who one is
        _say_packet(talk, number + 1, b"")
        packet, _ = await _hear_packet(talk)
    if packet[:1] == b"\xff" and (refusal := _read_refusal(packet)).refuses:
        return refusal
    return Greeting(words=words)


async def _hear_packet(talk: Talk) -> tuple[bytes, int]:
    head = await talk.hear_bytes(4)
    size = int.from_bytes(head[:3], "little")
    if not 0 < size <= 1024:  # a greeting has some 100 bytes
        raise Ended(Trouble.INVALID, f"what answers does not speak mysql: {show_bytes(talk.heard)}")
    return await talk.hear_bytes(size), head[3]


def _say_packet(talk: Talk, number: int, body: bytes) -> None:
    talk.say(len(body).to_bytes(3, "little") + bytes([number & 0xFF]) + body)


def _read_refusal(packet: bytes) -> Greeting:
    code = int.from_bytes(packet[1:3], "little")
    text = packet[3:]
    if text[:1] == b"#":  # then five characters of SQLSTATE
        text = text[6:]
    words = f"error {code}: {show_bytes(text)[1:-1]}"
    return Greeting(words=words, refuses=code not in _KNOWS_US_NOT)


GREETINGS: Mapping[str, Greet] = {
    **{name: partial(_greet_by_lines, protocol=name) for name in _LINES},
    "mysql": _greet_mysql,
}
