"""Ladders: what the configuration says of remedies, joined with what they say themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from agent.checks.check import CheckOptions, CheckType, StepOptions
from agent.config.problems import Problems, suggest
from agent.core.model import Step
from agent.documents import Trail
from agent.remedies.description import Remedy
from agent.remedies.options import check_value

#: A unit, a path; or the words of a command, which are one thing only together.
Configured = str | float | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LadderBuilder:
    """Builds the ladders of all checks; what is wrong with them goes to `problems`."""

    remedies: Mapping[str, Remedy]
    #: Remedies that are there and cannot be used.
    broken: Collection[str]
    problems: Problems

    def build(self, name: str, kind: CheckType, options: CheckOptions) -> tuple[Step, ...]:
        """The ladder of one check whose options are complete."""
        ladder = kind.default_ladder(options) if options.ladder is None else options.ladder
        causes = (*kind.causes, *sorted(kind.own_causes(options) - kind.causes.keys()))
        steps: list[Step] = []
        for position, written in enumerate(ladder):
            trail: Trail = ("checks", name, "ladder", position)
            if written.remedy in self.broken:
                # One remedy's error must not keep the host from being watched. What comes after it
                # was meant for when it has not helped, so a human is called in its place.
                break
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
                    fills=self._fills(remedy, written, trail, kind.names(options)),
                    hidden=frozenset(
                        option for option, known in remedy.options.items() if known.no_log
                    ),
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
        remedy: Remedy,
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

    def _fills(
        self, remedy: Remedy, written: StepOptions, trail: Trail, subjects: frozenset[str]
    ) -> Mapping[str, str]:
        for option, value in written.options.items():
            place = (*trail, "options", option)
            if option not in remedy.options:
                self.problems.add(
                    place,
                    f"`{remedy.name}` has no such option; {suggest(option, remedy.options)}",
                )
                continue
            try:
                check_value(remedy.options[option], value, None)
            except ValueError as error:
                self.problems.add(place, str(error))
        fills: dict[str, str] = {}
        for option, known in remedy.options.items():
            if option in written.options:
                continue
            if known.source:
                fills[option] = known.source
                if known.source == "subject":
                    self._check_subjects(remedy, option, subjects, trail)
            elif known.required:
                self.problems.add(
                    trail,
                    f"`{remedy.name}` needs the option `{option}` ({known.description.rstrip('.')})"
                    f": write `options: {{{option}: ...}}`",
                )
        return fills

    def _check_subjects(
        self, remedy: Remedy, option: str, subjects: frozenset[str], trail: Trail
    ) -> None:
        """What would be refused when it is needed is refused now."""
        for subject in sorted(subjects):
            try:
                check_value(remedy.options[option], subject, None)
            except ValueError as error:
                self.problems.add(
                    trail, f"`{remedy.name}` cannot take this check's subject: {error}"
                )

    def fixed_names(self, steps: tuple[Step, ...]) -> frozenset[Configured]:
        """Values that the configuration itself fixes for options that take only such."""
        names: set[Configured] = set()
        for step in steps:
            for name, value in step.options.items():
                option = self.remedies[step.remedy].options[name]
                if not option.configured_only:
                    continue
                value = check_value(option, value, None)
                if isinstance(value, str | int | float):
                    names.add(value)
                elif isinstance(value, list | tuple):
                    words = tuple(word for word in value if isinstance(word, str))
                    names.update((words,) if option.type == "argv" else words)
        return frozenset(names)
