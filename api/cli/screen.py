"""Printing: pretty on a terminal, plain when piped, and no control characters from a log."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

from agent.core.units import format_duration

if TYPE_CHECKING:
    from rich.console import Console

#: Words that have a colour of their own wherever they stand in a table.
STYLES = {
    "ok": "green",
    "resolved": "green",
    "delivered": "green",
    "warning": "yellow",
    "probation": "yellow",
    "verifying": "yellow",
    "repairing": "yellow",
    "running": "yellow",
    "unknown": "magenta",
    "critical": "bold red",
    "open": "bold red",
    "escalated": "bold red",
    "failed": "bold red",
    "timeout": "bold red",
    "lost": "bold red",
    "needs_human": "bold red",
}

# C0 and C1 control characters; evidence is printed line by line.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LINE_END = re.compile(r"\r\n|\r|\n")


class Screen:
    """Where a command's answer goes."""

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file or sys.stdout
        self._console: Console | None = None
        if self._file.isatty():
            # Imported here, since it takes longer than everything else in a plain command.
            from rich.console import Console

            self._console = Console(file=self._file, highlight=False, markup=False, emoji=False)

    def line(self, text: str = "", style: str = "") -> None:
        """One line; a terminal wraps it, a pipe gets it whole."""
        text = clean(text)
        if self._console is None:
            self._file.write(text + "\n")
        else:
            self._console.print(text, style=style or None, soft_wrap=True)
        self._file.flush()

    def heading(self, text: str) -> None:
        self.line()
        self.line(text, "bold")

    def block(self, text: str, indent: str = "    ") -> None:
        """Text of several lines, as it is."""
        for part in _LINE_END.split(text.rstrip()):
            self.line(indent + part.expandtabs(8))

    def fields(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Names and values; those without a value are left out."""
        shown = [(name, value) for name, value in pairs if value]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            self.line(f"{name:<{width}}  {value}")

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
        """Rows under headers; `empty` is the sentence for none."""
        cleaned = [[clean(cell) for cell in row] for row in rows]
        if not cleaned:
            self.line(empty)
        elif self._console is None:
            self._plain_table([list(headers), *cleaned])
        else:
            self._rich_table(self._console, headers, cleaned)

    def json(self, value: Any) -> None:
        """JSON as the API has it."""
        self._file.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
        self._file.flush()

    def _plain_table(self, rows: list[list[str]]) -> None:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
            self._file.write("  ".join(cells).rstrip() + "\n")
        self._file.flush()

    def _rich_table(self, console: Console, headers: Sequence[str], rows: list[list[str]]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for header in headers:
            table.add_column(header, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
        console.print(table)


def clean(text: str) -> str:
    """One line of text without control characters: a log could send a terminal commands."""
    return _CONTROL.sub(" ", text)


def read_instant(written: str) -> float:
    """Seconds since the epoch, from the API's RFC 3339."""
    return datetime.fromisoformat(written).timestamp()


def tell_ago(written: str | None, now: float | None = None) -> str:
    """`3 min 2 s ago`, `in 12 s`; empty for None."""
    if written is None:
        return ""
    passed = (time.time() if now is None else now) - read_instant(written)
    return f"{tell_seconds(passed)} ago" if passed >= 0 else f"in {tell_seconds(-passed)}"


def tell_seconds(seconds: float) -> str:
    """A duration; whole seconds are enough for people once there is one."""
    if seconds < 0.001:
        return "0 s"
    return format_duration(seconds if seconds < 1 else round(seconds)).replace(".0 s", " s")


def tell_exactly(written: str | None) -> str:
    """The instant in this host's time zone, and how long ago; empty for None."""
    if written is None:
        return ""
    local = datetime.fromtimestamp(read_instant(written)).astimezone()
    return f"{local.isoformat(sep=' ', timespec='seconds')} ({tell_ago(written)})"


def tell_options(options: dict[str, Any]) -> str:
    """`unit=nginx.service force=true`."""
    return " ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in options.items()
    )
