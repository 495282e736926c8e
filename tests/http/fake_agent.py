"""An agent in memory, for tests of what stands in front of it. mypy holds it to the facade."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from agent.agent import (
    Action,
    ActionOutcome,
    AgentFacade,
    AgentStatus,
    Alert,
    Audit,
    AuditRecord,
    CheckStatus,
    Defect,
    Drill,
    DrillOutcome,
    DrillState,
    EvidenceItem,
    Explanation,
    IncidentReport,
    IncidentStory,
    Lateness,
    LiveEvent,
    NewToken,
    Page,
    RehearsalRecord,
    RehearsalReport,
    RemedyInfo,
    Report,
    Role,
    RouteTest,
    Taken,
    Token,
)
from agent.audit.result import Kind, Referrer
from agent.core.model import (
    Changes,
    Evidence,
    Finding,
    Held,
    Hold,
    Incident,
    Notice,
    NoticeState,
    Outcome,
    Pause,
    Reason,
    ResolvedBy,
    Risk,
    Run,
    RunState,
    Silence,
    State,
    Status,
    Transition,
)
from agent.errors import ConfigError, Conflict, HostmendError, Invalid, NotFound
from agent.reports.digest import Digest, make_digest
from agent.reports.incident import Earlier, Exhibit, make_report

T = TypeVar("T")

#: 2026-01-31 08:00:00 UTC.
START = 1769846400.0


def make_finding(status: Status = Status.CRITICAL, **changes: Any) -> Finding:
    finding = Finding(
        subject="nginx.service",
        status=status,
        cause="" if status is Status.OK else "failed",
        summary="nginx.service runs" if status is Status.OK else "nginx.service has failed",
        measurements={"restarts_count": 1.0},
        facts={"Result": "success" if status is Status.OK else "exit-code"},
    )
    return replace(finding, **changes)


def make_incident(number: int, **changes: Any) -> Incident:
    finding = make_finding()
    incident = Incident(
        id=f"i{number}",
        check="web",
        subject="nginx.service",
        state=State.OPEN,
        finding=finding,
        looked=START + number,
        before=finding,
        began=START + number,
        opened=START + number + 1,
        entered=START + number + 1,
        why="confirmed",
        seen=START + number,
        look_ended=START + number,
        failing_since=START + number,
    )
    return replace(incident, **changes)


def make_run(number: int, **changes: Any) -> Run:
    run = Run(
        id=f"r{number}",
        remedy="restart-service",
        options={"unit": "nginx.service"},
        risk=Risk.LOW,
        changes=Changes.SERVICE,
        timeout=60.0,
        lock="unit:nginx.service",
        digest="sha256:abc",
        planned=START + number,
        state=RunState.ENDED,
        started=START + number,
        ended=START + number + 2,
        outcome=Outcome.OK,
        detail="2 tasks ok, 1 changed something",
    )
    return replace(run, **changes)


RESTART = RemedyInfo(
    name="restart-service",
    summary="Restart a failed systemd unit",
    path="/usr/lib/hostmend/playbooks/restart-service",
    risk="low",
    changes="service",
    timeout=60.0,
    handles={"service": ("failed", "stopped")},
    options={
        "unit": {"type": "unit", "required": True, "description": "The unit to restart."},
        "password": {"type": "str", "no_log": True, "default": "hunter2"},
    },
    digest="sha256:abc",
    replaces=None,
    used_by=("web",),
)


def make_audit(number: int) -> AuditRecord:
    defect = Defect(
        kind=Kind.MISSING,
        target="https://shop.example/old",
        status=Status.CRITICAL,
        why="404 Not Found",
        referrers_count=4,
        referrers=(Referrer(page="https://shop.example/", line=12, role="link"),),
        since=START,
    )
    return AuditRecord(
        id=f"a{number}",
        check="pages",
        audit=Audit(
            site="https://shop.example/",
            began=START + number,
            ended=START + number + 30,
            ending="complete",
            counts={"urls": 20, "pages": 12, "bytes": 4096},
            defects=(defect, replace(defect, target="https://shop.example/a", known="moves")),
            notes=("1 failed at first",),
        ),
    )


def make_drill(number: int, **changes: Any) -> Drill:
    drill = Drill(
        id=f"d{number}",
        fault="kill-service",
        options={"unit": "nginx.service"},
        by="tester",
        ordered=START + number,
        budget=120.0,
        checks=("web",),
        state=DrillState.ENDED,
        outcome=DrillOutcome.PASSED,
        detail="detected, healed and verified in 2.0 s",
        injected=START + number + 1,
        detected=START + number + 1.5,
        incidents=("i1",),
    )
    return replace(drill, **changes)


def make_rehearsal(number: int) -> RehearsalRecord:
    told = RehearsalReport(
        verdict="pass",
        headline="PASS - 0 blocking, 0 warnings; 1,000 pairs, 1 min, noise ok",
        candidate="https://staging.example",
        baseline="https://shop.example",
        took=61.0,
        report={"format": 1, "gates": []},
    )
    return RehearsalRecord(id=f"h{number}", kept=START + number, by="tester", told=told)


CLEAN = replace(
    RESTART,
    name="clean-disk",
    summary="Make room on one filesystem",
    handles={"disk": ("full",)},
    options={"path": {"type": "path", "required": True}},
    changes="files",
    digest="sha256:def",
    used_by=(),
)


class FakeAgent:
    """Keeps the facade's promises over plain dicts. Tests put into them what they need."""

    def __init__(self, *, now: Callable[[], float] = lambda: START + 600) -> None:
        self.now = now
        self.started = now()
        self.check_list: dict[str, CheckStatus] = {}
        self.incident_list: dict[str, Incident] = {}
        self.held: dict[str, Held] = {}
        self.transitions: dict[str, tuple[Transition, ...]] = {}
        self.evidence: dict[str, tuple[EvidenceItem, ...]] = {}
        self.run_list: dict[str, Run] = {}
        self.run_event_list: dict[str, list[dict[str, Any]]] = {}
        self.notice_list: dict[str, Notice] = {}
        self.remedy_list: dict[str, RemedyInfo] = {r.name: r for r in (RESTART, CLEAN)}
        self.paused: Pause | None = None
        #: Why its state may not be this host's.
        self.doubt = ""
        self.route_tests = {
            "ops": RouteTest(
                route="ops", services=("mailto://mx.example:25/…",), ok=True, error="", took=0.2
            ),
            "phone": RouteTest(
                route="phone", services=("ntfys://…",), ok=False, error="503 busy", took=1.5
            ),
        }
        self.silence_list: tuple[Silence, ...] = ()
        self.audit_list: tuple[AuditRecord, ...] = ()
        self.drill_list: dict[str, Drill] = {}
        self.rehearsal_list: dict[str, RehearsalRecord] = {}
        #: Why this host allows no drills; empty: it does.
        self.no_drills = ""
        #: Those that the configuration opens.
        self.windows: tuple[Silence, ...] = ()
        self.token_list: dict[str, Token] = {}
        self.secrets: dict[str, str] = {}
        #: A token that no request can revoke, by its secret.
        self.lasting: dict[str, Token] = {}
        self.action_list: dict[str, Action] = {}
        #: Raised instead of putting an order on record.
        self.trail_error: HostmendError | None = None
        #: What was reported: the check, what, and by whom.
        self.reports: list[tuple[str, Report, str]] = []
        self.alerts: list[Alert] = []
        self.missing: dict[str, str] = {}
        self.problems: tuple[str, ...] = ()
        #: What is wrong with the configuration that a reload would read.
        self.config_error: ConfigError | None = None
        self.happened: list[LiveEvent] = []
        self._more = asyncio.Condition()
        #: Every order with who gave it, in order.
        self.orders: list[tuple[str, str]] = []
        #: Raised by whatever is asked next.
        self.broken: Exception | None = None
        #: Runs of remedies stay alive until a test ends them.
        self.hold_runs = False

    # What tests do to it

    async def happen(self, kind: str, **data: Any) -> None:
        async with self._more:
            number = len(self.happened) + 1
            self.happened.append(LiveEvent(id=number, at=self.now(), kind=kind, data=data))
            self._more.notify_all()

    # The facade

    def status(self) -> AgentStatus:
        self._maybe_break()
        worst = [check.status for check in self.check_list.values()]
        order = ("critical", "unknown", "warning", "ok")
        live = tuple(i for i in self.incident_list.values() if not i.state.ended)
        return AgentStatus(
            version="0.1.0",
            host="web1",
            started=self.started,
            now=self.now(),
            worst=min(worst, key=order.index, default="ok"),
            checks_count={status: worst.count(status) for status in order if status in worst},
            incidents=live,
            holds={i.id: self.held[i.id] for i in live if i.id in self.held},
            runs_alive=tuple(run for run in self.run_list.values() if run.alive),
            notices_due=sum(n.state is NoticeState.DUE for n in self.notice_list.values()),
            lateness=Lateness(count=0, median=0.0, p99=0.0, longest=0.0),
            paused=self.paused,
            storm=None,
            silences=(*self.silence_list, *self.windows),
            missing=self.missing,
            problems=self.problems,
            config_path="/etc/hostmend/hostmend.yml",
            config_loaded=self.started,
        )

    def checks(self) -> tuple[CheckStatus, ...]:
        return tuple(self.check_list.values())

    def check(self, name: str) -> CheckStatus:
        return _find(self.check_list, name, "check")

    async def look(self, name: str) -> CheckStatus:
        check = replace(self.check(name), looked=self.now(), took=0.01)
        self.check_list[name] = check
        self.orders.append((f"look {name}", ""))
        return check

    async def tell(self, name: str, report: Report, *, by: str) -> CheckStatus:
        check = self.check(name)
        if check.type != "push":
            raise Conflict(f"cannot take a report for {name}: it looks by itself")
        found = make_finding(report.status, subject=report.subject or name, summary=report.summary)
        self.check_list[name] = replace(check, findings=(found,), status=report.status.value)
        self.reports.append((name, report, by))
        return self.check_list[name]

    async def tell_alerts(self, alerts: Sequence[Alert], *, by: str) -> Taken:
        self.alerts += alerts
        return Taken(checks={"alerts": len(alerts)} if alerts else {}, ignored=0)

    async def incidents(
        self,
        *,
        live: bool | None = None,
        check: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> Page[Incident]:
        self._maybe_break()
        chosen = [
            incident
            for incident in self.incident_list.values()
            if (live is None or live is not incident.state.ended)
            and check in (None, incident.check)
        ]
        return _page(chosen, lambda incident: incident.id, limit, before)

    async def incident(self, incident_id: str) -> IncidentStory:
        incident = _find(self.incident_list, incident_id, "incident")
        since = incident.failing_since
        return IncidentStory(
            incident=incident,
            held=self.held.get(incident_id),
            transitions=self.transitions.get(incident_id, ()),
            runs=tuple(run for run in self.run_list.values() if run.incident == incident_id),
            notices=tuple(
                notice
                for notice in self.notice_list.values()
                if notice.incident and notice.incident.id == incident_id
            ),
            evidence=self.evidence.get(incident_id, ()),
            downtime=incident.downtime + (self.now() - since if since is not None else 0.0),
        )

    async def explain(self, incident_id: str) -> Explanation:
        incident = _find(self.incident_list, incident_id, "incident")
        held = self.held.get(incident_id)
        return Explanation(
            incident=incident,
            remedy="restart-service",
            options={"unit": incident.subject, "password": "hunter2"},
            gates=(held,) if held else (),
            attempts={"restart-service": "1 of 2"},
            budget=(1, 6),
            next="it waits for an operator's approval",
        )

    async def report(self, incident_id: str) -> IncidentReport:
        story = await self.incident(incident_id)
        others = [
            i
            for i in self.incident_list.values()
            if i.fingerprint == story.incident.fingerprint and i.began < story.incident.began
        ]
        return make_report(
            host="web1",
            now=self.now(),
            incident=story.incident,
            downtime=story.downtime,
            transitions=story.transitions,
            runs=story.runs,
            tasks={run.id: await self.run_events(run.id) for run in story.runs},
            notices=story.notices,
            evidence=tuple(
                Exhibit(stage=item.when, taken=item.taken, evidence=item.evidence)
                for item in story.evidence
            ),
            earlier=Earlier(count=len(others), incidents=tuple(others)),
            secrets={"restart-service": ("password",)},
        )

    async def digest(self, *, seconds: float | None = None) -> Digest:
        return make_digest(
            host="web1",
            since=self.now() - (seconds or 7 * 86400.0),
            until=self.now(),
            started=0.0,
            incidents=tuple(self.incident_list.values()),
            transitions={},
            restarts={},
            findings={name: check.findings for name, check in self.check_list.items()},
        )

    async def acknowledge(self, incident_id: str, *, by: str) -> Incident:
        return self._order("acknowledge", incident_id, by, acknowledged=by)

    async def approve(self, incident_id: str, *, by: str, digest: str = "") -> Incident:
        held = self.held.get(incident_id)
        incident = _find(self.incident_list, incident_id, "incident")
        if held is None or held.hold is not Hold.APPROVAL:
            raise Conflict(f"cannot approve incident {incident_id}: nothing waits for approval")
        if digest and digest != RESTART.digest:
            raise Conflict(f"cannot approve incident {incident_id}: the remedy has changed")
        self.held.pop(incident_id)
        return self._order("approve", incident_id, by, why=f"approved, was {incident.why}")

    async def reject(self, incident_id: str, *, by: str) -> Incident:
        return self._order("reject", incident_id, by, rejected=("restart-service",))

    async def retry(self, incident_id: str, *, by: str) -> Incident:
        return self._order("retry", incident_id, by)

    async def close(self, incident_id: str, *, by: str) -> Incident:
        return self._order(
            "close",
            incident_id,
            by,
            state=State.RESOLVED,
            ended=self.now(),
            resolved_by=ResolvedBy.OPERATOR,
        )

    async def pause(self, *, by: str, seconds: float | None = None, why: str = "") -> None:
        self._maybe_break()
        until = None if seconds is None else self.now() + seconds
        self.paused = Pause(by=by, since=self.now(), until=until, why=why)
        self.orders.append(("pause", by))

    async def resume(self, *, by: str) -> None:
        self.paused = None
        self.orders.append(("resume", by))

    async def confirm_host(self, *, by: str, keep_tokens: bool = False) -> None:
        if not self.doubt:
            raise Conflict("cannot confirm this host: nothing is in doubt")
        if not keep_tokens:
            for token in [t for t in self.token_list.values() if t.lives(self.now())]:
                await self.revoke_token(token.id, by=by)
        self.doubt = ""
        self.orders.append(("confirm", by))

    def remedies(self) -> tuple[RemedyInfo, ...]:
        return tuple(self.remedy_list.values())

    def remedy(self, name: str) -> RemedyInfo:
        return _find(self.remedy_list, name, "remedy")

    async def run_remedy(
        self, name: str, options: Mapping[str, Any], *, preview: bool, by: str
    ) -> Run:
        self._maybe_break()
        remedy = self.remedy(name)
        for option in options:
            if option not in remedy.options:
                raise Invalid(f"cannot run {name}: it has no option {option!r}")
        for option, spec in remedy.options.items():
            if spec.get("required") and option not in options:
                raise Invalid(f"cannot run {name}: option {option!r} is required")
        busy = [run.id for run in self.run_list.values() if run.alive]
        if busy:
            raise Conflict(f"cannot run {name}: run {busy[0]} is alive; wait for it or cancel it")
        run = make_run(
            len(self.run_list) + 1,
            remedy=name,
            options=dict(options),
            preview=preview,
            by=by,
            planned=self.now(),
        )
        if self.hold_runs:
            run = replace(run, state=RunState.RUNNING, ended=None, outcome=None, detail="")
        self.run_list[run.id] = run
        self.run_event_list[run.id] = [
            {"number": 1, "task": "Restart the unit", "status": "changed", "duration": 0.8}
        ]
        self.orders.append((f"run {name}", by))
        return run

    async def runs(
        self, *, limit: int = 50, before: str | None = None, incident: str | None = None
    ) -> Page[Run]:
        chosen = [run for run in self.run_list.values() if incident in (None, run.incident)]
        return _page(chosen, lambda run: run.id, limit, before)

    async def run(self, run_id: str) -> Run:
        return _find(self.run_list, run_id, "run")

    async def run_events(self, run_id: str, *, after: int = 0) -> tuple[Mapping[str, Any], ...]:
        _find(self.run_list, run_id, "run")
        return tuple(e for e in self.run_event_list.get(run_id, ()) if e["number"] > after)

    async def cancel_run(self, run_id: str, *, by: str) -> Run:
        run = _find(self.run_list, run_id, "run")
        if not run.alive:
            raise Conflict(f"cannot cancel run {run_id}: it has ended already")
        ended = replace(
            run,
            state=RunState.ENDED,
            ended=self.now(),
            outcome=Outcome.CANCELLED,
            detail=f"cancelled by {by}",
        )
        self.run_list[run_id] = ended
        self.orders.append((f"cancel {run_id}", by))
        return ended

    async def notices(
        self, *, limit: int = 50, before: str | None = None, state: str | None = None
    ) -> Page[Notice]:
        chosen = [notice for notice in self.notice_list.values() if state in (None, notice.state)]
        return _page(chosen, lambda notice: notice.id, limit, before)

    async def try_routes(self, names: Collection[str] = (), *, by: str) -> tuple[RouteTest, ...]:
        for name in names:
            _find(self.route_tests, name, "route")
        if not self.route_tests:
            raise Conflict("cannot test routes: none is configured")
        self.orders.append((f"test routes {' '.join(names)}".strip(), by))
        return tuple(self.route_tests[name] for name in names or self.route_tests)

    async def reload(self, *, by: str) -> AgentStatus:
        self.orders.append(("reload", by))
        if self.config_error is not None:
            raise Invalid(str(self.config_error)) from self.config_error
        return self.status()

    async def audits(
        self, *, limit: int = 50, before: str | None = None, check: str | None = None
    ) -> Page[AuditRecord]:
        chosen = [audit for audit in self.audit_list if check in (None, audit.check)]
        return _page(chosen, lambda audit: audit.id, limit, before)

    async def audit(self, audit_id: str) -> AuditRecord:
        return _find({a.id: a for a in self.audit_list}, audit_id, "audit")

    async def drills(self, *, limit: int = 50, before: str | None = None) -> Page[Drill]:
        return _page(list(self.drill_list.values()), lambda drill: drill.id, limit, before)

    async def drill(self, drill_id: str) -> Drill:
        return _find(self.drill_list, drill_id, "drill")

    async def start_drill(
        self, fault: str, options: Mapping[str, Any], *, seconds: float, by: str
    ) -> Drill:
        self._maybe_break()
        if fault != "kill-service":
            raise NotFound(f"cannot find a fault {fault!r}: there are kill-service")
        if set(options) - {"unit"}:
            raise Invalid(f"cannot run {fault}: its options are unit")
        if self.no_drills:
            raise Conflict(f"cannot start a drill: {self.no_drills}")
        passed = options.get("unit") == "nginx.service"
        drill = make_drill(
            len(self.drill_list) + 1,
            options=dict(options),
            budget=seconds,
            by=by,
            outcome=DrillOutcome.PASSED if passed else DrillOutcome.FAILED,
            detail="" if passed else "not detected by web within 2 min",
        )
        self.drill_list[drill.id] = drill
        self.orders.append((f"drill {fault}", by))
        return drill

    async def end_drill(self, drill_id: str, *, by: str) -> Drill:
        drill = replace(await self.drill(drill_id), state=DrillState.ENDED)
        self.drill_list[drill.id] = drill
        self.orders.append((f"end {drill_id}", by))
        return drill

    async def rehearsals(
        self, *, limit: int = 50, before: str | None = None
    ) -> Page[RehearsalRecord]:
        found = list(self.rehearsal_list.values())
        return _page(found, lambda record: record.id, limit, before)

    async def rehearsal(self, rehearsal_id: str) -> RehearsalRecord:
        return _find(self.rehearsal_list, rehearsal_id, "rehearsal")

    async def keep_rehearsal(self, told: RehearsalReport, *, by: str) -> RehearsalRecord:
        self._maybe_break()
        record = RehearsalRecord(
            id=f"h{len(self.rehearsal_list) + 1}", kept=self.now(), by=by, told=told
        )
        self.rehearsal_list[record.id] = record
        self.orders.append((f"keep {record.id}", by))
        return record

    async def start_audit(self, check: str, *, by: str) -> CheckStatus:
        self._maybe_break()
        status = self.check(check)
        if status.type != "site":
            raise Invalid(f"cannot audit {check}: it is of type {status.type}")
        self.orders.append((f"audit {check}", by))
        return status

    async def silences(self, *, limit: int = 50, before: str | None = None) -> Page[Silence]:
        page = _page(self.silence_list, lambda silence: silence.id, limit, before)
        rest = self.windows if page.next is None else ()
        return Page(items=(*page.items, *rest), next=page.next)

    async def silence(self, silence_id: str) -> Silence:
        known = {s.id: s for s in (*self.silence_list, *self.windows)}
        return _find(known, silence_id, "silence")

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
        self._maybe_break()
        unknown = [name for name in checks if name != "*" and name not in self.check_list]
        if unknown:
            raise Invalid(f"cannot silence {', '.join(unknown)}: no such check")
        if subjects and not checks:
            raise Invalid("cannot silence subjects alone: name the checks that they are of")
        if not checks and not labels:
            raise Invalid("cannot silence: name checks or labels")
        if labels and not any(
            all(check.labels.get(k) == v for k, v in labels.items())
            for check in self.check_list.values()
        ):
            raise Invalid(f"cannot silence {dict(labels)}: no check carries these labels")
        number = max((int(s.id[1:]) for s in self.silence_list), default=0) + 1
        silence = Silence(
            id=f"s{number}",
            starts=self.now(),
            ends=self.now() + seconds,
            by=by,
            comment=comment,
            checks=tuple(checks),
            subjects=tuple(subjects),
            labels=dict(labels or {}),
            runs=runs,
        )
        self.silence_list = (*self.silence_list, silence)
        self.orders.append((f"silence {silence.id}", by))
        return silence

    async def end_silence(self, silence_id: str, *, by: str) -> Silence:
        silence = await self.silence(silence_id)
        if silence.recurring:
            raise Conflict(f"cannot end {silence_id}: the configuration opens it; hostmend reload")
        self.silence_list = tuple(s for s in self.silence_list if s.id != silence_id)
        self.orders.append((f"end {silence_id}", by))
        return silence

    async def tokens(self, *, limit: int = 50, before: str | None = None) -> Page[Token]:
        return _page(list(self.token_list.values()), lambda token: token.id, limit, before)

    async def token(self, token_id: str) -> Token:
        token = _find(self.token_list, token_id, "token")
        if token.revoked is not None:
            raise NotFound(f"cannot find token {token_id}: it was revoked")
        return token

    async def create_token(
        self, name: str, *, role: Role, by: str, seconds: float | None = None
    ) -> NewToken:
        if not name or "(" in name:
            raise Invalid(f"cannot name a token {name!r}")
        number = len(self.token_list) + 1
        token = Token(
            id=f"t{number}",
            name=name,
            role=role,
            created=self.now(),
            created_by=by,
            expires=None if seconds is None else self.now() + seconds,
        )
        self.token_list[token.id] = token
        secret = f"hm_secret-of-{name}-{number}"
        self.secrets[secret] = token.id
        self.orders.append((f"create token {token.id}", by))
        return NewToken(token=token, secret=secret)

    async def revoke_token(self, token_id: str, *, by: str) -> Token:
        token = await self.token(token_id)
        self.token_list[token_id] = replace(token, revoked=self.now(), revoked_by=by)
        self.orders.append((f"revoke {token_id}", by))
        return self.token_list[token_id]

    async def authenticate(self, secret: str) -> Token | None:
        if secret in self.lasting:
            return self.lasting[secret]
        token = self.token_list.get(self.secrets.get(secret, ""))
        if token is None or not token.lives(self.now()):
            return None
        self.token_list[token.id] = token = replace(token, used=self.now())
        return token

    def admits(self, token_id: str) -> bool:
        token = self.token_list.get(token_id)
        lasts = any(token.id == token_id for token in self.lasting.values())
        return lasts or (token is not None and token.lives(self.now()))

    def why_closed(self) -> str:
        return self.doubt

    async def begin_action(self, *, by: str, what: str, target: str = "") -> Action:
        if self.trail_error is not None:
            raise self.trail_error
        number = len(self.action_list) + 1
        action = Action(id=f"a{number}", at=self.now(), by=by, what=what, target=target)
        self.action_list[action.id] = action
        return action

    async def end_action(
        self,
        action: Action,
        outcome: ActionOutcome,
        *,
        why: str = "",
        made: str = "",
        details: str = "",
    ) -> None:
        ended = replace(action, outcome=outcome, why=why, made=made, details=details)
        self.action_list[action.id] = ended

    async def actions(self, *, limit: int = 50, before: str | None = None) -> Page[Action]:
        return _page(list(self.action_list.values()), lambda action: action.id, limit, before)

    async def events(self, *, after: int | None = None) -> AsyncIterator[LiveEvent]:
        seen = len(self.happened) if after is None else after
        while True:
            async with self._more:
                while len(self.happened) <= seen:
                    await self._more.wait()
            for event in self.happened[seen:]:
                seen = event.id
                yield event

    def _order(self, verb: str, incident_id: str, by: str, **changes: Any) -> Incident:
        self._maybe_break()
        incident = _find(self.incident_list, incident_id, "incident")
        if incident.state.ended:
            raise Conflict(f"cannot {verb} incident {incident_id}: it is {incident.state} already")
        self.incident_list[incident_id] = replace(incident, **changes)
        self.orders.append((f"{verb} {incident_id}", by))
        return self.incident_list[incident_id]

    def _maybe_break(self) -> None:
        error, self.broken = self.broken, None
        if error is not None:
            raise error


def _find(known: Mapping[str, T], name: str, what: str) -> T:
    if name not in known:
        raise NotFound(f"cannot find {what} {name}: there is none of this name")
    return known[name]


def _page(items: Sequence[T], id_of: Callable[[T], str], limit: int, before: str | None) -> Page[T]:
    newest_first = sorted(items, key=lambda item: int(id_of(item)[1:]), reverse=True)
    if before is not None:
        digits = before[1:]
        if not digits.isascii() or not digits.isdigit() or len(digits) > 15:
            raise Invalid(f"cannot go on before {before!r}: that is no id")
        newest_first = [i for i in newest_first if int(id_of(i)[1:]) < int(before[1:])]
    part = newest_first[:limit]
    return Page(items=tuple(part), next=id_of(part[-1]) if len(newest_first) > limit else None)


def make_busy_agent(now: Callable[[], float] = lambda: START + 600) -> FakeAgent:
    """An agent in the middle of its work: what most tests look at."""
    agent = FakeAgent(now=now)
    failing = make_finding()
    agent.check_list = {
        "web": CheckStatus(
            name="web",
            type="service",
            every=10.0,
            depends_on=("root-disk",),
            ladder=("restart-service",),
            mode="approve",
            labels={"tier": "front"},
            looked=START + 590,
            took=0.012,
            findings=(failing,),
            broken="",
            status="critical",
            incidents=("i2",),
        ),
        "root-disk": CheckStatus(
            name="root-disk",
            type="disk",
            every=30.0,
            depends_on=(),
            ladder=("clean-disk",),
            mode="auto",
            labels={},
            looked=None,
            took=None,
            findings=(),
            broken="",
            status="unknown",
            incidents=(),
        ),
    }
    agent.check_list["pages"] = replace(
        agent.check_list["root-disk"], name="pages", type="site", ladder=(), every=900.0
    )
    agent.audit_list = (make_audit(1), make_audit(2))
    agent.rehearsal_list = {each.id: each for each in (make_rehearsal(1), make_rehearsal(2))}
    agent.drill_list = {drill.id: drill for drill in (make_drill(1), make_drill(2))}
    healed = make_incident(
        1,
        state=State.RESOLVED,
        resolved_by=ResolvedBy.RUN,
        healed_by="r1",
        run="r1",
        ended=START + 90,
        finding=make_finding(Status.OK),
        after=make_finding(Status.OK),
        failing_since=None,
        downtime=12.5,
        why="it stayed ok through its probation",
    )
    waiting = make_incident(2, why="confirmed by 2 of 3 looks")
    agent.incident_list = {"i1": healed, "i2": waiting}
    agent.held = {
        "i2": Held(hold=Hold.APPROVAL, detail="restart-service waits for an operator", until=None)
    }
    steps = (
        (1.0, None, State.PENDING, "first failing look"),
        (2.0, State.PENDING, State.OPEN, "confirmed by 2 of 3 looks"),
        (3.0, State.OPEN, State.REPAIRING, "restart-service was started"),
        (6.0, State.REPAIRING, State.VERIFYING, "the run ended ok"),
        (13.5, State.VERIFYING, State.PROBATION, "a look after the run passed"),
        (90.0, State.PROBATION, State.RESOLVED, "it stayed ok through its probation"),
    )
    agent.transitions = {
        "i1": tuple(
            Transition(incident="i1", at=START + at, old=old, new=new, why=why)
            for at, old, new, why in steps
        ),
        "i2": (
            Transition(incident="i2", at=START + 2, old=None, new=State.PENDING, why="failed"),
            Transition(
                incident="i2", at=START + 3, old=State.PENDING, new=State.OPEN, why="confirmed"
            ),
        ),
    }
    agent.evidence = {
        "i1": (
            EvidenceItem(
                when="before",
                taken=START + 3,
                evidence=Evidence(title="journal of nginx.service", text="bind() failed\nexited 1"),
            ),
            EvidenceItem(
                when="after",
                taken=START + 14,
                evidence=Evidence(title="systemctl status", text="active (running)"),
            ),
        )
    }
    agent.run_list = {
        "r1": make_run(1, incident="i1", check="web", subject="nginx.service", proved=True)
    }
    agent.run_event_list = {
        "r1": [
            {"number": 1, "task": "Validate", "status": "ok", "duration": 0.2},
            {"number": 2, "task": "Restart the unit", "status": "changed", "duration": 0.8},
        ]
    }
    agent.notice_list = {
        "n1": Notice(
            id="n1",
            route="ops",
            reason=Reason.HEALED,
            created=START + 90,
            expires=START + 9000,
            incident=healed,
            state=NoticeState.DELIVERED,
            attempts=1,
            delivered=START + 91,
        ),
        "n2": Notice(
            id="n2",
            route="ops",
            reason=Reason.APPROVAL,
            created=START + 100,
            expires=START + 9000,
            incident=waiting,
            due=START + 700,
            attempts=2,
            error="connection refused",
        ),
    }
    return agent


def check_facade(agent: FakeAgent) -> AgentFacade:
    """For mypy: the fake is a facade."""
    return agent
