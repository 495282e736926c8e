"""Remedies on offer, and which of their options nobody may see."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Self

from pydantic import Field

from agent import agent as facade
from agent.core.model import Changes, Risk
from agent.core.text import MASK
from api.schemas.wire import Wire

#: Which options of a remedy are secret, by the remedy's name.
Secrets = Callable[[str], Collection[str]]


class Remedy(Wire):
    """A remedy on offer."""

    name: str
    summary: str
    path: str
    risk: Risk
    changes: Changes
    timeout_seconds: float
    handles: dict[str, list[str]] = Field(description="Check types, and the causes of each")
    options: dict[str, dict[str, Any]] = Field(description="As remedy.yml describes them")
    digest: str
    replaces: str | None = Field(description="Digest of the shipped remedy that it replaces")
    used_by: list[str] = Field(description="Checks whose ladder names it")

    @classmethod
    def of(cls, remedy: facade.RemedyInfo) -> Self:
        secret = secret_options(remedy)
        options = {
            name: {
                part: MASK if name in secret and part == "default" else value
                for part, value in spec.items()
            }
            for name, spec in remedy.options.items()
        }
        return cls.make(
            name=remedy.name,
            summary=remedy.summary,
            path=remedy.path,
            risk=remedy.risk,
            changes=remedy.changes,
            timeout_seconds=remedy.timeout,
            handles=remedy.handles,
            options=options,
            digest=remedy.digest,
            replaces=remedy.replaces,
            used_by=remedy.used_by,
        )


def secret_options(remedy: facade.RemedyInfo) -> frozenset[str]:
    """The options that Ansible is told not to log."""
    return frozenset(name for name, spec in remedy.options.items() if spec.get("no_log") is True)
