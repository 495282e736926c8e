"""The parts of a message: what a reason says, the facts, the runs, the evidence. Pure.

Lines that are ours keep to `WIDTH`; an operator's terminal and a mail on a telephone thank it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.core.model import (
    Evidence,
    Finding,
    Incident,
    Instant,
    Notice,
    Outcome,
    Run,
    RunState,
    Seconds,
    Status,
)
from agent.core.text import cut
from agent.core.units import format_duration
from agent.host.text import LINE_LENGTH, READ_AT_MOST, fit_line, show
from agent.notify.text import fit_evidence

WIDTH = 100
#: Lines of evidence in one message, before and after together.
EVIDENCE_LINES = 80
#: Runs and incidents listed in one message.
LISTED = 20
#: A message that goes out this many seconds after it was written says so.
LATE = 120.0


#: A subject's state, after its name.
_STATES: Mapping[Status, str] = {
    Status.OK: "passes at this moment",
    Status.WARNING: "needs attention",
    Status.CRITICAL: "fails its users",
    Status.UNKNOWN: "cannot be judged, because looking at it fails",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What there is to speak of, with every text already fit for a message."""

    notice: Notice
    host: str
    now: Instant
    runs: Sequence[Run]
    details: Mapping[str, str]

    @property
    def subject(self) -> str:
        """What it is about; the check's name where it has no subjects."""
        incident = self.incident
        return fit_line(incident.subject or incident.check, 80)

    @property
    def incident(self) -> Incident:
        """The incident, for reasons that have one."""
        incident = self.notice.incident
        if incident is None:  # compose() sends such a notice to _say_host
            raise AssertionError(f"notice {self.notice.id} has no incident")
        return incident

    @property
    def problem(self) -> Finding:
        """The latest finding that says what is wrong; the first one once it passes."""
        incident = self.incident
        return incident.finding if incident.finding.failing else incident.before

    @property
    def cause(self) -> str:
        """The word for what is or was wrong."""
        return fit_line(self.problem.cause or "failing", 40)

    @property
    def state(self) -> str:
        """`nginx.service on web1 fails its users`."""
        return f"{self.subject} on {self.host} {_STATES[self.problem.status]}"

    @property
    def tried(self) -> int:
        """How many runs ended that were meant to repair it."""
        return sum(1 for run in self.runs if run.state is RunState.ENDED and not run.preview)

    @property
    def downtime(self) -> Seconds:
        """Seconds of failing, up to the notice's writing: the incident is as it was then."""
        since = self.incident.failing_since
        running = max(0.0, self.notice.created - since) if since is not None else 0.0
        return self.incident.downtime + running

    @property
    def last_run(self) -> Run | None:
        """The run that ended last and was meant to repair."""
        ended = [run for run in self.runs if run.state is RunState.ENDED and not run.preview]
        return max(ended, key=lambda run: run.ended or 0.0, default=None)


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a reason says."""

    #: In brackets before the first line.
    tag: str
    #: The first line after subject and host.
    headline: str
    #: The sentence that opens the body.
    lead: str
    #: What hostmend does next, or what it needs: sentences.
    next: Sequence[str] = ()
    #: Commands for the reader, each with what it does.
    commands: Sequence[tuple[str, str]] = ()
    severity: Status
    #: Names of details that it has used, and the heading above the others.
    used: frozenset[str] = frozenset()
    rest: str = "Particulars"


# The parts of a body


def write_lateness(case: Case) -> list[str]:
    """For a message that could not go out in its time: the state that it tells of may be over."""
    late = case.now - case.notice.created
    if late < LATE:
        return []
    return wrap(
        f"This was written at {tell_time(case.notice.created)} and could not be sent for "
        f"{format_duration(late)}. What it tells may have changed since."
    )


def write_facts(case: Case) -> list[str]:
    """What failed, since when, for how long, and how it is now."""
    incident = case.incident
    rows = [
        ("Check", fit_line(incident.check, 80)),
        ("Subject", case.subject),
        ("Problem", describe_problem(case.problem)),
        ("Began", tell_time(incident.began)),
        ("Downtime", format_duration(case.downtime)),
    ]
    if incident.failing_since is not None:
        rows[-1] = ("Downtime", f"{format_duration(case.downtime)} so far, and still failing")
    if incident.ended is not None:
        rows.append(("Ended", tell_time(incident.ended)))
    if incident.after or not incident.finding.failing:
        rows.append(("Now", describe_problem(incident.after or incident.finding)))
    if incident.acknowledged:
        rows.append(("Known to", fit_line(incident.acknowledged, 80)))
    return [line for name, value in rows for line in _row(name, value)]


def write_runs(case: Case) -> list[str]:
    """What was done, oldest first."""
    if not case.runs:
        return []
    lines = ["Runs"]
    if len(case.runs) > LISTED:
        lines.append(f"  ({len(case.runs) - LISTED} earlier runs left out)")
    for run in case.runs[-LISTED:]:
        lines += _hang(f"  {tell_time(run.started or run.planned)}  ", _run_sentence(run, case.now))
        if run.detail:
            lines += _hang("      ", fit_line(run.detail, 300))
    return lines


#: What is said of a run by its outcome; None while it is alive.
_OUTCOMES: Mapping[Outcome | None, str] = {
    Outcome.OK: "ok",
    Outcome.FAILED: "failed",
    Outcome.TIMEOUT: "ran out of time",
    Outcome.CANCELLED: "cancelled",
    Outcome.LOST: "its process was lost",
    Outcome.NEEDS_HUMAN: "stopped and asks for a human",
    None: "ended",
}


def _run_sentence(run: Run, now: Instant) -> str:
    options = ", ".join(
        f"{fit_line(str(k), 60)}={fit_line(str(v), 80)}" for k, v in sorted(run.options.items())
    )
    # Redacted once more as a whole: `password=...` shows only with its name beside it.
    name = fit_line(f"{run.remedy}{f' ({options})' if options else ''}", 240)
    name = f"preview of {name}" if run.preview else name
    by = f", asked for by {fit_line(run.by, 60)}" if run.by else ""
    if run.state is RunState.PLANNED:
        return f"{name}: about to start{by}"
    if run.alive or run.started is None or run.ended is None:
        since = f" for {format_duration(max(0.0, now - run.started))}" if run.started else ""
        return f"{name}: {'runs' + since if run.alive else _OUTCOMES[run.outcome]}{by}"
    took = format_duration(max(0.0, run.ended - run.started))
    proof = ", proved by a later look" if run.proved else ""
    return f"{name}: {_OUTCOMES[run.outcome]} after {took}{proof}{by}"


def write_details(case: Case, said: Said) -> list[str]:
    """The details that the reason did not use, by name."""
    left = [(name, value) for name, value in case.details.items() if name not in said.used]
    lines = [said.rest] if left else []
    for name, value in left[:LISTED]:
        # Once more as a pair: `password: ...` shows only with its name beside it.
        lines += _hang("  ", fit_line(f"{name}: {value}", 360), indent=6)
    if len(left) > LISTED:
        lines.append(f"  and {len(left) - LISTED} more")
    return lines


def write_text(text: str) -> list[str]:
    """A text of several lines as it is, without secrets."""
    lines = show(text, READ_AT_MOST).rstrip().split("\n")
    return [cut(line, LINE_LENGTH) for line in lines]


def write_next(said: Said) -> list[str]:
    """What comes next, and the commands for the reader."""
    lines = [line for sentence in said.next for line in wrap(sentence)]
    width = max((len(command) for command, _ in said.commands), default=0)
    for command, meaning in said.commands:
        lines.append(f"  {command.ljust(width)}   {meaning}")
    return lines


def write_evidence(case: Case, before: Sequence[Evidence], after: Sequence[Evidence]) -> list[str]:
    """What the looks saw and what was gathered beside them, capped."""
    incident = case.notice.incident
    pieces: list[tuple[str, str, list[str]]] = []
    for when, finding, evidence in (
        ("before", incident.before if incident else None, before),
        ("after", incident.after if incident else None, after),
    ):
        known = _known(finding) if finding else []
        if known:
            pieces.append((when, "what the look saw", known))
        pieces += [(when, fit_line(item.title, 80), fit_evidence(item.text)) for item in evidence]
    lines: list[str] = []
    left = EVIDENCE_LINES
    for when, title, content in pieces:
        if left < 1:
            lines.append("(more evidence is kept on the host)")
            break
        lines += [f"Evidence {when}: {title}", *(f"  | {line}" for line in content[:left])]
        left -= len(content)
    return lines


def _known(finding: Finding) -> list[str]:
    """Measurements and facts of a finding, one a line."""
    numbers = [f"{fit_line(k, 60)}: {v:g}" for k, v in sorted(finding.measurements.items())]
    return numbers + [fit_line(f"{name}: {text}") for name, text in sorted(finding.facts.items())]


def write_more(incident: Incident | None, public_url: str | None) -> list[str]:
    """Where to read on."""
    if incident is None:
        return [f"More: {public_url.rstrip('/')}/"] if public_url else []
    lines = [f"More: hostmend incident show {incident.id}"]
    if public_url:
        lines.append(f"      {public_url.rstrip('/')}/incidents/{incident.id}")
    return lines


# Words


def describe_problem(finding: Finding) -> str:
    """`refused: nobody listens on port 80`, on one line, without a full stop."""
    cause, summary = fit_line(finding.cause, 40), fit_line(finding.summary).rstrip(".")
    if summary.lower().startswith(cause.lower()):
        cause = ""
    return ": ".join(part for part in (cause, summary) if part) or str(finding.status)


def end_sentence(text: str) -> str:
    """Text with a full stop, unless it has an end."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def count_of(number: int, noun: str) -> str:
    """`1 repair`, `2 repairs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def tell_time(instant: Instant) -> str:
    """An instant for people: `2026-11-23 02:14:07 UTC`."""
    try:
        return f"{datetime.fromtimestamp(instant, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"instant {instant:g}"


def wrap(text: str) -> list[str]:
    """Text in lines of at most `WIDTH`; a longer word keeps a line of its own."""
    return _hang("", text)


def _row(name: str, value: str) -> list[str]:
    return _hang(f"{name:<10}", value)


def _hang(first: str, text: str, indent: int | None = None) -> list[str]:
    """Wrapped text whose later lines stand under its beginning."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * (len(first) if indent is None else indent),
        break_on_hyphens=False,
        break_long_words=False,
    ) or [first.rstrip()]
