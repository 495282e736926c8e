"""Rehearsals that somebody made, and their reports."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field

from agent import agent as facade
from api.schemas.wire import LONGEST_ORDER, Order, When, Wire, plain, write_instant


class Rehearsal(Wire):
    """What a rehearsal came to, without its report."""

    id: str
    kept: When
    by: str = Field(description="Who sent it")
    verdict: str = Field(description="pass, fail or inconclusive")
    headline: str
    candidate: str
    baseline: str
    took_seconds: float

    @classmethod
    def _parts_of(cls, record: facade.RehearsalRecord) -> dict[str, Any]:
        told = record.told
        return {
            "id": record.id,
            "kept": write_instant(record.kept),
            "by": record.by,
            "verdict": told.verdict,
            "headline": told.headline,
            "candidate": told.candidate,
            "baseline": told.baseline,
            "took_seconds": told.took,
        }

    @classmethod
    def of(cls, record: facade.RehearsalRecord) -> Self:
        return cls.make(**cls._parts_of(record))


class RehearsalResult(Rehearsal):
    """A rehearsal with its report."""

    report: dict[str, Any] = Field(description="As `hostmend rehearse --json` prints it")

    @classmethod
    def of(cls, record: facade.RehearsalRecord) -> Self:
        return cls.make(**cls._parts_of(record), report=record.told.report)


class RehearsalOrder(Order):
    """Keep the report of a rehearsal."""

    verdict: Literal["pass", "fail", "inconclusive"]
    headline: str = Field(max_length=1000)
    candidate: str = Field(max_length=2000)
    baseline: str = Field(max_length=2000)
    took_seconds: float = Field(ge=0, le=LONGEST_ORDER, allow_inf_nan=False)
    report: dict[str, Any] = Field(description="As `hostmend rehearse --json` prints it")

    def told(self) -> facade.RehearsalReport:
        return facade.RehearsalReport(
            verdict=self.verdict,
            headline=self.headline,
            candidate=self.candidate,
            baseline=self.baseline,
            took=self.took_seconds,
            report=plain(self.report),
        )
