"""An audit as one HTML file that stands alone: no scripts, nothing from elsewhere.

Whatever comes from the audited site is hostile. Every text goes through `_text`, an address becomes
a link only when it is of the web, and a policy in the page forbids whatever should get through.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from datetime import UTC, datetime

from agent import __version__
from agent.audit.result import MEANINGS, Audit, Defect, Kind, Seen
from agent.audit.words import count, tell_extent, tell_more, tell_verdict
from agent.core.units import format_duration, format_size

#: Addresses that the report lists; a browser is slow with more.
MOST_LISTED = 5000

#: Control characters, and those that show text in another order than it has.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root {
  color-scheme: light dark;
  --paper: #f6f7f9; --card: #fff; --ink: #1b2430; --soft: #5b6776; --line: #dfe4ea;
  --red: #b3261e; --red-paper: #fdecea; --amber: #8a5300; --amber-paper: #fff4dd;
  --green: #1a6b3c; --green-paper: #e5f5ec; --blue: #1f5fbf;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #11161d; --card: #1a212b; --ink: #e4e9f0; --soft: #97a3b3; --line: #2c3643;
    --red: #ff8a80; --red-paper: #3a1d1f; --amber: #ffc46b; --amber-paper: #382a12;
    --green: #7fd8a2; --green-paper: #15301f; --blue: #8ab8ff;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
main { max-width: 68rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
header p, footer { color: var(--soft); }
h1 { font-size: 1.1rem; font-weight: 600; margin: 0 0 .75rem; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: 2.25rem 0 .75rem; }
h2 small { font-weight: 400; color: var(--soft); margin-left: .4rem; }
a { color: var(--blue); text-decoration: none; overflow-wrap: anywhere; }
a:hover, a:focus { text-decoration: underline; }
.verdict {
  border-radius: .6rem; padding: .9rem 1.1rem; font-size: 1.15rem; font-weight: 600;
  overflow-wrap: anywhere;
}
.ok { background: var(--green-paper); color: var(--green); }
.critical { background: var(--red-paper); color: var(--red); }
.warning, .unknown { background: var(--amber-paper); color: var(--amber); }
.numbers { display: grid; gap: .75rem; margin: 1rem 0 0;
  grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); }
.numbers div, .defect, .table, .notes {
  background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
}
.numbers div { padding: .6rem .9rem; }
.numbers dt { color: var(--soft); font-size: .8rem; }
.numbers dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.defect { padding: .8rem 1rem; margin: 0 0 .6rem; border-left: .3rem solid var(--line); }
.defect.is-critical { border-left-color: var(--red); }
.defect.is-warning { border-left-color: var(--amber); }
.defect p { margin: .25rem 0 0; }
.target { font-weight: 600; overflow-wrap: anywhere; }
.tag {
  display: inline-block; border-radius: .35rem; padding: 0 .45rem; margin-right: .4rem;
  font-size: .8rem; font-weight: 600; background: var(--paper); color: var(--soft);
}
.tag.critical { background: var(--red-paper); color: var(--red); }
.tag.warning { background: var(--amber-paper); color: var(--amber); }
.hint { color: var(--green); }
.soft, .defect ul, .notes { color: var(--soft); }
.defect ul { margin: .35rem 0 0; padding-left: 1.1rem; }
.notes { margin: 0; padding: .7rem 1rem .7rem 2rem; overflow-wrap: anywhere; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; }
th, td { text-align: left; padding: .35rem .7rem; border-top: 1px solid var(--line); }
th { border-top: 0; color: var(--soft); font-weight: 500; white-space: nowrap; }
td { vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.address { min-width: 18rem; }
td.broken { color: var(--red); font-weight: 600; }
summary { cursor: pointer; padding: .2rem 0; }
"""


def write_html(audit: Audit) -> str:
    """The whole report."""
    parts = [
        _write_head(audit),
        _write_defects("Defects", audit.found),
        _write_known([defect for defect in audit.defects if defect.known]),
        _write_list("Mended since the audit before", audit.fixed),
        _write_list("Notes", audit.notes),
        _write_addresses(audit.urls),
        f"<footer><p>hostmend {_text(__version__)}, site audit</p></footer>",
    ]
    title = _text(f"Site audit of {audit.site}")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_text(_POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _text(text: str) -> str:
    """Text for an element or a quoted attribute, without what could turn its direction."""
    return html.escape(_HIDDEN.sub("\ufffd", text))


def _link(address: str, text: str = "") -> str:
    """A link to an address of the web, and plain text for anything else."""
    shown = _text(text or address)
    if not address.startswith(("http://", "https://")):
        return shown
    return f'<a href="{_text(address)}" rel="noopener noreferrer nofollow">{shown}</a>'


def _judge(audit: Audit) -> str:
    if not audit.complete:
        return "unknown"
    statuses = {defect.status for defect in audit.found}
    return next((status for status in ("critical", "warning") if status in statuses), "ok")


def _write_head(audit: Audit) -> str:
    began = datetime.fromtimestamp(audit.began, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    counts = audit.counts
    numbers = [
        ("Pages", f"{counts.get('pages', 0):,}"),
        ("Addresses", f"{counts.get('urls', 0):,}"),
        ("Requests", f"{counts.get('requests', 0):,}"),
        ("Read", format_size(counts.get("bytes", 0))),
        ("Time", format_duration(max(0.001, audit.ended - audit.began))),
        ("Failed at first", f"{counts.get('transient', 0):,}"),
    ]
    cards = "".join(f"<div><dt>{_text(n)}</dt><dd>{_text(v)}</dd></div>" for n, v in numbers)
    verdict = tell_verdict(audit).removesuffix(f"; {tell_extent(audit)}")
    return (
        f"<header><h1>Site audit of {_link(audit.site)}</h1>"
        f'<div class="verdict {_judge(audit)}">{_text(verdict)}</div>'
        f'<p>{_text(began)}</p><dl class="numbers">{cards}</dl></header>'
    )


def _write_defects(title: str, defects: Iterable[Defect]) -> str:
    by_kind: dict[Kind, list[Defect]] = {}
    for defect in defects:
        by_kind.setdefault(defect.kind, []).append(defect)
    parts = []
    for kind, found in by_kind.items():
        parts.append(
            f"<h2>{_text(kind.value.capitalize())}<small>{len(found):,} · "
            f"{_text(MEANINGS[kind])}</small></h2>"
        )
        parts += [_write_defect(defect) for defect in found]
    return f'<section aria-label="{_text(title)}">{"".join(parts)}</section>' if parts else ""


def _write_defect(defect: Defect) -> str:
    tags = [f'<span class="tag {_text(defect.status)}">{_text(defect.status)}</span>']
    if defect.rule:
        tags.append(f'<span class="tag">{_text(defect.rule)}</span>')
    if defect.since is not None:
        since = datetime.fromtimestamp(defect.since, UTC).strftime("%Y-%m-%d %H:%M UTC")
        word = "new" if defect.new else f"since {since}"
        tags.append(f'<span class="tag">{_text(word)}</span>')
    if defect.regressed:
        tags.append('<span class="tag">fine in the audit before</span>')
    lines = [
        f'<div class="target">{_link(defect.target)}</div>',
        f"<p>{''.join(tags)}{_text(defect.why)}</p>",
    ]
    if defect.hint:
        lines.append(f'<p class="hint">{_text(defect.hint)}</p>')
    if defect.lapsed:
        lines.append(
            f'<p class="soft">it was known, until its time was over: {_text(defect.lapsed)}</p>'
        )
    if defect.referrers:
        rows = [
            f"<li>{_link(r.page)}{f', line {r.line}' if r.line else ''} ({_text(r.role)})</li>"
            for r in defect.referrers
        ]
        if more := tell_more(defect):
            rows.append(f"<li>{_text(more)}</li>")
        said = count(defect.referrers_count, "page refers", "pages refer")
        lines.append(f'<p class="soft">{_text(said)} to it:</p><ul>{"".join(rows)}</ul>')
    return f'<article class="defect is-{_text(defect.status)}">{"".join(lines)}</article>'


def _write_known(defects: list[Defect]) -> str:
    if not defects:
        return ""
    rows = "".join(
        f"<li>{_text(d.kind)}: {_link(d.target)} ({_text(d.why)}): {_text(d.known)}</li>"
        for d in defects
    )
    return f'<h2>Known<small>{len(defects):,}</small></h2><ul class="notes">{rows}</ul>'


def _write_list(title: str, lines: Iterable[str]) -> str:
    rows = "".join(f"<li>{_text(line)}</li>" for line in lines)
    return f'<h2>{_text(title)}</h2><ul class="notes">{rows}</ul>' if rows else ""


def _write_addresses(seen: tuple[Seen, ...]) -> str:
    if not seen:
        return ""
    heads = (
        '<th>Address</th><th class="number">Status</th><th>Type</th><th class="number">Size</th>'
        '<th class="number">Time</th><th class="number">Referrers</th><th>Title</th>'
    )
    rows = "".join(_write_row(each) for each in seen[:MOST_LISTED])
    more = len(seen) - MOST_LISTED
    note = f"<p class='soft'>{more:,} more are not listed here</p>" if more > 0 else ""
    return (
        f"<details><summary>{_text(count(len(seen), 'address', 'addresses'))}</summary>"
        f'<div class="table"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{note}</details>"
    )


def _write_row(seen: Seen) -> str:
    bad = " broken" if seen.fate == "broken" else ""
    status = str(seen.status or seen.fate)
    title = _text(seen.title)
    if seen.redirect:
        title = f"leads to {_link(seen.redirect)}"
    return (
        f'<tr><td class="address">{_link(seen.url)}</td>'
        f'<td class="number{bad}">{_text(status)}</td><td>{_text(seen.type)}</td>'
        f'<td class="number">{_text(format_size(seen.size)) if seen.size else ""}</td>'
        f'<td class="number">{seen.seconds:.3f} s</td>'
        f'<td class="number">{seen.referrers_count:,}</td><td>{title}</td></tr>'
    )
