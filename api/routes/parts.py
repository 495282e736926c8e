"""What several routes take: the agent, the caller, a part of a list."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request

from agent.agent import AgentFacade
from agent.errors import NotFound
from api.auth import find_caller
from api.schemas.remedies import Secrets, secret_options
from api.schemas.wire import Page

T = TypeVar("T")
W = TypeVar("W")


def _find_agent(request: Request) -> AgentFacade:
    agent: AgentFacade = request.app.state.agent
    return agent


def _find_by(request: Request) -> str:
    return find_caller(request).by


Agent = Annotated[AgentFacade, Depends(_find_agent)]
#: Who asks, for the trail.
By = Annotated[str, Depends(_find_by)]
Limit = Annotated[int, Query(ge=1, le=500, description="At most this many")]
Before = Annotated[
    str | None, Query(max_length=200, description="Go on after this: `next` of the part before")
]


def secrets_of(agent: AgentFacade) -> Secrets:
    """Which options are secret, asked once for each remedy."""
    known: dict[str, Collection[str]] = {}

    def find_secrets(remedy: str) -> Collection[str]:
        if remedy not in known:
            try:
                known[remedy] = secret_options(agent.remedy(remedy))
            except NotFound:
                known[remedy] = ()
        return known[remedy]

    return find_secrets


def page_by_name(
    items: Sequence[T],
    name: Callable[[T], str],
    convert: Callable[[T], W],
    limit: int,
    before: str | None,
) -> Page[W]:
    """A part of a list that is sorted by name; the cursor is the last name of the part before."""
    rest = sorted((i for i in items if before is None or name(i) > before), key=name)
    part = rest[:limit]
    return Page[Any](
        items=[convert(item) for item in part],
        next=name(part[-1]) if len(rest) > limit else None,
    )
