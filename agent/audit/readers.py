"""Reads pages: small ones at once, big ones beside the event loop.

A page of some megabytes takes half a second to read, in which every other answer would wait and
seem slow. lexbor parses without Python's lock, and the rest of the work gives the lock away every
few milliseconds, so a thread is enough: measured with a page of 2.5 MB, nothing waited longer than
70 ms.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from agent.audit.extract import Content, read_page

#: Bytes from which on a page is big.
BIG = 256 * 1024


class Readers:
    """Reads pages."""

    def __init__(self, also: tuple[str, ...] = ()) -> None:
        self._also = also
        # One: a second would only take turns with it.
        self._pool = ThreadPoolExecutor(1, "reader")

    async def read(self, body: bytes, content_type: str) -> Content:
        """What a page holds."""
        if len(body) < BIG:
            return read_page(body, content_type, self._also)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, read_page, body, content_type, self._also)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
