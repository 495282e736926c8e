"""Containers, as an engine tells of them: Docker's API, which Podman speaks too.

https://docs.docker.com/reference/api/engine/: Docker from 20.10 and Podman from 4 on. No version is
named: Podman 4 speaks none above 1.41, Docker 29 none below 1.44, and what is read here is the same
in all of them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agent.errors import Unavailable
from agent.host.connection import Failure
from agent.host.http import HttpClient, Request, Response
from agent.host.url import Url

#: Where engines listen, the most usual first.
SOCKETS = ("/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock")
#: Most bytes of an answer: a thousand containers have some 2 MB.
_LIMIT = 16 * 1024 * 1024
#: Longest that an order to stop came before the end, in seconds; and a signal that is not named.
_BEFORE_END, _JUST_BEFORE_END = 600.0, 30.0
#: Signals that end what does not handle them otherwise; others are messages (`docker kill -s HUP`).
_ENDING = frozenset({"2", "3", "9", "15", "SIGINT", "SIGQUIT", "SIGKILL", "SIGTERM"})
#: Containers that are asked about at once.
_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Container:
    """How one container is."""

    id: str
    #: Without the slash.
    name: str
    image: str
    #: `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    state: str
    exit_code: int
    #: The kernel ended it for want of memory.
    out_of_memory: bool
    #: `healthy`, `unhealthy`, `starting`; empty: it has no health check.
    health: str
    #: What its last health check said.
    health_output: str
    #: Restarts by the engine since it was created.
    restarts: int
    #: `always`, `unless-stopped`, `on-failure`; empty or `no`: never.
    policy: str
    #: Seconds since 1970; None: never.
    started: float | None
    finished: float | None
    #: What the engine says of a start that failed.
    error: str
    pid: int


def name_engine(socket: str) -> str:
    """The unit without which an engine does not answer at a socket."""
    # Podman has no daemon: its socket starts what answers. Docker's may lead to it (podman-docker).
    return "podman.socket" if "podman" in str(Path(socket).resolve()) else "docker.service"


def find_socket() -> str | None:
    """The socket of an engine; None where there is none."""
    return next((path for path in SOCKETS if Path(path).is_socket()), None)


async def list_containers(client: HttpClient, socket: str, seconds: float) -> tuple[Container, ...]:
    """All containers, by name. Raises Unavailable."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    rows = await _get(client, socket, "/containers/json?all=true", seconds)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def ask(row: Mapping[str, Any]) -> Container | None:
        async with slots:
            return await find_container(client, socket, str(row["Id"]), until - loop.time())

    try:
        found = await asyncio.gather(*(ask(row) for row in rows))
    except (KeyError, TypeError) as error:
        raise Unavailable(f"cannot read what {socket} answers: it is no engine's") from error
    return tuple(sorted((each for each in found if each is not None), key=lambda c: c.name))


async def find_container(
    client: HttpClient, socket: str, name: str, seconds: float
) -> Container | None:
    """The container of that name or id; None where there is none. Raises Unavailable."""
    told = await _get(client, socket, f"/containers/{quote(name, safe='')}/json", seconds)
    if told is None:
        return None
    try:
        return read_container(told)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unavailable(f"cannot read what {socket} answers: it is no engine's") from error


async def was_stopped(
    client: HttpClient, socket: str, container: Container, now: float, seconds: float
) -> bool | None:
    """Whether somebody told the engine to stop a container that has ended, since its last start.

    By the engine's events. Docker has one for each order, and for each signal with its number, and
    keeps the last 256: False may mean that they are forgotten. Podman 4 has one for `kill`, without
    the signal, and none for `stop`: None, it cannot tell.
    `now`: seconds since 1970. Raises Unavailable.
    """
    since = int((container.finished or now) - _BEFORE_END)
    filters = json.dumps({"container": [container.id], "event": ["stop", "kill"]})
    path = f"/events?since={since}&until={int(now)}&filters={quote(filters)}"
    answer = await _ask(client, socket, path, seconds, 64 * 1024)
    events = answer.body.splitlines()
    if any(_is_order(event, container, now) for event in events):
        return True
    return None if answer.header("libpod-api-version") else False


def _is_order(event: bytes, container: Container, now: float) -> bool:
    """Whether an event is an order to end that this end of the container followed."""
    try:
        told = json.loads(event)
        at = float(told.get("timeNano") or 0) / 1e9 or float(told.get("time") or 0)
        attributes = (told.get("Actor") or {}).get("Attributes") or {}
        signal = attributes.get("signal")
        killed = told.get("Action") == "kill"
    except (ValueError, TypeError, AttributeError):
        return False
    if at < (container.started or 0.0):
        return False
    if killed and signal is None:
        return at >= (container.finished or now) - _JUST_BEFORE_END
    return not killed or str(signal) in _ENDING


async def read_log(
    client: HttpClient, socket: str, container: str, seconds: float, lines: int = 50
) -> str:
    """The last lines that a container has written. Raises Unavailable."""
    query = f"?stdout=true&stderr=true&tail={lines}"
    path = f"/containers/{quote(container, safe='')}/logs{query}"
    return join_log((await _ask(client, socket, path, seconds, 256 * 1024)).body)


def join_log(data: bytes) -> str:
    """Text of a log: plain, or in frames of eight bytes and a part each (API, "Attach")."""
    parts, at = [], 0
    while at + 8 <= len(data) and data[at] in (0, 1, 2) and data[at + 1 : at + 4] == b"\0\0\0":
        size = int.from_bytes(data[at + 4 : at + 8], "big")
        parts.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    return (b"".join(parts) or data).decode(errors="replace")


def read_container(told: Mapping[str, Any]) -> Container:
    """A container from an engine's words. Raises KeyError and its like for other words."""
    state, config = told["State"], told["Config"]
    # Podman says `Health` of containers without a check too, with an empty status.
    health = state.get("Health") or {}
    checks = health.get("Log") or []
    status = str(health.get("Status") or "")
    return Container(
        id=str(told["Id"]),
        name=str(told["Name"]).lstrip("/"),
        image=str(config.get("Image") or told.get("Image") or ""),
        state=str(state["Status"]),
        exit_code=int(state.get("ExitCode") or 0),
        out_of_memory=bool(state.get("OOMKilled")),
        health="" if status == "none" else status,
        health_output=str(checks[-1].get("Output") or "") if checks else "",
        restarts=int(told.get("RestartCount") or 0),
        policy=str((told["HostConfig"].get("RestartPolicy") or {}).get("Name") or ""),
        started=_read_time(state.get("StartedAt")),
        finished=_read_time(state.get("FinishedAt")),
        error=str(state.get("Error") or ""),
        pid=int(state.get("Pid") or 0),
    )


def _read_time(text: object) -> float | None:
    """RFC 3339 with nanoseconds; Go's zero time is never."""
    if not isinstance(text, str):
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at.timestamp() if at.year > 1970 else None


async def _get(client: HttpClient, socket: str, path: str, seconds: float) -> Any:
    answer = await _ask(client, socket, path, seconds, _LIMIT)
    if answer.status == 404:
        return None
    if answer.cut:
        raise Unavailable(f"cannot ask {socket}: it answers more than {_LIMIT} bytes")
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise Unavailable(f"cannot read what {socket} answers: it is no JSON") from error


async def _ask(client: HttpClient, socket: str, path: str, seconds: float, limit: int) -> Response:
    """An answer of status 200 or 404. Raises Unavailable."""
    url = Url(scheme="http", host="localhost", port=80, target=path)
    answer = await client.fetch(Request(url=url, socket=socket, body_limit=limit), seconds)
    if isinstance(answer, Failure):
        raise Unavailable(f"cannot ask {socket}: {answer.why}")
    if answer.status not in (200, 404):
        raise Unavailable(f"cannot ask {socket}: it answers {answer.status} to {path}")
    return answer
