"""Ways in over TCP."""

from __future__ import annotations

from api.routes.parts import Agent, Before, By, Limit
from api.schemas.tokens import NewToken, Token, TokenOrder
from api.schemas.wire import Page, page_of


async def list_tokens(agent: Agent, limit: Limit = 50, before: Before = None) -> Page[Token]:
    """Tokens, newest first, without their secrets: nobody has those but their holders."""
    return page_of(await agent.tokens(limit=limit, before=before), Token.of)


async def show_token(agent: Agent, id: str) -> Token:
    """One token; one that was revoked is in the list alone."""
    return Token.of(await agent.token(id))


async def create_token(agent: Agent, by: By, order: TokenOrder) -> NewToken:
    """Make a token; the answer has its secret, which is shown this once."""
    new = await agent.create_token(order.name, role=order.role, by=by, seconds=order.for_seconds)
    return NewToken.of_new(new)


async def revoke_token(agent: Agent, by: By, id: str) -> Token:
    """Let nobody in with this token any more; a stream that it opened ends."""
    return Token.of(await agent.revoke_token(id, by=by))
