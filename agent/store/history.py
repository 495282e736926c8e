"""What is good to have and may be lost: evidence and the events of runs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.model import Evidence, Instant
from agent.errors import StoreError

#: Texts longer than this are cut, in characters.
LONGEST = 16 * 1024

_TABLES = """
CREATE TABLE IF NOT EXISTS evidence (incident TEXT NOT NULL, stage TEXT NOT NULL,
    taken REAL NOT NULL, title TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS evidence_incident ON evidence (incident);
CREATE TABLE IF NOT EXISTS run_event (run TEXT NOT NULL, number INTEGER NOT NULL,
    at REAL NOT NULL, body TEXT NOT NULL, PRIMARY KEY (run, number)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS run_event_at ON run_event (at);
"""


@dataclass(frozen=True, kw_only=True)
class KeptEvidence:
    """Evidence with the stage of the incident (`before` or `after`) that it was taken in."""

    stage: str
    taken: Instant
    evidence: Evidence


class History:
    """The open history file. Losing it loses no incident; every write is best effort."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_TABLES)
        except sqlite3.Error as error:
            raise StoreError(f"cannot open {path}: {error}") from error

    def close(self) -> None:
        self._db.close()

    def add_evidence(
        self, incident: str, stage: str, taken: Instant, items: tuple[Evidence, ...]
    ) -> None:
        rows = [(incident, stage, taken, e.title[:200], e.text[:LONGEST]) for e in items]
        self._write("INSERT INTO evidence VALUES (?, ?, ?, ?, ?)", rows)

    def list_evidence(self, incident: str) -> tuple[KeptEvidence, ...]:
        """Everything taken for an incident, oldest first."""
        rows = self._read(
            "SELECT stage, taken, title, body FROM evidence WHERE incident = ? ORDER BY taken",
            incident,
        )
        return tuple(
            KeptEvidence(stage=stage, taken=taken, evidence=Evidence(title=title, text=body))
            for stage, taken, title, body in rows
        )

    def add_run_event(self, run: str, number: int, at: Instant, body: Mapping[str, Any]) -> None:
        text = json.dumps(body, default=str)[:LONGEST]
        self._write(
            "INSERT OR IGNORE INTO run_event VALUES (?, ?, ?, ?)", [(run, number, at, text)]
        )

    def list_run_events(self, run: str, after: int = 0) -> tuple[dict[str, Any], ...]:
        """The run's events with a number above `after`, each with `number` and `at` added."""
        rows = self._read(
            "SELECT number, at, body FROM run_event WHERE run = ? AND number > ? ORDER BY number",
            run,
            after,
        )
        return tuple({**_parse(body), "number": number, "at": at} for number, at, body in rows)

    def prune(self, before: Instant) -> None:
        """Forgets everything older than an instant."""
        self._write("DELETE FROM evidence WHERE taken < ?", [(before,)])
        self._write("DELETE FROM run_event WHERE at < ?", [(before,)])

    def _write(self, sql: str, rows: list[tuple[Any, ...]]) -> None:
        try:
            self._db.execute("BEGIN")
            self._db.executemany(sql, rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise StoreError(f"cannot write {self.path}: {error}") from error

    def _read(self, sql: str, *values: object) -> list[Any]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self.path}: {error}") from error


def _parse(body: str) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except ValueError:
        return {"text": body}
    return parsed if isinstance(parsed, dict) else {"text": body}
