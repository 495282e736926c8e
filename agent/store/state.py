"""What must survive: incidents, runs, notices, silences, tokens, the trail. One file, one owner.

`locking_mode=EXCLUSIVE` keeps a second agent out; `journal_mode=PERSIST` with both files grown in
advance lets a commit succeed on a filesystem with 0 bytes and 0 inodes free
(https://www.sqlite.org/pragma.html#pragma_journal_mode).
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError, to_json

from agent.access import Action, Token
from agent.core.model import (
    Decision,
    Doubt,
    Host,
    Incident,
    Instant,
    Notice,
    NoticeState,
    Pause,
    Recovery,
    Run,
    Silence,
    Storm,
    Transition,
)
from agent.errors import StoreError

#: Room kept inside the file and its journal, in bytes.
RESERVE = 4 * 1024 * 1024
#: Ended incidents, runs and notices kept here, each.
KEPT = 500
#: Entries of the trail kept.
KEPT_ACTIONS = 5000

#: What makes each schema out of the one before. A file is brought up from whichever it has, so that
#: a new file and an old one end alike; a step is never changed once it was released.
_STEPS = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE incident (id INTEGER PRIMARY KEY, live INTEGER NOT NULL, check_name TEXT NOT NULL,
        body TEXT NOT NULL);
    CREATE INDEX incident_live ON incident (live);
    CREATE TABLE run (id INTEGER PRIMARY KEY, counted INTEGER NOT NULL, incident TEXT,
        body TEXT NOT NULL);
    CREATE INDEX run_counted ON run (counted);
    CREATE INDEX run_incident ON run (incident);
    CREATE TABLE notice (id INTEGER PRIMARY KEY, state TEXT NOT NULL, incident TEXT,
        body TEXT NOT NULL);
    CREATE INDEX notice_state ON notice (state);
    CREATE TABLE silence (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE transition (number INTEGER PRIMARY KEY AUTOINCREMENT, incident TEXT NOT NULL,
        body TEXT NOT NULL);
    CREATE INDEX transition_incident ON transition (incident);
    """,
    """
    CREATE TABLE token (id INTEGER PRIMARY KEY AUTOINCREMENT, hash TEXT NOT NULL,
        body TEXT NOT NULL);
    CREATE TABLE action (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL);
    """,
)
#: The schema that this program writes; a newer one is refused untouched.
SCHEMA = len(_STEPS)

#: Values of incident.live. A suspicion that was dropped is kept for a while and never listed.
_LIVE, _ENDED, _DROPPED = 1, 0, -1

_INCIDENT = TypeAdapter(Incident)
_RUN = TypeAdapter(Run)
_NOTICE = TypeAdapter(Notice)
_SILENCE = TypeAdapter(Silence)
_TRANSITION = TypeAdapter(Transition)
_STORM = TypeAdapter(Storm | None)
_PAUSE = TypeAdapter(Pause | None)
_DOUBT = TypeAdapter(Doubt | None)
_RECOVERIES = TypeAdapter(tuple[Recovery, ...])
_INSTANT = TypeAdapter(Instant | None)
_TOKEN = TypeAdapter(Token)
_ACTION = TypeAdapter(Action)


def _dump(value: object) -> str:
    """As JSON that is read back whatever a look has seen: infinities stay, and what no UTF-8 can
    hold (a file name of other bytes) becomes a question mark.
    """
    try:
        return to_json(value, inf_nan_mode="constants").decode()
    except PydanticSerializationError:
        plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        return (
            json.dumps(plain, ensure_ascii=False, default=sorted)
            .encode("utf-8", "replace")
            .decode()
        )


def number_of(item_id: str) -> int:
    """The number in an id such as `i17`. Raises StoreError for anything else."""
    digits = item_id[1:]
    if not digits.isascii() or not digits.isdigit() or len(digits) > 15:
        raise StoreError(f"cannot read {item_id!r}: an id is a letter and a number, such as i17")
    return int(digits)


def read_schema(path: Path) -> int:
    """The schema of a file, read from its header so that nothing in it is touched; 0 for none.

    https://www.sqlite.org/fileformat2.html#the_database_header, the user version.
    """
    try:
        with path.open("rb") as file:
            header = file.read(64)
    except OSError:
        return 0
    if len(header) < 64 or not header.startswith(b"SQLite format 3\0"):
        return 0
    return int.from_bytes(header[60:64], "big")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What part of a table is wanted: newest first, before an id, at most so many."""

    limit: int = 50
    before: str | None = None
    #: Column -> value that it must have.
    where: Mapping[str, object] | None = None


class State:
    """The open state file. Used by one thread only; nothing here waits for anything but the disk.

    Raises StoreError when the file belongs to another agent, was written by a newer program, or
    cannot be read or written.
    """

    def __init__(self, path: Path, *, reserve: int = RESERVE) -> None:
        self._room = reserve
        #: Transactions ever committed: of two files of one agent, the newer has more.
        self.commits = 0
        self._meta: dict[str, str] = {}
        self._due: dict[str, Notice] = {}
        self._tokens: list[Any] = []
        self._open(path)
        try:
            self.load()
        except (StoreError, ValueError) as error:
            self._db.close()
            raise StoreError(f"cannot read {path}: {error}") from error

    def _open(self, path: Path) -> None:
        self.path = path
        version = read_schema(path)
        if version > SCHEMA:
            raise StoreError(
                f"cannot open {path}: its schema is {version}, this program knows {SCHEMA}; "
                f"install the newer hostmend again"
            )
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise StoreError(f"cannot open {path}: {error}") from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._db.close()
            if "locked" in str(error):
                raise StoreError(
                    f"cannot open {path}: another agent uses it; stop that one first, "
                    f"or give this one a state directory of its own"
                ) from error
            raise StoreError(f"cannot open {path}: {error}") from error

    def _prepare(self) -> None:
        db = self._db
        db.execute("PRAGMA busy_timeout = 0")
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        db.execute("PRAGMA journal_mode = PERSIST")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA temp_store = MEMORY")
        # An exclusive lock is taken at the first write and then kept.
        db.execute("BEGIN EXCLUSIVE")
        #: Whether there was nothing before.
        self.created = version == 0
        for step in _STEPS[version:]:
            for statement in step.split(";"):
                if statement.strip():
                    db.execute(statement)
        db.execute("INSERT OR IGNORE INTO meta VALUES ('era', lower(hex(randomblob(8))))")
        if version != SCHEMA:
            db.execute(f"PRAGMA user_version = {SCHEMA}")
        db.execute("COMMIT")

    def load(self) -> None:
        """Reads again what is also kept in memory: after opening, or a commit of unknown end."""
        self._meta = dict(self._rows("SELECT key, value FROM meta"))
        self.commits = int(self._meta.get("commits", "0"))
        self._due = {
            notice.id: notice
            for (body,) in self._rows("SELECT body FROM notice WHERE state = 'due' ORDER BY id")
            for notice in (_NOTICE.validate_json(body),)
        }
        self._keep_tokens()

    @property
    def era(self) -> str:
        """Made with the file: numbers given before a loss are never taken for those after it."""
        return self._meta.get("era", "")

    def find_fault(self) -> str:
        """What is wrong with the file, in words; empty for nothing."""
        try:
            ((found, *_), *_) = self._rows("PRAGMA quick_check(1)")
            self.load_host()
        except (StoreError, ValueError) as error:
            return str(error)
        return "" if found == "ok" else str(found)

    def keep_reserve(self) -> bool:
        """Grows the file and its journal in advance; False where there is no room for that."""
        db, size = self._db, self._room
        try:
            (free,) = db.execute("PRAGMA freelist_count").fetchone()
            (page,) = db.execute("PRAGMA page_size").fetchone()
            journal = self.path.with_name(f"{self.path.name}-journal").stat().st_size
            if free * page < size // 2 or journal < size // 2:
                self._reserve(size)
        except (sqlite3.Error, OSError, StoreError):
            return False
        return True

    def _reserve(self, size: int) -> None:
        """Free pages for the file; the journal grows by holding them once."""
        db, chunk = self._db, 64 * 1024
        # One that was killed on the way leaves its table.
        db.execute("DROP TABLE IF EXISTS reserve")
        db.execute("CREATE TABLE reserve (body BLOB)")
        rows = [(bytes(chunk),)] * max(1, size // chunk)
        try:
            with self._transaction():
                db.executemany("INSERT INTO reserve VALUES (?)", rows)
            with self._transaction():
                db.execute("UPDATE reserve SET body = randomblob(?)", (chunk,))
        finally:
            db.execute("DROP TABLE reserve")

    # Another file

    def move(self, path: Path) -> None:
        """Goes on in another file, with everything that was committed.

        What that file held is replaced in one transaction; the old file is left as it is. Raises
        StoreError, and then nothing has changed.
        """
        target = State(path, reserve=0)
        try:
            self._db.backup(target._db)
            fault = target.find_fault()
            if fault:
                raise StoreError(f"cannot use the copy in {path}: {fault}")
        except sqlite3.Error as error:
            target.close()
            raise StoreError(f"cannot copy {self.path} to {path}: {error}") from error
        except StoreError:
            target.close()
            raise
        self.take_over(target)

    def begin_again(self, path: Path, host: Host) -> None:
        """Goes on in a new file with what memory holds, where the old one cannot even be read.

        That is all that is still to be done: the host, the messages that are due, the tokens.
        """
        target = State(path, reserve=0)
        try:
            for key in ("era", "machine", "hardware"):
                if key in self._meta:
                    target.set_meta(key, self._meta[key])
            target.set_meta("partial", "yes")
            with target._transaction():
                target._db.executemany("INSERT INTO token VALUES (?, ?, ?)", self._tokens)
            target.save(Host(), Decision(host=host, notices=tuple(self._due.values())))
            # To write down what was committed commits nothing new.
            values = (str(self.commits),)
            target._db.execute("UPDATE meta SET value = ? WHERE key = 'commits'", values)
        except (StoreError, sqlite3.Error) as error:
            target.close()
            raise StoreError(f"cannot begin again in {path}: {error}") from error
        self.take_over(target)

    @property
    def partial(self) -> bool:
        """Whether it was begun again from memory."""
        return "partial" in self._meta

    def adopt(self, newer: State) -> None:
        """Takes over what a partial state holds: that is newer, and this one has all the rest."""
        db = self._db
        with self._transaction():
            db.execute("DELETE FROM silence")
            db.execute("DELETE FROM token")
            db.execute("DELETE FROM meta WHERE key IN ('storm', 'paused', 'doubt')")
            for table, columns in (
                ("incident", "id, live, check_name, body"),
                ("run", "id, counted, incident, body"),
                ("notice", "id, state, incident, body"),
                ("silence", "id, body"),
                ("token", "id, hash, body"),
                ("meta", "key, value"),
                ("transition", "incident, body"),
            ):
                marks = ", ".join("?" for _ in columns.split(","))
                db.executemany(
                    f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({marks})",  # noqa: S608 - own names
                    newer._rows(f"SELECT {columns} FROM {table}"),  # noqa: S608
                )
            db.execute("DELETE FROM meta WHERE key = 'partial'")
            self.commits = max(self.commits, newer.commits)
        for action in reversed(newer.list_actions(Listing(limit=KEPT_ACTIONS))):
            self.add_action(action)
        self.load()

    def take_over(self, target: State) -> None:
        """Goes on as another state that is open."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        self.path, self._db, self.created = target.path, target._db, False
        self.load()

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            counted = ("commits", str(self.commits + 1))
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", counted)
            self._db.execute("COMMIT")
            self.commits += 1
        except sqlite3.Error as error:
            self._roll_back()
            raise StoreError(f"cannot write {self.path}: {error}") from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    # Deciding

    def load_host(self) -> Host:
        """The host as the last committed decision left it; looks and transitions start empty."""
        meta = dict(self._rows("SELECT key, value FROM meta"))
        return Host(
            incidents=tuple(
                _INCIDENT.validate_json(body)
                for (body,) in self._rows("SELECT body FROM incident WHERE live > 0 ORDER BY id")
            ),
            runs=tuple(
                _RUN.validate_json(body)
                for (body,) in self._rows("SELECT body FROM run WHERE counted = 1 ORDER BY id")
            ),
            silences=tuple(
                _SILENCE.validate_json(body)
                for (body,) in self._rows("SELECT body FROM silence ORDER BY id")
            ),
            storm=_STORM.validate_json(meta.get("storm", "null")),
            paused=_PAUSE.validate_json(meta.get("paused", "null")),
            doubt=_DOUBT.validate_json(meta.get("doubt", "null")),
            recoveries=_RECOVERIES.validate_json(meta.get("recoveries", "[]")),
            digested=_INSTANT.validate_json(meta.get("digested", "null")),
            serial=int(meta.get("serial", "0")),
        )

    def save(self, old: Host, decision: Decision) -> bool:
        """Makes a decision durable in one transaction; False when there was nothing to write."""
        new = decision.host
        incidents = _changed(old.incidents, new.incidents)
        runs = _changed(old.runs, new.runs)
        dropped = {run.id for run in old.runs} - {run.id for run in new.runs}
        silences = _changed(old.silences, new.silences)
        lifted = {s.id for s in old.silences} - {s.id for s in new.silences}
        meta = self._changed_meta(old, new)
        if not (
            incidents
            or runs
            or dropped
            or silences
            or lifted
            or meta
            or decision.ended
            or decision.notices
            or decision.transitions
        ):
            return False
        with self._transaction():
            db = self._db
            db.executemany(
                "INSERT OR REPLACE INTO incident VALUES (?, ?, ?, ?)",
                [
                    (number_of(i.id), live, i.check, _dump(i))
                    for live, group in (
                        (_LIVE, incidents),
                        (_ENDED, [i for i in decision.ended if i.opened is not None]),
                        (_DROPPED, [i for i in decision.ended if i.opened is None]),
                    )
                    for i in group
                ],
            )
            db.executemany(
                "INSERT OR REPLACE INTO run VALUES (?, 1, ?, ?)",
                [(number_of(r.id), r.incident, _dump(r)) for r in runs],
            )
            db.executemany(
                "UPDATE run SET counted = 0 WHERE id = ?", [(number_of(i),) for i in dropped]
            )
            db.executemany(
                "INSERT OR REPLACE INTO silence VALUES (?, ?)",
                [(number_of(s.id), _dump(s)) for s in silences],
            )
            db.executemany("DELETE FROM silence WHERE id = ?", [(number_of(i),) for i in lifted])
            db.executemany(
                "INSERT INTO notice VALUES (?, ?, ?, ?)",
                [
                    (
                        number_of(n.id),
                        n.state.value,
                        n.incident.id if n.incident else None,
                        _dump(n),
                    )
                    for n in decision.notices
                ],
            )
            db.executemany(
                "INSERT INTO transition (incident, body) VALUES (?, ?)",
                [(t.incident, _dump(t)) for t in decision.transitions],
            )
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(meta.items()))
            if decision.ended:
                self._prune()
        self._due.update((n.id, n) for n in decision.notices if n.state is NoticeState.DUE)
        return True

    def _changed_meta(self, old: Host, new: Host) -> dict[str, str]:
        meta = {}
        if new.storm != old.storm:
            meta["storm"] = _dump(new.storm)
        if new.paused != old.paused:
            meta["paused"] = _dump(new.paused)
        if new.doubt != old.doubt:
            meta["doubt"] = _dump(new.doubt)
        if new.recoveries != old.recoveries:
            meta["recoveries"] = _dump([asdict(each) for each in new.recoveries])
        if new.digested != old.digested:
            meta["digested"] = _dump(new.digested)
        if new.serial != old.serial:
            meta["serial"] = str(new.serial)
        return meta

    def _prune(self) -> None:
        """Keeps the file small: what ended long ago goes, oldest first."""
        db = self._db
        for table, ended in (
            ("incident", f"live = {_ENDED}"),
            ("incident", f"live = {_DROPPED}"),
            ("run", "counted = 0"),
            ("notice", "state <> 'due'"),
        ):
            db.execute(
                f"DELETE FROM {table} WHERE {ended} AND id <= (SELECT id FROM {table} "  # noqa: S608 - constants
                f"WHERE {ended} ORDER BY id DESC LIMIT 1 OFFSET {KEPT})"
            )
        db.execute("DELETE FROM transition WHERE incident NOT IN (SELECT 'i' || id FROM incident)")

    # Notices

    def due_notices(self) -> tuple[Notice, ...]:
        """Every notice that is neither delivered nor expired, oldest first."""
        return tuple(self._due.values())

    def update_notice(self, notice: Notice) -> None:
        """Records an attempt. A notice that is no longer due is left as it is."""
        with self._transaction():
            self._db.execute(
                "UPDATE notice SET state = ?, body = ? WHERE id = ? AND state = 'due'",
                (
                    notice.state.value,
                    _dump(notice),
                    number_of(notice.id),
                ),
            )
        if notice.state is not NoticeState.DUE:
            self._due.pop(notice.id, None)
        elif notice.id in self._due:
            self._due[notice.id] = notice

    # Tokens and the trail

    def add_token(self, token: Token, digest: str) -> Token:
        """Saves a token under an id that was never used, and the hash of its secret."""
        with self._transaction():
            number = self._next("token")
            token = replace(token, id=f"t{number}")
            body = _dump(token)
            self._db.execute("INSERT INTO token VALUES (?, ?, ?)", (number, digest, body))
        self._keep_tokens()
        return token

    def update_tokens(self, tokens: Iterable[Token]) -> None:
        """Saves changes of all of them, or of none."""
        with self._transaction():
            self._db.executemany(
                "UPDATE token SET body = ? WHERE id = ?",
                [(_dump(token), number_of(token.id)) for token in tokens],
            )
        self._keep_tokens()

    def drop_tokens(self, token_ids: Iterable[str]) -> None:
        """Forgets tokens for good."""
        with self._transaction():
            self._db.executemany(
                "DELETE FROM token WHERE id = ?", [(number_of(i),) for i in token_ids]
            )
        self._keep_tokens()

    def _keep_tokens(self) -> None:
        self._tokens = self._rows("SELECT id, hash, body FROM token")

    def load_tokens(self) -> tuple[tuple[Token, str], ...]:
        """Every token with the hash of its secret, oldest first."""
        rows = self._rows("SELECT body, hash FROM token ORDER BY id")
        return tuple((_TOKEN.validate_json(body), str(digest)) for body, digest in rows)

    def add_action(self, action: Action) -> Action:
        """Saves an entry of the trail under the next id; the oldest beyond the bound goes."""
        with self._transaction():
            number = self._next("action")
            action = replace(action, id=f"a{number}")
            body = _dump(action)
            self._db.execute("INSERT INTO action VALUES (?, ?)", (number, body))
            self._db.execute("DELETE FROM action WHERE id <= ?", (number - KEPT_ACTIONS,))
        return action

    def update_action(self, action: Action) -> None:
        with self._transaction():
            self._db.execute(
                "UPDATE action SET body = ? WHERE id = ?",
                (_dump(action), number_of(action.id)),
            )

    def list_actions(self, listing: Listing) -> tuple[Action, ...]:
        return tuple(_ACTION.validate_json(body) for body in self._list("action", listing))

    def _next(self, table: str) -> int:
        """The number after the highest that a table ever had."""
        row = self._one("SELECT seq FROM sqlite_sequence WHERE name = ?", table)
        return int(row or 0) + 1

    # Reading

    def find_incident(self, incident_id: str) -> Incident | None:
        row = self._one("SELECT body FROM incident WHERE id = ?", number_of(incident_id))
        return None if row is None else _INCIDENT.validate_json(row)

    def find_run(self, run_id: str) -> Run | None:
        row = self._one("SELECT body FROM run WHERE id = ?", number_of(run_id))
        return None if row is None else _RUN.validate_json(row)

    def list_incidents(self, listing: Listing, *, dropped: bool = False) -> tuple[Incident, ...]:
        """Incidents; with `dropped` also suspicions that were never confirmed."""
        least = _DROPPED if dropped else _ENDED
        bodies = self._list("incident", listing, f"live >= {least}")
        return tuple(_INCIDENT.validate_json(body) for body in bodies)

    def list_runs(self, listing: Listing) -> tuple[Run, ...]:
        return tuple(_RUN.validate_json(body) for body in self._list("run", listing))

    def list_notices(self, listing: Listing) -> tuple[Notice, ...]:
        return tuple(_NOTICE.validate_json(body) for body in self._list("notice", listing))

    def list_transitions(self, incident_id: str) -> tuple[Transition, ...]:
        """Everything an incident went through, oldest first."""
        rows = self._rows(
            "SELECT body FROM transition WHERE incident = ? ORDER BY number", incident_id
        )
        return tuple(_TRANSITION.validate_json(body) for (body,) in rows)

    def count_due(self) -> int:
        """Notices that wait for delivery."""
        return len(self._due)

    def get_meta(self, key: str) -> str | None:
        return self._meta.get(key)

    def set_meta(self, key: str, value: str) -> None:
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
        self._meta[key] = value

    def _list(self, table: str, listing: Listing, condition: str = "1") -> Iterable[str]:
        where, values = [condition], []
        for column, value in (listing.where or {}).items():
            where.append(f"{column} = ?")
            values.append(value)
        if listing.before is not None:
            where.append("id < ?")
            values.append(number_of(listing.before))
        sql = (
            f"SELECT body FROM {table} WHERE {' AND '.join(where)} "  # noqa: S608 - own names
            f"ORDER BY id DESC LIMIT ?"
        )
        return [body for (body,) in self._rows(sql, *values, listing.limit)]

    def _one(self, sql: str, *values: object) -> str | None:
        row = next(iter(self._rows(sql, *values)), None)
        return None if row is None else str(row[0])

    def _rows(self, sql: str, *values: object) -> list[Any]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self.path}: {error}") from error


def _changed(old: tuple[Any, ...], new: tuple[Any, ...]) -> list[Any]:
    """Items of `new` that are not in `old` as they are; identity first, since most are the same."""
    before = {item.id: item for item in old}
    return [
        item
        for item in new
        if (known := before.get(item.id)) is not item and (known is None or known != item)
    ]
