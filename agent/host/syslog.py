"""Lines to the system's logger, and whether they arrive in a file."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time

from agent.core.model import Seconds
from agent.host.patterns import CANARY
from agent.host.tail import Text

#: Where syslog(3) sends lines: to journald on hosts with systemd, which hands them to rsyslog.
SOCKET = "/dev/log"
#: Facility `user`, level `notice` (RFC 5424): nearly every configuration writes these down.
_PRIORITY = 1 * 8 + 5
_PAUSE: Seconds = 0.1
#: Most that is read in search of a line, in bytes.
_MOST = 16 << 20


def make_canary() -> str:
    """A line like no other."""
    return f"{CANARY}{secrets.token_hex(8)}"


def send_line(text: str, address: str = SOCKET) -> None:
    """Hand one line to the system's logger. Raises OSError where nothing takes it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(1.0)
        sender.connect(address)
        sender.send(f"<{_PRIORITY}>hostmend[{os.getpid()}]: {text}".encode())


def find_size(path: str) -> int:
    """The size of a file; 0 where there is none. May hang."""
    with contextlib.suppress(OSError):
        return os.stat(path).st_size  # noqa: PTH116
    return 0


def await_line(path: str, text: str, offset: int, seconds: Seconds) -> bool:
    """Whether a line arrives in a file after an offset, within that time. May hang."""
    deadline, needle = time.monotonic() + seconds, text.encode()
    while True:
        with contextlib.suppress(OSError), Text(path) as file:
            if file.stat().st_size < offset:
                offset = 0  # it was rotated meanwhile
            if needle in file.read_at(offset, _MOST):
                return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_PAUSE)
