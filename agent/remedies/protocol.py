"""What the agent and a job say to each other, and where a run keeps what outlives both.

One JSON object a line. The agent writes a request to the job's stdin and keeps it open: its end is
how the job knows that the agent is gone. `{"cancel": true}` cancels. The job writes events to its
stdout, to `<runtime>/runs/<run id>/events.jsonl`, and to whoever connects to the `socket` there:

| event | says |
|---|---|
| started | `run_id, pid, runner, remedy, digest, changes, preview, timeout, unchecked` |
| task | `task, action, status, changed, duration, msg`, and where there are such: \
  `rc, stdout, stderr, diff, check_mode_false` |
| stats | the playbook is over, the job not yet: `stats, needs_human` |
| overdue | the time is over, and the remedy changes data: it goes on |
| ended | always the last: `outcome, detail, stats, stats_at, ended_at` |

`at`, `stats_at`, `ended_at` are readings of CLOCK_BOOTTIME in seconds. Durations are in seconds.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.model import Outcome
from agent.errors import Invalid

#: Everything that a job starts carries it in its environment, with the job's own token.
MARK = "HOSTMEND_JOB"
#: Longest line in either direction, in bytes.
MAX_LINE = 1_000_000
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class RunPlace:
    """The directory of one run, which outlives its job until it is discarded."""

    path: Path

    @property
    def job(self) -> Path:
        """Who carries it out: pids, start times, token."""
        return self.path / "job.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def result(self) -> Path:
        """The `ended` event, written before anybody is told."""
        return self.path / "result.json"

    @property
    def socket(self) -> Path:
        return self.path / "socket"


def place_of(runtime_dir: Path, run_id: str) -> RunPlace:
    """Where that run is kept. Raises Invalid for an id that is no file name."""
    if not _RUN_ID.fullmatch(run_id):
        raise Invalid(f"cannot use run id {run_id[:80]!r}: letters, digits, ., _ and - only")
    return RunPlace(path=runtime_dir / "runs" / run_id)


def scratch_of(runtime_dir: Path, token: str) -> Path:
    """A job's private data and temporary files; gone when it ends."""
    return runtime_dir / "scratch" / token


def shelf_of(runtime_dir: Path) -> Path:
    """Modules that were packed for Ansible before any run; a directory for each of its releases."""
    return runtime_dir / "packed"


def now() -> float:
    """The reading of the clock that all events carry."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def write_line(event: Mapping[str, object]) -> bytes:
    return json.dumps(event, separators=(",", ":"), default=str).encode() + b"\n"


def read_line(line: bytes) -> dict[str, Any] | None:
    """The object on that line, or None where there is none."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def write_whole(path: Path, value: Mapping[str, object]) -> None:
    """Write a small JSON file that is either there as a whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_bytes(write_line(value))
    temporary.rename(path)


def judge(
    *,
    rc: int | None,
    stats: Mapping[str, int] | None,
    needs_human: str,
    failure: str,
    preview: bool,
    did: str = "",
) -> tuple[Outcome, str]:
    """How a playbook that came to its end ended, and one sentence on it.

    A return code of 0 alone proves nothing: a play without hosts or tasks has it too. `did` is what
    the playbook itself says of what it did.
    """
    if needs_human:
        return Outcome.NEEDS_HUMAN, needs_human
    if stats is None:
        return Outcome.FAILED, failure or f"Ansible ended with code {rc} before the playbook did"
    if stats["failures"] or stats["unreachable"] or rc != 0:
        return Outcome.FAILED, failure or f"Ansible ended with code {rc}"
    if not stats["ok"] and not (preview and stats["skipped"]):
        return Outcome.FAILED, "no task of the playbook was carried out"
    if did:
        return Outcome.OK, did
    changed = stats["changed"]
    tasks = f"{stats['ok']} task{'s' if stats['ok'] != 1 else ''} ok"
    verb = "would change" if preview else "changed"
    return Outcome.OK, f"{tasks}, {changed} {verb} something" if changed else tasks
