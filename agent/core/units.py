"""Durations and sizes as people write them."""

from __future__ import annotations

import re
from decimal import Decimal

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+")
_BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")


def parse_duration(text: str) -> float:
    """Seconds of `500ms`, `10s`, `1m30s`, `2h`, `7d`, `1w`. Raises ValueError with the way out."""
    if not _DURATION.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a duration: write a number and a unit, such as 500ms, 10s, 5m or 2h"
        )
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def write_duration(seconds: float) -> str:
    """A duration as a configuration writes it, which `parse_duration` reads back: `1m30s`."""
    if seconds != int(seconds) or seconds == 0:
        return f"{Decimal(repr(seconds)):f}s"
    rest, parts = int(seconds), []
    for unit in ("w", "d", "h", "m", "s"):
        count, rest = divmod(rest, int(_SECONDS[unit]))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def format_duration(seconds: float) -> str:
    """A duration for people, at most two units: `0.3 s`, `12 s`, `4 min 5 s`, `3 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds >= 0.05 else f"{seconds * 1000:.0f} ms"
    whole = round(seconds)
    parts = [
        (whole // 86400, "d"),
        (whole % 86400 // 3600, "h"),
        (whole % 3600 // 60, "min"),
        (whole % 60, "s"),
    ]
    first = next(i for i, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)


def parse_size(text: str) -> int:
    """Bytes of `512M`, `1.5G`, `1GiB`; a unit is a power of 1024. Raises ValueError."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is not a size: write a number and a unit, such as 100M, 1G or 1.5T"
        )
    return round(Decimal(found[1]) * _BYTES[found[2]])


def write_size(size: int) -> str:
    """A size as a configuration writes it, which `parse_size` reads back: `1G`, `1536M`."""
    for unit in ("T", "G", "M", "K"):
        count, rest = divmod(size, _BYTES[unit])
        if count and not rest:
            return f"{count}{unit}"
    return f"{size}B"


def format_size(size: float) -> str:
    """A size for people: `0 B`, `12.3 MB`, `1.5 GB`; a unit is a power of 1024, as df -h has it."""
    for unit in ("TB", "GB", "MB", "KB"):
        whole = _BYTES[unit[0]]
        if size >= whole:
            return (
                f"{size / whole:.3g} {unit}"
                if size < 999.5 * whole
                else f"{size / whole:.0f} {unit}"
            )
    return f"{size:.0f} B"
