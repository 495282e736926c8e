"""An incident and a reason become a mail that can be understood at 3 a.m. Pure.

`SAY` has one function per reason. Each says the first line, what happened, and what comes next;
`compose` puts the same facts, runs and evidence below all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.core.model import (
    Evidence,
    Hold,
    Instant,
    Notice,
    Reason,
    ResolvedBy,
    Run,
    State,
    Status,
)
from agent.core.units import format_duration
from agent.host.text import fit_line
from agent.notify.body import (
    LISTED,
    Case,
    Said,
    count_of,
    describe_problem,
    end_sentence,
    tell_time,
    wrap,
    write_details,
    write_evidence,
    write_facts,
    write_lateness,
    write_more,
    write_next,
    write_runs,
    write_text,
)

TITLE_LENGTH = 160

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
    before the first run and after the proof. `public_url` is the address of the dashboard. The
    incident is told as it was when the notice was written; one that goes out late says so.
    Nothing that the texts hold can make it fail.
    """
    case = Case(
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

    blocks = [wrap(said.lead) if said.lead else [], write_lateness(case)]
    if notice.reason is Reason.DIGEST:
        blocks.append(write_text(notice.details.get("text", "")))
    if incident:
        blocks.append(write_facts(case))
        blocks.append(write_runs(case))
    blocks.append(write_details(case, said))
    blocks.append(write_next(said))
    blocks.append(write_evidence(case, before, after))
    blocks.append(write_more(incident, public_url))
    blocks.append(["-- ", f"hostmend on {case.host}, message {message_id}"])
    return Message(
        title=fit_line(f"[{said.tag}] {about} — {said.headline}", TITLE_LENGTH),
        body="\n\n".join("\n".join(block) for block in blocks if block) + "\n",
        message_id=message_id,
        severity=said.severity,
    )


def compose_test(route: str, *, host: str, origin: str, by: str, number: str) -> Message:
    """The message that tries a route; `number` makes its id one that no other has."""
    shown, message_id = fit_line(host, 80), f"{origin}.test-{number}"
    lead = (
        f"Nothing is wrong. {fit_line(by, 120)} asked whether route {route} reaches you: it does."
    )
    blocks = [wrap(lead), ["-- ", f"hostmend on {shown}, message {message_id}"]]
    return Message(
        title=fit_line(f"[test] {shown} — a test of route {route}", TITLE_LENGTH),
        body="\n\n".join("\n".join(block) for block in blocks) + "\n",
        message_id=message_id,
        severity=Status.OK,
    )


#: Details that name a hold.
_HOLD = frozenset({"hold", "hold_detail"})


def _hold_of(case: Case) -> tuple[str, str]:
    """The hold with its particulars, empty for none, and the command that leads out of it."""
    name, detail = case.details.get("hold", ""), case.details.get("hold_detail", "")
    way_out = WAY_OUT[Hold(name)] if name in set(Hold) else WAY_OUT[Hold.INTENTION]
    why = f"{name} ({detail})" if name and detail else name
    return why, way_out.format(id=case.incident.id)


# One function per reason


def _say_opened(case: Case) -> Said:
    incident = case.incident
    run = next((run for run in case.runs if run.alive), None)
    why, way_out = _hold_of(case)
    if run:
        next_ = f"hostmend repairs it now: {fit_line(run.remedy, 60)}."
        commands: tuple[tuple[str, str], ...] = ()
    else:
        held = f" Hold: {why}." if why else ""
        next_ = f"hostmend does not repair it now.{held} It goes on looking."
        commands = ((way_out, "the way out" if why else "why, and what could come next"),)
    return Said(
        tag=str(case.problem.status),
        headline=describe_problem(case.problem),
        lead=f"{case.state}.",
        next=(next_,),
        commands=(*commands, (f"hostmend incident ack {incident.id}", "you know of it")),
        severity=case.problem.status,
        used=_HOLD,
    )


def _say_approval(case: Case) -> Said:
    incident = case.incident
    remedy = case.details.get("remedy", "a remedy")
    return Said(
        tag="approval",
        headline=f"{case.cause}; {remedy} waits for your word",
        lead=f"{case.state}. hostmend would run {remedy} and needs your approval.",
        next=("Nothing is changed until you answer.",),
        commands=(
            (f"hostmend incident approve {incident.id}", f"run {remedy}"),
            (f"hostmend incident reject {incident.id}", "never run it for this incident"),
            (f"hostmend incident explain {incident.id}", "what it would do"),
        ),
        severity=case.problem.status,
        used=_HOLD,
    )


def _say_escalated(case: Case) -> Said:
    incident = case.incident
    tried = (
        f"{count_of(case.tried, 'repair')} did not help" if case.tried else "no repair was tried"
    )
    why = case.details.get("why") or fit_line(incident.why)
    hold, _ = _hold_of(case)
    again = (
        f" and tries its remedies again at {tell_time(incident.retry_at)}"
        if incident.retry_at is not None
        else ""
    )
    return Said(
        tag="escalated",
        headline=f"{case.cause} for {format_duration(case.downtime)}, {tried}: you are needed",
        lead=f"{case.state}, and hostmend cannot mend it{f' ({why})' if why else ''}. "
        "A human is needed.",
        next=(
            f"hostmend goes on looking{again}.",
            *((f"No repair runs now. Hold: {hold}.",) if hold else ()),
        ),
        commands=(
            (f"hostmend incident ack {incident.id}", "you know; reminders stop"),
            (f"hostmend incident retry {incident.id}", "try the remedies again now"),
            (f"hostmend incident close {incident.id}", "it is as it should be"),
        ),
        severity=case.problem.status,
        used=_HOLD | {"why"},
    )


def _say_held(case: Case) -> Said:
    incident = case.incident
    why, way_out = _hold_of(case)
    name = case.details.get("hold", "held")
    return Said(
        tag="held",
        headline=f"{case.cause} for {format_duration(case.downtime)}, not repaired: {name}",
        lead=f"{case.state}, and hostmend does not repair it. Hold: {why or 'not known'}.",
        next=("It is repaired, where a remedy is left, when that reason is gone.",),
        commands=(
            (way_out, "the way out"),
            (f"hostmend incident ack {incident.id}", "you know; reminders stop"),
        ),
        severity=case.problem.status,
        used=_HOLD,
    )


def _say_healed(case: Case) -> Said:
    proved = [run for run in case.runs if run.proved]
    run = proved[-1] if proved else case.last_run
    done = DONE.get(run.remedy, f"{fit_line(run.remedy, 60)} ran") if run else "repaired"
    again = f" at attempt {case.tried}" if case.tried > 1 else ""
    downtime = format_duration(case.downtime)
    return Said(
        tag="healed",
        headline=f"{case.cause} for {downtime}, {done}{again}, proved",
        lead=f"{case.subject} on {case.host} failed for {downtime}. hostmend repaired it, and a "
        "later look proved it. Nothing is needed from you.",
        severity=Status.OK,
    )


#: How an incident ended that no run of ours healed.
_ENDED: Mapping[ResolvedBy | None, str] = {
    ResolvedBy.ITSELF: "works again by itself",
    ResolvedBy.OPERATOR: "was closed by an operator",
    ResolvedBy.RUN: "works again",
    None: "works again",
}


def _say_ended(case: Case) -> Said:
    incident = case.incident
    how = "no longer exists" if incident.state is State.GONE else _ENDED[incident.resolved_by]
    why = case.details.get("why") or fit_line(incident.why)
    return Said(
        tag="ended",
        headline=f"{case.cause} for {format_duration(case.downtime)}, {how}",
        lead=f"{case.subject} on {case.host} failed for {format_duration(case.downtime)} and {how}"
        f"{f' ({why})' if why else ''}. hostmend repaired nothing. Nothing is needed from you.",
        severity=Status.OK,
        used=frozenset({"why"}),
    )


def _say_recurring(case: Case) -> Said:
    incident = case.incident
    times = case.details.get("repairs_count", "several")
    window = case.details.get("window_seconds", "")
    often = f"repaired {times} times"
    if window.isascii() and window.isdigit():
        often += f" in {format_duration(float(window))}"
    return Said(
        tag="recurring",
        headline=f"{case.cause} again and again, {often}",
        lead=f"{case.subject} on {case.host} was {often}. The repairs work and do not last: "
        "something behind them needs a human.",
        next=("hostmend goes on repairing it within its limits.",),
        commands=(
            (f"hostmend incident report {incident.id}", "every look, run and piece of evidence"),
        ),
        severity=Status.WARNING,
        used=frozenset({"repairs_count", "window_seconds"}),
    )


def _say_storm(case: Case) -> Said:
    used = frozenset({"storm", "incidents_count", "ended_count", "needed_count", "asked"})
    count = len(case.details.keys() - used)
    ended = _number_of(case, "ended_count")
    needed = min(_number_of(case, "needed_count"), count)
    failures = count_of(count, "failure")
    outcome = "all are over" if ended >= count else f"{ended} {'is' if ended == 1 else 'are'} over"
    if needed:
        outcome += f", you are needed for {needed}"
    match case.details.get("storm"):
        case "ended":
            headline = f"the storm is over; of {failures} {outcome}"
            lead = (
                f"The storm on {case.host} is over. hostmend speaks of each failure by itself "
                "again."
            )
        case "passed":
            headline = f"{failures} at once, {outcome}"
            lead = f"{failures} on {case.host} began together and were treated as one cause."
        case _:
            headline = f"{failures} at once, treated as one cause"
            headline += f"; you are needed for {needed}" if needed else ""
            lead = (
                f"{failures} on {case.host} began together. hostmend treats them as one cause: it "
                "repairs first what the others stand on, and sends this one message for all, and "
                "one more when it is over."
            )
            ended = 0
    severity = Status.OK if ended >= count else Status.WARNING
    if needed or case.details.get("storm") not in ("ended", "passed"):
        severity = Status.CRITICAL
    asked = [i for i in case.details.get("asked", "").split() if i in case.details]
    return Said(
        tag="storm",
        headline=headline,
        lead=lead,
        next=("Those that wait for your word stay as they are until you answer.",) if asked else (),
        commands=(
            *(
                (f"hostmend incident approve {i}", f"run what {i} waits for")
                for i in asked[:LISTED]
            ),
            ("hostmend incidents", "how they stand now"),
        ),
        severity=severity,
        used=used,
        rest="Failures",
    )


def _number_of(case: Case, name: str) -> int:
    text = case.details.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _say_agent(case: Case) -> Said:
    summary = case.details.get("summary") or "the agent has something to say about itself"
    severity = case.details.get("severity", "")
    return Said(
        tag="agent",
        headline=summary,
        lead=f"hostmend on {case.host}: {end_sentence(summary)}",
        commands=(("hostmend status", "how the agent stands now"),),
        severity=Status(severity) if severity in set(Status) else Status.WARNING,
        used=frozenset({"summary", "severity"}),
    )


def _say_digest(case: Case) -> Said:
    return Said(
        tag="digest",
        headline=case.details.get("headline") or "what happened",
        lead="",
        commands=(("hostmend digest", "the same until now"),),
        severity=Status.OK,
        used=frozenset({"headline", "text"}),
    )


def _say_host(case: Case) -> Said:
    """For a notice whose incident is not there: say at least what is known."""
    return Said(
        tag=str(case.notice.reason),
        headline="see hostmend incidents",
        lead=f"hostmend on {case.host} has news ({case.notice.reason}) of an incident whose "
        "particulars are not at hand.",
        commands=(("hostmend incidents", "all incidents of this host"),),
        severity=Status.WARNING,
    )


SAY: Mapping[Reason, Callable[[Case], Said]] = {
    Reason.OPENED: _say_opened,
    Reason.APPROVAL: _say_approval,
    Reason.ESCALATED: _say_escalated,
    Reason.HELD: _say_held,
    Reason.HEALED: _say_healed,
    Reason.ENDED: _say_ended,
    Reason.RECURRING: _say_recurring,
    Reason.STORM: _say_storm,
    Reason.AGENT: _say_agent,
    Reason.DIGEST: _say_digest,
}
#: Reasons that are about the host and need no incident.
HOST_WIDE = frozenset({Reason.STORM, Reason.AGENT, Reason.DIGEST})
