"""`type: tcp`: a TCP port takes connections, and what answers there says what it should."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from agent.checks.check import CheckType, Proposal
from agent.checks.peers import REFERENCE, SHARE, HostName, Reference, find_blame, name_peer
from agent.checks.talk import (
    REMOTE_CAUSES,
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
from agent.core.model import Evidence, Finding
from agent.host.connection import Connection, Failure, Family, Peer
from agent.host.dialogue import Talk
from agent.host.listeners import Listener, find_listeners
from agent.host.machine import Machine
from agent.host.routes import is_own_address
from agent.host.space import Hung
from agent.host.url import is_address

CAUSES = {**TALK_CAUSES, **REMOTE_CAUSES}
MEASUREMENTS = TALK_MEASUREMENTS

#: Longest conversation for evidence, and longest search for who listens, in seconds.
_EVIDENCE_SECONDS, _SEARCH_SECONDS = 5.0, 5.0
#: What usually listens where (IANA), as far as it can be greeted. sshd logs each greeting.
_USUAL = {
    21: ("ftp", "10s"),
    22: ("ssh", "5m"),
    25: ("smtp", "10s"),
    110: ("pop3", "10s"),
    143: ("imap", "10s"),
    3306: ("mysql", "10s"),
    6379: ("redis", "10s"),
    11211: ("memcached", "10s"),
}


class TcpOptions(TalkOptions):
    """A TCP port that shall take connections."""

    type: Literal["tcp"]
    host: HostName = Field(default="127.0.0.1", description="A name or an address.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(description="The TCP port.")
    family: Family | None = Field(
        default=None, description="Only addresses of this family: `ipv4` or `ipv6`."
    )
    reference: Reference | None = REFERENCE
    warning: SlowLimits = Field(default_factory=SlowLimits, description="Limits of `warning`.")
    critical: SlowLimits = Field(default_factory=SlowLimits, description="Limits of `critical`.")


async def look(options: TcpOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding, on the port. Raises Unavailable when this host cannot even try."""
    assert options.timeout is not None  # noqa: S101 - the configuration filled it in
    said = Said()
    result = await _ask(options, machine, options.timeout * SHARE, said)
    subject = name_peer(options.host, options.port)
    if isinstance(result, Failure):
        why = await find_blame(options.reference, options.timeout, result)
        return (judge_failure(result, said, subject, why),)
    return (judge_talk(result, said, subject, warning=options.warning, critical=options.critical),)


async def _ask(
    options: TcpOptions, machine: Machine, seconds: float, said: Said
) -> Failure | Connection:
    peer = Peer(host=options.host, port=options.port, family=options.family)

    async def work(connection: Connection) -> None:
        await converse(Talk(connection, options.answer_limit), options, said)

    return await hold_talk(machine, peer, seconds, said, work)


async def gather(options: TcpOptions, _finding: Finding, machine: Machine) -> tuple[Evidence, ...]:
    """The port asked once more; where it is this host's own, also who listens on it."""
    said = Said()
    seconds = min(_EVIDENCE_SECONDS, (options.timeout or _EVIDENCE_SECONDS) * SHARE)
    result = await _ask(options, machine, seconds, said)
    subject = name_peer(options.host, options.port)
    items = [describe_talk(result, said, subject, asked=subject)]
    addresses = result.addresses if isinstance(result, Failure) else ()
    if any(is_own_address(address) for address in addresses):
        items.append(await _tell_listeners(options.port, machine))
    return tuple(items)


async def _tell_listeners(port: int, machine: Machine) -> Evidence:
    title = f"Who listens on port {port} of this host"
    try:
        found = await _find(machine)
    except (Hung, OSError) as error:
        return Evidence(title=title, text=f"cannot be told: {error}")
    rows = [
        f"{name_peer(each.address, port)}: {each.program or 'unknown'} (process {each.pid})"
        for each in found
        if each.port == port
    ]
    return Evidence(title=title, text="\n".join(rows) or "nobody")


async def _find(machine: Machine) -> tuple[Listener, ...]:
    """Raises Hung or OSError."""
    return await machine.space.patience.call("the listeners", _SEARCH_SECONDS, find_listeners)


async def propose(machine: Machine) -> tuple[Proposal, ...]:
    """Ports on which programs that can be greeted usually listen."""
    try:
        found = await _find(machine)
    except (Hung, OSError):
        return ()
    proposals: dict[int, Proposal] = {}
    for each in found:
        if each.port not in _USUAL or not is_address(each.reachable):
            continue
        protocol, every = _USUAL[each.port]
        options = {
            "type": "tcp",
            "host": each.reachable,
            "port": each.port,
            "protocol": protocol,
            "every": every,
        }
        program = each.program or "a program"
        why = f"{program} listens on {name_peer(each.address, each.port)}"
        proposals.setdefault(each.port, Proposal(name=protocol, options=options, why=why))
    return tuple(proposals.values())


TCP = CheckType(
    name="tcp",
    summary="A TCP port takes connections, and what answers says what it should.",
    model=TcpOptions,
    look=look,
    causes=CAUSES,
    measurements=MEASUREMENTS,
    propose=propose,
    gather=gather,
    identity=("host", "port"),
)
