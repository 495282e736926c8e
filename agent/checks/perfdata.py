"""What monitoring plugins print: text, and performance data behind a `|`.

Monitoring Plugins Development Guidelines (https://www.monitoring-plugins.org/doc/guidelines.html):
"Plugin Output for Nagios", "Threshold and Ranges", "Performance data".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

#: Values that are read, words that are told as unread, and characters that are looked at: what a
#: plugin prints must not cost more than the plugin.
_MOST, _MOST_UNREAD, _LONGEST = 200, 10, 64 * 1024

#: A label in quotes, in which two quotes are one, or one without quotes; then its value.
_LABEL = re.compile(r"\s*(?:'((?:[^']|'')*)'|([^\s='][^='\s]*))=(\S*)")
_WORD = re.compile(r"\s*(\S+)")
#: Decimals as the guidelines have them, and as printf(3) and some locales write them beyond that.
_NUMBER = r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?"
_VALUE = re.compile(rf"({_NUMBER})([^\d.,;+-]\S*)?")
_RANGE = re.compile(rf"(@)?(?:(~|{_NUMBER})?:)?({_NUMBER})?")

#: Units with the unit that a measurement's name ends in, and the factor to it.
_UNITS = {
    "": ("count", 1.0),
    "c": ("count", 1.0),
    "%": ("percent", 1.0),
    "s": ("seconds", 1.0),
    "ms": ("seconds", 1e-3),
    "us": ("seconds", 1e-6),
    "ns": ("seconds", 1e-9),
    "b": ("bytes", 1.0),
    **{f"{p}b": ("bytes", 1000.0 ** (n + 1)) for n, p in enumerate("kmgtp")},
    **{f"{p}ib": ("bytes", 1024.0 ** (n + 1)) for n, p in enumerate("kmgtp")},
}


@dataclass(frozen=True, kw_only=True)
class Range:
    """A threshold: alerts for values outside of it, or (`inside`) within it, ends included."""

    start: float = 0.0
    end: float = math.inf
    inside: bool = False

    def alerts(self, value: float) -> bool:
        return (self.start <= value <= self.end) is self.inside

    def __str__(self) -> str:
        begin, end = (f"{number:g}" for number in (self.start, self.end))
        if self.inside:
            return f"within {begin} to {end}"
        if self.start == -math.inf:
            return f"over {end}"
        if self.end == math.inf:
            return f"under {begin}"
        return f"over {end}" if self.start == 0 else f"outside {begin} to {end}"


@dataclass(frozen=True, kw_only=True)
class Datum:
    """One value of performance data."""

    label: str
    #: None: the plugin could not tell (`U`).
    value: float | None
    unit: str = ""
    warning: Range | None = None
    critical: Range | None = None
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a plugin printed."""

    #: The first line, without performance data.
    summary: str
    #: The lines behind it, without performance data.
    details: str
    data: tuple[Datum, ...]
    #: Performance data that cannot be read.
    unread: tuple[str, ...]


def parse_output(text: str) -> Output:
    """Splits what a plugin printed, as the guidelines have it; it never fails.

    After the first line's `|` come performance data; of the lines behind, those before the next
    `|` are text, and all that follows is performance data again.
    """
    first, _, rest = text.strip().partition("\n")
    summary, _, performance = first.partition("|")
    details, _, more = rest.partition("|")
    data, unread = parse_performance(f"{performance}\n{more}")
    return Output(summary=summary.strip(), details=details.strip(), data=data, unread=unread)


def parse_performance(text: str) -> tuple[tuple[Datum, ...], tuple[str, ...]]:
    """The values, and what cannot be read of it, both up to a limit."""
    data: list[Datum] = []
    unread: list[str] = []
    text, at = text[:_LONGEST].rstrip(), 0
    while at < len(text) and len(data) < _MOST and len(unread) < _MOST_UNREAD:
        found = _LABEL.match(text, at)
        if found is None:
            # One word that is no pair does not hide those behind it.
            word = _WORD.match(text, at)
            assert word is not None  # noqa: S101 - there is one, as the end is no space
            unread.append(word[1][:80])
            at = word.end()
            continue
        at = found.end()
        label = found[2] if found[1] is None else found[1].replace("''", "'")
        datum = _read_datum(label, found[3])
        if datum is None:
            unread.append(found[0].strip()[:80])
        else:
            data.append(datum)
    return tuple(data), tuple(unread)


def _read_datum(label: str, text: str) -> Datum | None:
    value, warning, critical, minimum, maximum = [*text.split(";"), "", "", "", ""][:5]
    if value == "U":
        return Datum(label=label, value=None)
    found = _VALUE.fullmatch(value)
    if found is None:
        return None
    return Datum(
        label=label,
        value=_read_number(found[1]),
        unit=found[2] or "",
        warning=parse_range(warning),
        critical=parse_range(critical),
        minimum=_read_bound(minimum),
        maximum=_read_bound(maximum),
    )


def parse_range(text: str) -> Range | None:
    """A threshold of performance data (guidelines, "Threshold and ranges"); None for none.

    `10` is over 10 or below 0, `10:` below 10, `~:10` over 10, `10:20` outside, `@10:20` within.
    """
    found = _RANGE.fullmatch(text.strip())
    if found is None or (found[2] is None and found[3] is None):
        return None
    start, end = 0.0, math.inf
    if found[2] is not None:
        start = -math.inf if found[2] == "~" else _read_number(found[2])
    if found[3] is not None:
        end = _read_number(found[3])
    return Range(start=start, end=end, inside=found[1] is not None) if start <= end else None


def _read_bound(text: str) -> float | None:
    found = re.match(_NUMBER, text)
    return _read_number(found[0]) if found else None


def _read_number(text: str) -> float:
    return float(text.replace(",", "."))


def measure(data: Iterable[Datum], taken: Iterable[str] = ()) -> dict[str, float]:
    """Performance data as measurements: `'/var'=10MB` is `var_bytes: 10000000`.

    A name is the label in small letters and the unit; one that is taken gets a number.
    """
    used = set(taken)
    measured: dict[str, float] = {}
    for datum in data:
        if datum.value is None:
            continue
        unit, factor = _UNITS.get(datum.unit.lower(), (_make_word(datum.unit), 1.0))
        value = datum.value * factor
        if not math.isfinite(value):
            continue
        base = _make_word(datum.label) or "value"
        name, number = f"{base}_{unit or 'count'}", 1
        while name in used:
            number += 1
            name = f"{base}_{number}_{unit or 'count'}"
        used.add(name)
        measured[name] = value
    return measured


def _make_word(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:60]


def tell_beyond(data: Iterable[Datum]) -> str:
    """Which values alert, in words; empty when none does."""
    told = []
    for datum in data:
        value = datum.value
        if value is None:
            continue
        for word, limit in (("critical", datum.critical), ("warning", datum.warning)):
            if limit is not None and limit.alerts(value):
                told.append(f"{datum.label} = {value:g}{datum.unit} ({word}: {limit})")
                break
    return ", ".join(told)
