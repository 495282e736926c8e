"""Addresses: which are this host's own, and which are one client."""

from __future__ import annotations

import ipaddress

#: Bits of an IPv6 address that stand for one client: a customer is given at least this network,
#: and could come with a new address each time (RFC 6177).
_IPV6_CLIENT = 64


def is_loopback(host: str) -> bool:
    """Whether nothing that is sent there leaves this host. Names but `localhost` are not asked."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def name_client(address: str) -> str:
    """Who is counted as one: an IPv6 address stands for its network."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, _IPV6_CLIENT), strict=False))
    return str(parsed)
