"""Why speak of an incident now, or not: derived from where it stands and what was said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from agent.core.holds import silence_of
from agent.core.model import (
    Digested,
    Held,
    Hold,
    Host,
    Incident,
    Instant,
    Notice,
    Policy,
    Question,
    Reason,
    ResolvedBy,
    RoutePolicy,
    State,
    Status,
)
from agent.core.text import mask_values

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
    #: Messages that it stands for: who takes one of them takes it.
    instead: tuple[tuple[Reason, Incident], ...] = ()
    #: Messages that have said the same: who takes one of them does not take it.
    known_by: tuple[Reason, ...] = ()
    #: Messages that it is the end of: who takes none of them does not take it. Empty: of nothing.
    after: tuple[Reason, ...] = ()


def find_reasons(
    incident: Incident, held: Held | None, host: Host, policy: Policy, now: Instant
) -> tuple[Say, ...]:
    """Everything that must be said of an incident by itself now.

    Nothing while it is muted, nor while it belongs to a storm, whose messages speak for it.
    """
    if incident.opened is None or _is_muted(incident, host, policy, now):
        return ()
    if _is_covered(incident, host):
        return ()
    if incident.state.ended:
        return tuple(_of_end(incident, host, policy, now))
    return tuple(_of_life(incident, held, policy, now))


def _of_end(incident: Incident, host: Host, policy: Policy, now: Instant) -> Iterator[Say]:
    by_run = incident.resolved_by is ResolvedBy.RUN
    if by_run and "healed" not in incident.said:
        yield Say(reason=Reason.HEALED, keys=("healed",))
    if not by_run and incident.said and "ended" not in incident.said:
        details = {"why": incident.why}
        yield Say(
            reason=Reason.ENDED, keys=("ended",), details=details, after=_reasons_said(incident)
        )
    count = find_recurring(incident, host, policy, now)
    if count is not None and "recurring" not in incident.said:
        yield Say(
            reason=Reason.RECURRING,
            keys=("recurring",),
            details={
                "repairs_count": str(count),
                "window_seconds": str(round(policy.recurring_window)),
            },
        )


def find_recurring(incident: Incident, host: Host, policy: Policy, now: Instant) -> int | None:
    """How often it was repaired of late, where this repair makes that worth telling."""
    if incident.resolved_by is not ResolvedBy.RUN:
        return None
    count = count_repairs(incident, host, policy, now)
    is_told = count >= policy.recurring_after and count % policy.recurring_after == 0
    return count if is_told else None


def count_repairs(incident: Incident, host: Host, policy: Policy, now: Instant) -> int:
    """How often this fingerprint was repaired and proved within the window."""
    return sum(
        run.proved
        and (run.check, run.subject) == incident.fingerprint
        and now < run.planned + policy.recurring_window
        for run in host.runs
    )


def _of_life(incident: Incident, held: Held | None, policy: Policy, now: Instant) -> Iterator[Say]:
    if incident.state is State.ESCALATED:
        yield from _of_escalated(incident, held, policy, now)
    elif incident.state is not State.PROBATION:
        yield from _of_open(incident, held, policy, now)


def _of_escalated(
    incident: Incident, held: Held | None, policy: Policy, now: Instant
) -> Iterator[Say]:
    if incident.run is None and now < opened_due(incident, policy):
        return
    reminder = reminder_due(incident, policy)
    if "escalated" not in incident.said or (reminder is not None and now >= reminder):
        keys = ("escalated", f"opened:{incident.finding.status.value}")
        instead = () if _opened_said(incident) else ((Reason.OPENED, incident),)
        details = {"why": incident.why, **_describe_hold(held)}
        yield Say(reason=Reason.ESCALATED, keys=keys, details=details, instead=instead)


def _of_open(incident: Incident, held: Held | None, policy: Policy, now: Instant) -> Iterator[Say]:
    question, hold = incident.question, _describe_hold(held)
    opens = (
        now >= opened_due(incident, policy)
        and (held is None or held.hold not in _EXPLAINED)
        and incident.finding.status is not Status.OK
        and not _opened_said(incident)
    )
    told = (f"opened:{incident.finding.status.value}",) if opens else ()
    if held is not None and held.hold is Hold.APPROVAL:
        if question is not None and question.asked is None and now >= opened_due(incident, policy):
            # Who hears of holds, or of failures, would be told the same once more.
            others = (Reason.HELD, Reason.OPENED) if opens else (Reason.HELD,)
            yield Say(
                reason=Reason.APPROVAL,
                keys=("approval", *told),
                details={**_describe_options(question), **hold},
                instead=tuple((reason, incident) for reason in others),
            )
    elif opens:
        named = () if held is None or not incident.critical else (_named_key(held),)
        yield Say(reason=Reason.OPENED, keys=(*told, *named), details=hold)
    elif held is not None and incident.held_since is not None:
        key = f"held:{held.hold.value}"
        if now >= incident.held_since + policy.held_after and key not in incident.said:
            known = (Reason.OPENED,) if _named_key(held) in incident.said else ()
            yield Say(reason=Reason.HELD, keys=(key,), details=hold, known_by=known)
    elif held is not None and not incident.critical:
        # Nobody mends it: who hears of failures knows by now, and others must hear of it once.
        heard = {Reason.HELD, Reason.ESCALATED, Reason.STORM}.intersection(_reasons_said(incident))
        if now >= mild_due(incident, policy) and not heard:
            key, known = f"held:{held.hold.value}", (Reason.OPENED,)
            yield Say(reason=Reason.HELD, keys=(key,), details=hold, known_by=known)


def mild_due(incident: Incident, policy: Policy) -> Instant:
    """When a problem that is not acted on is told to those who do not hear of every failure."""
    return (incident.opened or incident.began) + policy.held_after


#: What a key of `Incident.said` says was sent; a question stands for a hold.
_SENT: Mapping[str, tuple[Reason, ...]] = {
    "opened": (Reason.OPENED,),
    "held": (Reason.HELD,),
    "approval": (Reason.APPROVAL, Reason.HELD),
    "escalated": (Reason.ESCALATED,),
    "storm": (Reason.STORM,),
}


def _reasons_said(incident: Incident) -> tuple[Reason, ...]:
    """The messages that have been sent of it, or that others stood for."""
    keys = (key.partition(":")[0] for key in incident.said)
    return tuple(dict.fromkeys(reason for key in keys for reason in _SENT.get(key, ())))


def _named_key(held: Held) -> str:
    """For the books: the message that it failed has named this hold."""
    return f"opened, held:{held.hold.value}"


def _describe_hold(held: Held | None) -> dict[str, str]:
    return {} if held is None else {"hold": held.hold.value, "hold_detail": held.detail}


def _describe_options(question: Question) -> dict[str, str]:
    shown = mask_values(question.options, question.hidden)
    return {
        "remedy": question.remedy,
        "risk": question.risk.value,
        "digest": question.digest,
        "options": ", ".join(f"{k}={v}" for k, v in sorted(shown.items())),
    }


def describe_question(question: Question) -> str:
    """`restart-db (medium risk; unit=pg.service) waits for your word`."""
    told = _describe_options(question)
    options = f"; {told['options']}" if told["options"] else ""
    return f"{question.remedy} ({told['risk']} risk{options}) waits for your word"


def _opened_said(incident: Incident) -> bool:
    """Whether it was told already at this severity or a worse one."""
    mine = _SEVERITY[incident.finding.status]
    return any(f"opened:{s.value}" in incident.said for s in Status if _SEVERITY[s] >= mine)


def _is_covered(incident: Incident, host: Host) -> bool:
    """Whether the messages of the host's storm speak for it."""
    return host.storm is not None and incident.id in host.storm.members


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


def answer_due(incident: Incident, policy: Policy) -> Instant | None:
    """When a question has waited long enough; None while nobody was asked."""
    asked = None if incident.question is None else incident.question.asked
    if asked is None or incident.held_since is None:
        return None
    # It may be put again: after a recovery that did not last, with the same question.
    return max(asked, incident.held_since) + policy.approval_for


def owes_words(incident: Incident, host: Host, policy: Policy, now: Instant) -> bool:
    """Whether an ended incident must be kept because something keeps its end unsaid for now."""
    if _is_covered(incident, host):
        # The end of the storm tells of all of it.
        return True
    if {"healed", "ended"} & set(incident.said):
        return False
    if _is_muted(incident, host, policy, now):
        return bool(incident.said)
    return False


def wants(route: RoutePolicy, reason: Reason, incident: Incident | None, policy: Policy) -> bool:
    """Whether a route takes a message."""
    if reason not in route.reasons:
        return False
    if incident is None:
        return True
    check = policy.checks.get(incident.check)
    labels = check.labels if check else incident.labels
    return _worst(incident) >= _SEVERITY[route.severity] and all(
        labels.get(name) == value for name, value in route.labels.items()
    )


def was_critical(incident: Incident) -> bool:
    """Whether it is, or has been, more than a warning."""
    return _worst(incident) >= _SEVERITY[Status.CRITICAL]


def _worst(incident: Incident) -> int:
    """The worst that is known of it: a route that was told of a failure is told of its end."""
    seen = {incident.finding.status, incident.before.status}
    seen |= {status for status in Status if f"opened:{status.value}" in incident.said}
    if incident.run is not None:
        seen.add(Status.CRITICAL)
    return max(_SEVERITY[status] for status in seen)


def _takes(route: RoutePolicy, say: Say, incident: Incident | None, policy: Policy) -> bool:
    if any(wants(route, reason, incident, policy) for reason in say.known_by):
        return False
    if say.after and not any(wants(route, reason, incident, policy) for reason in say.after):
        return False
    asked = ((say.reason, incident), *say.instead)
    return any(wants(route, reason, other, policy) for reason, other in asked)


def write_notices(
    say: Say, incident: Incident | None, policy: Policy, now: Instant, serial: int
) -> tuple[tuple[Notice, ...], int]:
    """One notice for each route that takes the message, and the last number used."""
    notices = []
    for route in policy.routes:
        if _takes(route, say, incident, policy):
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


def write_digest_notices(
    digest: Digested, policy: Policy, now: Instant, serial: int
) -> tuple[tuple[Notice, ...], int]:
    """One notice for each route that takes digests, and the last number used."""
    routes = [route for route in policy.routes if Reason.DIGEST in route.reasons and digest.text]
    notices = tuple(
        Notice(
            id=f"n{serial + number}",
            route=route.name,
            reason=Reason.DIGEST,
            created=now,
            expires=now + policy.notice_for,
            details={"headline": digest.headline, "text": digest.text},
            due=now,
        )
        for number, route in enumerate(routes, 1)
    )
    return notices, serial + len(notices)


def mark_said(incident: Incident, say: Say, now: Instant) -> Incident:
    """The incident with this in its books."""
    said, question = tuple(dict.fromkeys((*incident.said, *say.keys))), incident.question
    if "approval" in say.keys and question is not None and question.asked is None:
        question = replace(question, asked=now)
    return replace(incident, said=said, said_at=now, question=question)
