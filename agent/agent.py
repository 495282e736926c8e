"""The facade: everything that a way in from outside may ask of the agent, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from agent.access import Action as Action
from agent.access import ActionOutcome as ActionOutcome
from agent.access import NewToken as NewToken
from agent.access import Role as Role
from agent.access import Token as Token
from agent.audit.result import Audit as Audit
from agent.audit.result import Defect as Defect
from agent.audit.words import tell_verdict as tell_verdict
from agent.core.drill import Drill as Drill
from agent.core.drill import DrillOutcome as DrillOutcome
from agent.core.drill import DrillState as DrillState
from agent.core.model import (
    Evidence,
    Finding,
    Held,
    Incident,
    Instant,
    Notice,
    Pause,
    Run,
    Silence,
    Storm,
    Transition,
)
from agent.feed import LiveEvent as LiveEvent
from agent.reports.digest import LONGEST_DIGEST as LONGEST_DIGEST
from agent.reports.digest import Digest as Digest
from agent.reports.digest import Times as Times
from agent.reports.digest import write_digest as write_digest
from agent.reports.digest import write_headline as write_headline
from agent.reports.incident import IncidentReport as IncidentReport
from agent.reports.markdown import render_markdown as render_markdown
from agent.reports.page import render_page as render_page
from agent.told import Alert as Alert
from agent.told import Report as Report
from agent.told import Taken as Taken
from agent.watcher import Lateness as Lateness

T = TypeVar("T")

#: A drill is judged within so many seconds at the latest.
LONGEST_DRILL = 3600.0


@dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
    """A part of a list, newest first."""

    items: tuple[T, ...]
    #: Pass it as `before` for the next part; None at the end.
    next: str | None


@dataclass(frozen=True, kw_only=True)
class AgentStatus:
    """How the agent itself is."""

    version: str
    host: str
    started: Instant
    now: Instant
    #: The worst status of any check: ok, warning, critical, unknown.
    worst: str
    checks_count: Mapping[str, int]
    incidents: tuple[Incident, ...]
    #: Why each of them has no run now.
    holds: Mapping[str, Held]
    runs_alive: tuple[Run, ...]
    notices_due: int
    #: How late the looks of the last minutes began.
    lateness: Lateness
    paused: Pause | None
    storm: Storm | None
    silences: tuple[Silence, ...]
    #: What is not to be had here, so that less is watched or repaired, and why.
    missing: Mapping[str, str]
    #: What is wrong with the agent itself, in words: a rejected configuration, a broken remedy.
    problems: tuple[str, ...]
    config_path: str
    config_loaded: Instant


@dataclass(frozen=True, kw_only=True)
class CheckStatus:
    """One configured check and what its last look saw."""

    name: str
    type: str
    every: float
    depends_on: tuple[str, ...]
    ladder: tuple[str, ...]
    mode: str
    labels: Mapping[str, str]
    #: None: not looked at yet.
    looked: Instant | None
    took: float | None
    findings: tuple[Finding, ...]
    #: The look itself broke: what it said.
    broken: str
    #: The worst of the findings; `unknown` when there is none yet.
    status: str
    incidents: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EvidenceItem:
    """Evidence of an incident, from `before` or `after`."""

    when: str
    taken: Instant
    evidence: Evidence


@dataclass(frozen=True, kw_only=True)
class IncidentStory:
    """An incident with everything known of it."""

    incident: Incident
    held: Held | None
    transitions: tuple[Transition, ...]
    runs: tuple[Run, ...]
    notices: tuple[Notice, ...]
    evidence: tuple[EvidenceItem, ...]
    #: Seconds of failing so far.
    downtime: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Every gate between an incident and its next step."""

    incident: Incident
    #: The remedy that would be next, and its options; empty when there is none.
    remedy: str
    options: Mapping[str, Any]
    #: Empty: nothing holds it. The first is the hold that is shown elsewhere.
    gates: tuple[Held, ...]
    #: Attempts of each step so far, as `remedy: tried of allowed`.
    attempts: Mapping[str, str]
    #: Automatic runs within the hour, and how many are allowed.
    budget: tuple[int, int]
    #: The sentence for people: what happens next, and when.
    next: str


@dataclass(frozen=True, kw_only=True)
class RemedyInfo:
    """A remedy on offer, without its files."""

    name: str
    summary: str
    path: str
    risk: str
    changes: str
    timeout: float
    handles: Mapping[str, tuple[str, ...]]
    #: Option -> its description as written: type, required, default, choices, description.
    options: Mapping[str, Mapping[str, Any]]
    digest: str
    #: The digest of the shipped remedy that this one replaces, if any.
    replaces: str | None
    #: Checks whose ladder names it.
    used_by: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AuditRecord:
    """What one audit of a site found, and which check had it made. It lists no addresses."""

    id: str
    check: str
    audit: Audit


@dataclass(frozen=True, kw_only=True)
class RehearsalReport:
    """What a rehearsal came to, as whoever made it tells."""

    #: pass, fail or inconclusive.
    verdict: str
    #: The line that says it all.
    headline: str
    candidate: str
    baseline: str
    #: Seconds.
    took: float
    #: The whole report, as `hostmend rehearse --json` prints it.
    report: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RehearsalRecord:
    """A rehearsal that is kept."""

    id: str
    kept: Instant
    by: str
    told: RehearsalReport


@dataclass(frozen=True, kw_only=True)
class RouteTest:
    """What became of a message that was sent to try a route."""

    route: str
    #: Its services by scheme, host and tag: all else of their URLs may be secret. Empty where they
    #: cannot be read.
    services: tuple[str, ...]
    #: At least one of them took it.
    ok: bool
    #: Why none did, or which of them did not.
    error: str
    #: Seconds.
    took: float


class AgentFacade(Protocol):
    """What `api/` sees. `agent.running.RunningAgent` is it; tests may hand in their own.

    Every method raises errors from `agent.errors` only: NotFound, Invalid, Conflict, Unavailable.
    Lists are newest first; `before` is an id that the page ends before.
    """

    def status(self) -> AgentStatus: ...
    def checks(self) -> tuple[CheckStatus, ...]: ...
    def check(self, name: str) -> CheckStatus: ...
    async def look(self, name: str) -> CheckStatus:
        """Looks now, and answers with what that look saw."""
        ...

    async def tell(self, name: str, report: Report, *, by: str) -> CheckStatus:
        """Takes what somebody found, and answers with what a look makes of it.

        Raises Conflict for a check that nobody reports on.
        """
        ...

    async def tell_alerts(self, alerts: Sequence[Alert], *, by: str) -> Taken:
        """Takes an Alertmanager's alerts for the checks that want them."""
        ...

    async def incidents(
        self,
        *,
        live: bool | None = None,
        check: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> Page[Incident]: ...
    async def incident(self, incident_id: str) -> IncidentStory: ...
    async def explain(self, incident_id: str) -> Explanation: ...
    async def report(self, incident_id: str) -> IncidentReport:
        """All that is known of an incident as a report, without secrets."""
        ...

    async def digest(self, *, seconds: float | None = None) -> Digest:
        """What happened within the last so many seconds; None: since the last digest was sent."""
        ...

    async def acknowledge(self, incident_id: str, *, by: str) -> Incident: ...
    async def approve(self, incident_id: str, *, by: str, digest: str = "") -> Incident: ...
    async def reject(self, incident_id: str, *, by: str) -> Incident: ...
    async def retry(self, incident_id: str, *, by: str) -> Incident: ...
    async def close(self, incident_id: str, *, by: str) -> Incident: ...
    async def pause(self, *, by: str, seconds: float | None = None, why: str = "") -> None: ...
    async def resume(self, *, by: str) -> None: ...
    async def confirm_host(self, *, by: str, keep_tokens: bool = False) -> None:
        """The state is this host's, though it was lost or is a copy: runs and messages start again.

        The tokens of the host that it is a copy of are revoked, unless `keep_tokens`. Raises
        Conflict when nothing is in doubt.
        """
        ...

    def remedies(self) -> tuple[RemedyInfo, ...]: ...
    def remedy(self, name: str) -> RemedyInfo: ...
    async def run_remedy(
        self, name: str, options: Mapping[str, Any], *, preview: bool, by: str
    ) -> Run: ...
    async def runs(
        self, *, limit: int = 50, before: str | None = None, incident: str | None = None
    ) -> Page[Run]: ...
    async def run(self, run_id: str) -> Run: ...
    async def run_events(self, run_id: str, *, after: int = 0) -> tuple[Mapping[str, Any], ...]:
        """The run's task events so far, each with a `number` counted from 1."""
        ...

    async def cancel_run(self, run_id: str, *, by: str) -> Run: ...
    async def notices(
        self, *, limit: int = 50, before: str | None = None, state: str | None = None
    ) -> Page[Notice]: ...
    async def try_routes(self, names: Collection[str] = (), *, by: str) -> tuple[RouteTest, ...]:
        """Sends one message to each of these routes, or to all, and waits for what becomes of it.

        It is no notice: nothing is tried again. Raises NotFound for a name that is not configured,
        and Conflict when there is no route, or while a test is under way.
        """
        ...

    async def reload(self, *, by: str) -> AgentStatus:
        """Reads the configuration again; an unusable one raises Invalid and changes nothing."""
        ...

    def events(self, *, after: int | None = None) -> AsyncIterator[LiveEvent]:
        """What happens from now on, or since event `after` as far as it is remembered."""
        ...

    # Audits of sites

    async def audits(
        self, *, limit: int = 50, before: str | None = None, check: str | None = None
    ) -> Page[AuditRecord]: ...
    async def audit(self, audit_id: str) -> AuditRecord: ...
    async def start_audit(self, check: str, *, by: str) -> CheckStatus:
        """Has a check of type `site` look now, and does not wait for it: it takes minutes.

        Raises NotFound for a check that is not configured, and Invalid for one of another type.
        """
        ...

    # Drills

    async def drills(self, *, limit: int = 50, before: str | None = None) -> Page[Drill]: ...
    async def drill(self, drill_id: str) -> Drill: ...
    async def start_drill(
        self, fault: str, options: Mapping[str, Any], *, seconds: float, by: str
    ) -> Drill:
        """Has a fault injected, and does not wait for it.

        Raises NotFound for one that is not on offer, Invalid for its options, Conflict where this
        host does not allow drills now, and Unavailable where nothing would undo it.
        """
        ...

    async def end_drill(self, drill_id: str, *, by: str) -> Drill:
        """Has its fault undone now, and does not wait for it. One that has ended stays as it is."""
        ...

    # Rehearsals

    async def rehearsals(
        self, *, limit: int = 50, before: str | None = None
    ) -> Page[RehearsalRecord]: ...
    async def rehearsal(self, rehearsal_id: str) -> RehearsalRecord: ...
    async def keep_rehearsal(self, told: RehearsalReport, *, by: str) -> RehearsalRecord:
        """Keeps what somebody rehearsed; the agent itself has no part in a rehearsal."""
        ...

    # Silences

    async def silences(self, *, limit: int = 50, before: str | None = None) -> Page[Silence]:
        """Those that are in force or still to come.

        Recurring maintenance windows come last: each as it is open, or as it opens next.
        """
        ...

    async def silence(self, silence_id: str) -> Silence: ...
    async def add_silence(
        self,
        *,
        by: str,
        seconds: float,
        checks: Collection[str] = (),
        subjects: Collection[str] = (),
        labels: Mapping[str, str] | None = None,
        comment: str = "",
        runs: bool = False,
    ) -> Silence:
        """Mutes notices from now on; with `runs` it is a maintenance window and holds runs too.

        `checks` are names, or `*` for everything; nothing named is Invalid, for it never means all.
        """
        ...

    async def end_silence(self, silence_id: str, *, by: str) -> Silence:
        """Ends it before its time, and answers with what it was.

        A recurring one is a Conflict: the configuration opens it.
        """
        ...

    # Access

    async def tokens(self, *, limit: int = 50, before: str | None = None) -> Page[Token]: ...
    async def token(self, token_id: str) -> Token: ...
    async def create_token(
        self, name: str, *, role: Role, by: str, seconds: float | None = None
    ) -> NewToken:
        """`seconds`: how long it lets anybody in; None: until it is revoked."""
        ...

    async def revoke_token(self, token_id: str, *, by: str) -> Token: ...
    async def authenticate(self, secret: str) -> Token | None:
        """The token with this secret, noting its use; None when it is unknown or lives no more."""
        ...

    def admits(self, token_id: str) -> bool:
        """Whether a token that was authenticated before still lets its holder in."""
        ...

    def why_closed(self) -> str:
        """Why no token lets anybody in now, in words; empty when they do.

        While the state may be a copy of another host's, its tokens may be that host's too.
        """
        ...

    # The trail

    async def begin_action(self, *, by: str, what: str, target: str = "") -> Action:
        """Puts an order on record before it is carried out. Where that fails it must not be."""
        ...

    async def end_action(
        self,
        action: Action,
        outcome: ActionOutcome,
        *,
        why: str = "",
        made: str = "",
        details: str = "",
    ) -> None:
        """Puts on record what became of it. Never raises: the order has been carried out."""
        ...

    async def actions(self, *, limit: int = 50, before: str | None = None) -> Page[Action]: ...
