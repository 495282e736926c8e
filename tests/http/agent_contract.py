"""What every agent behind the API keeps to: a class of tests for whatever implements the facade.

A test module makes a subclass and a fixture `scene`, in which an agent has been through something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.agent import ActionOutcome, AgentFacade, RehearsalReport, Report, Role
from agent.core.model import ResolvedBy, RunState, Status
from agent.errors import Conflict, Invalid, NotFound

BY = "tester (uid 0, pid 1)"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An agent with a check that fails, an incident of it that has not ended, one that has, a run
    that has ended, and a remedy that can be run now."""

    agent: AgentFacade
    check: str
    live: str
    ended: str
    run: str
    remedy: str
    options: Mapping[str, Any] = field(default_factory=dict)


class AgentContract:
    async def test_status_shows_the_incidents_that_have_not_ended(self, scene: Scene) -> None:
        status = scene.agent.status()
        shown = {incident.id for incident in status.incidents}
        assert scene.live in shown
        assert scene.ended not in shown
        assert set(status.holds) <= shown
        assert sum(status.checks_count.values()) == len(scene.agent.checks())
        assert status.worst == "critical"
        assert status.started <= status.now

    async def test_a_report_tells_of_the_incident_and_shows_no_secret(self, scene: Scene) -> None:
        for incident_id in (scene.live, scene.ended):
            report = await scene.agent.report(incident_id)
            story = await scene.agent.incident(incident_id)
            assert report.incident.id == incident_id
            assert [repair.run.id for repair in report.repairs] == [run.id for run in story.runs]
            assert report.downtime == pytest.approx(story.downtime, abs=1.0)
            assert report.timeline[0].at == report.incident.began

    async def test_a_digest_tells_of_what_ended_and_of_what_has_not(self, scene: Scene) -> None:
        digest = await scene.agent.digest(seconds=3600.0)
        assert digest.incidents_count == 2
        assert digest.checks_count == len(scene.agent.checks())
        assert digest.until - digest.since == pytest.approx(3600.0, abs=5.0)

    async def test_what_does_not_exist_is_not_found(self, scene: Scene) -> None:
        agent = scene.agent
        for ask in (lambda: agent.check("nothing"), lambda: agent.remedy("nothing")):
            with pytest.raises(NotFound, match="nothing"):
                ask()
        for asked in (
            agent.look("nothing"),
            agent.tell("nothing", Report(status=Status.OK), by=BY),
            agent.incident("i999999"),
            agent.explain("i999999"),
            agent.report("i999999"),
            agent.acknowledge("i999999", by=BY),
            agent.approve("i999999", by=BY),
            agent.reject("i999999", by=BY),
            agent.retry("i999999", by=BY),
            agent.close("i999999", by=BY),
            agent.run("r999999"),
            agent.run_events("r999999"),
            agent.cancel_run("r999999", by=BY),
            agent.run_remedy("nothing", {}, preview=False, by=BY),
            agent.audit("a999999"),
            agent.start_audit("nothing", by=BY),
            agent.drill("d999999"),
            agent.rehearsal("h999999"),
            agent.end_drill("d999999", by=BY),
            agent.start_drill("nothing", {}, seconds=60, by=BY),
            agent.silence("s999999"),
            agent.end_silence("s999999", by=BY),
            agent.token("t999999"),
            agent.revoke_token("t999999", by=BY),
        ):
            with pytest.raises(NotFound):
                await asked

    async def test_a_fault_takes_no_option_that_it_does_not_have(self, scene: Scene) -> None:
        for options in ({"unit": "x.service", "nothing": 1}, {"unit": "x.service", "keep": "/x"}):
            with pytest.raises(Invalid):
                await scene.agent.start_drill("kill-service", options, seconds=60, by=BY)

    async def test_a_rehearsal_that_is_kept_is_listed_first(self, scene: Scene) -> None:
        told = RehearsalReport(
            verdict="fail",
            headline="FAIL - 1 blocking",
            candidate="https://staging.example",
            baseline="https://shop.example",
            took=12.5,
            report={"gates": [{"name": "broken"}]},
        )
        kept = [await scene.agent.keep_rehearsal(told, by=BY) for _ in range(2)]
        page = await scene.agent.rehearsals(limit=1)
        assert page.items == (kept[1],)
        assert (await scene.agent.rehearsals(limit=1, before=page.next)).items == (kept[0],)
        assert await scene.agent.rehearsal(kept[0].id) == kept[0]
        assert (kept[0].told, kept[0].by) == (told, BY)

    async def test_a_check_that_looks_by_itself_is_not_reported_on(self, scene: Scene) -> None:
        with pytest.raises(Conflict, match="it looks by itself"):
            await scene.agent.tell(scene.check, Report(status=Status.OK), by=BY)

    async def test_parts_of_a_list_give_all_of_it_once(self, scene: Scene) -> None:
        whole = await scene.agent.incidents(limit=500)
        assert whole.next is None
        assert {scene.live, scene.ended} <= {incident.id for incident in whole.items}
        seen: list[str] = []
        before: str | None = None
        while True:
            part = await scene.agent.incidents(limit=1, before=before)
            assert len(part.items) <= 1
            seen += [incident.id for incident in part.items]
            before = part.next
            if before is None:
                break
        assert seen == [incident.id for incident in whole.items]

    async def test_lists_are_newest_first(self, scene: Scene) -> None:
        incidents = (await scene.agent.incidents()).items
        assert [i.seen for i in incidents] == sorted((i.seen for i in incidents), reverse=True)
        runs = (await scene.agent.runs()).items
        assert [r.planned for r in runs] == sorted((r.planned for r in runs), reverse=True)

    async def test_incidents_are_chosen_by_life_and_check(self, scene: Scene) -> None:
        live = (await scene.agent.incidents(live=True)).items
        ended = (await scene.agent.incidents(live=False)).items
        assert scene.live in [incident.id for incident in live]
        assert not any(incident.state.ended for incident in live)
        assert scene.ended in [incident.id for incident in ended]
        assert all(incident.state.ended for incident in ended)
        assert not (await scene.agent.incidents(check="nothing")).items

    async def test_a_story_is_in_order(self, scene: Scene) -> None:
        story = await scene.agent.incident(scene.ended)
        times = [transition.at for transition in story.transitions]
        assert times == sorted(times)
        assert story.transitions[0].old is None
        assert story.transitions[-1].new is story.incident.state
        assert story.downtime >= 0

    async def test_a_look_answers_with_what_it_saw(self, scene: Scene) -> None:
        looked = await scene.agent.look(scene.check)
        assert looked.name == scene.check
        assert looked.looked is not None
        assert scene.agent.check(scene.check).looked == looked.looked

    async def test_a_pause_holds_until_somebody_resumes(self, scene: Scene) -> None:
        await scene.agent.pause(by=BY, why="a test")
        paused = scene.agent.status().paused
        assert paused is not None
        assert (paused.by, paused.until, paused.why) == (BY, None, "a test")
        await scene.agent.resume(by=BY)
        assert scene.agent.status().paused is None

    async def test_a_host_without_a_doubt_has_nothing_to_confirm(self, scene: Scene) -> None:
        with pytest.raises(Conflict, match="nothing is in doubt"):
            await scene.agent.confirm_host(by=BY)

    async def test_a_pause_can_end_by_itself(self, scene: Scene) -> None:
        await scene.agent.pause(by=BY, seconds=60)
        paused = scene.agent.status().paused
        assert paused is not None
        assert paused.until == pytest.approx(paused.since + 60, abs=5)

    async def test_who_acknowledged_is_known(self, scene: Scene) -> None:
        assert (await scene.agent.acknowledge(scene.live, by=BY)).acknowledged == BY
        assert (await scene.agent.incident(scene.live)).incident.acknowledged == BY

    async def test_what_an_operator_closes_is_over(self, scene: Scene) -> None:
        closed = await scene.agent.close(scene.live, by=BY)
        assert closed.state.ended
        assert closed.resolved_by is ResolvedBy.OPERATOR

    async def test_nothing_can_be_ordered_for_what_has_ended(self, scene: Scene) -> None:
        for order in (
            scene.agent.acknowledge(scene.ended, by=BY),
            scene.agent.approve(scene.ended, by=BY),
            scene.agent.reject(scene.ended, by=BY),
            scene.agent.retry(scene.ended, by=BY),
            scene.agent.close(scene.ended, by=BY),
        ):
            with pytest.raises((Conflict, NotFound)):
                await order
        with pytest.raises(Conflict):
            await scene.agent.cancel_run(scene.run, by=BY)

    async def test_a_run_by_hand_says_who_asked(self, scene: Scene) -> None:
        run = await scene.agent.run_remedy(scene.remedy, scene.options, preview=True, by=BY)
        assert (run.remedy, run.by, run.preview) == (scene.remedy, BY, True)
        assert (await scene.agent.run(run.id)).id == run.id

    async def test_an_option_that_is_not_known_is_refused(self, scene: Scene) -> None:
        options = {**scene.options, "no_such_option": "1"}
        with pytest.raises(Invalid, match="no_such_option"):
            await scene.agent.run_remedy(scene.remedy, options, preview=True, by=BY)

    async def test_events_of_a_run_are_numbered_from_one(self, scene: Scene) -> None:
        assert (await scene.agent.run(scene.run)).state is RunState.ENDED
        events = await scene.agent.run_events(scene.run)
        assert [event["number"] for event in events] == list(range(1, len(events) + 1))
        assert await scene.agent.run_events(scene.run, after=1) == events[1:]

    async def test_remedies_are_found_by_their_names(self, scene: Scene) -> None:
        assert scene.remedy in [remedy.name for remedy in scene.agent.remedies()]
        assert scene.agent.remedy(scene.remedy).name == scene.remedy

    async def test_events_wait_for_what_comes_and_end_when_left(self, scene: Scene) -> None:
        stream = scene.agent.events()
        waiting = asyncio.ensure_future(anext(stream))
        # What the agent was at is told first.
        while await asyncio.wait({waiting}, timeout=0.05) != (set(), {waiting}):
            waiting = asyncio.ensure_future(anext(stream))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    async def test_a_silence_stays_until_it_is_ended(self, scene: Scene) -> None:
        agent = scene.agent
        first = await agent.add_silence(by=BY, seconds=60, checks=[scene.check], comment="a test")
        second = await agent.add_silence(by=BY, seconds=60, checks=["*"], runs=True)
        assert (first.by, first.checks, first.comment, first.runs) == (
            BY,
            (scene.check,),
            "a test",
            False,
        )
        assert first.ends == pytest.approx(first.starts + 60)
        assert second.runs
        assert await agent.silence(first.id) == first
        assert (await agent.silences()).items == (second, first)
        part = await agent.silences(limit=1)
        assert part.items == (second,)
        assert (await agent.silences(limit=1, before=part.next)).items == (first,)
        assert agent.status().silences == (first, second)
        assert await agent.end_silence(first.id, by=BY) == first
        assert (await agent.silences()).items == (second,)

    @pytest.mark.parametrize(
        ("what", "said"),
        [
            ({}, "name checks or labels"),
            ({"subjects": ["x"]}, "name the checks"),
            ({"checks": ["no-such-check"]}, "no-such-check"),
            ({"labels": {"no-such-label": "1"}}, "no check carries these labels"),
        ],
        ids=str,
    )
    async def test_a_silence_that_would_match_nothing_is_refused(
        self, scene: Scene, what: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(Invalid, match=said):
            await scene.agent.add_silence(by=BY, seconds=60, **what)
        assert scene.agent.status().silences == ()

    async def test_a_token_lets_in_until_it_is_revoked(self, scene: Scene) -> None:
        agent = scene.agent
        new = await agent.create_token("ci", role=Role.VIEWER, by=BY)
        assert new.secret.startswith("hm_")
        assert (new.token.name, new.token.role, new.token.created_by) == ("ci", Role.VIEWER, BY)
        assert (new.token.expires, new.token.used, new.token.revoked) == (None, None, None)
        found = await agent.authenticate(new.secret)
        assert found is not None
        assert found.id == new.token.id
        assert found.used is not None
        assert agent.admits(new.token.id)
        for wrong in ("", "hm_", new.secret + "x", new.secret[:-1], new.token.id, "\udcff"):
            assert await agent.authenticate(wrong) is None
        revoked = await agent.revoke_token(new.token.id, by=BY)
        assert revoked.revoked is not None
        assert revoked.revoked_by == BY
        assert await agent.authenticate(new.secret) is None
        assert not agent.admits(new.token.id)
        # As everything that was deleted; only the list has it still.
        for asked in (agent.token(new.token.id), agent.revoke_token(new.token.id, by=BY)):
            with pytest.raises(NotFound, match="revoked"):
                await asked
        assert (await agent.tokens()).items[0] == revoked

    async def test_a_token_that_expired_lets_nobody_in(self, scene: Scene) -> None:
        old = await scene.agent.create_token("old", role=Role.ADMIN, by=BY, seconds=-1)
        assert await scene.agent.authenticate(old.secret) is None
        assert not scene.agent.admits(old.token.id)

    @pytest.mark.parametrize("name", ["", "root (uid 0)"])
    async def test_a_token_cannot_be_named_like_somebody_else(
        self, scene: Scene, name: str
    ) -> None:
        with pytest.raises(Invalid):
            await scene.agent.create_token(name, role=Role.VIEWER, by=BY)

    async def test_the_trail_has_what_was_ordered_and_what_became_of_it(self, scene: Scene) -> None:
        agent = scene.agent
        first = await agent.begin_action(by=BY, what="pause")
        second = await agent.begin_action(by=BY, what="close", target="i1")
        assert (await agent.actions()).items == (second, first)
        await agent.end_action(first, ActionOutcome.OK, made="x1", details="{}")
        await agent.end_action(second, ActionOutcome.REFUSED, why="it is resolved already")
        newest, oldest = (await agent.actions()).items
        assert (oldest.by, oldest.what, oldest.outcome, oldest.made) == (BY, "pause", "ok", "x1")
        assert (newest.target, newest.outcome, newest.why) == (
            "i1",
            "refused",
            "it is resolved already",
        )
        part = await agent.actions(limit=1)
        assert (await agent.actions(limit=1, before=part.next)).items == (oldest,)
