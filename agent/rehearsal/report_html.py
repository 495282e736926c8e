"""A rehearsal as one HTML file that stands alone: the verdict, the gates, plots, single cases."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape

from agent.rehearsal.drills import Drilled, judge_drills, name_drill
from agent.rehearsal.plots import Span, plot_distributions, plot_timeline
from agent.rehearsal.rehearsal import Rehearsal
from agent.rehearsal.report import pick_worst, write_instant
from agent.rehearsal.verdict import Answer, Gate, Outcome, Pair

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2126; --dim: #5d6771; --paper: #fff; --line: #dfe3e8;
  --soft: #f5f7f9; --good: #1a7f4b; --bad: #b3261e; --warn: #9a6700; --one: #7a8793;
  --two: #2f5fa7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --dim: #98a3ae; --paper: #15181c;
  --line: #2d333a; --soft: #1c2127; --good: #5cc98c; --bad: #ff8a80; --warn: #e3b341;
  --one: #8f9baa; --two: #86b1f0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem 4rem; background: var(--paper);
  color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.3; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p { margin: .4rem 0; overflow-wrap: anywhere; } .dim { color: var(--dim); }
.pass { color: var(--good); } .fail { color: var(--bad); } .inconclusive { color: var(--warn); }
table { border-collapse: collapse; width: 100%; font-size: .95rem; }
th, td { text-align: left; vertical-align: top; padding: .45rem .7rem .45rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { color: var(--dim); font-weight: 500; font-size: .85rem; }
td.mark { white-space: nowrap; font-weight: 600; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
ul { margin: .3rem 0 0; padding-left: 1.1rem; color: var(--dim); font-size: .9rem; }
code { font: .85em ui-monospace, monospace; background: var(--soft); padding: .1rem .3rem;
  border-radius: .25rem; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; display: block; margin: .6rem 0 1.2rem; }
svg text { fill: var(--dim); font: 11px system-ui, sans-serif; }
svg .grid { stroke: var(--line); } svg polyline { fill: none; stroke-width: 2; }
svg .baseline { stroke: var(--one); } svg line.candidate, svg polyline.candidate {
  stroke: var(--two); } svg line.baseline, svg line.candidate { stroke-width: 3; }
svg circle.candidate { fill: var(--two); opacity: .5; }
svg rect.pass { fill: var(--good); opacity: .12; } svg rect.fail { fill: var(--bad); opacity: .14; }
svg rect.inconclusive { fill: var(--warn); opacity: .14; }
svg .step { stroke: var(--dim); stroke-dasharray: 3 3; }
svg .failed { stroke: var(--bad); stroke-width: 2; }
.scroll { overflow-x: auto; }
footer { margin-top: 3rem; padding-top: .8rem; border-top: 1px solid var(--line);
  color: var(--dim); font-size: .85rem; }
"""
#: The worst first.
_WEIGHT = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)
#: Single pairs that are listed.
_WORST = 15


def write_html(rehearsal: Rehearsal) -> str:
    """The whole report as a document; every text of the sites is escaped."""
    verdict, pairs = rehearsal.verdict, rehearsal.measured.pairs
    title = f"Rehearsal of {rehearsal.candidate}"
    body = [
        f'<h1 class="{verdict.outcome.value}">{escape(verdict.headline)}</h1>',
        f'<p class="dim">{escape(rehearsal.candidate)} beside {escape(rehearsal.baseline)}, '
        f"{write_instant(rehearsal.began)} to {write_instant(rehearsal.ended)}</p>",
        "<h2>Gates</h2>",
        '<div class="scroll"><table><tr><th></th><th>gate</th><th>observed</th><th>limit</th>'
        f"<th>of</th></tr>{''.join(map(_gate, verdict.gates))}</table></div>",
        "<h2>How long answers took</h2>",
        plot_distributions(pairs),
        "<h2>In the course of time</h2>",
        plot_timeline(pairs),
        *(_drills(rehearsal.drilled) if rehearsal.drilled else ()),
        "<h2>Worst requests</h2>",
        _worst(pairs, rehearsal.candidate),
        "<h2>Traffic</h2>",
        _traffic(rehearsal),
        "<footer>Written by hostmend. Times are counted from when a request was due.</footer>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _drills(drilled: Drilled) -> tuple[str, ...]:
    spans, rows = [], []
    for tale in drilled.tales:
        gates = judge_drills(Drilled(tales=(tale,), pairs=drilled.pairs))
        tone = min((gate.outcome for gate in gates), key=_WEIGHT.index)
        spans.append(
            Span(
                name=name_drill(tale).removeprefix("drill "),
                tone=tone.value,
                began=tale.steps.get("injected", tale.began),
                ended=tale.steps.get("undone", tale.ended),
                steps=tale.steps,
            )
        )
        began = tale.steps.get("injected", tale.began)
        times = "".join(
            f'<td class="number">{_after(tale.steps.get(name), began)}</td>'
            for name in ("detected", "healed", "verified", "undone")
        )
        rows.append(f"<tr><td>{escape(name_drill(tale))}<br>{escape(tale.detail)}</td>{times}</tr>")
    return (
        "<h2>Drills</h2>",
        '<div class="scroll"><table><tr><th>drill</th><th>detected</th><th>healed</th>'
        f"<th>verified</th><th>undone</th></tr>{''.join(rows)}</table></div>",
        plot_timeline(drilled.pairs, spans),
    )


def _after(at: float | None, began: float) -> str:
    return "-" if at is None else f"{max(0.0, at - began):.1f} s"


def _gate(gate: Gate) -> str:
    mark = gate.outcome.value
    if gate.outcome is Outcome.FAIL and not gate.blocking:
        mark = "warning"
    tone = "inconclusive" if mark == "warning" else gate.outcome.value
    cases = (
        f"<ul>{''.join(f'<li>{escape(case)}</li>' for case in gate.cases)}</ul>"
        if gate.cases
        else ""
    )
    interval = f"<br>{gate.interval.low:.3g} to {gate.interval.high:.3g}" if gate.interval else ""
    return (
        f'<tr><td class="mark {tone}">{mark}</td>'
        f"<td><b>{escape(gate.name)}</b><br>{escape(gate.summary)}{cases}</td>"
        f'<td class="number">{_number(gate.observed)}{interval}</td>'
        f'<td class="number">{_number(gate.limit)}</td>'
        f'<td class="number">{gate.count:,}</td></tr>'
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _worst(pairs: Sequence[Pair], candidate: str) -> str:
    rows = []
    for pair in pick_worst(list(pairs), _WORST):
        method, _, target = pair.target.partition(" ")
        flag = "-I " if method == "HEAD" else ""
        curl = f"curl {flag}{shlex.quote(candidate + target)}"
        rows.append(
            f"<tr><td>{escape(pair.target)}<br><code>{escape(curl)}</code></td>"
            f'<td class="number">{_answer(pair.baseline)}</td>'
            f'<td class="number">{_answer(pair.candidate)}</td></tr>'
        )
    if not rows:
        return "<p>No request was asked.</p>"
    return (
        '<div class="scroll"><table><tr><th>request</th><th>baseline</th><th>candidate</th></tr>'
        f"{''.join(rows)}</table></div>"
    )


def _answer(answer: Answer) -> str:
    said = str(answer.status) if answer.status is not None else escape(answer.error)
    tone = ' class="fail"' if answer.failed else ""
    return f"<span{tone}>{said}</span><br>{1000 * answer.seconds:.0f} ms"


def _traffic(rehearsal: Rehearsal) -> str:
    skipped = "".join(
        f"<li>{count:,} {escape(why.value)}</li>" for why, count in rehearsal.skipped.items()
    )
    groups = "".join(
        f'<tr><td>{escape(group)}</td><td class="number">{count:,}</td></tr>'
        for group, count in list(rehearsal.groups.items())[:20]
    )
    spacing = (
        "with the log's own spacing"
        if rehearsal.schedule.spacing == "log"
        else "spread evenly, since the log's times run backwards"
    )
    return (
        f"<p>{rehearsal.lines:,} lines were read; {len(rehearsal.measured.pairs):,} requests were "
        f"asked of both sides, {rehearsal.schedule.rate:.1f} a second on average, {spacing}.</p>"
        + (f"<p>Lines that were not asked:</p><ul>{skipped}</ul>" if skipped else "")
        + '<div class="scroll"><table><tr><th>kind of request</th><th>asked</th></tr>'
        + f"{groups}</table></div>"
    )
