"""How this host would reach an address, asked of its kernel; nothing is sent.

rtnetlink(7), RTM_GETROUTE: what `ip route get ADDRESS` asks.
"""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from agent.host.connection import Failure, Trouble

# linux/rtnetlink.h, linux/netlink.h
_RTM_GETROUTE, _NLM_F_REQUEST, _NLMSG_ERROR = 26, 1, 2
_RTA_DST, _RTA_OIF = 1, 4
_RTN_UNICAST, _RTN_LOCAL = 1, 2
# netdevice(7)
_SIOCGIFFLAGS, _IFF_RUNNING = 0x8913, 0x40
_INTERFACE = struct.Struct("=16sH22x")
_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_NETLINK_SECONDS = 1.0

_RESOLV_CONF = Path("/etc/resolv.conf")
#: Failures that may lie on the way.
_REMOTE = (Trouble.DNS, Trouble.UNREACHABLE, Trouble.TIMEOUT)
#: Addresses that are nobody's (RFC 5737, RFC 3849): what leads to them is the default route.
_ELSEWHERE = ("198.51.100.1", "2001:db8::1")


@dataclass(frozen=True, kw_only=True)
class Route:
    """The way to one address."""

    #: The address is this host's own.
    local: bool
    #: Empty when the kernel names none.
    interface: str
    #: The interface has a link. An interface that does not say counts as having one.
    link: bool


def find_route(address: str) -> Route | None:
    """The way to an address; None when there is no way. Raises OSError when none can be told."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    bits = ip.max_prefixlen
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + bits // 8, _RTA_DST) + ip.packed
    body = _ROUTE.pack(family, bits, 0, 0, 0, 0, 0, 0, 0) + attribute
    size = _HEADER.size + len(body)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(_NETLINK_SECONDS)
        kernel.sendto(_HEADER.pack(size, _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0) + body, (0, 0))
        answer = kernel.recv(65536)
    if _HEADER.unpack_from(answer)[1] == _NLMSG_ERROR:
        return None
    kind = _ROUTE.unpack_from(answer, _HEADER.size)[7]
    if kind not in (_RTN_UNICAST, _RTN_LOCAL):
        return None
    interface = _read_interface(answer[_HEADER.size + _ROUTE.size :])
    return Route(local=kind == _RTN_LOCAL, interface=interface, link=_has_link(interface))


def _read_interface(attributes: bytes) -> str:
    at = 0
    while at + _ATTRIBUTE.size <= len(attributes):
        size, kind = _ATTRIBUTE.unpack_from(attributes, at)
        if size < _ATTRIBUTE.size:
            break
        if kind == _RTA_OIF:
            (index,) = struct.unpack_from("=I", attributes, at + _ATTRIBUTE.size)
            try:
                return socket.if_indextoname(index)
            except OSError:  # gone meanwhile
                return ""
        at += (size + 3) & ~3
    return ""


def _has_link(interface: str) -> bool:
    """By the kernel's flag (netdevice(7)): /sys may show the interfaces of another namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            found = fcntl.ioctl(probe, _SIOCGIFFLAGS, _INTERFACE.pack(interface.encode(), 0))
        except OSError:
            return True
    return bool(_INTERFACE.unpack(found)[1] & _IFF_RUNNING)


def is_own_address(address: str) -> bool:
    """Whether an address is this host's own: loopback, or one of an interface."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.is_loopback or ip.is_unspecified:
        return True
    try:
        route = find_route(address)
    except OSError:
        return False
    return route is not None and route.local


def find_no_way(addresses: tuple[str, ...]) -> str:
    """Why this host can reach none of these addresses, or nothing at all where there are none.

    Empty when it has a way to one of them, or when that cannot be told.
    """
    why = ""
    for address in addresses or _name_servers() or _ELSEWHERE:
        try:
            route = find_route(address)
        except OSError:
            return ""
        if route is not None and route.link:
            return ""
        there = address if address not in _ELSEWHERE else "other networks"
        why = why or (f"no route to {there}" if route is None else f"{route.interface} has no link")
    return why


def _name_servers() -> tuple[str, ...]:
    """Those of resolv.conf(5) that are other hosts; none where a local one answers for them."""
    try:
        lines = _RESOLV_CONF.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    rows = [line.split() for line in lines]
    found = [row[1] for row in rows if len(row) > 1 and row[0] == "nameserver"]
    try:
        local = any(ipaddress.ip_address(name.partition("%")[0]).is_loopback for name in found)
    except ValueError:
        return ()
    return () if local else tuple(found)


async def is_answering(address: str, port: int, seconds: float) -> bool:
    """Whether a host answers on a TCP port, if only to refuse: then there is a way to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_connect(probe, (address, port))
        except ConnectionRefusedError:
            return True
        except OSError:  # TimeoutError is one
            return False
    return True


async def find_own_fault(
    failure: Failure, reference: tuple[str, int] | None, seconds: float
) -> str:
    """Why this host is to blame for a failure, and not the other one; empty when it is not.

    `reference`: address and port of another host, which is waited for so many seconds: while it
    does not answer either, this host counts as offline.
    """
    if failure.trouble not in _REMOTE or failure.reached:
        return ""
    return await find_own_trouble(failure.addresses, reference, seconds)


async def find_own_trouble(
    addresses: tuple[str, ...], reference: tuple[str, int] | None, seconds: float
) -> str:
    """As `find_own_fault`, of addresses that nothing came back from."""
    if any(is_own_address(address) for address in addresses):
        return ""
    if why := find_no_way(addresses):
        return why
    if reference is not None and not await is_answering(*reference, seconds):
        address, port = reference
        shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        return f"the reference {shown} does not answer either"
    return ""
