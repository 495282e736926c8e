"""`type: push`: somebody else reports how something is, through the API.

A cron job, a deployment, an Alertmanager. What was reported stands until something else is; that
nothing was reported for too long is a finding too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from agent.checks.check import CheckOptions, CheckType
from agent.checks.values import Duration
from agent.core.model import Evidence, Finding, Instant, Status
from agent.core.units import format_duration
from agent.errors import Invalid
from agent.host.machine import Machine
from agent.host.memory import Memory
from agent.host.text import fit_line, show
from agent.told import Alert, Report

CAUSES = {
    "failed": "It was reported to fail, and no other cause was named.",
    "silent": "Nothing was reported for longer than `expect_every`.",
    "unclear": "Nobody can tell: that was reported, or it was repaired after the report.",
    "untold": "Only a running agent knows what was reported.",
}

MEASUREMENTS = {
    "reported_seconds": "Time since the last report on the subject.",
}

#: Subjects of one check.
MOST_SUBJECTS = 200
_CAUSE = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_DAY = 86400.0
#: Longest subject, summary and output, in characters.
_SUBJECT, _SUMMARY, _OUTPUT = 200, 500, 8000
#: Keys of what is remembered.
_FIRST, _LAST, _SUBJECTS = "first", "last", "subject:"
#: Labels of an alert that are told otherwise than in its subject.
_TOLD = frozenset({"alertname", "severity"})


def _check_causes(causes: tuple[str, ...]) -> tuple[str, ...]:
    for cause in causes:
        if cause in CAUSES:
            raise ValueError(f"`{cause}` is a cause that every push check has: leave it out")
        if not _CAUSE.fullmatch(cause):
            raise ValueError(f"{cause!r} cannot be a cause: use small letters, digits, `_` and `-`")
    return causes


class PushOptions(CheckOptions):
    """Something that others report on."""

    type: Literal["push"]
    expect_every: Duration | None = Field(
        default=None,
        description="Something is reported at least this often; left out: whenever there is news.",
    )
    silent: Literal["warning", "critical"] = Field(
        default="critical", description="How bad it is when nothing is reported for longer."
    )
    causes: Annotated[tuple[str, ...], AfterValidator(_check_causes)] = Field(
        default=(), description="Causes that reports may name beside `failed`."
    )
    alerts: Mapping[str, str] = Field(
        default_factory=dict,
        description="An Alertmanager's alerts that carry all of these labels are reports; none: no "
        "alerts.",
    )
    keep_for: Duration = Field(
        default=_DAY,
        description="A subject that is ok, and of which nothing more is reported, is forgotten "
        "after this.",
    )


@dataclass(frozen=True, kw_only=True)
class _Told:
    """A report as it is remembered."""

    report: Report
    at: Instant
    by: str


def take_reports(
    options: PushOptions, memory: Memory, reports: Iterable[Report], *, now: Instant, by: str
) -> None:
    """Remembers what was reported. Raises Invalid for what the check does not take; then nothing
    of it is remembered."""
    told = {
        report.subject or memory.check: _Told(report=_clean(options, report), at=now, by=by)
        for report in reports
    }
    kept = _read_told(memory)
    forgotten = {subject for subject, each in kept.items() if _is_stale(options, each, now)}
    left = (kept.keys() - forgotten) | told.keys()
    if len(left) > MOST_SUBJECTS:
        raise Invalid(
            f"cannot take a report for {memory.check}: it has {len(kept)} subjects already, and "
            f"{MOST_SUBJECTS} are the most"
        )
    for subject in forgotten - told.keys():
        memory.forget(_SUBJECTS + subject)
    for subject, each in told.items():
        memory.put(_SUBJECTS + subject, asdict(each))
    memory.put(_LAST, now)


def _clean(options: PushOptions, report: Report) -> Report:
    """A report as it may be shown. Raises Invalid."""
    cause = report.cause
    if report.status is Status.OK:
        cause = ""
    elif report.status is Status.UNKNOWN:
        cause = "unclear"
    elif not cause:
        cause = "failed"
    elif cause != "failed" and cause not in options.causes:
        known = ", ".join(("failed", *options.causes))
        raise Invalid(f"cannot take the cause {cause!r}: the check takes {known}")
    return replace(
        report,
        subject=fit_line(report.subject, _SUBJECT),
        cause=cause,
        summary=fit_line(report.summary, _SUMMARY),
        facts={fit_line(k, 60): fit_line(v, _SUMMARY) for k, v in report.facts.items()},
        output=show(report.output, _OUTPUT),
    )


def _read_told(memory: Memory) -> dict[str, _Told]:
    found = {}
    for key in sorted(memory.keys()):
        if key.startswith(_SUBJECTS):
            kept: dict[str, Any] = memory.get(key)
            report = Report(**{**kept["report"], "status": Status(kept["report"]["status"])})
            found[key.removeprefix(_SUBJECTS)] = _Told(report=report, at=kept["at"], by=kept["by"])
    return found


def _is_stale(options: PushOptions, told: _Told, now: Instant) -> bool:
    return told.report.status is Status.OK and now - told.at > options.keep_for


async def look(options: PushOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding for each subject, and always one on the check itself."""
    memory, now = machine.memory, machine.clock.now()
    if machine.condition is None:
        summary = "what was reported is known to the running agent alone: ask `hostmend checks`"
        return (Finding(subject="reports", status=Status.UNKNOWN, cause="untold", summary=summary),)
    first = memory.get(_FIRST)
    if first is None:
        memory.put(_FIRST, first := now)
    told = _read_told(memory)
    if (repaired := machine.repaired(memory.check)) is not None:
        told = {subject: _doubt(each, repaired) for subject, each in told.items()}
    own = told.pop(memory.check, None)
    last = memory.get(_LAST)
    findings = [_judge_own(options, memory.check, own, since=first, last=last, now=now)]
    findings += [
        judge(subject, each, now)
        for subject, each in told.items()
        if not _is_stale(options, each, now)
    ]
    return tuple(findings)


def _doubt(told: _Told, repaired: Instant) -> _Told:
    """What failed before a repair may be well since: only a new report can tell."""
    report = told.report
    if report.status not in (Status.WARNING, Status.CRITICAL) or told.at > repaired:
        return told
    summary = f"it was repaired, and nothing was reported since; before: {report.summary}"
    return replace(
        told,
        report=replace(report, status=Status.UNKNOWN, cause="unclear", summary=summary),
    )


def judge(subject: str, told: _Told, now: Instant) -> Finding:
    """The finding on what was reported of one subject."""
    report = told.report
    said = report.summary or {
        Status.OK: "reported to be well",
        Status.UNKNOWN: "reported to be unclear",
    }.get(report.status, "reported to fail")
    return Finding(
        subject=subject,
        status=report.status,
        cause=report.cause,
        summary=said,
        measurements={**report.measurements, "reported_seconds": max(0.0, now - told.at)},
        facts={**report.facts, "Reported by": told.by},
        since=told.at if report.since is None else min(report.since, told.at),
        resource=f"report:{subject}",
    )


def _judge_own(
    options: PushOptions,
    name: str,
    own: _Told | None,
    *,
    since: Instant,
    last: Instant | None,
    now: Instant,
) -> Finding:
    """The finding on the check itself: what was said of it, or that nothing was."""
    expected = options.expect_every
    quiet = now - (since if last is None else last)
    if own is not None:
        finding = judge(name, own, now)
    else:
        summary = "nothing was reported yet" if last is None else "all reports were of its subjects"
        if last is None and expected is not None and quiet <= expected:
            summary = f"{summary}; it is due in {format_duration(expected - quiet)}"
        finding = Finding(
            subject=name, status=Status.OK, summary=summary, resource=f"report:{name}"
        )
    if expected is None or quiet <= expected or finding.status is Status.CRITICAL:
        return finding
    words = f"nothing was reported for {format_duration(quiet)}"
    return replace(
        finding,
        status=Status(options.silent),
        cause="silent",
        summary=f"{words}; it should be every {format_duration(expected)}",
        facts={**finding.facts, **({"Last report": finding.summary} if own else {})},
        since=(since if last is None else last) + expected,
    )


async def gather(_options: PushOptions, finding: Finding, machine: Machine) -> tuple[Evidence, ...]:
    """What was reported, with the output that came with it."""
    told = _read_told(machine.memory).get(finding.subject)
    if told is None:
        return ()
    report = told.report
    lines = [f"Status: {report.status}", f"Summary: {report.summary}", f"By: {told.by}"]
    lines += [f"{name}: {value}" for name, value in report.facts.items()]
    items = [Evidence(title=f"Report on {finding.subject}", text="\n".join(lines))]
    if report.output:
        items.append(Evidence(title=f"Output of {finding.subject}", text=report.output))
    return tuple(items)


# Alertmanager


def wants(options: PushOptions, alert: Alert) -> bool:
    """Whether an alert is a report for this check. No labels never mean all alerts."""
    return bool(options.alerts) and all(
        alert.labels.get(name) == value for name, value in options.alerts.items()
    )


def read_alert(options: PushOptions, alert: Alert) -> Report:
    """An alert as a report.

    Critical is what carries `severity: critical`; `none` and `info` say that nothing is wrong, as
    the alert does that fires for ever to show that alerts arrive.
    """
    name = alert.labels.get("alertname", "alert")
    severity = alert.labels.get("severity", "").lower()
    status = Status.CRITICAL if severity == "critical" else Status.WARNING
    if not alert.firing or severity in ("none", "info"):
        status = Status.OK
    cause = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "-", name).lower().strip("-")
    said = (alert.annotations.get(key, "") for key in ("summary", "description", "message"))
    return Report(
        status=status,
        subject=_name_alert(options, alert, name),
        cause=cause if cause in options.causes else "",
        summary=next((text for text in said if text), name),
        facts={
            **{f"Label {key}": value for key, value in list(alert.labels.items())[:20]},
            **({"Link": alert.link} if alert.link else {}),
        },
        since=alert.since if alert.firing else None,
    )


def _name_alert(options: PushOptions, alert: Alert, name: str) -> str:
    """`HighLatency instance=web1 job=shop`: the same for the same labels."""
    told = _TOLD | options.alerts.keys()
    rest = [f"{key}={value}" for key, value in sorted(alert.labels.items()) if key not in told]
    text = " ".join([name, *rest])
    if len(text) <= _SUBJECT:
        return text
    return f"{text[:150]}… {alert.fingerprint[:40]}"


PUSH = CheckType(
    name="push",
    summary="Somebody else reports how something is; for too long a silence is a finding.",
    model=PushOptions,
    look=look,
    causes=CAUSES,
    measurements=MEASUREMENTS,
    gather=gather,
    defaults={"confirm": "1 of 1", "timeout": "5s"},
    own_causes=lambda options: frozenset(options.causes),
)
