"""An incident and a reason become a mail that can be understood at 3 a.m. Pure.

`SAY` has one function per reason. Each says the first line, what happened, and what comes next;
`compose` puts the same facts, runs and evidence below all of them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.core.model import (
    Evidence,
    Finding,
    Hold,
    Incident,
    Instant,
    Notice,
    Outcome,
    Reason,
    ResolvedBy,
    Run,
    RunState,
    Seconds,
    State,
    Status,
)
from agent.core.units import format_duration
from agent.notify.text import fit_evidence, fit_line

WIDTH = 100
TITLE_LENGTH = 160
#: Lines of evidence in one message, before and after together.
EVIDENCE_LINES = 80
#: Runs and incidents listed in one message.
LISTED = 20

#: What a shipped remedy has done, for a first line; others are named: `my-remedy ran`.
DONE: Mapping[str, str] = {"restart-service": "restarted", "clean-disk": "cleaned"}

#: What a reader can do about a hold. `{id}` is the incident's.
WAY_OUT: Mapping[Hold, str] = {
    Hold.PAUSED: "hostmend resume",
    Hold.SILENCED: "hostmend silence list",
    Hold.INHIBITED: "hostmend incidents",
    Hold.LOOKING_UPSTREAM: "hostmend incident explain {id}",
    Hold.APPROVAL: "hostmend incident approve {id}",
    Hold.COOLING_DOWN: "hostmend incident retry {id}",
    Hold.BUSY: "hostmend runs",
    Hold.OVER_BUDGET: "hostmend incident retry {id}",
    Hold.STORM: "hostmend incidents",
    Hold.SHADOW: "hostmend arm",
    Hold.INTENTION: "hostmend incident explain {id}",
    Hold.TRANSITION: "hostmend incident explain {id}",
    Hold.NO_REMEDY: "hostmend remedies",
}


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a route receives."""

    #: The first line: it says it all.
    title: str
    #: Plain text.
    body: str
    #: The same at every attempt: `<origin>.<notice id>`.
    message_id: str
    severity: Status


@dataclass(frozen=True, kw_only=True)
class _Case:
    """What there is to speak of, with every text already fit for a message."""

    notice: Notice
    host: str
    now: Instant
    runs: Sequence[Run]
    details: Mapping[str, str]

    @property
    def subject(self) -> str:
        incident = self.incident
        return fit_line(incident.subject or incident.check, 80)

    @property
    def incident(self) -> Incident:
        incident = self.notice.incident
        if incident is None:  # compose() sends such a notice to _say_host
            raise AssertionError(f"notice {self.notice.id} has no incident")
        return incident

    @property
    def cause(self) -> str:
        """The word for what is or was wrong."""
        return fit_line(_failing_finding(self.incident).cause or "failing", 40)

    @property
    def downtime(self) -> Seconds:
        """Seconds of failing, up to now."""
        since = self.incident.failing_since
        return self.incident.downtime + (max(0.0, self.now - since) if since is not None else 0.0)

    @property
    def last_run(self) -> Run | None:
        ended = [run for run in self.runs if run.state is RunState.ENDED and not run.preview]
        return max(ended, key=lambda run: run.ended or 0.0, default=None)


@dataclass(frozen=True, kw_only=True)
class _Said:
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


def compose(
    notice: Notice,
    *,
    host: str,
    origin: str,
    now: Instant,
    runs: Sequence[Run] = (),
    before: Sequence[Evidence] = (),
    after: Sequence[Evidence] = (),
    public_url: str | None = None,
) -> Message:
    """The message of one notice.

    `origin` identifies this host for ever (a hash of its machine id): `message_id` is made of it
    and the notice's id. `runs` are those of the incident, `before` and `after` its evidence from
    before the first run and after the proof. `public_url` is the address of the dashboard.
    Nothing that the texts hold can make it fail.
    """
    case = _Case(
        notice=notice,
        host=fit_line(host, 80),
        now=now,
        runs=sorted(runs, key=lambda run: (run.started or run.planned, run.id)),
        details={fit_line(k, 60): fit_line(v, 300) for k, v in notice.details.items()},
    )
    incident = notice.incident
    said = SAY[notice.reason](case) if incident or notice.reason in HOST_WIDE else _say_host(case)
    about = f"{case.subject} on {case.host}" if incident else case.host
    message_id = f"{origin}.{notice.id}"

    blocks = [_wrap(said.lead)]
    if incident:
        blocks.append(_facts(case))
        blocks.append(_done(case))
    blocks.append(_rest(case, said))
    blocks.append(_next(said))
    blocks.append(_evidence(case, before, after))
    blocks.append(_more(incident, public_url))
    blocks.append(["-- ", f"hostmend on {case.host}, message {message_id}"])
    return Message(
        title=fit_line(f"[{said.tag}] {about} — {said.headline}", TITLE_LENGTH),
        body="\n\n".join("\n".join(block) for block in blocks if block) + "\n",
        message_id=message_id,
        severity=said.severity,
    )


# One function per reason


def _say_opened(case: _Case) -> _Said:
    incident = case.incident
    run = next((run for run in case.runs if run.alive), None)
    if run:
        next_ = f"hostmend repairs it now: {fit_line(run.remedy, 60)}."
        commands: tuple[tuple[str, str], ...] = ()
    else:
        next_ = "No repair is under way. hostmend goes on looking."
        commands = ((f"hostmend incident explain {incident.id}", "why, and what could come next"),)
    return _Said(
        tag=str(incident.finding.status),
        headline=_problem(incident.finding),
        lead=f"{case.subject} on {case.host}: {_problem(incident.finding)}.",
        next=(next_,),
        commands=commands,
        severity=incident.finding.status,
    )


def _say_approval(case: _Case) -> _Said:
    incident = case.incident
    remedy = case.details.get("remedy") or case.details.get("step") or "a remedy"
    until = case.details.get("until", "")
    return _Said(
        tag="approval",
        headline=f"{case.cause}; {remedy} waits for your word",
        lead=f"{case.subject} on {case.host}: {_problem(incident.finding)}. hostmend would run "
        f"{remedy} and needs your approval.",
        next=(
            "Nothing is changed until you answer."
            + (f" The question lapses at {_time_of(until)}." if until else ""),
        ),
        commands=(
            (f"hostmend incident approve {incident.id}", f"run {remedy}"),
            (f"hostmend incident reject {incident.id}", "never run it for this incident"),
            (f"hostmend incident explain {incident.id}", "what it would do"),
        ),
        severity=incident.finding.status,
        used=frozenset({"until"}),
    )


def _say_escalated(case: _Case) -> _Said:
    incident = case.incident
    tried = sum(1 for run in case.runs if run.state is RunState.ENDED and not run.preview)
    tried_text = f"{_count(tried, 'repair')} did not help" if tried else "no repair was tried"
    retry = case.details.get("retry_at", "") or (str(incident.retry_at or ""))
    why = fit_line(incident.why)
    return _Said(
        tag="escalated",
        headline=f"{case.cause} for {format_duration(case.downtime)}, {tried_text}: you are needed",
        lead=f"{case.subject} on {case.host} fails and hostmend cannot mend it"
        f"{f' ({why})' if why else ''}. A human is needed.",
        next=(
            "hostmend goes on looking"
            + (f" and tries its remedies again at {_time_of(retry)}." if retry else "."),
        ),
        commands=(
            (f"hostmend incident ack {incident.id}", "you know; reminders stop"),
            (f"hostmend incident retry {incident.id}", "try the remedies again now"),
            (f"hostmend incident close {incident.id}", "it is as it should be"),
        ),
        severity=incident.finding.status,
        used=frozenset({"retry_at"}),
    )


def _say_held(case: _Case) -> _Said:
    incident = case.incident
    hold = case.details.get("hold", "")
    name = hold or "held"
    detail = case.details.get("detail", "")
    until = case.details.get("until", "")
    way_out = WAY_OUT[Hold(hold)] if hold in set(Hold) else WAY_OUT[Hold.INTENTION]
    return _Said(
        tag="held",
        headline=f"{case.cause} for {format_duration(case.downtime)}, not repaired: {name}",
        lead=f"{case.subject} on {case.host}: {_problem(incident.finding)}. "
        f"hostmend does not repair it. Hold: {name}{f' ({detail})' if detail else ''}.",
        next=(
            f"The hold may end by itself at {_time_of(until)}."
            if until
            else "The hold does not end by itself.",
        ),
        commands=(
            (way_out.format(id=incident.id), "the way out"),
            (f"hostmend incident ack {incident.id}", "you know; reminders stop"),
        ),
        severity=incident.finding.status,
        used=frozenset({"hold", "detail", "until"}),
    )


def _say_healed(case: _Case) -> _Said:
    proved = [run for run in case.runs if run.proved]
    run = proved[-1] if proved else case.last_run
    attempts = sum(1 for run in case.runs if run.state is RunState.ENDED and not run.preview)
    done = DONE.get(run.remedy, f"{fit_line(run.remedy, 60)} ran") if run else "repaired"
    again = f" at attempt {attempts}" if attempts > 1 else ""
    downtime = format_duration(case.downtime)
    return _Said(
        tag="healed",
        headline=f"{case.cause} for {downtime}, {done}{again}, proved",
        lead=f"{case.subject} on {case.host} failed for {downtime}. hostmend repaired it, and a "
        "later look proved it. Nothing is needed from you.",
        severity=Status.OK,
    )


#: How an incident ended that no run of ours healed.
_ENDED: Mapping[ResolvedBy | None, str] = {
    ResolvedBy.ITSELF: "works again by itself",
    ResolvedBy.OPERATOR: "ended by an operator",
    ResolvedBy.RUN: "works again",
    None: "works again",
}


def _say_ended(case: _Case) -> _Said:
    incident = case.incident
    how = "no longer exists" if incident.state is State.GONE else _ENDED[incident.resolved_by]
    why = fit_line(incident.why)
    return _Said(
        tag="ended",
        headline=f"{case.cause} for {format_duration(case.downtime)}, {how}",
        lead=f"{case.subject} on {case.host}: {how}, without a repair by hostmend."
        f"{f' ({why}.)' if why else ''} Nothing is needed from you.",
        severity=Status.OK,
    )


def _say_recurring(case: _Case) -> _Said:
    incident = case.incident
    times = case.details.get("times") or str(sum(1 for run in case.runs if run.proved) or "many")
    window = case.details.get("window", "")
    often = f"repaired {times} times{f' in {window}' if window else ''}"
    return _Said(
        tag="recurring",
        headline=f"{case.cause} again and again, {often}",
        lead=f"{case.subject} on {case.host} was {often}. The repairs work and do not last: "
        "something behind them needs a human.",
        next=("hostmend goes on repairing it within its limits.",),
        commands=(
            (f"hostmend incident report {incident.id}", "every look, run and piece of evidence"),
        ),
        severity=Status.WARNING,
        used=frozenset({"times", "window"}),
    )


def _say_storm(case: _Case) -> _Said:
    count = len(case.details)
    return _Said(
        tag="storm",
        headline=f"{_count(count, 'failure')} at once, treated as one cause",
        lead=f"{_count(count, 'check')} on {case.host} began to fail together. hostmend treats "
        "them as one cause: it repairs the one that the others stand on, and sends this one "
        "message for all.",
        commands=(("hostmend incidents", "how they stand now"),),
        severity=Status.CRITICAL,
        rest="Failures",
    )


def _say_agent(case: _Case) -> _Said:
    summary = case.details.get("summary") or "the agent has something to say about itself"
    severity = case.details.get("severity", "")
    return _Said(
        tag="agent",
        headline=summary,
        lead=f"hostmend on {case.host}: {_sentence(summary)}",
        commands=(("hostmend status", "how the agent stands now"),),
        severity=Status(severity) if severity in set(Status) else Status.WARNING,
        used=frozenset({"summary", "severity"}),
    )


def _say_host(case: _Case) -> _Said:
    """For a notice whose incident is not there: say at least what is known."""
    return _Said(
        tag=str(case.notice.reason),
        headline="see hostmend incidents",
        lead=f"hostmend on {case.host} has news ({case.notice.reason}) of an incident whose "
        "particulars are not at hand.",
        commands=(("hostmend incidents", "all incidents of this host"),),
        severity=Status.WARNING,
    )


SAY: Mapping[Reason, Callable[[_Case], _Said]] = {
    Reason.OPENED: _say_opened,
    Reason.APPROVAL: _say_approval,
    Reason.ESCALATED: _say_escalated,
    Reason.HELD: _say_held,
    Reason.HEALED: _say_healed,
    Reason.ENDED: _say_ended,
    Reason.RECURRING: _say_recurring,
    Reason.STORM: _say_storm,
    Reason.AGENT: _say_agent,
}
#: Reasons that are about the host and need no incident.
HOST_WIDE = frozenset({Reason.STORM, Reason.AGENT})


# The parts of a body


def _facts(case: _Case) -> list[str]:
    incident = case.incident
    since = incident.began
    if incident.failing_since is not None:
        until = f", still failing at {_utc(case.now)}"
    elif incident.ended is not None:
        until = f", over at {_utc(incident.ended)}"
    else:
        until = ""
    rows = [
        ("Check", fit_line(incident.check, 80)),
        ("Subject", case.subject),
        ("Problem", _problem(_failing_finding(incident))),
        ("Since", f"{_utc(since)}{until}"),
        ("Downtime", format_duration(case.downtime)),
    ]
    if incident.after or not incident.finding.failing:
        now = incident.after or incident.finding
        rows.append(("Now", _problem(now)))
    if incident.acknowledged:
        rows.append(("Known to", fit_line(incident.acknowledged, 80)))
    return [line for name, value in rows for line in _row(name, value)]


def _done(case: _Case) -> list[str]:
    if not case.runs:
        return []
    lines = ["Done"]
    if len(case.runs) > LISTED:
        lines.append(f"  ({len(case.runs) - LISTED} earlier runs left out)")
    for run in case.runs[-LISTED:]:
        lines += _hang(f"  {_utc(run.started or run.planned)}  ", _run_sentence(run, case.now))
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


def _rest(case: _Case, said: _Said) -> list[str]:
    """The details that the reason did not use, by name."""
    left = [(name, value) for name, value in case.details.items() if name not in said.used]
    lines = [said.rest] if left else []
    for name, value in left[:LISTED]:
        # Once more as a pair: `password: ...` shows only with its name beside it.
        lines += _hang("  ", fit_line(f"{name}: {value}", 360), indent=6)
    if len(left) > LISTED:
        lines.append(f"  and {len(left) - LISTED} more")
    return lines


def _next(said: _Said) -> list[str]:
    lines = [line for sentence in said.next for line in _wrap(sentence)]
    width = max((len(command) for command, _ in said.commands), default=0)
    for command, meaning in said.commands:
        lines.append(f"  {command.ljust(width)}   {meaning}")
    return lines


def _evidence(case: _Case, before: Sequence[Evidence], after: Sequence[Evidence]) -> list[str]:
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


def _more(incident: Incident | None, public_url: str | None) -> list[str]:
    if incident is None:
        return [f"More: {public_url.rstrip('/')}/"] if public_url else []
    lines = [f"More: hostmend incident show {incident.id}"]
    if public_url:
        lines.append(f"      {public_url.rstrip('/')}/incidents/{incident.id}")
    return lines


# Words


def _failing_finding(incident: Incident) -> Finding:
    """The latest finding that says what is wrong; the first one once it passes."""
    return incident.finding if incident.finding.failing else incident.before


def _problem(finding: Finding) -> str:
    """`failed: the unit exited with status 1`, on one line, without a full stop."""
    summary = fit_line(finding.summary).rstrip(".")
    return ": ".join(part for part in (fit_line(finding.cause, 40), summary) if part) or str(
        finding.status
    )


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _utc(instant: Instant) -> str:
    """`2026-11-23 02:14:07 UTC`."""
    try:
        return f"{datetime.fromtimestamp(instant, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"instant {instant:g}"


def _time_of(text: str) -> str:
    """A detail that is an instant as a time; any other text as it is."""
    try:
        instant = float(text)
    except ValueError:
        return text
    return _utc(instant)


def _wrap(text: str) -> list[str]:
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
