"""Who is let in over TCP, and whether anybody is."""

from __future__ import annotations

from collections.abc import Callable

from agent.access import NewToken, Role, Token
from agent.agent import Page
from agent.core.holds import say_doubt
from agent.core.model import Ordered, Verb
from agent.engine import Engine
from agent.errors import Conflict
from agent.host.identity import Identity
from agent.paging import check_id, sort_page
from agent.store import origin
from agent.tokens import Tokens


class Doorkeeper:
    """The tokens, and the doubt whether they are this host's at all."""

    def __init__(
        self,
        *,
        engine: Engine,
        tokens: Tokens,
        identity: Identity,
        tell: Callable[[str], None],
    ) -> None:
        """`tell` tells whoever watches."""
        self._engine = engine
        self._tokens = tokens
        self._identity = identity
        self._tell = tell

    async def list(self, *, limit: int = 50, before: str | None = None) -> Page[Token]:
        return sort_page(self._tokens.list(), "t", limit, before)

    async def find(self, token_id: str) -> Token:
        return self._tokens.get(check_id(token_id, "t"))

    async def create(
        self, name: str, *, role: Role, by: str, seconds: float | None = None
    ) -> NewToken:
        if why := self.why_closed():
            raise Conflict(f"cannot create a token: {why}")
        return await self._tokens.create(name, role=role, by=by, seconds=seconds)

    async def revoke(self, token_id: str, *, by: str) -> Token:
        return await self._tokens.revoke(check_id(token_id, "t"), by=by)

    def why_closed(self) -> str:
        doubt = self._engine.host.doubt
        return "" if doubt is None else say_doubt(doubt)

    async def confirm_host(self, *, by: str, keep_tokens: bool = False) -> None:
        if self._engine.host.doubt is None:
            raise Conflict("cannot confirm this host: nothing is in doubt")
        read, here = self._engine.read, self._identity
        # In this order: an agent that dies in between doubts again, which does no harm.
        copied = await read(lambda state: origin.why_copied(state, here))
        if copied and not keep_tokens:
            revoked = await self._tokens.revoke_all(by=by)
            self._tell(f"{by} revoked {revoked} tokens of the host that this one is a copy of")
        await read(lambda state: origin.sign(state, here))
        await self._engine.take(Ordered(verb=Verb.CONFIRM, by=by))
