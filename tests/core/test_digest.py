"""A digest is told to those who take one, once, and what it is told of begins anew."""

from __future__ import annotations

from core_scene import Scene

from agent.core.model import Digested, Reason, RoutePolicy

BOSS = RoutePolicy(name="boss", reasons=(Reason.DIGEST, Reason.ESCALATED))
TEAM = RoutePolicy(name="team", reasons=(Reason.DIGEST,))
PHONE = RoutePolicy(name="phone", reasons=(Reason.ESCALATED,))


def test_a_digest_goes_to_every_route_that_takes_one_and_to_no_other() -> None:
    scene = Scene(routes=(BOSS, PHONE, TEAM))
    scene.send(Digested(until=scene.now, headline="no problems", text="7 d on web1: no problems."))
    assert [(notice.route, notice.reason) for notice in scene.notices] == [
        ("boss", Reason.DIGEST),
        ("team", Reason.DIGEST),
    ]
    assert len({notice.id for notice in scene.notices}) == 2
    assert {notice.details["headline"] for notice in scene.notices} == {"no problems"}
    assert scene.host.digested == scene.now


def test_without_a_text_nothing_is_told_and_it_is_counted_from_then_on() -> None:
    scene = Scene(routes=(BOSS,))
    assert scene.host.digested is None
    scene.send(Digested(until=scene.now, headline=""))
    assert scene.notices == []
    assert scene.host.digested == scene.now


def test_where_nobody_takes_one_it_counts_as_told() -> None:
    scene = Scene(routes=(PHONE,))
    scene.send(Digested(until=scene.now, headline="no problems", text="no problems"))
    assert scene.notices == []
    assert scene.host.digested == scene.now
