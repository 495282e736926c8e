"""Ports that nobody else is given while tests run beside each other."""

from __future__ import annotations

import socket


def hold_port(host: str = "127.0.0.1") -> int:
    """A port that refuses connections until somebody listens on it with SO_REUSEADDR.

    It stays bound as long as this process lives: the kernel gives it to no socket that asks for
    any port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    held = socket.socket(family)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((host, 0))
    port = int(held.getsockname()[1])
    held.detach()
    return port
