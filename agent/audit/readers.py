"""Reads pages: small ones here, big ones in another process.

A page of some megabytes takes half a second to read. In the crawl's own process nothing else would
go on meanwhile, and every answer that waits would seem slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from agent.audit.extract import Content, read_page
from agent.host.processes import die_with_parent

#: Bytes from which on a page is big.
BIG = 256 * 1024
#: Longest that one page may take, in seconds.
_PATIENCE = 60.0


class Readers:
    """Reads pages. Close it when no page is being read any more."""

    def __init__(self, also: tuple[str, ...] = ()) -> None:
        self._also = also
        self._pool: ProcessPoolExecutor | None = None

    async def read(self, body: bytes, content_type: str) -> Content | None:
        """What a page holds; None for one that cannot be read, which took too long or too much."""
        if len(body) < BIG:
            return read_page(body, content_type, self._also)
        if self._pool is None:
            # Not a fork of this process, which has threads and connections.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                1, context, initializer=die_with_parent, initargs=(os.getpid(),)
            )
        pool = self._pool
        future = asyncio.get_running_loop().run_in_executor(
            pool, read_page, body, content_type, self._also
        )
        try:
            async with asyncio.timeout(_PATIENCE):
                return await future
        except (TimeoutError, BrokenProcessPool):
            self._end(pool)
            return None

    def close(self) -> None:
        if self._pool is not None:
            self._end(self._pool)

    def _end(self, pool: ProcessPoolExecutor) -> None:
        if self._pool is pool:
            self._pool = None
        # What it is doing may never end.
        for process in list((pool._processes or {}).values()):
            with contextlib.suppress(ValueError):
                process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
