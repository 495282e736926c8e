"""Both sides are asked when it is due, in turn, and never to their harm. Time is virtual here."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest
from virtual_time import Time, live

from agent.rehearsal.replay import Ask, Caution, replay
from agent.rehearsal.traffic import Asked, Schedule
from agent.rehearsal.verdict import Answer, Measured

CALM = Caution(noise_every=0)


def asked(count: int) -> list[Asked]:
    return [
        Asked(
            at=float(n), method="GET", target=f"/page/{n % 7}?token=s3cret", status=200, client="c"
        )
        for n in range(count)
    ]


def evenly(count: int, rate: float = 20.0) -> Schedule:
    return Schedule(due=tuple(n / rate for n in range(count)), rate=rate, spacing="even")


class Server:
    """A side that takes its time, and notes when it was asked."""

    def __init__(self, seconds: float = 0.01) -> None:
        self.seconds = seconds
        self.begun: list[float] = []
        self.stall: tuple[float, float] = (0.0, 0.0)
        self.fails: set[int] = set()
        self.status = 500
        self.at_once = self.most = 0

    async def __call__(self, _asked: Asked) -> Answer:
        loop = asyncio.get_running_loop()
        number = len(self.begun)
        self.begun.append(loop.time())
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        begin, end = self.stall
        if begin <= loop.time() < end:
            await asyncio.sleep(end - loop.time())
        await asyncio.sleep(self.seconds)
        self.at_once -= 1
        return Answer(status=self.status if number in self.fails else 200, seconds=-1.0)


def play(
    count: int, baseline: Ask, candidate: Ask, caution: Caution = CALM, rate: float = 20.0
) -> Measured:
    found: list[Measured] = []

    async def story() -> None:
        found.append(
            await replay(
                asked(count),
                evenly(count, rate),
                baseline=baseline,
                candidate=candidate,
                caution=caution,
                seed=3,
            )
        )

    live(Time(now=1000.0), story())
    return found[0]


def test_each_request_is_asked_of_both_sides_at_its_time() -> None:
    baseline, candidate = Server(), Server()
    measured = play(40, baseline, candidate)
    assert len(measured.pairs) == len(baseline.begun) == len(candidate.begun) == 40
    for place, (one, other) in enumerate(zip(baseline.begun, candidate.begun, strict=True)):
        due = 1000.0 + place / 20.0
        assert sorted((one, other)) == pytest.approx([due, due + 0.025])
    first = sum(b < c for b, c in zip(baseline.begun, candidate.begun, strict=True))
    assert 10 < first < 30
    assert measured.lateness == pytest.approx(0.0, abs=1e-9)
    assert [p.candidate.seconds for p in measured.pairs] == pytest.approx([0.01] * 40)


def test_a_stall_is_counted_for_all_who_would_have_waited() -> None:
    candidate = Server()
    candidate.stall = (1001.0, 1002.5)
    measured = play(80, Server(), candidate)
    waited = [p.candidate.seconds for p in measured.pairs if p.candidate.seconds > 0.1]
    # 1.5 s at 20 requests a second, each from its own due time.
    assert len(waited) == pytest.approx(28, abs=2)
    assert max(waited) == pytest.approx(1.5, abs=0.06)
    assert max(p.baseline.seconds for p in measured.pairs) < 0.02


def test_no_more_than_allowed_are_under_way_and_waiting_counts() -> None:
    candidate = Server(seconds=1.0)
    measured = play(60, Server(), candidate, replace(CALM, in_flight=4))
    assert candidate.most <= 4
    assert measured.pairs[-1].candidate.seconds > 5.0


def test_the_baseline_is_asked_again_in_a_part_for_its_own_noise() -> None:
    baseline, candidate = Server(), Server()
    measured = play(40, baseline, candidate, Caution(noise_every=4))
    assert len(baseline.begun) == 50
    assert len(candidate.begun) == 40
    assert len(measured.noise) == sum(p.again is not None for p in measured.pairs) == 10


def test_a_failure_is_tried_again_and_a_passing_one_is_told_apart() -> None:
    candidate = Server()
    candidate.fails = {5}
    measured = play(20, Server(), candidate)
    (pair,) = [p for p in measured.pairs if p.candidate.failed]
    assert pair.retry is not None
    assert pair.retry.status == 200
    assert len(candidate.begun) == 21


def test_what_fails_on_the_baseline_too_is_not_tried_again() -> None:
    baseline, candidate = Server(), Server()
    for side in (baseline, candidate):
        side.fails, side.status = set(range(20)), 404
    assert all(p.retry is None for p in play(20, baseline, candidate).pairs)


def test_a_candidate_that_fails_too_often_is_left_alone() -> None:
    candidate = Server()
    candidate.fails = set(range(100, 5000))
    measured = play(2000, Server(), candidate)
    assert "requests failed on the candidate" in measured.aborted
    assert 100 < len(measured.pairs) < 250


def test_a_few_failures_end_nothing() -> None:
    candidate = Server()
    candidate.fails = set(range(0, 400, 10))
    assert play(400, Server(), candidate).aborted == ""


def test_a_baseline_that_becomes_slow_is_left_alone() -> None:
    baseline = Server()

    async def slow_later(one: Asked) -> Answer:
        if len(baseline.begun) > 300:
            baseline.seconds = 0.2
        return await baseline(one)

    measured = play(2000, slow_later, Server())
    assert measured.aborted.startswith("the baseline became slow")
    assert len(measured.pairs) < 500


def test_secrets_of_a_query_do_not_get_into_the_result() -> None:
    measured = play(5, Server(), Server())
    assert all("s3cret" not in p.target for p in measured.pairs)
    assert measured.pairs[0].target == "GET /page/0?token=***"


def test_progress_is_told_and_the_order_is_that_of_the_log() -> None:
    chance = random.Random(1)

    async def any_time(_one: Asked) -> Answer:
        await asyncio.sleep(chance.random())
        return Answer(status=200, seconds=0.0)

    told: list[tuple[int, int]] = []
    found: list[Measured] = []

    async def story() -> None:
        found.append(
            await replay(
                asked(30),
                evenly(30),
                baseline=any_time,
                candidate=any_time,
                caution=CALM,
                seed=1,
                progress=lambda done, of: told.append((done, of)),
            )
        )

    live(Time(), story())
    assert told == [(n, 30) for n in range(1, 31)]
    assert [p.target for p in found[0].pairs] == [f"GET /page/{n % 7}?token=***" for n in range(30)]


def test_nothing_is_nothing() -> None:
    measured = play(0, Server(), Server())
    assert measured.pairs == ()
    assert measured.lateness == 0.0
