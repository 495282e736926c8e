"""What a crawl has seen, written down as it goes, so that one that was killed can go on.

A line of JSON for each address that is done with: {"url", "depth", "fate", ..., "links": [...]}. A
line that was cut off in the middle is as if it had never been written. The first line says which
plan it is of. It holds the site's addresses as they are: only its owner may read it.
"""

from __future__ import annotations

import contextlib
import json
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.audit.extract import Content, Link, Role
from agent.audit.ledger import Entry, Fate
from agent.errors import Conflict, Unavailable

_FORMAT = 1
#: What is kept of an entry beside its address.
_FIELDS = (
    "status", "trouble", "why", "kind", "size", "cut", "seconds", "title", "tries",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Record:
    """One address as it was left."""

    url: str
    depth: int
    roles: tuple[Role, ...]
    fate: Fate
    #: Where it redirects to, as an address.
    location: str | None
    fields: dict[str, Any]
    verdicts: tuple[tuple[str, str, str], ...]
    content: Content | None


class Journal:
    """An open journal. Raises Unavailable where it cannot be used, Conflict for another audit's."""

    def __init__(self, path: Path, digest: str, *, resume: bool) -> None:
        self._path = path
        head = {"format": _FORMAT, "plan": digest}
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            self._file = os.fdopen(descriptor, "r+b")
            if not resume:
                self._file.truncate()
            first = self._file.readline()
        except OSError as error:
            raise self._explain(error) from error
        found = _parse(first) or {}
        if not first.endswith(b"\n"):
            self._restart(0)
            self._write(head)
        elif found != head:
            self._file.close()
            why = "it is no state file of an audit; name another one"
            if found.get("format") == _FORMAT:
                why = (
                    "it is of an audit with other options; give the same ones, or leave --resume "
                    "out to begin anew"
                )
            raise Conflict(f"cannot resume from {path}: {why}")

    def _explain(self, error: OSError) -> Unavailable:
        return Unavailable(f"cannot use the state file {self._path}: {error.strerror}")

    def _restart(self, end: int) -> None:
        """Goes on writing there; what follows is forgotten."""
        try:
            self._file.seek(end)
            self._file.truncate()
        except OSError as error:
            raise self._explain(error) from error

    def replay(self) -> Iterator[Record]:
        """What was seen before, in its order. To be read to its end before anything is added."""
        end = self._file.tell()
        for line in self._file:
            value = _parse(line) if line.endswith(b"\n") else None
            if value is None:
                break
            end += len(line)
            yield _read_record(value)
        self._restart(end)

    def add(self, entry: Entry, location: str | None, content: Content | None) -> None:
        """Notes what came of an address."""
        row: dict[str, Any] = {
            "url": entry.url,
            "depth": entry.depth,
            "roles": sorted(entry.roles),
            "fate": entry.fate,
            **{name: getattr(entry, name) for name in _FIELDS},
        }
        if location is not None:
            row["location"] = location
        if entry.verdicts:
            row["verdicts"] = entry.verdicts
        if content is not None:
            row["base"] = content.base
            row["links"] = [(link.address, link.role, link.line) for link in content.links]
            row["names"] = None if content.names is None else content.names.tolist()
        self._write(row)

    def _write(self, row: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise self._explain(error) from error

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

    def remove(self) -> None:
        """The audit came to its end: there is nothing to go on with."""
        self.close()
        with contextlib.suppress(OSError):
            self._path.unlink()


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _read_record(value: dict[str, Any]) -> Record:
    content = None
    if "links" in value:
        names = value["names"]
        content = Content(
            links=tuple(_read_links(value["links"])),
            names=None if names is None else array("I", names),
            title=value["title"],
            base=value["base"],
        )
    return Record(
        url=value["url"],
        depth=value["depth"],
        roles=tuple(map(Role, value["roles"])),
        fate=Fate(value["fate"]),
        location=value.get("location"),
        fields={name: value[name] for name in _FIELDS},
        verdicts=tuple((a, b, c) for a, b, c in value.get("verdicts", ())),
        content=content,
    )


def _read_links(rows: list[list[Any]]) -> Iterator[Link]:
    for address, role, line in rows:
        yield Link(address, Role(role), line)
