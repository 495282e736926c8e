"""What logs say of want of room. This module is the reading; it asks nobody."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.host.text import fit_line

#: What programs say of ENOSPC (28) and EDQUOT (122): strerror(3), Python, MariaDB.
_NO_ROOM = re.compile(
    r"No space left on device|Disk quota exceeded|\bENOSPC\b|\bEDQUOT\b"
    r"|\b(?:errno|errcode|os error)[:= ]{1,2}(?:28|122)\b",
    re.IGNORECASE,
)
_PATH = re.compile(
    r"""(?P<quote>['"`])(?P<quoted>/[^'"`]*)(?P=quote)|(?<![\w/:])(?P<bare>/(?!/)[^\s'"`:;,()\[\]]+)"""
)
#: A program that begins a message with its own path: `/bin/sh: 1: cannot create ...`.
_PROGRAM = re.compile(r"^/\S+: ")
#: A line as journalctl's short-iso has it: time, then who wrote it.
_WRITER = re.compile(r"^\S+ [^:]*?: ")


@dataclass(frozen=True, kw_only=True)
class Shortage:
    """A unit failed for want of room."""

    #: The message that says so.
    line: str
    #: Mount points; none where nothing tells.
    points: tuple[str, ...]


def find_last_words(log: str) -> str:
    """The last line of a log (short-iso) that is not systemd's, fit to be shown; empty: none."""
    for line in reversed(log.splitlines()):
        if (found := _WRITER.match(line)) and " systemd[1]:" not in found[0]:
            return fit_line(line[found.end() :])
    return ""


def find_messages(log: str) -> list[str]:
    """The messages of a log (short-iso) that say that there is no room, without who wrote them."""
    lines = [_WRITER.sub("", line) for line in log.splitlines() if _NO_ROOM.search(line)]
    return [_PROGRAM.sub("", line) for line in lines]


def find_paths(message: str) -> list[str]:
    """The absolute paths that a message names, nearest to the complaint first."""
    found = _NO_ROOM.search(message)
    at = found.start() if found else 0
    paths = [(match.start(), match["quoted"] or match["bare"]) for match in _PATH.finditer(message)]
    return [path.rstrip(".") for _, path in sorted(paths, key=lambda each: abs(each[0] - at))]
