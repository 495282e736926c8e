"""What is wrong, from all that a crawl saw: one defect for each broken target. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from agent.audit.address import find_hint, show_address
from agent.audit.doubts import Doubts
from agent.audit.ledger import NAMED, Entry, Fate, Ledger, Mentions
from agent.audit.plan import Known, Plan, compile_glob
from agent.audit.result import Defect, Kind, Referrer, Seen
from agent.audit.scope import Scope
from agent.core.model import Instant, Status
from agent.core.units import format_duration, format_size

_RANK = {Status.CRITICAL: 0, Status.WARNING: 1}


@dataclass(frozen=True, kw_only=True)
class Sight:
    """All that a judgement is made from."""

    plan: Plan
    scope: Scope
    ledger: Ledger
    doubts: Doubts
    #: Host and port -> when its certificate ends.
    certificates: Mapping[str, Instant]
    now: Instant


def find_defects(sight: Sight) -> tuple[Defect, ...]:
    """Every defect, the worst first. Those of kind `blocked` may be none."""
    found = [
        *_judge_answers(sight),
        *_judge_redirects(sight),
        *_judge_fragments(sight),
        *_judge_budgets(sight),
        *_judge_writing(sight),
        *_judge_certificates(sight),
    ]
    marked = [
        mark_known(defect, sight.plan.known, sight.scope.site.root, sight.now) for defect in found
    ]
    return tuple(sorted(marked, key=_sort_key))


def _sort_key(defect: Defect) -> tuple[bool, int, int, str]:
    return (
        bool(defect.known),
        _RANK.get(defect.status, 2),
        -defect.referrers_count,
        defect.key,
    )


def _make(
    sight: Sight,
    kind: Kind,
    target: str,
    why: str,
    mentions: Iterable[Mentions] = (),
    *,
    hint: str = "",
    rule: str = "",
    status: Status | None = None,
) -> Defect:
    mentions = tuple(mentions)
    first = [mention for each in mentions for mention in each.first]
    # Several ways may lead there; what a browser would meet first stands first.
    first.sort(key=lambda mention: mention.page)
    referrers = tuple(
        Referrer(
            page=show_address(sight.ledger.entries[mention.page].url),
            line=mention.line or None,
            role=mention.role.value,
        )
        for mention in first[:NAMED]
    )
    return Defect(
        kind=kind,
        target=target,
        status=status or kind.status,
        why=why,
        hint=hint,
        rule=rule,
        referrers_count=sum(each.count for each in mentions),
        referrers=referrers,
    )


def _judge_answers(sight: Sight) -> Iterator[Defect]:
    """Addresses that failed each time, that are not let in, and that only look as if they worked.

    Who refers to what redirects there refers to it.
    """
    through: dict[int, list[Entry]] = {}
    for entry in sight.ledger.list(Fate.REDIRECT):
        final, _, circle = sight.ledger.follow(entry)
        if not circle and final is not entry:
            through.setdefault(final.number, []).append(entry)
    for entry in sight.ledger.entries:
        soft = sight.doubts.soft.get(entry.number)
        if entry.fate not in (Fate.BROKEN, Fate.BLOCKED) and soft is None:
            continue
        others = through.get(entry.number, [])
        kind = Kind.SOFT_404 if soft else _find_kind(entry)
        hint = find_hint(entry.place.target) if kind is Kind.MISSING else ""
        if not hint and others and not entry.mentions.count:
            hint = f"it is reached through {show_address(others[0].url)}, which redirects there"
        outside = not sight.scope.belongs(entry.place)
        yield _make(
            sight,
            kind,
            show_address(entry.url),
            soft or entry.why,
            [entry.mentions, *(other.mentions for other in others)],
            hint=hint,
            status=Status.WARNING if outside else None,
        )


def _find_kind(entry: Entry) -> Kind:
    if entry.fate is Fate.BLOCKED:
        return Kind.BLOCKED
    if entry.trouble:
        return Kind.TLS if entry.trouble == "tls" else Kind.UNANSWERED
    if entry.status < 400:
        return Kind.REDIRECTS
    return Kind.MISSING if entry.status < 500 else Kind.ERROR


def _judge_redirects(sight: Sight) -> Iterator[Defect]:
    most = sight.plan.redirects
    for entry in sight.ledger.list(Fate.REDIRECT):
        if entry.number in sight.doubts.fine_with_cookies or not entry.mentions.count:
            continue
        final, count, circle = sight.ledger.follow(entry)
        if circle:
            where = "itself" if final is entry and count == 1 else show_address(final.url)
            why = f"it redirects in a circle, back to {where}"
        elif count > most:
            why = f"it redirects {count} times, and browsers give up"
        else:
            continue
        yield _make(sight, Kind.REDIRECTS, show_address(entry.url), why, [entry.mentions])


def _judge_fragments(sight: Sight) -> Iterator[Defect]:
    for entry in sight.ledger.entries:
        for final, name in sight.ledger.find_lost(entry):
            why = "the page has no such place"
            if final is not entry:
                why = f"{show_address(final.url)}, where it redirects to, has no such place"
            target = f"{show_address(entry.url)}#{name}"
            yield _make(sight, Kind.FRAGMENT, target, why, [entry.fragments[name]])


def _judge_budgets(sight: Sight) -> Iterator[Defect]:
    plan = sight.plan
    for entry in sight.ledger.list(Fate.FINE, Fate.REDIRECT):
        shown = show_address(entry.url)
        if entry.number in sight.doubts.slow:
            why = (
                f"it takes {format_duration(entry.seconds)}, which is longer than "
                f"{format_duration(plan.slow)}"
            )
            yield _make(sight, Kind.SLOW, shown, why, [entry.mentions])
        page = entry.names is not None
        if plan.large and (page or entry.loaded) and (entry.size > plan.large or entry.cut):
            size = f"more than {format_size(plan.body)}" if entry.cut else format_size(entry.size)
            why = f"it has {size}; {format_size(plan.large)} are allowed"
            if entry.size > plan.large or plan.body >= plan.large:
                yield _make(sight, Kind.LARGE, shown, why, [entry.mentions])
        for cause, severity, why in entry.verdicts:
            own = cause != "sitemap"
            yield _make(
                sight,
                Kind.RULE if own else Kind.MALFORMED,
                shown,
                why,
                [entry.mentions],
                rule=cause if own else "",
                status=Status(severity),
            )


def _judge_writing(sight: Sight) -> Iterator[Defect]:
    for written, (why, hint, mentions) in sight.ledger.malformed.items():
        target = show_address(written[:500])
        yield _make(sight, Kind.MALFORMED, target, why, [mentions], hint=hint)
    for url, mentions in sight.ledger.mixed.items():
        why = "pages with TLS load it without, and browsers refuse to"
        hint = f"write https{url.removeprefix('http')}"
        yield _make(sight, Kind.MIXED, show_address(url), why, [mentions], hint=show_address(hint))


def _judge_certificates(sight: Sight) -> Iterator[Defect]:
    for authority, ends in sight.certificates.items():
        left = ends - sight.now
        if 0 <= left < sight.plan.certificate:
            days = int(left // 86400)
            why = f"its certificate ends in {days} day{'s' if days != 1 else ''}"
            yield _make(sight, Kind.CERTIFICATE, f"https://{authority}/", why)


# What somebody knows of


def mark_known(defect: Defect, known: Iterable[Known], root: str, now: Instant) -> Defect:
    """The defect, with why it is not to be spoken of, or that this time is over."""
    lapsed = ""
    for each in known:
        if not _covers(each, defect, root):
            continue
        if now < each.until:
            return replace(defect, known=each.reason)
        lapsed = each.reason
    return replace(defect, lapsed=lapsed) if lapsed else defect


def _covers(known: Known, defect: Defect, root: str) -> bool:
    if known.kinds and defect.kind not in known.kinds:
        return False
    target = root + known.target if known.target.startswith("/") else known.target
    if not compile_glob(target)(defect.target):
        return False
    if not known.page:
        return True
    page = root + known.page if known.page.startswith("/") else known.page
    # Others may refer to it that are not named here: then it is not that one page's affair.
    return defect.referrers_count <= len(defect.referrers) and all(
        compile_glob(page)(referrer.page) for referrer in defect.referrers
    )


# Addresses


def list_seen(sight: Sight) -> Iterator[Seen]:
    """Every address, in the order in which it was found."""
    for entry in sight.ledger.entries:
        location = entry.location
        if isinstance(location, int):
            location = sight.ledger.entries[location].url
        yield Seen(
            url=show_address(entry.url),
            fate=entry.fate.value,
            status=entry.status,
            type=entry.kind,
            title=entry.title,
            size=entry.size,
            seconds=round(entry.seconds, 4),
            depth=entry.depth,
            redirect=show_address(location) if location else "",
            referrers_count=entry.mentions.count,
            why=entry.why,
            tries=entry.tries,
        )
