"""The files of one log check: which they are, and what was added to all of them."""

from __future__ import annotations

import contextlib
import glob
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from agent.core.model import Instant
from agent.host.follow import Added, Place, move_away, read_added
from agent.host.holders import Holder, find_deleted
from agent.host.patterns import Scan
from agent.host.rotation import PACKED, find_live
from agent.host.tail import Allowance, Mark

#: Files that one check covers: those that were changed last.
MOST_FILES = 200
_MAGIC = frozenset("*?[")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one look read."""

    #: By path. A path with an error of ENOENT has no file; it is there only if it had one.
    files: Mapping[str, Added]
    #: Files that were too many.
    left_out: int = 0
    #: Whether the directory that the logs should be in is there.
    directory: bool = True
    #: Its user, group and permissions; None: it is not there, or a pattern too.
    directory_state: tuple[int, int, int] | None = None


def is_pattern(path: str) -> bool:
    """Whether a path stands for several files."""
    return not _MAGIC.isdisjoint(path)


def is_meant(pattern: str, path: str) -> bool:
    """Whether a file is one of those that a path or a pattern stands for."""
    return path == pattern or (is_pattern(pattern) and PurePosixPath(path).match(pattern))


def find_logs(pattern: str) -> list[str]:
    """The live logs among the files that a path or a pattern stands for. May hang."""
    if not is_pattern(pattern):
        return [pattern]
    found = {path for path in glob.iglob(pattern) if not path.endswith(PACKED)}  # noqa: PTH207
    names: dict[str, set[str]] = {}
    for path in found:
        directory, name = os.path.split(path)
        names.setdefault(directory, set()).add(name)
    return sorted(
        f"{directory}/{name}"
        for directory, own in names.items()
        for name in own
        if find_live(name, own) is None
    )


def read_logs(
    pattern: str,
    places: Mapping[str, Place],
    scan: Scan,
    allowance: Allowance,
    *,
    now: Instant,
    from_end: bool,
) -> Reading:
    """Hands `scan` what was added to all logs since `places`. May hang; never raises."""
    found = find_logs(pattern)
    chosen = _choose(found)
    places = _follow_names(chosen, places, now)
    marks = [place.mark for place in places.values() if place.mark]
    files: dict[str, Added] = {}
    for path in [*places, *(path for path in chosen if path not in places)]:
        known = places.get(path)
        files[path] = read_added(
            path,
            known,
            scan,
            allowance,
            now=now,
            from_end=from_end,
            find_holder=_find_holder,
            others=marks if known is None else (),
        )
    directory = os.path.dirname(pattern)  # noqa: PTH120 - it may be a pattern too
    state = None if is_pattern(directory) else _find_state(directory)
    there = is_pattern(directory) or state is not None
    left_out = len(found) - len(chosen)
    return Reading(files=files, left_out=left_out, directory=there, directory_state=state)


def _find_state(directory: str) -> tuple[int, int, int] | None:
    with contextlib.suppress(OSError):
        told = os.stat(directory)  # noqa: PTH116
        if stat.S_ISDIR(told.st_mode):
            return told.st_uid, told.st_gid, stat.S_IMODE(told.st_mode)
    return None


def _follow_names(
    paths: Sequence[str], places: Mapping[str, Place], now: Instant
) -> Mapping[str, Place]:
    """The places, of files that go by the name of another of the check's logs now at that name."""
    if len(paths) < 2 and not places.keys() - set(paths):
        return places
    inodes = {}
    for path in paths:
        with contextlib.suppress(OSError):
            inodes[path] = os.stat(path).st_ino  # noqa: PTH116
    names = {inode: path for path, inode in inodes.items()}
    followed = dict(places)
    for path, place in places.items():
        mark = place.mark
        if mark is None or inodes.get(path) == mark.inode or mark.inode not in names:
            continue
        new = names[mark.inode]
        there = followed.get(new, Place())
        if there.mark is not None and there.mark.inode in names:
            there = replace(there, mark=None)
        followed[new] = replace(move_away(there, now, followed=True), mark=mark)
        if followed[path].mark == mark:
            followed[path] = replace(followed[path], mark=None)
    return followed


def _choose(paths: list[str]) -> list[str]:
    if len(paths) <= MOST_FILES:
        return paths
    return sorted(paths, key=_find_change, reverse=True)[:MOST_FILES]


def _find_change(path: str) -> float:
    try:
        return os.stat(path).st_mtime  # noqa: PTH116
    except OSError:
        return 0.0


def _find_holder(path: str, mark: Mark | None) -> Holder | None:
    """Who writes to a file that was at the path and has no name any more."""

    def is_it(last: str, told: os.stat_result) -> bool:
        return last == path if mark is None else told.st_ino == mark.inode

    return next(iter(find_deleted(is_it)), None)
