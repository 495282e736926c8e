"""What a drill keeps on the disk until it is undone, and what its guard says meanwhile.

    /var/lib/hostmend-drill/record.json     while it is there, something may have to be undone
    /var/lib/hostmend-drill/faults/NAME/    the fault as it was when it was injected: an upgrade of
                                            hostmend in between must not take its undo away
    /var/lib/hostmend-drill/keep/           what the fault itself keeps for its undo
    /run/hostmend-drill/progress.json       how far the guard is

Everything is written before the fault is injected, for that may leave no byte to write with. The
places are the same whatever the agent's settings are: the guard must find them without the agent.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from agent.core.model import Seconds
from agent.errors import StoreError

#: The unit whose process injects and undoes (`deploy/hostmend-drill.service`).
UNIT = "hostmend-drill.service"
#: Its StateDirectory= and RuntimeDirectory=.
STATE = Path("/var/lib/hostmend-drill")
RUNTIME = Path("/run/hostmend-drill")
#: Passed to each fault beside its own options: a directory of its own, for what its undo needs.
KEEP = "keep"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A drill as its guard needs it."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    id: str
    fault: str
    digest: str
    options: Mapping[str, Any]
    timeout: Seconds
    #: How long the fault stays at the most, once it is there.
    lasts: Seconds
    #: The boot that it was ordered in, and the reading of CLOCK_BOOTTIME at which it is undone
    #: whatever happened.
    boot: str
    until: float
    #: The fault may be there.
    begun: bool = False


_RECORD = TypeAdapter(Record)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a guard said last."""

    id: str
    #: injecting, injected, refused, undoing, stuck, undone.
    stage: str
    #: The reading of CLOCK_BOOTTIME.
    at: float
    detail: str = ""


class Place:
    """The directory of this host's one drill."""

    def __init__(self, path: Path = STATE) -> None:
        self.path = path
        self.faults = self.path / "faults"
        self.keep = self.path / "keep"
        self._record = self.path / "record.json"

    @property
    def taken(self) -> bool:
        """Whether there is a drill to undo."""
        return self._record.exists()

    def prepare(self, record: Record, fault: Path) -> None:
        """Puts a drill down, durably. Raises StoreError, and leaves nothing half done."""
        try:
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.keep.mkdir(mode=0o700)
            self.faults.mkdir(mode=0o700)
            leave = shutil.ignore_patterns("__pycache__")
            shutil.copytree(fault, self.faults / fault.name, ignore=leave)
            _flush_tree(self.path)
            self.write(record)
        except OSError as error:
            shutil.rmtree(self.path, ignore_errors=True)
            raise StoreError(f"cannot put the drill down in {self.path}: {error}") from error

    def write(self, record: Record) -> None:
        """Raises OSError; then the record is as it was."""
        draft = self._record.with_suffix(".draft")
        with draft.open("wb") as file:
            file.write(_RECORD.dump_json(record))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._record)
        _flush(self.path)
        _flush(self.path.parent)

    def mark_begun(self, record: Record) -> Record:
        """From here on there is something to undo. Raises OSError."""
        begun = replace(record, begun=True)
        self.write(begun)
        return begun

    def read(self) -> Record | None:
        """None: there is no drill. Raises StoreError for one that cannot be read."""
        try:
            return _RECORD.validate_json(self._record.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise StoreError(f"cannot read the drill in {self._record}: {error}") from error

    def clear(self) -> None:
        """Nothing is left to undo. The record goes first."""
        self._record.unlink(missing_ok=True)
        _flush(self.path)
        shutil.rmtree(self.path, ignore_errors=True)


def write_progress(
    runtime: Path, drill: str, stage: str, detail: str = "", *, at: float | None = None
) -> None:
    """`at`: the reading of CLOCK_BOOTTIME; now, unless given."""
    when = read_boottime() if at is None else at
    told = {"id": drill, "stage": stage, "at": when, "detail": detail[:500]}
    draft = runtime / "progress.draft"
    draft.write_text(json.dumps(told))
    draft.replace(runtime / "progress.json")


def read_progress(runtime: Path) -> Progress | None:
    """None: no guard said anything since this host was booted."""
    try:
        return Progress(**json.loads((runtime / "progress.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def read_boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_tree(root: Path) -> None:
    for path in (*root.rglob("*"), root):
        _flush(path)
