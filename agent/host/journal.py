"""The journal, through journalctl: bounded in time and output, and quick to give up."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.errors import Unavailable
from agent.host.command import run_command
from agent.host.stops import TOLD, Told

#: Longest that one reading may take: a corrupt or huge journal must not hold up a look.
_TIME_LIMIT = 3.0
_LOG_FIELDS = (
    "MESSAGE",
    "SYSLOG_IDENTIFIER",
    "_COMM",
    "_PID",
    "_SYSTEMD_UNIT",
    "_SYSTEMD_INVOCATION_ID",
    "INVOCATION_ID",
)
#: For journalctl: plain text, and nothing of what the agent itself was started with.
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "SYSTEMD_COLORS": "0",
    "SYSTEMD_PAGER": "",
}


def boot_id() -> str:
    """This boot's id as journal fields write it. Raises Unavailable."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    except OSError as error:
        raise Unavailable(f"cannot read the journal: no boot id: {error}") from error


async def read_told(
    units: Iterable[str], *, since_wall: float, since_monotonic: float, most: int = 40
) -> tuple[Told, ...]:
    """What systemd itself wrote about these units (primary names) in this boot, newest first.

    `since_wall` is the wall clock as it was then (0: no limit), `since_monotonic` CLOCK_MONOTONIC,
    both in seconds: a container may share its boot id with earlier lives of itself. Raises
    Unavailable.
    """
    matches = [f"_BOOT_ID={boot_id()}", "_PID=1"]
    matches += [f"UNIT={unit}" for unit in units]
    matches += [f"MESSAGE_ID={id}" for id in TOLD]
    fields = "MESSAGE_ID,UNIT,JOB_TYPE,JOB_RESULT"
    options = ["--reverse", f"--lines={most}", "--output=json", f"--output-fields={fields}"]
    if since_wall:
        options.append(f"--since=@{since_wall:.6f}")
    text = await _read([*options, *matches])
    told = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            told.append(
                Told(
                    unit=str(entry["UNIT"]),
                    message_id=str(entry["MESSAGE_ID"]),
                    monotonic=int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6,
                    job_type=str(entry.get("JOB_TYPE", "")),
                    job_result=str(entry.get("JOB_RESULT", "")),
                )
            )
    return tuple(line for line in told if line.monotonic >= since_monotonic)


async def read_log(
    unit: str,
    invocation_id: str,
    *,
    since: float | None = None,
    lines: int = 60,
    most_bytes: int = 16 * 1024,
) -> str:
    """The last lines of one start of a unit (primary name): its own, and systemd's about it.

    Without an invocation id, which systemd forgets with a unit that nothing refers to, that of its
    last start in this boot; empty if it was never started. `since`: only lines from then on, in
    seconds of the wall clock. Raises Unavailable.
    """
    invocation_id = invocation_id or await _find_invocation(unit)
    if not invocation_id:
        return ""
    # What a process said last may still be on its way into the journal when its death is seen.
    with contextlib.suppress(Unavailable):
        await _read(["--sync"])
    matches = [f"_SYSTEMD_INVOCATION_ID={invocation_id}", "+", f"INVOCATION_ID={invocation_id}"]
    matches += ["+", f"_SYSTEMD_UNIT={unit}", "+", f"UNIT={unit}", "_PID=1"]
    options = ["--reverse", f"--lines={lines}", "--output=json"]
    options.append(f"--output-fields={','.join(_LOG_FIELDS)}")
    if since is not None:
        options.append(f"--since=@{since:.6f}")
    text = _write_log(_pick_start(await _read([*options, *matches]), unit, invocation_id))
    if len(text.encode()) <= most_bytes:
        return text
    kept = text.encode()[-most_bytes:].decode(errors="ignore")
    return "(earlier lines left out)\n" + kept.partition("\n")[2]


def _pick_start(text: str, unit: str, invocation_id: str) -> list[dict[str, Any]]:
    """The entries of one start of a unit, oldest first; of what is given newest first.

    A process's last words that the journal takes after the unit is down carry the unit's name and
    no invocation id any more (systemd removes the link that journald reads it from: see
    unit_unlink_state_files in its src/core/unit.c). They belong to the start that they stand in.
    """
    kept: list[dict[str, Any]] = []
    reached = False
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            by_systemd = str(entry["_PID"]) == "1"
        except (ValueError, KeyError, TypeError):
            continue
        start = entry.get("INVOCATION_ID" if by_systemd else "_SYSTEMD_INVOCATION_ID")
        if start == invocation_id:
            kept.append(entry)
            reached = True
        elif start is not None:
            if reached:
                break
            # A later start: what came after this line belongs to it.
            kept.clear()
        elif not by_systemd and entry.get("_SYSTEMD_UNIT") == unit:
            kept.append(entry)
    return kept[::-1]


def _write_log(entries: Iterable[Mapping[str, Any]]) -> str:
    """Entries as journalctl's short-iso has them, without the host's name."""
    lines = []
    for entry in entries:
        at = datetime.fromtimestamp(int(entry["__REALTIME_TIMESTAMP"]) / 1e6, UTC).astimezone()
        who = entry.get("SYSLOG_IDENTIFIER") or entry.get("_COMM") or "unknown"
        said = _read_message(entry.get("MESSAGE")).replace("\n", "\n    ")
        lines.append(f"{at:%Y-%m-%dT%H:%M:%S%z} {who}[{entry['_PID']}]: {said}\n")
    return "".join(lines)


def _read_message(message: object) -> str:
    """Text; bytes that are not text; nothing for what is longer than 4096 bytes (journalctl(1))."""
    if isinstance(message, list):
        with contextlib.suppress(ValueError, TypeError):
            return bytes(message).decode(errors="replace")
    return message if isinstance(message, str) else "(a line too long to show)"


async def read_kernel_log(lines: int = 2000) -> str:
    """The last messages of the kernel in this boot, oldest first, as journald took them.

    Raises Unavailable.
    """
    options = ["--boot", "--reverse", "--output=cat", f"--lines={lines}"]
    text = await _read([*options, "_TRANSPORT=kernel"])
    return "\n".join(reversed(text.splitlines()))


async def read_on(invocation_id: str, *, after: str = "", lines: int = 400) -> tuple[str, str]:
    """The last lines of one start of a unit that came after a cursor, and the cursor for later.

    Without a cursor, or with one that this journal does not know: of all its lines. Raises
    Unavailable.
    """
    matches = [f"_SYSTEMD_INVOCATION_ID={invocation_id}", "+", f"INVOCATION_ID={invocation_id}"]
    options = ["--no-hostname", "--output=short-iso", f"--lines={lines}", "--show-cursor"]
    if after:
        with contextlib.suppress(Unavailable):
            text = await _read([*options, f"--after-cursor={after}", *matches])
            return _part_cursor(text, after)
    return _part_cursor(await _read([*options, *matches]), after)


def _part_cursor(text: str, known: str) -> tuple[str, str]:
    """journalctl closes with `-- cursor: ...`, unless there was no line."""
    before, found, cursor = text.rpartition("-- cursor: ")
    return (before, cursor.strip()) if found else (text, known)


async def _find_invocation(unit: str) -> str:
    matches = [f"_BOOT_ID={boot_id()}", "_PID=1", f"UNIT={unit}"]
    matches += [f"MESSAGE_ID={id}" for id in TOLD]
    options = ["--reverse", "--lines=1", "--output=json", "--output-fields=INVOCATION_ID"]
    text = await _read([*options, *matches])
    try:
        return str(json.loads(text).get("INVOCATION_ID", ""))
    except ValueError:
        return ""


async def _read(arguments: list[str]) -> str:
    """What journalctl prints. Raises Unavailable if it fails, or runs past its time."""
    argv = ["journalctl", "--quiet", "--no-pager", *arguments]
    try:
        printed = await run_command(argv, seconds=_TIME_LIMIT, environment=ENVIRONMENT)
    except Unavailable as error:
        raise Unavailable(f"cannot read the journal: {error}") from error
    if printed.code is None:
        raise Unavailable(f"cannot read the journal: journalctl took longer than {_TIME_LIMIT:g} s")
    if printed.code != 0:
        why = printed.err.strip() or f"exit code {printed.code}"
        raise Unavailable(f"cannot read the journal: {why}")
    return printed.out
