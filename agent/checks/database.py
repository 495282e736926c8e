"""What checks of database servers share: the unit below, the log of its start, and what follows.

A server that is `active` may serve nobody, so it is asked. One that is down says why in its log,
and only the lines of that start count.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from agent.checks import service
from agent.checks.check import CheckOptions, Watch
from agent.checks.values import AbsolutePath, Duration
from agent.core.model import Evidence, Finding, Instant, Status
from agent.core.units import format_duration
from agent.errors import Unavailable
from agent.host.database import Trouble, Written
from agent.host.exhaustion import find_exhausted
from agent.host.machine import Machine
from agent.host.mounts import find_mount, read_mounts
from agent.host.shortage import find_messages, find_paths
from agent.host.startlog import StartLog
from agent.host.text import fit_line
from agent.host.units import UnitState, check_unit_name

#: Causes that every database's findings may carry.
CAUSES: Mapping[str, str] = {
    "down": "It does not run, nobody is known to have wanted that, and its log names no cause "
    "that is known here.",
    "no-room": "It cannot start, or go on, because a filesystem is full.",
    "refused": "Its unit is up, and nothing answers at its socket.",
    "timeout": "It does not answer in time.",
    "error": "It answers with an error where none should be.",
    "connections": "All its connections, or nearly all, are taken.",
    "denied": "It answers, but not to the user that asks.",
    "write-timeout": "It reads, and a write was not answered in time.",
    "write-failed": "It reads, and a write was answered with an error.",
    "write-locked": "It reads, and somebody's lock held up a write.",
    "read-only": "It takes no writes, although it is no replica.",
    "starting": "systemd is starting it, or it recovers from a crash.",
    "stopping": "systemd is stopping it.",
    "restarting": "systemd is restarting it by itself, as its Restart= says.",
    "recovered": "Its last end was a crash, and it recovered from its log when it was started.",
    "unclear": "It is down, and neither D-Bus nor the journal tells who wanted that.",
    "unavailable": "It cannot be asked: no client, no such user, or no socket at that path ever.",
}

#: How journalctl's short-iso begins a line: when, and who wrote it.
_WRITER = re.compile(r"^\d{4}-\d\d-\d\dT\S+ \S+: ")
_UP = ("active", "reloading", "refreshing")
#: A start that takes longer has its log read.
_SLOW_START = 15.0
#: After so many restarts by systemd itself its log is read, though it tries on.
_LOOPS = 2
#: Looks at a unit that does not keep still meanwhile.
_TRIES = 3


def _check_user(name: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", name):
        raise ValueError(f"{name!r} is no name of a user of this host: write for example mysql")
    return name


UnitName = Annotated[str, AfterValidator(check_unit_name)]
UserName = Annotated[str, AfterValidator(_check_user)]


class DatabaseOptions(CheckOptions):
    """What every check of a database server takes."""

    write: bool = Field(
        default=False,
        description="Write a row too, and make what it is written to if it is not there.",
    )
    log: AbsolutePath | None = Field(default=None, description="The file that the server logs to.")
    answer_within: Duration = Field(
        default=3.0, description="Longest time that the server may take to answer a look."
    )
    deep_every: Duration = Field(
        default=30.0,
        description="Time between two closer looks, while nothing fails: what is more than "
        "whether it reads, the write too.",
    )
    recovered_for: Duration = Field(
        default=3600.0,
        description="So long after a start that had to recover from a crash this is a warning.",
    )


def check_order(warning: BaseModel, critical: BaseModel) -> None:
    """Raises ValueError where a limit of `warning` is above the one of `critical`."""
    low, high = warning.model_dump(mode="json"), critical.model_dump(mode="json")
    for name in type(critical).model_fields:
        lower, upper = getattr(warning, name), getattr(critical, name)
        if lower is not None and upper is not None and lower > upper:
            raise ValueError(
                f"warning.{name} ({low[name]}) must not be above critical.{name} ({high[name]})"
            )


@dataclass(frozen=True, kw_only=True)
class Signature:
    """How a server's log says why it does not start, or that something is wrong with it."""

    cause: str
    #: Found in the log of one start.
    pattern: re.Pattern[str]
    #: For people, after the unit's name: `does not start: its Aria control file is damaged`.
    says: str


@dataclass(frozen=True, kw_only=True)
class Match:
    signature: Signature
    #: The line that says so, as it was logged.
    line: str


def find_signature(log: str, signatures: Iterable[Signature]) -> Match | None:
    """The first signature, in their order, that the log has; with the last line that has it."""
    for signature in signatures:
        if every := list(signature.pattern.finditer(log)):
            found = every[-1]
            begin = log.rfind("\n", 0, found.start()) + 1
            end = log.find("\n", found.end())
            line = log[begin : end if end >= 0 else len(log)]
            return Match(signature=signature, line=fit_line(_WRITER.sub("", line)))
    return None


async def read_start(
    machine: Machine, unit: Unit, log: StartLog, signatures: Iterable[Signature]
) -> tuple[Match | None, str]:
    """How the present start began, as far as it said so by now, and what came since the last
    reading.

    Of several signatures the first in their order is remembered.
    """
    by_cause = {signature.cause: signature for signature in signatures}
    known = machine.memory.get("start") or {}
    if known.get("id") != unit.start:
        known = {"id": unit.start, "cause": "", "line": ""}
    try:
        text = await log.read_on()
    except Unavailable:
        text = ""
    order = [*by_cause, ""]
    found = find_signature(text, by_cause.values())
    if found is not None and order.index(found.signature.cause) < order.index(known["cause"]):
        known = {**known, "cause": found.signature.cause, "line": found.line}
    machine.memory.put("start", known)
    signature = by_cause.get(known["cause"])
    began = None if signature is None else Match(signature=signature, line=known["line"])
    return began, text


# The unit


@dataclass(frozen=True, kw_only=True)
class Unit:
    """The unit that runs a server."""

    name: str
    #: What the check `service` would say of it. None: systemd cannot be asked here.
    finding: Finding | None = None
    state: UnitState | None = None

    @property
    def up(self) -> bool:
        """Whether the server can be asked, also where systemd is not there to say so."""
        return self.state is None or self.state.active_state in _UP

    @property
    def start(self) -> str:
        """Names one start of it; empty where nothing does."""
        return self.state.invocation_id if self.state is not None else ""


async def see_unit(name: str, machine: Machine) -> Unit:
    """The unit as systemd has it now."""
    if machine.systemd is None:
        return Unit(name=name)
    options = service.ServiceOptions(type="service", unit=name)
    try:
        state = await machine.systemd.unit(name)
        for _ in range(_TRIES):
            before = state
            (finding,) = await service.look(options, machine)
            if finding.cause == "unavailable":
                return Unit(name=name)
            state = await machine.systemd.unit(name)
            # It may die or come back between the two: what was said of it before is no judgement.
            if _is_same(before, state):
                break
        else:
            finding = judge_restarted(Unit(name=name, state=state))
    except Unavailable:
        return Unit(name=name)
    # What the check `service` measures is its own.
    return Unit(name=name, finding=replace(finding, measurements={}), state=state)


def _is_same(one: UnitState, other: UnitState) -> bool:
    return (one.active_state, one.invocation_id) == (other.active_state, other.invocation_id)


async def judge_down(
    unit: Unit,
    log: StartLog,
    signatures: Iterable[Signature],
    recovering: re.Pattern[str],
) -> Finding:
    """The finding on a server that is not up: why it is not, by the log of that start."""
    finding, state = unit.finding, unit.state
    if finding is None or state is None:
        raise Unavailable(f"cannot tell of {unit.name}: systemd does not answer")
    if finding.status is Status.OK:
        return finding
    if finding.status is Status.UNKNOWN:
        return await _judge_unclear(unit, finding, state, log, signatures, recovering)
    text = await log.read_attempt()
    if (match := find_signature(text, signatures)) is not None:
        return blame_signature(finding, match)
    finding = replace(finding, cause="down")
    if find_messages(text):
        finding = await blame_room(finding, text, log.machine)
    if finding.cause != "down":
        return finding
    # Nothing but down is what a check of its unit, where there is one, sees and mends as well: this
    # one waits for it, and people are told once.
    return replace(finding, implicates=(*finding.implicates, f"unit:{state.id}"))


async def _judge_unclear(
    unit: Unit,
    finding: Finding,
    state: UnitState,
    log: StartLog,
    signatures: Iterable[Signature],
    recovering: re.Pattern[str],
) -> Finding:
    """A unit on its way: left to systemd, unless its log says that it gets nowhere."""
    now = log.machine.clock.now()
    taken = now - log.machine.clock.at_monotonic(state.left_inactive) if state.left_inactive else 0
    if finding.cause == "starting" and taken > _SLOW_START:
        text = await log.read_attempt()
        if (match := find_signature(text, signatures)) is not None:
            return blame_signature(replace(finding, transition=""), match)
        if find_messages(text):
            summary = f"{unit.name} has been starting for {format_duration(taken)}"
            stuck = replace(finding, status=Status.CRITICAL, cause="no-room", transition="")
            return await blame_room(replace(stuck, summary=summary), text, log.machine)
        if recovering.search(text):
            summary = f"{unit.name} recovers from a crash, for {format_duration(taken)} now"
            return replace(finding, summary=summary, transition="in crash recovery")
        return replace(finding, summary=f"{finding.summary}, for {format_duration(taken)} now")
    if finding.cause == "restarting" and state.n_restarts >= _LOOPS:
        match = find_signature(await log.read_attempt(), signatures)
        if match is not None:
            return blame_signature(replace(finding, transition=""), match)
    return finding


def blame_signature(finding: Finding, match: Match) -> Finding:
    """The finding, critical, with the cause that the log names."""
    name = finding.subject
    return replace(
        finding,
        status=Status.CRITICAL,
        cause=match.signature.cause,
        summary=f"{name} {match.signature.says}",
        facts={**finding.facts, "Log": match.line},
    )


async def blame_room(
    finding: Finding, log: str, machine: Machine, paths: Iterable[str] = ()
) -> Finding:
    """The finding with the filesystems that have no room: those that its log names, or those that
    hold its files (`paths`) and are full now.

    A finding that is `down` becomes `no-room`.
    """
    mounts = read_mounts()
    points: dict[str, None] = {}
    messages = find_messages(log)
    for message in messages:
        for path in find_paths(message)[:1]:
            if (mount := find_mount(mounts, path)) is not None:
                points[mount.point] = None
    if not points:
        own = {mount.point for path in paths if path and (mount := find_mount(mounts, path))}
        full = await find_exhausted(machine, mounts)
        points = dict.fromkeys(point for point in full if not own or point in own)
    if not points and not messages:
        return finding
    cause = "no-room" if finding.cause == "down" else finding.cause
    facts = {"No room": fit_line(messages[-1])} if messages else {}
    finding = replace(finding, cause=cause, facts={**finding.facts, **facts})
    resources = [f"filesystem:{point}" for point in points]
    if resources and set(resources) <= set(finding.implicates):
        # The unit's own finding has said so.
        return finding
    where = ", ".join(points)
    return replace(
        finding,
        summary=f"{finding.summary}; it has no room{f' on {where}' if where else ''}",
        implicates=tuple(dict.fromkeys((*finding.implicates, *resources))),
    )


# Answers


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a server's findings are about, and what all of them say."""

    unit: Unit
    measurements: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)

    def judge(
        self,
        status: Status,
        cause: str,
        summary: str,
        *,
        facts: Mapping[str, str] | None = None,
        transition: str = "",
    ) -> Finding:
        """The finding on the server itself."""
        state = self.unit.state
        return Finding(
            subject=self.unit.name,
            status=status,
            cause=cause,
            summary=f"{self.unit.name} {summary}",
            since=state.since if state is not None else None,
            facts={**self.facts, **(facts or {})},
            measurements=self.measurements,
            transition=transition,
            resource=f"unit:{state.id if state is not None else self.unit.name}",
        )

    def part(
        self,
        name: str,
        status: Status,
        cause: str,
        summary: str,
        *,
        measurements: Mapping[str, float] | None = None,
        facts: Mapping[str, str] | None = None,
        since: Instant | None = None,
    ) -> Finding:
        """The finding on a part of it: `mariadb.service replication`."""
        return Finding(
            subject=f"{self.unit.name} {name}",
            status=status,
            cause=cause,
            summary=f"{self.unit.name} {summary}",
            measurements=measurements or {},
            facts=facts or {},
            since=since,
        )


def judge_restarted(unit: Unit) -> Finding:
    """The finding on a server that was ended or started while it was looked at."""
    subject = Subject(unit=unit)
    summary = "was ended or started while it was looked at"
    return subject.judge(Status.UNKNOWN, "restarting", summary, transition="restarting")


def judge_trouble(
    subject: Subject,
    trouble: Trouble,
    why: str,
    place: str,
    *,
    answered_before: bool,
    place_key: str = "socket",
    user_key: str = "user",
) -> Finding:
    """The finding on a server that was asked at a place, and did not read.

    The keys are those of the options that say where it is asked, and as whom.
    """
    why = fit_line(why)
    match trouble:
        case Trouble.REFUSED if not answered_before:
            # Rather a wrong path in the configuration than a server that lost its socket.
            summary = (
                f"is up, and nothing ever answered at {place}: correct `{place_key}`, or {why}"
            )
            return subject.judge(Status.UNKNOWN, "unavailable", summary)
        case Trouble.REFUSED:
            return subject.judge(
                Status.CRITICAL, "refused", f"is up, and nothing answers at {place}: {why}"
            )
        case Trouble.TIMEOUT:
            return subject.judge(Status.CRITICAL, "timeout", f"does not answer: {why}")
        case Trouble.FULL:
            return subject.judge(Status.CRITICAL, "connections", f"has no connection left: {why}")
        case Trouble.DENIED:
            summary = f"answers, but does not let this user in: {why}; set `{user_key}`"
            return subject.judge(Status.UNKNOWN, "denied", summary)
        case Trouble.STARTING:
            return subject.judge(
                Status.UNKNOWN, "starting", f"is not ready yet: {why}", transition="starting"
            )
        case Trouble.ERROR:
            return subject.judge(Status.CRITICAL, "error", f"does not read: {why}")


def judge_written(subject: Subject, written: Written, why: str, *, replica: bool) -> Finding | None:
    """The finding on a write that did not go through; None where there is nothing to say."""
    why = fit_line(why)
    match written:
        case Written.TIMEOUT | Written.STUCK:
            return subject.judge(
                Status.CRITICAL, "write-timeout", f"reads, and takes no writes: {why}"
            )
        case Written.FAILED | Written.ABSENT:
            return subject.judge(
                Status.CRITICAL, "write-failed", f"reads, and a write failed: {why}"
            )
        case Written.LOCKED:
            return subject.judge(
                Status.WARNING, "write-locked", f"reads, and a write waits for a lock: {why}"
            )
        case Written.READ_ONLY if not replica:
            return subject.judge(
                Status.WARNING, "read-only", f"takes no writes, and is no replica: {why}"
            )
        case _:
            return None


def _start_of(unit: str) -> str:
    return f"{unit} start"


def judge_recovery(
    subject: Subject, match: Match | None, *, since: Instant | None, now: Instant, lasts: float
) -> Finding:
    """The finding on how the present start began: a crash before it is told for a while."""
    if match is None or (since is not None and now - since > lasts):
        return subject.part("start", Status.OK, "", "was started in order, or long ago")
    return subject.part(
        "start",
        Status.WARNING,
        match.signature.cause,
        match.signature.says,
        facts={"Log": match.line},
        since=since,
    )


def compare(value: float, warning: float | None, critical: float | None) -> Status:
    """How a value is, by limits that it must not reach."""
    if critical is not None and value >= critical:
        return Status.CRITICAL
    return Status.WARNING if warning is not None and value >= warning else Status.OK


def judge_share(
    subject: Subject, taken: float, limit: float, *, warning: float | None, critical: float | None
) -> Finding:
    """The finding on how many of its connections are taken; the limits are in percent."""
    percent = 100.0 * taken / limit if limit else 0.0
    status = compare(percent, warning, critical)
    summary = f"has {taken:.0f} of {limit:.0f} connections taken"
    return subject.part(
        "connections",
        status,
        "" if status is Status.OK else "connections",
        summary,
        measurements={
            "connections_count": taken,
            "connections_limit_count": limit,
            "connections_percent": round(percent, 1),
        },
    )


# Between closer looks


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a closer look found."""

    at: Instant
    #: The start of the server that it saw.
    start: str
    findings: tuple[Finding, ...]
    #: What the type keeps for the next one.
    kept: Any = None

    def holds(self, unit: Unit, now: Instant, every: float) -> bool:
        """Whether it is still believed: only of the same start, and only while all was well.

        How the start began does not change any more, so that it does not count.
        """
        fine = all(
            finding.status is Status.OK or finding.subject == _start_of(unit.name)
            for finding in self.findings
        )
        return fine and self.start == unit.start and now - self.at < every


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How servers of one type are asked and judged. All take the check's options first."""

    #: Whether it reads, and no more: the answer, and what its log said: nothing.
    ask: Callable[[Any], Awaitable[tuple[Any, Any]]]
    #: Everything that the server and its log say, with what an earlier closer look kept.
    look_closely: Callable[[Any, Machine, Unit, Sample | None], Awaitable[tuple[Any, Any]]]
    #: The findings on what a server that is up answered, or did not, and what its log said.
    judge: Callable[[Any, Machine, Unit, Any, Any], Awaitable[tuple[Finding, ...]]]
    #: The finding on one that is not up.
    judge_down: Callable[[Any, Machine, Unit], Awaitable[Finding]]


async def look_at(kind: Kind, options: Any, machine: Machine) -> tuple[Finding, ...]:
    """One look at a server: at its unit, then by asking it. Raises Unavailable.

    Answers have `trouble`, None where the server read.
    """
    unit = await see_unit(options.unit, machine)
    if not unit.up:
        return recall(machine, options.unit, (await kind.judge_down(options, machine, unit),))
    now = machine.clock.now()
    sample: Sample | None = machine.memory.notes.get("sample")
    if sample is not None and sample.holds(unit, now, options.deep_every):
        answer, said = await kind.ask(options)
        if answer.trouble is None:
            return sample.findings
    else:
        answer, said = await kind.look_closely(options, machine, unit, sample)
    if answer.trouble is not None:
        machine.memory.notes.pop("sample", None)
        now_unit = await see_unit(options.unit, machine)
        if not now_unit.up:
            finding = await kind.judge_down(options, machine, now_unit)
            return recall(machine, options.unit, (finding,))
        if now_unit.start != unit.start:
            return recall(machine, options.unit, (judge_restarted(now_unit),))
        findings = await kind.judge(options, machine, unit, answer, said)
        return recall(machine, options.unit, findings)
    findings = await kind.judge(options, machine, unit, answer, said)
    machine.memory.notes["sample"] = Sample(
        at=now, start=unit.start, findings=findings, kept=answer
    )
    remember_failing(machine, options.unit, findings)
    return findings


def recall(machine: Machine, unit: str, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """The findings, and what failed of the server's parts before it went down, as not known now.

    A look is complete: what it leaves out is gone for good, and that is not known either.
    """
    there = {finding.subject for finding in findings}
    lost = [subject for subject in machine.memory.get("failing") or () if subject not in there]
    summary = f"{unit} does not answer, so nothing is known of this"
    return (
        *findings,
        *(
            Finding(subject=subject, status=Status.UNKNOWN, cause="unavailable", summary=summary)
            for subject in lost
        ),
    )


def remember_failing(machine: Machine, unit: str, findings: Iterable[Finding]) -> None:
    """Keep which parts fail, or were not known of, for `recall`."""
    failing = sorted(
        finding.subject
        for finding in findings
        if (finding.failing or finding.cause == "unavailable") and finding.subject != unit
    )
    if failing:
        machine.memory.put("failing", failing)
    else:
        machine.memory.forget("failing")


def watch_unit(unit: str) -> frozenset[Watch]:
    return frozenset({Watch(trigger="systemd", what=unit)})


async def gather_unit(
    unit: Unit, log: StartLog, finding: Finding, machine: Machine
) -> tuple[Evidence, ...]:
    """The unit's state, and what the server logged since its present start."""
    options = service.ServiceOptions(type="service", unit=unit.name)
    found = await service.gather(options, finding, machine)
    text = (await log.read_attempt()).strip()
    kept = text if len(text) <= _EXCERPT else "(earlier lines left out)\n" + text[-_EXCERPT:]
    title = f"Log of the last start of {unit.name}"
    states = tuple(item for item in found if item.title != title)
    return (*states, Evidence(title=title, text=kept or "(no lines)"))


_EXCERPT = 16_000
