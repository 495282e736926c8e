"""What a check of type `redis` takes."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from agent.checks import database
from agent.checks.database import UnitName
from agent.checks.peers import name_peer
from agent.checks.values import AbsolutePath, Duration, Percent
from agent.host.url import is_address

#: Where it listens unless it is told otherwise.
PORT = 6379


def _check_host(text: str) -> str:
    if not is_address(text):
        raise ValueError(f"{text!r} is no address: write for example 127.0.0.1 or ::1")
    return text


def _check_user(text: str) -> str:
    if not re.fullmatch(r"[!-~]{1,128}", text):
        raise ValueError(f"{text!r} is no name of a user of Redis: write for example hostmend")
    return text


class RedisLimits(BaseModel):
    """When it needs a look."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connections: Percent | None = Field(
        default=None, description="So many of its connections are taken."
    )
    memory: Percent | None = Field(
        default=None,
        description="It holds so much of its `maxmemory`, where it may drop nothing.",
    )
    lag: Duration | None = Field(
        default=None, description="A replica has not been heard of, or has heard nothing, for this."
    )
    link: Duration | None = Field(
        default=None, description="As a replica it has had no link to its master for so long."
    )
    loading: Duration | None = Field(
        default=None, description="It has been loading its data for so long."
    )


class RedisWarnings(RedisLimits):
    """When it will need a look; what is left out keeps its default."""

    connections: Percent | None = Field(
        default=85.0, description="So many of its connections are taken."
    )
    memory: Percent | None = Field(
        default=90.0,
        description="It holds so much of its `maxmemory`, where it may drop nothing.",
    )
    lag: Duration | None = Field(
        default=60.0, description="A replica has not been heard of, or has heard nothing, for this."
    )
    link: Duration | None = Field(
        default=10.0, description="As a replica it has had no link to its master for so long."
    )
    loading: Duration | None = Field(
        default=300.0, description="It has been loading its data for so long."
    )


class RedisCriticals(RedisLimits):
    """When it fails its users; what is left out keeps its default."""

    connections: Percent | None = Field(
        default=100.0, description="So many of its connections are taken."
    )
    link: Duration | None = Field(
        default=120.0, description="As a replica it has had no link to its master for so long."
    )
    loading: Duration | None = Field(
        default=1800.0, description="It has been loading its data for so long."
    )


class RedisOptions(database.DatabaseOptions):
    """A Redis server on this host."""

    type: Literal["redis"]
    unit: UnitName = Field(default="redis-server.service", description="The unit that runs it.")
    host: Annotated[str, AfterValidator(_check_host)] = Field(
        default="127.0.0.1", description="The address at which it is asked."
    )
    port: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=PORT, description="The TCP port there."
    )
    socket: AbsolutePath | None = Field(
        default=None, description="Where it is asked in place of `host` and `port`."
    )
    user: Annotated[str, AfterValidator(_check_user)] | None = Field(
        default=None, description="Its user who asks; left out: `default`."
    )
    password_file: AbsolutePath | None = Field(
        default=None, description="The file that holds that user's password, with mode 0600."
    )
    write: bool = Field(
        default=False,
        description="Write a key too, `hostmend:probe` in database 0, which goes by itself.",
    )
    warning: RedisWarnings = Field(
        default_factory=RedisWarnings, description="Limits of `warning`."
    )
    critical: RedisCriticals = Field(
        default_factory=RedisCriticals, description="Limits of `critical`."
    )

    @model_validator(mode="after")
    def _check(self) -> RedisOptions:
        database.check_order(self.warning, self.critical)
        if self.user is not None and self.password_file is None:
            raise ValueError("`user` needs `password_file`")
        return self

    @property
    def place(self) -> str:
        """Where it is asked, as people write it."""
        return self.socket or name_peer(self.host, self.port)
