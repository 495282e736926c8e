"""Why speak of an incident now, or not: derived from where it stands and what was said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from agent.core.holds import NextStep, silence_of
from agent.core.model import (
    Held,
    Hold,
    Host,
    Incident,
    Instant,
    Notice,
    Policy,
    Reason,
    ResolvedBy,
    RoutePolicy,
    State,
    Status,
)

#: Not to know is as worth telling as a warning.
_SEVERITY = {Status.OK: 0, Status.UNKNOWN: 1, Status.WARNING: 1, Status.CRITICAL: 2}

#: Holds under which `opened` waits: another problem, or an operator, explains this one.
_EXPLAINED = (Hold.INHIBITED, Hold.INTENTION, Hold.LOOKING_UPSTREAM, Hold.STORM)


@dataclass(frozen=True, kw_only=True)
class Say:
    """One thing that must be said of an incident, and what it settles once it is."""

    reason: Reason
    #: What goes into `Incident.said`.
    keys: tuple[str, ...]
    details: Mapping[str, str] = field(default_factory=dict)


def find_reasons(
    incident: Incident,
    held: Held | None,
    chosen: NextStep | None,
    host: Host,
    policy: Policy,
    now: Instant,
) -> tuple[Say, ...]:
    """Everything that must be said of an incident now; nothing while it is muted."""
    if incident.opened is None or _is_muted(incident, host, policy, now):
        return ()
    if incident.state.ended:
        return tuple(_of_end(incident, host, policy, now))
    return tuple(_of_life(incident, held, chosen, host, policy, now))


def _of_end(incident: Incident, host: Host, policy: Policy, now: Instant) -> Iterator[Say]:
    by_run, covered = incident.resolved_by is ResolvedBy.RUN, _is_covered(incident, host)
    if by_run and "healed" not in incident.said and not covered:
        yield Say(reason=Reason.HEALED, keys=("healed",))
    spoken = [key for key in incident.said if key != "storm"]
    if not by_run and spoken and "ended" not in incident.said and not covered:
        yield Say(reason=Reason.ENDED, keys=("ended",), details={"why": incident.why})
    if by_run and "recurring" not in incident.said:
        count = count_repairs(incident, host, policy, now)
        if count >= policy.recurring_after and count % policy.recurring_after == 0:
            yield Say(
                reason=Reason.RECURRING,
                keys=("recurring",),
                details={
                    "repairs_count": str(count),
                    "window_seconds": str(round(policy.recurring_window)),
                },
            )


def count_repairs(incident: Incident, host: Host, policy: Policy, now: Instant) -> int:
    """How often this fingerprint was repaired and proved within the window."""
    return sum(
        run.proved
        and (run.check, run.subject) == incident.fingerprint
        and now < run.planned + policy.recurring_window
        for run in host.runs
    )


def _of_life(
    incident: Incident,
    held: Held | None,
    chosen: NextStep | None,
    host: Host,
    policy: Policy,
    now: Instant,
) -> Iterator[Say]:
    said, storm = incident.said, _is_covered(incident, host)
    hold = {"hold": held.hold.value, "hold_detail": held.detail} if held else {}
    if incident.state is State.ESCALATED:
        if storm or (incident.run is None and now < opened_due(incident, policy)):
            return
        reminder = reminder_due(incident, policy)
        if "escalated" not in said or (reminder is not None and now >= reminder):
            keys = ("escalated", f"opened:{incident.finding.status.value}")
            yield Say(reason=Reason.ESCALATED, keys=keys, details={"why": incident.why, **hold})
        return
    if incident.state is State.PROBATION:
        return
    if held and held.hold is Hold.APPROVAL and chosen:
        bound = sorted(chosen.options.items())
        key = f"approval:{chosen.step.key}:{chosen.step.digest}:{bound}"
        if key not in said:
            details = {
                "remedy": chosen.step.remedy,
                "risk": chosen.step.risk.value,
                "digest": chosen.step.digest,
                "options": ", ".join(f"{k}={v}" for k, v in sorted(chosen.options.items())),
                **hold,
            }
            yield Say(reason=Reason.APPROVAL, keys=("approval", key), details=details)
            return
    explained = storm or (held is not None and held.hold in _EXPLAINED)
    due = incident.finding.status is not Status.OK and now >= opened_due(incident, policy)
    if due and not explained and not _opened_said(incident):
        told = [f"opened:{incident.finding.status.value}"]
        if held is not None and incident.critical:
            told.append(f"held:{held.hold.value}")
        yield Say(reason=Reason.OPENED, keys=tuple(told), details=hold)
        return
    asked = held is not None and held.hold is Hold.APPROVAL and "approval" in said
    if held and incident.held_since is not None and not asked and not storm:
        key = f"held:{held.hold.value}"
        if now >= incident.held_since + policy.held_after and key not in said:
            yield Say(reason=Reason.HELD, keys=(key,), details=hold)


def _opened_said(incident: Incident) -> bool:
    """Whether it was told already at this severity or a worse one."""
    mine = _SEVERITY[incident.finding.status]
    return any(f"opened:{s.value}" in incident.said for s in Status if _SEVERITY[s] >= mine)


def _is_covered(incident: Incident, host: Host) -> bool:
    """Whether the host's one storm message speaks, or is about to speak, for it."""
    return host.storm is not None and (not host.storm.said or "storm" in incident.said)


def _is_muted(incident: Incident, host: Host, policy: Policy, now: Instant) -> bool:
    """Whether a silence, or a doubt about the host's state, keeps it from being told."""
    return host.doubt is not None or silence_of(incident, host, policy, now) is not None


def opened_due(incident: Incident, policy: Policy) -> Instant:
    """When it may be told of: what is mended, or joined by many, within the wait is not."""
    return (incident.opened or incident.began) + policy.group_wait


def reminder_due(incident: Incident, policy: Policy) -> Instant | None:
    """When an escalated incident speaks again; None once somebody acknowledged it."""
    if incident.acknowledged or incident.said_at is None:
        return None
    return incident.said_at + policy.remind_after


def owes_words(incident: Incident, host: Host, policy: Policy, now: Instant) -> bool:
    """Whether an ended incident must be kept because something keeps its end unsaid for now."""
    if {"healed", "ended"} & set(incident.said):
        return False
    if _is_muted(incident, host, policy, now):
        return bool(incident.said)
    by_run = incident.resolved_by is ResolvedBy.RUN
    return _is_covered(incident, host) and (by_run or bool(incident.said))


def wants(route: RoutePolicy, reason: Reason, incident: Incident | None, policy: Policy) -> bool:
    """Whether a route takes a message."""
    if reason not in route.reasons:
        return False
    if incident is None:
        return True
    check = policy.checks.get(incident.check)
    labels = check.labels if check else {}
    return _worst(incident) >= _SEVERITY[route.severity] and all(
        labels.get(name) == value for name, value in route.labels.items()
    )


def _worst(incident: Incident) -> int:
    """The worst that is known of it: a route that was told of a failure is told of its end."""
    seen = {incident.finding.status, incident.before.status}
    seen |= {status for status in Status if f"opened:{status.value}" in incident.said}
    if incident.run is not None:
        seen.add(Status.CRITICAL)
    return max(_SEVERITY[status] for status in seen)


def write_notices(
    say: Say, incident: Incident | None, policy: Policy, now: Instant, serial: int
) -> tuple[tuple[Notice, ...], int]:
    """One notice for each route that takes the message, and the last number used."""
    notices = []
    for route in policy.routes:
        if wants(route, say.reason, incident, policy):
            serial += 1
            notices.append(
                Notice(
                    id=f"n{serial}",
                    route=route.name,
                    reason=say.reason,
                    created=now,
                    expires=now + policy.notice_for,
                    incident=incident,
                    details=say.details,
                    due=now,
                )
            )
    return tuple(notices), serial


def write_report(
    details: Mapping[str, str], policy: Policy, now: Instant, serial: int, *, only_one: bool
) -> tuple[tuple[Notice, ...], int]:
    """What the agent says of itself, and the last number used.

    It must reach somebody: the first route takes it where none names the reason. `only_one`: one
    route is told and no other.
    """
    named = [route for route in policy.routes if Reason.AGENT in route.reasons]
    told = (named or list(policy.routes))[: 1 if only_one or not named else None]
    notices = tuple(
        Notice(
            id=f"n{serial + number}",
            route=route.name,
            reason=Reason.AGENT,
            created=now,
            expires=now + policy.notice_for,
            details=details,
            due=now,
        )
        for number, route in enumerate(told, 1)
    )
    return notices, serial + len(notices)


def mark_said(incident: Incident, say: Say, now: Instant) -> Incident:
    """The incident with this in its books."""
    said = tuple(dict.fromkeys((*incident.said, *say.keys)))
    return replace(incident, said=said, said_at=now)
