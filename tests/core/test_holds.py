"""Why no run is started, and until when: every hold by its name, and what ends it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from core_scene import Scene, bare, check, step

from agent.core.holds import (
    NextStep,
    count_attempts,
    fill_lock,
    fill_options,
    find_unseen_upstream,
    find_upstream,
    gates,
    has_approval,
    mode_of,
    needs_approval,
    next_step,
    rank,
    silence_of,
    stale_checks,
    upstream_incidents,
    why_busy,
    why_not,
)
from agent.core.model import (
    Approval,
    Changes,
    CheckPolicy,
    Confirm,
    Finding,
    Held,
    Hold,
    Host,
    Incident,
    LastLook,
    Mode,
    Outcome,
    Pause,
    Policy,
    Risk,
    Run,
    RunState,
    Silence,
    State,
    Status,
    Storm,
    Verb,
)

NOW = 1000.0


def incident(check: str = "web", state: State = State.OPEN, **changes: Any) -> Incident:
    """Confirmed and looked at just now."""
    finding = changes.pop("finding", None) or Finding(
        subject=f"{check}.service",
        status=changes.pop("status", Status.CRITICAL),
        cause=changes.pop("cause", "failed"),
        **{k: changes.pop(k) for k in ("resource", "implicates", "transition") if k in changes},
    )
    first = {
        "id": "i1",
        "check": check,
        "subject": finding.subject,
        "looked": NOW,
        "before": finding,
        "began": NOW,
        "opened": NOW,
        "entered": NOW,
        "seen": NOW,
        "look_ended": NOW,
        "recent": (finding.status,),
    }
    return Incident(state=state, finding=finding, **{**first, **changes})


def run(**changes: Any) -> Run:
    first: dict[str, Any] = {
        "id": "r1",
        "remedy": "restart-service",
        "options": {},
        "risk": Risk.LOW,
        "changes": Changes.SERVICE,
        "timeout": 60.0,
        "lock": "",
        "digest": "d1",
        "planned": NOW - 100.0,
        "state": RunState.ENDED,
        "check": "web",
        "subject": "web.service",
        "step": "restart-service",
    }
    return Run(**{**first, **changes})


def policy(*checks: CheckPolicy, **changes: Any) -> Policy:
    return Policy(checks={one.name: one for one in checks or (check(),)}, **changes)


def hold_of(
    one: Incident, host: Host | None = None, of: Policy | None = None, now: float = NOW
) -> Held | None:
    rules = of or policy()
    known = host or Host()
    if one not in known.incidents:
        known = replace(known, incidents=(one, *known.incidents))
    return why_not(one, rules.checks[one.check], known, rules, now)


def name_of(held: Held | None) -> Hold | None:
    return None if held is None else held.hold


# What would be run


def test_the_ladder_wins_over_what_the_finding_gives() -> None:
    finding = Finding(
        subject="/var", status=Status.CRITICAL, cause="full", measurements={"used_percent": 97.0}
    )
    asks = step(
        fills={
            "path": "finding.subject",
            "why": "cause",
            "used": "finding.measurements.used_percent",
            "free": "measurements.free_bytes",
            "odd": "summary",
            "unit": "subject",
        },
        options={"unit": "nginx.service", "keep": 3},
    )
    assert fill_options(asks, finding) == {
        "path": "/var",
        "why": "full",
        "used": 97.0,
        "unit": "nginx.service",
        "keep": 3,
    }


@pytest.mark.parametrize(
    ("template", "lock"),
    [("", ""), ("disk", "disk"), ("unit:{unit}", "unit:nginx"), ("{unit}-{none}", "nginx-")],
)
def test_a_lock_is_named_by_the_options(template: str, lock: str) -> None:
    assert fill_lock(step(lock=template), {"unit": "nginx"}) == lock


def test_attempts_are_runs_of_the_step_for_the_fingerprint_within_the_window() -> None:
    counted = [
        run(id="r1", incident="i0"),
        run(id="r2", planned=NOW - 99.0, state=RunState.RUNNING),
    ]
    others = [
        run(id="r3", step="other"),
        run(id="r4", check="db"),
        run(id="r5", subject="api.service"),
        run(id="r6", by="anna"),
        run(id="r7", planned=NOW - 3600.0),
    ]
    host = Host(runs=(*counted, *others))
    rules = policy(attempts_window=3600.0)
    assert count_attempts(incident(), step(), host, rules, NOW) == 2
    assert count_attempts(incident(), step(), host, rules, NOW - 0.1) == 3


def chosen(one: Incident, of: CheckPolicy, host: Host | None = None, **rules: Any) -> str:
    found = next_step(one, of, host or Host(), policy(of, **rules), NOW)
    return found if isinstance(found, str) else found.step.key


FIRST, SECOND = step("first"), step("second")
LADDER = check("web", FIRST, SECOND)


@pytest.mark.parametrize(
    ("words", "one", "of", "runs", "found"),
    [
        ("the first that is for the cause", incident(), LADDER, (), "first"),
        ("not one for other causes", incident(), check("web", step("x", causes=("full",)), SECOND),
         (), "second"),
        ("a step without causes is for none", incident(cause=""), check("web", step(causes=())),
         (), "no remedy is configured for critical"),
        ("none for the cause", incident(cause="odd"), LADDER, (),
         "no remedy is configured for odd"),
        ("none at all", incident(), bare("web"), (), "no remedy is configured for failed"),
        ("not one that is off", incident(), check("web", step("x", mode=Mode.OFF), SECOND), (),
         "second"),
        ("all are off", incident(), check("web", mode=Mode.OFF), (), "the mode is off"),
        ("not one an operator refused", incident(rejected=("first",)), LADDER, (), "second"),
        ("an operator refused all", incident(rejected=("first", "second")), LADDER, (),
         "an operator rejected first, second"),
        ("the first again while it has attempts", incident(), LADDER, ("first",), "first"),
        ("the next one when they are used up", incident(), LADDER, ("first", "first"), "second"),
        ("none is left", incident(), LADDER, ("first", "first", "second", "second"),
         "every remedy was tried: first 2 x, second 2 x"),
        ("escalated, but no time for another try", incident(state=State.ESCALATED), LADDER,
         ("first", "first", "second", "second"), "every remedy was tried: first 2 x, second 2 x"),
        ("a time for another try, but not escalated", incident(retry_at=NOW), LADDER,
         ("first", "first", "second", "second"), "every remedy was tried: first 2 x, second 2 x"),
        ("the least tried again", incident(state=State.ESCALATED, retry_at=NOW), LADDER,
         ("first", "first", "first", "second", "second"), "second"),
    ],
)  # fmt: skip
def test_the_next_remedy_is(
    words: str, one: Incident, of: CheckPolicy, runs: tuple[str, ...], found: str
) -> None:
    host = Host(runs=tuple(run(id=f"r{n}", step=key) for n, key in enumerate(runs)))
    assert chosen(one, of, host) == found, words


@pytest.mark.parametrize(
    ("host", "of", "one", "mode"),
    [
        (Mode.AUTO, None, None, Mode.AUTO),
        (Mode.AUTO, Mode.SHADOW, None, Mode.SHADOW),
        (Mode.AUTO, Mode.APPROVE, Mode.AUTO, Mode.APPROVE),
        (Mode.SHADOW, Mode.AUTO, Mode.AUTO, Mode.SHADOW),
        (Mode.APPROVE, None, Mode.OFF, Mode.OFF),
        (Mode.OFF, Mode.AUTO, Mode.SHADOW, Mode.OFF),
    ],
)
def test_the_strictest_mode_counts(
    host: Mode, of: Mode | None, one: Mode | None, mode: Mode
) -> None:
    rung = step(mode=one)
    web = check("web", rung, mode=of)
    assert mode_of(rung, web, policy(web, mode=host)) is mode


@pytest.mark.parametrize(
    ("mode", "risk", "alone", "needed"),
    [
        (Mode.AUTO, Risk.LOW, Risk.LOW, False),
        (Mode.AUTO, Risk.MEDIUM, Risk.LOW, True),
        (Mode.AUTO, Risk.MEDIUM, Risk.MEDIUM, False),
        (Mode.AUTO, Risk.HIGH, Risk.MEDIUM, True),
        (Mode.AUTO, Risk.HIGH, Risk.HIGH, False),
        (Mode.APPROVE, Risk.LOW, Risk.HIGH, True),
        (Mode.SHADOW, Risk.HIGH, Risk.LOW, False),
    ],
)
def test_what_is_too_risky_to_do_alone_needs_an_approval(
    mode: Mode, risk: Risk, alone: Risk, needed: bool
) -> None:
    rung = step(risk=risk)
    web = check("web", rung)
    assert needs_approval(rung, web, policy(web, mode=mode, act_alone_up_to=alone)) is needed


@pytest.mark.parametrize(
    ("changes", "risk", "needed"),
    [
        (Changes.DATA, Risk.HIGH, True),
        (Changes.DATA, Risk.MEDIUM, False),
        (Changes.FILES, Risk.HIGH, False),
    ],
)
def test_what_may_cost_data_is_never_done_alone(changes: Changes, risk: Risk, needed: bool) -> None:
    rung = step(risk=risk, changes=changes)
    web = check("web", rung)
    alone = policy(web, mode=Mode.AUTO, act_alone_up_to=Risk.HIGH)
    assert needs_approval(rung, web, alone) is needed


APPROVAL = Approval(
    step="restart-service",
    options={"unit": "web.service"},
    digest="d1",
    by="anna",
    until=NOW + 10.0,
)


@pytest.mark.parametrize(
    ("words", "approval", "given"),
    [
        ("it is exactly this", APPROVAL, True),
        ("there is none", None, False),
        ("it is over", replace(APPROVAL, until=NOW), False),
        ("for another step", replace(APPROVAL, step="other"), False),
        ("for another playbook", replace(APPROVAL, digest="d2"), False),
        ("for another unit", replace(APPROVAL, options={"unit": "db.service"}), False),
    ],
)
def test_an_approval_is_for_exactly_what_was_shown(
    words: str, approval: Approval | None, given: bool
) -> None:
    wanted = NextStep(step=step(), options={"unit": "web.service"}, lock="")
    assert has_approval(incident(approval=approval), wanted, NOW) is given, words


# What it stands on


CHAIN = policy(
    bare("disk"),
    bare("db", depends_on=("disk",)),
    check("web", depends_on=("db", "gone")),
    bare("alone"),
)


@pytest.mark.parametrize(
    ("name", "upstream"),
    [("web", ("db", "disk")), ("db", ("disk",)), ("disk", ()), ("nothing", ())],
)
def test_what_a_check_depends_on_is_found_through_others(
    name: str, upstream: tuple[str, ...]
) -> None:
    assert find_upstream(name, CHAIN) == upstream


def test_a_circle_of_dependencies_ends() -> None:
    circle = policy(bare("a", depends_on=("b",)), bare("b", depends_on=("a",)))
    assert find_upstream("a", circle) == ("b",)


def test_root_most_comes_first_then_the_older() -> None:
    disk = incident("disk", id="i9", resource="filesystem:/", opened=NOW)
    db = incident("db", id="i8")
    web = incident("web", id="i7")
    blaming = incident("alone", id="i2", implicates=("filesystem:/",), opened=NOW - 5)
    old = incident("alone", id="i10", opened=NOW - 5)
    same = incident("alone", id="i11", opened=NOW - 5)
    unopened = incident("alone", id="i1", opened=None, began=NOW - 7)
    host = Host(incidents=(web, db, blaming, same, disk, old, unopened))
    order = sorted(host.incidents, key=lambda one: rank(one, host, CHAIN))
    assert [one.id for one in order] == ["i1", "i10", "i11", "i9", "i2", "i8", "i7"]


WEB = incident("web", id="i5")


@pytest.mark.parametrize(
    ("words", "other", "one", "found"),
    [
        ("a critical upstream", incident("db"), WEB, True),
        ("a suspected one", incident("disk", State.PENDING), WEB, True),
        ("one being repaired", incident("db", State.REPAIRING), WEB, True),
        ("one being verified", incident("db", State.VERIFYING), WEB, True),
        ("one that waits for a human", incident("db", State.ESCALATED), WEB, True),
        ("not one on probation", incident("db", State.PROBATION), WEB, False),
        ("not one that ended", incident("db", State.GONE), WEB, False),
        ("not a warning", incident("db", status=Status.WARNING), WEB, False),
        ("not what it does not stand on", incident("alone"), WEB, False),
        ("not itself", WEB, WEB, False),
        ("what its evidence names", incident("alone", resource="filesystem:/"),
         incident("web", id="i5", implicates=("filesystem:/",)), True),
        ("not where each blames the other",
         incident("alone", resource="x", implicates=("y",)),
         incident("web", id="i5", resource="y", implicates=("x",)), False),
    ],
)  # fmt: skip
def test_what_an_incident_stands_on(
    words: str, other: Incident, one: Incident, found: bool
) -> None:
    host = Host(incidents=(other, one) if other is not one else (one,))
    assert upstream_incidents(one, host, CHAIN) == ((other,) if found else ()), words


def test_upstream_must_have_been_looked_at_since_the_first_failing_look() -> None:
    looked = {
        "db": LastLook(began=NOW, ended=NOW, ok=True),
        "disk": LastLook(began=NOW - 0.1, ended=NOW, ok=True),
    }
    assert find_unseen_upstream(WEB, Host(looked=looked), CHAIN) == ("disk",)
    assert find_unseen_upstream(WEB, Host(), CHAIN) == ("db", "disk")


def test_what_must_be_looked_at_again_before_acting() -> None:
    fresh = {name: LastLook(began=NOW, ended=NOW, ok=True) for name in ("db", "disk")}
    web = CHAIN.checks["web"]

    def stale(now: float, *others: Incident, **host: Any) -> frozenset[str]:
        known = Host(incidents=(WEB, *others), **{"looked": fresh, **host})
        return stale_checks(WEB, web, known, CHAIN, now)

    assert stale(NOW + 29.9) == frozenset()
    assert stale(NOW + 30.0) == {"web"}
    assert stale(NOW, looked={}) == {"db", "disk"}
    mended = incident("db", State.PROBATION, status=Status.OK, whole_by=NOW)
    assert stale(NOW, mended) == {"web"}
    assert stale(NOW, replace(mended, whole_by=NOW - 0.1)) == frozenset()
    assert stale(NOW, replace(mended, check="alone")) == frozenset()


def test_what_evidence_blamed_and_was_mended_asks_for_a_new_look_too() -> None:
    one = incident("web", id="i5", implicates=("filesystem:/",))
    mended = incident(
        "alone", State.PROBATION, status=Status.OK, resource="filesystem:/", whole_by=NOW
    )
    host = Host(incidents=(one, mended))
    assert "web" in stale_checks(one, CHAIN.checks["web"], host, CHAIN, NOW)


# Silences


def silence(**changes: Any) -> Silence:
    first: dict[str, Any] = {"id": "s1", "starts": NOW, "ends": NOW + 60.0, "by": "anna"}
    return Silence(**{**first, **changes})


@pytest.mark.parametrize(
    ("words", "mute", "covers"),
    [
        ("its check", silence(checks=("db", "web")), True),
        ("another check", silence(checks=("db",)), False),
        ("everything, written out", silence(checks=("*",)), True),
        ("an empty match is nothing", silence(), False),
        ("subjects alone are nothing", silence(subjects=("web.service",)), False),
        ("its subject", silence(checks=("web",), subjects=("web.service",)), True),
        ("another subject", silence(checks=("*",), subjects=("db.service",)), False),
        ("its label", silence(labels={"team": "shop"}), True),
        ("all labels must be there", silence(labels={"team": "shop", "tier": "1"}), False),
        ("another label", silence(labels={"team": "mail"}), False),
        ("checks or labels", silence(checks=("db",), labels={"team": "shop"}), True),
        ("not yet", silence(checks=("*",), starts=NOW + 0.1), False),
        ("no longer", silence(checks=("*",), starts=NOW - 9, ends=NOW), False),
    ],
)
def test_a_silence_covers(words: str, mute: Silence, covers: bool) -> None:
    rules = policy(check(labels={"team": "shop"}))
    host = Host(silences=(mute,))
    assert silence_of(incident(), host, rules, NOW) == (mute if covers else None), words


def test_of_two_silences_the_longer_counts() -> None:
    host = Host(
        silences=(silence(checks=("*",)), silence(id="s2", checks=("*",), ends=NOW + 90), )
    )  # fmt: skip
    found = silence_of(incident(), host, policy(), NOW)
    assert found is not None
    assert found.id == "s2"


def test_a_silence_of_labels_never_covers_a_check_that_is_not_configured() -> None:
    host = Host(silences=(silence(labels={"team": "shop"}),))
    assert silence_of(incident("removed"), host, policy(), NOW) is None


# Holds


def test_nothing_holds_a_fresh_confirmed_critical_with_a_remedy() -> None:
    assert hold_of(incident()) is None


RUNNING = run(state=RunState.RUNNING, lock="unit:web", subject="other", check="other")


@pytest.mark.parametrize(
    ("hold", "detail", "until", "one", "host", "of"),
    [
        (Hold.NO_REMEDY, "warning is not acted on, only confirmed critical", None,
         incident(status=Status.WARNING), Host(), policy()),
        (Hold.NO_REMEDY, "unknown is not acted on, only confirmed critical", None,
         incident(status=Status.UNKNOWN), Host(), policy()),
        (Hold.NO_REMEDY, "critical is not acted on, only confirmed critical", None,
         incident(recent=(Status.WARNING, Status.CRITICAL)), Host(),
         policy(check(confirm=Confirm(times=2, of=3)))),
        (Hold.NO_REMEDY, "no remedy is configured for odd", None,
         incident(cause="odd"), Host(), policy()),
        (Hold.PAUSED, "anna paused all runs", None, incident(),
         Host(paused=Pause(by="anna", since=0.0)), policy()),
        (Hold.PAUSED, "anna paused all runs: deploying", NOW + 5, incident(),
         Host(paused=Pause(by="anna", since=0.0, until=NOW + 5, why="deploying")), policy()),
        (Hold.SILENCED, "maintenance by anna", NOW + 60, incident(),
         Host(silences=(silence(checks=("web",), runs=True),)), policy()),
        (Hold.SILENCED, "maintenance by anna: new disk", NOW + 60, incident(),
         Host(silences=(silence(checks=("*",), runs=True, comment="new disk"),)), policy()),
        (Hold.TRANSITION, "the host is booting", NOW + 890, incident(),
         Host(transition="booting", transition_seen=NOW - 10), policy()),
        (Hold.TRANSITION, "web.service is starting", None,
         incident(transition="starting"), Host(), policy()),
        (Hold.SHADOW, "would run restart-service", None, incident(), Host(),
         policy(mode=Mode.SHADOW)),
        (Hold.APPROVAL, "restart-service (low risk) needs approval", None, incident(), Host(),
         policy(mode=Mode.APPROVE)),
        (Hold.APPROVAL, "restart-service (medium risk) needs approval", None, incident(), Host(),
         policy(check("web", step(risk=Risk.MEDIUM)))),
        (Hold.COOLING_DOWN, "the last run was just now", NOW + 4,
         incident(run_ended=NOW - 6.0), Host(), policy()),
        (Hold.COOLING_DOWN, "a human is needed", NOW + 7,
         incident(state=State.ESCALATED, retry_at=NOW + 7, run="r1"), Host(runs=(run(),)),
         policy()),
        (Hold.OVER_BUDGET, "1 runs within the hour, 1 are allowed", NOW + 3500, incident(),
         Host(runs=(run(),)), policy(runs_per_hour=1)),
        (Hold.OVER_BUDGET, "0 runs within the hour, 0 are allowed", None, incident(), Host(),
         policy(runs_per_hour=0)),
        (Hold.BUSY, "run r1 (restart-service) is alive", None, incident(), Host(runs=(RUNNING,)),
         policy()),
        (Hold.LOOKING_UPSTREAM, "the last look is too old to act on", None,
         incident(look_ended=NOW - 30.0), Host(), policy()),
    ],
)  # fmt: skip
def test_it_is_held(
    hold: Hold, detail: str, until: float | None, one: Incident, host: Host, of: Policy
) -> None:
    assert hold_of(one, host, of) == Held(hold=hold, detail=detail, until=until)


@pytest.mark.parametrize(
    ("words", "one", "host", "of"),
    [
        ("a silence without runs mutes only", incident(),
         Host(silences=(silence(checks=("*",)),)), policy()),
        ("approved", incident(approval=replace(APPROVAL, options={})), Host(),
         policy(mode=Mode.APPROVE)),
        ("cooled down", incident(run_ended=NOW - 10.0), Host(), policy()),
        ("time for another try", incident(state=State.ESCALATED, retry_at=NOW, run="r1"),
         Host(runs=(run(outcome=Outcome.FAILED),)), policy()),
        ("escalated without a remedy until now", incident(state=State.ESCALATED), Host(),
         policy()),
        ("a new remedy need not wait", incident(state=State.ESCALATED, retry_at=NOW + 99, run="r1"),
         Host(runs=(run(step="other", outcome=Outcome.FAILED),)), policy()),
        ("the run of before is not known", incident(state=State.ESCALATED, retry_at=NOW + 99,
         run="r0"), Host(), policy()),
        ("runs of another hour", incident(), Host(runs=(run(planned=NOW - 3600.0),)),
         policy(runs_per_hour=1)),
        ("manual runs do not count in the budget", incident(), Host(runs=(run(by="anna"),)),
         policy(runs_per_hour=1)),
        ("previews do not count in the budget", incident(), Host(runs=(run(preview=True),)),
         policy(runs_per_hour=1)),
        ("another slot", incident(), Host(runs=(RUNNING,)), policy(slots=2)),
        ("fresh enough", incident(look_ended=NOW - 29.0), Host(), policy()),
    ],
)  # fmt: skip
def test_it_is_not_held(words: str, one: Incident, host: Host, of: Policy) -> None:
    assert hold_of(one, host, of) is None, words


@pytest.mark.parametrize("outcome", [Outcome.NEEDS_HUMAN, Outcome.CANCELLED])
def test_no_other_remedy_goes_ahead_of_a_human_who_was_asked(outcome: Outcome) -> None:
    one = incident(state=State.ESCALATED, retry_at=NOW + 99, run="r1")
    host = Host(runs=(run(step="other", outcome=outcome),))
    assert name_of(hold_of(one, host)) is Hold.COOLING_DOWN


def test_the_budget_is_free_again_when_the_first_runs_are_an_hour_old() -> None:
    runs = tuple(run(id=f"r{n}", step="x", planned=NOW - n) for n in (50, 10, 40, 20, 30))
    held = hold_of(incident(), Host(runs=runs), policy(runs_per_hour=3))
    assert held is not None
    assert held.hold is Hold.OVER_BUDGET
    assert held.until == NOW - 30 + 3600


@pytest.mark.parametrize(
    ("words", "runs", "lock", "slots", "busy"),
    [
        ("nothing is alive", (run(lock="a"),), "a", 1, ""),
        ("the only slot", (RUNNING,), "a", 1, "run r1 (restart-service) is alive"),
        ("planned is alive", (replace(RUNNING, state=RunState.PLANNED),), "a", 1,
         "run r1 (restart-service) is alive"),
        ("another slot", (RUNNING,), "a", 2, ""),
        ("the lock", (RUNNING,), "unit:web", 2, "run r1 (restart-service) holds unit:web"),
        ("no lock is no lock", (replace(RUNNING, lock=""),), "", 2, ""),
    ],
)  # fmt: skip
def test_slots_and_locks(
    words: str, runs: tuple[Run, ...], lock: str, slots: int, busy: str
) -> None:
    assert why_busy(runs, lock, policy(slots=slots)) == busy, words


def test_a_run_that_outlived_its_incident_holds_the_next_one_of_the_same_fingerprint() -> None:
    host = Host(runs=(run(state=RunState.RUNNING, incident="i0"),))
    held = hold_of(incident(), host, policy(slots=2))
    assert held == Held(hold=Hold.BUSY, detail="run r1 (restart-service) is alive for it")


LOOKED = {name: LastLook(began=NOW, ended=NOW, ok=False) for name in ("disk", "db", "web", "alone")}


@pytest.mark.parametrize(
    ("words", "others", "after", "hold", "detail", "until"),
    [
        ("an upstream that fails", (incident("db"),), 0.0, Hold.INHIBITED,
         "db fails and this depends on it (incident i1)", NOW + 900),
        ("through another check", (incident("disk"),), 0.0, Hold.INHIBITED,
         "disk fails and this depends on it (incident i1)", NOW + 900),
        ("an upstream that failed and is starting", (incident("db", status=Status.UNKNOWN,
         failing_since=NOW, transition="starting"),), 0.0, Hold.INHIBITED,
         "db fails and this depends on it (incident i1)", NOW + 900),
        ("an upstream of which nothing bad is known", (incident("db", status=Status.UNKNOWN),), 0.0,
         None, "", None),
        ("almost for ever", (incident("db"),), 899.0, Hold.INHIBITED,
         "db fails and this depends on it (incident i1)", NOW + 900),
        ("not for ever", (incident("db"),), 900.0, None, "", None),
        ("from its beginning where it was never opened", (incident("db", opened=None),), 899.0,
         Hold.INHIBITED, "db fails and this depends on it (incident i1)", NOW + 900),
        ("a suspicion", (incident("db", State.PENDING),), 4.9, Hold.LOOKING_UPSTREAM,
         "db is suspected too", NOW + 5),
        ("a suspicion does not hold for long", (incident("db", State.PENDING),), 5.0, None, "",
         None),
        ("a failure behind a suspicion", (incident("db", State.PENDING), incident("disk", id="i2")),
         5.0, Hold.INHIBITED, "disk fails and this depends on it (incident i2)", NOW + 900),
        ("mended since the last look", (incident("db", State.PROBATION, status=Status.OK,
         whole_by=NOW),), 0.0, Hold.LOOKING_UPSTREAM,
         "what this depends on was mended since the last look", None),
    ],
)  # fmt: skip
def test_upstream_holds(
    words: str,
    others: tuple[Incident, ...],
    after: float,
    hold: Hold | None,
    detail: str,
    until: float | None,
) -> None:
    host = Host(incidents=(WEB, *others), looked=LOOKED)
    now = NOW + after
    one = replace(WEB, look_ended=now)
    held = hold_of(one, replace(host, incidents=(one, *others)), CHAIN, now)
    assert held == (hold and Held(hold=hold, detail=detail, until=until)), words


@pytest.mark.parametrize(
    ("after", "held"),
    [
        (0.0, Held(hold=Hold.LOOKING_UPSTREAM, detail="db, disk must be looked at before acting",
                   until=NOW + 5)),
        (5.0, None),
    ],
)  # fmt: skip
def test_upstream_is_looked_at_before_acting_but_not_waited_for_long(
    after: float, held: Held | None
) -> None:
    assert hold_of(replace(WEB, look_ended=NOW + after), Host(), CHAIN, NOW + after) == held


def test_an_operators_stop_of_what_it_stands_on_holds_it() -> None:
    looked = {**LOOKED, "disk": replace(LOOKED["disk"], intended=("sda", "sdb"))}
    held = hold_of(WEB, Host(looked=looked), CHAIN)
    detail = "sda, sdb (disk) is as an operator wants it"
    assert held == Held(hold=Hold.INTENTION, detail=detail)


def test_evidence_inhibits_without_any_dependency() -> None:
    one = incident("web", id="i5", implicates=("filesystem:/",))
    disk = incident("alone", resource="filesystem:/")
    held = hold_of(one, Host(incidents=(one, disk), looked=LOOKED), CHAIN)
    assert name_of(held) is Hold.INHIBITED


STORMY = Host(storm=Storm(since=NOW), looked=LOOKED)
DEEP = incident("db", id="i5", implicates=("x",))


@pytest.mark.parametrize(
    ("words", "other", "after", "held"),
    [
        ("what is nearer to the root comes first", incident("alone"), 0.0, True),
        ("not for ever", incident("alone"), 900.0, False),
        ("an escalated one does not hold others", incident("alone", State.ESCALATED), 0.0, False),
        ("nor one that passes", incident("alone", State.PROBATION), 0.0, False),
        ("nor a warning", incident("alone", status=Status.WARNING), 0.0, False),
        ("nor a suspicion", incident("alone", State.PENDING, opened=None), 0.0, False),
        ("nor one as deep", incident("db", id="i6"), 0.0, False),
    ],
)
def test_in_a_storm(words: str, other: Incident, after: float, held: bool) -> None:
    rules = policy(bare("disk"), check("db", depends_on=("disk",)), bare("alone"))
    one = replace(DEEP, look_ended=NOW + after)
    host = replace(STORMY, incidents=(other, one))
    found = hold_of(one, host, rules, NOW + after)
    if held:
        detail = "many failures at once: alone comes first"
        assert found == Held(hold=Hold.STORM, detail=detail, until=NOW + 900), words
    else:
        assert found is None, words


def test_everything_that_stands_in_the_way_is_known_in_its_order() -> None:
    rules = policy(bare("db"), check(depends_on=("db",), mode=Mode.APPROVE), runs_per_hour=0)
    one = incident(id="i5", look_ended=NOW - 60.0, run_ended=NOW)
    others = tuple(incident("db", id=f"i{n}") for n in (6, 7))
    host = Host(
        incidents=(one, *others),
        runs=(RUNNING,),
        storm=Storm(since=NOW),
        paused=Pause(by="anna", since=0.0),
        transition="booting",
        transition_seen=NOW,
        silences=(silence(checks=("*",), runs=True),),
    )
    assert [held.hold for held in gates(one, rules.checks["web"], host, rules, NOW)] == [
        Hold.PAUSED,
        Hold.SILENCED,
        Hold.TRANSITION,
        Hold.INHIBITED,
        Hold.INHIBITED,
        Hold.LOOKING_UPSTREAM,
        Hold.STORM,
        Hold.APPROVAL,
        Hold.COOLING_DOWN,
        Hold.OVER_BUDGET,
        Hold.BUSY,
        Hold.LOOKING_UPSTREAM,
    ]
    mild = incident(status=Status.WARNING, cause="odd")
    assert [h.hold for h in gates(mild, rules.checks["web"], Host(), rules, NOW)] == [
        Hold.NO_REMEDY,
        Hold.LOOKING_UPSTREAM,
        Hold.NO_REMEDY,
    ]


def test_the_first_reason_is_the_one_that_is_named() -> None:
    """An operator's word comes before what would hold anyway."""
    scene = Scene(check(), runs_per_hour=0)
    scene.fails()
    assert name_of(scene.hold()) is Hold.OVER_BUDGET
    scene.orders(Verb.PAUSE)
    assert name_of(scene.hold()) is Hold.PAUSED
