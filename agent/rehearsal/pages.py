"""Two audits held beside each other: what the candidate's pages have that the baseline's do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.audit.result import Audit, Defect, Seen
from agent.core.model import Status
from agent.rehearsal.verdict import Gate, Outcome, count_of

#: A page may differ so much in size, as a share and in bytes, before it is named.
SIZE_SHARE, SIZE_BYTES = 0.5, 2_000
_CASES = 20
_WELL = ("fine", "redirect")


@dataclass(frozen=True, kw_only=True)
class Change:
    """What became of one page."""

    #: Path and query; the sides' names are left out.
    path: str
    what: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What differs between the pages of two sides."""

    #: Defects of the candidate that the baseline does not have.
    broken: tuple[Defect, ...] = ()
    #: And those that only warn.
    worse: tuple[Defect, ...] = ()
    #: Defects of the baseline that the candidate does not have, as paths.
    fixed: tuple[str, ...] = ()
    #: Pages of the baseline that nothing on the candidate leads to.
    gone: tuple[str, ...] = ()
    changed: tuple[Change, ...] = ()


def compare_audits(baseline: Audit, candidate: Audit) -> Comparison:
    """Holds both against each other, path by path."""
    before, after = _by_path(baseline), _by_path(candidate)
    known = {_defect_key(defect, baseline.site) for defect in baseline.found}
    new = [d for d in candidate.found if _defect_key(d, candidate.site) not in known]
    left = {_defect_key(defect, candidate.site) for defect in candidate.found}
    fixed = [d for d in baseline.found if _defect_key(d, baseline.site) not in left]
    return Comparison(
        broken=tuple(d for d in new if d.status is Status.CRITICAL),
        worse=tuple(d for d in new if d.status is not Status.CRITICAL),
        fixed=tuple(sorted({strip_site(d.target, baseline.site) for d in fixed})),
        gone=tuple(
            sorted(p for p, seen in before.items() if seen.fate in _WELL and p not in after)
        ),
        changed=tuple(
            Change(path=path, what=what)
            for path, seen in sorted(before.items())
            if path in after and (what := _find_change(seen, after[path]))
        ),
    )


def judge_pages(baseline: Audit, candidate: Audit) -> tuple[Gate, ...]:
    """The gates of the pages. Audits that did not come to their end conclude nothing."""
    unfinished = [a for a in (baseline, candidate) if not a.complete]
    if unfinished:
        why = "; ".join(f"{a.site}: {a.ending} ({a.why or a.trouble})" for a in unfinished)
        whole = Gate(
            name="pages",
            outcome=Outcome.INCONCLUSIVE,
            summary=f"Not every page could be asked: {why}.",
        )
    found = compare_audits(baseline, candidate)
    pages = candidate.counts.get("pages", 0)
    broken = Gate(
        name="pages",
        outcome=Outcome.FAIL if found.broken else Outcome.PASS,
        summary=f"Broken on the candidate and not on the baseline: "
        f"{count_of(len(found.broken), 'target')}."
        if found.broken
        else f"No page is broken that the baseline serves ({count_of(pages, 'page')}).",
        observed=float(len(found.broken)),
        limit=0.0,
        count=pages,
        cases=tuple(_tell(defect, candidate.site) for defect in found.broken[:_CASES]),
    )
    gone = [*found.gone]
    changes = Gate(
        name="changes of pages",
        outcome=Outcome.FAIL if gone or found.changed or found.worse else Outcome.PASS,
        blocking=False,
        summary=f"Pages gone: {len(gone)}, changed: {len(found.changed)}, with new warnings: "
        f"{len(found.worse)}, fixed: {len(found.fixed)}.",
        observed=float(len(gone) + len(found.changed) + len(found.worse)),
        count=pages,
        cases=tuple(
            [
                *(f"gone: {path}" for path in gone),
                *(f"{change.path}: {change.what}" for change in found.changed),
                *(_tell(defect, candidate.site) for defect in found.worse),
                *(f"fixed: {path}" for path in found.fixed),
            ][:_CASES]
        ),
    )
    # A page that is broken is broken, also where others were not reached.
    return (whole if unfinished and not found.broken else broken, changes)


def _tell(defect: Defect, site: str) -> str:
    by = f", linked from {strip_site(defect.referrers[0].page, site)}" if defect.referrers else ""
    return f"{strip_site(defect.target, site)}: {defect.why}{by}"


def _by_path(audit: Audit) -> Mapping[str, Seen]:
    return {
        strip_site(seen.url, audit.site): seen
        for seen in audit.urls
        if seen.url.startswith(_origin(audit.site))
    }


def _defect_key(defect: Defect, site: str) -> tuple[str, str, str]:
    return (defect.kind.value, defect.rule, strip_site(defect.target, site))


def _origin(site: str) -> str:
    scheme, _, rest = site.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/"


def strip_site(url: str, site: str) -> str:
    """An address without the side's own name: `/path?query`; other sites' stay whole."""
    origin = _origin(site)
    return f"/{url[len(origin) :]}" if url.startswith(origin) else url


def _find_change(before: Seen, after: Seen) -> str:
    """What differs beyond noise; empty for nothing. What is broken has a gate of its own."""
    if before.fate not in _WELL or after.fate not in _WELL:
        return ""
    if before.status != after.status:
        return f"answers {after.status}, not {before.status}"
    if before.type != after.type:
        return f"is {after.type or 'of no type'}, not {before.type or 'of no type'}"
    if before.title != after.title:
        return f"is called {after.title!r}, not {before.title!r}"
    larger = abs(after.size - before.size)
    if before.size and after.size and larger > max(SIZE_BYTES, SIZE_SHARE * before.size):
        return f"has {after.size} bytes, not {before.size}"
    return ""
