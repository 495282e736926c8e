"""Plots of a rehearsal as SVG, to stand within a page: no script, no request."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from agent.rehearsal.statistics import quantile
from agent.rehearsal.verdict import Pair

_WIDTH, _HEIGHT = 880, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 14, 34
#: Points of a curve, and of a scatter.
_STEPS, _POINTS = 200, 2_000


@dataclass(frozen=True, kw_only=True)
class Span:
    """A time within a plot, with what happened in it."""

    name: str
    #: pass, fail or inconclusive.
    tone: str
    began: float
    ended: float
    steps: Mapping[str, float] = field(default_factory=dict)


def plot_distributions(pairs: Sequence[Pair]) -> str:
    """What share of requests was answered within which time, for both sides."""
    sides = {
        "baseline": sorted(p.baseline.seconds for p in pairs if not p.baseline.failed),
        "candidate": sorted(p.candidate.seconds for p in pairs if not p.candidate.failed),
    }
    known = [value for values in sides.values() for value in values if value > 0]
    if not known:
        return "<p>No request was answered.</p>"
    low, high = _widen(quantile(known, 0.001), quantile(known, 0.999))
    parts = [_axes_of_time(low, high), _axis_of_share()]
    for name, values in sides.items():
        if not values:
            continue
        points = []
        for step in range(_STEPS + 1):
            share = step / _STEPS
            at = min(high, max(low, quantile(values, share)))
            points.append(f"{_log(at, low, high):.1f},{_share(share):.1f}")
        parts.append(f'<polyline class="{name}" points="{" ".join(points)}"/>')
    return _frame("Share of requests answered within a time", parts, ("baseline", "candidate"))


def plot_timeline(pairs: Sequence[Pair], spans: Sequence[Span] = ()) -> str:
    """When each request was asked of the candidate, how long it took, and what failed.

    `spans` are drawn behind them: when a fault was there.
    """
    if not pairs:
        return "<p>No request was asked.</p>"
    stride = max(1, len(pairs) // _POINTS)
    shown = [p for n, p in enumerate(pairs) if n % stride == 0 or p.candidate.failed]
    times = [p.candidate.seconds for p in shown if p.candidate.seconds > 0] or [0.001]
    low, high = _widen(quantile(times, 0.0), quantile(times, 1.0))
    end = max(pair.at for pair in pairs) or 1.0
    inner = _WIDTH - _LEFT - _RIGHT
    parts = [_draw_span(span, end, inner) for span in spans]
    for value in _ticks(low, high):
        y = _log_up(value, low, high)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_tell(value)}</text>'
        )
    for step in range(5):
        at = end * step / 4
        x = _LEFT + inner * step / 4
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{at:.0f} s</text>')
    for pair in shown:
        x = _LEFT + inner * pair.at / end
        seconds = min(high, max(low, pair.candidate.seconds))
        if pair.candidate.failed:
            said = escape(f"{pair.target}: {pair.candidate.status or pair.candidate.error}")
            parts.append(
                f'<path class="failed" d="M{x - 4:.1f} {_TOP + 4}l8 8m0 -8l-8 8">'
                f"<title>{said}</title></path>"
            )
        else:
            y = _log_up(seconds, low, high)
            parts.append(f'<circle class="candidate" cx="{x:.1f}" cy="{y:.1f}" r="1.8"/>')
    return _frame("Each request of the candidate: when, and how long", parts, ())


def _draw_span(span: Span, end: float, inner: float) -> str:
    low, high = (_LEFT + inner * min(end, max(0.0, at)) / end for at in (span.began, span.ended))
    lines = "".join(
        f'<line class="step" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}">'
        f"<title>{escape(name)}</title></line>"
        for name, at in span.steps.items()
        if (x := _LEFT + inner * min(end, max(0.0, at)) / end)
    )
    return (
        f'<rect class="{span.tone}" x="{low:.1f}" y="{_TOP}" width="{max(1.0, high - low):.1f}" '
        f'height="{_HEIGHT - _TOP - _BOTTOM}"><title>{escape(span.name)}</title></rect>{lines}'
        f'<text x="{low + 3:.1f}" y="{_TOP + 10}">{escape(span.name[:40])}</text>'
    )


def _frame(title: str, parts: list[str], legend: tuple[str, ...]) -> str:
    keys = "".join(
        f'<line class="{name}" x1="{_WIDTH - 130}" x2="{_WIDTH - 104}" y1="{y}" y2="{y}"/>'
        f'<text x="{_WIDTH - 98}" y="{y + 4}">{name}</text>'
        for name, y in zip(legend, (_HEIGHT - 70, _HEIGHT - 52), strict=False)
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}{keys}</svg>"
    )


def _axes_of_time(low: float, high: float) -> str:
    return "".join(
        f'<line class="grid" x1="{_log(v, low, high):.1f}" x2="{_log(v, low, high):.1f}" '
        f'y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
        f'<text x="{_log(v, low, high):.1f}" y="{_HEIGHT - 12}" text-anchor="middle">'
        f"{_tell(v)}</text>"
        for v in _ticks(low, high)
    )


def _axis_of_share() -> str:
    return "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_share(s):.1f}" '
        f'y2="{_share(s):.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{_share(s) + 4:.1f}" text-anchor="end">{100 * s:.0f} %</text>'
        for s in (0.0, 0.25, 0.5, 0.75, 1.0)
    )


def _widen(low: float, high: float) -> tuple[float, float]:
    low = max(low, 1e-5)
    return low / 1.2, max(high, low * 1.5) * 1.2


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each decade."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    all_ = [m * 10.0**d for d in range(first, last + 1) for m in (1, 2, 5)]
    inside = [tick for tick in all_ if low <= tick <= high]
    return inside if len(inside) <= 9 else [t for t in inside if f"{t:e}"[0] == "1"]


def _log(value: float, low: float, high: float) -> float:
    share = (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * share


def _log_up(value: float, low: float, high: float) -> float:
    share = (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share


def _share(share: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share


def _tell(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 1 else f"{1000 * seconds:g} ms"
