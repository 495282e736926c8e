"""How protocols that begin without TLS go over to it."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Mapping

from agent.host.connection import Ended, Trouble
from agent.host.dialogue import Talk, show_bytes

#: A name that is nobody's (RFC 6761, section 6.4): nothing is sent in it.
_NAME = b"hostmend.invalid"
#: PostgreSQL, "Message Formats", SSLRequest.
_SSL_REQUEST = struct.pack(">II", 8, 80877103)


async def _begin_smtp(talk: Talk) -> None:
    """RFC 3207."""
    await _hear_reply(talk, b"220")
    talk.say(b"EHLO " + _NAME + b"\r\n")
    offers = await _hear_reply(talk, b"250")
    if not any(line.upper() == b"STARTTLS" for line in offers):
        raise Ended(Trouble.TLS, "it offers no STARTTLS")
    talk.say(b"STARTTLS\r\n")
    await _hear_reply(talk, b"220")


async def _begin_ftp(talk: Talk) -> None:
    """RFC 4217."""
    await _hear_reply(talk, b"220")
    talk.say(b"AUTH TLS\r\n")
    await _hear_reply(talk, b"234")


async def _begin_imap(talk: Talk) -> None:
    """RFC 9051, section 6.2.1."""
    line = await talk.hear_line()
    if not line.upper().startswith(b"* OK"):
        raise _refused(line)
    talk.say(b"a STARTTLS\r\n")
    while not (line := await talk.hear_line()).startswith(b"a "):
        continue
    if not line.upper().startswith(b"A OK"):
        raise _refused(line)


async def _begin_pop3(talk: Talk) -> None:
    """RFC 2595, section 4."""
    for asks in (b"STLS\r\n", b""):
        line = await talk.hear_line()
        if not line.startswith(b"+OK"):
            raise _refused(line)
        if asks:
            talk.say(asks)


async def _begin_postgres(talk: Talk) -> None:
    talk.say(_SSL_REQUEST)
    answer = await talk.hear_bytes(1)
    if answer != b"S":
        raise Ended(Trouble.TLS, f"it offers no TLS, but answers {show_bytes(answer)}")


async def _hear_reply(talk: Talk, wanted: bytes) -> list[bytes]:
    """The texts of a reply of one line or several (RFC 5321, section 4.2.1)."""
    texts = []
    while True:
        line = await talk.hear_line()
        texts.append(line[4:].strip())
        if line[3:4] != b"-":
            break
    if line[:3] != wanted:
        raise _refused(line)
    return texts


def _refused(line: bytes) -> Ended:
    return Ended(Trouble.TLS, f"it does not go over to TLS: {show_bytes(line)}")


#: Each leaves the other side waiting for the TLS handshake. Raises Ended.
STARTTLS: Mapping[str, Callable[[Talk], Awaitable[None]]] = {
    "ftp": _begin_ftp,
    "imap": _begin_imap,
    "pop3": _begin_pop3,
    "postgres": _begin_postgres,
    "smtp": _begin_smtp,
}
#: How one takes leave of them once TLS is spoken.
FAREWELLS = {"ftp": b"QUIT\r\n", "imap": b"b LOGOUT\r\n", "pop3": b"QUIT\r\n", "smtp": b"QUIT\r\n"}
