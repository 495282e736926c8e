"""Stalls as the kernel tells of them: pressure triggers (Documentation/accounting/psi.rst).

A line written to a file of /proc/pressure asks for a signal when work waited for so long within so
long. It is an exceptional condition of poll(2), which asyncio does not know, so an epoll(7) of its
own stands between: it can be read from when something happened.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable
from pathlib import Path

from agent.errors import Unavailable

#: Some of the work waited for half a second within two: a multiple of two seconds needs no rights
#: (since Linux 6.5; before that CAP_SYS_RESOURCE).
_ALARM = b"some 500000 2000000\0"


class Stalls:
    """Tells when work stalls for want of something. Use it from one event loop only."""

    def __init__(self, path: Path, callback: Callable[[], None]) -> None:
        """`path`: the file of that pressure. Raises Unavailable where the kernel refuses."""
        try:
            self._file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise Unavailable(f"cannot be told of stalls by {path}: {error.strerror}") from error
        try:
            os.write(self._file, _ALARM)
            self._poll = select.epoll(flags=select.EPOLL_CLOEXEC)
        except OSError as error:
            os.close(self._file)
            raise Unavailable(f"cannot be told of stalls by {path}: {error.strerror}") from error
        self._poll.register(self._file, select.EPOLLPRI)
        self._callback = callback
        asyncio.get_running_loop().add_reader(self._poll.fileno(), self._take)

    def close(self) -> None:
        """Tell of nothing any more."""
        if not self._poll.closed:
            asyncio.get_running_loop().remove_reader(self._poll.fileno())
            self._poll.close()
            os.close(self._file)

    def _take(self) -> None:
        # Whoever asks takes the event away (psi_trigger_poll in kernel/sched/psi.c), and asyncio
        # has asked: that nothing is left to be polled says nothing. Only an error stays.
        if any(events & select.EPOLLERR for _, events in self._poll.poll(0)):
            # The control group is gone.
            self.close()
        else:
            self._callback()
