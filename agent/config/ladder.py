"""Ladders: what the configuration says of remedies, joined with what they say themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from agent.checks.check import CheckOptions, CheckType, StepOptions
from agent.config.problems import Problems, suggest
from agent.core.model import Changes, Risk, Step
from agent.documents import Trail

#: Its value in a remedy's `allow`: only what the configuration names.
CONFIGURED = "configured"


class KnownOption(Protocol):
    """What the configuration needs to know of one option of a remedy."""

    @property
    def type(self) -> str: ...
    @property
    def required(self) -> bool: ...
    @property
    def from_(self) -> str | None:
        """The finding's field that fills it: `finding.subject`."""
        ...

    @property
    def allow(self) -> str | None: ...
    @property
    def description(self) -> str: ...


class KnownRemedy(Protocol):
    """What the configuration needs to know of one remedy."""

    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def handles(self) -> Mapping[str, tuple[str, ...]]: ...
    @property
    def risk(self) -> Risk: ...
    @property
    def changes(self) -> Changes: ...
    @property
    def timeout(self) -> float: ...
    @property
    def lock(self) -> str: ...
    @property
    def options(self) -> Mapping[str, KnownOption]: ...
    @property
    def digest(self) -> str: ...


class KnownRemedies(Protocol):
    """The remedies there are: `agent.remedies.catalog.Catalog` is one."""

    @property
    def remedies(self) -> Mapping[str, KnownRemedy]: ...


#: Why a value cannot be an option's, or None: (remedy, option, value).
OptionValidator = Callable[[KnownRemedy, str, object], str | None]


@dataclass(frozen=True, kw_only=True)
class LadderBuilder:
    """Builds the ladders of all checks; what is wrong with them goes to `problems`."""

    remedies: Mapping[str, KnownRemedy]
    problems: Problems
    validate_option: OptionValidator | None = None

    def build(self, name: str, kind: CheckType, options: CheckOptions) -> tuple[Step, ...]:
        """The ladder of one check whose options are complete."""
        ladder = kind.default_ladder(options) if options.ladder is None else options.ladder
        causes = (*kind.causes, *sorted(kind.own_causes(options) - kind.causes.keys()))
        steps: list[Step] = []
        for position, written in enumerate(ladder):
            trail: Trail = ("checks", name, "ladder", position)
            remedy = self.remedies.get(written.remedy)
            if remedy is None:
                self.problems.add(
                    (*trail, "remedy"),
                    f"there is no remedy `{written.remedy}`; "
                    f"{suggest(written.remedy, self.remedies)}",
                )
                continue
            earlier = sum(step.remedy == remedy.name for step in steps)
            steps.append(
                Step(
                    key=f"{remedy.name}#{earlier + 1}" if earlier else remedy.name,
                    remedy=remedy.name,
                    causes=self._causes(remedy, kind, causes, written, trail),
                    options=dict(written.options),
                    fills=self._fills(remedy, written, trail),
                    risk=remedy.risk,
                    changes=remedy.changes,
                    timeout=remedy.timeout,
                    lock=remedy.lock,
                    digest=remedy.digest,
                    attempts=written.attempts or options.attempts or Step.attempts,
                    mode=written.mode,
                )
            )
        return tuple(steps)

    def _causes(
        self,
        remedy: KnownRemedy,
        kind: CheckType,
        known: tuple[str, ...],
        written: StepOptions,
        trail: Trail,
    ) -> tuple[str, ...]:
        if written.causes is not None:
            for position, cause in enumerate(written.causes):
                if cause not in known:
                    self.problems.add(
                        (*trail, "causes", position),
                        f"this check has no cause `{cause}`; {suggest(cause, known)}",
                    )
            return tuple(dict.fromkeys(written.causes))
        causes = tuple(cause for cause in remedy.handles.get(kind.name, ()) if cause in known)
        if not causes:
            self.problems.add(
                trail,
                f"`{remedy.name}` does not say for which causes of a `{kind.name}` check it is: "
                f"name them, `causes: [{', '.join(known)}]`",
            )
        return causes

    def _fills(self, remedy: KnownRemedy, written: StepOptions, trail: Trail) -> Mapping[str, str]:
        for option, value in written.options.items():
            place = (*trail, "options", option)
            if option not in remedy.options:
                self.problems.add(
                    place,
                    f"`{remedy.name}` has no such option; {suggest(option, remedy.options)}",
                )
            elif self.validate_option and (why := self.validate_option(remedy, option, value)):
                self.problems.add(place, why)
        fills: dict[str, str] = {}
        for option, known in remedy.options.items():
            if option in written.options:
                continue
            if known.from_:
                fills[option] = known.from_.removeprefix("finding.")
            elif known.required:
                self.problems.add(
                    trail,
                    f"`{remedy.name}` needs the option `{option}` ({known.description.rstrip('.')})"
                    f": write `options: {{{option}: ...}}`",
                )
        return fills

    def fixed_names(self, steps: tuple[Step, ...]) -> frozenset[str]:
        """Values that the configuration itself fixes for options that take only such."""
        names: set[str] = set()
        for step in steps:
            for option, value in step.options.items():
                known = self.remedies[step.remedy].options.get(option)
                if known is None or known.allow != CONFIGURED:
                    continue
                values = value if isinstance(value, list | tuple) else (value,)
                names.update(each for each in values if isinstance(each, str))
        return frozenset(names)
