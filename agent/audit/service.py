"""What the child does with its order."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any, BinaryIO

from agent.audit.auditor import audit_site
from agent.audit.credentials import read_credentials
from agent.audit.order import read_order
from agent.audit.result import Audit, write_audit
from agent.clock import Clock
from agent.errors import HostmendError

_log = logging.getLogger(__name__)


def serve(line: bytes, out: BinaryIO) -> int:
    """Carries out an order and says what came of it. The exit code: 0 done, 1 it could not be."""

    def write(row: Mapping[str, Any]) -> None:
        out.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
        out.flush()

    try:
        audit = asyncio.run(_audit(line, lambda counts: write({"progress": dict(counts)})))
    except HostmendError as error:
        write({"error": str(error)})
        return 1
    for row in write_audit(audit):
        out.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
    out.flush()
    return 0


async def _audit(line: bytes, on_progress: Any) -> Audit:
    order = read_order(line)
    credentials = read_credentials(order.plan.credentials) if order.plan.credentials else {}
    return await audit_site(order, credentials=credentials, clock=Clock(), on_progress=on_progress)
