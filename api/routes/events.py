"""What happens, as it happens: server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Header, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from agent import agent as facade
from api.routes.parts import Agent
from api.schemas.events import LiveEvent

#: Something is sent at least this often, so that a dead connection is noticed.
KEEP_ALIVE_SECONDS = 15.0
#: How long a browser waits before it connects again, in milliseconds.
RETRY_MILLISECONDS = 2000


class EventStream(StreamingResponse):
    """`text/event-stream` (WHATWG HTML, "Server-sent events")."""

    media_type = "text/event-stream"


async def stream_events(
    request: Request,
    agent: Agent,
    last_event_id: Annotated[
        int | None, Header(ge=0, description="Go on after this event, as far as remembered")
    ] = None,
) -> Response:
    """Events as they happen; each one's data is a LiveEvent."""
    stopping: asyncio.Event = request.app.state.stopping
    return EventStream(
        _write_events(agent.events(after=last_event_id), stopping),
        headers={"Cache-Control": "no-store"},
    )


async def _write_events(
    events: AsyncIterator[facade.LiveEvent], stopping: asyncio.Event
) -> AsyncIterator[bytes]:
    """Ends when the agent stops: a client that hangs on must not hold that up."""
    yield format_sse_event(retry=RETRY_MILLISECONDS, comment="hostmend")
    stopped = asyncio.ensure_future(stopping.wait())
    coming = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            await asyncio.wait(
                (stopped, coming),
                timeout=KEEP_ALIVE_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if stopped.done():
                return
            if not coming.done():
                yield KEEPALIVE_COMMENT
                continue
            event = coming.result()
            if event is None:
                return
            yield format_sse_event(
                data_str=LiveEvent.of(event).model_dump_json(),
                event=event.kind,
                id=str(event.id),
            )
            coming = asyncio.ensure_future(anext(events, None))
    finally:
        stopped.cancel()
        coming.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await coming
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()
