"""Echoes (ping) without root: ICMP sockets of datagrams, icmp(7).

The kernel fills in identifier and checksum, and hands over only what answers this socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from agent.errors import Unavailable
from agent.host.connection import Failure, Trouble

#: Type of a request and of its reply (RFC 792, RFC 4443).
_IPV4, _IPV6 = (8, 0), (128, 129)
_HEADER = struct.Struct("!BBHHH")
_TOKEN = 8
#: Bytes behind the header, as ping(8) sends.
_PAYLOAD = 56
_GROUPS = Path("/proc/sys/net/ipv4/ping_group_range")


@dataclass(frozen=True, kw_only=True)
class Echoes:
    """What came back."""

    address: str
    sent: int
    #: Seconds there and back of each that came back, in the order of sending.
    times: tuple[float, ...]

    @property
    def loss(self) -> float:
        """Percent."""
        return 100.0 * (self.sent - len(self.times)) / self.sent


async def ping(address: str, *, count: int, interval: float, seconds: float) -> Echoes | Failure:
    """Sends so many echo requests, `interval` seconds apart, and hears replies for so long.

    A Failure when the way itself answers that there is none. Raises Unavailable where this host may
    not or cannot ping.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    with _open(address) as asked:
        token = os.urandom(_TOKEN)
        sent: dict[int, float] = {}
        times: dict[int, float] = {}
        hearing = loop.create_task(_hear(asked, token, count, sent, times))
        try:
            for number in range(1, count + 1):
                sent[number] = loop.time()
                asked.send(_make_request(address, number, token))
                wait = interval if number < count else until - loop.time()
                done, _ = await asyncio.wait({hearing}, timeout=min(wait, until - loop.time()))
                if done:
                    break
            if hearing.done():
                hearing.result()
        except OSError as error:
            return _explain(error, address)
        finally:
            hearing.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await hearing
    return Echoes(
        address=address, sent=len(sent), times=tuple(times[number] for number in sorted(times))
    )


def _open(address: str) -> socket.socket:
    """Connected, so that errors from the way are told (icmp(7)). Raises Unavailable."""
    host, _, scope = address.partition("%")
    six = ":" in host
    family, protocol = (
        (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
    )
    try:
        asked = socket.socket(family, socket.SOCK_DGRAM, protocol)
    except PermissionError as error:
        raise Unavailable(_say_forbidden()) from error
    except OSError as error:
        raise Unavailable(f"cannot ping {address}: {error.strerror}") from error
    asked.setblocking(False)
    try:
        index = socket.if_nametoindex(scope) if scope else 0
        asked.connect((host, 0, 0, index) if six else (host, 0))
    except OSError:
        # Sending fails likewise, and that is explained.
        return asked
    return asked


def _say_forbidden() -> str:
    try:
        groups = " ".join(_GROUPS.read_text().split())
    except OSError:
        groups = "unknown"
    return (
        f"cannot ping: net.ipv4.ping_group_range ({groups}) does not hold a group of hostmend's "
        "user; set it, for example sysctl -w net.ipv4.ping_group_range='0 2147483647'"
    )


def _make_request(address: str, number: int, token: bytes) -> bytes:
    kind = (_IPV6 if ":" in address else _IPV4)[0]
    return _HEADER.pack(kind, 0, 0, 0, number) + token + b"\0" * (_PAYLOAD - _TOKEN)


async def _hear(
    asked: socket.socket,
    token: bytes,
    count: int,
    sent: dict[int, float],
    times: dict[int, float],
) -> None:
    """Until all have come back. Raises OSError for what the way answers."""
    loop = asyncio.get_running_loop()
    kind = (_IPV6 if asked.family == socket.AF_INET6 else _IPV4)[1]
    while len(times) < count:
        data = await loop.sock_recv(asked, 2048)
        at = loop.time()
        if len(data) < _HEADER.size + _TOKEN:
            continue
        told, _, _, _, number = _HEADER.unpack_from(data)
        if told == kind and number in sent and data[_HEADER.size :][:_TOKEN] == token:
            times.setdefault(number, at - sent[number])


def _explain(error: OSError, address: str) -> Failure:
    if error.errno in (errno.ENOBUFS, errno.ENOMEM):
        raise Unavailable(f"cannot ping {address}: {error.strerror} on this host") from error
    words = (error.strerror or str(error)).lower()
    return Failure(
        trouble=Trouble.UNREACHABLE, why=f"cannot reach {address}: {words}", addresses=(address,)
    )
