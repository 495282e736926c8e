"""How full filesystems are, asked so that one that hangs delays nobody."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from agent.core.model import Instant
from agent.errors import Unavailable
from agent.host.mounts import Mount
from agent.host.survey import OpenDeleted
from agent.host.trend import Trend

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What statvfs(3) says of a filesystem. Percent as df(1) shows it to an ordinary user."""

    size_bytes: int
    used_bytes: int
    #: What an ordinary user can still write: without the part that ext4 keeps for root.
    free_bytes: int
    inodes_used: int
    #: None: this filesystem does not count inodes (btrfs, vfat).
    inodes_free: int | None

    @property
    def used_percent(self) -> float:
        return _percent(self.used_bytes, self.free_bytes)

    @property
    def inodes_percent(self) -> float | None:
        """None where inodes are not counted."""
        return None if self.inodes_free is None else _percent(self.inodes_used, self.inodes_free)

    @property
    def exhausted(self) -> bool:
        """Whether an ordinary user's write fails for want of room: what is left is next to none."""
        none_left = self.inodes_free is not None and self.inodes_free < 16
        return self.free_bytes < 1024 * 1024 or none_left


def measure(point: str) -> Usage:
    """The usage of the filesystem at a path. Raises OSError; may hang."""
    told = os.statvfs(point)
    return Usage(
        size_bytes=told.f_blocks * told.f_frsize,
        used_bytes=(told.f_blocks - told.f_bfree) * told.f_frsize,
        free_bytes=told.f_bavail * told.f_frsize,
        inodes_used=told.f_files - told.f_ffree,
        inodes_free=told.f_favail if told.f_files else None,
    )


def _percent(used: int, free: int) -> float:
    return 100.0 * used / (used + free) if used + free else 0.0


class Hung(Unavailable):
    """A call has not returned in its time; `seconds` says how long it has been waited for."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


@dataclass(frozen=True, kw_only=True)
class _Call:
    began: float
    result: Future[Any]


class Patience:
    """Calls that may hang for ever, each in a daemon thread, and at most one for a name.

    A thread that hangs in the kernel cannot be ended. As a daemon it does not hold up the end of
    the program, and as the only one of its name it is not joined by another at each look.
    """

    def __init__(self) -> None:
        self._calls: dict[str, _Call] = {}

    async def call(self, name: str, seconds: float, function: Callable[[], _T]) -> _T:
        """What the function returns or raises. Raises Hung after so many seconds.

        A call of that name that is under way comes first: what it will return may be older than
        this one wants. If it hangs already, no other is made, and Hung is raised at once.
        """
        while (earlier := self._calls.get(name)) is not None and not earlier.result.done():
            left = seconds - (time.monotonic() - earlier.began)
            if left <= 0:
                raise _hung(name, earlier)
            other = asyncio.wrap_future(earlier.result)
            # Its error is for whoever asked; asyncio complains of one that nobody took.
            other.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.wait({other}, timeout=left)
        result: Future[_T] = Future()
        call = self._calls[name] = _Call(began=time.monotonic(), result=result)

        def carry_out() -> None:
            try:
                answer = function()
            except BaseException as error:
                with suppress(RuntimeError):  # whoever asked may be gone with its event loop
                    result.set_exception(error)
            else:
                with suppress(RuntimeError):
                    result.set_result(answer)

        threading.Thread(target=carry_out, name=f"patience {name}", daemon=True).start()
        try:
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(result)), seconds)
        except TimeoutError:
            if result.done():
                return result.result()
            raise _hung(name, call) from None
        finally:
            if result.done() and self._calls.get(name) is call:
                del self._calls[name]


def _hung(name: str, call: _Call) -> Hung:
    waited = time.monotonic() - call.began
    return Hung(f"{name} has not answered for {waited:.0f} s", waited)


@dataclass(kw_only=True)
class Space:
    """What is remembered of filesystems between looks, and how they are asked."""

    patience: Patience = field(default_factory=Patience)
    measure: Callable[[str], Usage] = measure
    #: By mount point and device: another filesystem at the same place begins anew.
    _trends: dict[tuple[str, str], Trend] = field(default_factory=dict)
    _first_read_only: dict[tuple[str, str], bool] = field(default_factory=dict)
    #: Sizes of directories when a mount point was last surveyed, and when that was.
    surveyed: dict[str, tuple[float, dict[str, int]]] = field(default_factory=dict)
    #: Deleted files that were open, by mount point, and when that was looked at.
    held: dict[str, tuple[Instant, tuple[OpenDeleted, ...]]] = field(default_factory=dict)

    async def ask(self, point: str, seconds: float) -> Usage:
        """Raises Hung where it does not answer in time, else OSError."""
        return await self.patience.call(point, seconds, lambda: self.measure(point))

    def trend(self, mount: Mount) -> Trend:
        return self._trends.setdefault((mount.point, mount.device), Trend())

    def was_read_only(self, mount: Mount) -> bool:
        """Whether it was read-only when it was first seen."""
        return self._first_read_only.setdefault((mount.point, mount.device), mount.read_only)
