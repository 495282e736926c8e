"""One connection of a job: lines in and out, and never a wait."""

from __future__ import annotations

import os

from agent.remedies.protocol import MAX_LINE

#: Waiting for somebody who does not read, in bytes; then task events are dropped for him.
_MAX_QUEUED = 4_000_000


class Line:
    """One direction or both: complete lines in, queued lines out, never blocking."""

    def __init__(self, read: int | None, write: int | None) -> None:
        self.read_fd, self.write_fd = read, write
        self.closed = False
        self._in = bytearray()
        self._out = bytearray()
        for descriptor in (read, write):
            if descriptor is not None:
                os.set_blocking(descriptor, False)

    def read(self) -> list[bytes]:
        """Complete lines that have arrived; `closed` tells the end."""
        if self.read_fd is None:
            return []
        try:
            part = os.read(self.read_fd, 262_144)
        except BlockingIOError:
            return []
        except OSError:
            part = b""
        if not part:
            self.closed = True
        self._in += part
        *lines, rest = self._in.split(b"\n")
        self._in = bytearray(rest)
        if len(rest) > MAX_LINE:
            self.closed = True
        return [bytes(line) for line in lines]

    def queue(self, line: bytes, *, must: bool) -> None:
        if self.write_fd is not None and (must or len(self._out) < _MAX_QUEUED):
            self._out += line
            self.flush()

    def flush(self) -> None:
        try:
            while self._out and self.write_fd is not None:
                del self._out[: os.write(self.write_fd, self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self.write_fd = None
            self._out.clear()

    @property
    def pending(self) -> bool:
        return bool(self._out)
