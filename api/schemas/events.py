"""What happens, as it happens."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from agent import agent as facade
from api.schemas.wire import When, Wire, plain, write_instant


class LiveEvent(Wire):
    """Something that happened; the data of one server-sent event."""

    id: int
    at: When
    kind: str = Field(description="look | incident | run | task | notice | agent")
    data: dict[str, Any]

    @classmethod
    def of(cls, event: facade.LiveEvent) -> Self:
        return cls.make(
            id=event.id, at=write_instant(event.at), kind=event.kind, data=plain(event.data)
        )
