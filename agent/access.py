"""Who may come in over the network, and the trail of what everybody ordered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agent.core.model import Instant


class Role(StrEnum):
    """What a token's holder may do."""

    #: Reports on checks of type `push`, and sees nothing.
    REPORTER = "reporter"
    #: Sees everything that holds no secret.
    VIEWER = "viewer"
    #: Sees it, and injects faults where this host allows drills.
    DRILLER = "driller"
    #: Sees it, reports, and gives orders about incidents, runs and silences.
    OPERATOR = "operator"
    #: All of it, and makes tokens, reloads the configuration.
    ADMIN = "admin"


@dataclass(frozen=True, kw_only=True)
class Token:
    """A way in over TCP. Of its secret only a hash is kept, and nowhere else than in the state."""

    id: str
    name: str
    role: Role
    created: Instant
    created_by: str
    #: None: it does not expire.
    expires: Instant | None = None
    #: When it was last used, to a minute. None: never.
    used: Instant | None = None
    #: None: it was not revoked.
    revoked: Instant | None = None
    revoked_by: str = ""

    def lives(self, now: Instant) -> bool:
        """Whether its holder is let in."""
        return self.revoked is None and (self.expires is None or now < self.expires)


@dataclass(frozen=True, kw_only=True)
class NewToken:
    """A token with its secret: the only time that it is seen."""

    token: Token
    secret: str


class ActionOutcome(StrEnum):
    """What became of an order."""

    #: It was given, and nobody knows more: it is under way, or the agent died meanwhile.
    BEGUN = "begun"
    OK = "ok"
    #: Nothing was done; `why` says why.
    REFUSED = "refused"
    #: A defect: what was done is not known.
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Action:
    """One order: who wanted what, and what became of it."""

    id: str
    at: Instant
    #: `root (uid 0, pid 4711)`, `token ci (t3)`, `SIGHUP`.
    by: str
    #: The order's name, as in the OpenAPI document: `pause`, `run_remedy`.
    what: str
    #: The name or id that it was about; empty when it was about the agent.
    target: str = ""
    outcome: ActionOutcome = ActionOutcome.BEGUN
    #: Why it was refused.
    why: str = ""
    #: The id of what it made.
    made: str = ""
    #: The order's particulars as JSON, secrets masked; only of orders that were taken.
    details: str = ""
