"""Many failures at once: which incidents are one storm, when it is over, what its messages say.

A storm is told in two messages for the host: once it has lasted for `group_wait` and something of
it fails, and once it is over. One that is mended before the first is told in one. No incident of it
has a message of its own meanwhile, so each of the two says all that such messages would have said,
and goes to every route that would have taken one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agent.core.holds import FAILING_STATES, rank, silence_of
from agent.core.model import (
    Held,
    Hold,
    Host,
    Incident,
    Instant,
    Policy,
    Reason,
    ResolvedBy,
    State,
    Status,
    Storm,
)
from agent.core.reasons import Say, describe_question, find_recurring, was_critical

#: States in which hostmend is at work on an incident, or watches whether its work lasts.
_AT_WORK = (State.REPAIRING, State.VERIFYING, State.PROBATION)
#: Holds that last until somebody acts, or for longer than a storm.
_IDLE = (
    Hold.PAUSED,
    Hold.SILENCED,
    Hold.APPROVAL,
    Hold.OVER_BUDGET,
    Hold.SHADOW,
    Hold.INTENTION,
    Hold.NO_REMEDY,
)


def gather_storm(host: Host, policy: Policy, now: Instant) -> Storm | None:
    """The storm as it is now: begun by enough failures at once, joined by what fails since."""
    storm = host.storm
    if host.doubt is not None:
        return storm
    if storm is None:
        fresh = [
            incident
            for incident in host.incidents
            if _may_join(incident, host, policy, now)
            and was_critical(incident)
            and _is_within(incident, policy, now)
        ]
        if len(fresh) < policy.storm_at:
            return None
        storm = Storm(since=now)
    joining = {
        incident.id
        for incident in host.incidents
        if incident.id not in storm.members
        and _may_join(incident, host, policy, now)
        and _is_within(incident, policy, storm.since)
    }
    return replace(storm, members=storm.members | joining) if joining else storm


def _may_join(incident: Incident, host: Host, policy: Policy, now: Instant) -> bool:
    """Whether it was believed and goes on, nobody silenced it, and no storm before told of it."""
    return (
        incident.opened is not None
        and not incident.state.ended
        and "storm" not in incident.said
        and silence_of(incident, host, policy, now) is None
    )


def _is_within(incident: Incident, policy: Policy, since: Instant) -> bool:
    """Whether it was believed at most so long before, or later."""
    return incident.opened is not None and since < incident.opened + policy.storm_window


def members_of(host: Host, policy: Policy, now: Instant) -> tuple[Incident, ...]:
    """The incidents of the storm that may be told of: who a silence covers speaks after it."""
    return tuple(
        incident
        for incident in host.incidents
        if host.storm is not None
        and incident.id in host.storm.members
        and silence_of(incident, host, policy, now) is None
    )


def quiet_from(host: Host, policy: Policy) -> Instant:
    """When the storm has not grown for so long that nothing more is expected."""
    members = frozenset[str]() if host.storm is None else host.storm.members
    opened = (i.opened for i in host.incidents if i.id in members and i.opened is not None)
    return max(opened, default=0.0) + policy.storm_window


def is_over(host: Host, holds: Mapping[str, Held], policy: Policy, now: Instant) -> bool:
    """Whether nothing joins the storm any more and hostmend can do no more about it by itself.

    Whatever comes, it is over after `inhibit_for`: then each incident speaks for itself again.
    """
    storm, members = host.storm, members_of(host, policy, now)
    if storm is None or not members or now >= storm.since + policy.inhibit_for:
        return True
    if now < max(quiet_from(host, policy), storm.since + policy.group_wait):
        return False
    return not any(_is_at_work(incident, holds.get(incident.id)) for incident in members)


def _is_at_work(incident: Incident, held: Held | None) -> bool:
    """Whether hostmend will do something about it by itself before long, or is just doing it."""
    waits = held is not None and held.hold in _IDLE
    return incident.state in _AT_WORK or (
        incident.state is State.OPEN and incident.critical and not waits
    )


def _waits_for_a_word(incident: Incident, held: Held | None) -> bool:
    return incident.state is State.OPEN and held is not None and held.hold is Hold.APPROVAL


def find_storm_message(
    host: Host, holds: Mapping[str, Held], policy: Policy, now: Instant, *, over: bool
) -> tuple[Say, Mapping[str, Say]] | None:
    """What the storm must say now: the message, and for each incident what that settles.

    None: nothing yet, or nothing at all, because everything went away by itself unnoticed.
    """
    storm, members = host.storm, members_of(host, policy, now)
    if storm is None or not members:
        return None
    if over and not storm.said:
        if all(_went_unnoticed(incident) for incident in members):
            return None
        what = "passed"
    elif over:
        what = "ended"
    elif not storm.said and now >= storm.since + policy.group_wait:
        if not any(incident.state in FAILING_STATES for incident in members):
            return None
        what = "began"
    else:
        return None
    settled = {i.id: _settle(i, holds.get(i.id), host, policy, now) for i in members}
    # Those that need somebody come first, since a long list is cut at its end.
    ordered = sorted(members, key=lambda i: (_urgency(i, holds), rank(i, host, policy)))
    ended = sum(incident.state.ended for incident in members)
    needed = sum(_urgency(incident, holds) == 0 for incident in members)
    details = {
        "storm": what,
        "incidents_count": str(len(members)),
        "ended_count": str(ended),
        "needed_count": str(needed),
        "asked": " ".join(i.id for i in ordered if _waits_for_a_word(i, holds.get(i.id))),
        **{i.id: _describe(i, holds.get(i.id), host, policy, now) for i in ordered},
    }
    instead = tuple(
        (reason, incident)
        for incident in members
        for reason in _new_reasons(incident, settled[incident.id])
    )
    return Say(reason=Reason.STORM, keys=(), details=details, instead=instead), settled


def _went_unnoticed(incident: Incident) -> bool:
    """Whether it came and went without a repair, and before anybody was told of it."""
    by_run = incident.resolved_by is ResolvedBy.RUN
    return incident.state.ended and not by_run and not incident.said


def _urgency(incident: Incident, holds: Mapping[str, Held]) -> int:
    """0: a human is needed; 1: it fails; 2: it passes or is over."""
    if incident.state is State.ESCALATED or _waits_for_a_word(incident, holds.get(incident.id)):
        return 0
    return 1 if incident.state in FAILING_STATES else 2


def _settle(incident: Incident, held: Held | None, host: Host, policy: Policy, now: Instant) -> Say:
    """What the storm's message says of one incident, as messages of its own would have."""
    if incident.state.ended:
        keys = ["storm", "healed" if incident.resolved_by is ResolvedBy.RUN else "ended"]
        if find_recurring(incident, host, policy, now) is not None:
            keys.append("recurring")
        return Say(reason=Reason.STORM, keys=tuple(keys))
    failing = incident.finding if incident.finding.status is not Status.OK else incident.before
    keys = ["storm", f"opened:{failing.status.value}"]
    if incident.state is State.ESCALATED:
        keys.append("escalated")
    elif _waits_for_a_word(incident, held):
        keys.append("approval")
    elif held is not None and incident.critical:
        keys.append(f"held:{held.hold.value}")
    return Say(reason=Reason.STORM, keys=tuple(keys))


def _new_reasons(incident: Incident, settled: Say) -> tuple[Reason, ...]:
    """The messages of its own that the incident would have had by now, and has not had."""
    asks = incident.question is not None and incident.question.asked is None
    return tuple(
        Reason(key.partition(":")[0])
        for key in settled.keys
        if key != "storm" and (key not in incident.said or (key == "approval" and asks))
    )


def _describe(
    incident: Incident, held: Held | None, host: Host, policy: Policy, now: Instant
) -> str:
    """`db pg.service: refused (restart-db, medium risk, waits for your word)`."""
    failing = incident.finding if incident.finding.failing else incident.before
    text = f"{incident.check} {incident.subject}: {failing.summary or failing.cause}"
    return f"{text} ({_describe_state(incident, held, host, policy, now)})"


def _describe_state(
    incident: Incident, held: Held | None, host: Host, policy: Policy, now: Instant
) -> str:
    match incident.state:
        case State.RESOLVED if incident.resolved_by is ResolvedBy.RUN:
            again = find_recurring(incident, host, policy, now)
            return "repaired, proved" + (f", {again} times of late" if again is not None else "")
        case State.RESOLVED if incident.resolved_by is ResolvedBy.ITSELF:
            return "works again by itself"
        case State.RESOLVED | State.GONE:
            return f"over: {incident.why}"
        case State.PROBATION:
            return "works again, is being watched"
        case State.REPAIRING | State.VERIFYING:
            return "is being repaired"
        case State.ESCALATED:
            return f"you are needed: {incident.why}"
    if incident.question is not None and _waits_for_a_word(incident, held):
        return describe_question(incident.question)
    why = "" if held is None else f": {held.hold.value}, {held.detail}"
    return f"is not repaired now{why}"
