"""The trail: every order that can be read is on record before it is carried out.

All orders come through here, by `api.app`'s one kind of route or from a signal, so that none can be
forgotten. What strangers try is no order: the log has it, and it cannot wash the trail out.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Response

from agent.agent import ActionOutcome, AgentFacade
from agent.core.text import mask_values
from agent.errors import NotFound
from api.problems import tell_refusal
from api.schemas.remedies import secret_options

T = TypeVar("T")

#: Longest target, and longest sentence or particulars, in characters.
_LONGEST_NAME = 200
_LONGEST_TEXT = 1000


async def record(
    agent: AgentFacade,
    act: Callable[[], Awaitable[T]],
    *,
    by: str,
    what: str,
    target: str = "",
    body: bytes = b"",
) -> T:
    """Carries out one order between its two entries. Raises what `act` raises, and StoreError when
    it could not be put on record; then it was not carried out."""
    action = await agent.begin_action(
        by=by, what=what, target=target.encode("utf-8", "replace").decode()[:_LONGEST_NAME]
    )
    try:
        result = await act()
    except Exception as error:
        refusal = tell_refusal(error)
        outcome = ActionOutcome.FAILED if refusal is None else ActionOutcome.REFUSED
        await agent.end_action(action, outcome, why=_cut(refusal or "a defect; see the log"))
        raise
    await agent.end_action(
        action,
        ActionOutcome.OK,
        made=_find_made(result, target),
        details=_cut(_tell_details(agent, target, body)),
    )
    return result


def _find_made(result: object, target: str) -> str:
    """The id in an answer, where it is not what was asked about."""
    if not isinstance(result, Response):
        return ""
    answer = _read(bytes(result.body))
    found = answer.get("id") if isinstance(answer, dict) else None
    return found if isinstance(found, str) and found != target else ""


def _tell_details(agent: AgentFacade, target: str, body: bytes) -> str:
    """An order that was taken holds nothing but what its schema knows, and of that only the options
    of a remedy can be secret."""
    order = _read(body)
    if not isinstance(order, dict) or not order:
        return ""
    if isinstance(order.get("options"), dict):
        try:
            secret = secret_options(agent.remedy(target))
        except NotFound:
            secret = frozenset(order["options"])
        order["options"] = mask_values(order["options"], secret)
    return json.dumps(order, ensure_ascii=False).encode("utf-8", "replace").decode()


def _read(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _cut(text: str) -> str:
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
