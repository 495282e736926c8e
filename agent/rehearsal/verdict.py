"""From what was measured to PASS, FAIL or INCONCLUSIVE, by gates that each have a name. Pure.

Deterministic rules come before statistics, noise before both: what a baseline does to itself cannot
be blamed on a candidate. No traffic is never a pass.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from agent.core.model import Seconds
from agent.rehearsal.statistics import (
    Interval,
    fisher,
    holm,
    median_ratio,
    quantile,
    quantile_ratio,
    rank_sum,
    smallest_detectable,
)


class Outcome(StrEnum):
    """Of a gate, and of the whole."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one side answered to one request."""

    #: None: there was no answer; `error` says why.
    status: int | None
    #: From when the request was due to the end of the body.
    seconds: Seconds
    error: str = ""
    #: The digest of the body without what changes from answer to answer, where it was taken.
    digest: str = ""
    bytes: int = 0
    #: Where a redirect leads, when it leaves the site; it is never followed.
    elsewhere: str = ""

    @property
    def failed(self) -> bool:
        """Whether the server failed: no answer, or 5xx."""
        return self.status is None or self.status >= 500


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One request asked of both sides in turn, the baseline twice in a part of them."""

    group: str
    target: str
    baseline: Answer
    candidate: Answer
    #: The baseline asked again, for what it differs from itself.
    again: Answer | None = None
    #: The candidate asked once more after it failed.
    retry: Answer | None = None
    #: When it was due, in seconds from the beginning.
    at: Seconds = 0.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where the gates stand. Shares are of 1: 0.1 is 10 %."""

    #: The candidate may be so much slower in the median. Below what matters, or power is lost.
    slower: float = 0.10
    #: And so much in the tails.
    slower_p95: float = 0.25
    slower_p99: float = 0.50
    #: Unlike hardware: the candidate is expected to take so many times the baseline's time.
    expected_ratio: float = 1.0
    alpha: float = 0.01
    #: Fewer pairs conclude nothing on latency; tails need more.
    least_pairs: int = 300
    least_p95: int = 500
    least_p99: int = 2000
    #: Differences below this are no difference to a user, whatever their significance.
    least_seconds: Seconds = 0.001
    #: The generator's own lateness, p99: above it, what was measured is not the servers.
    lateness: Seconds = 0.05


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One question and its answer."""

    name: str
    outcome: Outcome
    #: One sentence for people.
    summary: str
    #: A gate that only warns does not decide.
    blocking: bool = True
    observed: float | None = None
    limit: float | None = None
    interval: Interval | None = None
    #: How many it is made of.
    count: int = 0
    #: Single cases, the worst first.
    cases: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a rehearsal comes to."""

    outcome: Outcome
    gates: tuple[Gate, ...]
    pairs: int
    seconds: Seconds
    noise: str
    #: As a share; None where there are too few pairs to say.
    detectable: float | None

    @property
    def headline(self) -> str:
        """The line that says it all."""
        blocking = sum(1 for g in self.gates if g.blocking and g.outcome is Outcome.FAIL)
        warnings = sum(1 for g in self.gates if not g.blocking and g.outcome is Outcome.FAIL)
        open_ = sum(1 for g in self.gates if g.outcome is Outcome.INCONCLUSIVE)
        said = [f"{blocking} blocking", count_of(warnings, "warning")]
        if open_:
            said.append(f"{open_} inconclusive")
        measured = f"{self.pairs:,} pairs, {_tell_time(self.seconds)}, noise {self.noise}"
        if self.detectable is not None and math.isfinite(self.detectable):
            measured += f", smallest detectable slowdown {100 * self.detectable:.0f} %"
        return f"{self.outcome.value.upper()} - {', '.join(said)}; {measured}"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Everything that the gates of traffic are asked about."""

    pairs: Sequence[Pair]
    #: The baseline beside itself: each request asked of it twice in turn.
    noise: Sequence[tuple[float, float]] = ()
    seconds: Seconds = 0.0
    #: How late requests were sent, p99.
    lateness: Seconds = 0.0
    #: Why it was ended early; empty when it was not.
    aborted: str = ""
    #: Gates that others judged: audits, drills.
    others: Sequence[Gate] = field(default_factory=tuple)


#: Single cases that a gate names.
_CASES = 20


def judge(measured: Measured, limits: Limits, *, seed: int = 1) -> Verdict:
    """The verdict on one rehearsal."""
    pairs = measured.pairs
    gates = [
        _judge_generator(measured, limits),
        _judge_broken(pairs),
        _judge_errors(pairs, limits),
        _judge_elsewhere(pairs),
        _judge_noise(measured, limits),
        *_judge_latency(pairs, limits, seed),
        *measured.others,
    ]
    if measured.aborted:
        gates.insert(
            0, Gate(name="aborted", outcome=Outcome.FAIL, summary=f"Ended: {measured.aborted}.")
        )
    noisy = any(g.name == "noise" and g.outcome is Outcome.INCONCLUSIVE for g in gates)
    late = any(g.name == "generator" and g.outcome is Outcome.INCONCLUSIVE for g in gates)
    if noisy or late:
        # What was timed is not the candidate's doing; what it answered still is.
        gates = [_withdraw(g) if g.name.startswith("latency") else g for g in gates]
    return Verdict(
        outcome=_conclude(gates),
        gates=tuple(gates),
        pairs=len(pairs),
        seconds=measured.seconds,
        noise="too large" if noisy else "ok" if measured.noise else "not measured",
        detectable=_find_detectable(pairs, limits),
    )


def _conclude(gates: Sequence[Gate]) -> Outcome:
    blocking = [gate.outcome for gate in gates if gate.blocking]
    for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE):
        if outcome in blocking:
            return outcome
    return Outcome.PASS


def _withdraw(gate: Gate) -> Gate:
    return Gate(
        name=gate.name,
        outcome=Outcome.INCONCLUSIVE,
        summary=f"{gate.summary} It counts for nothing, since the measurement itself is in doubt.",
        observed=gate.observed,
        limit=gate.limit,
        interval=gate.interval,
        count=gate.count,
    )


def _judge_generator(measured: Measured, limits: Limits) -> Gate:
    if not measured.pairs:
        return Gate(
            name="generator",
            outcome=Outcome.INCONCLUSIVE,
            summary="No request was asked of both sides: nothing was tried.",
        )
    late = measured.lateness > limits.lateness
    how = f"99 of 100 requests were sent at most {1000 * measured.lateness:.0f} ms late"
    return Gate(
        name="generator",
        outcome=Outcome.INCONCLUSIVE if late else Outcome.PASS,
        summary=f"{how}{': this machine could not keep up' if late else ''}.",
        observed=measured.lateness,
        limit=limits.lateness,
        count=len(measured.pairs),
    )


def _is_broken(pair: Pair) -> bool:
    """Whole on the baseline, twice where it was asked twice, and failing on the candidate, also
    when it was asked once more."""
    whole = [a.status is not None and 200 <= a.status < 300 for a in _asked(pair)]
    bad = [
        a.status is None or a.status >= 400
        for a in (pair.candidate, *([pair.retry] if pair.retry else []))
    ]
    return all(whole) and all(bad)


def _asked(pair: Pair) -> list[Answer]:
    return [pair.baseline, *([pair.again] if pair.again else [])]


def _judge_broken(pairs: Sequence[Pair]) -> Gate:
    broken: dict[tuple[str, str], list[str]] = {}
    targets: set[str] = set()
    for pair in pairs:
        if _is_broken(pair):
            said = pair.candidate.status or pair.candidate.error or "no answer"
            what = f"{pair.baseline.status}, and {said} on the candidate"
            broken.setdefault((pair.group, what), []).append(pair.target)
            targets.add(pair.target)
    # One row for each kind of request: a page that is broken is broken for every query.
    cases = [
        f"{asked[0]}: {what}" + (f" ({len(asked)} requests of this kind)" if asked[1:] else "")
        for (_, what), asked in sorted(broken.items(), key=lambda item: -len(item[1]))
    ]
    return Gate(
        name="broken",
        outcome=Outcome.FAIL if broken else Outcome.PASS,
        summary=f"{count_of(len(targets), 'target')} answered by the baseline failed on the "
        "candidate, also on retry."
        if broken
        else "What the baseline answers, the candidate answers too.",
        observed=float(len(targets)),
        limit=0.0,
        count=len(pairs),
        cases=tuple(cases[:_CASES]),
    )


def _judge_errors(pairs: Sequence[Pair], limits: Limits) -> Gate:
    n = len(pairs)
    ours = sum(pair.candidate.failed for pair in pairs)
    theirs = sum(pair.baseline.failed for pair in pairs)
    p = fisher(ours, n, theirs, n)
    return Gate(
        name="errors",
        outcome=Outcome.FAIL if n and ours > theirs and p < limits.alpha else Outcome.PASS,
        summary=f"{ours} of {n} requests failed on the candidate, {theirs} on the baseline "
        f"(p = {p:.2g}).",
        observed=ours / n if n else 0.0,
        limit=theirs / n if n else 0.0,
        count=n,
    )


def _judge_elsewhere(pairs: Sequence[Pair]) -> Gate:
    """A staging host that redirects to production is a common mistake."""
    found = Counter(
        f"{pair.target} leads to {pair.candidate.elsewhere}"
        for pair in pairs
        if pair.candidate.elsewhere and not pair.baseline.elsewhere
    )
    return Gate(
        name="redirects",
        outcome=Outcome.FAIL if found else Outcome.PASS,
        summary=f"{count_of(len(found), 'target')} of the candidate led elsewhere."
        if found
        else "The candidate leads nobody elsewhere.",
        observed=float(len(found)),
        limit=0.0,
        count=len(pairs),
        cases=tuple(case for case, _ in found.most_common(_CASES)),
    )


def _judge_noise(measured: Measured, limits: Limits) -> Gate:
    if not measured.noise:
        return Gate(
            name="noise",
            outcome=Outcome.PASS,
            blocking=False,
            summary="The baseline was not held against itself.",
        )
    first = [a for a, _ in measured.noise]
    second = [b for _, b in measured.noise]
    ratio = median_ratio(first, second)
    noisy = ratio.low > 1 + limits.slower or ratio.high < 1 / (1 + limits.slower)
    return Gate(
        name="noise",
        outcome=Outcome.INCONCLUSIVE if noisy else Outcome.PASS,
        summary=f"The baseline beside itself: {_tell_ratio(ratio.estimate)}.",
        observed=ratio.estimate,
        limit=1 + limits.slower,
        interval=ratio,
        count=len(measured.noise),
    )


def _both_answered(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs whose times can be compared: both sides answered, and alike."""
    return [
        pair
        for pair in pairs
        if not pair.baseline.failed
        and not pair.candidate.failed
        and pair.baseline.status == pair.candidate.status
        and pair.baseline.seconds > 0
        and pair.candidate.seconds > 0
    ]


def _find_detectable(pairs: Sequence[Pair], limits: Limits) -> float | None:
    fit = _both_answered(pairs)
    if len(fit) < 2:
        return None
    return smallest_detectable(*_times(fit), alpha=limits.alpha)


def _times(pairs: Sequence[Pair]) -> tuple[list[float], list[float]]:
    return [p.baseline.seconds for p in pairs], [p.candidate.seconds for p in pairs]


def _judge_latency(pairs: Sequence[Pair], limits: Limits, seed: int) -> list[Gate]:
    fit = _both_answered(pairs)
    gates = [_judge_median(fit, limits)]
    for name, share, least, slower in (
        ("latency p95", 0.95, limits.least_p95, limits.slower_p95),
        ("latency p99", 0.99, limits.least_p99, limits.slower_p99),
    ):
        if len(fit) >= least:
            gates.append(_judge_tail(fit, name, share, slower, limits, seed))
    gates += _judge_groups(fit, limits)
    return gates


def _judge_median(pairs: Sequence[Pair], limits: Limits) -> Gate:
    n = len(pairs)
    if n < limits.least_pairs:
        return Gate(
            name="latency",
            outcome=Outcome.INCONCLUSIVE,
            summary=f"{n} pairs were answered alike; fewer than {limits.least_pairs} say nothing.",
            count=n,
        )
    slow, ratio, p, superiority = _compare(pairs, limits)
    return Gate(
        name="latency",
        outcome=Outcome.FAIL if slow else Outcome.PASS,
        summary=f"The candidate is {_tell_ratio(ratio.estimate)} in the median; it is the slower "
        f"one in {100 * superiority:.0f} of 100 (p = {p:.2g}).",
        observed=ratio.estimate,
        limit=limits.expected_ratio * (1 + limits.slower),
        interval=ratio,
        count=n,
    )


def _compare(pairs: Sequence[Pair], limits: Limits) -> tuple[bool, Interval, float, float]:
    """Whether the candidate is slower by more than is allowed, and by what."""
    first, second = _times(pairs)
    ratio = median_ratio(first, second, confidence=1 - 2 * limits.alpha)
    expected = limits.expected_ratio
    ranked = rank_sum([expected * each for each in first], second)
    seconds = quantile(second, 0.5) - expected * quantile(first, 0.5)
    slow = (
        ratio.estimate > expected * (1 + limits.slower)
        and ratio.low > expected
        and ranked.p < limits.alpha
        and seconds >= limits.least_seconds
    )
    return slow, ratio, ranked.p, ranked.superiority


def _judge_tail(
    pairs: Sequence[Pair], name: str, share: float, slower: float, limits: Limits, seed: int
) -> Gate:
    first, second = _times(pairs)
    ratio = quantile_ratio(first, second, share, seed=seed, confidence=1 - 2 * limits.alpha)
    expected = limits.expected_ratio
    seconds = quantile(second, share) - expected * quantile(first, share)
    slow = (
        ratio.estimate > expected * (1 + slower)
        and ratio.low > expected
        and seconds >= limits.least_seconds
    )
    return Gate(
        name=name,
        outcome=Outcome.FAIL if slow else Outcome.PASS,
        summary=f"{100 * share:.0f} of 100 were answered within "
        f"{1000 * quantile(second, share):.0f} ms, on the baseline within "
        f"{1000 * quantile(first, share):.0f} ms: {_tell_ratio(ratio.estimate)}.",
        observed=ratio.estimate,
        limit=expected * (1 + slower),
        interval=ratio,
        count=len(pairs),
    )


def _judge_groups(pairs: Sequence[Pair], limits: Limits) -> list[Gate]:
    """Single kinds of request: one slow endpoint may not move the median of all."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.group, []).append(pair)
    large = {name: each for name, each in groups.items() if len(each) >= 30}
    if len(groups) < 2 or not large:
        return []
    compared = {name: _compare(each, limits) for name, each in large.items()}
    adjusted = holm([p for _, _, p, _ in compared.values()])
    slow = [
        (ratio.estimate, name)
        for (name, (is_slow, ratio, _, _)), p in zip(compared.items(), adjusted, strict=True)
        if is_slow and p < limits.alpha
    ]
    cases = [
        f"{name}: {_tell_ratio(r)}, {len(large[name])} pairs" for r, name in sorted(slow)[::-1]
    ]
    return [
        Gate(
            name="latency of endpoints",
            outcome=Outcome.FAIL if slow else Outcome.PASS,
            summary=f"Slower: {len(slow) or 'none'} of {count_of(len(large), 'kind')} of requests.",
            observed=float(len(slow)),
            limit=0.0,
            count=sum(map(len, large.values())),
            cases=tuple(cases[:_CASES]),
        )
    ]


def count_of(count: int, noun: str) -> str:
    """`1 page`, `2 pages`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _tell_ratio(ratio: float) -> str:
    percent = 100 * (ratio - 1)
    if abs(percent) < 0.5:
        return "as fast"
    return f"{percent:.0f} % slower" if percent > 0 else f"{-percent:.0f} % faster"


def _tell_time(seconds: Seconds) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
