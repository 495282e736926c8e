"""Small sites on loopback, to be rehearsed: what each page answers, and how long it takes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Page:
    body: str = "<!doctype html><title>Page</title><p>It is whole.</p>"
    status: int = 200
    location: str = ""
    seconds: float = 0.0
    type: str = "text/html; charset=utf-8"


def link_all(paths: list[str]) -> Page:
    links = "".join(f'<a href="{path}">{path}</a>' for path in paths)
    return Page(f"<!doctype html><title>Home</title>{links}")


@dataclass
class Site:
    """Answers what it has, and 404 for all else."""

    pages: Mapping[str, Page]
    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    agents: set[str] = field(default_factory=set)
    tagged: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                method, target, _ = head.split("\r\n", 1)[0].split(" ", 2)
                self.asked[f"{method} {target}"] += 1
                self.tagged += "x-hostmend-rehearsal:" in head.lower()
                path = target.partition("?")[0]
                page = self.pages.get(path) or Page("nothing", 404, type="text/plain")
                await asyncio.sleep(page.seconds)
                body = b"" if method == "HEAD" else page.body.encode()
                place = f"Location: {page.location}\r\n" if page.location else ""
                writer.write(
                    f"HTTP/1.1 {page.status} It\r\nContent-Type: {page.type}\r\n{place}"
                    f"Content-Length: {len(page.body.encode())}\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(*sites: Site) -> AsyncIterator[None]:
    servers = []
    for site in sites:
        server = await asyncio.start_server(site.answer, "127.0.0.1", 0)
        site.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        servers.append(server)
    try:
        yield
    finally:
        for server in servers:
            server.close()
