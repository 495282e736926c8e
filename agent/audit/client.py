"""Whoever wants an audit orders it here: it runs in a child, and comes back as data.

The child costs 40 MB and a core; whoever waits for it costs nothing. It ends with whoever ordered
it, and what it started with it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from agent.audit.order import Order, write_order
from agent.audit.result import Audit, AuditReader
from agent.core.model import Seconds
from agent.errors import Unavailable
from agent.host.child import FAREWELL, hand_over, kill_group, make_environment, see_end
from agent.host.processes import reap_strays

COMMAND = (sys.executable, "-P", "-m", "agent.audit.child")
#: What the child takes over from its parent's environment: whom to trust.
PASSED_ON = frozenset({"SSL_CERT_FILE", "SSL_CERT_DIR", "TZ"})
#: Longest line of a row, in bytes.
_LONGEST_ROW = 1024 * 1024
#: Seconds beyond the plan's own time, after which the child counts as hung.
_GRACE = 15.0
#: Characters of what a broken child said last that are repeated.
_LAST_WORDS = 500

Progress = Callable[[Mapping[str, int]], None]


async def order_audit(
    order: Order,
    *,
    on_progress: Progress = lambda _counts: None,
    grace: Seconds = _GRACE,
) -> Audit:
    """Has one site audited, and returns what was found.

    The audit keeps to the plan's `seconds` itself, and says what it had no time for. Raises
    Unavailable for one that could not be made, and for a child that hangs or dies. Cancelling it
    ends the child at once.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=_LONGEST_ROW,
            env=make_environment(PASSED_ON),
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise Unavailable(f"cannot start an audit: {error.strerror}") from error
    reader = AuditReader()
    words = asyncio.ensure_future(_read_last_words(process))
    try:
        async with asyncio.timeout(order.plan.seconds + grace):
            await hand_over(process, write_order(order))
            await _read_rows(process, reader, on_progress)
    except TimeoutError as error:
        seconds = order.plan.seconds + grace
        raise Unavailable(
            f"cannot audit the site: the child that does it hung, and was ended after {seconds:g} s"
        ) from error
    finally:
        kill_group(process)
        code = await see_end(process)
        # What it had started comes back to the agent, which adopts orphans.
        reap_strays()
        if not words.done():
            await asyncio.wait({words}, timeout=FAREWELL)
            words.cancel()
    if reader.audit is None:
        said = words.result() if words.done() and not words.cancelled() else ""
        raise Unavailable(f"cannot audit the site: the child that does it ended ({code}){said}")
    return reader.audit


async def _read_rows(process: Process, reader: AuditReader, on_progress: Progress) -> None:
    assert process.stdout is not None  # noqa: S101 - asked for above
    while True:
        try:
            line = await process.stdout.readline()
        except ValueError:
            # A row longer than any that the child writes.
            continue
        if not line:
            return
        row = _parse(line)
        if "progress" in row:
            on_progress(row["progress"])
        elif "error" in row:
            raise Unavailable(str(row["error"]))
        else:
            with suppress(ValueError, TypeError, KeyError):
                reader.take(row)
        if reader.audit is not None:
            return


def _parse(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


async def _read_last_words(process: Process) -> str:
    """The end of what the child complains of, for the error that says that it died."""
    assert process.stderr is not None  # noqa: S101 - asked for above
    last = b""
    while part := await process.stderr.read(4096):
        last = (last + part)[-_LAST_WORDS * 4 :]
    lines = last.decode("utf-8", "replace").strip().splitlines()
    return f": {lines[-1][:_LAST_WORDS]}" if lines else ""
