"""What others tell of the checks of type `push`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.core.model import Instant, Status


@dataclass(frozen=True, kw_only=True)
class Report:
    """What somebody found of one subject."""

    status: Status
    #: Empty: the check itself.
    subject: str = ""
    #: Empty where it is ok, and for `failed`.
    cause: str = ""
    summary: str = ""
    measurements: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    #: The end of what a command printed, for evidence.
    output: str = ""
    #: Since when it is so; None: since it was reported.
    since: Instant | None = None


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One alert of an Alertmanager (`webhook_config`, version 4 of its data)."""

    firing: bool
    labels: Mapping[str, str]
    annotations: Mapping[str, str] = field(default_factory=dict)
    #: When it began to fire; None where that is not known.
    since: Instant | None = None
    #: Where it comes from.
    link: str = ""
    #: The same for the same labels.
    fingerprint: str = ""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What became of alerts."""

    #: Checks, each with how many reports were taken for it.
    checks: Mapping[str, int]
    #: Alerts that no check wants.
    ignored: int
