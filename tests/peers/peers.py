"""How peers behave that a check must bear, and words that its tests share."""

from __future__ import annotations

import asyncio
from typing import Any

from agent.checks import CHECKS
from agent.checks.check import CheckOptions
from agent.core.model import Finding
from agent.errors import Unavailable


async def hang(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Takes the connection, and says nothing for ever."""
    await asyncio.Event().wait()


async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Talks without end, and without a line's."""
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says one byte now and then, for ever."""
    while True:
        writer.write(b"2")
        await writer.drain()
        await asyncio.sleep(0.02)


async def resolve_nothing(name: str) -> tuple[str, ...]:
    raise Unavailable(f"cannot resolve {name}: nobody knows it")


def complete(kind: str, fields: dict[str, Any]) -> CheckOptions:
    """Options as the configuration makes them, with a timeout that no good look comes near."""
    return CHECKS[kind].model.model_validate({"type": kind, "timeout": "20s", **fields})


def verdict(finding: Finding) -> tuple[str, str]:
    return finding.status.value, finding.cause
