"""`type: site`: every page and resource of a site is there.

A look is a whole audit (`agent.audit`), made in a child and politely, so it takes minutes. What is
told of is what changed: the child keeps a book from one audit to the next, and says under which
subject each defect is told of (`agent.audit.changes`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from agent.audit.client import order_audit
from agent.audit.order import Order
from agent.audit.plan import Known, Plan, Rule, choose_pace
from agent.audit.result import MEANINGS, Audit, Defect, Kind
from agent.audit.words import count, tell_defect, tell_more, tell_referrer, tell_verdict
from agent.checks.check import CheckOptions, CheckType
from agent.checks.peers import REFERENCE, Address, Reference, WebUrl, find_blame
from agent.checks.values import Duration, Size, check_cause
from agent.core.model import Finding, Instant, Seconds, Status
from agent.core.units import format_duration
from agent.host.conditions import parse_condition
from agent.host.connection import Failure, Trouble
from agent.host.machine import Machine
from agent.host.url import parse_url

CAUSES: Mapping[str, str] = {
    "down": "The site does not answer, or no longer: nothing else is known of it.",
    "closed": "The site lets the audit in nowhere, or its robots.txt does not.",
    "elsewhere": "It redirects to another site, which is not audited.",
    "incomplete": "The time was over before everything was asked.",
    "unseen": "It was broken, and the last audit did not come so far.",
    "offline": "This host itself is not connected; nothing is known of the site.",
    **{kind.value: MEANINGS[kind] for kind in Kind if kind is not Kind.RULE},
}

#: What is left of `timeout` for the child to start and to end by itself: a share, at most so much.
_MARGIN_SHARE, _MARGIN_SECONDS = 0.25, 20.0
_COUNTED = ("urls", "pages", "requests", "broken", "blocked", "transient", "unasked")

MEASUREMENTS = {
    "urls_count": "Addresses of the site that the audit knows.",
    "pages_count": "Pages that were read.",
    "requests_count": "Requests that were made.",
    "broken_count": "Addresses that failed each time.",
    "blocked_count": "Addresses that did not let the audit in.",
    "transient_count": "Addresses that failed at first and not when asked again.",
    "unasked_count": "Addresses that were known and not asked, for want of time.",
    "audit_seconds": "How long the audit took.",
    "defects_count": "Of a problem: its defects.",
    "regressed_count": "Of a problem: its defects that the audit before had not.",
    "referrers_count": "Of a problem: references to what is broken.",
}

#: Defects of one finding that are described.
_MOST_DESCRIBED = 10
_HOST = re.compile(r"[A-Za-z0-9_.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_RANK = (Status.OK, Status.UNKNOWN, Status.WARNING, Status.CRITICAL)


def _check_glob(text: str) -> str:
    if not text.startswith(("/", "*")):
        raise ValueError(f"{text!r} is no pattern of paths: begin with `/`, such as /docs/**")
    return text


def _check_host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError(f"{text!r} is no host: write for example cdn.example or cdn.example:8443")
    return text


def _check_condition(text: str) -> str:
    parse_condition(text)
    return text


def _check_cause(name: str) -> str:
    return check_cause(name, known=CAUSES, kind="site")


def _check_target(text: str) -> str:
    if not text.startswith(("/", "http://", "https://")):
        raise ValueError(
            f"{text!r} is no pattern of addresses: begin with `/` or `https://`, such as /old/**"
        )
    return text


def _check_end(text: str) -> str:
    read_end(text)
    return text


def read_end(text: str) -> Instant:
    """The end of a day `2026-12-31` in UTC, or an instant of RFC 3339. Raises ValueError."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no date: write for example 2026-12-31") from error
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        at += timedelta(days=1)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


_Glob = Annotated[str, AfterValidator(_check_glob)]
_Conditions = Mapping[
    Annotated[str, AfterValidator(_check_cause)], Annotated[str, AfterValidator(_check_condition)]
]


class RuleOptions(BaseModel):
    """What the answers of some addresses must not be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    urls: _Glob = Field(description="A pattern of paths with their query: `/product/**`.")
    critical: _Conditions = Field(
        default_factory=dict, description="Cause: the condition that is true when users are failed."
    )
    warning: _Conditions = Field(
        default_factory=dict, description="Cause: the condition that is true when it needs a look."
    )


class KnownOptions(BaseModel):
    """Defects that somebody knows of and does not want to hear of, for a time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: Annotated[str, AfterValidator(_check_target)] = Field(
        description="A pattern of broken addresses: `/old/**` of the site, or a whole address."
    )
    reason: str = Field(min_length=1, description="Why they are left as they are.")
    until: Annotated[str, AfterValidator(_check_end)] = Field(
        description="The last day of it, `2026-12-31`: after that they are spoken of again."
    )
    kinds: tuple[Kind, ...] = Field(default=(), description="Only these kinds; left out: all.")
    page: Annotated[str, AfterValidator(_check_target)] | None = Field(
        default=None, description="Only where no page refers to it but those of this pattern."
    )


class SiteOptions(CheckOptions):
    """A site, how it is asked, and what is wrong in it."""

    type: Literal["site"]
    url: WebUrl = Field(repr=False, description="Where the audit begins: the first page.")
    connect: Address | None = Field(
        default=None,
        description="The address, and the port if it is another one, to connect to instead of "
        "the name's own: `127.0.0.1:443`. The Host header and TLS keep the name.",
    )
    hosts: tuple[Annotated[str, AfterValidator(_check_host)], ...] = Field(
        default=(), description="Further hosts that belong to the site: `cdn.example`."
    )
    only: tuple[_Glob, ...] = Field(
        default=(), description="Only pages of these paths; what they load is asked wherever it is."
    )
    skip: tuple[_Glob, ...] = Field(default=(), description="Paths that are not asked.")
    external: bool = Field(
        default=False, description="Ask for what is linked on other sites too, and do not read it."
    )
    robots: bool = Field(default=True, description="Keep to robots.txt.")
    fragments: bool = Field(
        default=True, description="Whether a page must have the place that a link leads to in it."
    )
    also: tuple[Literal["data-src", "svg-use", "og-image"], ...] = Field(
        default=(), description="Follow these too, which only some sites use for addresses."
    )
    max_rate: float = Field(
        default=Plan.max_rate, ge=0, le=10_000, description="Requests a second to one host; 0: any."
    )
    at_once: int | None = Field(
        default=None, ge=1, le=64, description="Requests at once to one host."
    )
    tls: Literal["verify", "no-verify"] = Field(
        default="verify", description="Whether certificates must be good."
    )
    ca_file: Path | None = Field(
        default=None, description="Certificates of the authorities to trust, PEM."
    )
    credentials: Path | None = Field(
        default=None,
        description="A file of header lines, `Cookie: a=b`, that only its owner may read. They are "
        "sent to the site, and to nobody else.",
    )
    pages: int = Field(
        default=Plan.pages, ge=1, le=1_000_000, description="Addresses that are asked at most."
    )
    depth: int = Field(default=Plan.depth, ge=0, le=1000, description="Clicks from the first page.")
    body_limit: Size = Field(default=Plan.body, description="What is read of one body at most.")
    variants: int = Field(
        default=Plan.variants,
        ge=1,
        le=100_000,
        description="Addresses of one path that have the same names in their query, at most.",
    )
    slow: Duration | None = Field(
        default=Plan.slow, description="An answer that takes longer each time; null: none does."
    )
    large: Size | None = Field(
        default=Plan.large, description="A page, or what it loads, of more than this; null: none."
    )
    certificate: Duration | None = Field(
        default=Plan.certificate, description="How long a certificate must last; null: no matter."
    )
    rules: tuple[RuleOptions, ...] = Field(
        default=(), max_length=1000, description="What answers must not be, by their address."
    )
    known: tuple[KnownOptions, ...] = Field(
        default=(), max_length=1000, description="Defects that are left as they are for a time."
    )
    reference: Reference | None = REFERENCE
    deployed: Path | None = Field(
        default=None,
        description="What each deployment replaces or touches: `/srv/shop/current`. A finding then "
        "says which deployment it came with.",
    )


def make_plan(options: SiteOptions) -> Plan:
    """The audit that a check asks for."""
    assert options.timeout is not None  # noqa: S101 - the configuration filled it in
    return Plan(
        url=options.url,
        connect=options.connect or "",
        hosts=options.hosts,
        only=options.only,
        skip=options.skip,
        external=options.external,
        robots=options.robots,
        fragments=options.fragments,
        also=options.also,
        verify=options.tls == "verify",
        ca_file=str(options.ca_file or ""),
        credentials=str(options.credentials or ""),
        pages=options.pages,
        depth=options.depth,
        body=options.body_limit,
        seconds=options.timeout - _find_margin(options.timeout),
        variants=options.variants,
        slow=options.slow or 0.0,
        large=options.large or 0,
        certificate=options.certificate or 0.0,
        rules=tuple(
            Rule(urls=rule.urls, critical=dict(rule.critical), warning=dict(rule.warning))
            for rule in options.rules
        ),
        known=tuple(
            Known(
                target=each.target,
                reason=each.reason,
                until=read_end(each.until),
                kinds=tuple(kind.value for kind in each.kinds),
                page=each.page or "",
            )
            for each in options.known
        ),
        **choose_pace(options.max_rate, options.at_once),
    )


def _find_margin(timeout: Seconds) -> Seconds:
    return min(_MARGIN_SECONDS, _MARGIN_SHARE * timeout)


def _name_scope(options: SiteOptions) -> str:
    """What is remembered of one way of asking says nothing of another."""
    scope = (options.url, options.connect, options.hosts, options.only, options.external)
    return hashlib.sha256(json.dumps(scope).encode()).hexdigest()[:16]


async def look(options: SiteOptions, machine: Machine) -> tuple[Finding, ...]:
    """A finding on the site as a whole, and one for each problem in it.

    Raises Unavailable when no audit could be made: its child died or hung.
    """
    assert options.timeout is not None  # noqa: S101 - the configuration filled it in
    scope = _name_scope(options)
    book = machine.memory.get("book") if machine.memory.get("scope") == scope else None
    order = Order(plan=make_plan(options), book=book, urls=False)
    audit = await order_audit(order, grace=0.8 * _find_margin(options.timeout))
    machine.memory.put("scope", scope)
    machine.memory.put("book", audit.book)
    machine.audited(audit)
    own_fault = ""
    if audit.trouble:
        failure = Failure(trouble=Trouble(audit.trouble), why=audit.why, addresses=audit.addresses)
        own_fault = await find_blame(options.reference, options.timeout, failure)
    return judge(options, audit, own_fault=own_fault, deployed=_find_deployed(options, machine))


def _find_deployed(options: SiteOptions, machine: Machine) -> Instant | None:
    """When the site was last deployed, if anybody says so."""
    if options.deployed is not None:
        try:
            # Not where a link leads to: a release may be older than its deployment.
            return options.deployed.lstat().st_mtime
        except OSError:
            return None
    return machine.deployed()


def judge(
    options: SiteOptions, audit: Audit, *, own_fault: str = "", deployed: Instant | None = None
) -> tuple[Finding, ...]:
    """The findings that follow from an audit."""
    subject = str(parse_url(options.url))
    findings = [_judge_whole(subject, audit, own_fault)]
    for name, numbers in audit.groups.items():
        defects = [audit.defects[number] for number in numbers]
        if defects:
            findings.append(_judge_group(name, defects, audit, deployed))
        else:
            # It was broken before, and this audit did not come so far.
            summary = f"{name}: it is not known whether it is still broken: {audit.why}"
            findings.append(
                Finding(subject=name, status=Status.UNKNOWN, cause="unseen", summary=summary)
            )
    findings += [
        Finding(subject=name, status=Status.OK, summary=f"{name} is whole again")
        for name in audit.mended
    ]
    return tuple({finding.subject: finding for finding in reversed(findings)}.values())


def _judge_whole(subject: str, audit: Audit, own_fault: str) -> Finding:
    status, cause = {
        "complete": (Status.OK, ""),
        "time": (Status.UNKNOWN, "incomplete"),
        "down": (Status.CRITICAL, "down"),
        "blocked": (Status.UNKNOWN, "closed"),
        "elsewhere": (Status.WARNING, "elsewhere"),
    }[audit.ending]
    summary = tell_verdict(audit)
    if cause == "down":
        summary = f"{subject}: {audit.why}"
    if cause == "down" and own_fault:
        status, cause = Status.UNKNOWN, "offline"
        summary = f"cannot tell of {subject}: this host is offline, {own_fault}"
    measurements = {f"{name}_count": float(audit.counts.get(name, 0)) for name in _COUNTED}
    return Finding(
        subject=subject,
        status=status,
        cause=cause,
        summary=summary,
        measurements={**measurements, "audit_seconds": audit.ended - audit.began},
        facts={f"Note {number}": note for number, note in enumerate(audit.notes[:5], 1)},
    )


def _judge_group(
    subject: str, defects: list[Defect], audit: Audit, deployed: Instant | None
) -> Finding:
    worst = max(defects, key=lambda defect: (_RANK.index(defect.status), defect.referrers_count))
    if len(defects) == 1:
        summary = f"{worst.target}: {worst.why}"
        if worst.hint:
            summary += f"; {worst.hint}"
    else:
        summary = f"{count(len(defects), 'defect')} of {audit.site}, such as {tell_defect(worst)}"
    came = _tell_deployment(defects, audit, deployed)
    return Finding(
        subject=subject,
        status=worst.status,
        cause=worst.rule or worst.kind.value,
        summary=summary + (f"; {came}" if came else ""),
        measurements={
            "defects_count": float(len(defects)),
            "regressed_count": float(sum(defect.regressed for defect in defects)),
            "referrers_count": float(sum(defect.referrers_count for defect in defects)),
        },
        facts=dict(_describe(defects)),
    )


def _tell_deployment(defects: list[Defect], audit: Audit, deployed: Instant | None) -> str:
    """With which deployment it came: it was fine before, and was seen first after it."""
    if deployed is None or audit.compared is None:
        return ""
    since = min(defect.since or audit.began for defect in defects)
    if audit.compared < deployed <= since:
        return f"it came after the deployment {format_duration(since - deployed)} earlier"
    return ""


def _describe(defects: list[Defect]) -> list[tuple[str, str]]:
    facts = []
    for number, defect in enumerate(defects[:_MOST_DESCRIBED], 1):
        parts = [tell_defect(defect), *([defect.hint] if defect.hint else [])]
        parts += [f"from {tell_referrer(each)}" for each in defect.referrers]
        parts += [more] if (more := tell_more(defect)) else []
        facts.append((f"Defect {number}", "; ".join(parts)))
    if len(defects) > _MOST_DESCRIBED:
        facts.append(("And", count(len(defects) - _MOST_DESCRIBED, "more defect")))
    return facts


SITE = CheckType(
    name="site",
    summary="Every page and resource of a site is there.",
    model=SiteOptions,
    look=look,
    causes=CAUSES,
    measurements=MEASUREMENTS,
    identity=("url", "connect"),
    # A look is an audit, which takes minutes and asks again itself before it says anything.
    defaults={"every": "15m", "timeout": "10m", "confirm": "1 of 1", "stable_for": "15m"},
    own_causes=lambda options: frozenset(
        cause for rule in options.rules for cause in (*rule.critical, *rule.warning)
    ),
)
