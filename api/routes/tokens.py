"""Ways in over TCP."""

from __future__ import annotations

from api import schemas
from api.routes.parts import Agent, Before, By, Limit


async def list_tokens(
    agent: Agent, limit: Limit = 50, before: Before = None
) -> schemas.Page[schemas.Token]:
    """Tokens, newest first, without their secrets: nobody has those but their holders."""
    return schemas.page_of(await agent.tokens(limit=limit, before=before), schemas.Token.of)


async def show_token(agent: Agent, id: str) -> schemas.Token:
    """One token; one that was revoked is in the list alone."""
    return schemas.Token.of(await agent.token(id))


async def create_token(agent: Agent, by: By, order: schemas.TokenOrder) -> schemas.NewToken:
    """Make a token; the answer has its secret, which is shown this once."""
    new = await agent.create_token(order.name, role=order.role, by=by, seconds=order.for_seconds)
    return schemas.NewToken.of_new(new)


async def revoke_token(agent: Agent, by: By, id: str) -> schemas.Token:
    """Let nobody in with this token any more; a stream that it opened ends."""
    return schemas.Token.of(await agent.revoke_token(id, by=by))
