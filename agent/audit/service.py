"""What the child does with its order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, BinaryIO

from agent.audit.auditor import audit_site
from agent.audit.credentials import find_secrets, read_credentials
from agent.audit.order import read_order
from agent.audit.result import write_audit
from agent.clock import Clock
from agent.errors import HostmendError
from agent.host.url import mask_secrets


def serve(line: bytes, out: BinaryIO) -> int:
    """Carries out an order and says what came of it. The exit code: 0 done, 1 it could not be."""
    secrets: frozenset[str] = frozenset()

    def write(row: Mapping[str, Any]) -> None:
        text = json.dumps(row, separators=(",", ":"))
        # A site may repeat what it is sent: in a title, or where it redirects to.
        out.write(mask_secrets(text, secrets).encode() + b"\n")
        out.flush()

    try:
        order = read_order(line)
        credentials = read_credentials(order.plan.credentials) if order.plan.credentials else {}
        found = find_secrets(order.plan.url, credentials)
        # As they stand in JSON.
        secrets = found | {json.dumps(secret)[1:-1] for secret in found}
        audit = asyncio.run(
            audit_site(
                order,
                credentials=credentials,
                clock=Clock(),
                on_progress=lambda counts: write({"progress": dict(counts)}),
            )
        )
    except HostmendError as error:
        write({"error": str(error)})
        return 1
    for row in write_audit(audit):
        write(row)
    return 0
