"""A report as Markdown (CommonMark with tables), to paste wherever incidents are discussed."""

from __future__ import annotations

from agent.core.units import format_duration
from agent.reports.incident import Exhibit, IncidentReport, Repair
from agent.reports.words import tell_end, tell_facts, tell_instant, tell_options

_TO_WRITE = "_For people to write._"


def render_markdown(report: IncidentReport) -> str:
    """The whole report; texts from outside stand in code blocks or are escaped."""
    parts = [
        f"# {_escape(report.title)}",
        _escape(report.summary),
        _table(tell_facts(report)),
        "## What happened",
        "\n".join(
            f"- {tell_instant(moment.at)} {_escape(moment.text)}" for moment in report.timeline
        ),
        "## What was done",
        *(_render_repair(repair) for repair in report.repairs),
    ]
    if not report.repairs:
        parts.append("No remedy was run.")
    for stage, heading in (("before", "## Seen before"), ("after", "## Seen after")):
        if found := [each for each in report.evidence if each.stage == stage]:
            parts += [heading, *map(_render_exhibit, found)]
    parts.append("## How often before")
    earlier = report.earlier
    if earlier.count:
        rows = [
            f"- {each.id}, {tell_instant(each.began)}: failed for "
            f"{format_duration(each.downtime)}, {tell_end(each)}"
            for each in earlier.incidents
        ]
        parts += [f"{earlier.count} before this one.", "\n".join(rows)]
    else:
        parts.append("Never, as far as hostmend remembers.")
    parts += [
        "## What is left to do",
        "\n".join(f"- [ ] {_escape(each)}" for each in report.left)
        or "Nothing that hostmend knows of.",
        "## Why it came to this",
        _TO_WRITE,
        "## What will be different",
        _TO_WRITE,
        f"---\n\nWritten by hostmend on {_escape(report.host)}, {tell_instant(report.written)}. "
        "All above was observed; a draft for a review without blame.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _render_repair(repair: Repair) -> str:
    run = repair.run
    options = tell_options(run)
    head = f"### {run.id}: {_escape(run.remedy)}{' (preview)' if run.preview else ''}"
    took = (
        f" after {format_duration(run.ended - run.started)}"
        if run.ended is not None and run.started is not None
        else ""
    )
    outcome = run.outcome.value if run.outcome else run.state.value
    lines = [f"{outcome}{took}{', proved by a later look' if run.proved else ''}."]
    if options:
        lines.append(f"Options: {_code(options)}.")
    parts = [head, " ".join(lines)]
    for task in repair.tasks:
        said = f": {_escape(task.message)}" if task.message else ""
        parts.append(f"- {task.status}: {_escape(task.name)}{said}")
        parts += [_fence(text) for text in (task.diff, task.output) if text]
    return "\n\n".join(parts)


def _render_exhibit(exhibit: Exhibit) -> str:
    title = f"**{_escape(exhibit.evidence.title)}**, {tell_instant(exhibit.taken)}"
    return f"{title}\n\n{_fence(exhibit.evidence.text)}"


def _table(pairs: list[tuple[str, str]]) -> str:
    rows = [f"| {name} | {_escape(value)} |" for name, value in pairs]
    return "\n".join(["| | |", "|---|---|", *rows])


def _fence(text: str) -> str:
    """A code block that its own content cannot end."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text.rstrip()}\n{fence}"


def _code(text: str) -> str:
    mark = "`"
    while mark in text:
        mark += "`"
    return f"{mark} {text} {mark}" if "`" in text else f"`{text}`"


def _escape(text: str) -> str:
    """One line in which nothing is markup."""
    line = " ".join(text.split())
    for mark in "\\`*_[]<>|#":
        line = line.replace(mark, f"\\{mark}")
    return line
