"""Why people are spoken to, and when they are left alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from core_scene import EVERY_REASON, Scene, bare, check, mute, step

from agent.core.model import (
    Confirm,
    Finding,
    Incident,
    Mode,
    Outcome,
    Policy,
    Reason,
    ResolvedBy,
    Risk,
    RoutePolicy,
    State,
    Status,
    Verb,
)
from agent.core.reasons import wants

# Opened


def test_what_is_mended_within_the_group_wait_is_told_as_healed_only() -> None:
    scene = Scene()
    scene.fails()
    scene.heals()
    scene.keeps_passing(60)
    assert scene.said() == ["healed"]


def test_a_warning_is_told_after_the_group_wait_and_not_acted_on() -> None:
    scene = Scene()
    scene.warns()
    scene.wait(9.9)
    assert scene.said() == []
    scene.wait(0.1)
    assert scene.said() == ["opened"]
    assert scene.runs == []
    notice = scene.notices[0]
    assert notice.details["hold"] == "no remedy"
    assert notice.details["hold_detail"] == "warning is not acted on, only confirmed critical"


def test_a_run_that_takes_longer_than_the_group_wait_is_told_of() -> None:
    scene = Scene()
    scene.fails()
    scene.starts()
    scene.wait(10)
    assert scene.said() == ["opened"]
    assert scene.notices[0].details == {}
    scene.heals()
    scene.keeps_passing(60)
    assert scene.said() == ["opened", "healed"]


def test_it_is_not_told_as_opened_while_the_latest_look_passes() -> None:
    scene = Scene()
    scene.fails()
    scene.starts()
    scene.passes()
    scene.wait(20)
    assert scene.said() == []
    scene.fails()
    assert scene.said() == ["opened"]


def test_it_is_told_again_when_it_becomes_worse_but_not_when_it_becomes_better() -> None:
    scene = Scene(check("web", step(), mode=Mode.SHADOW))
    scene.warns()
    scene.wait(20)
    scene.fails()
    assert scene.said() == ["opened", "opened"]
    scene.warns()
    scene.fails()
    scene.is_unclear()
    assert scene.said() == ["opened", "opened"]


def test_a_suspicion_is_never_told() -> None:
    scene = Scene(check(confirm=Confirm(times=2, of=3)))
    scene.fails()
    scene.wait(100)
    scene.passes()
    scene.passes()
    assert scene.state() is State.RESOLVED
    assert scene.said() == []


def test_what_cannot_be_told_for_too_long_is_reported() -> None:
    scene = Scene()
    scene.breaks()
    scene.wait(598)
    scene.breaks()
    assert scene.state() is State.PENDING
    scene.wait(11)
    assert scene.said() == ["opened"]
    assert scene.incident().finding.summary == "timed out"
    scene.looks("web")
    assert scene.state() is State.GONE
    assert scene.said() == ["opened", "ended"]


# Healed, ended, recurring


def test_what_ends_by_itself_is_told_only_if_its_beginning_was() -> None:
    quiet = Scene(bare("web"))
    quiet.warns()
    quiet.passes()
    quiet.keeps_passing(60)
    assert quiet.incident().resolved_by is ResolvedBy.ITSELF
    assert quiet.said() == []

    told = Scene(bare("web"))
    told.warns()
    told.wait(10)
    told.passes()
    told.keeps_passing(60)
    assert told.said() == ["opened", "ended"]
    assert told.notices[-1].details == {"why": "stable"}


def test_the_end_is_told_with_the_finding_that_proved_it() -> None:
    scene = Scene()
    scene.fails()
    scene.ends()
    scene.passes(summary="answers again")
    scene.keeps_passing(60)
    told = scene.notices[-1].incident
    assert told is not None
    assert told.after is not None
    assert told.after.summary == "answers again"
    assert told.before.status is Status.CRITICAL


def test_the_same_repair_again_and_again_is_recurring() -> None:
    scene = Scene(check("web", step(attempts=9), stable_for=5.0), runs_per_hour=99)
    for _ in range(6):
        scene.fails()
        scene.heals()
        scene.keeps_passing(5)
        scene.wait(60)
    assert scene.said() == ["healed"] * 3 + ["recurring"] + ["healed"] * 3 + ["recurring"]
    details = [n.details for n in scene.notices if n.reason is Reason.RECURRING]
    assert details == [
        {"repairs_count": "3", "window_seconds": "86400"},
        {"repairs_count": "6", "window_seconds": "86400"},
    ]


def test_repairs_of_another_day_do_not_count_as_recurring() -> None:
    scene = Scene(check("web", step(attempts=9), stable_for=5.0), recurring_after=2)
    for _ in range(3):
        scene.fails()
        scene.heals()
        scene.keeps_passing(5)
        scene.wait(24 * 3600)
    assert scene.said() == ["healed"] * 3


def test_repairs_of_another_subject_do_not_count_as_recurring() -> None:
    scene = Scene(check("web", step(), stable_for=5.0), recurring_after=2)
    for subject in ("a", "b"):
        scene.fails(subject=subject)
        scene.ends()
        scene.passes(subject=subject)
        scene.wait(5)
        scene.passes(subject=subject)
    assert scene.said() == ["healed"] * 2


# Escalated


def test_without_a_remedy_a_human_is_called_after_the_group_wait() -> None:
    scene = Scene(bare("web"))
    scene.fails()
    assert scene.state() is State.ESCALATED
    assert scene.said() == []
    scene.wait(10)
    assert scene.said() == ["escalated"]
    assert scene.notices[0].details["why"] == "no remedy is configured for failed"
    assert scene.notices[0].details["hold"] == "no remedy"


def test_a_run_that_asks_for_a_human_is_told_at_once() -> None:
    scene = Scene()
    scene.fails()
    scene.ends(Outcome.NEEDS_HUMAN, detail="the disk is dying")
    assert scene.said() == ["escalated"]
    why = "restart-service ended needs_human: the disk is dying"
    assert scene.notices[0].details["why"] == why


def test_an_escalated_incident_speaks_again_until_somebody_knows_of_it() -> None:
    scene = Scene(bare("web"))
    scene.fails()
    scene.wait(10)
    scene.wait(24 * 3600 - 1)
    assert scene.said() == ["escalated"]
    scene.wait(1)
    assert scene.said() == ["escalated"] * 2
    scene.orders(Verb.ACKNOWLEDGE, scene.incident().id)
    assert scene.incident().acknowledged == "anna"
    scene.wait(3 * 24 * 3600)
    assert scene.said() == ["escalated"] * 2


# Approval


def test_a_question_is_put_after_the_group_wait_and_only_once() -> None:
    asking = step(risk=Risk.HIGH, fills={"unit": "subject"}, options={"validate": "nginx -t"})
    scene = Scene(check("web", asking))
    scene.fails()
    scene.wait(9.9)
    assert scene.said() == []
    scene.wait(0.1)
    assert scene.said() == ["approval"]
    assert scene.notices[0].details == {
        "remedy": "restart-service",
        "risk": "high",
        "digest": "d1",
        "options": "unit=web.service, validate=nginx -t",
        "hold": "approval",
        "hold_detail": "restart-service (high risk) needs approval",
    }
    scene.keeps_failing(1200)
    assert scene.said() == ["approval"]


def test_a_warning_that_was_told_and_asks_later_asks_once() -> None:
    scene = Scene(check("web", step(risk=Risk.HIGH)))
    scene.warns()
    scene.wait(60)
    scene.fails()
    scene.wait(600)
    assert scene.said() == ["opened", "approval"]


def test_another_playbook_is_asked_for_anew() -> None:
    scene = Scene(check("web", step(risk=Risk.HIGH)))
    scene.fails()
    scene.wait(10)
    scene.reconfigure(check("web", step(risk=Risk.HIGH, digest="d2")))
    assert [n.details["digest"] for n in scene.notices] == ["d1", "d2"]


def test_an_approval_that_nobody_gives_lapses_into_a_call_for_a_human() -> None:
    scene = Scene(check("web", step(risk=Risk.HIGH)))
    scene.fails()
    scene.keeps_failing(3600)
    assert scene.state() is State.OPEN
    scene.wait(10)
    assert scene.state() is State.ESCALATED
    assert scene.said() == ["approval", "escalated"]
    why = "nobody answered: restart-service (high risk) needs approval"
    assert scene.notices[-1].details["why"] == why
    scene.fails()
    scene.orders(Verb.APPROVE, scene.incident().id)
    assert scene.state() is State.REPAIRING


# Held


def test_a_held_critical_speaks_within_minutes_with_the_name_of_its_hold() -> None:
    scene = Scene(check("db", step(mode=Mode.SHADOW)), check("web", depends_on=("db",)))
    scene.fails("db")
    scene.fails("web")
    scene.wait(179)
    assert scene.said("web") == []
    scene.wait(1)
    assert scene.said("web") == ["held"]
    told = scene.notices[-1].details
    assert told["hold"] == "inhibited"
    assert told["hold_detail"].startswith("db fails and this depends on it")


def test_the_hold_it_was_opened_with_is_not_said_twice() -> None:
    scene = Scene(check("web", mode=Mode.SHADOW))
    scene.fails()
    scene.keeps_failing(1000)
    assert scene.said() == ["opened"]
    assert scene.notices[0].details["hold"] == "shadow"


def test_who_is_not_told_of_failures_is_told_of_the_hold() -> None:
    default = RoutePolicy(name="chat", reasons=tuple(r for r in Reason if r is not Reason.OPENED))
    scene = Scene(check("web", mode=Mode.SHADOW), routes=(EVERY_REASON, default))
    scene.fails()
    scene.keeps_failing(1000)
    assert [(n.reason, n.route) for n in scene.notices] == [
        (Reason.OPENED, EVERY_REASON.name),
        (Reason.HELD, default.name),
    ]


@pytest.mark.parametrize("reason", [Reason.OPENED, Reason.HELD, Reason.APPROVAL])
def test_whoever_hears_of_what_a_question_says_is_told_with_it(reason: Reason) -> None:
    routes = (RoutePolicy(name="ops", reasons=(reason,)),)
    scene = Scene(check("web", step(risk=Risk.HIGH)), routes=routes)
    scene.fails()
    scene.keeps_failing(600)
    assert scene.said() == ["approval"]


def test_who_is_told_of_failures_only_is_told_of_one_without_a_remedy() -> None:
    routes = (RoutePolicy(name="ops", reasons=(Reason.OPENED,)),)
    scene = Scene(bare("web"), routes=routes)
    scene.fails()
    scene.keeps_failing(2 * 24 * 3600, every=3600)
    assert scene.said() == ["escalated"]


def test_another_hold_is_told_too() -> None:
    scene = Scene(check("web", mode=Mode.SHADOW))
    scene.fails()
    scene.keeps_failing(200)
    scene.orders(Verb.PAUSE)
    assert scene.said() == ["opened", "held"]
    assert scene.notices[-1].details["hold"] == "paused"


def test_after_an_approval_another_hold_is_still_told() -> None:
    scene = Scene(check("web", step(risk=Risk.HIGH)))
    scene.fails()
    scene.wait(10)
    scene.orders(Verb.PAUSE)
    scene.keeps_failing(200)
    assert scene.said() == ["approval", "held"]
    assert scene.notices[-1].details["hold"] == "paused"


def test_after_an_escalation_a_hold_is_still_told() -> None:
    scene = Scene()
    scene.fails()
    scene.ends(Outcome.NEEDS_HUMAN)
    scene.passes()
    scene.orders(Verb.PAUSE)
    scene.fails()
    assert scene.state() is State.OPEN
    scene.keeps_failing(170)
    assert scene.said() == ["escalated"]
    scene.wait(20)
    assert scene.said() == ["escalated", "held"]


def test_an_unconfirmed_critical_does_not_count_as_held() -> None:
    scene = Scene(check(confirm=Confirm(times=2, of=3)))
    scene.warns()
    scene.fails()
    scene.wait(10)
    assert scene.said() == ["opened"]
    assert scene.incident().held_since is None
    scene.fails()
    assert scene.state() is State.REPAIRING
    scene.orders(Verb.PAUSE)
    scene.ends(Outcome.FAILED)
    scene.fails()
    assert scene.incident().held_since == scene.now
    scene.warns()
    assert scene.incident().held_since is None
    scene.wait(1000)
    assert scene.said() == ["opened"]


def test_an_operators_stop_upstream_explains_its_dependants() -> None:
    scene = Scene(check("db"), check("web", depends_on=("db",)))
    scene.passes("db", intended=True)
    scene.fails("web")
    scene.passes("db", intended=True)
    scene.wait(60)
    assert scene.said() == []
    scene.wait(120)
    assert scene.said() == ["held"]
    assert scene.notices[0].details["hold"] == "operator's intention"


# Silences


def test_nothing_is_said_while_it_is_silenced_and_what_is_open_afterwards_speaks() -> None:
    scene = Scene(bare("web"))
    mute(scene, 600)
    scene.fails()
    scene.wait(590)
    assert scene.said() == []
    scene.wait(10)
    assert scene.said() == ["escalated"]


def test_a_silence_that_an_operator_ends_speaks_at_once() -> None:
    scene = Scene(bare("web"))
    silence = mute(scene, 600, checks=("web",))
    scene.fails()
    scene.wait(20)
    scene.orders(Verb.END_SILENCE, silence)
    assert scene.said() == ["escalated"]


def test_a_silence_of_labels_mutes_only_those() -> None:
    scene = Scene(bare("web", labels={"team": "shop"}), bare("mail"))
    mute(scene, 600, labels={"team": "shop"})
    scene.fails("web")
    scene.fails("mail")
    scene.wait(60)
    assert scene.said("web") == []
    assert scene.said("mail") == ["escalated"]


def test_what_was_told_and_ends_in_silence_is_told_afterwards() -> None:
    scene = Scene(bare("web"))
    scene.warns()
    scene.wait(10)
    mute(scene, 300)
    scene.passes()
    scene.keeps_passing(60)
    assert scene.state() is State.RESOLVED
    assert scene.host.incidents != (), "kept until its end may be told"
    assert scene.said() == ["opened"]
    scene.wait(300)
    assert scene.said() == ["opened", "ended"]
    assert scene.host.incidents == ()


def test_what_was_never_told_and_ends_in_silence_stays_untold() -> None:
    scene = Scene()
    mute(scene, 300)
    scene.fails()
    scene.heals()
    scene.keeps_passing(60)
    assert scene.host.incidents == ()
    scene.wait(600)
    assert scene.said() == []


# Each route by itself: who is told of an end was told of a beginning


QUIET = RoutePolicy(name="quiet", reasons=tuple(r for r in Reason if r is not Reason.OPENED))


def told_on(scene: Scene, route: RoutePolicy) -> list[str]:
    return [str(notice.reason) for notice in scene.notices if notice.route == route.name]


def test_a_warning_that_lasts_is_told_to_those_who_do_not_hear_of_every_failure() -> None:
    scene = Scene(bare("web"), routes=(EVERY_REASON, QUIET))
    scene.warns()
    scene.wait(179)
    assert told_on(scene, QUIET) == []
    scene.wait(1)
    assert told_on(scene, QUIET) == ["held"]
    scene.wait(24 * 3600)
    scene.keeps_passing(100)
    assert told_on(scene, QUIET) == ["held", "ended"]
    assert told_on(scene, EVERY_REASON) == ["opened", "ended"]


def test_who_was_not_told_of_a_failure_is_not_told_of_its_end() -> None:
    scene = Scene(bare("web"), routes=(EVERY_REASON, QUIET))
    scene.warns()
    scene.wait(60)
    scene.keeps_passing(100)
    assert told_on(scene, QUIET) == []
    assert told_on(scene, EVERY_REASON) == ["opened", "ended"]


def test_what_cannot_be_judged_is_told_to_everybody_in_the_end() -> None:
    scene = Scene(bare("web"), routes=(QUIET,))
    scene.is_unclear()
    scene.wait(600)
    assert scene.state() is State.OPEN
    scene.wait(180)
    assert told_on(scene, QUIET) == ["held"]


def test_who_was_told_of_something_worse_is_not_told_of_a_warning() -> None:
    scene = Scene(check("web", mode=Mode.SHADOW), routes=(QUIET,))
    scene.fails()
    scene.wait(200)
    assert told_on(scene, QUIET) == ["held"]
    scene.warns()
    scene.wait(3600)
    assert told_on(scene, QUIET) == ["held"]


def test_a_question_is_a_beginning_for_those_who_hear_of_holds() -> None:
    holds = RoutePolicy(name="holds", reasons=(Reason.HELD, Reason.ENDED))
    scene = Scene(check("web", step(risk=Risk.HIGH)), routes=(holds,))
    scene.fails()
    scene.wait(60)
    scene.keeps_passing(100)
    assert told_on(scene, holds) == ["approval", "ended"]


def test_the_end_of_a_check_that_is_removed_reaches_those_who_were_told() -> None:
    mine = replace(EVERY_REASON, labels={"team": "shop"})
    scene = Scene(bare("web", labels={"team": "shop"}), bare("db"), routes=(mine,))
    scene.fails()
    scene.wait(10)
    scene.reconfigure(bare("db"))
    assert scene.said() == ["escalated", "ended"]


def test_a_silence_by_labels_covers_a_check_that_is_removed() -> None:
    scene = Scene(bare("web", labels={"team": "shop"}), bare("db"))
    scene.fails()
    scene.wait(10)
    mute(scene, 600, labels={"team": "shop"})
    scene.reconfigure(bare("db"))
    assert scene.said() == ["escalated"]
    scene.wait(600)
    assert scene.said() == ["escalated", "ended"]


# Routes


FINDING = Finding(subject="web", status=Status.CRITICAL)
INCIDENT = Incident(
    id="i1",
    check="web",
    subject="web",
    state=State.OPEN,
    finding=FINDING,
    looked=1.0,
    before=FINDING,
    began=1.0,
    opened=1.0,
    entered=1.0,
    seen=1.0,
    look_ended=1.0,
)
OK, WARNING, UNKNOWN = (
    replace(FINDING, status=status) for status in (Status.OK, Status.WARNING, Status.UNKNOWN)
)
LABELLED = Policy(checks={"web": check("web", labels={"team": "shop", "tier": "1"})})


@pytest.mark.parametrize(
    ("words", "route", "reason", "incident", "taken"),
    [
        ("its reason", {}, Reason.OPENED, INCIDENT, True),
        ("another reason", {"reasons": (Reason.HEALED,)}, Reason.OPENED, INCIDENT, False),
        ("the host's own", {"severity": Status.CRITICAL, "labels": {"team": "x"}}, Reason.STORM,
         None, True),
        ("the host's own, not wanted", {"reasons": (Reason.HEALED,)}, Reason.STORM, None, False),
        ("severe enough", {"severity": Status.CRITICAL}, Reason.OPENED, INCIDENT, True),
        ("not severe enough", {"severity": Status.CRITICAL}, Reason.OPENED,
         replace(INCIDENT, finding=WARNING, before=WARNING), False),
        ("not to know is a warning", {"severity": Status.WARNING}, Reason.OPENED,
         replace(INCIDENT, finding=UNKNOWN, before=UNKNOWN), True),
        ("nothing was severe", {"severity": Status.WARNING}, Reason.ENDED,
         replace(INCIDENT, finding=OK, before=OK), False),
        ("it was severe at first", {"severity": Status.CRITICAL}, Reason.HEALED,
         replace(INCIDENT, finding=OK), True),
        ("it was told as severe", {"severity": Status.CRITICAL}, Reason.ENDED,
         replace(INCIDENT, finding=OK, before=WARNING, said=("opened:critical",)), True),
        ("it was told as less", {"severity": Status.CRITICAL}, Reason.ENDED,
         replace(INCIDENT, finding=OK, before=WARNING, said=("opened:warning",)), False),
        ("it was severe enough for a run", {"severity": Status.CRITICAL}, Reason.HEALED,
         replace(INCIDENT, finding=OK, before=WARNING, run="r2"), True),
        ("its label", {"labels": {"team": "shop"}}, Reason.OPENED, INCIDENT, True),
        ("one of two labels", {"labels": {"team": "shop", "tier": "2"}}, Reason.OPENED, INCIDENT,
         False),
        ("a label it lacks", {"labels": {"zone": "eu"}}, Reason.OPENED, INCIDENT, False),
        ("a check that is not configured", {"labels": {"team": "shop"}}, Reason.ENDED,
         replace(INCIDENT, check="removed"), False),
    ],
)  # fmt: skip
def test_a_route_takes(
    words: str, route: dict[str, Any], reason: Reason, incident: Incident | None, taken: bool
) -> None:
    of = RoutePolicy(**{"name": "ops", "reasons": tuple(Reason), **route})
    assert wants(of, reason, incident, LABELLED) is taken, words


def test_every_route_that_wants_it_gets_its_own_notice() -> None:
    quiet = RoutePolicy(name="quiet", reasons=(Reason.STORM,))
    pager = RoutePolicy(name="pager", reasons=(Reason.ESCALATED,))
    scene = Scene(bare("web"), routes=(EVERY_REASON, quiet, pager), notice_for=100.0)
    scene.fails()
    scene.wait(10)
    assert [n.route for n in scene.notices] == ["ops", "pager"]
    assert len({n.id for n in scene.notices}) == 2
    for notice in scene.notices:
        assert (notice.created, notice.due, notice.expires) == (
            scene.now,
            scene.now,
            scene.now + 100.0,
        )
        assert notice.incident is not None
        assert notice.order == scene.incident().id


def test_what_no_route_takes_is_settled_all_the_same() -> None:
    scene = Scene(bare("web"), routes=())
    scene.fails()
    scene.wait(10)
    assert scene.notices == []
    assert scene.incident().said == ("escalated", "opened:critical")
