"""Sites on loopback that really behave as they should not, and what audits find in them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from agent.audit.plan import Plan
from agent.audit.result import Audit, Defect

Answer = str | bytes | web.Response | Callable[[web.Request], Any]


@dataclass
class Site:
    """A server, what it serves, and what it was asked."""

    answers: dict[str, Answer]
    port: int = 0
    scheme: str = "http"
    host: str = "127.0.0.1"
    asked: list[tuple[str, str]] = field(default_factory=list)
    headers: dict[str, list[Mapping[str, str]]] = field(default_factory=dict)

    @property
    def root(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.root}/"

    def count(self, path: str, method: str = "GET") -> int:
        return self.asked.count((method, path))

    @property
    def paths(self) -> set[str]:
        return {path for _, path in self.asked}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path_qs))
        self.headers.setdefault(request.path_qs, []).append(dict(request.headers))
        found = self.answers.get(request.path_qs, self.answers.get(request.path))
        if found is None:
            found = self.answers.get("*", web.Response(status=404, text="nothing here"))
        if callable(found) and not isinstance(found, web.Response):
            found = found(request)
            if asyncio.iscoroutine(found):
                found = await found
        if isinstance(found, str):
            return web.Response(text=found, content_type="text/html")
        if isinstance(found, bytes):
            return web.Response(body=found, content_type="text/html")
        if isinstance(found, web.Response):
            # One response can be sent only once.
            made = web.Response(status=found.status, body=found.body, reason=found.reason)
            made.headers.update(found.headers)
            return made
        assert isinstance(found, web.StreamResponse)
        return found


Serve = Callable[..., Awaitable[Site]]
Run = Callable[..., Awaitable[Audit]]
#: What a server does with one connection: the head of a request, and where to write.
Talk = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
Speak = Callable[[Talk], Awaitable[int]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves a site; `"*"` is the answer to whatever is not there."""
    runners: list[web.AppRunner] = []

    async def serve(
        answers: Mapping[str, Answer], *, tls: ssl.SSLContext | None = None, port: int = 0
    ) -> Site:
        site = Site(answers=dict(answers), scheme="https" if tls else "http")
        runner = web.ServerRunner(web.Server(site.answer), shutdown_timeout=0.05)
        await runner.setup()
        runners.append(runner)  # type: ignore[arg-type]
        listening = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
        await listening.start()
        site.port = runner.addresses[0][1]
        return site

    yield serve
    for runner in runners:
        await runner.cleanup()


def make_plan(url: str, **fields: Any) -> Plan:
    return Plan(url=url, **{"max_rate": 0, "pause": 0.02, "seconds": 60, **fields})


def verdicts(audit: Audit, site: Site) -> set[tuple[str, str]]:
    """Kind and path of each defect that counts."""
    return {(defect.kind.value, defect.target.removeprefix(site.root)) for defect in audit.found}


def find(audit: Audit, kind: str) -> Defect:
    (found,) = [defect for defect in audit.defects if defect.kind == kind]
    return found


def page(*parts: str, title: str = "", head: str = "") -> str:
    """A page with these in its body."""
    body = "\n".join(parts)
    return f"<!doctype html>\n<title>{title}</title>{head}\n<body>\n{body}\n</body>"
