"""What became of a log that is no longer at its path: renamed, copied, packed; or deleted."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from agent.host.tail import Mark, Text

#: Entries of a directory that are looked through, and rotated files that are compared.
_MOST_ENTRIES, _MOST_FILES = 20_000, 20
#: Endings of packed files. Only what gzip packed is read.
PACKED = (".gz", ".xz", ".bz2", ".zst", ".lz4", ".zip")
#: What a rotation adds to the name: `.1`, `-20260131`, `.2026-01-31`, `-20260131-1769817600`.
_ADDED = re.compile(r"[.-][0-9]{1,10}(?:[._-][0-9]{1,10}){0,5}|\.old|\.bak")


@dataclass(frozen=True, kw_only=True)
class Sibling:
    """A file that a rotation may have made of a log."""

    path: str
    inode: int
    #: Nanoseconds.
    changed: int


def is_rotated(name: str, live: str) -> bool:
    """Whether a name is one that rotation gives to older generations of the log `live`.

    Those of logrotate and of common libraries: `app.log.1`, `app.log-20260131.gz`,
    `app-2026-01-31.log`.
    """
    return find_live(name, (live,)) is not None


def find_live(name: str, names: Collection[str]) -> str | None:
    """The log, of those names, that a name is an older generation of."""
    for packed in PACKED:
        name = name.removesuffix(packed)
    ending = name[name.rfind(".") :] if "." in name else ""
    for cut in (position for position, letter in enumerate(name) if letter in ".-"):
        if name[:cut] in names and _ADDED.fullmatch(name, cut):
            return name[:cut]
        live = name[:cut] + ending
        if cut and live in names and _ADDED.fullmatch(name, cut, len(name) - len(ending)):
            return live
    return None


class Siblings:
    """What lies beside one log."""

    def __init__(self, path: str) -> None:
        self._live = os.path.basename(path)  # noqa: PTH119 - text, no file
        self._entries: list[tuple[str, str, int]] = []
        own = os.path.dirname(path)  # noqa: PTH120
        # Where the path is a link, its target was what the log was written to.
        for directory in dict.fromkeys((own, os.path.dirname(os.path.realpath(path)))):  # noqa: PTH120
            self._list(directory)

    def _list(self, directory: str) -> None:
        with contextlib.suppress(OSError), os.scandir(directory) as scan:
            for entry in scan:
                if entry.name != self._live:
                    self._entries.append((directory, entry.name, entry.inode()))
                if len(self._entries) >= _MOST_ENTRIES:
                    return

    def find(self, mark: Mark) -> tuple[Text, bool] | None:
        """The file of a mark, open, and whether it is only a copy of it. None: it is not here."""
        same = [f"{place}/{name}" for place, name, inode in self._entries if inode == mark.inode]
        if text := _open_first(same, mark):
            return text, False
        if mark.offset and (text := _open_first((each.path for each in self._rotated()), mark)):
            return text, True
        return None

    def list_since(self, changed: int) -> list[Sibling]:
        """Rotated files that were written to after that time, in ns, oldest first."""
        return [each for each in reversed(self._rotated()) if each.changed > changed]

    def _rotated(self) -> list[Sibling]:
        """By their names, the last changed first."""
        found = []
        for directory, name, inode in self._entries:
            readable = not name.endswith(PACKED) or name.endswith(".gz")
            if readable and is_rotated(name, self._live):
                path = f"{directory}/{name}"
                with contextlib.suppress(OSError):
                    told = os.lstat(path)
                    if stat.S_ISREG(told.st_mode):
                        found.append(Sibling(path=path, inode=inode, changed=told.st_mtime_ns))
        return sorted(found, key=lambda each: -each.changed)[:_MOST_FILES]


def _open_first(paths: Iterable[str], mark: Mark) -> Text | None:
    for path in paths:
        with contextlib.suppress(OSError):
            text = Text(path)
            try:
                if text.is_of(mark):
                    return text
            except BaseException:
                text.close()
                raise
            text.close()
    return None
