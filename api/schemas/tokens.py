"""Ways in over TCP."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from agent import agent as facade
from agent.agent import Role
from api.schemas.wire import LONGEST_ORDER, Order, When, Wire, write_instant, write_when


class Token(Wire):
    """A way in over TCP, without its secret."""

    id: str
    name: str
    role: Role = Field(strict=False)
    created: When
    created_by: str
    expires: When | None = Field(description="null: it does not expire")
    used: When | None = Field(description="When it was last used, to a minute; null: never")
    revoked: When | None
    revoked_by: str

    @classmethod
    def of(cls, token: facade.Token) -> Self:
        return cls.make(**cls._parts_of(token))

    @classmethod
    def _parts_of(cls, token: facade.Token) -> dict[str, Any]:
        return {
            "id": token.id,
            "name": token.name,
            "role": token.role,
            "created": write_instant(token.created),
            "created_by": token.created_by,
            "expires": write_when(token.expires),
            "used": write_when(token.used),
            "revoked": write_when(token.revoked),
            "revoked_by": token.revoked_by,
        }


class NewToken(Token):
    """A token with its secret."""

    secret: str = Field(description="Shown this once; send it as `Authorization: Bearer`")

    @classmethod
    def of_new(cls, new: facade.NewToken) -> Self:
        return cls.make(**cls._parts_of(new.token), secret=new.secret)


class TokenOrder(Order):
    """Make a token."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$",
        description="What it is for, or who has it; shown in the trail",
    )
    role: Role = Field(strict=False)
    for_seconds: float | None = Field(
        default=None,
        gt=0,
        le=10 * LONGEST_ORDER,
        allow_inf_nan=False,
        description="Expire after this; left out: it does not",
    )
