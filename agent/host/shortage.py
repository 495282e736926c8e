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
#: What programs say of a file that they cannot open or write: strerror(3) of ENOENT, EACCES, EROFS,
#: EPERM, EISDIR.
_NO_FILE = re.compile(
    r"No such file or directory|Permission denied|Read-only file system|Operation not permitted"
    r"|Is a directory",
    re.IGNORECASE,
)
#: The reason stands at most so many lines before the last one: `configuration test failed`.
_LAST_LINES = 5
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
    """The last line of a log (short-iso) that is not systemd's, fit to be shown; empty: none.

    Of the last few, the one that says why: of room, or of a file.
    """
    said = [
        line[found.end() :]
        for line in log.splitlines()
        if (found := _WRITER.match(line)) and " systemd[1]:" not in found[0]
    ]
    last = said[-_LAST_LINES:]
    telling = [words for words in last if _NO_ROOM.search(words) or _NO_FILE.search(words)]
    return fit_line((telling or last or [""])[-1])


def find_unusable(words: str) -> str:
    """The file that a message says cannot be opened or written; empty: it says no such thing."""
    if not _NO_FILE.search(words):
        return ""
    return next(iter(find_paths(_PROGRAM.sub("", words))), "")


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
