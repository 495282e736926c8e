"""What all of the wire shares: the bases of what is given and taken, and values fit for JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from agent import agent as facade
from agent.core.model import Instant

T = TypeVar("T")
W = TypeVar("W")

#: An instant as RFC 3339 in UTC, with milliseconds.
When = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]


def write_instant(instant: Instant) -> str:
    """RFC 3339 in UTC: `2026-01-31T08:15:00.250Z`."""
    written = datetime.fromtimestamp(instant, UTC).isoformat(timespec="milliseconds")
    return written.removesuffix("+00:00") + "Z"


def write_when(instant: Instant | None) -> str | None:
    """The same, where there may be none."""
    return None if instant is None else write_instant(instant)


def plain(value: Any) -> Any:
    """Any value as JSON can hold it: a log excerpt may hold bytes that are no text, a measurement
    may be no number."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case None | bool() | int() | BaseModel():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {plain(str(name)): plain(part) for name, part in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(part) for part in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {part.name: plain(getattr(value, part.name)) for part in fields(value)}
        case _:
            return plain(str(value))


class Wire(BaseModel):
    """The base of what is given: complete, and never changed."""

    model_config = ConfigDict(frozen=True)

    @classmethod
    def make(cls, **parts: Any) -> Self:
        """With every text and number fit for JSON."""
        return cls(**{name: plain(part) for name, part in parts.items()})


class Page(Wire, Generic[W]):
    """A part of a list, newest first."""

    items: list[W]
    next: str | None = Field(description="Pass it as `before` for the next part; null at the end")


def page_of(page: facade.Page[T], convert: Callable[[T], W]) -> Page[W]:
    """A page of domain values on the wire."""
    return Page[Any](items=[convert(item) for item in page.items], next=page.next)


class Order(BaseModel):
    """The base of what is taken: a word that is not known, or of another type, is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


#: Nothing that an operator orders lasts longer, in seconds: a year and a day; a token lasts ten.
LONGEST_ORDER = 366 * 86400

#: Names of things that an order is about.
Names = Annotated[list[Annotated[str, Field(min_length=1, max_length=500)]], Field(max_length=100)]
