"""What is asked of the child: an audit, and what is kept of it where. One line of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.audit.plan import Plan, read_plan
from agent.errors import Invalid

#: Longest line of an order, in bytes.
LONGEST = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Order:
    """An audit, and what is kept of it where."""

    plan: Plan
    #: What is known from the audit before, and is written for the next; None: nothing is.
    book: Path | None = None
    #: Where an interrupted audit goes on; None: nowhere.
    journal: Path | None = None
    resume: bool = False
    #: The result lists every address, not only the defects.
    urls: bool = True


def write_order(order: Order) -> bytes:
    row = asdict(order)
    for name in ("book", "journal"):
        row[name] = None if row[name] is None else str(row[name])
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def read_order(line: bytes) -> Order:
    """Raises Invalid for what is none."""
    try:
        row = json.loads(line)
        paths = {n: None if row[n] is None else Path(row[n]) for n in ("book", "journal")}
        return Order(**{**row, **paths, "plan": read_plan(row["plan"])})
    except (ValueError, TypeError, KeyError) as error:
        raise Invalid(f"cannot read the order of an audit: {error}") from error
