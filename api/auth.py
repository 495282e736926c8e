"""Who asks, and what they may do.

Who asks is established once for each request, before anything else looks at it. Through the UNIX
socket it is the process that the kernel names (SO_PEERCRED); whoever its permissions let in has all
rights. Over TCP nobody is known, and nothing but `/healthz` answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import make_problem

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
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        return tuple(Access).index(self)


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
    #: For the trail: `root (uid 0, pid 123)`.
    by: str
    role: Access


def identify(scope: Scope) -> Caller | None:
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
        case _:
            return None


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

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        caller = identify(scope)
        if caller is None and scope.get("path") not in OPEN_PATHS:
            refusal = make_problem(
                401,
                "cannot answer: nobody knows who asks; use the UNIX socket, as the hostmend "
                "command does",
                headers={"WWW-Authenticate": "Bearer"},
            )
            await refusal(scope, receive, send)
            return
        scope.setdefault("state", {})[CALLER] = caller
        await self._app(scope, receive, send)


def find_caller(request: Request) -> Caller:
    """The caller of a route that is not open."""
    caller: Caller | None = request.scope["state"][CALLER]
    if caller is None:
        raise RuntimeError(f"{request.url.path} is open, and asks who the caller is")
    return caller


def require(access: Access) -> Callable[[Request], Awaitable[None]]:
    """A dependency that lets a caller through who has at least this role."""

    async def check_access(request: Request) -> None:
        caller = find_caller(request)
        if caller.role.rank < access.rank:
            raise HTTPException(
                403, f"cannot allow this: it takes the role {access}, and yours is {caller.role}"
            )

    return check_access
