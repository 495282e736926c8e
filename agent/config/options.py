"""The keys beside the checks: `policy`, `routes` and others, as they are written."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from datetime import time
from pathlib import Path
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from agent.checks.values import Duration
from agent.config.schedule import LAST, WeeklySchedule, local_zone
from agent.core.model import CheckPolicy, Mode, Policy, Reason, Risk, RoutePolicy, Step

#: Names of checks, routes and maintenance windows.
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
#: What is taken for the id of a silence, and so cannot be the name of a window.
SILENCE_ID = re.compile(r"s?[0-9]+")

#: What every check begins with; its type's defaults and then the configuration win over it.
GENERAL_DEFAULTS: Mapping[str, str | float | int] = {
    "every": CheckPolicy.every,
    "timeout": CheckPolicy.timeout,
    "confirm": "2 of 3",
    "stable_for": CheckPolicy.stable_for,
    "cool_down": CheckPolicy.cool_down,
    "verify_for": CheckPolicy.verify_for,
    "attempts": Step.attempts,
}

#: Messages that a route takes when it does not say: everything that asks or concludes. That
#: something failed is left out, because a repair usually follows within the minute.
DEFAULT_REASONS: tuple[Reason, ...] = tuple(r for r in Reason if r is not Reason.OPENED)

#: Where each key of `policy` goes.
POLICY_FIELDS: Mapping[str, str] = {
    "mode": "mode",
    "act_alone_up_to": "act_alone_up_to",
    "runs_per_hour": "runs_per_hour",
    "slots": "slots",
    "attempts_window": "attempts_window",
    "storm.at": "storm_at",
    "storm.within": "storm_window",
    "storm.group_wait": "group_wait",
    "recurring.after": "recurring_after",
    "recurring.within": "recurring_window",
    "held_after": "held_after",
    "inhibit_for": "inhibit_for",
    "unknown_for": "unknown_for",
    "retry_after": "retry_after",
    "retry_at_most": "retry_at_most",
    "remind_after": "remind_after",
    "approval_for": "approval_for",
    "notice_for": "notice_for",
}


class StormOptions(BaseModel):
    """Many failures at once are one cause: only the root-most is mended, one message is sent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: int = Field(
        default=Policy.storm_at, ge=2, le=10_000, description="Confirmed criticals that make one."
    )
    within: Duration = Field(
        default=Policy.storm_window, description="Time within which they are counted."
    )
    group_wait: Duration = Field(
        default=Policy.group_wait, description="Wait before the one message."
    )


class RecurringOptions(BaseModel):
    """When the same repair, again and again, is reported."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    after: int = Field(
        default=Policy.recurring_after, ge=2, le=10_000, description="Proved repairs of a problem."
    )
    within: Duration = Field(
        default=Policy.recurring_window, description="Time within which they are counted."
    )


class PolicyOptions(BaseModel):
    """What holds for the whole host."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode = Field(
        default=Policy.mode,
        description="`auto` repairs, `approve` asks before each run, `shadow` records what it "
        "would have done, `off` only reports. Checks and steps may say otherwise.",
    )
    act_alone_up_to: Risk = Field(
        default=Policy.act_alone_up_to,
        description="In mode `auto`: remedies of a higher risk wait for an approval, and those of "
        "a high risk that change data always do.",
    )
    runs_per_hour: int = Field(
        default=Policy.runs_per_hour,
        ge=0,
        le=10_000,
        description="Runs that hostmend starts by itself within any hour, over the whole host.",
    )
    slots: int = Field(
        default=Policy.slots,
        ge=1,
        le=64,
        description="Runs alive at once, each with a lock of its own.",
    )
    attempts_window: Duration = Field(
        default=Policy.attempts_window,
        description="A problem's attempts are counted over this time, across incidents.",
    )
    storm: StormOptions = Field(
        default_factory=StormOptions, description="Many failures at once, treated as one cause."
    )
    recurring: RecurringOptions = Field(
        default_factory=RecurringOptions, description="The same repair again and again."
    )
    held_after: Duration = Field(
        default=Policy.held_after,
        description="A critical problem that is held back from repair speaks after this.",
    )
    inhibit_for: Duration = Field(
        default=Policy.inhibit_for,
        description="Longest time that a problem holds the repairs of what depends on it.",
    )
    unknown_for: Duration = Field(
        default=Policy.unknown_for, description="A check `unknown` for this long is reported."
    )
    retry_after: Duration = Field(
        default=Policy.retry_after,
        description="Escalated: first wait before the ladder is tried again; it doubles.",
    )
    retry_at_most: Duration = Field(
        default=Policy.retry_at_most, description="Escalated: the longest of these waits."
    )
    remind_after: Duration = Field(
        default=Policy.remind_after,
        description="An escalated incident that nobody acknowledged speaks again after this.",
    )
    approval_for: Duration = Field(
        default=Policy.approval_for,
        description="A question lapses after this, and a given approval is used within it.",
    )
    notice_for: Duration = Field(
        default=Policy.notice_for, description="An undelivered message is given up after this."
    )
    warm: bool = Field(
        default=False,
        description="Keep a runner loaded: repairs start sooner, for some 45 MB of memory.",
    )

    @model_validator(mode="after")
    def _check_retries(self) -> PolicyOptions:
        if self.retry_at_most < self.retry_after:
            raise ValueError("`retry_at_most` must not be less than `retry_after`")
        return self


_URL = r"[A-Za-z][A-Za-z0-9+.-]*://[^\r\n]*"


def _check_url(url: str) -> str:
    # The message never repeats the address: it may hold a secret.
    if not re.fullmatch(_URL, url):
        raise ValueError(
            "must be an Apprise URL, such as mailto://user:password@example.org "
            "(https://github.com/caronc/apprise/wiki)"
        )
    return url


def _check_file(path: Path) -> Path:
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise ValueError("begins with the home of a user that does not exist") from error
    if not path.name:
        raise ValueError("must be the path of a file")
    return path


def _check_public_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or re.search(r"\s", url):
        raise ValueError("must be an http:// or https:// address, such as https://host.example")
    return url.rstrip("/")


#: The address under which people reach the dashboard.
PublicUrl = Annotated[str, AfterValidator(_check_public_url)]


class RouteOptions(BaseModel):
    """One way to people. Exactly one of `url` and `url_file` is given."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"oneOf": [{"required": ["url"]}, {"required": ["url_file"]}]},
    )

    url: Annotated[str, AfterValidator(_check_url)] | None = Field(
        default=None,
        repr=False,
        json_schema_extra={"pattern": f"^{_URL}$"},
        description="Any Apprise URL. What it holds is secret: `url_file` keeps it apart.",
    )
    url_file: Annotated[Path, AfterValidator(_check_file)] | None = Field(
        default=None,
        description="A file of mode 0600 with Apprise URLs, one a line; a relative path begins at "
        "the main configuration file's directory.",
    )
    reasons: tuple[Reason, ...] = Field(
        default=DEFAULT_REASONS,
        min_length=1,
        description="Messages that it takes; left out: all but `opened`.",
    )
    severity: Literal["warning", "critical"] = Field(
        default=RoutePolicy.severity.value,  # type: ignore[arg-type]
        description="Only problems at least this severe.",
    )
    labels: Mapping[str, str] = Field(
        default_factory=dict, description="Only problems of checks that carry all of these."
    )

    @model_validator(mode="after")
    def _check_address(self) -> RouteOptions:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("needs exactly one of `url` and `url_file`")
        return self


Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
_LONGEST_WINDOW = 7 * 86400.0
_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


def _check_time_of_day(text: str) -> str:
    if not _TIME_OF_DAY.fullmatch(text):
        raise ValueError("must be a time of the day from 00:00 to 23:59, such as 02:30")
    return text


def _check_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:
        close = difflib.get_close_matches(name, available_timezones(), n=1)
        way_out = f"did you mean `{close[0]}`?" if close else "write for example Europe/Berlin"
        raise ValueError(f"there is no time zone `{name[:80]}` on this host; {way_out}") from error
    return name


class DigestOptions(BaseModel):
    """When a digest of what happened is sent to the routes that take it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    days: tuple[Weekday, ...] = Field(
        default=("mon",), min_length=1, description="Days of the week on which it is sent."
    )
    at: Annotated[str, AfterValidator(_check_time_of_day)] = Field(
        default="07:00",
        json_schema_extra={"pattern": f"^{_TIME_OF_DAY.pattern}$"},
        description="When, as clocks of the time zone show it.",
    )
    timezone: Annotated[str, AfterValidator(_check_zone)] | None = Field(
        default=None,
        description="Whose clocks, such as `Europe/Berlin`; left out: this host's.",
    )

    def make_schedule(self) -> WeeklySchedule:
        """When it is sent; the time zone of this host where none is named."""
        return WeeklySchedule(
            days=frozenset(_WEEKDAYS.index(day) for day in self.days),
            at=time.fromisoformat(self.at),
            # A moment, which is none where a span must end after it began.
            lasts=1.0,
            zone=ZoneInfo(self.timezone) if self.timezone else local_zone(),
        )


class MaintenanceOptions(BaseModel):
    """A maintenance window that opens again and again: neither runs nor messages meanwhile."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "anyOf": [{"required": ["checks"]}, {"required": ["labels"]}],
            "dependentRequired": {"subjects": ["checks"]},
        },
    )

    days: tuple[Weekday, ...] = Field(
        default=_WEEKDAYS,
        min_length=1,
        description="Days of the week on which it opens; left out: every day.",
    )
    weeks: tuple[Literal["first", "second", "third", "fourth", "fifth", "last"], ...] = Field(
        default=(),
        description="Only the first, second ... or last of such a day in a month; left out: each.",
    )
    at: Annotated[str, AfterValidator(_check_time_of_day)] = Field(
        json_schema_extra={"pattern": f"^{_TIME_OF_DAY.pattern}$", "examples": ["02:30"]},
        description="When it opens, as clocks of the time zone show it.",
    )
    lasts: Duration = Field(alias="for", description="How long it is open.")
    timezone: Annotated[str, AfterValidator(_check_zone)] | None = Field(
        default=None,
        description="Whose clocks, such as `Europe/Berlin`; left out: this host's.",
    )
    checks: tuple[str, ...] = Field(
        default=(), description="What it covers: names of checks, or `*` for all."
    )
    subjects: tuple[str, ...] = Field(
        default=(), description="Only these subjects of those checks; left out: all of them."
    )
    labels: Mapping[str, str] = Field(
        default_factory=dict, description="Or: checks that carry all of these labels."
    )
    comment: str = Field(default="", max_length=500, description="Shown to everybody who asks.")

    @model_validator(mode="after")
    def _check_end(self) -> MaintenanceOptions:
        places = sorted(_WEEKDAYS.index(day) for day in set(self.days))
        gaps = [(b - a) % 7 or 7 for a, b in zip(places, [*places[1:], places[0]], strict=True)]
        if self.lasts >= min(min(gaps) * 86400.0, _LONGEST_WINDOW):
            raise ValueError("`for` must end before it opens again: the window would never close")
        if not self.checks and not self.labels:
            raise ValueError(
                "covers nothing: name `checks` or `labels`, `checks: ['*']` is everything"
            )
        if self.subjects and not self.checks:
            raise ValueError("`subjects` need the `checks` that they are of")
        return self

    def make_schedule(self) -> WeeklySchedule:
        """When it opens; the time zone of this host where none is named."""
        ordinals = ("first", "second", "third", "fourth", "fifth")
        return WeeklySchedule(
            days=frozenset(_WEEKDAYS.index(day) for day in self.days),
            weeks=frozenset(
                LAST if week == "last" else ordinals.index(week) + 1 for week in self.weeks
            ),
            at=time.fromisoformat(self.at),
            lasts=self.lasts,
            zone=ZoneInfo(self.timezone) if self.timezone else local_zone(),
        )
