"""What is good to have and may be lost: evidence, events of runs, audits, drills, rehearsals."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.model import Evidence, Instant

_log = logging.getLogger(__name__)

_SUFFIXES = ("", "-wal", "-shm")
#: When a row of each table is of, and how many rows memory keeps for a file that takes none.
_IN_MEMORY = {
    "evidence": ("taken", 500),
    "run_event": ("at", 500),
    "audit": ("at", 10),
    "drill": ("at", 50),
    "rehearsal": ("at", 10),
}
#: Audits that are kept, and drills and rehearsals.
KEPT_AUDITS = 200
KEPT_DRILLS = 500
KEPT_REHEARSALS = 200
_CUT = (
    "DELETE FROM {table} WHERE {column} < "
    "(SELECT {column} FROM {table} ORDER BY {column} DESC LIMIT 1 OFFSET ?)"
)

#: Texts longer than this are cut, in characters.
LONGEST = 16 * 1024

_TABLES = """
CREATE TABLE IF NOT EXISTS evidence (incident TEXT NOT NULL, stage TEXT NOT NULL,
    taken REAL NOT NULL, title TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS evidence_incident ON evidence (incident);
CREATE TABLE IF NOT EXISTS run_event (run TEXT NOT NULL, number INTEGER NOT NULL,
    at REAL NOT NULL, body TEXT NOT NULL, PRIMARY KEY (run, number)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS run_event_at ON run_event (at);
CREATE TABLE IF NOT EXISTS audit (number INTEGER PRIMARY KEY, name TEXT NOT NULL,
    at REAL NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS drill (number INTEGER PRIMARY KEY, at REAL NOT NULL,
    body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rehearsal (number INTEGER PRIMARY KEY, at REAL NOT NULL,
    body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS memory (name TEXT NOT NULL, key TEXT NOT NULL,
    value TEXT NOT NULL, PRIMARY KEY (name, key)) WITHOUT ROWID;
"""


@dataclass(frozen=True, kw_only=True)
class KeptEvidence:
    """Evidence with the stage of the incident (`before` or `after`) that it was taken in."""

    stage: str
    taken: Instant
    evidence: Evidence


@dataclass(frozen=True, kw_only=True)
class KeptAudit:
    """One audit of a site."""

    number: int
    check: str
    #: JSON, as `agent.audit.result.dump_audit` writes it.
    body: str


class History:
    """The open history file. Losing it loses no incident; every write is best effort.

    What the file cannot take, or cannot give, is kept in memory instead, for messages that are
    written while a disk is full. `trouble` says so; empty while all is well.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trouble = ""
        self._inode: tuple[int, int] | None = None
        self._file: sqlite3.Connection | None = None
        self._memory = _connect(":memory:")
        self._open()

    def _open(self) -> None:
        """Opens the file; one that is not a database is moved aside."""
        try:
            try:
                self._file = _connect(self.path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                aside = self.path.with_name(f"{self.path.name}.broken")
                _log.error("cannot read %s: %s; it is kept as %s", self.path, error, aside.name)
                for suffix in _SUFFIXES:
                    with contextlib.suppress(FileNotFoundError):
                        _with(self.path, suffix).replace(_with(aside, suffix))
                self._file = _connect(self.path)
            held = self.path.stat()
        except (sqlite3.Error, OSError) as error:
            self._fail("open", error)
            return
        self._inode = (held.st_dev, held.st_ino)
        self.trouble = ""

    def _fail(self, what: str, error: Exception) -> None:
        trouble = f"cannot {what} {self.path}: {error}; evidence is kept in memory only"
        if trouble != self.trouble:
            _log.error("%s", trouble)
        self.trouble = trouble

    def tend(self) -> None:
        """Now and then: opens the file again where it could not be, or was taken away."""
        try:
            found = self.path.stat()
            kept = (found.st_dev, found.st_ino) == self._inode
        except FileNotFoundError:
            kept = False
        except OSError:
            return
        if self._file is None or not kept:
            if self._file is not None:
                with contextlib.suppress(sqlite3.Error):
                    self._file.close()
                self._file = None
            self._open()

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(sqlite3.Error):
                self._file.close()
        self._memory.close()

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

    def add_audit(self, check: str, at: Instant, body: str) -> None:
        """Keeps what an audit of a site found, as JSON."""
        number = max(row[0] or 0 for row in self._read("SELECT max(number) FROM audit")) + 1
        self._write("INSERT INTO audit VALUES (?, ?, ?, ?)", [(number, check, at, body)])
        self._write("DELETE FROM audit WHERE number <= ?", [(number - KEPT_AUDITS,)])

    def list_audits(
        self, *, limit: int, before: int | None = None, check: str | None = None
    ) -> tuple[KeptAudit, ...]:
        """Audits with a number below `before`, newest first."""
        rows = self._read(
            "SELECT number, name, body FROM audit WHERE number < ? AND (? IS NULL OR name = ?) "
            "ORDER BY number DESC LIMIT ?",
            2**62 if before is None else before,
            check,
            check,
            limit,
        )
        newest = sorted(rows, key=lambda row: -int(row[0]))[:limit]
        return tuple(KeptAudit(number=row[0], check=row[1], body=row[2]) for row in newest)

    def keep_drill(self, number: int, at: Instant, body: str) -> int:
        """Keeps a drill, as JSON, in the place of what was kept of it; 0: a new one. Its number."""
        if not number:
            number = max(row[0] or 0 for row in self._read("SELECT max(number) FROM drill")) + 1
        self._write("INSERT OR REPLACE INTO drill VALUES (?, ?, ?)", [(number, at, body)])
        self._write("DELETE FROM drill WHERE number <= ?", [(number - KEPT_DRILLS,)])
        return number

    def list_drills(self, *, limit: int, before: int | None = None) -> tuple[tuple[int, str], ...]:
        """Drills with a number below `before`, newest first: number and JSON."""
        rows = self._read(
            "SELECT number, body FROM drill WHERE number < ? ORDER BY number DESC LIMIT ?",
            2**62 if before is None else before,
            limit,
        )
        # What memory has of one is later than what the file took.
        latest = {int(number): str(body) for number, body in rows}
        return tuple(sorted(latest.items(), reverse=True)[:limit])

    def add_rehearsal(self, at: Instant, body: str) -> int:
        """Keeps a rehearsal's report, as JSON; its number."""
        number = max(row[0] or 0 for row in self._read("SELECT max(number) FROM rehearsal")) + 1
        self._write("INSERT INTO rehearsal VALUES (?, ?, ?)", [(number, at, body)])
        self._write("DELETE FROM rehearsal WHERE number <= ?", [(number - KEPT_REHEARSALS,)])
        return number

    def list_rehearsals(
        self, *, limit: int, before: int | None = None
    ) -> tuple[tuple[int, Instant, str], ...]:
        """Rehearsals with a number below `before`, newest first: number, instant and JSON."""
        rows = self._read(
            "SELECT number, at, body FROM rehearsal WHERE number < ? ORDER BY number DESC LIMIT ?",
            2**62 if before is None else before,
            limit,
        )
        return tuple(sorted(rows, key=lambda row: -int(row[0]))[:limit])

    def remember(self, check: str, changed: Mapping[str, str | None]) -> None:
        """Keeps what a check remembers, by key; None: forgotten."""
        gone = [(check, key) for key, value in changed.items() if value is None]
        kept = [(check, key, value) for key, value in changed.items() if value is not None]
        if gone:
            self._write("DELETE FROM memory WHERE name = ? AND key = ?", gone)
        if kept:
            self._write("INSERT OR REPLACE INTO memory VALUES (?, ?, ?)", kept)

    def list_memories(self) -> tuple[tuple[str, str, str], ...]:
        """Check, key and value of everything that checks remember."""
        return tuple(self._read("SELECT name, key, value FROM memory"))

    def prune(self, before: Instant) -> None:
        """Forgets everything older than an instant."""
        self._write("DELETE FROM evidence WHERE taken < ?", [(before,)])
        self._write("DELETE FROM run_event WHERE at < ?", [(before,)])
        self._write("DELETE FROM audit WHERE at < ?", [(before,)])
        self._write("DELETE FROM drill WHERE at < ?", [(before,)])
        self._write("DELETE FROM rehearsal WHERE at < ?", [(before,)])

    def find_last_number(self) -> int:
        """The highest number of an incident or run that is spoken of here."""
        rows = self._read("SELECT max(CAST(substr(incident, 2) AS INTEGER)) FROM evidence")
        rows += self._read("SELECT max(CAST(substr(run, 2) AS INTEGER)) FROM run_event")
        return max((int(number) for (number,) in rows if number is not None), default=0)

    def _write(self, sql: str, rows: list[tuple[Any, ...]]) -> None:
        if self._file is not None:
            try:
                _run(self._file, sql, rows)
            except sqlite3.Error as error:
                self._fail("write", error)
            else:
                self.trouble = ""
                return
        _run(self._memory, sql, rows)
        for table, (column, rows_kept) in _IN_MEMORY.items():
            if table in sql:
                self._memory.execute(_CUT.format(table=table, column=column), (rows_kept,))

    def _read(self, sql: str, *values: object) -> list[Any]:
        rows: list[Any] = []
        if self._file is not None:
            try:
                rows = self._file.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                self._fail("read", error)
        return rows + self._memory.execute(sql, values).fetchall()


def _connect(path: Path | str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(_TABLES)
    except sqlite3.Error:
        db.close()
        raise
    return db


def _run(db: sqlite3.Connection, sql: str, rows: list[tuple[Any, ...]]) -> None:
    try:
        db.execute("BEGIN")
        db.executemany(sql, rows)
        db.execute("COMMIT")
    except sqlite3.Error:
        with contextlib.suppress(sqlite3.Error):
            if db.in_transaction:
                db.execute("ROLLBACK")
        raise


def _with(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _parse(body: str) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except ValueError:
        return {"text": body}
    return parsed if isinstance(parsed, dict) else {"text": body}
