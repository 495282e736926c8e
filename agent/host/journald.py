"""journald's own state: its files, where they should be, and whether they are whole."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.core.model import Seconds
from agent.errors import Unavailable
from agent.host.command import run_command
from agent.host.journal import ENVIRONMENT

PERSISTENT, VOLATILE = "/var/log/journal", "/run/log/journal"
#: journald.conf(5): the file, then drop-ins in the order of their names, of which the last wins.
_CONFIG_PLACES = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
#: Files that are looked at.
_MOST_FILES = 2000
#: Longest that one file is verified, in seconds.
VERIFY_LIMIT: Seconds = 60.0


@dataclass(frozen=True, kw_only=True)
class JournalFile:
    """One file of the journal of this host."""

    path: str
    inode: int
    size: int
    #: On the disk.
    disk_bytes: int
    changed_ns: int
    #: When it was last renamed or changed, in seconds of the wall clock.
    moved: float

    @property
    def name(self) -> str:
        return os.path.basename(self.path)  # noqa: PTH119 - text, no file

    @property
    def archived(self) -> bool:
        """Closed in order, and never written to again."""
        return "@" in self.name and self.name.endswith(".journal")

    @property
    def unclean(self) -> bool:
        """Set aside by journald as corrupted, or not closed in order."""
        return self.name.endswith(".journal~")

    @property
    def version(self) -> list[int]:
        return [self.inode, self.size, self.changed_ns]


@dataclass(frozen=True, kw_only=True)
class Storage:
    """The files of the journal, and where they should be."""

    files: tuple[JournalFile, ...]
    #: `persistent`, `volatile`, `auto` or `none`, as configured.
    wanted: str
    #: Whether /var/log/journal is there.
    directory: bool

    @property
    def signature(self) -> tuple[tuple[str, int, int], ...]:
        """Another one, and something was written."""
        return tuple((file.path, file.size, file.changed_ns) for file in self.files)

    @property
    def persistent_wanted(self) -> bool:
        return self.wanted == "persistent" or (self.wanted == "auto" and self.directory)

    @property
    def writes_to(self) -> str:
        """The directory that the journal is written to now; empty: none is seen."""
        active = [file.path for file in self.files if file.name == "system.journal"]
        # Flushed to the disk, journald removes what was in memory.
        for place in (VOLATILE, PERSISTENT):
            if any(path.startswith(f"{place}/") for path in active):
                return place
        return ""


def read_storage() -> Storage:
    """The state of the journal's files. Raises OSError; may hang."""
    machine = _read_machine_id()
    files: list[JournalFile] = []
    for place in (PERSISTENT, VOLATILE):
        with contextlib.suppress(FileNotFoundError), os.scandir(f"{place}/{machine}") as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.name.endswith((".journal", ".journal~")):
                        files.append(_describe(entry))
                if len(files) >= _MOST_FILES:
                    break
    files.sort(key=lambda file: file.path)
    return Storage(
        files=tuple(files),
        wanted=read_config("Storage", "auto"),
        directory=os.path.isdir(PERSISTENT),  # noqa: PTH112
    )


def _read_machine_id() -> str:
    return Path("/etc/machine-id").read_text().strip()


def _describe(entry: os.DirEntry[str]) -> JournalFile:
    told = entry.stat(follow_symlinks=False)
    return JournalFile(
        path=entry.path,
        inode=told.st_ino,
        size=told.st_size,
        disk_bytes=told.st_blocks * 512,
        changed_ns=told.st_mtime_ns,
        moved=told.st_ctime,
    )


def read_config(key: str, default: str) -> str:
    """A setting of journald.conf(5), as written last."""
    value = default
    for line in _read_config_lines():
        name, sign, text = line.partition("=")
        if sign and name.strip() == key:
            value = text.strip() or default
    return value


def _read_config_lines() -> Iterable[str]:
    for place in _CONFIG_PLACES:
        main = Path(place, "journald.conf")
        if main.is_file():
            yield from _read_lines(main)
            break
    drop_ins: dict[str, Path] = {}
    for place in _CONFIG_PLACES:
        for path in sorted(Path(place, "journald.conf.d").glob("*.conf")):
            # One of the same name in a place before replaces it.
            drop_ins.setdefault(path.name, path)
    for _, path in sorted(drop_ins.items()):
        yield from _read_lines(path)


def _read_lines(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace").splitlines()
    return []


async def verify_file(path: str, limit: Seconds = VERIFY_LIMIT) -> str | None:
    """What is wrong with one file of the journal; empty: nothing. None: that could not be told.

    It reads the whole file, at the lowest priority for processor and disk.
    """
    argv = ["journalctl", "--verify", "--quiet", "--no-pager", f"--file={path}"]
    for tool, options in (("ionice", ["-c", "3"]), ("nice", ["-n", "19"])):
        if shutil.which(tool, path=ENVIRONMENT["PATH"]):
            argv = [tool, *options, *argv]
    try:
        done = await run_command(argv, seconds=limit, environment=ENVIRONMENT)
    except Unavailable:
        return None
    if done.code == 0 or not os.path.exists(path):  # noqa: PTH110, ASYNC240 - it may be rotated away
        return ""
    lines = f"{done.out}\n{done.err}".splitlines()
    return next((line for line in reversed(lines) if line.startswith("FAIL")), None)
