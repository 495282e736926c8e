"""What every check type is made of."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from agent.checks.values import Duration
from agent.core.model import Evidence, Finding, Mode
from agent.host.machine import Machine

_CONFIRM = re.compile(r"([1-9][0-9]?) of ([1-9][0-9]?)")


def _read_confirm(text: str) -> str:
    match = _CONFIRM.fullmatch(text)
    if match is None or int(match[1]) > int(match[2]):
        raise ValueError(
            f"{text!r} is no count of failing looks among the last ones: write for example 2 of 3"
        )
    return text


#: How many of the last looks must fail.
ConfirmText = Annotated[
    str,
    AfterValidator(_read_confirm),
    Field(json_schema_extra={"pattern": f"^{_CONFIRM.pattern}$", "examples": ["2 of 3"]}),
]


class StepOptions(BaseModel):
    """One remedy of a ladder, as it is written in the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    remedy: str = Field(description="The remedy's name: `hostmend remedies` lists them.")
    causes: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Only for these causes; left out: those that the remedy handles "
        "for this type of check.",
    )
    options: Mapping[str, Any] = Field(
        default_factory=dict,
        description="Values for the remedy's options; they win over what the finding fills in.",
    )
    attempts: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="Runs before the next step; left out: the check's.",
    )
    mode: Mode | None = Field(
        default=None, description="How far hostmend may go with this step; left out: the check's."
    )


class CheckOptions(BaseModel):
    """What every check takes, whatever its type. None: the type's default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str = Field(description="What is checked.")
    every: Duration | None = Field(
        default=None, description="Time from one look to the next when nothing triggers one."
    )
    timeout: Duration | None = Field(
        default=None, description="A look that takes longer is `unknown`."
    )
    confirm: ConfirmText | None = Field(
        default=None,
        description="`2 of 3`: two failing looks among the last three make it believed.",
    )
    stable_for: Duration | None = Field(
        default=None,
        description="After a proof it must stay ok for this long until the incident is resolved.",
    )
    cool_down: Duration | None = Field(
        default=None, description="Wait between two runs for one problem."
    )
    verify_for: Duration | None = Field(
        default=None,
        description="How long after a run looks may still fail before the run counts as no cure.",
    )
    attempts: int | None = Field(
        default=None, ge=1, le=100, description="Runs of one step before the next one is taken."
    )
    depends_on: tuple[str, ...] = Field(
        default=(), description="Checks whose failure explains this one's: they are mended first."
    )
    mode: Mode | None = Field(
        default=None, description="How far hostmend may go here; left out: `policy.mode`."
    )
    labels: Mapping[str, str] = Field(
        default_factory=dict, description="Free words that routes and silences select by."
    )
    ladder: tuple[StepOptions, ...] | None = Field(
        default=None,
        description="Remedies in their order, before a human is called; left out: the type's "
        "default, `[]`: none.",
    )


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Something that a trigger can watch for a check: `("systemd", "nginx.service")`.

    `agent.triggers.TRIGGERS` has them, and each says what it watches.
    """

    trigger: Literal["inotify", "journal", "pidfd", "psi", "systemd"]
    what: str


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A check that would suit this host, for `hostmend init`."""

    #: A name for it; made unique where two proposals want the same.
    name: str
    #: The check as a configuration writes it, `type` included.
    options: Mapping[str, Any]
    #: One sentence on what was found that speaks for it.
    why: str


async def propose_nothing(_machine: Machine) -> tuple[Proposal, ...]:
    """For check types that nothing on a host speaks for."""
    return ()


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
    #: Each measurement that its findings may carry, with its meaning; the name ends in its unit.
    measurements: Mapping[str, str] = field(default_factory=dict)
    #: Options that say what a check is about: two that agree in them look at the same thing.
    #: None: all of the type's own. None of them, `()`: a host has only one of it.
    identity: tuple[str, ...] | None = None
    #: Checks of this type that would suit this host. It only reads, and never raises for what is
    #: not there.
    propose: Callable[[Machine], Awaitable[tuple[Proposal, ...]]] = propose_nothing
    #: The protocol of `tcp` that it speaks itself: where it is proposed, a greeting is no more.
    speaks: str = ""
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
    #: Causes beyond `causes` that a check's own configuration names: `critical: {down: ...}`.
    own_causes: Callable[[Any], frozenset[str]] = lambda _options: frozenset()
