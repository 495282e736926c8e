"""Which checks of this host could see a fault, and which incidents it may have brought about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.core.model import Incident
from agent.remedies.description import Remedy


@dataclass(frozen=True, kw_only=True)
class Eye:
    """A configured check, as far as drills ask."""

    type: str
    #: What its configuration names: units, paths, its ladder's options. `*`: whatever there is.
    names: frozenset[str]


def find_target(fault: Remedy, options: Mapping[str, object]) -> object | None:
    """What the fault hits, where its description says that findings have it as their subject."""
    for name, option in fault.options.items():
        if option.source == "subject":
            return options.get(name)
    return None


def find_checks(
    fault: Remedy, options: Mapping[str, object], eyes: Mapping[str, Eye]
) -> tuple[str, ...]:
    """Names of the checks that could see it."""
    target = find_target(fault, options)
    return tuple(
        name
        for name, eye in eyes.items()
        if eye.type in fault.handles and (target is None or target in eye.names or "*" in eye.names)
    )


def may_be_of(
    fault: Remedy, options: Mapping[str, object], incident: Incident, eyes: Mapping[str, Eye]
) -> bool:
    """Whether the fault may have brought an incident about."""
    eye = eyes.get(incident.check)
    if eye is None or eye.type not in fault.handles:
        return False
    target = find_target(fault, options)
    return target is None or incident.subject == target or target in eye.names
