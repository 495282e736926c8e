"""What is asked of the child: an audit, and what is kept of it where. One line of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.audit.plan import Plan, read_plan
from agent.errors import Invalid

#: Longest line of an order, in bytes.
LONGEST = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Order:
    """An audit, and what is kept of it where."""

    plan: Plan
    #: What is known from the audit before (`agent.audit.changes.dump_book`); None: nothing is.
    book: Mapping[str, Any] | None = None
    #: Where an interrupted audit goes on; None: nowhere.
    journal: Path | None = None
    resume: bool = False
    #: The result lists every address, not only the defects.
    urls: bool = True


def write_order(order: Order) -> bytes:
    row = asdict(order)
    row["journal"] = None if order.journal is None else str(order.journal)
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def read_order(line: bytes) -> Order:
    """Raises Invalid for what is none."""
    try:
        row = json.loads(line)
        journal = None if row["journal"] is None else Path(row["journal"])
        return Order(**{**row, "journal": journal, "plan": read_plan(row["plan"])})
    except (ValueError, TypeError, KeyError) as error:
        raise Invalid(f"cannot read the order of an audit: {error}") from error
