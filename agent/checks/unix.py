"""`type: unix`: a UNIX socket takes connections, and what answers there says what it should."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from agent.checks.check import CheckType, Proposal
from agent.checks.peers import SHARE
from agent.checks.talk import (
    TALK_CAUSES,
    TALK_MEASUREMENTS,
    Said,
    SlowLimits,
    TalkOptions,
    converse,
    describe_talk,
    hold_talk,
    judge_failure,
    judge_talk,
)
from agent.checks.values import AbsolutePath
from agent.core.model import Evidence, Finding
from agent.host.connection import Connection, Failure, Peer
from agent.host.dialogue import Talk
from agent.host.listeners import find_sockets
from agent.host.machine import Machine
from agent.host.space import Hung

CAUSES = {
    **TALK_CAUSES,
    "missing": "There is no such socket.",
    "refused": "The socket is there, and nobody listens on it.",
    "unreachable": "It is no socket that takes connections.",
}
MEASUREMENTS = {
    name: meaning for name, meaning in TALK_MEASUREMENTS.items() if name != "dns_seconds"
}

#: sockaddr_un has room for so many bytes and the NUL behind them (unix(7)).
_LONGEST = 107
_EVIDENCE_SECONDS, _SEARCH_SECONDS = 5.0, 5.0
#: Sockets of programs that can be greeted, by the end of their paths.
_USUAL = {"/mysqld.sock": "mysql", "/redis-server.sock": "redis", "/redis.sock": "redis"}


def _check_length(path: str) -> str:
    if len(path.encode()) > _LONGEST:
        raise ValueError(
            f"must not have more than {_LONGEST} bytes: no socket can have such a path"
        )
    return path


class UnixOptions(TalkOptions):
    """A UNIX socket that shall take connections."""

    type: Literal["unix"]
    path: Annotated[AbsolutePath, AfterValidator(_check_length)] = Field(
        description="The socket's path: `/run/mysqld/mysqld.sock`."
    )
    warning: SlowLimits = Field(default_factory=SlowLimits, description="Limits of `warning`.")
    critical: SlowLimits = Field(default_factory=SlowLimits, description="Limits of `critical`.")


async def look(options: UnixOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding, on the socket. Raises Unavailable when this host cannot even try."""
    assert options.timeout is not None  # noqa: S101 - the configuration filled it in
    said = Said()
    result = await _ask(options, machine, options.timeout * SHARE, said)
    if isinstance(result, Failure):
        return (judge_failure(result, said, options.path, ""),)
    return (
        judge_talk(result, said, options.path, warning=options.warning, critical=options.critical),
    )


async def _ask(
    options: UnixOptions, machine: Machine, seconds: float, said: Said
) -> Failure | Connection:
    async def work(connection: Connection) -> None:
        await converse(Talk(connection, options.answer_limit), options, said)

    return await hold_talk(machine, Peer(path=options.path), seconds, said, work)


async def gather(options: UnixOptions, _finding: Finding, machine: Machine) -> tuple[Evidence, ...]:
    """The socket asked once more, and whose it is."""
    said = Said()
    seconds = min(_EVIDENCE_SECONDS, (options.timeout or _EVIDENCE_SECONDS) * SHARE)
    result = await _ask(options, machine, seconds, said)
    items = [describe_talk(result, said, options.path, asked=options.path)]
    try:
        found = await machine.space.patience.call("the sockets", _SEARCH_SECONDS, find_sockets)
        rows = [
            f"{each.program or 'unknown'} (process {each.pid})"
            for each in found
            if each.path == options.path
        ]
        text = "\n".join(rows) or "nobody"
    except (Hung, OSError) as error:
        text = f"cannot be told: {error}"
    items.append(Evidence(title=f"Who listens on {options.path}", text=text))
    return tuple(items)


async def propose(machine: Machine) -> tuple[Proposal, ...]:
    """Sockets of programs that can be greeted."""
    try:
        found = await machine.space.patience.call("the sockets", _SEARCH_SECONDS, find_sockets)
    except (Hung, OSError):
        return ()
    return tuple(
        Proposal(
            name=f"{protocol}-socket",
            options={"type": "unix", "path": each.path, "protocol": protocol},
            why=f"{each.program or 'a program'} listens on {each.path}",
        )
        for each in found
        for end, protocol in _USUAL.items()
        if each.path.endswith(end)
    )


UNIX = CheckType(
    name="unix",
    summary="A UNIX socket takes connections, and what answers says what it should.",
    model=UnixOptions,
    look=look,
    causes=CAUSES,
    measurements=MEASUREMENTS,
    propose=propose,
    gather=gather,
    identity=("path",),
)
