"""The trail of what everybody ordered."""

from __future__ import annotations

import logging
from dataclasses import replace

from agent.access import Action, ActionOutcome
from agent.agent import Page
from agent.clock import Clock
from agent.engine import Engine
from agent.errors import StoreError
from agent.paging import check_before, cut_page
from agent.store.state import Listing

_log = logging.getLogger(__name__)


class Trail:
    """Puts orders on record, before they are carried out and after."""

    def __init__(self, *, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def begin(self, *, by: str, what: str, target: str = "") -> Action:
        action = Action(id="", at=self._clock.now(), by=by, what=what, target=target)
        return await self._engine.read(lambda state: state.add_action(action))

    async def end(
        self,
        action: Action,
        outcome: ActionOutcome,
        *,
        why: str = "",
        made: str = "",
        details: str = "",
    ) -> None:
        ended = replace(action, outcome=outcome, why=why, made=made, details=details)
        try:
            await self._engine.read(lambda state: state.update_action(ended))
        except StoreError as error:
            _log.error(
                "cannot put on record that %s %s (%s): %s", action.what, outcome, action.id, error
            )

    async def list(self, *, limit: int = 50, before: str | None = None) -> Page[Action]:
        listing = Listing(limit=limit + 1, before=check_before(before, "a"))
        found = await self._engine.read(lambda state: state.list_actions(listing))
        return cut_page(found, limit)
