"""Who asks, and what they may do.

Who asks is established once for each request, before anything else looks at it. Through the UNIX
socket it is the process that the kernel names (SO_PEERCRED); whoever its permissions let in has all
rights. Over TCP it is whoever sends a token's secret; without one, nothing but `/healthz` answers.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.agent import AgentFacade, Token
from api.addresses import name_client
from api.limits import Limits
from api.problems import make_problem

log = logging.getLogger(__name__)

#: Where the server's protocol leaves what it knows of the connection, in `scope["state"]`. It is
#: not made from anything that a client sends.
PEER = "hostmend.peer"
#: Where a request's caller stands, in `scope["state"]`.
CALLER = "hostmend.caller"

OPEN_PATHS = frozenset({"/healthz"})


class Access(StrEnum):
    """What a route asks of its caller."""

    #: Nothing at all.
    OPEN = "open"
    REPORTER = "reporter"
    VIEWER = "viewer"
    DRILLER = "driller"
    OPERATOR = "operator"
    ADMIN = "admin"

    def allows(self, asked: Access) -> bool:
        """Whether a caller of this role may use a route that asks for that one."""
        return asked in _RIGHTS[self]


_SEEING = frozenset({Access.OPEN, Access.VIEWER})
_ORDERING = _SEEING | {Access.REPORTER, Access.OPERATOR}
#: What each role includes. Who reports sees nothing, and who sees does not report. An operator's
#: token is for production too, and injects no faults.
_RIGHTS = {
    Access.OPEN: frozenset({Access.OPEN}),
    Access.REPORTER: frozenset({Access.OPEN, Access.REPORTER}),
    Access.VIEWER: _SEEING,
    Access.DRILLER: _SEEING | {Access.DRILLER},
    Access.OPERATOR: _ORDERING,
    Access.ADMIN: _ORDERING | {Access.DRILLER, Access.ADMIN},
}


@dataclass(frozen=True, kw_only=True)
class UnixPeer:
    """The process at the other end of the UNIX socket, as the kernel knew it at connect(2)."""

    pid: int
    uid: int
    gid: int


@dataclass(frozen=True, kw_only=True)
class TcpPeer:
    """Somebody at the other end of a TCP connection."""

    address: str


Peer = UnixPeer | TcpPeer


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Somebody who is known."""

    #: The same for one user over many requests; never shown.
    id: str
    #: For the trail: `root (uid 0, pid 123)`, `token ci (t3)`.
    by: str
    role: Access
    #: The token that let them in; None: the UNIX socket did.
    token: str | None = None


async def identify(scope: Scope, agent: AgentFacade) -> Caller | None:
    """The caller of a request; None when nobody can say who it is."""
    peer: Peer | None = scope.get("state", {}).get(PEER)
    match peer:
        case UnixPeer():
            name = find_user_name(peer.uid)
            particulars = f"uid {peer.uid}, pid {peer.pid}"
            return Caller(
                id=f"uid:{peer.uid}",
                by=f"{name} ({particulars})" if name else particulars,
                role=Access.ADMIN,
            )
        case TcpPeer():
            secret = read_secret(scope)
            token = None if secret is None else await agent.authenticate(secret)
            return None if token is None else describe_holder(token)
        case _:
            return None


def read_secret(scope: Scope) -> str | None:
    """What `Authorization: Bearer` holds (RFC 6750, section 2.1); None when there is none."""
    given = [value for name, value in scope.get("headers", ()) if name == b"authorization"]
    if len(given) != 1:
        return None
    scheme, _, secret = given[0].decode("latin-1").partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None


def describe_holder(token: Token) -> Caller:
    return Caller(
        id=f"token:{token.id}",
        by=f"token {token.name} ({token.id})",
        role=Access(token.role.value),
        token=token.id,
    )


def find_user_name(uid: int, passwd: Path = Path("/etc/passwd")) -> str:
    """The name of a user of this host; empty when it is not in passwd(5).

    The file itself is read: getpwuid(3) may ask a directory service, and wait for it for minutes on
    the very day on which the network is what is broken.
    """
    try:
        lines = passwd.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields = line.split(":")
        if len(fields) > 2 and fields[2] == str(uid):
            return fields[0]
    return ""


class Authentication:
    """Lets nobody unknown past it: unknown paths and wrong methods tell them nothing either."""

    def __init__(self, app: ASGIApp, agent: AgentFacade, limits: Limits) -> None:
        self._app = app
        self._agent = agent
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if _is_ambiguous(scope):
            await _refuse_ambiguous()(scope, receive, send)
            return
        caller = await identify(scope, self._agent)
        peer = scope.get("state", {}).get(PEER)
        if isinstance(peer, TcpPeer):
            wait = self._limit(scope, peer, caller)
            if wait:
                await _refuse_too_many(wait)(scope, receive, send)
                return
        if caller is None and scope.get("path") not in OPEN_PATHS:
            await _refuse_unknown(scope)(scope, receive, send)
            return
        scope.setdefault("state", {})[CALLER] = caller
        if caller is None or caller.token is None or scope.get("path") in OPEN_PATHS:
            await self._app(scope, receive, send)
        elif why := self._agent.why_closed():
            await make_problem(403, f"cannot answer over the network: {why}")(scope, receive, send)
        elif not self._limits.begin(caller.id):
            await _refuse_too_many(1)(scope, receive, send)
        else:
            try:
                await self._app(scope, receive, self._watch_answer(caller, send))
            finally:
                self._limits.end(caller.id)

    def _limit(self, scope: Scope, peer: TcpPeer, caller: Caller | None) -> int:
        """Counts a request; seconds to wait when it is one too many.

        A right token is let in from an address that sends wrong ones: 256 bits cannot be guessed,
        and a stranger must not be able to lock out whoever shares an address with them.
        """
        if caller is not None:
            orders = scope.get("method") not in ("GET", "HEAD")
            return self._limits.admit(caller.id) or (orders and self._limits.barred(caller.id))
        address = name_client(peer.address)
        if read_secret(scope) is None:
            return self._limits.admit(address)
        wait = self._limits.failed(address)
        if not wait:
            log.warning("%s sent a token that lets nobody in", peer.address)
        return wait

    def _watch_answer(self, caller: Caller, send: Send) -> Send:
        """Counts orders that a role is too low for, which would wash out the trail; and ends the
        streams of a token that was revoked or has expired."""

        ended = False

        async def send_on(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                if message["status"] == HTTPStatus.FORBIDDEN:
                    self._limits.failed(caller.id)
            elif ended:
                # The application learns from the server that nobody listens any more.
                return
            elif message.get("more_body") and not self._agent.admits(caller.token or ""):
                ended = True
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        return send_on


def _is_ambiguous(scope: Scope) -> bool:
    """Whether it says its length in two ways: a proxy in front may believe the other one, and take
    what follows for somebody else's request (RFC 9112, section 6.1)."""
    names = [name for name, _ in scope.get("headers", ())]
    return b"content-length" in names and b"transfer-encoding" in names


def _refuse_ambiguous() -> JSONResponse:
    return make_problem(
        400,
        "cannot read the request: it has both Content-Length and Transfer-Encoding",
        headers={"Connection": "close"},
    )


def _refuse_too_many(wait: int) -> JSONResponse:
    return make_problem(
        429,
        f"cannot answer: too many requests; go on in {wait} seconds",
        headers={"Retry-After": str(wait)},
    )


def _refuse_unknown(scope: Scope) -> JSONResponse:
    """What was sent is not repeated: it may be a secret with a slip of the pen in it."""
    if read_secret(scope) is None:
        return make_problem(
            401,
            "cannot answer: nobody knows who asks; send a token as `Authorization: Bearer`, or use "
            "the UNIX socket, as the hostmend command does",
            headers={"WWW-Authenticate": 'Bearer realm="hostmend"'},
        )
    return make_problem(
        401,
        "cannot answer: this token is unknown, was revoked or has expired; `hostmend token list` "
        "on the host shows those that live",
        headers={"WWW-Authenticate": 'Bearer realm="hostmend", error="invalid_token"'},
    )


def find_caller(request: Request) -> Caller:
    """The caller of a route that is not open."""
    caller: Caller | None = request.scope["state"][CALLER]
    if caller is None:
        raise RuntimeError(f"{request.url.path} is open, and asks who the caller is")
    return caller


def require(access: Access) -> Callable[[Request], Awaitable[None]]:
    """A dependency that lets a caller through whose role includes this one."""

    async def check_access(request: Request) -> None:
        caller = find_caller(request)
        if not caller.role.allows(access):
            raise HTTPException(
                403, f"cannot allow this: it takes the role {access}, and yours is {caller.role}"
            )

    return check_access
