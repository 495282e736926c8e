"""What reports say, whatever they are rendered as."""

from __future__ import annotations

from datetime import UTC, datetime

from agent.core.model import Incident, Instant, ResolvedBy, Run, State
from agent.core.units import format_duration
from agent.reports.incident import IncidentReport


def tell_instant(at: Instant) -> str:
    """`2026-11-26 11:01:41 UTC`: readers may be anywhere."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def tell_end(incident: Incident) -> str:
    """How it ended, in a few words."""
    if incident.state is State.GONE:
        return "its subject, or its check, no longer exists"
    match incident.resolved_by:
        case ResolvedBy.RUN:
            return f"repaired by hostmend (run {incident.healed_by})"
        case ResolvedBy.ITSELF:
            return "ended without a repair by hostmend"
        case ResolvedBy.OPERATOR:
            return "ended by an operator"
    return f"not ended ({incident.state.value})"


def tell_facts(report: IncidentReport) -> list[tuple[str, str]]:
    """The figures of a report, each with its name."""
    incident = report.incident
    facts = [
        ("Incident", f"{incident.id} on {report.host}"),
        ("Check", f"{incident.check} {incident.subject}".strip()),
        ("What was wrong", incident.before.summary or incident.before.cause),
        ("Began", tell_instant(incident.began)),
        ("Seen", tell_instant(incident.seen)),
    ]
    if report.detected_after is not None:
        facts.append(("Time to see it", format_duration(report.detected_after)))
    if report.repaired_after is not None:
        facts.append(("Time from confirmation to proof", format_duration(report.repaired_after)))
    if incident.ended is not None:
        facts.append(("Ended", tell_instant(incident.ended)))
    facts += [("Downtime", format_duration(report.downtime)), ("Outcome", tell_end(incident))]
    if incident.acknowledged:
        facts.append(("Known to", incident.acknowledged))
    return facts


def tell_options(run: Run) -> str:
    """`unit=nginx.service validate=['nginx', '-t']`; empty for none."""
    return " ".join(f"{name}={value}" for name, value in sorted(run.options.items()))
