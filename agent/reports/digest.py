"""What happened on a host over some days, for people who were not called.

Pure, as everything here: `make_digest` puts together what was observed, `write_digest` says it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.core.model import (
    Finding,
    Incident,
    Instant,
    ResolvedBy,
    Seconds,
    State,
    Status,
    Transition,
)
from agent.core.reasons import was_critical
from agent.core.units import format_duration
from agent.host.text import fit_line
from agent.reports.incident import find_repair_time
from agent.reports.words import tell_instant

#: What says that somebody was called for it, in `Incident.said`.
_CALLS = ("opened", "held", "approval", "escalated", "storm")
#: More than this is never told of at once: a host that was off for a year begins with a month.
LONGEST_DIGEST: Seconds = 31 * 86400.0
#: Lines of one part of a digest; all are counted.
LISTED = 20


@dataclass(frozen=True, kw_only=True)
class Times:
    """How long something took: of so many, the middle one and the worst, in seconds."""

    count: int
    median: Seconds
    worst: Seconds


@dataclass(frozen=True, kw_only=True)
class Restarts:
    """A unit that systemd restarted by itself."""

    check: str
    unit: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Something that will be full, in seconds from now."""

    check: str
    subject: str
    full_in: Seconds
    low: Seconds
    high: Seconds


@dataclass(frozen=True, kw_only=True)
class Recurring:
    """A problem that was repaired more than once."""

    check: str
    subject: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Availability:
    """How long what a check looks at was not critical, as far as hostmend looked."""

    check: str
    downtime: Seconds
    percent: float


@dataclass(frozen=True, kw_only=True)
class Digest:
    """Everything worth knowing of a host from `since` to `until`. Incidents: the newest first."""

    host: str
    since: Instant
    until: Instant
    #: When the agent began, where that is later than `since`: nothing is known of before.
    started: Instant | None
    checks_count: int
    #: Problems that were there, or began, within that time.
    incidents_count: int
    #: Those a human is needed for now.
    needed: tuple[Incident, ...]
    #: Those that wait for somebody's word now.
    waiting: tuple[Incident, ...]
    #: Repaired and proved, while nobody was called.
    healed_quietly: tuple[Incident, ...]
    #: Repaired and proved, and people were called meanwhile.
    healed_count: int
    #: Ended without a repair.
    ended_count: int
    #: Would have been repaired, were hostmend not in shadow.
    shadowed_count: int
    restarts: tuple[Restarts, ...]
    forecasts: tuple[Forecast, ...]
    recurring: tuple[Recurring, ...]
    #: From its beginning, where the host knows that, to the first look that saw it.
    detected: Times | None
    #: From its confirmation to the proof of its repair.
    repaired: Times | None
    #: Checks that were critical at all, the worst first.
    availability: tuple[Availability, ...]


def make_digest(
    *,
    host: str,
    since: Instant,
    until: Instant,
    started: Instant,
    incidents: Iterable[Incident],
    transitions: Mapping[str, Sequence[Transition]],
    restarts: Mapping[tuple[str, str], Iterable[Instant]],
    findings: Mapping[str, Iterable[Finding]],
) -> Digest:
    """`transitions`: of incidents that a run healed. `restarts`: when systemd restarted what, by
    check and unit. `findings`: of the last look of each check.
    """
    found = sorted(
        (i for i in incidents if i.opened is not None and (i.ended is None or i.ended >= since)),
        key=lambda incident: incident.began,
        reverse=True,
    )
    healed = [i for i in found if i.resolved_by is ResolvedBy.RUN]
    quietly = [i for i in healed if not _called(i)]
    repairs = [find_repair_time(i, transitions.get(i.id, ())) for i in healed]
    return Digest(
        host=host,
        since=since,
        until=until,
        started=started if started > since else None,
        checks_count=len(findings),
        incidents_count=len(found),
        needed=tuple(i for i in found if i.state is State.ESCALATED),
        waiting=tuple(i for i in found if i.question is not None and i.state is State.OPEN),
        healed_quietly=tuple(quietly),
        healed_count=len(healed) - len(quietly),
        ended_count=sum(i.state.ended and i.resolved_by is not ResolvedBy.RUN for i in found),
        shadowed_count=sum(bool(i.shadowed) for i in found),
        restarts=_count_restarts(restarts, since, until),
        forecasts=_find_forecasts(findings),
        recurring=_find_recurring(healed),
        detected=_measure([i.seen - i.began for i in found if i.began < i.seen]),
        repaired=_measure([seconds for seconds in repairs if seconds is not None]),
        availability=_find_availability(found, since, until),
    )


def _called(incident: Incident) -> bool:
    return any(said.partition(":")[0] in _CALLS for said in incident.said)


def _measure(seconds: Sequence[Seconds]) -> Times | None:
    if not seconds:
        return None
    return Times(count=len(seconds), median=statistics.median(seconds), worst=max(seconds))


def _count_restarts(
    restarts: Mapping[tuple[str, str], Iterable[Instant]], since: Instant, until: Instant
) -> tuple[Restarts, ...]:
    counted = [
        Restarts(check=check, unit=unit, count=sum(since <= at <= until for at in instants))
        for (check, unit), instants in restarts.items()
    ]
    return tuple(sorted((r for r in counted if r.count), key=lambda r: (-r.count, r.unit)))


def _find_forecasts(findings: Mapping[str, Iterable[Finding]]) -> tuple[Forecast, ...]:
    found = [
        Forecast(
            check=check,
            subject=finding.subject,
            full_in=finding.measurements["full_in_seconds"],
            low=finding.measurements["full_in_low_seconds"],
            high=finding.measurements["full_in_high_seconds"],
        )
        for check, seen in findings.items()
        for finding in seen
        if "full_in_seconds" in finding.measurements
    ]
    return tuple(sorted(found, key=lambda forecast: forecast.full_in))


def _find_recurring(healed: Iterable[Incident]) -> tuple[Recurring, ...]:
    counts: dict[tuple[str, str], int] = {}
    for incident in healed:
        counts[incident.fingerprint] = counts.get(incident.fingerprint, 0) + 1
    found = [
        Recurring(check=check, subject=subject, count=count)
        for (check, subject), count in counts.items()
        if count > 1
    ]
    return tuple(sorted(found, key=lambda each: (-each.count, each.check, each.subject)))


def _find_availability(
    incidents: Iterable[Incident], since: Instant, until: Instant
) -> tuple[Availability, ...]:
    spans: dict[str, list[tuple[Instant, Instant]]] = {}
    for incident in incidents:
        if was_critical(incident):
            spans.setdefault(incident.check, []).append(_find_span(incident, since, until))
    whole = until - since
    found = []
    for check, each in spans.items():
        downtime = _cover(each)
        percent = 100 * (1 - downtime / whole) if whole > 0 else 100.0
        found.append(Availability(check=check, downtime=downtime, percent=percent))
    return tuple(sorted(found, key=lambda each: (each.percent, each.check)))


def _find_span(incident: Incident, since: Instant, until: Instant) -> tuple[Instant, Instant]:
    """When it failed within that time; the passing in between is taken from its end."""
    begin = max(incident.began, since)
    failing = incident.count_downtime(until)
    end = min(incident.began + failing, incident.ended or until, until)
    return begin, max(begin, end)


def _cover(spans: Sequence[tuple[Instant, Instant]]) -> Seconds:
    """Seconds in any of them: two subjects of a check that fail at once fail it once."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


# In words


def write_headline(digest: Digest) -> str:
    """`4 repaired while you were not called, 1 needs you`."""
    parts = []
    if digest.needed:
        parts.append(f"{len(digest.needed)} need{'s' * (len(digest.needed) == 1)} you")
    if digest.waiting:
        parts.append(f"{len(digest.waiting)} wait{'s' * (len(digest.waiting) == 1)} for your word")
    if digest.healed_quietly:
        parts.append(f"{len(digest.healed_quietly)} repaired without calling you")
    if not parts and digest.incidents_count:
        parts.append(f"{_count(digest.incidents_count, 'problem')}, none that needs you")
    return ", ".join(parts) or "no problems"


def write_digest(digest: Digest) -> str:
    """The whole of it as plain text, every text from outside on one line."""
    span = format_duration(digest.until - digest.since)
    parts = [
        f"{span} on {fit_line(digest.host, 80)}, from {tell_instant(digest.since)} to "
        f"{tell_instant(digest.until)}: {write_headline(digest)}."
    ]
    if digest.started is not None:
        parts.append(f"The agent runs since {tell_instant(digest.started)} only.")
    for heading, lines in _write_parts(digest):
        shown = [f"  {fit_line(line, 200)}" for line in lines[:LISTED]]
        if len(lines) > LISTED:
            shown.append(f"  and {len(lines) - LISTED} more")
        if lines:
            parts.append("\n".join([heading, *shown]))
    return "\n\n".join(parts) + "\n"


def _write_parts(digest: Digest) -> list[tuple[str, list[str]]]:
    return [
        ("You are needed", [f"{_name(i)}: {i.why or _tell(i)}" for i in digest.needed]),
        (
            "Waits for your word",
            [
                f"{_name(i)}: {i.question.remedy} (hostmend incident approve {i.id})"
                for i in digest.waiting
                if i.question is not None
            ],
        ),
        ("Repaired while nobody was called", [_tell_healed(i) for i in digest.healed_quietly]),
        (
            "Repaired more than once: something behind it needs a human",
            [f"{r.subject or r.check}: {r.count} times" for r in digest.recurring],
        ),
        (
            "Restarted by systemd without a word",
            [f"{r.unit}: {_times(r.count)}" for r in digest.restarts],
        ),
        (
            "Forecast, if it goes on like this",
            [
                f"{f.subject or f.check}: full in {format_duration(f.full_in)} (between "
                f"{format_duration(f.low)} and {format_duration(f.high)})"
                for f in digest.forecasts
            ],
        ),
        (
            "Not available all the time",
            [
                f"{a.check}: {_write_percent(a.percent)}, down for {format_duration(a.downtime)}"
                for a in digest.availability
            ],
        ),
        ("In figures", _write_figures(digest)),
    ]


def _write_figures(digest: Digest) -> list[str]:
    quiet = len(digest.healed_quietly)
    lines = [
        f"{_count(digest.checks_count, 'check')}, {_count(digest.incidents_count, 'problem')}: "
        f"{quiet + digest.healed_count} repaired ({quiet} without a call), "
        f"{digest.ended_count} ended without a repair"
    ]
    if digest.shadowed_count:
        lines.append(f"{digest.shadowed_count} would have been repaired, were it not for shadow")
    for what, times in (("seen", digest.detected), ("repaired", digest.repaired)):
        if times is not None:
            lines.append(
                f"{what} within {format_duration(times.median)} (median of {times.count}), "
                f"{format_duration(times.worst)} at worst"
            )
    return lines


def _write_percent(percent: float) -> str:
    """Never more than it was: 99.999 % is not 100 %."""
    return f"{int(percent * 1000) / 1000:.3f} %"


def _name(incident: Incident) -> str:
    return f"{incident.id} {incident.subject or incident.check}"


def _tell(incident: Incident) -> str:
    return incident.finding.summary or incident.finding.cause or incident.finding.status.value


def _tell_healed(incident: Incident) -> str:
    cause = incident.before.cause or Status.CRITICAL.value
    return (
        f"{_name(incident)}: {cause} for {format_duration(incident.downtime)}, "
        f"{tell_instant(incident.began)} ({incident.healed_by})"
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
