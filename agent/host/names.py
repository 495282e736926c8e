"""Names to addresses, without a thread pool that something else may have filled.

getaddrinfo(3) blocks for as long as the resolver makes it (by default up to half a minute), and
cannot be interrupted. Each name under way has a daemon thread of its own: it delays nobody else,
and it does not keep the program from ending. Looks for a name that is under way share its thread,
so that a dead resolver does not pile threads up.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable

from agent.errors import Unavailable

#: Names under way at once; more wait.
LIMIT = 64

#: The addresses of a host name, best first. Raises Unavailable for a name without any.
Resolve = Callable[[str], Awaitable[tuple[str, ...]]]


def look_up(name: str) -> tuple[str, ...]:
    """The addresses of a name in the order of RFC 6724; blocks. Raises OSError."""
    rows = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return tuple(dict.fromkeys(_write_address(row[4]) for row in rows))


def _write_address(place: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]) -> str:
    return str(place[0])


class Names:
    """Resolves names; `look_up` blocks and raises OSError."""

    def __init__(self, look_up: Callable[[str], tuple[str, ...]] = look_up) -> None:
        self._look_up = look_up
        self._under_way: dict[str, asyncio.Future[tuple[str, ...]]] = {}
        self._slots = asyncio.Semaphore(LIMIT)

    async def resolve(self, name: str) -> tuple[str, ...]:
        """The addresses of a name, best first. Waits as long as the resolver does.

        Raises Unavailable for a name that has none, or when nobody could be asked.
        """
        if name not in self._under_way:
            await self._slots.acquire()
            # Somebody may have begun while we waited.
            if name in self._under_way:
                self._slots.release()
            else:
                self._begin(name)
        # Shielded: one look that gives up takes nothing away from others.
        return await asyncio.shield(self._under_way[name])

    def _begin(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[str, ...]] = loop.create_future()
        self._under_way[name] = answer

        def settle(found: tuple[str, ...], why: str) -> None:
            del self._under_way[name]
            self._slots.release()
            if answer.done():
                return
            if found:
                answer.set_result(found)
            else:
                answer.set_exception(Unavailable(f"cannot resolve {name}: {why}"))
                # Everybody who waited may have gone.
                answer.exception()

        def work() -> None:
            found: tuple[str, ...] = ()
            why = "it has no address"
            try:
                found = self._look_up(name)
            except OSError as error:
                why = error.strerror or str(error)
            except UnicodeError as error:
                why = str(error)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(settle, found, why)

        threading.Thread(target=work, name=f"resolve {name}"[:60], daemon=True).start()
