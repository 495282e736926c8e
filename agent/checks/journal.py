"""`type: journal`: what is written to the journal; or, without a pattern, that the journal is well.

Nothing is read while no file of the journal changed. Otherwise each look starts one journalctl,
from where the look before came to.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from agent.checks.check import CheckType, Proposal, StepOptions, Watch
from agent.checks.journal_findings import (
    CAUSES,
    MEASUREMENTS,
    Health,
    judge_health,
    make_finding,
)
from agent.checks.lines import BEYOND, LineOptions, count_lines, judge_lines, show_lines
from agent.core.model import Evidence, Finding, Instant, Status
from agent.errors import Unavailable
from agent.host.entries import Batch, find_cursor, read_entries, read_last
from agent.host.journal import read_log
from agent.host.journald import PERSISTENT, VOLATILE, Storage, read_storage, verify_file
from agent.host.machine import Machine
from agent.host.patterns import Scan
from agent.host.space import Hung
from agent.host.syslog import SOCKET, make_canary, send_line
from agent.host.tally import add_amount, amount_within
from agent.host.text import fit_line
from agent.host.units import check_unit_name

#: Most that one look reads, in bytes of JSON and as a share of `timeout`.
_MOST_BYTES, _READING = 4 << 20, 0.4
#: Of `timeout`: how long a canary is waited for, and the files of the journal.
_CANARY, _PATIENCE = 0.2, 0.2
_PAUSE = 0.2
#: Entries that are farther behind than this, in seconds, are skipped.
_MOST_BEHIND = 600.0
#: An archived file is verified once, and again after this, in seconds: disks go bad.
_VERIFY_AGAIN = 7 * 86_400.0
#: What journald and rsyslog say when they lose lines, and for how long that counts.
_TROUBLES = {
    "dropping": "^(Suppressed|Missed) [0-9]+ (kernel )?messages|^imuxsock lost [0-9]+ messages",
    # With and without an end of it in sight.
    "suspended": "^action '.*' (suspended|\\(module '.*'\\) message lost)",
}
_TROUBLED_FOR = 300.0
_WRITERS = ["SYSLOG_IDENTIFIER=systemd-journald", "SYSLOG_IDENTIFIER=rsyslogd"]
_JOURNALD = "systemd-journald.service"
_EVIDENCE_LINES = 30


class JournalOptions(LineOptions):
    """Entries of the journal that mean something; without patterns, the journal itself."""

    kind: ClassVar[str] = "journal"
    known_causes: ClassVar[frozenset[str]] = frozenset(CAUSES)

    type: Literal["journal"]
    unit: Annotated[str, AfterValidator(check_unit_name)] | None = Field(
        default=None, description="Only entries of this unit, and systemd's about it."
    )
    identifier: str | None = Field(
        default=None,
        min_length=1,
        description="Only entries of who logs by this name: `kernel`, `sshd`.",
    )
    priority: Literal["emerg", "alert", "crit", "err", "warning", "notice", "info"] | None = Field(
        default=None, description="Only entries at least this severe."
    )
    verify: bool = Field(
        default=True,
        description="Whether archived files of the journal are verified, one at a time.",
    )
    persistent: bool | None = Field(
        default=None,
        description="Whether the journal must be on the disk; left out: as journald.conf says.",
    )
    canary: bool = Field(
        default=False,
        description="Send a line to the system's logger once every `every`: it must arrive.",
    )

    @model_validator(mode="after")
    def _complete(self) -> JournalOptions:
        given = self.model_fields_set
        if self.patterns:
            if found := sorted(given & {"canary", "persistent", "verify"}):
                raise ValueError(
                    f"`{found[0]}` is for the journal itself: give it a check without patterns"
                )
        elif found := sorted(given & {"identifier", "ignore", "more_than", "priority", "unit"}):
            raise ValueError(
                f"`{found[0]}` is for lines: write a pattern of them in `critical` or `warning`"
            )
        if self.verify_for is not None or not self.patterns:
            return self
        # Lines of before a repair count until their time is over: only then can it be proved.
        return self.model_copy(update={"verify_for": self.more_than.seconds + BEYOND})

    @property
    def subject(self) -> str:
        return self.unit or self.identifier or "journal"

    @property
    def filters(self) -> list[str]:
        """As journalctl takes them."""
        filters = [f"--unit={self.unit}"] if self.unit else []
        filters += [f"--identifier={self.identifier}"] if self.identifier else []
        return [*filters, *([f"--priority={self.priority}"] if self.priority else [])]


async def look(options: JournalOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding: on the lines, or on the journal itself."""
    assert options.timeout is not None  # noqa: S101 - the configuration filled it in
    try:
        storage = await machine.space.patience.call(
            "the files of the journal", _PATIENCE * options.timeout, read_storage
        )
        if options.patterns:
            return (await _look_for_lines(options, machine, storage),)
        return (await _look_at_journal(options, machine, storage),)
    except (Unavailable, OSError) as error:
        cause = "hung" if isinstance(error, Hung) else "unavailable"
        return (make_finding(options.subject, Status.UNKNOWN, cause, str(error)),)


# Lines


async def _look_for_lines(options: JournalOptions, machine: Machine, storage: Storage) -> Finding:
    scan = Scan(options.patterns, options.ignore)
    now = machine.clock.now()
    since, batch = await _read(machine, storage, options.filters, now, options.timeout or 10.0)
    for entry in batch.entries:
        # An entry may have lines of its own, and counts as one.
        scan.take(entry.message.replace(b"\n", b" ") + b"\n")
    lines = count_lines(options, machine.memory, scan, since=since, now=now)
    where = f"the journal of {options.subject}" if options.filters else "the journal"
    verdict = judge_lines(options, lines, where)
    facts = dict(verdict.facts)
    if not batch.whole:
        facts["Behind"] = "there is more than one look reads: the rest follows"
    return make_finding(
        options.subject,
        verdict.status,
        verdict.cause,
        verdict.summary,
        facts=facts,
        measurements={"matches_count": round(verdict.count, 2)},
    )


async def _read(
    machine: Machine, storage: Storage, filters: Sequence[str], now: Instant, timeout: float
) -> tuple[Instant, Batch]:
    """What was added since the last look, and when that was. Where it came to is remembered."""
    memory, seconds = machine.memory, _READING * timeout
    cursor: str | None = memory.get("cursor")
    since: Instant = memory.notes.get("looked", memory.get("looked") or now)
    signature = storage.signature
    if cursor is None:
        batch = Batch(entries=(), cursor=await find_cursor(seconds))
    elif memory.notes.get("signature") == signature:
        batch = Batch(entries=(), cursor=cursor)
    else:
        batch = await read_entries(cursor, filters, most_bytes=_MOST_BYTES, seconds=seconds)
        if not batch.whole and batch.entries[-1].at < time.time() - _MOST_BEHIND:
            batch = Batch(entries=batch.entries, cursor=await find_cursor(seconds), whole=False)
    memory.notes["looked"] = now
    memory.notes["signature"] = signature if batch.whole else None
    if batch.cursor != cursor:
        memory.put("cursor", batch.cursor)
        memory.put("looked", now)
    return since, batch


# The journal itself


async def _look_at_journal(options: JournalOptions, machine: Machine, storage: Storage) -> Finding:
    assert options.timeout is not None  # noqa: S101 - the configuration filled it in
    now = machine.clock.now()
    since, batch = await _read(machine, storage, _WRITERS, now, options.timeout)
    scan = Scan(_TROUBLES)
    for entry in batch.entries:
        scan.take(entry.message.replace(b"\n", b" ") + b"\n")
    expected = storage.persistent_wanted if options.persistent is None else options.persistent
    return judge_health(
        Health(
            storage=storage,
            persistent=expected,
            dead=await _find_death(machine),
            silent=await _send_canary(options, machine, now),
            corrupt=_verify(machine, storage, now) if options.verify else {},
            troubles=_count_troubles(machine, scan, since, now),
            wall=time.time(),
            uptime=time.clock_gettime(time.CLOCK_BOOTTIME),
        )
    )


def _count_troubles(machine: Machine, scan: Scan, since: Instant, now: Instant) -> dict[str, str]:
    """Cause -> the last line of it, of those within the last minutes; remembered."""
    kept = machine.memory.get("troubles") or {}
    left, found = {}, {}
    for cause in _TROUBLES:
        amounts, last = kept.get(cause, ([], ""))
        amounts = add_amount(amounts, (since, now, scan.counts[cause]), window=_TROUBLED_FOR)
        last = (scan.lines(cause) or [last])[-1]
        if amount_within(amounts, now, _TROUBLED_FOR) > 0:
            left[cause] = [amounts, last]
            found[cause] = last
    if left or kept:
        machine.memory.put("troubles", left)
    return found


async def _find_death(machine: Machine) -> str:
    """Why journald takes no lines; empty: it runs, or that cannot be told."""
    if machine.systemd is None:
        return ""
    try:
        state = await machine.systemd.unit(_JOURNALD)
    except Unavailable:
        return ""
    # Between the two halves of a restart it is down, and its start is queued.
    coming = state.job is not None and state.job.type in ("start", "restart")
    if coming or state.active_state in ("active", "activating", "deactivating", "reloading"):
        return ""
    return f"{_JOURNALD} is {state.active_state} ({state.sub_state})"


async def _send_canary(options: JournalOptions, machine: Machine, now: Instant) -> str:
    """Why a line for the system's logger does not arrive; empty when it does, or is not due."""
    if not options.canary:
        return ""
    assert options.timeout is not None  # noqa: S101 - the configuration filled both in
    assert options.every is not None  # noqa: S101
    notes = machine.memory.notes
    sent, why = notes.get("canary", (None, ""))
    # One that did not arrive is followed by another at once: somebody may wait for the proof.
    if sent is not None and not why and now - sent < 0.9 * options.every:
        return ""
    line, seconds = make_canary(), _CANARY * options.timeout
    cursor = await find_cursor(seconds)
    try:
        send_line(line)
        why = f"a line for the system's logger did not arrive within {seconds:g} s"
        if await _await_line(line, cursor, seconds):
            why = ""
    except OSError as error:
        why = f"nothing takes lines at {SOCKET}: {error.strerror}"
    notes["canary"] = now, why
    return why


async def _await_line(line: str, cursor: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        batch = await read_entries(
            cursor, ["--identifier=hostmend"], most_bytes=_MOST_BYTES, seconds=seconds
        )
        if any(line.encode() in entry.message for entry in batch.entries):
            return True
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_PAUSE)


def _verify(machine: Machine, storage: Storage, now: Instant) -> dict[str, str]:
    """Path -> what is wrong, of archived files; one that nobody knows begins to be verified."""
    memory, notes = machine.memory, machine.memory.notes
    known: dict[str, list[object]] = dict(memory.get("verified") or {})
    if (under_way := notes.get("verifying")) is not None and under_way[1].done():
        del notes["verifying"]
        file, task = under_way
        if not task.cancelled() and task.exception() is None:
            # What could not be told is asked again as late as what is well.
            known[file.path] = [*file.version, now, task.result() or ""]
    archived = {file.path: file for file in storage.files if file.archived}
    known = {
        path: row
        for path, row in known.items()
        if path in archived and row[:3] == archived[path].version
    }
    if known or memory.get("verified"):
        memory.put("verified", known)
    due = [
        file
        for path, file in archived.items()
        if path not in known or now - float(str(known[path][3])) > _VERIFY_AGAIN
    ]
    if due and "verifying" not in notes:
        work = asyncio.get_running_loop().create_task(verify_file(due[0].path))
        notes["verifying"] = due[0], work
    return {path: str(row[4]) for path, row in known.items() if row[4]}


# Evidence and proposals


async def gather(
    options: JournalOptions, finding: Finding, machine: Machine
) -> tuple[Evidence, ...]:
    """The lines that count and the last of all; or the journal's files, and journald's own log."""
    if options.patterns:
        return (*show_lines(options, machine.memory), await _show_last(options))
    items = []
    if finding.cause != "hung":
        storage = await machine.space.patience.call(
            "the files of the journal", options.timeout or 10.0, read_storage
        )
        rows = [f"{file.size:>12}  {file.path}" for file in storage.files]
        items.append(Evidence(title="Files of the journal", text="\n".join(rows) or "(none)"))
    if corrupt := {
        path: row[4] for path, row in (machine.memory.get("verified") or {}).items() if row[4]
    }:
        rows = [fit_line(str(why)) for why in corrupt.values()]
        items.append(Evidence(title="Verified by journalctl", text="\n".join(rows)))
    if machine.systemd is not None:
        try:
            state = await machine.systemd.unit(_JOURNALD)
            log = await read_log(state.id, state.invocation_id)
        except Unavailable as error:
            log = str(error)
        title = f"Log of the last start of {_JOURNALD}"
        items.append(Evidence(title=title, text=log.strip() or "(no lines)"))
    return tuple(items)


async def _show_last(options: JournalOptions) -> Evidence:
    title = f"Last entries of {options.subject}"
    try:
        entries = await read_last(options.filters, _EVIDENCE_LINES, options.timeout or 10.0)
    except Unavailable as error:
        return Evidence(title=title, text=str(error))
    rows = [
        f"{time.strftime('%H:%M:%S', time.localtime(entry.at))} {entry.origin}: "
        f"{fit_line(entry.message.decode(errors='replace'))}"
        for entry in entries
    ]
    return Evidence(title=title, text="\n".join(rows) or "(none)")


async def propose(machine: Machine) -> tuple[Proposal, ...]:
    """The journal itself, where journald runs."""
    if machine.systemd is None or await _find_death(machine):
        return ()
    return (
        Proposal(name="journal", options={"type": "journal"}, why="journald keeps this host's log"),
    )


def _watch(_options: JournalOptions) -> frozenset[Watch]:
    return frozenset(
        Watch(trigger="journal", what=f"{place}/*/system.journal")
        for place in (PERSISTENT, VOLATILE)
    )


def _default_ladder(options: JournalOptions) -> tuple[StepOptions, ...]:
    if options.patterns:
        return ()
    return tuple(StepOptions(remedy=name) for name in ("repair-journal", "restart-logging"))


JOURNAL = CheckType(
    name="journal",
    summary="What is written to the journal; or, without a pattern, that the journal is well.",
    model=JournalOptions,
    look=look,
    causes=CAUSES,
    measurements=MEASUREMENTS,
    propose=propose,
    gather=gather,
    watches=_watch,
    default_ladder=_default_ladder,
    defaults={"every": "30s", "confirm": "1 of 1"},
    names=lambda options: frozenset({options.unit}) if options.unit else frozenset(),
    own_causes=lambda options: frozenset(options.patterns),
)
