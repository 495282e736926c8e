"""Parts of lists, and the ids that they are asked for with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from agent.agent import Page
from agent.errors import Invalid
from agent.store.state import number_of


class Listed(Protocol):
    """Anything with an id: a letter and a number, or the name of a recurring window."""

    @property
    def id(self) -> str: ...


L = TypeVar("L", bound=Listed)


def check_id(given: str, letter: str) -> str:
    """An id as it must be written. Raises Invalid, which says how."""
    digits = given.removeprefix(letter)
    if not digits.isascii() or not digits.isdigit() or len(digits) > 15:
        raise Invalid(f"cannot use the id {given[:40]!r}: write for example {letter}17")
    return f"{letter}{digits}"


def check_before(before: str | None, letter: str) -> str | None:
    """The id that a page ends before, if one was given. Raises Invalid."""
    return None if before is None else check_id(before, letter)


def number_before(before: str | None, letter: str) -> int | None:
    """The number of the id that a page ends before, if one was given. Raises Invalid."""
    return None if before is None else number_of(check_id(before, letter))


def cut_page(found: tuple[L, ...], limit: int) -> Page[L]:
    """A page of what was found; one more than `limit` was looked for, to know of the next page."""
    items = found[:limit]
    return Page(items=items, next=items[-1].id if len(found) > limit else None)


def sort_page(items: Iterable[L], letter: str, limit: int, before: str | None) -> Page[L]:
    """A page of what is in memory, newest first. Raises Invalid for the id in `before`."""
    end = number_before(before, letter)
    newest = sorted(items, key=lambda item: number_of(item.id), reverse=True)
    found = [item for item in newest if end is None or number_of(item.id) < end]
    return cut_page(tuple(found), limit)
