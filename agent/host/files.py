"""What is known of files without opening them, and digests of those that must be read."""

from __future__ import annotations

import glob
import grp
import hashlib
import os
import pwd
import stat
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from agent.host.logs import is_pattern
from agent.host.tail import Text

#: Files of one pattern that are looked at.
MOST_FILES = 10_000
#: Files that are longer are not read, in bytes.
MOST_READ = 64 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file, directory or whatever is there."""

    path: str
    inode: int
    size: int
    #: Seconds since 1970.
    changed: float
    #: As `changed`, of its inode too (owner, mode), in nanoseconds.
    changed_ns: tuple[int, int]
    owner: int
    group: int
    mode: int
    regular: bool

    @property
    def permissions(self) -> int:
        return stat.S_IMODE(self.mode)

    @property
    def version(self) -> tuple[int, ...]:
        """Another one, and its content may be another."""
        return (self.inode, self.size, *self.changed_ns)


def list_entries(path: str) -> list[Entry]:
    """What is at a path, or at all that a pattern stands for. Raises OSError; may hang."""
    if not is_pattern(path):
        try:
            return [_describe(path)]
        except (FileNotFoundError, NotADirectoryError):
            return []
    found = []
    for each in islice(glob.iglob(path), MOST_FILES):  # noqa: PTH207
        try:
            found.append(_describe(each))
        except FileNotFoundError:
            continue
    return found


def _describe(path: str) -> Entry:
    told = os.stat(path)  # noqa: PTH116
    return Entry(
        path=path,
        inode=told.st_ino,
        size=told.st_size,
        changed=told.st_mtime,
        changed_ns=(told.st_mtime_ns, told.st_ctime_ns),
        owner=told.st_uid,
        group=told.st_gid,
        mode=told.st_mode,
        regular=stat.S_ISREG(told.st_mode),
    )


def find_hole(path: str) -> int | None:
    """Where the first hole of NUL bytes begins; None: there is none. Raises OSError; may hang."""
    with Text(path) as text:
        return text.find_hole()


def digest(path: str) -> str:
    """SHA-256 of a file of at most MOST_READ bytes, hexadecimal. Raises OSError; may hang."""
    total = hashlib.sha256()
    with Text(path, unpack=False) as text:
        offset = 0
        while chunk := text.read_at(offset, _CHUNK):
            total.update(chunk)
            offset += len(chunk)
            if offset > MOST_READ:
                raise OSError(f"it is longer than {MOST_READ >> 20} MB")
    return total.hexdigest()


def name_owner(number: int) -> str:
    """The user of that number, or the number itself."""
    return _name(lambda: pwd.getpwuid(number).pw_name, number)


def name_group(number: int) -> str:
    """The group of that number, or the number itself."""
    return _name(lambda: grp.getgrgid(number).gr_name, number)


def _name(find: Callable[[], str], number: int) -> str:
    try:
        return find()
    except KeyError:
        return str(number)
