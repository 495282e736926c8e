"""What fills a filesystem: its largest directories, and deleted files that are still open.

Bounded in time and in entries, and it never leaves the filesystem: a mount point is not even
looked at, since another machine may be behind it. These block; they are for a thread.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from agent.host.processes import read_unit

#: Directories are told apart down to this depth below the mount point; deeper ones count there.
DEPTH = 4
#: Entries looked at, at most: a few seconds' work, and some ten megabytes.
MOST_ENTRIES = 200_000


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was found below one mount point, in bytes of the disk."""

    #: Each directory down to `DEPTH` with everything below it.
    sizes: dict[str, int]
    #: Of those, what was written to within the last day.
    recent: dict[str, int]
    #: Files and directories in each.
    counts: dict[str, int]
    entries: int
    #: Why it is not the whole; empty when it is.
    cut: str = ""

    def largest(self, most: int = 10) -> list[tuple[str, int]]:
        """Directories that hold most, leaving out those of which nearly all is in one below."""
        return _pick(self.sizes, most)

    def fullest(self, most: int = 10) -> list[tuple[str, int]]:
        """Directories that hold most files."""
        return _pick(self.counts, most)

    def written(self, most: int = 5) -> list[tuple[str, int]]:
        """Directories to which most was written within the last day."""
        return _pick(self.recent, most)

    def grown(self, earlier: dict[str, int], most: int = 5) -> list[tuple[str, int]]:
        """Directories that grew most since an earlier survey."""
        grown = {path: size - earlier.get(path, 0) for path, size in self.sizes.items()}
        return _pick({path: size for path, size in grown.items() if size > 0}, most)


def _pick(sizes: dict[str, int], most: int) -> list[tuple[str, int]]:
    biggest_below: dict[str, int] = {}
    for path, size in sizes.items():
        above = os.path.dirname(path)  # noqa: PTH120 - text, no file
        if above != path:
            biggest_below[above] = max(size, biggest_below.get(above, 0))
    told = [
        (path, size)
        for path, size in sizes.items()
        if size and biggest_below.get(path, 0) < 0.9 * size
    ]
    return sorted(told, key=lambda each: (-each[1], each[0]))[:most]


def survey(
    point: str,
    *,
    avoid: Collection[str] = (),
    seconds: float = 5.0,
    most_entries: int = MOST_ENTRIES,
) -> Survey:
    """Adds up what is below a mount point. `avoid`: other mount points. Never raises for a file."""
    until, day_ago = time.monotonic() + seconds, time.time() - 86_400
    sizes: dict[str, int] = {}
    recent: dict[str, int] = {}
    counts: dict[str, int] = {}
    try:
        device = os.lstat(point).st_dev
    except OSError as error:
        return Survey(
            sizes={}, recent={}, counts={}, entries=0, cut=error.strerror or "cannot be read"
        )
    entries, cut = 0, ""
    linked: set[int] = set()
    # Each directory with those, itself included, that its files count for.
    # Broad before deep: where it must be cut, the deepest is missing.
    left = deque[tuple[str, tuple[str, ...]]]([(point, (point,))])
    while left and not cut:
        directory, counted = left.popleft()
        for name in counted:
            sizes.setdefault(name, 0)
        try:
            scan = os.scandir(directory)
        except OSError:
            continue
        with scan:
            for entry in scan:
                entries += 1
                if entries >= most_entries:
                    cut = f"stopped after {entries} entries"
                    break
                if entries % 256 == 0 and time.monotonic() >= until:
                    cut = f"stopped after {seconds:g} s and {entries} entries"
                    break
                if entry.path in avoid:
                    continue
                with contextlib.suppress(OSError):
                    told = entry.stat(follow_symlinks=False)
                    if told.st_dev != device:
                        continue
                    if told.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                        if told.st_ino in linked:
                            continue
                        linked.add(told.st_ino)
                    size = told.st_blocks * 512
                    for name in counted:
                        sizes[name] += size
                        counts[name] = counts.get(name, 0) + 1
                        if told.st_mtime > day_ago:
                            recent[name] = recent.get(name, 0) + size
                    if entry.is_dir(follow_symlinks=False):
                        deep = len(counted) > DEPTH
                        left.append((entry.path, counted if deep else (*counted, entry.path)))
    return Survey(sizes=sizes, recent=recent, counts=counts, entries=entries, cut=cut)


@dataclass(frozen=True, kw_only=True)
class OpenDeleted:
    """A deleted file that a process still holds open."""

    pid: int
    command: str
    #: The unit that the process belongs to; empty for none.
    unit: str
    path: str
    #: Bytes of the disk.
    size: int


def find_open_deleted(point: str, *, most: int = 5) -> list[OpenDeleted]:
    """Deleted files of that filesystem that processes still hold open, the largest first.

    Their room is free only when they are closed.
    """
    found: dict[int, OpenDeleted] = {}
    try:
        device = os.lstat(point).st_dev
        processes = [name for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208
    except OSError:
        return []
    for pid in processes:
        with contextlib.suppress(OSError):
            for fd in os.scandir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    path = os.readlink(fd.path)  # noqa: PTH115
                    if not path.endswith(" (deleted)") or not path.startswith("/"):
                        continue
                    told = os.stat(fd.path)  # noqa: PTH116
                    if told.st_dev == device and told.st_blocks:
                        found[told.st_ino] = OpenDeleted(
                            pid=int(pid),
                            command=Path(f"/proc/{pid}/comm").read_text().strip(),
                            unit=read_unit(int(pid)),
                            path=path.removesuffix(" (deleted)"),
                            size=told.st_blocks * 512,
                        )
    return sorted(found.values(), key=lambda each: -each.size)[:most]
