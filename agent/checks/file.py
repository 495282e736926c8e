"""`type: file`: a file is there, young, of the right size, and as it should be; or it is not there.

Files are looked at by stat(2). Only `sha256` and `changes` read one, and only when it changed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from agent.checks.check import CheckOptions, CheckType, Watch
from agent.checks.file_findings import CAUSES, MEASUREMENTS, Seen, judge, make_finding
from agent.checks.lines import BEYOND
from agent.checks.values import AbsolutePath, Duration, Growth, Size
from agent.core.model import Evidence, Finding, Instant, Seconds, Status
from agent.host.files import (
    digest,
    find_hole,
    list_entries,
    name_group,
    name_owner,
)
from agent.host.logs import is_pattern
from agent.host.machine import Machine
from agent.host.space import Hung
from agent.host.tally import add_amount, amount_within

#: Of `timeout`: when a look is given up.
_PATIENCE = 0.8
#: Files whose content is read at most.
_MOST_CONTENTS = 20
#: Rows of evidence.
_MOST_ROWS = 20


class FileLimits(BaseModel):
    """What is too old, too small, too large or too fast."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    age: Duration | None = Field(
        default=None, description="The newest was not written for longer than this: `26h`."
    )
    smaller: Size | None = Field(
        default=None, description="The newest that is complete is smaller than this: `1M`."
    )
    larger: Size | None = Field(default=None, description="One is larger than this: `2G`.")
    growth: Growth | None = Field(
        default=None, description="All together grew by more within the time: `1G in 1h`."
    )


def _check_permissions(text: str) -> str:
    if not re.fullmatch(r"[0-7]{3,4}", text):
        raise ValueError(f'{text!r} are no permissions: write for example "0640"')
    return text


def _check_digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError("must be the 64 hexadecimal digits that sha256sum prints")
    return text.lower()


class FileOptions(CheckOptions):
    """A file, and how it should be."""

    type: Literal["file"]
    path: AbsolutePath = Field(
        description="The file or directory, or a pattern of several: `/srv/backup/*.tar.gz`."
    )
    exists: bool = Field(default=True, description="`false`: it fails when something is there.")
    warning: FileLimits = Field(default_factory=FileLimits, description="Limits of `warning`.")
    critical: FileLimits = Field(default_factory=FileLimits, description="Limits of `critical`.")
    owner: str | None = Field(default=None, description="The user that it must belong to.")
    group: str | None = Field(default=None, description="The group that it must belong to.")
    permissions: Annotated[str, AfterValidator(_check_permissions)] | None = Field(
        default=None, description='The permissions that it must have: `"0640"`.'
    )
    sha256: Annotated[str, AfterValidator(_check_digest)] | None = Field(
        default=None, description="The digest that its content must have."
    )
    changes: Duration | None = Field(
        default=None, description="A change of its content is a warning for so long: `1h`."
    )
    nul: bool = Field(default=False, description="Whether a hole of NUL bytes in it is a warning.")

    @model_validator(mode="after")
    def _check_together(self) -> FileOptions:
        if self.sha256 and is_pattern(self.path):
            raise ValueError("`sha256` is for one file: write its path without * ? [")
        if not self.exists and self.model_fields_set & _OF_FILES:
            raise ValueError("`exists: false` leaves nothing else to ask of it")
        windows = [each.growth.seconds for each in (self.warning, self.critical) if each.growth]
        if self.verify_for is not None or not windows:
            return self
        # What grew before a repair counts until its time is over: only then can it be proved.
        return self.model_copy(update={"verify_for": max(windows) + BEYOND})


#: Keys that ask something of what is there.
_OF_FILES = frozenset(
    {"critical", "warning", "owner", "group", "permissions", "sha256", "changes", "nul"}
)


async def look(options: FileOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding, on the path."""
    assert options.timeout is not None  # noqa: S101 - the configuration filled it in
    known: dict[str, tuple[tuple[int, ...], str]] = machine.memory.notes.setdefault("digests", {})
    try:
        seen = await machine.space.patience.call(
            f"the file {options.path}",
            _PATIENCE * options.timeout,
            partial(_look_at, options, dict(known)),
        )
    except Hung as error:
        return (make_finding(options, Status.UNKNOWN, "hung", f"cannot look: {error}"),)
    except OSError as error:
        why = f"cannot look at {options.path}: {error.strerror}"
        return (make_finding(options, Status.UNKNOWN, "unreadable", why),)
    versions = {entry.path: entry.version for entry in seen.entries}
    known.clear()
    known.update({path: (versions[path], text) for path, text in seen.digests.items()})
    now = machine.clock.now()
    return (
        judge(
            options,
            seen,
            wall=time.time(),
            growth=_add_growth(options, seen, machine, now),
            changed=_find_changes(options, seen, machine, now),
        ),
    )


def _look_at(options: FileOptions, known: Mapping[str, tuple[tuple[int, ...], str]]) -> Seen:
    """`known`: digests with the versions of files that they are of."""
    entries = list_entries(options.path)
    digests, holes, errors = {}, {}, {}
    files = [entry for entry in entries if entry.regular]
    if options.sha256 or options.changes:
        for entry in sorted(files, key=lambda each: -each.changed)[:_MOST_CONTENTS]:
            version, text = known.get(entry.path, ((), ""))
            try:
                digests[entry.path] = text if version == entry.version else digest(entry.path)
            except OSError as error:
                errors[entry.path] = error.strerror or str(error)
    if options.nul:
        for entry in files:
            try:
                if (hole := find_hole(entry.path)) is not None:
                    holes[entry.path] = hole
            except OSError as error:
                errors[entry.path] = error.strerror or str(error)
    return Seen(entries=entries, digests=digests, holes=holes, errors=errors)


def _add_growth(
    options: FileOptions, seen: Seen, machine: Machine, now: Instant
) -> Mapping[Seconds, float]:
    """Window -> by how much all together grew in it; remembered."""
    windows = [
        limits.growth.seconds for limits in (options.warning, options.critical) if limits.growth
    ]
    if not windows:
        return {}
    memory, longest = machine.memory, max(windows)
    total = sum(entry.size for entry in seen.entries if entry.regular)
    since, before, amounts = memory.get("growth") or (now, total, [])
    since = memory.notes.get("looked", since)
    memory.notes["looked"] = now
    amounts = add_amount(amounts, (since, now, max(0, total - before)), window=longest)
    if amounts or total != before or memory.get("growth") is None:
        memory.put("growth", [now, total, amounts])
    return {window: amount_within(amounts, now, window) for window in windows}


def _find_changes(
    options: FileOptions, seen: Seen, machine: Machine, now: Instant
) -> Mapping[str, Seconds]:
    """Files whose content is another than it was, and how long ago that was seen; remembered."""
    if options.changes is None:
        return {}
    memory = machine.memory
    contents: dict[str, str] = dict(memory.get("contents") or {})
    changed: dict[str, Instant] = dict(memory.get("changed") or {})
    for path, text in seen.digests.items():
        if contents.get(path, text) != text:
            changed[path] = now
        contents[path] = text
    there = {entry.path for entry in seen.entries}
    changed = {
        path: at for path, at in changed.items() if path in there and now - at < options.changes
    }
    memory.put("contents", {path: text for path, text in contents.items() if path in there})
    memory.put("changed", changed)
    return {path: now - at for path, at in changed.items()}


async def gather(options: FileOptions, finding: Finding, machine: Machine) -> tuple[Evidence, ...]:
    """The files as ls shows them, the newest first."""
    if finding.cause == "hung":
        return ()
    entries = await machine.space.patience.call(
        f"the evidence of {options.path}",
        options.timeout or 10.0,
        partial(list_entries, options.path),
    )
    rows = [
        f"{entry.permissions:04o}  {name_owner(entry.owner)}:{name_group(entry.group)}"
        f"  {entry.size:>12}  {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(entry.changed))}"
        f"  {entry.path}"
        for entry in sorted(entries, key=lambda each: -each.changed)[:_MOST_ROWS]
    ]
    if len(entries) > _MOST_ROWS:
        rows.append(f"({len(entries) - _MOST_ROWS} more)")
    return (Evidence(title=f"Files of {options.path}", text="\n".join(rows) or "(none)"),)


FILE = CheckType(
    name="file",
    summary="A file is there, young, of the right size, and as it should be; or it is not there.",
    model=FileOptions,
    look=look,
    causes=CAUSES,
    measurements=MEASUREMENTS,
    gather=gather,
    watches=lambda options: frozenset({Watch(trigger="inotify", what=options.path)}),
    names=lambda options: frozenset() if is_pattern(options.path) else frozenset({options.path}),
)
