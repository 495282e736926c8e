"""What checks of lines have in common: patterns by cause, counted within a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, field_validator, model_validator

from agent.checks.check import CheckOptions
from agent.checks.values import Count, Rate, check_cause
from agent.core.model import Evidence, Instant, Seconds, Status
from agent.core.units import format_duration
from agent.host.memory import Memory
from agent.host.patterns import KEPT, Scan, check_pattern
from agent.host.tally import add_amount, amount_within

#: Beyond the time that lines count for: `verify_for` of who names none.
BEYOND: Seconds = 30.0
_KEY = "lines"

Pattern = Annotated[str, AfterValidator(check_pattern)]


class LineOptions(CheckOptions):
    """Patterns of lines, and how many are too many."""

    #: The type, and the causes that all of its checks have.
    kind: ClassVar[str]
    known_causes: ClassVar[frozenset[str]]

    critical: Mapping[str, Pattern] = Field(
        default_factory=dict, description="Cause: the pattern (RE2) of lines that mean it."
    )
    warning: Mapping[str, Pattern] = Field(
        default_factory=dict, description="Cause: the pattern (RE2) of lines that need a look."
    )
    ignore: tuple[Pattern, ...] = Field(
        default=(), description="Patterns of lines that do not count."
    )
    more_than: Count = Field(
        default=Rate(0, 60.0),
        description="It fails when there are more lines of a cause within the time: `5 in 1m`.",
    )

    @field_validator("critical", "warning")
    @classmethod
    def _check_causes(cls, patterns: Mapping[str, str]) -> Mapping[str, str]:
        for name in patterns:
            check_cause(name, known=cls.known_causes, kind=cls.kind)
        return patterns

    @model_validator(mode="after")
    def _check_severities(self) -> LineOptions:
        if both := sorted(self.critical.keys() & self.warning.keys()):
            raise ValueError(f"`{both[0]}` stands in `critical` and in `warning`: choose one")
        return self

    @property
    def patterns(self) -> Mapping[str, str]:
        return {**self.critical, **self.warning}


@dataclass(frozen=True, kw_only=True)
class Lines:
    """The lines of one cause."""

    #: Within the time of `more_than`, up to now.
    count: float
    #: The last ones, fit to be shown.
    last: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the lines mean."""

    status: Status
    cause: str = ""
    summary: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    count: float = 0.0


def count_lines(
    options: LineOptions, memory: Memory, scan: Scan, *, since: Instant, now: Instant
) -> Mapping[str, Lines]:
    """The lines by cause, with what a look found since the one before; remembered."""
    window = options.more_than.seconds
    kept = memory.get(_KEY) or {}
    lines, left = {}, {}
    for cause in options.patterns:
        amounts, last = kept.get(cause, ([], []))
        amounts = add_amount(amounts, (since, now, scan.counts[cause]), window=window)
        last = [*last, *scan.lines(cause)][-KEPT:]
        lines[cause] = Lines(count=amount_within(amounts, now, window), last=tuple(last))
        if amounts or last:
            left[cause] = [amounts, last]
    if left or kept:
        memory.put(_KEY, left)
    return lines


def judge_lines(options: LineOptions, lines: Mapping[str, Lines], where: str) -> Verdict:
    """The worst that the lines mean; `where` is what they stand in."""
    most = options.more_than.amount
    found = [cause for cause in options.patterns if lines[cause].count > most]
    if not found:
        highest = max((each.count for each in lines.values()), default=0.0)
        return Verdict(status=Status.OK, summary=_sum_up(options, highest, where), count=highest)
    cause = found[0]
    status = Status.CRITICAL if cause in options.critical else Status.WARNING
    facts = {"Last line": lines[cause].last[-1]} if lines[cause].last else {}
    if len(found) > 1:
        facts["Also"] = ", ".join(found[1:])
    count = lines[cause].count
    within = format_duration(options.more_than.seconds)
    beyond = f", {most} are allowed" if most else ""
    summary = f"{where} has {_describe(count)} of {cause} in {within}{beyond}"
    return Verdict(status=status, cause=cause, summary=summary, facts=facts, count=count)


def _sum_up(options: LineOptions, highest: float, where: str) -> str:
    if not options.patterns:
        return ""
    within = format_duration(options.more_than.seconds)
    if highest < 0.5:
        return f"{where} has no line that matters in {within}"
    return f"{where} has at most {_describe(highest)} of a cause in {within}"


def _describe(count: float) -> str:
    whole = max(1, round(count))
    return f"{whole} line{'s' if whole > 1 else ''}"


def show_lines(options: LineOptions, memory: Memory) -> tuple[Evidence, ...]:
    """The last lines of each cause."""
    kept: Mapping[str, Sequence[Sequence[str]]] = memory.get(_KEY) or {}
    return tuple(
        Evidence(title=f"Last lines of {cause}", text="\n".join(kept[cause][1]))
        for cause in options.patterns
        if cause in kept and kept[cause][1]
    )
