"""`type: log`: what is written to logs, and that it can be.

Lines are searched for patterns and counted within a time, each line once, across rotation and
restarts (`agent.host.follow`). A look begins with stat(2), and reads only what was added. It counts
by when it saw a line: times in logs have too many forms, and clocks of their own.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from agent.checks.check import CheckType, StepOptions, Watch
from agent.checks.lines import BEYOND, LineOptions, count_lines, judge_lines, show_lines
from agent.checks.log_evidence import propose, take_evidence
from agent.checks.log_findings import CAUSES, MEASUREMENTS, Log, judge, make_finding
from agent.checks.values import AbsolutePath, Growth, Rate
from agent.core.model import Evidence, Finding, Instant, Seconds, Status
from agent.host.follow import Added, Place
from agent.host.holders import find_writers
from agent.host.logs import Reading, is_meant, is_pattern, read_logs
from agent.host.machine import Machine
from agent.host.patterns import Scan
from agent.host.space import Hung
from agent.host.syslog import SOCKET, await_line, find_size, make_canary, send_line
from agent.host.tail import Allowance
from agent.host.tally import Amount, add_amount, amount_within

#: Most that one look reads of all files together, in bytes and as a share of `timeout`.
_MOST_BYTES, _READING = 16 << 20, 0.3
#: Of `timeout`: when reading is given up, how long a canary and who writes are waited for.
_PATIENCE, _CANARY, _SEARCH = 0.5, 0.2, 0.1

#: Each is for causes of its own.
_LADDER = (
    "restore-log-directory",
    "release-deleted-files",
    "rotate-runaway-log",
    "restart-logging",
)


class LogOptions(LineOptions):
    """Logs, and what is wrong when it stands in them."""

    kind: ClassVar[str] = "log"
    known_causes: ClassVar[frozenset[str]] = frozenset(CAUSES)

    type: Literal["log"]
    path: AbsolutePath = Field(
        description="The log, or a pattern of several: `/var/log/shop/*.log`. Older generations "
        "and packed files are left out."
    )
    growth: Growth = Field(
        default=Rate(200 << 20, 60.0),
        description="It fails when a file grows by more within the time: `200M in 1m`.",
    )
    required: bool = Field(default=True, description="Whether it fails when there is no such file.")
    canary: bool = Field(
        default=False,
        description="Send a line to the system's logger once every `every`: it must arrive.",
    )

    @model_validator(mode="after")
    def _complete(self) -> LogOptions:
        if self.canary and is_pattern(self.path):
            raise ValueError("`canary` is for one file: write its path without * ? [")
        if self.verify_for is not None:
            return self
        # Lines of before a repair count until their time is over: only then can it be proved.
        window = max(self.more_than.seconds, self.growth.seconds)
        return self.model_copy(update={"verify_for": window + BEYOND})


async def look(options: LogOptions, machine: Machine) -> tuple[Finding, ...]:
    """A finding on the lines and one on each file; where the path is one file, one on both."""
    assert options.timeout is not None  # noqa: S101 - the configuration filled it in
    memory, now = machine.memory, machine.clock.now()
    begun: Instant | None = memory.get("looked")
    since: Instant = memory.notes.get("looked", now if begun is None else begun)
    places = _recall(options, machine)
    scan = Scan(options.patterns, options.ignore)
    try:
        silent = await _send_canary(options, machine, now)
        reading = await machine.space.patience.call(
            f"the log {options.path}",
            _PATIENCE * options.timeout,
            partial(
                read_logs,
                options.path,
                places,
                scan,
                Allowance(_MOST_BYTES, _READING * options.timeout),
                now=now,
                from_end=begun is None,
            ),
        )
    except Hung as error:
        return (make_finding(options.path, Status.UNKNOWN, "hung", f"cannot look: {error}"),)
    lines = count_lines(options, memory, scan, since=since, now=now)
    logs, directory = [], _remember_directory(machine, reading)
    for path, added in reading.files.items():
        log = _describe(options, machine, path, added, places, since=since, now=now)
        if log is not None:
            log = replace(log, directory=reading.directory, last_seen=directory, silent=silent)
            logs.append(await _name_writers(log, options.timeout, machine))
    if not logs:
        log = _describe_nothing(options, machine, reading, now, seen=begun is not None)
        logs.append(replace(log, last_seen=directory))
    elif is_pattern(options.path):
        memory.forget(f"absent:{options.path}")
    memory.notes["looked"] = now
    if memory.written or begun is None:
        memory.put("looked", now)
    verdict = judge_lines(options, lines, options.path) if options.patterns else None
    return judge(options.path, logs, verdict, left_out=reading.left_out)


def _recall(options: LogOptions, machine: Machine) -> Mapping[str, Place]:
    """Where reading has come to, by path. What the check's path no longer means is forgotten."""
    memory, places = machine.memory, {}
    for key in sorted(memory.keys()):
        what, _, path = key.partition(":")
        if path and not is_meant(options.path, path):
            memory.forget(key)
        elif what == "at":
            places[path] = Place.unpack(memory.get(key))
    return places


def _describe(
    options: LogOptions,
    machine: Machine,
    path: str,
    added: Added,
    places: Mapping[str, Place],
    *,
    since: Instant,
    now: Instant,
) -> Log | None:
    """One file as it is now, and remembered. None: it is gone, and nobody need be told."""
    memory, place = machine.memory, added.place
    gone = added.error == errno.ENOENT
    if gone and is_pattern(options.path) and not added.held:
        # Who stands for many logs misses none of them, but may have more to read of one.
        for what in ("growth", "absent") if place.moved else ("growth", "absent", "at"):
            memory.forget(f"{what}:{path}")
        if place.moved:
            memory.put(f"at:{path}", place.pack())
        return None
    absent = 0.0
    if gone:
        absent = _time_absence(machine, path, now, seen=path in places)
    else:
        memory.forget(f"absent:{path}")
    if path in places or place != Place():
        memory.put(f"at:{path}", place.pack())
    return Log(
        path=path,
        limit=options.growth,
        required=options.required,
        error=added.error,
        absent=absent,
        held=tuple((held.holder, now - held.since) for held in added.held),
        size=place.mark.size if place.mark else 0,
        growth=_add_growth(options, machine, path, (since, now, added.grown)),
        behind=added.behind,
        skipped=added.skipped,
        hole=place.mark.hole if place.mark else None,
    )


def _remember_directory(machine: Machine, reading: Reading) -> tuple[int, int, int] | None:
    """Whose the directory is, with its permissions; or was, when it was last there."""
    memory = machine.memory
    known: Sequence[int] | None = memory.get("directory")
    if reading.directory_state is None:
        return None if known is None else (known[0], known[1], known[2])
    if known is None or tuple(known) != reading.directory_state:
        memory.put("directory", reading.directory_state)
    return reading.directory_state


def _describe_nothing(
    options: LogOptions, machine: Machine, reading: Reading, now: Instant, *, seen: bool
) -> Log:
    """A pattern that no file matches."""
    return Log(
        path=options.path,
        limit=options.growth,
        required=options.required,
        error=errno.ENOENT,
        directory=reading.directory,
        absent=_time_absence(machine, options.path, now, seen=seen),
    )


async def _name_writers(log: Log, timeout: Seconds, machine: Machine) -> Log:
    """With who writes it, where that matters."""
    if log.growth <= log.limit.amount:
        return log
    search = partial(find_writers, log.path)
    try:
        found = await machine.space.patience.call(
            f"the writers of {log.path}", _SEARCH * timeout, search
        )
    except Hung:
        return log
    return replace(log, writers=tuple(found))


def _time_absence(machine: Machine, path: str, now: Instant, *, seen: bool) -> Seconds:
    """For how long nothing has been there. What was never `seen` was never there."""
    key = f"absent:{path}"
    since: Instant | None = machine.memory.get(key)
    if since is None:
        since = now if seen else 0.0
        machine.memory.put(key, since)
    return now - since


def _add_growth(options: LogOptions, machine: Machine, path: str, new: Amount) -> float:
    """By how much the file grew within the time of `growth`; remembered."""
    key, window = f"growth:{path}", options.growth.seconds
    amounts = add_amount(machine.memory.get(key) or (), new, window=window)
    if amounts:
        machine.memory.put(key, amounts)
    else:
        machine.memory.forget(key)
    return amount_within(amounts, new[1], window)


# The canary


async def _send_canary(options: LogOptions, machine: Machine, now: Instant) -> str:
    """Why a line for the system's logger does not arrive; empty when it does, or is not due."""
    if not options.canary:
        return ""
    assert options.timeout is not None  # noqa: S101 - the configuration filled both in
    assert options.every is not None  # noqa: S101
    notes, call, path = machine.memory.notes, machine.space.patience.call, options.path
    sent, why = notes.get("canary", (None, ""))
    # One that did not arrive is followed by another at once: somebody may wait for the proof.
    if sent is not None and not why and now - sent < 0.9 * options.every:
        return ""
    seconds = _CANARY * options.timeout
    # One may fall between a rotation and its logger's restart, or into what was rotated.
    for _ in range(2):
        line, why = make_canary(), ""
        size = await call(f"the size of {path}", seconds, partial(find_size, path))
        try:
            send_line(line)
        except OSError as error:
            why = f"cannot be written: nothing takes lines at {SOCKET} ({error.strerror})"
            break
        search = partial(await_line, path, line, size, seconds)
        if await call(f"the canary in {path}", 2 * seconds, search):
            break
        why = f"did not get two lines for the system's logger, each within {seconds:g} s"
    notes["canary"] = now, why
    return str(why)


async def gather(options: LogOptions, finding: Finding, machine: Machine) -> tuple[Evidence, ...]:
    """The lines that count, the end of the log, and who writes it."""
    items = show_lines(options, machine.memory)
    path = finding.subject
    if is_pattern(path) or finding.cause == "hung":
        return items
    assert options.timeout is not None  # noqa: S101 - the configuration filled it in
    found = await machine.space.patience.call(
        f"the evidence of {path}", options.timeout, partial(take_evidence, path)
    )
    return (*items, *found)


LOG = CheckType(
    name="log",
    summary="What is written to logs, and that it can be.",
    model=LogOptions,
    look=look,
    causes=CAUSES,
    measurements=MEASUREMENTS,
    propose=propose,
    gather=gather,
    watches=lambda options: frozenset({Watch(trigger="inotify", what=options.path)}),
    default_ladder=lambda _options: tuple(StepOptions(remedy=name) for name in _LADDER),
    defaults={"confirm": "1 of 1"},
    names=lambda options: frozenset() if is_pattern(options.path) else frozenset({options.path}),
    own_causes=lambda options: frozenset(options.patterns),
)
