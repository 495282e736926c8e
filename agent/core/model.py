"""The words of the core: frozen values, and nothing that acts.

Every duration is in seconds and every instant is a number of seconds on `agent.clock.Clock`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

Instant = float
Seconds = float


class Status(StrEnum):
    """What a look says of one subject."""

    #: It does what it is there for.
    OK = "ok"
    #: It will need attention; hostmend never acts on it by default.
    WARNING = "warning"
    #: It fails its users.
    CRITICAL = "critical"
    #: The look could not tell. Not health, and never a reason to act.
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one look saw of one subject."""

    #: What it is about, when a check covers several: a unit, a mount point, a URL.
    subject: str
    status: Status
    #: A short, stable word for what is wrong; ladders match on it. Empty when ok.
    cause: str = ""
    #: One sentence for people.
    summary: str = ""
    #: Numbers behind it; the unit is the end of the name (`used_percent`, `restarts_count`).
    measurements: Mapping[str, float] = field(default_factory=dict)
    #: Short facts for people and for evidence (`Result: exit-code`); never free text for a remedy.
    facts: Mapping[str, str] = field(default_factory=dict)
    #: When the subject came into this condition, where the host itself knows it.
    since: Instant | None = None
    #: An operator wants it like this (a stopped service): not a failure, and not to be mended.
    intended: bool = False
    #: The subject is on its way somewhere (a unit still starting); empty when it is not.
    transition: str = ""
    #: What this finding is about as a thing others stand on, `filesystem:/var`; empty when none.
    resource: str = ""
    #: Resources that the evidence names as the reason (ENOSPC on `filesystem:/var`).
    implicates: tuple[str, ...] = ()

    @property
    def failing(self) -> bool:
        """Whether this is a warning or critical."""
        return self.status in (Status.WARNING, Status.CRITICAL)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Something observed, kept beside an incident: a log excerpt, a command's output."""

    title: str
    text: str


class State(StrEnum):
    """Where an incident stands. `agent.core.advance.TABLE` says how it moves."""

    #: Seen failing, not yet often enough to believe it.
    PENDING = "pending"
    #: Believed; the next remedy is looked for or held.
    OPEN = "open"
    #: A run is planned or alive.
    REPAIRING = "repairing"
    #: A run ended; looks that began after it must prove it.
    VERIFYING = "verifying"
    #: It passes; it must stay so for `stable_for`.
    PROBATION = "probation"
    #: A human is needed. Looking goes on, and the ladder is retried slowly.
    ESCALATED = "escalated"
    #: It ended well; `resolved_by` says through what.
    RESOLVED = "resolved"
    #: The subject, or its check, no longer exists.
    GONE = "gone"

    @property
    def ended(self) -> bool:
        return self in (State.RESOLVED, State.GONE)


class ResolvedBy(StrEnum):
    """What ended a problem."""

    #: A run that a later look proved.
    RUN = "run"
    #: Nothing that hostmend did.
    ITSELF = "itself"
    #: An operator: closed it, or wants the subject as it is.
    OPERATOR = "operator"


class Outcome(StrEnum):
    """How a run ended."""

    OK = "ok"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    #: The run's process went away without a word.
    LOST = "lost"
    #: The playbook stopped and asks for a human.
    NEEDS_HUMAN = "needs_human"


class Changes(StrEnum):
    """What a remedy changes; it decides what may end a run early."""

    SERVICE = "service"
    FILES = "files"
    #: Never ended but by an operator's explicit cancel.
    DATA = "data"

    @property
    def outlives_its_time(self) -> bool:
        """Whether a run goes on past its timeout and without the agent."""
        return self is Changes.DATA


class Risk(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def rank(self) -> int:
        return (Risk.LOW, Risk.MEDIUM, Risk.HIGH).index(self)


class Mode(StrEnum):
    """How far hostmend may go."""

    AUTO = "auto"
    APPROVE = "approve"
    #: Records what it would have done.
    SHADOW = "shadow"
    OFF = "off"


class RunState(StrEnum):
    #: Durable, and not yet started by the worker.
    PLANNED = "planned"
    #: Claimed by the worker; its job may be alive.
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution of a remedy: a durable intent that the worker carries out."""

    id: str
    remedy: str
    #: What is passed to the remedy, already filled from the finding.
    options: Mapping[str, object]
    risk: Risk
    changes: Changes
    timeout: Seconds
    #: Two runs with one lock never overlap.
    lock: str
    digest: str
    planned: Instant
    state: RunState = RunState.PLANNED
    #: Preview: Ansible's check mode with diff. It changes nothing and proves nothing.
    preview: bool = False
    #: Who asked for it; empty when hostmend decided by itself.
    by: str = ""
    #: The incident it is for, if any.
    incident: str | None = None
    check: str = ""
    subject: str = ""
    #: The ladder's step that it is an attempt at.
    step: str = ""
    started: Instant | None = None
    ended: Instant | None = None
    outcome: Outcome | None = None
    #: One sentence on how it ended.
    detail: str = ""
    #: A look that began after its end proved it.
    proved: bool = False

    @property
    def alive(self) -> bool:
        """Whether it holds the slot and its lock."""
        return self.state is not RunState.ENDED


class Hold(StrEnum):
    """Why no run is started now. Always derived from the present, never remembered."""

    PAUSED = "paused"
    SILENCED = "silenced"
    INHIBITED = "inhibited"
    LOOKING_UPSTREAM = "looking upstream"
    APPROVAL = "approval"
    COOLING_DOWN = "cooling down"
    BUSY = "busy"
    OVER_BUDGET = "over budget"
    STORM = "storm"
    SHADOW = "shadow"
    INTENTION = "operator's intention"
    TRANSITION = "host in transition"
    NO_REMEDY = "no remedy"


@dataclass(frozen=True, kw_only=True)
class Held:
    """A hold on one incident: its name, the particulars, and when it may change by itself."""

    hold: Hold
    detail: str
    #: None: only an event changes it.
    until: Instant | None = None


class Reason(StrEnum):
    """Why people are spoken to."""

    OPENED = "opened"
    #: A run waits for somebody's word.
    APPROVAL = "approval"
    ESCALATED = "escalated"
    #: A confirmed critical that hostmend holds back from repairing.
    HELD = "held"
    #: Repaired and proved.
    HEALED = "healed"
    #: Ended without a repair of ours, after it had been spoken of.
    ENDED = "ended"
    RECURRING = "recurring"
    #: Many failures at once: one message for the host.
    STORM = "storm"
    #: The agent itself: lost state, a clone, a configuration that cannot be read.
    AGENT = "agent"
    #: What happened since the last one, by schedule.
    DIGEST = "digest"


class NoticeState(StrEnum):
    DUE = "due"
    DELIVERED = "delivered"
    EXPIRED = "expired"


@dataclass(frozen=True, kw_only=True)
class Question:
    """A run that needs somebody's word, with the options as they were when it was put.

    What it measures goes on changing; what somebody was asked, and says yes to, does not.
    """

    step: str
    remedy: str
    risk: Risk
    options: Mapping[str, object]
    digest: str
    #: Options whose values are shown to nobody.
    hidden: frozenset[str] = frozenset()
    #: When people were told of it; None: not yet.
    asked: Instant | None = None


@dataclass(frozen=True, kw_only=True)
class Approval:
    """An operator's word for one run, bound to exactly what was shown."""

    step: str
    options: Mapping[str, object]
    digest: str
    by: str
    until: Instant


@dataclass(frozen=True, kw_only=True)
class Incident:
    """One problem from its first failing finding to its end."""

    id: str
    check: str
    subject: str
    state: State
    #: The latest complete finding, and when the look that saw it began.
    finding: Finding
    looked: Instant
    #: The finding it was opened for, kept as evidence from before.
    before: Finding
    #: The finding that proved the end.
    after: Finding | None = None
    #: When it began to fail, as far as it is known.
    began: Instant
    #: When it was confirmed.
    opened: Instant | None = None
    #: When `state` was entered.
    entered: Instant
    ended: Instant | None = None
    resolved_by: ResolvedBy | None = None
    #: One sentence on why the present state was entered.
    why: str = ""
    #: When its first failing look began, and when its latest look ended.
    seen: Instant
    look_ended: Instant
    #: What its last looks said, oldest first; at most `Confirm.of`.
    recent: tuple[Status, ...] = ()
    #: Since when it passes without a doubt in between. None while it does not.
    passing_since: Instant | None = None
    #: When the first of those looks had ended: whole by then, and perhaps not before.
    whole_by: Instant | None = None
    #: Since when looks cannot tell. None while they can.
    unclear_since: Instant | None = None
    #: Its run that is alive, or the last one.
    run: str | None = None
    #: When that run ended: only looks begun later can prove it.
    run_ended: Instant | None = None
    #: The run that a look proved, while that proof stands.
    healed_by: str | None = None
    #: How often it passed by itself of late, and failed again.
    relapses: int = 0
    #: While it fails: since when. None while it passes.
    failing_since: Instant | None = None
    #: Seconds of failing that are over.
    downtime: Seconds = 0.0
    #: Since when it has been critical and held; None when it is not.
    held_since: Instant | None = None
    #: Steps an operator refused.
    rejected: tuple[str, ...] = ()
    question: Question | None = None
    approval: Approval | None = None
    #: Escalated: when the ladder may be tried again, and how often it was since.
    retry_at: Instant | None = None
    retries: int = 0
    #: An operator knows; reminders stop.
    acknowledged: str = ""
    #: Steps recorded as "would have run" in shadow.
    shadowed: tuple[str, ...] = ()
    #: Its check's, as they were when it began: for when that is not configured any more.
    labels: Mapping[str, str] = field(default_factory=dict)
    #: What was said, as `reason` or `reason:particular`.
    said: tuple[str, ...] = ()
    #: When something was last said.
    said_at: Instant | None = None

    @property
    def fingerprint(self) -> tuple[str, str]:
        """The identity of the problem, across incidents."""
        return (self.check, self.subject)

    @property
    def critical(self) -> bool:
        return self.finding.status is Status.CRITICAL

    def count_downtime(self, until: Instant) -> Seconds:
        """Seconds of failing so far; of one that ended, in all."""
        if self.failing_since is None:
            return self.downtime
        return self.downtime + max(0.0, (self.ended or until) - self.failing_since)


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One message to one route: a durable intent that stays until delivered or expired."""

    id: str
    route: str
    reason: Reason
    created: Instant
    expires: Instant
    #: The incident as it was when the message became due; None for the host's own messages.
    incident: Incident | None = None
    #: What the message says beyond the incident: names and values.
    details: Mapping[str, str] = field(default_factory=dict)
    state: NoticeState = NoticeState.DUE
    attempts: int = 0
    #: When the next attempt may be made.
    due: Instant = 0.0
    delivered: Instant | None = None
    #: What the last attempt said, secrets masked.
    error: str = ""
    #: Its service refuses it for good: it no longer holds back later ones.
    poisoned: bool = False

    @property
    def order(self) -> str:
        """Messages with the same value reach a route in order of their creation; empty: in any."""
        if self.incident is not None:
            return self.incident.id
        return "storm" if self.reason is Reason.STORM else ""


@dataclass(frozen=True, kw_only=True)
class Silence:
    """Mutes notices; with `runs` (a maintenance window) it holds runs too. Looking goes on."""

    id: str
    starts: Instant
    ends: Instant
    by: str
    comment: str = ""
    #: What it covers. Empty means nothing; everything is said as `("*",)`.
    checks: tuple[str, ...] = ()
    #: Only these subjects of those checks; empty: all of them.
    subjects: tuple[str, ...] = ()
    #: Or: incidents of checks that carry all of these labels; empty: not used.
    labels: Mapping[str, str] = field(default_factory=dict)
    runs: bool = False
    #: The configuration opens it again and again; its name is the id.
    recurring: bool = False


class Schedule(Protocol):
    """When something comes again and again, by the wall clock."""

    def find_span(self, at: Instant) -> tuple[Instant, Instant]:
        """The begin and end of what comes at an instant of the wall clock, or else comes next.

        The end is later than `at`, and the same instant has the same answer for ever.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Maintenance:
    """A maintenance window that the configuration opens again and again."""

    name: str
    schedule: Schedule
    #: What it covers, as a silence says it.
    checks: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    comment: str = ""


@dataclass(frozen=True, kw_only=True)
class Storm:
    """Many failures at once, treated as one cause."""

    since: Instant
    #: Its first message has been written.
    said: bool = False
    #: The incidents of it, also those that have ended meanwhile.
    members: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class LastLook:
    """The last look of a check, as far as deciding needs it."""

    began: Instant
    ended: Instant
    #: All its subjects were ok.
    ok: bool
    #: Subjects that an operator wants as they are.
    intended: tuple[str, ...] = ()
    #: What its findings are about, as things others stand on.
    resources: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Pause:
    """Runs are stopped, looking and telling go on."""

    by: str
    since: Instant
    #: None: until somebody resumes.
    until: Instant | None = None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """The state may not be this host's own (lost, or a clone's): until an operator confirms it,
    nothing is run and nobody is told but of the doubt itself.
    """

    why: str
    since: Instant


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """A problem that ended by itself: another end of the same before long is flapping."""

    check: str
    subject: str
    at: Instant


@dataclass(frozen=True, kw_only=True)
class Host:
    """All that decisions span, as one transaction sees it."""

    incidents: tuple[Incident, ...] = ()
    #: Alive, or within the longest window that counts them.
    runs: tuple[Run, ...] = ()
    silences: tuple[Silence, ...] = ()
    looked: Mapping[str, LastLook] = field(default_factory=dict)
    storm: Storm | None = None
    paused: Pause | None = None
    doubt: Doubt | None = None
    #: Within `Policy.flap_window`, oldest first.
    recoveries: tuple[Recovery, ...] = ()
    #: Until when what happened has been told in a digest; None: nothing was yet.
    digested: Instant | None = None
    #: What the whole host is doing that forbids runs (`booting`), and when that was last seen.
    transition: str = ""
    transition_seen: Instant | None = None
    #: How far the wall clock is ahead of instants, which never step: schedules go by it.
    wall_ahead: Seconds = 0.0
    #: The last number given to an incident, run, notice or silence.
    serial: int = 0


@dataclass(frozen=True, kw_only=True)
class Confirm:
    """`times` failing looks among the last `of` make a finding believed."""

    times: int = 1
    of: int = 1


@dataclass(frozen=True, kw_only=True)
class Step:
    """One remedy of a ladder, with everything known of it beforehand."""

    #: Identity within the ladder: the remedy's name, and its position if it occurs twice.
    key: str
    remedy: str
    #: Causes that it is for. Empty never means all: the configuration fills it from `handles`.
    causes: tuple[str, ...]
    #: Options that the configuration fixes.
    options: Mapping[str, object] = field(default_factory=dict)
    #: Option -> finding field (`subject`, `cause`, `measurements.NAME`) for what is not fixed.
    fills: Mapping[str, str] = field(default_factory=dict)
    #: Options whose values are shown to nobody.
    hidden: frozenset[str] = frozenset()
    risk: Risk = Risk.LOW
    changes: Changes = Changes.SERVICE
    timeout: Seconds = 60.0
    #: A template over the options: `unit:{unit}`.
    lock: str = ""
    digest: str = ""
    attempts: int = 2
    #: None: the check's.
    mode: Mode | None = None


@dataclass(frozen=True, kw_only=True)
class CheckPolicy:
    """What deciding needs to know of one configured check."""

    name: str
    every: Seconds = 10.0
    timeout: Seconds = 10.0
    confirm: Confirm = field(default_factory=Confirm)
    stable_for: Seconds = 60.0
    cool_down: Seconds = 10.0
    #: How long after a run a look may still fail before the run counts as no cure.
    verify_for: Seconds = 30.0
    depends_on: tuple[str, ...] = ()
    ladder: tuple[Step, ...] = ()
    mode: Mode | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RoutePolicy:
    """Which messages one route takes."""

    name: str
    reasons: tuple[Reason, ...]
    #: At least this severe; ok counts as the incident's worst.
    severity: Status = Status.WARNING
    #: Only incidents of checks that carry all of these.
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The configuration as the core sees it: complete, with every default filled in."""

    checks: Mapping[str, CheckPolicy] = field(default_factory=dict)
    routes: tuple[RoutePolicy, ...] = ()
    maintenance: tuple[Maintenance, ...] = ()
    mode: Mode = Mode.AUTO
    act_alone_up_to: Risk = Risk.LOW
    #: Runs that hostmend starts by itself within any hour.
    runs_per_hour: int = 6
    #: The hour of `runs_per_hour`.
    budget_window: Seconds = 3600.0
    #: Runs alive at once, each with a lock of its own.
    slots: int = 1
    #: Attempts of a fingerprint are counted over this.
    attempts_window: Seconds = 6 * 3600.0
    #: The same fingerprint repaired and proved this often within `recurring_window` is recurring.
    recurring_after: int = 3
    recurring_window: Seconds = 24 * 3600.0
    #: Confirmed criticals within `storm_window` that make a storm, and the wait before its message.
    storm_at: int = 5
    storm_window: Seconds = 60.0
    group_wait: Seconds = 10.0
    #: A finding older than this is looked at again before a run.
    fresh_for: Seconds = 30.0
    #: A held critical speaks after this.
    held_after: Seconds = 180.0
    #: Longest time that an upstream problem holds its dependants.
    inhibit_for: Seconds = 900.0
    #: Longest time that looking upstream delays a run.
    upstream_for: Seconds = 5.0
    #: Longest time that a transition of the host is believed without being seen again.
    transition_for: Seconds = 900.0
    #: `unknown` for this long is reported.
    unknown_for: Seconds = 600.0
    #: Escalated: first wait before the ladder is tried again; it doubles up to the longest.
    retry_after: Seconds = 1800.0
    retry_at_most: Seconds = 6 * 3600.0
    #: A problem that passed by itself and failed again this often within `flap_window` flaps: the
    #: time for which it must stay whole doubles with each further time, up to `stable_at_most`.
    flap_after: int = 3
    flap_window: Seconds = 3600.0
    stable_at_most: Seconds = 1800.0
    #: An escalated incident that nobody acknowledged speaks again.
    remind_after: Seconds = 24 * 3600.0
    #: An approval that nobody gives lapses, and one that was given must be used within this.
    approval_for: Seconds = 3600.0
    #: An undelivered notice is given up after this.
    notice_for: Seconds = 3 * 24 * 3600.0


# Events


@dataclass(frozen=True, kw_only=True)
class Looked:
    """A look of one check ended. It is complete: a subject it does not report is gone."""

    check: str
    began: Instant
    ended: Instant
    findings: tuple[Finding, ...]
    #: The look itself broke (an error, a time-out): what it says, and it is not complete.
    broken: str = ""
    #: What the whole host was doing meanwhile that forbids runs; empty for nothing.
    transition: str = ""


@dataclass(frozen=True, kw_only=True)
class RunStarted:
    """The worker claimed a planned run."""

    run: str


@dataclass(frozen=True, kw_only=True)
class RunEnded:
    """A run's end, as its job reported it or as its absence shows."""

    run: str
    outcome: Outcome
    ended: Instant
    detail: str = ""


class Verb(StrEnum):
    """What an operator can order."""

    ACKNOWLEDGE = "acknowledge"
    APPROVE = "approve"
    REJECT = "reject"
    RETRY = "retry"
    CLOSE = "close"
    PAUSE = "pause"
    RESUME = "resume"
    CONFIRM = "confirm"
    SILENCE = "silence"
    END_SILENCE = "end_silence"
    RUN = "run"


@dataclass(frozen=True, kw_only=True)
class Ordered:
    """Somebody's order. What it needs beyond the verb depends on the verb."""

    verb: Verb
    by: str
    #: The incident's or silence's id.
    target: str = ""
    #: PAUSE: until when. None: until resumed.
    until: Instant | None = None
    why: str = ""
    #: SILENCE: the silence, its id still empty.
    silence: Silence | None = None
    #: RUN: the remedy as a step, with complete options.
    step: Step | None = None
    preview: bool = False
    #: APPROVE: the digest of what the operator saw; it must still be that.
    digest: str = ""


@dataclass(frozen=True, kw_only=True)
class Reconfigured:
    """The policy that comes with this event is a new one."""


@dataclass(frozen=True, kw_only=True)
class Reported:
    """The agent itself needs attention."""

    summary: str
    severity: Status = Status.CRITICAL
    #: Why the state may not be this host's; empty: it is.
    doubt: str = ""


@dataclass(frozen=True, kw_only=True)
class Digested:
    """What happened until an instant was put together, for those who want to hear of it."""

    until: Instant
    headline: str
    #: The whole of it; empty: there is nothing to tell yet, and from then on it is counted.
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Tick:
    """Time went on."""


Event = Looked | RunStarted | RunEnded | Ordered | Reconfigured | Reported | Digested | Tick


@dataclass(frozen=True, kw_only=True)
class Transition:
    """Something an incident went through, for history and for those who watch live."""

    incident: str
    at: Instant
    #: None for the first.
    old: State | None
    new: State
    why: str


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What follows from one event. `host`, `runs` and `notices` are saved in one transaction."""

    host: Host
    #: Incidents that ended with nothing left to say: final, and no longer part of `host`.
    ended: tuple[Incident, ...] = ()
    transitions: tuple[Transition, ...] = ()
    #: New runs, in state `planned`.
    runs: tuple[Run, ...] = ()
    #: New notices.
    notices: tuple[Notice, ...] = ()
    #: Checks to look at now; derived, never stored.
    look: frozenset[str] = frozenset()
    #: Nothing changes sooner without an event; None: nothing changes at all.
    wake: Instant | None = None
    #: Why each live incident has no run now, by its id.
    holds: Mapping[str, Held] = field(default_factory=dict)
    #: Ordered: the id of what it made or changed.
    made: str = ""
