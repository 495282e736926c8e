"""What there is to watch on a filesystem for paths, and patterns of paths, as they are now."""

from __future__ import annotations

import fnmatch
import functools
import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from agent.host.logs import is_pattern
from agent.host.mounts import find_mount, read_mounts

#: Directories, and files, of one pattern.
_MOST = 200


@dataclass(kw_only=True)
class Plan:
    """Path -> the things that it matters to."""

    directories: dict[str, set[str]] = field(default_factory=dict)
    files: dict[str, set[str]] = field(default_factory=dict)

    def things_of(self, path: str) -> set[str]:
        return self.files.get(path, set()) | self.directories.get(path, set())


def make_plan(things: Iterable[str]) -> Plan:
    """What must be watched. Network mounts are left out: nobody is told of changes there.

    May hang. Raises Unavailable.
    """
    plan, mounts = Plan(), read_mounts()

    @functools.cache
    def is_local(directory: str) -> bool:
        mount = find_mount(mounts, directory)
        return mount is None or not mount.network

    for thing in things:
        for directory in filter(is_local, _list_directories(os.path.dirname(thing))):  # noqa: PTH120
            plan.directories.setdefault(directory, set()).add(thing)
        files = glob.iglob(thing) if is_pattern(thing) else iter((thing,))  # noqa: PTH207
        for path in islice(files, _MOST):
            # Asked first: whether it is a file may never be answered there.
            if not is_local(os.path.dirname(path)) or not os.path.isfile(path):  # noqa: PTH113, PTH120
                continue
            plan.files.setdefault(path, set()).add(thing)
            if os.path.islink(path):  # noqa: PTH114
                target = os.path.dirname(os.path.realpath(path))  # noqa: PTH120
                plan.directories.setdefault(target, set()).add(thing)
    return plan


def _list_directories(directory: str) -> list[str]:
    """Those that a directory, or a pattern of them, stands for, and the nearest that is above."""
    above, found = directory, []
    if is_pattern(directory):
        there = (path for path in glob.iglob(directory) if os.path.isdir(path))  # noqa: PTH112, PTH207
        found = list(islice(there, _MOST))
    while above != "/" and (is_pattern(above) or not os.path.isdir(above)):  # noqa: PTH112
        above = os.path.dirname(above)  # noqa: PTH120
    return list(dict.fromkeys([*found, above]))


def is_of(thing: str, path: str) -> bool:
    """Whether a name that came or went is the thing itself, or a directory on the way to it."""
    if not is_pattern(thing):
        return path == thing or thing.startswith(f"{path}/")
    parts, wanted = path.split("/"), thing.split("/")
    return len(parts) <= len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))
