"""The tokens that let people and programs in over TCP."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol, TypeVar

from agent.access import NewToken, Role, Token
from agent.core.model import Instant
from agent.errors import Conflict, Invalid, NotFound, StoreError
from agent.store.state import State

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: What every secret begins with, so that a scanner for leaked secrets knows ours.
PREFIX = "hm_"
#: How much chance is in a secret.
_SECRET_BYTES = 32
#: A use is written down when the last one on record is older than this, in seconds: a dashboard
#: asks every few seconds, and each commit is a flush of the disk.
USE_EVERY = 60.0
#: Tokens that live, at most: each request is compared with all of them.
AT_MOST = 200
#: Tokens kept on record that let nobody in any more.
KEPT = 200

# It stands in the trail as `token NAME (t3)`, and must not be able to look like somebody else.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class Read(Protocol):
    """Runs a query on the state, in turn with the decisions."""

    def __call__(self, query: Callable[[State], T], /) -> Awaitable[T]: ...


def hash_secret(secret: str) -> str:
    """What is kept of a secret.

    One round of SHA-256 is enough, and no salt is needed: a secret is 256 bits of chance, so there
    is no list of likely ones to try and no two are equal. A slow hash would only let a stranger's
    guesses cost the host its processor.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class Tokens:
    """All tokens, in memory as the state has them: asking for one waits for no disk."""

    def __init__(self, *, state: State, read: Read, now: Callable[[], Instant]) -> None:
        self._read = read
        self._now = now
        self._tokens = {token.id: (token, digest) for token, digest in state.load_tokens()}
        #: One change at a time: a use that is noted must not overwrite a revocation.
        self._writing = asyncio.Lock()

    def list(self) -> tuple[Token, ...]:
        """Newest first."""
        return tuple(token for token, _ in reversed(self._tokens.values()))

    def get(self, token_id: str) -> Token:
        """One that was not revoked. Raises NotFound, which says so of one that was."""
        found = self._tokens.get(token_id)
        if found is None:
            raise NotFound(f"cannot find token {token_id}: `hostmend token list` shows them")
        token, _ = found
        if token.revoked is not None:
            raise NotFound(
                f"cannot find token {token_id}: it was revoked by {token.revoked_by}; "
                "`hostmend token list` shows it"
            )
        return token

    def admits(self, token_id: str) -> bool:
        found = self._tokens.get(token_id)
        return found is not None and found[0].lives(self._now())

    async def create(
        self, name: str, *, role: Role, by: str, seconds: float | None = None
    ) -> NewToken:
        if not _NAME.fullmatch(name):
            raise Invalid(
                f"cannot name a token {name[:80]!r}: use 1 to 64 letters, digits and . _ @ -, "
                "beginning with a letter or digit"
            )
        async with self._writing:
            return await self._create(name, role, by, seconds)

    async def _create(self, name: str, role: Role, by: str, seconds: float | None) -> NewToken:
        now = self._now()
        if sum(token.lives(now) for token, _ in self._tokens.values()) >= AT_MOST:
            raise Conflict(f"cannot create a token: there are {AT_MOST} already; revoke some")
        await self._forget_dead(now)
        secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        digest = hash_secret(secret)
        fresh = Token(
            id="",
            name=name,
            role=role,
            created=now,
            created_by=by,
            expires=None if seconds is None else now + seconds,
        )
        token = await self._read(lambda state: state.add_token(fresh, digest))
        self._tokens[token.id] = (token, digest)
        return NewToken(token=token, secret=secret)

    async def revoke(self, token_id: str, *, by: str) -> Token:
        async with self._writing:
            revoked = replace(self.get(token_id), revoked=self._now(), revoked_by=by)
            await self._read(lambda state: state.update_tokens([revoked]))
            # Last in memory: what the disk does not have must not be believed.
            self._put(revoked)
        return revoked

    async def revoke_all(self, *, by: str) -> int:
        """Lets nobody in any more with any token that lives; how many that were."""
        async with self._writing:
            now = self._now()
            revoked = [
                replace(token, revoked=now, revoked_by=by)
                for token, _ in self._tokens.values()
                if token.lives(now)
            ]
            await self._read(lambda state: state.update_tokens(revoked))
            for token in revoked:
                self._put(token)
        return len(revoked)

    async def authenticate(self, secret: str) -> Token | None:
        """The living token with this secret, noting its use."""
        given = hash_secret(secret)
        found: Token | None = None
        # Every hash is compared, each in constant time, so that the time it takes tells nothing
        # about which of them a guess comes near to.
        for token, digest in self._tokens.values():
            if hmac.compare_digest(digest, given):
                found = token
        if found is None or not found.lives(self._now()):
            return None
        return await self._note_use(found) if self._use_is_old(found) else found

    def _use_is_old(self, token: Token) -> bool:
        return token.used is None or self._now() - token.used >= USE_EVERY

    async def _note_use(self, token: Token) -> Token | None:
        async with self._writing:
            current, _ = self._tokens.get(token.id, (None, ""))
            # It may have died meanwhile, and even been forgotten.
            if current is None or not current.lives(self._now()):
                return None
            if not self._use_is_old(current):
                return current
            noted = replace(current, used=self._now())
            # First in memory, so that requests meanwhile do not wait for the disk too.
            self._put(noted)
            try:
                await self._read(lambda state: state.update_tokens([noted]))
            except StoreError as error:
                _log.error("cannot note the use of token %s: %s", noted.id, error)
        return noted

    async def _forget_dead(self, now: Instant) -> None:
        dead = [token.id for token, _ in self._tokens.values() if not token.lives(now)]
        gone = dead[: max(0, len(dead) - KEPT + 1)]
        if gone:
            await self._read(lambda state: state.drop_tokens(gone))
            for token_id in gone:
                del self._tokens[token_id]

    def _put(self, token: Token) -> None:
        self._tokens[token.id] = (token, self._tokens[token.id][1])
