"""What is kept in the history of audits, drills, rehearsals and runs."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import asdict, replace
from typing import Any, TypeVar

from agent.agent import AuditRecord, Page, RehearsalRecord, RehearsalReport
from agent.audit.result import Audit, dump_audit, load_audit
from agent.clock import Clock
from agent.core.drill import Drill
from agent.core.model import Instant
from agent.drills.conductor import read_drill
from agent.errors import HostmendError, NotFound
from agent.paging import L, check_id, cut_page, number_before
from agent.store.history import History
from agent.store.state import number_of

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: Defects of an audit that are kept.
_KEPT_DEFECTS = 500

#: So many, newest first, with a number below the second, if there is one.
_List = Callable[[int, int | None], Awaitable[tuple[L, ...]]]


class Records:
    """The history as the facade tells it, read and written on the history's own thread."""

    def __init__(self, *, history: History, writer: Executor, clock: Clock) -> None:
        self._history = history
        self._writer = writer
        self._clock = clock
        self._numbers: dict[str, int] = {}

    # Events of runs

    def keep_run_event(self, run_id: str, event: Mapping[str, Any]) -> int:
        """Keeps what a job said; its number, counted from 1. Does not wait for the disk."""
        number = self._numbers[run_id] = self._numbers.get(run_id, 0) + 1
        if event.get("event") == "ended":
            del self._numbers[run_id]
        now = self._clock.now()

        def keep() -> None:
            try:
                self._history.add_run_event(run_id, number, now, event)
            except HostmendError as error:
                _log.error("cannot keep an event of run %s: %s", run_id, error)

        self._writer.submit(keep)
        return number

    async def run_events(self, run_id: str, after: int = 0) -> tuple[Mapping[str, Any], ...]:
        return await self._ask(lambda: self._history.list_run_events(run_id, after))

    # Audits

    def keep_audit(self, check: str, audit: Audit) -> None:
        """Keeps what an audit found. Does not wait for the disk."""
        kept = replace(audit, urls=(), defects=audit.defects[:_KEPT_DEFECTS], groups={})

        def keep() -> None:
            try:
                self._history.add_audit(check, audit.began, dump_audit(kept))
            except (HostmendError, sqlite3.Error) as error:
                _log.error("cannot keep an audit of %s: %s", check, error)

        self._writer.submit(keep)

    async def audits(
        self, *, limit: int = 50, before: str | None = None, check: str | None = None
    ) -> Page[AuditRecord]:
        found = await self._list_audits(limit + 1, number_before(before, "a"), check)
        return cut_page(found, limit)

    async def audit(self, audit_id: str) -> AuditRecord:
        return await _find("audit", audit_id, "a", self._list_audits)

    async def _list_audits(
        self, limit: int, before: int | None, check: str | None = None
    ) -> tuple[AuditRecord, ...]:
        rows = await self._ask(
            lambda: self._history.list_audits(limit=limit, before=before, check=check)
        )
        return tuple(
            AuditRecord(id=f"a{row.number}", check=row.check, audit=load_audit(row.body))
            for row in rows
        )

    # Drills

    async def keep_drill(self, number: int, body: str) -> int:
        """Keeps a drill under its number (0: a new one), and gives that number."""
        now = self._clock.now()
        return await self._ask(lambda: self._history.keep_drill(number, now, body))

    async def last_drill(self) -> Drill | None:
        found = await self._list_drills(1, None)
        return found[0] if found else None

    async def drills(self, *, limit: int = 50, before: str | None = None) -> Page[Drill]:
        found = await self._list_drills(limit + 1, number_before(before, "d"))
        return cut_page(found, limit)

    async def drill(self, drill_id: str) -> Drill:
        return await _find("drill", drill_id, "d", self._list_drills)

    async def _list_drills(self, limit: int, before: int | None) -> tuple[Drill, ...]:
        rows = await self._ask(lambda: self._history.list_drills(limit=limit, before=before))
        return tuple(read_drill(number, body) for number, body in rows)

    # Rehearsals

    async def keep_rehearsal(self, told: RehearsalReport, *, by: str) -> RehearsalRecord:
        now, body = self._clock.now(), json.dumps({"by": by, "told": asdict(told)})
        number = await self._ask(lambda: self._history.add_rehearsal(now, body))
        return RehearsalRecord(id=f"h{number}", kept=now, by=by, told=told)

    async def rehearsals(
        self, *, limit: int = 50, before: str | None = None
    ) -> Page[RehearsalRecord]:
        found = await self._list_rehearsals(limit + 1, number_before(before, "h"))
        return cut_page(found, limit)

    async def rehearsal(self, rehearsal_id: str) -> RehearsalRecord:
        return await _find("rehearsal", rehearsal_id, "h", self._list_rehearsals)

    async def _list_rehearsals(self, limit: int, before: int | None) -> tuple[RehearsalRecord, ...]:
        rows = await self._ask(lambda: self._history.list_rehearsals(limit=limit, before=before))
        return tuple(_read_rehearsal(*row) for row in rows)

    async def _ask(self, query: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, query)


async def _find(noun: str, given: str, letter: str, list_records: _List[L]) -> L:
    number = number_of(check_id(given, letter))
    for found in await list_records(1, number + 1):
        if found.id == f"{letter}{number}":
            return found
    raise NotFound(f"cannot find {noun} {given}: it is not kept, or never was")


def _read_rehearsal(number: int, kept: Instant, body: str) -> RehearsalRecord:
    value = json.loads(body)
    told = RehearsalReport(**value["told"])
    return RehearsalRecord(id=f"h{number}", kept=kept, by=value["by"], told=told)
