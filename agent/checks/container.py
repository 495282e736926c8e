"""`type: container`: containers run, are healthy, and are not started again and again.

An engine is asked through its socket: Docker, or Podman, which speaks Docker's API too. Whoever may
write to that socket is root on this host; the check only asks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from agent.checks.check import CheckOptions, CheckType, Proposal
from agent.checks.values import AbsolutePath, Count, Rate
from agent.core.model import Evidence, Finding, Status
from agent.core.units import format_duration
from agent.errors import Unavailable
from agent.host.containers import (
    Container,
    find_container,
    find_socket,
    list_containers,
    name_engine,
    read_log,
    was_stopped,
)
from agent.host.machine import Machine
from agent.host.tally import add_amount, amount_within
from agent.host.text import show
from agent.host.units import check_unit_name

CAUSES = {
    "missing": "There is no container of this name.",
    "failed": "It ended badly, or could not be started.",
    "stopped": "It ended by itself, though it should run.",
    "out-of-memory": "The kernel ended it for want of memory.",
    "dead": "The engine could not even remove it.",
    "unhealthy": "Its own health check fails.",
    "looping": "The engine starts it again and again.",
    "created": "It was made, and never started.",
    "starting": "Its health check has not passed yet.",
    "restarting": "The engine is about to start it again.",
    "unclear": "It ended with 0 or by a signal, and the engine does not tell who wanted that.",
    "unavailable": "No engine answers.",
}

MEASUREMENTS = {
    "restarts_count": "Restarts by the engine since it was made.",
    "recent_restarts_count": "Restarts by the engine within the time of `restarts`.",
    "exit_code": "How it ended.",
    "running_seconds": "How long it has been running.",
}

#: Of `timeout`, for the engine.
_SHARE = 0.8
_EVIDENCE_SECONDS, _LOG = 5.0, 8000
#: Engines remember so long at least who ended something, in seconds.
_REMEMBERED = 300.0
#: What a stop leaves as the exit code: 128 and SIGINT, SIGKILL, SIGTERM.
_SIGNALLED = frozenset({130, 137, 143})
#: Policies by which the engine starts a container again whatever it ended with.
_ALWAYS = frozenset({"always", "unless-stopped"})


def _check_name(name: str) -> str:
    if "/" in name or not name.isprintable():
        raise ValueError(f"{name!r} is no name of a container")
    return name


class ContainerOptions(CheckOptions):
    """A container that shall run, or all that should."""

    type: Literal["container"]
    name: Annotated[str, AfterValidator(_check_name)] | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Its name; left out: every container that the engine should start again, or "
        "that has a health check.",
    )
    socket: AbsolutePath | None = Field(
        default=None,
        description="The engine's socket; left out: Docker's or Podman's, whichever is there.",
    )
    engine: Annotated[str, AfterValidator(check_unit_name)] | None = Field(
        default=None,
        description="The engine's unit, on which containers depend; left out: `docker.service` or "
        "`podman.socket`, as the socket is.",
    )
    restarts: Count = Field(
        default=Rate(3, 600.0), description="So many restarts by the engine are too many."
    )


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A container with what is remembered of it."""

    container: Container
    #: Restarts within the time of `restarts`.
    recent: float
    #: Somebody told the engine to stop it; None: nobody remembers.
    told: bool | None = None


async def look(options: ContainerOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding for each container; one that is not well blames its engine, should that fail."""
    socket = options.socket or find_socket()
    if socket is None:
        return (_find_none(options, "no engine listens on this host: start it, or name `socket`"),)
    engine = f"unit:{options.engine or name_engine(socket)}"
    return tuple(
        finding if finding.status is Status.OK else replace(finding, implicates=(engine,))
        for finding in await _look(options, machine, socket)
    )


async def _look(options: ContainerOptions, machine: Machine, socket: str) -> tuple[Finding, ...]:
    assert options.timeout is not None  # noqa: S101 - the configuration filled it in
    loop = asyncio.get_running_loop()
    until = loop.time() + options.timeout * _SHARE
    client = machine.http
    try:
        if options.name is not None:
            found = await find_container(client, socket, options.name, until - loop.time())
            if found is None:
                why = f"there is no container {options.name}: start it, or correct the name"
                return (_find(options.name, Status.CRITICAL, "missing", why),)
            containers: tuple[Container, ...] = (found,)
        else:
            everything = await list_containers(client, socket, until - loop.time())
            containers = tuple(each for each in everything if _should_run(each))
        seen = [
            await _remember(options, machine, socket, each, until - loop.time())
            for each in containers
        ]
    except Unavailable as error:
        return (_find_none(options, str(error)),)
    _forget_others(machine, {each.id for each in containers})
    # Seconds since 1970, as engines count.
    now, boot = time.time(), time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return tuple(judge(each, options, now=now, boot=boot) for each in seen)


def _should_run(container: Container) -> bool:
    if container.state == "created":
        return False
    return container.policy in (*_ALWAYS, "on-failure") or bool(container.health)


async def _remember(
    options: ContainerOptions, machine: Machine, socket: str, container: Container, seconds: float
) -> Seen:
    """What this look and those before know of it. Raises Unavailable."""
    memory, now = machine.memory, machine.clock.now()
    key = f"container:{container.id}"
    kept: dict[str, Any] = memory.get(key) or {}
    before = kept.get("restarts", container.restarts)
    since = machine.memory.notes.get(key, now)
    machine.memory.notes[key] = now
    window = options.restarts.seconds
    # Started by hand, the count begins anew.
    much = container.restarts - before if container.restarts >= before else container.restarts
    # What came before a repair says nothing of the time after it.
    repaired = machine.repaired(memory.check) or 0.0
    earlier = [each for each in kept.get("amounts", ()) if each[0] >= repaired]
    amounts = add_amount(earlier, (max(since, repaired), now, float(much)), window=window)
    known = kept.get("finished") == container.finished
    told = kept.get("told") if known else None
    at = time.time()
    # Nothing new is told of an end of long ago.
    fresh = not known or at - (container.finished or 0.0) <= _REMEMBERED
    if container.state in ("exited", "dead") and told is None and fresh:
        told = await was_stopped(machine.http, socket, container, at, seconds)
        if told is False and not kept and at - (container.finished or 0.0) > _REMEMBERED:
            # It ended before anybody looked, and may be forgotten.
            told = None
    memory.put(
        key,
        {
            "restarts": container.restarts,
            "amounts": amounts,
            "finished": container.finished,
            "told": told,
        },
    )
    return Seen(container=container, recent=amount_within(amounts, now, window), told=told)


def _forget_others(machine: Machine, ids: set[str]) -> None:
    for key in machine.memory.keys():  # noqa: SIM118 - it is no mapping
        if key.startswith("container:") and key.removeprefix("container:") not in ids:
            machine.memory.forget(key)


def judge(seen: Seen, options: ContainerOptions, *, now: float, boot: float) -> Finding:
    """The finding on one container. `now`, `boot`: seconds since 1970."""
    container, name = seen.container, seen.container.name
    facts = {"State": container.state, "Image": container.image}
    if container.health:
        facts["Health"] = container.health
    if container.policy:
        facts["Restart policy"] = container.policy
    measured = {
        "restarts_count": float(container.restarts),
        "recent_restarts_count": round(seen.recent, 2),
    }
    if container.state in ("exited", "dead"):
        measured["exit_code"] = float(container.exit_code)
    elif container.state == "running" and container.started is not None:
        measured["running_seconds"] = max(0.0, now - container.started)
    status, cause, summary = _judge_state(seen, options, boot)
    return Finding(
        subject=name,
        status=status,
        cause=cause,
        summary=summary,
        facts=facts,
        measurements=measured,
        since=container.finished if container.state in ("exited", "dead") else None,
        intended=status is Status.OK and _is_intended(seen, boot),
        transition=cause if cause in ("starting", "restarting") else "",
        resource=f"container:{name}",
    )


def _judge_state(seen: Seen, options: ContainerOptions, boot: float) -> tuple[Status, str, str]:
    container, name = seen.container, seen.container.name
    times, window = options.restarts
    if seen.recent >= times:
        many = f"{round(seen.recent)} times within {format_duration(window)}"
        return Status.CRITICAL, "looping", f"{name} was started again {many}"
    match container.state:
        case "running" if container.health == "unhealthy":
            said = show(container.health_output, 200).strip() or "it says nothing"
            return Status.CRITICAL, "unhealthy", f"{name} is unhealthy: {said}"
        case "running" if container.health == "starting":
            return Status.UNKNOWN, "starting", f"{name} is starting"
        case "running":
            return Status.OK, "", f"{name} runs"
        case "restarting":
            return Status.UNKNOWN, "restarting", f"{name} is about to be started again"
        case "paused":
            return Status.OK, "", f"{name} is paused by an operator"
        case "created":
            why = f": {container.error}" if container.error else ""
            return Status.WARNING, "created", f"{name} was made and never started{why}"
        case "dead":
            return Status.CRITICAL, "dead", f"{name} is dead: {container.error or 'no reason'}"
    return _judge_ended(seen, options, boot)


def _judge_ended(seen: Seen, options: ContainerOptions, boot: float) -> tuple[Status, str, str]:
    container, name, code = seen.container, seen.container.name, seen.container.exit_code
    if _is_intended(seen, boot):
        return Status.OK, "", f"{name} was stopped by an operator"
    if container.out_of_memory:
        return Status.CRITICAL, "out-of-memory", f"{name} was ended for want of memory"
    if container.error:
        return Status.CRITICAL, "failed", f"{name} could not be started: {container.error}"
    wanted = container.policy in _ALWAYS or options.name is not None
    if code == 0 and not wanted:
        return Status.OK, "", f"{name} ended by itself"
    if seen.told is None and container.policy not in _ALWAYS and code in (0, *_SIGNALLED):
        how = f"was ended by signal {code - 128}" if code else "ended"
        words = f"{name} {how}, and the engine does not tell whether somebody wanted that"
        return Status.UNKNOWN, "unclear", words
    if code == 0:
        words = f"{name} ended, and nobody is known to have wanted it"
        return Status.CRITICAL, "stopped", words
    return Status.CRITICAL, "failed", f"{name} ended with exit code {code}"


def _is_intended(seen: Seen, boot: float) -> bool:
    """Whether an operator wants it as it is.

    An engine starts what it always should again, whatever it ended with. What rests all the same
    was stopped by somebody, unless it rests since before this boot.
    """
    container = seen.container
    if container.state == "paused":
        return True
    if container.state != "exited" or container.error or container.out_of_memory:
        return bool(seen.told) and container.state == "exited"
    if seen.told:
        return True
    if container.policy not in _ALWAYS:
        return False
    ended_now = container.finished is not None and container.finished >= boot
    return ended_now or container.policy == "unless-stopped"


def _find(subject: str, status: Status, cause: str, summary: str) -> Finding:
    return Finding(
        subject=subject, status=status, cause=cause, summary=summary,
        resource=f"container:{subject}",
    )  # fmt: skip


def _find_none(options: ContainerOptions, why: str) -> Finding:
    return _find(options.name or "containers", Status.UNKNOWN, "unavailable", why)


async def gather(
    options: ContainerOptions, finding: Finding, machine: Machine
) -> tuple[Evidence, ...]:
    """The container as the engine has it, and the last lines of its log."""
    socket = options.socket or find_socket()
    if socket is None or finding.cause in ("missing", "unavailable"):
        return ()
    items = []
    try:
        name = finding.subject
        found = await find_container(machine.http, socket, name, _EVIDENCE_SECONDS)
        if found is not None:
            text = "\n".join(f"{key}: {value}" for key, value in _describe(found).items())
            items.append(Evidence(title=f"Container {name}", text=text))
        log = await read_log(machine.http, socket, name, _EVIDENCE_SECONDS)
        text = show(log, _LOG).strip() or "(no lines)"
        items.append(Evidence(title=f"Log of {name}", text=text))
    except Unavailable as error:
        items.append(Evidence(title=f"Container {finding.subject}", text=str(error)))
    return tuple(items)


def _describe(container: Container) -> Mapping[str, str]:
    told = {
        "Id": container.id[:12],
        "Image": container.image,
        "State": container.state,
        "Health": container.health,
        "Last health check": show(container.health_output, 1000).strip(),
        "Exit code": str(container.exit_code) if container.state == "exited" else "",
        "Error": container.error,
        "Restarts": str(container.restarts),
        "Restart policy": container.policy,
    }
    return {name: value for name, value in told.items() if value}


async def propose(machine: Machine) -> tuple[Proposal, ...]:
    """All containers of an engine that has any to look after."""
    socket = find_socket()
    if socket is None:
        return ()
    try:
        found = await list_containers(machine.http, socket, _EVIDENCE_SECONDS)
    except Unavailable:
        return ()
    wanted = [each.name for each in found if _should_run(each)]
    if not wanted:
        return ()
    more = f" and {len(wanted) - 3} more" if len(wanted) > 3 else ""
    why = f"the engine at {socket} has {', '.join(wanted[:3])}{more}"
    return (Proposal(name="containers", options={"type": "container"}, why=why),)


CONTAINER = CheckType(
    name="container",
    summary="Containers run, are healthy, and are not started again and again.",
    model=ContainerOptions,
    look=look,
    causes=CAUSES,
    measurements=MEASUREMENTS,
    propose=propose,
    gather=gather,
    names=lambda options: frozenset({options.name} if options.name else ()),
    identity=("name", "socket"),
)
