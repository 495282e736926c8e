"""A report as one HTML file that stands alone: no script, no request, every text escaped."""

from __future__ import annotations

from html import escape

from agent.core.model import State
from agent.core.units import format_duration
from agent.reports.incident import Exhibit, IncidentReport, Moment, Repair
from agent.reports.words import tell_end, tell_facts, tell_instant, tell_options

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2126; --dim: #5d6771; --paper: #fff; --line: #dfe3e8;
  --soft: #f5f7f9; --good: #1a7f4b; --bad: #b3261e; --warn: #9a6700; --mark: #2f5fa7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --dim: #98a3ae; --paper: #15181c;
  --line: #2d333a; --soft: #1c2127; --good: #5cc98c; --bad: #ff8a80; --warn: #e3b341;
  --mark: #86b1f0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1.25rem 4rem; background: var(--paper);
  color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p { margin: .4rem 0; overflow-wrap: anywhere; }
.badge { display: inline-block; padding: .1rem .6rem; border-radius: 1rem; font-size: .85rem;
  font-weight: 600; color: var(--paper); background: var(--warn); margin-bottom: .6rem; }
.badge.good { background: var(--good); } .badge.bad { background: var(--bad); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: 1rem 0;
  padding: .9rem 1rem; background: var(--soft); border-radius: .5rem; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
ol.time { list-style: none; margin: 0; padding: 0; border-left: 2px solid var(--line); }
ol.time li { position: relative; padding: .2rem 0 .5rem 1.1rem; overflow-wrap: anywhere; }
ol.time li::before { content: ""; position: absolute; left: -.36rem; top: .65rem; width: .6rem;
  height: .6rem; border-radius: 50%; background: var(--mark); }
time { color: var(--dim); font-variant-numeric: tabular-nums; font-size: .9rem;
  margin-right: .6rem; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: .4rem;
  overflow-x: auto; padding: .7rem .8rem; font: .82rem/1.45 ui-monospace, monospace;
  margin: .4rem 0 .9rem; }
.add { color: var(--good); } .del { color: var(--bad); }
.ok, .changed { color: var(--good); } .failed, .unreachable { color: var(--bad); }
.skipped, .ignored, .dim { color: var(--dim); }
ul { padding-left: 1.2rem; } .write { color: var(--dim); font-style: italic; }
footer { margin-top: 3rem; padding-top: .8rem; border-top: 1px solid var(--line);
  color: var(--dim); font-size: .85rem; }
@media (max-width: 36rem) { dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .4rem; } }
"""


def render_page(report: IncidentReport) -> str:
    """The whole report as a document."""
    title = escape(report.title)
    body = [
        f'<span class="badge {_tone(report)}">{escape(report.incident.state.value)}</span>',
        f"<h1>{title}</h1>",
        f"<p>{escape(report.summary)}</p>",
        _facts(report),
        "<h2>What happened</h2>",
        f'<ol class="time">{"".join(map(_moment, report.timeline))}</ol>',
        "<h2>What was done</h2>",
        "".join(map(_repair, report.repairs)) or "<p>No remedy was run.</p>",
    ]
    for stage, heading in (("before", "Seen before"), ("after", "Seen after")):
        if found := [each for each in report.evidence if each.stage == stage]:
            body += [f"<h2>{heading}</h2>", *map(_exhibit, found)]
    body += [
        "<h2>How often before</h2>",
        _earlier(report),
        "<h2>What is left to do</h2>",
        _list(report.left) or "<p>Nothing that hostmend knows of.</p>",
        "<h2>Why it came to this</h2>",
        '<p class="write">For people to write.</p>',
        "<h2>What will be different</h2>",
        '<p class="write">For people to write.</p>',
        f"<footer>Written by hostmend on {escape(report.host)}, {tell_instant(report.written)}. "
        "All above was observed; a draft for a review without blame.</footer>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _tone(report: IncidentReport) -> str:
    if report.incident.state is State.ESCALATED:
        return "bad"
    return "good" if report.incident.state.ended else ""


def _facts(report: IncidentReport) -> str:
    rows = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in tell_facts(report))
    return f"<dl>{rows}</dl>"


def _moment(moment: Moment) -> str:
    return f"<li><time>{tell_instant(moment.at)}</time>{escape(moment.text)}</li>"


def _repair(repair: Repair) -> str:
    run = repair.run
    outcome = run.outcome.value if run.outcome else run.state.value
    took = (
        f" after {format_duration(run.ended - run.started)}"
        if run.ended is not None and run.started is not None
        else ""
    )
    parts = [
        f"<h3>{escape(run.id)}: {escape(run.remedy)}{' (preview)' if run.preview else ''}</h3>",
        f"<p>{escape(outcome)}{took}{', proved by a later look' if run.proved else ''}. "
        f'<span class="dim">{escape(tell_options(run))}</span></p>',
    ]
    for task in repair.tasks:
        said = f": {escape(task.message)}" if task.message else ""
        parts.append(
            f'<p><span class="{escape(task.status)}">{escape(task.status)}</span> '
            f"{escape(task.name)}{said}</p>"
        )
        if task.diff:
            parts.append(f"<pre>{_diff(task.diff)}</pre>")
        if task.output:
            parts.append(f"<pre>{escape(task.output)}</pre>")
    return "".join(parts)


def _diff(text: str) -> str:
    tones = {"+": "add", "-": "del"}
    return "\n".join(
        f'<span class="{tones[line[0]]}">{escape(line)}</span>'
        if line[:1] in tones
        else escape(line)
        for line in text.splitlines()
    )


def _exhibit(exhibit: Exhibit) -> str:
    return (
        f"<h3>{escape(exhibit.evidence.title)} "
        f'<time class="dim">{tell_instant(exhibit.taken)}</time></h3>'
        f"<pre>{escape(exhibit.evidence.text)}</pre>"
    )


def _earlier(report: IncidentReport) -> str:
    if not report.earlier.count:
        return "<p>Never, as far as hostmend remembers.</p>"
    rows = [
        f"{each.id}, {tell_instant(each.began)}: failed for {format_duration(each.downtime)}, "
        f"{tell_end(each)}"
        for each in report.earlier.incidents
    ]
    return f"<p>{report.earlier.count} before this one.</p>{_list(rows)}"


def _list(rows: tuple[str, ...] | list[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(row)}</li>' for row in rows)}</ul>" if rows else ""
