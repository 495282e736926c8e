"""The opt-in of this host to drills: a file that names this machine and an end.

Nothing is ever inferred from a URL or a name. A copy of the host carries the file too, and its
machine-id or its hardware is another: there it is worth nothing.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError

from agent.core.model import Instant, Seconds
from agent.core.units import format_duration
from agent.errors import Conflict, Unavailable
from agent.host.identity import Identity

#: The same whatever the agent's settings are: the guard must find it without the agent.
MARKER = Path("/etc/hostmend/drills-allowed.json")
#: No longer than this at once, in seconds: what is production next month must not be open still.
LONGEST: Seconds = 7 * 86_400.0
_MOST_BYTES = 4096
_HOW = "; on a host that may be harmed, say: hostmend drill allow --for 2h"


@dataclass(frozen=True, kw_only=True)
class Marker:
    """What the file says."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    machine: str
    hardware: str
    until: Instant
    by: str


_MARKER = TypeAdapter(Marker)


def write_marker(path: Path, identity: Identity, *, now: Instant, seconds: float, by: str) -> None:
    """Allows drills on this machine for so long. Raises Conflict where it cannot be written."""
    marker = Marker(
        machine=identity.machine, hardware=identity.hardware, until=now + seconds, by=by
    )
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
            file.write(_MARKER.dump_json(marker) + b"\n")
        draft.replace(path)
    except OSError as error:
        raise Conflict(f"cannot allow drills: {path}: {error.strerror}") from error


def remove_marker(path: Path) -> bool:
    """Whether there was one. Raises Conflict."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Conflict(f"cannot forbid drills: {path}: {error.strerror}") from error
    return True


def require_marker(path: Path, identity: Identity, now: Instant) -> Marker:
    """The marker, good here and now. Raises Conflict, which says what is wrong with it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise Conflict(f"cannot start a drill: this host does not allow any{_HOW}") from None
    except OSError as error:
        raise Conflict(f"cannot start a drill: {path}: {error.strerror}") from error
    with os.fdopen(handle, "rb") as file:
        held = os.fstat(file.fileno())
        if not stat.S_ISREG(held.st_mode) or held.st_uid not in (0, os.geteuid()):
            raise Conflict(f"cannot start a drill: {path} is no file of root's")
        if held.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Conflict(f"cannot start a drill: others may write to {path}; chmod 600 it")
        text = file.read(_MOST_BYTES)
    try:
        marker = _MARKER.validate_json(text)
    except ValidationError:
        raise Conflict(f"cannot start a drill: {path} is not what `drill allow` writes") from None
    recorded = Identity(machine=marker.machine, hardware=marker.hardware)
    if another := identity.why_another(recorded):
        raise Conflict(f"cannot start a drill: {path} was written {another}{_HOW}")
    if not now < marker.until <= now + LONGEST:
        raise Conflict(
            f"cannot start a drill: {path} is over, or lasts longer than "
            f"{format_duration(LONGEST)}{_HOW}"
        )
    return marker


def require_root() -> None:
    """Raises Unavailable."""
    if os.geteuid() != 0:
        raise Unavailable("cannot start a drill: hostmend does not run as root")
