"""What a look saw, made fit for everything behind it: the store, the API, messages, decisions.

A look reads what others wrote: names of files, logs, answers of servers. Nothing behind this place
has to reckon with text that no UTF-8 can hold, with numbers that are none, or without an end.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import replace

from agent.core.model import Evidence, Finding, Instant
from agent.core.text import clean_text, cut

#: Longest texts, in characters; most facts, measurements and resources of one finding.
LONGEST_SUBJECT = 300
LONGEST_WORD = 80
LONGEST_SENTENCE = 1_000
LONGEST_FACT = 4_000
LONGEST_EVIDENCE = 64_000
MOST = 100

#: Names of files that are no UTF-8 come as lone surrogates (os.fsdecode).
_SURROGATES = re.compile("[\ud800-\udfff]")


def clean_finding(finding: Finding, now: Instant) -> Finding:
    """The finding with every text and number as it may be; itself, where nothing had to change.

    `now` is when its look ended: what it says to have begun later did not.
    """
    since = finding.since
    cleaned = replace(
        finding,
        subject=_clean_name(finding.subject),
        cause=clean_line(finding.cause, LONGEST_WORD),
        summary=clean_line(finding.summary),
        measurements=_clean_numbers(finding.measurements),
        facts={
            clean_line(name, LONGEST_WORD): _clean(text, LONGEST_FACT)
            for name, text in list(finding.facts.items())[:MOST]
        },
        since=since if since is not None and 0 <= since <= now else None,
        transition=clean_line(finding.transition, LONGEST_WORD),
        resource=_clean_name(finding.resource),
        implicates=tuple(_clean_name(name) for name in finding.implicates[:MOST]),
    )
    return finding if cleaned == finding else cleaned


def clean_line(text: str, length: int = LONGEST_SENTENCE) -> str:
    """One line of text, at most so long."""
    return cut(" ".join(_clean(text, 4 * length).split()), length)


def clean_evidence(evidence: Evidence) -> Evidence:
    """Evidence with text that can be kept and shown."""
    return Evidence(
        title=clean_line(evidence.title, 2 * LONGEST_WORD),
        text=_clean(evidence.text, LONGEST_EVIDENCE),
    )


def _clean(text: str, length: int) -> str:
    if len(text) <= length and text.isascii() and text.isprintable():
        return text
    # Cut twice: the first bounds the work.
    return cut(clean_text(_SURROGATES.sub("\ufffd", cut(text, length))), length)


def _clean_name(name: str) -> str:
    """A name that identifies something: what has to be changed still differs from others."""
    cleaned = re.sub(r"[\n\t]", " ", _clean(name, LONGEST_SUBJECT))
    if cleaned == name:
        return name
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{cut(cleaned, LONGEST_SUBJECT - 11)} ({mark})"


def _clean_numbers(numbers: Mapping[str, float]) -> dict[str, float]:
    """Those that are numbers: of what has no value, or no end, nothing can be said."""
    kept: dict[str, float] = {}
    for name, number in list(numbers.items())[:MOST]:
        try:
            value = float(number)
        except (TypeError, ValueError, OverflowError):
            continue
        if math.isfinite(value):
            kept[clean_line(name, LONGEST_WORD)] = value
    return kept
