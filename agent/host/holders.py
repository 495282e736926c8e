"""Which processes hold a file open, from /proc (proc(5)). It needs root to see those of others."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_DELETED = " (deleted)"
_UNIT = re.compile(r"/([^/]+\.(?:service|scope))(?:/|$)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Holder:
    """An open file of a process."""

    pid: int
    command: str
    #: The systemd unit that it belongs to; empty: none.
    unit: str
    descriptor: int
    #: As open(2) was told.
    flags: int
    path: str
    deleted: bool
    inode: int
    #: On the disk.
    size_bytes: int

    @property
    def door(self) -> str:
        """A path by which the file can be opened, although it has no name any more."""
        return f"/proc/{self.pid}/fd/{self.descriptor}"

    @property
    def writes(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY

    @property
    def appends(self) -> bool:
        """Whether each write goes to the end, wherever that is then: truncating it is harmless."""
        return bool(self.flags & os.O_APPEND)

    def __str__(self) -> str:
        unit = f", {self.unit}" if self.unit else ""
        return f"{self.command} (process {self.pid}{unit})"


def find_writers(path: str) -> list[Holder]:
    """Who holds that file open for writing. May hang."""
    real = os.path.realpath(path)
    return [holder for holder in _find(lambda link: link == real) if holder.writes]


def find_deleted(choose: Callable[[str, os.stat_result], bool]) -> list[Holder]:
    """Who writes to files that have no name any more. `choose` is told the last path of each."""
    return [
        holder
        for holder in _find(lambda link: link.endswith(_DELETED) and link.startswith("/"), choose)
        if holder.writes
    ]


def _find(
    wanted: Callable[[str], bool],
    choose: Callable[[str, os.stat_result], bool] = lambda _path, _told: True,
) -> Iterator[Holder]:
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        with contextlib.suppress(OSError), os.scandir(process / "fd") as descriptors:
            for entry in descriptors:
                with contextlib.suppress(OSError, ValueError):
                    link = os.readlink(entry.path)  # noqa: PTH115
                    if wanted(link) and (holder := _describe(process, entry.path, link, choose)):
                        yield holder


def _describe(
    process: Path, door: str, link: str, choose: Callable[[str, os.stat_result], bool]
) -> Holder | None:
    told = os.stat(door)  # noqa: PTH116
    path = link.removesuffix(_DELETED)
    if not choose(path, told):
        return None
    descriptor = int(os.path.basename(door))  # noqa: PTH119
    info = (process / "fdinfo" / str(descriptor)).read_text()
    flags = re.search(r"^flags:\s*([0-7]+)", info, re.MULTILINE)
    unit = _UNIT.search((process / "cgroup").read_text())
    return Holder(
        pid=int(process.name),
        command=(process / "comm").read_text().strip(),
        unit=unit[1] if unit else "",
        descriptor=descriptor,
        flags=int(flags[1], 8) if flags else 0,
        path=path,
        deleted=told.st_nlink == 0,
        inode=told.st_ino,
        size_bytes=told.st_blocks * 512,
    )


def find_written(directory: str) -> list[Holder]:
    """Who has files below a directory open for writing, by unit and path, each once."""
    begin = directory.rstrip("/") + "/"
    found: dict[str, Holder] = {}
    for holder in _find(lambda link: link.startswith(begin) and not link.endswith(_DELETED)):
        if holder.writes and holder.unit:
            found.setdefault(holder.path, holder)
    return sorted(found.values(), key=lambda each: (each.unit, each.path))
