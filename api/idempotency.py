"""A POST that was sent twice acts once: answers are remembered by their `Idempotency-Key`.

Follows draft-ietf-httpapi-idempotency-key-header. Kept in memory: an agent that starts again has
forgotten them, and what an order changed is then seen in the state itself.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from agent.errors import HostmendError, Invalid

HEADER = "Idempotency-Key"
#: A key is opaque; this is room for any UUID, with quotes or without.
LONGEST_KEY = 200
#: Errors that say: nothing was done.
_REFUSALS = (HostmendError, HTTPException, RequestValidationError)


@dataclass(frozen=True)
class _Entry:
    #: Method, path and body; a key stands for one request only.
    request: bytes
    answer: asyncio.Future[Response]


class Answers:
    """The answers to the latest orders; each caller has keys of their own."""

    def __init__(self, at_most: int = 1000) -> None:
        self._at_most = at_most
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()

    async def once(
        self,
        caller: str,
        key: str,
        request: str,
        body: bytes,
        act: Callable[[], Awaitable[Response]],
    ) -> Response:
        """What `act` answers, carried out only for the first of several equal requests.

        The others wait for that answer. Orders that were refused are not remembered, for they did
        nothing. Raises Invalid when the key was used for something else.
        """
        digest = hashlib.sha256(request.encode() + b"\0" + body).digest()
        known = self._entries.get((caller, key))
        if known is not None:
            if known.request != digest:
                raise Invalid(
                    f"cannot use this {HEADER}: it was used for another request; send a new one"
                )
            return await asyncio.shield(known.answer)
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._entries[caller, key] = _Entry(digest, answer)
        self._forget_oldest()
        try:
            response = await act()
        except BaseException as error:
            answer.set_exception(error)
            answer.exception()  # so that asyncio does not complain when nobody else waits
            if isinstance(error, _REFUSALS) or not isinstance(error, Exception):
                del self._entries[caller, key]
            raise
        answer.set_result(response)
        return response

    def _forget_oldest(self) -> None:
        """Of whoever has most: nobody can make the agent forget the keys of somebody else."""
        if len(self._entries) <= self._at_most:
            return
        ((most, _),) = Counter(caller for caller, _ in self._entries).most_common(1)
        done = (n for n, e in self._entries.items() if n[0] == most and e.answer.done())
        oldest = next(done, None)
        if oldest is not None:
            del self._entries[oldest]
