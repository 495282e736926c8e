"""What every check type is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from agent.core.model import Evidence, Finding, Mode
from agent.core.units import parse_duration
from agent.host.machine import Machine


def _read_duration(value: object) -> object:
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError("a duration needs a unit: write for example 10s, 5m or 2h")


#: Seconds in the program, `10s` in the configuration; more than nothing.
Duration = Annotated[
    float,
    Field(gt=0, json_schema_extra={"type": "string", "examples": ["10s", "5m", "2h"]}),
    BeforeValidator(_read_duration),
]


class StepOptions(BaseModel):
    """One remedy of a ladder, as it is written in the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    remedy: str
    #: Only for these causes; left out: those that the remedy handles for this check's type.
    causes: tuple[str, ...] | None = None
    options: Mapping[str, Any] = Field(default_factory=dict)
    attempts: int | None = Field(default=None, ge=1, le=100)
    mode: Mode | None = None


class CheckOptions(BaseModel):
    """What every check takes, whatever its type. None: the type's default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str
    every: Duration | None = None
    timeout: Duration | None = None
    #: `2 of 3`: two failing looks among the last three make it believed.
    confirm: Annotated[str, Field(pattern=r"^[1-9]\d? of [1-9]\d?$")] | None = None
    stable_for: Duration | None = None
    cool_down: Duration | None = None
    verify_for: Duration | None = None
    attempts: int | None = Field(default=None, ge=1, le=100)
    depends_on: tuple[str, ...] = ()
    mode: Mode | None = None
    labels: Mapping[str, str] = Field(default_factory=dict)
    ladder: tuple[StepOptions, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Something that a trigger can watch for a check: `("systemd", "nginx.service")`."""

    trigger: Literal["systemd"]
    what: str


async def gather_nothing(
    _options: Any, _finding: Finding, _machine: Machine
) -> tuple[Evidence, ...]:
    """For check types without evidence beyond the finding."""
    return ()


@dataclass(frozen=True, kw_only=True)
class CheckType:
    """One type of check. All of them stand in `agent.checks.CHECKS`."""

    name: str
    #: One sentence for the documentation and for `hostmend config schema`.
    summary: str
    #: A subclass of CheckOptions whose `type` is a Literal of `name`.
    model: type[CheckOptions]
    #: Looks once. Never raises for a failing subject; what it raises becomes `unknown`.
    look: Callable[[Any, Machine], Awaitable[tuple[Finding, ...]]]
    #: Each cause that its findings may carry, with its meaning.
    causes: Mapping[str, str]
    #: Evidence for one finding: slower than a look, called before a run and after a proof.
    gather: Callable[[Any, Finding, Machine], Awaitable[tuple[Evidence, ...]]] = gather_nothing
    #: What triggers watch for it.
    watches: Callable[[Any], frozenset[Watch]] = lambda _options: frozenset()
    #: The ladder of a check that names none.
    default_ladder: Callable[[Any], tuple[StepOptions, ...]] = lambda _options: ()
    #: Values of CheckOptions that differ from the general defaults, as written in a configuration.
    defaults: Mapping[str, str] = field(default_factory=dict)
    #: Subjects that the configuration itself names; `allow: configured` options take only these.
    names: Callable[[Any], frozenset[str]] = lambda _options: frozenset()
