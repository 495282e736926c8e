"""`type: ping`: a host answers echo requests, and how many of them, and how fast.

A host that answers none may be well: many are told not to.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.checks.check import CheckOptions, CheckType
from agent.checks.peers import (
    REFERENCE,
    SHARE,
    HostName,
    Reference,
    read_reference,
    reference_seconds,
)
from agent.checks.values import Duration, Percent
from agent.core.model import Finding, Status
from agent.core.units import format_duration
from agent.errors import Unavailable
from agent.host.connection import Failure, Family
from agent.host.echo import Echoes, ping
from agent.host.machine import Machine
from agent.host.routes import find_own_trouble
from agent.host.url import is_address

CAUSES = {
    "silent": "No echo came back at all.",
    "lost": "No more than the configured share of echoes came back.",
    "slow": "Echoes take longer than the configured time.",
    "dns": "The name has no address, or nobody could be asked for it.",
    "unreachable": "The way there answers that there is none.",
    "offline": "This host itself is not connected; nothing is known of the other one.",
    "unavailable": "hostmend may not ping here: `net.ipv4.ping_group_range` forbids it.",
}

MEASUREMENTS = {
    "loss_percent": "Echoes that did not come back.",
    "round_trip_seconds": "There and back, the median.",
    "round_trip_least_seconds": "The fastest.",
    "round_trip_most_seconds": "The slowest.",
}


class PingLimits(BaseModel):
    """When too little comes back, or too late."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    loss: Percent | None = Field(default=None, description="So many or more do not come back.")
    round_trip: Duration | None = Field(
        default=None, description="There and back takes longer than this, in the median."
    )


class PingWarning(PingLimits):
    """When it will need attention."""

    loss: Percent | None = Field(default=40.0, description="So many or more do not come back.")


class PingCritical(PingLimits):
    """When the host is not reached."""

    loss: Percent | None = Field(default=100.0, description="So many or more do not come back.")


class PingOptions(CheckOptions):
    """A host that shall answer."""

    type: Literal["ping"]
    host: HostName = Field(description="A name or an address.")
    family: Family | None = Field(
        default=None, description="Only addresses of this family: `ipv4` or `ipv6`."
    )
    count: Annotated[int, Field(ge=1, le=20)] = Field(
        default=5, description="Echo requests of one look."
    )
    interval: Duration = Field(default=0.1, description="Time from one to the next.")
    reference: Reference | None = REFERENCE
    warning: PingWarning = Field(default_factory=PingWarning, description="Limits of `warning`.")
    critical: PingCritical = Field(
        default_factory=PingCritical, description="Limits of `critical`."
    )


async def look(options: PingOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding, on the host."""
    assert options.timeout is not None  # noqa: S101 - the configuration filled it in
    loop = asyncio.get_running_loop()
    until = loop.time() + options.timeout * SHARE
    try:
        address, why = await _find_address(options, machine, options.timeout * SHARE / 2)
        result: Echoes | Failure | None = None
        if address:
            result = await ping(
                address,
                count=options.count,
                interval=options.interval,
                seconds=until - loop.time(),
            )
    except Unavailable as error:
        return (_find(options, Status.UNKNOWN, "unavailable", str(error)),)
    if result is None:
        own = await _find_own(options, ())
        return (_judge_fault(options, "dns", why, own),)
    if isinstance(result, Failure):
        own = await _find_own(options, (address,))
        return (_judge_fault(options, "unreachable", result.why, own),)
    if not result.times and (own := await _find_own(options, (address,))):
        return (_judge_fault(options, "silent", f"{address} is silent", own),)
    return (judge(options, result),)


async def _find_address(options: PingOptions, machine: Machine, seconds: float) -> tuple[str, str]:
    """The best address, or an empty one and why there is none."""
    if is_address(options.host):
        return options.host, ""
    try:
        async with asyncio.timeout(seconds):
            found = await machine.http.resolve(options.host)
    except TimeoutError:
        return "", f"resolving {options.host} took longer than {seconds:.3g} s"
    except Unavailable as error:
        return "", str(error)
    family = options.family
    chosen = [address for address in found if family is None or family.has(address)]
    return (chosen[0], "") if chosen else ("", f"{options.host} has no {family} address")


async def _find_own(options: PingOptions, addresses: tuple[str, ...]) -> str:
    return await find_own_trouble(
        addresses, read_reference(options.reference), reference_seconds(options.timeout)
    )


def _judge_fault(options: PingOptions, cause: str, why: str, own_fault: str) -> Finding:
    if own_fault:
        summary = f"cannot tell of {options.host}: this host is offline, {own_fault}"
        return _find(options, Status.UNKNOWN, "offline", summary, facts={"Attempt": why})
    return _find(options, Status.CRITICAL, cause, f"{options.host}: {why}")


def judge(options: PingOptions, echoes: Echoes) -> Finding:
    """The finding on what came back."""
    back, loss = len(echoes.times), echoes.loss
    measured = {"loss_percent": loss}
    middle = None
    if echoes.times:
        middle = statistics.median(echoes.times)
        measured["round_trip_seconds"] = middle
        measured["round_trip_least_seconds"] = min(echoes.times)
        measured["round_trip_most_seconds"] = max(echoes.times)
    status, cause = Status.OK, ""
    summary = f"{options.host} sends {back} of {echoes.sent} echoes back"
    if middle is not None:
        summary = f"{summary}, in {format_duration(middle)}"
    for level, limits in ((Status.CRITICAL, options.critical), (Status.WARNING, options.warning)):
        if limits.loss is not None and loss >= limits.loss:
            status, cause = level, "lost" if back else "silent"
            break
        if limits.round_trip is not None and middle is not None and middle > limits.round_trip:
            status, cause = level, "slow"
            summary = f"{summary}, slower than {format_duration(limits.round_trip)}"
            break
    return _find(
        options, status, cause, summary, facts={"Address": echoes.address}, measurements=measured
    )


def _find(
    options: PingOptions,
    status: Status,
    cause: str,
    summary: str,
    *,
    facts: Mapping[str, str] | None = None,
    measurements: Mapping[str, float] | None = None,
) -> Finding:
    return Finding(
        subject=options.host,
        status=status,
        cause=cause,
        summary=summary,
        facts=facts or {},
        measurements=measurements or {},
        resource=f"host:{options.host}",
    )


PING = CheckType(
    name="ping",
    summary="A host answers echo requests, enough of them and fast enough.",
    model=PingOptions,
    look=look,
    causes=CAUSES,
    measurements=MEASUREMENTS,
    identity=("host",),
)
