"""Words that the clients of MariaDB, PostgreSQL and Redis share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Trouble(StrEnum):
    """Why a server did not answer."""

    #: Nothing listens, or the connection was ended.
    REFUSED = "refused"
    #: It took the connection, or not even that, and was silent.
    TIMEOUT = "timeout"
    #: It answers, but not to this user.
    DENIED = "denied"
    #: It has no connection left.
    FULL = "full"
    #: It says itself that it is not ready yet.
    STARTING = "starting"
    #: It answers with an error where none should be.
    ERROR = "error"


class Written(StrEnum):
    """What became of a write probe."""

    #: Not wanted, or not yet known whether it may be.
    LEFT_OUT = "left out"
    DONE = "done"
    #: The server takes no writes, and says so: a replica, or made so by an operator.
    READ_ONLY = "read-only"
    #: What is written to is not there.
    ABSENT = "absent"
    #: An earlier one has not come back, or others wait for room: it was not tried again.
    STUCK = "stuck"
    #: Somebody holds a lock that it would need.
    LOCKED = "locked"
    FAILED = "failed"
    #: It was silent.
    TIMEOUT = "timeout"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of a server, and how long an answer may take."""

    #: The server's socket, a file.
    socket: str
    #: The user of this host who asks, and by whose name the server knows him.
    user: str
    seconds: float
    #: Everything, not only whether it reads.
    deep: bool = False
    #: A row is written: only where that was asked for, and never on a replica.
    write: bool = False
    #: What the row is written to is made first.
    make: bool = False
