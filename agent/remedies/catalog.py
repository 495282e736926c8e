"""Finds remedies, and refuses those that others could have written to.

Whoever can write to a playbook is root by way of hostmend: every file of a remedy, its directory
and the directories above it up to the one that was given must belong to root or to the user that
hostmend runs as, and nobody else may write to them.

What several remedies share lies in `_shared` beside them: a remedy has it by a link to the file,
whose content belongs to it as if it were a copy, in its digest too.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.errors import NotFound, RemedyError
from agent.remedies.description import Remedy, read_description

#: The remedies that come with hostmend: beside the package, in a checkout and when installed.
SHIPPED = Path(__file__).resolve().parent.parent.parent / "playbooks"

#: Not remedies, in a directory of remedies: faults for drills.
_SKIPPED = frozenset({"faults"})
#: Files that remedies beside it have by links.
_SHARED = "_shared"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
#: Limits of one remedy's directory.
_MAX_FILES = 1_000
_MAX_BYTES = 16_000_000


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """The remedies on offer, by name, and what is wrong with the others."""

    remedies: Mapping[str, Remedy] = field(default_factory=dict)
    #: One broken remedy never hides the others.
    problems: tuple[RemedyError, ...] = ()
    #: Those that are there and cannot be used, by name.
    broken: frozenset[str] = frozenset()

    @staticmethod
    def load(
        directories: Sequence[Path],
        *,
        only: str | None = None,
        owners: Collection[int] | None = None,
    ) -> Catalog:
        """Read all remedies, or `only` one. In a later directory they replace those before.

        A directory that does not exist has no remedies. A broken remedy of an operator still
        takes the place of the shipped one: running that instead would be a surprise.
        `owners`: the user ids that may own files; root and this process's user by default.
        """
        trusted = frozenset(owners if owners is not None else (0, os.geteuid()))
        remedies: dict[str, Remedy] = {}
        problems: list[RemedyError] = []
        broken: set[str] = set()
        for root in directories:
            for name, path in _find(root, only, problems):
                before = remedies.pop(name, None)
                broken.discard(name)
                try:
                    remedy = _read(name, path, root, trusted)
                except RemedyError as error:
                    problems.append(error)
                    broken.add(name)
                else:
                    replaces = before.digest if before else None
                    remedies[name] = replace(remedy, replaces=replaces)
        return Catalog(
            remedies=dict(sorted(remedies.items())),
            problems=tuple(problems),
            broken=frozenset(broken),
        )

    def get(self, name: str) -> Remedy:
        """The remedy of that name. Raises NotFound, which says what there is."""
        if name in self.remedies:
            return self.remedies[name]
        broken = [str(error) for error in self.problems if f"remedy {name}:" in str(error)]
        if broken:
            raise NotFound(broken[0])
        known = ", ".join(self.remedies) or "none"
        raise NotFound(f"cannot find a remedy {name!r}: there are {known}")


def why_no_remedy(name: str) -> str:
    """Why a remedy cannot be called this; empty when it can."""
    if name in _SKIPPED:
        return "this name is that of a directory beside the remedies"
    if not _NAME.fullmatch(name):
        return "name it with lower case letters, digits and -"
    return ""


def _find(root: Path, only: str | None, problems: list[RemedyError]) -> Iterator[tuple[str, Path]]:
    try:
        entries = sorted(root.iterdir()) if only is None else [root / only]
    except FileNotFoundError:
        return
    except OSError as error:
        problems.append(RemedyError(f"cannot read remedies in {root}: {error.strerror}"))
        return
    for path in entries:
        if path.name in _SKIPPED or path.name.startswith((".", "_")) or not path.is_dir():
            continue
        if why := why_no_remedy(path.name):
            problems.append(RemedyError(f"cannot use remedy {path.name}: {path}: {why}"))
        else:
            yield path.name, path


def _read(name: str, path: Path, root: Path, trusted: frozenset[int]) -> Remedy:
    try:
        real_root, real = root.resolve(strict=True), path.resolve(strict=True)
        if real.parent != real_root:
            raise RemedyError(f"cannot use remedy {name}: {path} leads outside {root}")
        for directory in (real_root, real):
            check_owner(name, directory, directory.stat(), trusted)
        digest = _digest(name, real, trusted)
        return read_description(name, real, digest)
    except OSError as error:
        where = error.filename or path
        raise RemedyError(f"cannot use remedy {name}: {where}: {error.strerror}") from None


def _digest(name: str, directory: Path, trusted: frozenset[int]) -> str:
    """sha256 over names and contents of all files, each with its length, in sorted order."""
    digest = hashlib.sha256()
    count = size = 0
    for path in walk_remedy(directory):
        entry = path.lstat()
        relative = path.relative_to(directory).as_posix().encode("utf-8", "surrogateescape")
        if stat.S_ISLNK(entry.st_mode):
            target = path.resolve(strict=True)
            shared = directory.parent / _SHARED
            if target.is_relative_to(shared):
                for above in (*target.parents, target):
                    if above.is_relative_to(shared):
                        check_owner(name, above, above.stat(), trusted)
            elif not target.is_relative_to(directory):
                raise RemedyError(
                    f"cannot use remedy {name}: {path} leads outside: {target}; copy it in"
                )
            if not target.is_file():
                raise RemedyError(f"cannot use remedy {name}: {path} is a link to no file")
            entry = target.stat()
        check_owner(name, path, entry, trusted)
        if stat.S_ISDIR(entry.st_mode):
            continue
        if not stat.S_ISREG(entry.st_mode):
            raise RemedyError(f"cannot use remedy {name}: {path} is neither file nor directory")
        count += 1
        size += entry.st_size
        if count > _MAX_FILES or size > _MAX_BYTES:
            raise RemedyError(
                f"cannot use remedy {name}: {directory} has more than "
                f"{_MAX_FILES} files or {_MAX_BYTES} bytes"
            )
        content = path.read_bytes()
        for part in (relative, content):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()


def walk_remedy(directory: Path) -> list[Path]:
    """All that a remedy's directory holds, sorted."""
    found: list[Path] = []
    for parent, directories, files in os.walk(directory):
        # Left behind by Python beside a remedy's own plugins; not what it is.
        directories[:] = [entry for entry in directories if entry != "__pycache__"]
        found.extend(Path(parent) / entry for entry in (*directories, *files))
    return sorted(found)


def check_owner(name: str, path: Path, entry: os.stat_result, trusted: frozenset[int]) -> None:
    """Raises RemedyError where somebody else could write there; `trusted`: who may own it."""
    if entry.st_uid not in trusted:
        raise RemedyError(
            f"cannot use remedy {name}: {path} belongs to user {entry.st_uid}, "
            "who could change what it does; chown it to root"
        )
    if entry.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise RemedyError(
            f"cannot use remedy {name}: {path} may be written to by others "
            f"(mode {stat.S_IMODE(entry.st_mode):04o}); chmod go-w"
        )
