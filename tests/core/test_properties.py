"""What must hold whatever happens, in whatever order, on whatever configuration.

A world draws a policy and a list of events (late, stale, doubled and contradicting ones too) and
sends them to `decide`. After each decision it checks what must always hold.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from core_scene import Hourly
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.advance import confirmed
from agent.core.decide import decide
from agent.core.holds import mode_of, silence_of
from agent.core.model import (
    Changes,
    CheckPolicy,
    Confirm,
    Decision,
    Event,
    Finding,
    Host,
    Incident,
    Looked,
    Maintenance,
    Mode,
    Ordered,
    Outcome,
    Policy,
    Reason,
    Reconfigured,
    Reported,
    ResolvedBy,
    Risk,
    RoutePolicy,
    Run,
    RunEnded,
    RunStarted,
    RunState,
    Silence,
    State,
    Status,
    Step,
    Tick,
    Verb,
)
from agent.errors import Conflict, Invalid, NotFound

CAUSES = ("failed", "full")
WINDOW = Maintenance(name="backup", schedule=Hourly(begin=1020.0, lasts=400.0), checks=("c0", "c1"))
FAILING = (State.OPEN, State.REPAIRING, State.VERIFYING, State.ESCALATED)

# What is drawn


def some(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


@st.composite
def ladders(draw: st.DrawFn) -> tuple[Step, ...]:
    return tuple(
        Step(
            key=f"remedy-{place}",
            remedy=f"remedy-{place}",
            causes=draw(some(("failed",), CAUSES, CAUSES)),
            fills=draw(some({}, {"unit": "subject"})),
            lock=draw(some("", "host", "unit:{unit}")),
            risk=draw(some(*(Risk.LOW,) * 7, Risk.MEDIUM)),
            changes=draw(some(Changes.SERVICE, Changes.SERVICE, Changes.DATA)),
            mode=draw(some(*(None,) * 12, Mode.APPROVE, Mode.SHADOW, Mode.OFF)),
            attempts=draw(st.integers(1, 2)),
            timeout=draw(some(30.0, 0.7)),
            digest="d",
        )
        for place in range(draw(some(1, 1, 2, 2, 0)))
    )


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    checks: dict[str, CheckPolicy] = {}
    for place in range(draw(st.integers(1, 5))):
        known = sorted(checks)
        checks[f"c{place}"] = CheckPolicy(
            name=f"c{place}",
            every=draw(some(7.0, 20.0, 60.0)),
            confirm=draw(some(Confirm(), Confirm(), Confirm(times=2, of=3))),
            stable_for=draw(some(0.0, 7.3, 60.0)),
            cool_down=draw(some(0.0, 10.0)),
            verify_for=draw(some(0.1, 30.0)),
            depends_on=tuple(
                draw(st.lists(st.sampled_from(known), max_size=2, unique=True)) if known else ()
            ),
            ladder=draw(ladders()),
        )
    return Policy(
        checks=checks,
        routes=(RoutePolicy(name="all", reasons=tuple(Reason), severity=Status.OK),),
        mode=draw(some(*(Mode.AUTO,) * 12, Mode.APPROVE, Mode.SHADOW, Mode.OFF)),
        runs_per_hour=draw(some(6, 6, 6, 2, 0)),
        slots=draw(st.integers(1, 2)),
        storm_at=draw(some(2, 3, 5)),
        group_wait=draw(some(0.0, 10.0)),
        maintenance=draw(some((), (), (), (WINDOW,))),
        recurring_after=draw(some(1, 3)),
        inhibit_for=draw(some(20.0, 900.0)),
    )


WAITS = some(0.0, 0.1, 0.3, 1.0, 5.0, 11.0, 31.0, 61.0, 200.0, 1000.0, 4000.0, 30000.0)
STATUSES = some(*(Status.CRITICAL,) * 5, *(Status.OK,) * 3, Status.WARNING, Status.UNKNOWN)
CHECKS = st.integers(0, 4)
SUBJECTS = some(("a",), ("a",), ("a",), ("a", "b"), ())


@st.composite
def findings(draw: st.DrawFn) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            subject=subject,
            status=(status := draw(STATUSES)),
            cause=draw(some("failed", "failed", "failed", "full", "odd")),
            intended=status is Status.OK and draw(some(False, False, False, True)),
            transition=draw(some(*("",) * 9, "starting")),
            resource=draw(some("", "disk")),
            implicates=draw(some((), (), (), ("disk",))),
            since=draw(some(None, None, 990.0)),
        )
        for subject in draw(SUBJECTS)
    )


LOOKS = st.tuples(
    st.just("look"),
    CHECKS,
    findings(),
    #: How long it took, and how long ago it ended.
    some(0.0, 0.01, 0.01, 0.5, 3.0, 40.0),
    some(0.0, 0.0, 0.0, 2.0),
    some(*("",) * 9, "timed out"),
    some(*("",) * 9, "booting"),
)
#: What is true of a check from now on, and how the runs that follow end.
TRUTHS = st.tuples(st.just("truth"), CHECKS, findings())
FATES = st.tuples(
    st.just("fate"), some(Outcome.OK, Outcome.OK, Outcome.OK, *Outcome), st.booleans()
)
LIVES = st.tuples(st.just("live"), some(0.5, 3.0, 12.0, 40.0, 75.0))
ENDS = st.tuples(
    st.just("end"),
    st.integers(0, 3),
    some(Outcome.OK, Outcome.OK, *Outcome),
    some(0.0, 0.0, 0.4, 20.0),
)
ORDERS = st.tuples(
    st.just("order"),
    some(*Verb, Verb.RESUME),
    st.integers(0, 4),
    some(5.0, 500.0, None),
    st.booleans(),
)
EVENTS = st.one_of(
    *(TRUTHS,) * 4,
    *(LIVES,) * 6,
    *(LOOKS,) * 3,
    st.tuples(st.just("wait"), WAITS),
    st.tuples(st.just("wake")),
    st.tuples(st.just("clock"), some(0.0, 600.0, -86400.0)),
    st.tuples(st.just("answer")),
    st.tuples(st.just("start"), st.integers(0, 3)),
    *(ENDS,) * 2,
    FATES,
    *(ORDERS,) * 2,
    st.tuples(st.just("again"), st.integers(0, 9)),
    st.tuples(st.just("report"), some("", "", "", "", "a clone")),
    st.tuples(st.just("reconfigure"), CHECKS, some("check", "ladder", "mode", "back", "budget")),
)

# The world


class World:
    """A host that is decided on, with everything checked that must always hold."""

    def __init__(self, policy: Policy) -> None:
        self.first = self.policy = policy
        self.now = 1000.3
        self.host = Host()
        self.last = Decision(host=self.host)
        self.sent: list[Event] = []
        self.ids: set[str] = set()
        #: When each automatic run was planned.
        self.planned: list[float] = []
        #: When each run ended.
        self.run_ends: dict[str, float] = {}
        #: Since when an incident is one of which something must be said.
        self.owed: dict[str, float] = {}
        self.told_by_storm: set[str] = set()
        #: What the storm that lasts has said so far.
        self.storm_words: list[str] = []
        self.told: set[tuple[Reason, str]] = set()
        self.sends = 0
        #: What an honest look sees; nothing means that all is well.
        self.truth: dict[str, tuple[Finding, ...]] = {}
        self.outcome, self.cures = Outcome.OK, True

    # What happens

    def do(self, action: tuple[Any, ...]) -> None:
        match action:
            case ("look", check, seen, took, ago, broken, transition):
                began, ended = self.now - took - ago, self.now - ago
                self.now += 0.01
                self.send(
                    Looked(
                        check=self.name(check),
                        began=began,
                        ended=ended,
                        findings=seen,
                        broken=broken,
                        transition=transition,
                    )
                )
            case ("wait", seconds):
                self.now += seconds
                self.send(Tick())
            case ("wake",):
                self.now = self.last.wake or self.now
                self.send(Tick())
            case ("clock", ahead):
                self.host = replace(self.host, wall_ahead=ahead)
                self.send(Tick())
            case ("answer",):
                self.answer()
            case ("truth", check, seen):
                self.truth[self.name(check)] = seen
            case ("fate", outcome, cures):
                self.outcome, self.cures = outcome, cures
            case ("live", seconds):
                self.live(self.now + seconds, at_most=1000)
            case ("start", which):
                self.start(which)
            case ("end", which, outcome, ago):
                self.end(which, outcome, ago)
            case ("order", verb, which, until, runs):
                self.order(verb, which, until, runs)
            case ("report", doubt):
                self.send(Reported(summary="look here", doubt=doubt))
            case ("again", which):
                if which < len(self.sent):
                    self.send(self.sent[-1 - which])
            case ("reconfigure", check, what):
                self.reconfigure(self.name(check), what)

    def name(self, place: int) -> str:
        names = sorted(self.first.checks)
        return names[place % len(names)]

    def answer(self) -> None:
        """Every look that was asked for is made."""
        for name in sorted(self.last.look):
            self.look_at(name)

    def look_at(self, name: str) -> None:
        began, self.now = self.now, self.now + 0.01
        seen = self.truth.get(name)
        if seen is None:
            subjects = {i.subject for i in self.host.incidents if i.check == name} or {"a"}
            seen = tuple(Finding(subject=s, status=Status.OK) for s in sorted(subjects))
        self.send(Looked(check=name, began=began, ended=self.now, findings=seen))

    def start(self, which: int) -> None:
        runs = [run for run in self.host.runs if run.alive]
        run = runs[which].id if which < len(runs) else "r0"
        self.send(RunStarted(run=run))

    def end(self, which: int, outcome: Outcome, ago: float) -> None:
        runs = [run for run in self.host.runs if run.alive] + list(self.host.runs)
        run = runs[which].id if which < len(runs) else "r0"
        self.send(RunEnded(run=run, outcome=outcome, ended=self.now - ago))

    def order(self, verb: Verb, which: int, until: float | None, runs: bool) -> None:
        targets = [i.id for i in self.host.incidents] + [s.id for s in self.host.silences]
        end = self.now + (until or 50.0)
        cover: dict[str, Any] = {"checks": ("*",)} if which > 1 else {"checks": (f"c{which}",)}
        self.send(
            Ordered(
                verb=verb,
                by="anna",
                target=targets[which] if which < len(targets) else "i0",
                until=None if until is None else end,
                silence=Silence(
                    id="", starts=self.now + which, ends=end, by="", runs=runs, **cover
                ),
                step=Step(key="x", remedy="x", causes=(), lock="host"),
            )
        )

    def reconfigure(self, name: str, what: str) -> None:
        checks = dict(self.policy.checks)
        match what:
            case "check" if name in checks:
                del checks[name]
                for left in checks.values():
                    upstream = tuple(other for other in left.depends_on if other != name)
                    checks[left.name] = replace(left, depends_on=upstream)
            case "ladder" if name in checks:
                checks[name] = replace(checks[name], ladder=())
            case "mode" if name in checks:
                checks[name] = replace(checks[name], mode=Mode.APPROVE)
        self.policy = replace(self.policy, checks=checks)
        if what == "back":
            self.policy = self.first
        if what == "budget":
            self.policy = replace(self.policy, runs_per_hour=1, slots=1)
        self.send(Reconfigured())

    # What must hold

    def send(self, event: Event) -> None:
        before = self.host
        self.sends += 1
        try:
            decision = decide(before, event, self.policy, self.now)
        except (Conflict, Invalid, NotFound):
            assert isinstance(event, (Ordered, RunStarted))
            return
        self.sent.append(event)
        self.host, self.last = decision.host, decision
        self.check_runs(before, event, decision)
        self.check_proofs(event, decision)
        self.check_words(before, decision)
        self.check_storm(before, decision)
        self.check_quiet(decision)

    def check_runs(self, before: Host, event: Event, decision: Decision) -> None:
        host, policy, now = decision.host, self.policy, self.now
        alive = [run for run in host.runs if run.alive]
        assert all(n == 1 for n in Counter(r.incident for r in alive if r.incident).values())
        assert all(n == 1 for n in Counter((r.check, r.subject) for r in alive if r.check).values())
        if decision.runs:
            assert len(alive) <= policy.slots
            assert all(n == 1 for n in Counter(r.lock for r in alive if r.lock).values())
        known = {incident.id: incident for incident in before.incidents}
        for run in decision.runs:
            assert run.id not in self.ids
            self.ids.add(run.id)
            assert run.state is RunState.PLANNED
            if run.by:
                continue
            self.planned.append(now)
            within = [t for t in self.planned if now < t + policy.budget_window]
            assert len(within) <= policy.runs_per_hour
            (incident,) = [i for i in host.incidents if i.id == run.incident]
            self.check_run(run, incident, known.get(incident.id), event)

    def check_run(self, run: Run, incident: Incident, was: Incident | None, event: Event) -> None:
        policy, now = self.policy, self.now
        check = policy.checks[incident.check]
        step = next(step for step in check.ladder if step.key == run.step)
        assert incident.state is State.REPAIRING
        assert incident.run == run.id
        assert incident.finding.status is Status.CRITICAL
        assert confirmed(incident, check, critical=True)
        assert incident.finding.cause in step.causes
        assert not incident.finding.transition
        assert not incident.finding.intended
        assert now < incident.look_ended + policy.fresh_for
        assert not self.host.paused
        assert not self.host.doubt
        assert not self.host.transition
        assert silence_of(incident, self.host, policy, now, runs=True) is None
        assert mode_of(step, check, policy) in (Mode.AUTO, Mode.APPROVE)
        ordered = isinstance(event, Ordered)
        if mode_of(step, check, policy) is Mode.APPROVE or step.risk is Risk.MEDIUM:
            assert was is not None
            assert was.approval is not None or ordered
        slow = was is not None and was.state is State.ESCALATED
        if slow and was is not None and was.retry_at is not None and not ordered:
            first_of_it = [r for r in self.host.runs if r.step == run.step and r.id != run.id
                           and (r.check, r.subject) == incident.fingerprint]  # fmt: skip
            assert now >= was.retry_at or not first_of_it
        if not slow and not ordered:
            tries = [
                r
                for r in self.host.runs
                if not r.by
                and (r.check, r.subject, r.step) == (run.check, run.subject, run.step)
                and now < r.planned + policy.attempts_window
            ]
            assert len(tries) <= step.attempts

    def check_proofs(self, event: Event, decision: Decision) -> None:
        if isinstance(event, RunEnded):
            run = next((r for r in self.host.runs if r.id == event.run), None)
            if run is not None and run.ended is not None:
                assert self.run_ends.setdefault(run.id, run.ended) == run.ended
        for moved in decision.transitions:
            if (moved.old, moved.new) != (State.VERIFYING, State.PROBATION):
                continue
            incident = next(
                i for i in (*decision.host.incidents, *decision.ended) if i.id == moved.incident
            )
            assert incident.run is not None
            assert incident.looked > self.run_ends[incident.run]
            assert incident.finding.status is Status.OK
        for run in decision.host.runs:
            assert not run.proved or run.outcome is Outcome.OK
        for incident in decision.ended:
            if incident.resolved_by is ResolvedBy.RUN:
                assert incident.run is not None
                assert incident.passing_since is not None
                assert incident.passing_since > self.run_ends[incident.run]
                # A host that slept for days has forgotten the run itself by now.
                assert all(r.proved for r in decision.host.runs if r.id == incident.run)

    def check_words(self, before: Host, decision: Decision) -> None:
        for moved in decision.transitions:
            if moved.old is None:
                assert moved.incident not in self.ids
                self.ids.add(moved.incident)
        for notice in decision.notices:
            assert notice.id not in self.ids
            self.ids.add(notice.id)
            if notice.incident is None:
                assert notice.reason in (Reason.STORM, Reason.AGENT)
                if notice.reason is Reason.STORM:
                    self.told_by_storm |= self.find_ended(decision) & set(notice.details)
                continue
            assert notice.incident.opened is not None
            assert not self.is_muted(notice.incident)
            self.told.add((notice.reason, notice.incident.id))
        for incident in decision.ended:
            self.owed.pop(incident.id, None)
            if self.is_muted(incident) and not incident.said:
                continue
            by_storm = incident.id in self.told_by_storm
            if incident.resolved_by is ResolvedBy.RUN:
                assert (Reason.HEALED, incident.id) in self.told or by_storm
            elif incident.said:
                assert (Reason.ENDED, incident.id) in self.told or by_storm
        for incident in decision.host.incidents:
            self.check_said(incident, decision)

    def find_ended(self, decision: Decision) -> set[str]:
        known = (*decision.host.incidents, *decision.ended)
        return {incident.id for incident in known if incident.state.ended}

    def check_storm(self, before: Host, decision: Decision) -> None:
        """A storm speaks twice at most, or once; nothing of it speaks beside it."""
        was, now = before.storm, decision.host.storm
        for notice in decision.notices:
            if notice.reason is Reason.STORM:
                self.storm_words.append(notice.details["storm"])
                assert self.storm_words in (["began"], ["began", "ended"], ["passed"])
                if self.storm_words != ["began"]:
                    self.storm_words = []
            elif notice.incident is not None and was is not None and now is not None:
                assert was.since != now.since or notice.incident.id not in now.members
        if now is None:
            self.storm_words = []
        else:
            assert self.storm_words == (["began"] if now.said else [])

    def is_muted(self, incident: Incident) -> bool:
        silence = silence_of(incident, self.host, self.policy, self.now)
        return silence is not None or self.host.doubt is not None

    def check_said(self, incident: Incident, decision: Decision) -> None:
        policy = self.policy
        check = policy.checks.get(incident.check)
        if (
            check is None
            or incident.state not in FAILING
            or not incident.critical
            or not confirmed(incident, check, critical=True)
            or self.is_muted(incident)
        ):
            self.owed.pop(incident.id, None)
            return
        since = self.owed.setdefault(incident.id, self.now)
        patience = policy.held_after + policy.group_wait + policy.inhibit_for
        if self.now > since + patience:
            assert incident.said

    def check_quiet(self, decision: Decision) -> None:
        """A second decision does nothing, nor does any before the wake."""
        storm = decision.host.storm
        assert storm is None or self.host.doubt or self.now < storm.since + self.policy.inhibit_for
        assert decision.wake is None or decision.wake > self.now
        again = self.check_nothing_happens(self.now, decision.host)
        assert again.look == decision.look
        assert again.wake == decision.wake
        assert again.holds == decision.holds
        wake = self.now + 1e6 if decision.wake is None else decision.wake
        for instant in (self.now + (wake - self.now) / 3, wake - min(1e-3, (wake - self.now) / 2)):
            if self.now < instant < wake:
                self.check_nothing_happens(instant, decision.host)

    def check_nothing_happens(self, instant: float, host: Host) -> Decision:
        tick = decide(host, Tick(), self.policy, instant)
        assert not tick.runs
        assert not tick.notices
        assert not tick.transitions
        assert not tick.ended
        assert tick.host == host
        return tick

    # Time going on

    def live(
        self, until: float, *, at_most: int, regularly: bool = True, while_ill: bool = False
    ) -> None:
        """Runs are carried out and checks are looked at, when asked for and when due."""
        due = dict.fromkeys(sorted(self.policy.checks) if regularly else (), self.now)
        start = self.sends
        while self.now < until and (self.host.incidents or not while_ill):
            assert self.sends - start < at_most, "a busy loop"
            for run in [run for run in self.host.runs if run.alive]:
                self.carry_out(run)
            if self.last.look:
                self.answer()
                continue
            nearest = min(due.values(), default=until)
            self.now = min(t for t in (nearest, self.last.wake, until) if t is not None)
            if self.now < nearest:
                self.send(Tick())
                continue
            for name in [name for name, at in due.items() if at <= self.now]:
                due[name] = self.now + self.policy.checks[name].every
                self.look_at(name)

    def carry_out(self, run: Run) -> None:
        if run.state is RunState.PLANNED:
            self.send(RunStarted(run=run.id))
        self.now += 1.0
        if self.cures and self.outcome is Outcome.OK:
            self.truth.pop(run.check, None)
        self.send(RunEnded(run=run.id, outcome=self.outcome, ended=self.now))


def tell(policy: Policy, events: list[tuple[Any, ...]]) -> World:
    world = World(policy)
    for event in events:
        world.do(event)
    return world


STORIES = st.lists(EVENTS, min_size=20, max_size=60)


#: Stories that are told once are five times as cheap as those that go on for hours.
cheap = settings(max_examples=5 * settings().max_examples)


@cheap
@given(policies(), STORIES)
def test_what_must_hold_holds_whatever_happens(
    policy: Policy, events: list[tuple[Any, ...]]
) -> None:
    tell(policy, events)


@cheap
@given(policies(), STORIES)
def test_every_incident_ends_once_all_is_well(
    policy: Policy, events: list[tuple[Any, ...]]
) -> None:
    world = tell(policy, events)
    if world.host.doubt is not None:
        world.send(Ordered(verb=Verb.CONFIRM, by="anna"))
    world.truth = {}
    world.outcome, world.cures = Outcome.OK, True
    world.live(world.now + 7200.0, at_most=6000, while_ill=True)
    assert world.host.incidents == ()
    assert world.last.look == frozenset()


@given(policies(), STORIES)
def test_nothing_spins_while_all_is_ill_for_ever(
    policy: Policy, events: list[tuple[Any, ...]]
) -> None:
    world = tell(policy, events)
    ill = (Finding(subject="a", status=Status.CRITICAL, cause="failed"),)
    world.truth = dict.fromkeys(world.policy.checks, ill)
    world.outcome, world.cures = Outcome.OK, False
    world.live(world.now + 60.0, at_most=1000)
    world.live(world.now + 900.0, at_most=1500, regularly=False)
    world.live(world.now + 12 * 3600.0, at_most=2500, regularly=False)
