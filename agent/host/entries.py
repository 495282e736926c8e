"""Entries of the journal from a cursor on, through journalctl: bounded in time and bytes.

The format: https://systemd.io/JOURNAL_EXPORT_FORMATS/#journal-json-format.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from agent.core.model import Seconds
from agent.errors import Unavailable
from agent.host.journal import ENVIRONMENT

#: What is read of each entry, beside its cursor and its time.
_FIELDS = "MESSAGE,SYSLOG_IDENTIFIER,_SYSTEMD_UNIT"
#: Longest entry that is read whole, as JSON in bytes; what is not text takes four for each.
_LONGEST = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of the journal."""

    message: bytes
    #: Whose it is: the name that it logs by, or else its unit.
    origin: str
    #: The wall clock in seconds.
    at: float


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What was read."""

    #: Oldest first.
    entries: tuple[Entry, ...]
    #: Where to read on.
    cursor: str
    #: Everything that is there was read.
    whole: bool = True


class _TooLong(Exception):
    """An entry that cannot be read whole."""


async def find_cursor(seconds: Seconds) -> str:
    """The cursor of the last entry; empty where there is none. Raises Unavailable."""
    return (await _read(["--lines=1"], cursor="", most_bytes=_LONGEST, seconds=seconds)).cursor


async def read_entries(
    cursor: str, filters: Sequence[str], *, most_bytes: int, seconds: Seconds
) -> Batch:
    """Entries after a cursor that pass the filters (arguments of journalctl). Raises Unavailable.

    An empty cursor is the journal's beginning.
    """
    # Not --after-cursor: with filters that leave out the cursor's own entry, it skips the first
    # that passes them (systemd 252). So that entry may come once more.
    begin = [f"--cursor={cursor}"] if cursor else []
    return await _read([*begin, *filters], cursor=cursor, most_bytes=most_bytes, seconds=seconds)


async def read_last(filters: Sequence[str], lines: int, seconds: Seconds) -> tuple[Entry, ...]:
    """The last entries that pass the filters. Raises Unavailable."""
    arguments = [f"--lines={lines}", *filters]
    return (await _read(arguments, cursor="", most_bytes=_LONGEST, seconds=seconds)).entries


async def _read(
    arguments: Sequence[str], *, cursor: str, most_bytes: int, seconds: Seconds
) -> Batch:
    try:
        return await _run(["--all", *arguments], cursor, most_bytes, seconds)
    except _TooLong:
        # Without --all, what is longer than 4096 bytes is left out.
        return await _run(arguments, cursor, most_bytes, seconds)


async def _run(arguments: Sequence[str], cursor: str, most_bytes: int, seconds: Seconds) -> Batch:
    argv = ["journalctl", "--quiet", "--no-pager", "--output=json", f"--output-fields={_FIELDS}"]
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=ENVIRONMENT,
        )
    except OSError as error:
        raise Unavailable(f"cannot read the journal: cannot start journalctl: {error}") from error
    entries: list[Entry] = []
    begin, whole, total, complaint = cursor, False, 0, ""
    try:
        async with asyncio.timeout(seconds):
            async for line in _split(process.stdout):
                if line.startswith(b"{"):
                    cursor, entry = _parse(line)
                    entries += [entry] if cursor != begin else []
                else:
                    complaint = line.decode(errors="replace").strip()[:300]
                total += len(line)
                if total >= most_bytes:
                    break
            else:
                whole = True
                await process.wait()
    except TimeoutError:
        if not entries:
            why = f"journalctl took longer than {seconds:g} s"
            raise Unavailable(f"cannot read the journal: {why}") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()
    if whole and process.returncode != 0:
        why = complaint or f"exit code {process.returncode}"
        raise Unavailable(f"cannot read the journal: {why}")
    return Batch(entries=tuple(entries), cursor=cursor, whole=whole)


async def _split(stream: asyncio.StreamReader | None) -> AsyncIterator[bytes]:
    """The lines of a stream. Raises _TooLong."""
    rest = b""
    while stream is not None and (chunk := await stream.read(65536)):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > _LONGEST:
            raise _TooLong
    if rest:
        yield rest


def _parse(line: bytes) -> tuple[str, Entry]:
    """Cursor and entry. Raises Unavailable for what journalctl does not write."""
    try:
        fields = json.loads(line)
        return str(fields["__CURSOR"]), Entry(
            message=_read_field(fields.get("MESSAGE")),
            origin=_read_field(fields.get("SYSLOG_IDENTIFIER")).decode(errors="replace")
            or str(fields.get("_SYSTEMD_UNIT", "")),
            at=int(fields["__REALTIME_TIMESTAMP"]) / 1e6,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"cannot read the journal: journalctl wrote garbage: {error}") from error


def _read_field(value: object) -> bytes:
    """A field: text, bytes as numbers where it is no text, a list of such, or null if too long."""
    match value:
        case str():
            return value.encode(errors="replace")
        case list() if value and all(isinstance(each, int) for each in value):
            return bytes(value)
        case list() if value:
            return b" ".join(_read_field(each) for each in value)
    return b""
