"""Gates, one by one, and what they come to."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from agent.rehearsal.verdict import (
    Answer,
    Gate,
    Limits,
    Measured,
    Outcome,
    Pair,
    Verdict,
    judge,
)

OK = Answer(status=200, seconds=0.05)
LIMITS = Limits()


def pairs(
    count: int,
    *,
    slower: Callable[[str], float] = lambda _group: 1.0,
    seed: int = 1,
    groups: tuple[str, ...] = ("GET /a", "GET /b", "GET /c"),
) -> list[Pair]:
    chance = random.Random(seed)
    made = []
    for place in range(count):
        group = groups[place % len(groups)]
        shared = chance.lognormvariate(-3.0, 0.4)
        first, second = (shared * chance.lognormvariate(0, 0.2) for _ in range(2))
        made.append(
            Pair(
                group=group,
                target=f"{group}/{place}",
                baseline=Answer(status=200, seconds=first),
                candidate=Answer(status=200, seconds=second * slower(group)),
            )
        )
    return made


def quiet(count: int = 200, factor: float = 1.0) -> list[tuple[float, float]]:
    chance = random.Random(9)
    return [
        (0.05 * chance.lognormvariate(0, 0.2), 0.05 * factor * chance.lognormvariate(0, 0.2))
        for _ in range(count)
    ]


def reach(found: list[Pair], **more: object) -> Verdict:
    given = {"pairs": found, "noise": quiet(), "seconds": 60.0, **more}
    return judge(Measured(**given), LIMITS)  # type: ignore[arg-type]


def gate(verdict: Verdict, name: str) -> Gate:
    (found,) = [g for g in verdict.gates if g.name == name]
    return found


def broken(status: int | None = 500, retry: int | None = 500, base: int = 200) -> Pair:
    return Pair(
        group="GET /a",
        target="GET /a/broken",
        baseline=Answer(status=base, seconds=0.05),
        candidate=Answer(status=status, seconds=0.05, error="" if status else "refused"),
        retry=Answer(status=retry, seconds=0.05),
    )


def test_equal_sides_pass_and_the_first_line_says_it_all() -> None:
    verdict = reach(pairs(600))
    assert verdict.outcome is Outcome.PASS
    assert verdict.headline.startswith("PASS - 0 blocking, 0 warnings; 600 pairs, 60 s, noise ok")
    assert "smallest detectable slowdown" in verdict.headline


def test_a_slower_candidate_fails() -> None:
    verdict = reach(pairs(1000, slower=lambda _g: 1.2))
    assert verdict.outcome is Outcome.FAIL
    found = gate(verdict, "latency")
    assert found.outcome is Outcome.FAIL
    assert found.interval is not None
    assert found.interval.low < 1.2 < found.interval.high


def test_one_slow_endpoint_fails_although_the_median_of_all_does_not_move() -> None:
    groups = tuple(f"GET /{n}" for n in range(10))
    found = pairs(1000, slower=lambda g: 2.0 if g == "GET /3" else 1.0, groups=groups)
    verdict = reach(found)
    assert gate(verdict, "latency").outcome is Outcome.PASS
    slow = gate(verdict, "latency of endpoints")
    assert slow.outcome is Outcome.FAIL
    assert len(slow.cases) == 1
    assert slow.cases[0].startswith("GET /3: ")


def test_a_slow_tail_fails_although_the_median_does_not_move() -> None:
    found = pairs(2500)
    for place in range(0, 2500, 12):
        pair = found[place]
        found[place] = Pair(
            group=pair.group,
            target=pair.target,
            baseline=pair.baseline,
            candidate=Answer(status=200, seconds=1.0),
        )
    verdict = reach(found)
    assert gate(verdict, "latency").outcome is Outcome.PASS
    assert gate(verdict, "latency p95").outcome is Outcome.FAIL
    assert gate(verdict, "latency p99").outcome is Outcome.FAIL


def test_a_difference_that_nobody_feels_is_none() -> None:
    found = [
        Pair(
            group="g",
            target="t",
            baseline=Answer(status=200, seconds=p.baseline.seconds / 1000),
            candidate=Answer(status=200, seconds=p.candidate.seconds / 1000),
        )
        for p in pairs(1000, slower=lambda _g: 1.5)
    ]
    assert reach(found).outcome is Outcome.PASS


def test_unlike_hardware_is_judged_by_the_ratio_that_is_expected() -> None:
    found = Measured(pairs=pairs(1000, slower=lambda _g: 2.0), noise=quiet())
    assert judge(found, Limits(expected_ratio=2.0)).outcome is Outcome.PASS
    assert judge(found, Limits(expected_ratio=1.5)).outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("pair", "outcome"),
    [
        (broken(500, 500), Outcome.FAIL),
        (broken(404, 404), Outcome.FAIL),
        (broken(None, None), Outcome.FAIL),
        (broken(500, 200), Outcome.PASS),
        (broken(500, 500, base=500), Outcome.PASS),
        (broken(404, 404, base=404), Outcome.PASS),
        (broken(302, 302), Outcome.PASS),
    ],
)
def test_one_broken_page_is_enough_and_a_passing_failure_is_not(
    pair: Pair, outcome: Outcome
) -> None:
    verdict = reach([*pairs(600), pair])
    assert gate(verdict, "broken").outcome is outcome
    assert (verdict.outcome is Outcome.FAIL) == (outcome is Outcome.FAIL)


def test_a_page_that_the_baseline_itself_answers_now_and_then_is_not_blamed() -> None:
    shaky = broken()
    shaky = Pair(
        group=shaky.group,
        target=shaky.target,
        baseline=shaky.baseline,
        candidate=shaky.candidate,
        retry=shaky.retry,
        again=Answer(status=503, seconds=0.1),
    )
    assert gate(reach([*pairs(600), shaky]), "broken").outcome is Outcome.PASS


def test_more_errors_than_chance_fail_though_each_passes_on_retry() -> None:
    found = [*pairs(600), *(broken(500, 200) for _ in range(20))]
    assert gate(reach(found), "errors").outcome is Outcome.FAIL
    few = [*pairs(600), *(broken(500, 200) for _ in range(2))]
    assert gate(reach(few), "errors").outcome is Outcome.PASS


def test_a_candidate_that_leads_to_production_fails() -> None:
    away = Pair(
        group="g",
        target="GET /login",
        baseline=Answer(status=302, seconds=0.1),
        candidate=Answer(status=302, seconds=0.1, elsewhere="https://shop.example/login"),
    )
    verdict = reach([*pairs(600), away])
    assert gate(verdict, "redirects").cases == ("GET /login leads to https://shop.example/login",)
    assert verdict.outcome is Outcome.FAIL


@pytest.mark.parametrize("factor", [1.3, 1 / 1.3])
def test_a_baseline_unlike_itself_leaves_latency_open(factor: float) -> None:
    verdict = reach(pairs(1000, slower=lambda _g: 1.5), noise=quiet(500, factor))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert gate(verdict, "latency").outcome is Outcome.INCONCLUSIVE
    assert "noise too large" in verdict.headline


def test_a_generator_that_lags_leaves_latency_open_but_no_broken_page() -> None:
    slow = pairs(1000, slower=lambda _g: 1.5)
    assert reach(slow, lateness=0.2).outcome is Outcome.INCONCLUSIVE
    assert reach([*slow, broken()], lateness=0.2).outcome is Outcome.FAIL


def test_no_traffic_is_never_a_pass() -> None:
    assert reach([]).outcome is Outcome.INCONCLUSIVE
    assert reach(pairs(100)).outcome is Outcome.INCONCLUSIVE


def test_what_was_ended_for_safety_fails_and_says_why() -> None:
    verdict = reach(pairs(600), aborted="the baseline became slow")
    assert verdict.outcome is Outcome.FAIL
    assert verdict.gates[0].summary == "Ended: the baseline became slow."


def test_others_count_by_whether_they_block() -> None:
    warning = Gate(name="size", outcome=Outcome.FAIL, summary="", blocking=False)
    assert reach(pairs(600), others=[warning]).outcome is Outcome.PASS
    drill = Gate(name="drill kill-service", outcome=Outcome.FAIL, summary="")
    assert reach(pairs(600), others=[drill]).outcome is Outcome.FAIL


def test_the_verdict_is_the_same_each_time() -> None:
    assert reach(pairs(800)) == reach(pairs(800))


def test_equal_sides_pass_and_a_fifth_slower_is_found_whatever_the_chance() -> None:
    """A few times; bench/verdict.py does it often, with real servers."""
    for seed in range(100, 104):
        assert reach(pairs(1000, seed=seed)).outcome is Outcome.PASS
        slower = pairs(1000, seed=seed, slower=lambda _g: 1.2)
        assert reach(slower).outcome is Outcome.FAIL
