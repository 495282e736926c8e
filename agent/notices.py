"""The messages that are due or were sent."""

from __future__ import annotations

from agent.agent import Page
from agent.core.model import Decision, Event, Notice, NoticeState
from agent.engine import Engine
from agent.errors import Invalid
from agent.paging import check_before, cut_page
from agent.store.state import Listing, State


class Notices:
    """Lists notices, and knows how many are due without asking the state."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.due = 0

    async def take_up(self) -> None:
        """Counts those that an earlier agent left."""
        self.due = await self._engine.read(State.count_due)

    def hear(self, _event: Event, decision: Decision) -> None:
        """New ones."""
        self.due += len(decision.notices)

    def hear_notice(self, notice: Notice) -> None:
        """An attempt at delivery."""
        if notice.state is not NoticeState.DUE:
            self.due = max(0, self.due - 1)

    async def list(
        self, *, limit: int = 50, before: str | None = None, state: str | None = None
    ) -> Page[Notice]:
        if state is not None and state not in set(NoticeState):
            allowed = ", ".join(NoticeState)
            raise Invalid(f"cannot list notices with state {state!r}: it is one of {allowed}")
        where = {} if state is None else {"state": state}
        listing = Listing(limit=limit + 1, before=check_before(before, "n"), where=where)
        found = await self._engine.read(lambda stored: stored.list_notices(listing))
        return cut_page(found, limit)
