"""What is not spoken of for a while; a maintenance window is not repaired either."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from agent.core import model
from api.schemas.wire import LONGEST_ORDER, Names, Order, When, Wire, write_instant


class Silence(Wire):
    """Mutes notices; with `runs` (a maintenance window) it holds runs too."""

    id: str
    starts: When
    ends: When
    by: str
    comment: str
    checks: list[str]
    subjects: list[str]
    labels: dict[str, str]
    runs: bool
    recurring: bool = Field(
        description="The configuration opens it again and again: as it is open, or opens next"
    )

    @classmethod
    def of(cls, silence: model.Silence) -> Self:
        return cls.make(
            id=silence.id,
            starts=write_instant(silence.starts),
            ends=write_instant(silence.ends),
            by=silence.by,
            comment=silence.comment,
            checks=silence.checks,
            subjects=silence.subjects,
            labels=silence.labels,
            runs=silence.runs,
            recurring=silence.recurring,
        )


#: A maintenance window that was forgotten must not keep a host from healing for ever, in seconds.
LONGEST_WINDOW = 7 * 86400


class SilenceOrder(Order):
    """Mute notices; with `runs`, hold runs too."""

    for_seconds: float = Field(
        gt=0, le=LONGEST_ORDER, allow_inf_nan=False, description="End by itself after this"
    )
    checks: Names = Field(
        default=[], description="Names of checks; `*` for all. Nothing named never means all"
    )
    subjects: Names = Field(
        default=[], description="Only these subjects of those checks; left out: all of them"
    )
    labels: dict[str, str] = Field(
        default={}, max_length=20, description="Or: checks that carry all of these labels"
    )
    comment: str = Field(default="", max_length=500)
    runs: bool = Field(
        default=False, description="A maintenance window: start no runs either; at most a week"
    )

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if self.runs and self.for_seconds > LONGEST_WINDOW:
            raise ValueError(f"a maintenance window lasts at most {LONGEST_WINDOW} seconds")
        return self
