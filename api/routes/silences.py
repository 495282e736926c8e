"""What is not spoken of for a while; a maintenance window is not repaired either."""

from __future__ import annotations

from api.routes.parts import Agent, Before, By, Limit
from api.schemas.silences import Silence, SilenceOrder
from api.schemas.wire import Page, page_of


async def list_silences(agent: Agent, limit: Limit = 50, before: Before = None) -> Page[Silence]:
    """Silences and maintenance windows that have not ended, newest first."""
    return page_of(await agent.silences(limit=limit, before=before), Silence.of)


async def show_silence(agent: Agent, id: str) -> Silence:
    """One silence or maintenance window."""
    return Silence.of(await agent.silence(id))


async def add_silence(agent: Agent, by: By, order: SilenceOrder) -> Silence:
    """Mute notices from now on; with `runs`, hold runs too. Looking goes on."""
    silence = await agent.add_silence(
        by=by,
        seconds=order.for_seconds,
        checks=order.checks,
        subjects=order.subjects,
        labels=order.labels,
        comment=order.comment,
        runs=order.runs,
    )
    return Silence.of(silence)


async def end_silence(agent: Agent, by: By, id: str) -> Silence:
    """End it before its time; what is still wrong speaks again."""
    return Silence.of(await agent.end_silence(id, by=by))
