"""An audit in the words that every report uses."""

from __future__ import annotations

from agent.audit.result import Audit, Defect, Referrer
from agent.core.units import format_duration, format_size


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 page`, `1,170 pages`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def tell_verdict(audit: Audit) -> str:
    """The first line of every report: it says it all."""
    found = len(audit.found)
    if audit.ending == "time":
        begin = f"INCOMPLETE - {audit.why}; {count(found, 'defect')} so far"
    elif not audit.complete:
        return f"NOT AUDITED - {audit.site}: {audit.why}"
    elif found:
        begin = f"{count(found, 'defect').upper()}"
        new = len(audit.new)
        if new != found:
            begin += f", {new:,} new" if new else ", none new"
    else:
        begin = "OK - nothing is wrong"
    known = len(audit.defects) - found
    if known:
        begin += f", {known:,} known"
    return f"{begin}; {tell_extent(audit)}"


def tell_extent(audit: Audit) -> str:
    counts = audit.counts
    return (
        f"{count(counts.get('urls', 0), 'address', 'addresses')}, "
        f"{count(counts.get('pages', 0), 'page')}, {format_size(counts.get('bytes', 0))} "
        f"in {format_duration(max(0.001, audit.ended - audit.began))}"
    )


def tell_defect(defect: Defect) -> str:
    """`missing: https://shop.example/old (404 Not Found)`."""
    rule = f" {defect.rule}" if defect.rule else ""
    return f"{defect.kind}{rule}: {defect.target} ({defect.why})"


def tell_referrer(referrer: Referrer) -> str:
    """`https://shop.example/ line 12 (image)`."""
    line = f" line {referrer.line}" if referrer.line else ""
    return f"{referrer.page}{line} ({referrer.role})"


def tell_more(defect: Defect) -> str:
    """How many refer to it beyond those that are named; empty for none."""
    more = defect.referrers_count - len(defect.referrers)
    return f"and {count(more, 'more page')}" if more > 0 else ""
