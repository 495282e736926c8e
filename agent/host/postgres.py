"""PostgreSQL, asked through its socket by its own client, as a user of this host: no password.

Each statement stands on a line and answers in JSON on a line, so that nothing that a name or a
text holds can be taken for another answer, and what came before a silence is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from agent.host.command import Printed, run_command
from agent.host.database import Asked, Trouble, Written

#: A row: that a server answers `SELECT 1` says nothing of its files.
_READ = (
    "SELECT json_build_object('kind', 'read', 'database',"
    " (SELECT datname FROM pg_catalog.pg_database LIMIT 1))"
)
_SERVER = (
    "SELECT json_build_object('kind', 'server', 'version', current_setting('server_version'),"
    " 'recovery', pg_is_in_recovery(),"
    " 'uptime', extract(epoch FROM clock_timestamp() - pg_postmaster_start_time()),"
    " 'directory', (SELECT setting FROM pg_settings WHERE name = 'data_directory'),"
    " 'collector', current_setting('logging_collector'),"
    " 'limit', current_setting('max_connections')::int"
    " - current_setting('superuser_reserved_connections')::int"
    " - coalesce(current_setting('reserved_connections', true)::int, 0),"
    " 'taken', (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    " AND pid <> pg_backend_pid()))"
)
#: Only members of pg_monitor may, so that it is asked by itself.
_LOG = "SELECT json_build_object('kind', 'log', 'file', pg_current_logfile())"
#: Who waits for locks, and for whom; without the statements, which may hold secrets. What a
#: version does not have is null: `waitstart` came with 14.
_WAITING = (
    "SELECT json_build_object('kind', 'waiting', 'count', w.count, 'pid', a.pid,"
    " 'user', a.usename, 'database', a.datname, 'event', a.wait_event,"
    " 'seconds', CASE WHEN w.known THEN coalesce(extract(epoch FROM clock_timestamp() - w.since),"
    " 0) ELSE extract(epoch FROM clock_timestamp() - a.query_start) END,"
    " 'by', b.pid, 'by_user', b.usename, 'by_state', b.state)"
    " FROM (SELECT l.pid, to_jsonb(l) ? 'waitstart' AS known,"
    " (to_jsonb(l) ->> 'waitstart')::timestamptz AS since, count(*) OVER () AS count"
    " FROM pg_locks l WHERE NOT l.granted ORDER BY 3 LIMIT 20) w"
    " JOIN pg_stat_activity a ON a.pid = w.pid"
    " LEFT JOIN LATERAL (SELECT o.pid, o.usename, o.state FROM pg_stat_activity o"
    " WHERE o.pid = ANY (pg_blocking_pids(a.pid)) ORDER BY o.xact_start LIMIT 1) b ON true"
)
#: Of a replica. `primary_conninfo` may hold a password: only whether it is set.
_FOLLOWING = (
    "SELECT json_build_object('kind', 'following', 'paused', pg_is_wal_replay_paused(),"
    " 'source', (SELECT setting <> '' FROM pg_settings WHERE name = 'primary_conninfo'),"
    " 'status', w.status, 'host', w.sender_host, 'port', w.sender_port,"
    " 'bytes', greatest(0, pg_wal_lsn_diff("
    "greatest(w.latest_end_lsn, pg_last_wal_receive_lsn()), pg_last_wal_replay_lsn())),"
    " 'seconds', extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()))"
    " FROM (SELECT 1 WHERE pg_is_in_recovery()) r LEFT JOIN pg_stat_wal_receiver w ON true"
)
_REPLICAS = (
    "SELECT json_build_object('kind', 'replica', 'name', application_name, 'address',"
    " host(client_addr), 'state', state, 'seconds', extract(epoch FROM replay_lag))"
    " FROM pg_stat_replication ORDER BY replay_lag DESC NULLS LAST LIMIT 20"
)
_SLOTS = (
    "SELECT json_build_object('kind', 'slot', 'name', s.slot_name, 'type', s.slot_type,"
    " 'active', s.active, 'wal_status', to_jsonb(s) ->> 'wal_status', 'bytes', greatest(0,"
    " pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn()"
    " ELSE pg_current_wal_lsn() END, s.restart_lsn)))"
    " FROM pg_replication_slots s ORDER BY s.restart_lsn NULLS LAST LIMIT 20"
)
_WAL = (
    "SELECT json_build_object('kind', 'wal', 'count', count(*), 'bytes', coalesce(sum(size), 0),"
    " 'most', pg_size_bytes(current_setting('max_wal_size')),"
    " 'keep', pg_size_bytes(coalesce(current_setting('wal_keep_size', true), '0')))"
    " FROM pg_ls_waldir()"
)
_ARCHIVER = (
    "SELECT json_build_object('kind', 'archiver', 'mode', current_setting('archive_mode'),"
    " 'failing', coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false),"
    " 'failed', last_failed_wal, 'since',"
    " extract(epoch FROM clock_timestamp() - last_archived_time)) FROM pg_stat_archiver"
)
_DEEP = (_SERVER, _LOG, _WAITING, _FOLLOWING, _REPLICAS, _SLOTS, _WAL, _ARCHIVER)
#: A message in the write-ahead log, in a transaction that commits: it takes a transaction's number,
#: is written, flushed and waits for synchronous replicas as any other, and leaves nothing behind.
#: (`txid_current()` alone would not be flushed: RecordTransactionCommit of xact.c.)
#: One that waits for ever, for a replica, stays on the server: no second one is sent.
_WRITE = (
    "SELECT json_build_object('kind', 'written', 'recovery', p.recovery, 'read_only', p.read_only,"
    " 'stuck', p.stuck, 'at', CASE WHEN NOT p.recovery AND NOT p.read_only AND p.stuck = 0"
    " THEN pg_logical_emit_message(true, 'hostmend', 'probe') END)"
    " FROM (SELECT pg_is_in_recovery() AS recovery,"
    " current_setting('transaction_read_only')::bool AS read_only, (SELECT count(*)"
    " FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = current_user"
    " AND application_name = 'hostmend' AND state = 'active'"
    # Longer than one may take: another one of ours, asked at this moment, is not stuck.
    " AND query_start < clock_timestamp() - current_setting('statement_timeout')::interval"
    ") AS stuck) p"
)
_ALL = "SELECT json_build_object('kind', 'all')"

_ERROR = re.compile(
    r"^psql:<stdin>:(?P<line>\d+): [^\s:]+:  (?P<code>[0-9A-Z]{5}): (?P<why>.*)$", re.M
)
#: What libpq says before there is a session; only the server's own words follow its language.
_NO_SESSION = re.compile(
    r"^psql: error: (?:connection to server [^\n]*? failed: |could not connect to server: )?"
    r"(?P<why>[^\n]*)",
    re.M,
)
_LOST = re.compile(r"server closed the connection unexpectedly|connection to server was lost")
_TROUBLES = (
    # The server's own words begin with how grave they are: FATAL.
    (re.compile(r"^(?:No such file or directory|Connection refused)"), Trouble.REFUSED),
    (_LOST, Trouble.REFUSED),
    # The queue of a socket is full: nobody takes connections from it any more.
    (re.compile(r"^(?:Resource temporarily unavailable|timeout expired)"), Trouble.TIMEOUT),
    (
        re.compile(r"too many clients already|connection slots are reserved|too many connections"),
        Trouble.FULL,
    ),
    (
        re.compile(
            r"the database system is (?:starting up|shutting down|in recovery mode"
            r"|not yet accepting connections|not accepting connections)"
        ),
        Trouble.STARTING,
    ),
    (
        re.compile(
            r"role \".*\" does not exist|authentication failed|no pg_hba\.conf entry"
            r"|database \".*\" does not exist|not permitted to log in|fe_sendauth"
            r"|permission denied|Permission denied|is not currently accepting connections"
        ),
        Trouble.DENIED,
    ),
)
_NOT_ALLOWED = "42501"
_READ_ONLY = "25006"
_LOCKED = ("55P03", "40P01")
#: By a time limit; the server is being stopped.
_TIMED_OUT = ("57014",)
_ENDED = ("57P01", "57P02", "57P03")


@dataclass(frozen=True, kw_only=True)
class PostgresAnswer:
    """What the server said, as far as it came. Rows are as the statements above build them."""

    #: None: it read.
    trouble: Trouble | None = None
    why: str = ""
    #: Everything that was asked came, or was not allowed.
    complete: bool = False
    #: Why something else did not come, where the server said so.
    missing: str = ""
    #: What this user may not see, by the kind of its rows.
    hidden: tuple[str, ...] = ()
    server: Mapping[str, Any] = field(default_factory=dict)
    #: The file that its logging collector writes; empty: it has none, or may not be asked.
    log: str = ""
    waiting: tuple[Mapping[str, Any], ...] = ()
    #: None: it is no replica, or was not asked.
    following: Mapping[str, Any] | None = None
    replicas: tuple[Mapping[str, Any], ...] = ()
    slots: tuple[Mapping[str, Any], ...] = ()
    wal: Mapping[str, Any] = field(default_factory=dict)
    archiver: Mapping[str, Any] = field(default_factory=dict)
    written: Written = Written.LEFT_OUT
    #: What the write was answered, where it failed.
    write_error: str = ""


async def ask_postgres(asked: Asked, database: str) -> PostgresAnswer:
    """Asks the server in one child. Raises Unavailable if the client cannot be run."""
    lines = list_statements(asked)
    place = PurePosixPath(asked.socket)
    where = [
        f"--host={place.parent}",
        f"--port={place.name.rpartition('.')[2]}",
        f"--username={asked.user}",
        f"--dbname={database}",
    ]
    argv = [find_client("psql"), "--no-psqlrc", "--quiet", "--no-align", "--tuples-only"]
    argv += ["--no-password", "--file=-", *where]
    how: dict[str, Any] = {
        "seconds": asked.seconds,
        "user": asked.user,
        "given": "".join(f"{line}\n" for line in lines),
        "environment": {
            "PGAPPNAME": "hostmend",
            # Ours is the shorter one: only that tells silence from a connection that was ended.
            "PGCONNECT_TIMEOUT": f"{round(asked.seconds) + 5}",
        },
    }
    printed = await run_command(argv, **how)
    answer = read_answer(printed, asked, lines)
    if answer.trouble in (Trouble.REFUSED, Trouble.STARTING) and _LOST.search(printed.err):
        # Another session's crash ends all: whether it takes new ones is what counts.
        printed = await run_command(argv, **how)
        answer = read_answer(printed, asked, lines)
    if answer.trouble is Trouble.ERROR and _NO_SESSION.search(printed.err):
        # It refuses in words of its own language; what pg_isready says does not depend on that.
        ready = await run_command(
            [find_client("pg_isready"), "--quiet", *where, f"--timeout={round(asked.seconds)}"],
            seconds=asked.seconds,
            user=asked.user,
        )
        if ready.code == 1:
            return PostgresAnswer(trouble=Trouble.STARTING, why=answer.why)
    return answer


def find_client(name: str, installed: Path = Path("/usr/lib/postgresql")) -> str:
    """A program of PostgreSQL's: Debian's own of the newest version, past its wrapper in Perl."""
    found = [file for file in installed.glob(f"*/bin/{name}") if file.parts[-3].isdecimal()]
    return str(max(found, key=lambda file: int(file.parts[-3]))) if found else name


def list_statements(asked: Asked) -> list[str]:
    """What is asked, one statement a line."""
    # The server gives up first, so that nothing goes on there for nobody.
    most = f"{asked.seconds * 800:.0f}"
    lines = [
        r"\set VERBOSITY verbose",
        f"SET statement_timeout = {most}; SET lock_timeout = {asked.seconds * 500:.0f};",
        _READ,
    ]
    if asked.deep:
        lines += _DEEP
    if asked.write:
        lines.append(_WRITE)
    lines.append(_ALL)
    return [line if line.startswith("\\") or line.endswith(";") else f"{line};" for line in lines]


@dataclass(frozen=True, kw_only=True)
class _Error:
    code: str
    why: str


def read_answer(printed: Printed, asked: Asked, lines: list[str]) -> PostgresAnswer:
    """What was printed, as values."""
    errors: dict[str, _Error] = {}
    for found in _ERROR.finditer(printed.err):
        number = int(found["line"])
        statement = lines[number - 1] if 0 < number <= len(lines) else ""
        errors.setdefault(statement, _Error(code=found["code"], why=found["why"][:300]))
    rows = _read_rows(printed.out)
    kinds = {row["kind"] for row in rows}
    trouble, why = _judge(printed, asked, errors, read="read" in kinds)
    written, write_error = _judge_write(printed, asked, errors, rows)
    hidden = {
        match[1]
        for statement, error in errors.items()
        if error.code == _NOT_ALLOWED
        # Without it the log is looked for where Debian keeps it.
        and statement != f"{_LOG};"
        and (match := re.search(r"'kind', '(\w+)'", statement))
    }

    def first(kind: str) -> Mapping[str, Any]:
        return next((row for row in rows if row["kind"] == kind), {})

    def every(kind: str) -> tuple[Mapping[str, Any], ...]:
        return tuple(row for row in rows if row["kind"] == kind)

    # What became of the write is told by itself.
    missing = next(
        (
            error.why
            for statement, error in errors.items()
            if error.code != _NOT_ALLOWED and statement != f"{_WRITE};"
        ),
        "",
    )
    log = first("log").get("file")
    return PostgresAnswer(
        trouble=trouble,
        why=why,
        complete=trouble is None and "all" in kinds and not missing,
        missing=missing,
        hidden=tuple(sorted(hidden)),
        server=first("server"),
        log=log if isinstance(log, str) else "",
        waiting=every("waiting"),
        following=first("following") or None,
        replicas=every("replica"),
        slots=every("slot"),
        wal=first("wal"),
        archiver=first("archiver"),
        written=written,
        write_error=write_error,
    )


def _judge(
    printed: Printed, asked: Asked, errors: Mapping[str, _Error], *, read: bool
) -> tuple[Trouble | None, str]:
    """Why the server did not read; None when it did."""
    ended = next((e.why for e in errors.values() if e.code in _ENDED), "")
    if read and (ended or _LOST.search(printed.err)):
        # What came before says nothing of now: it is being stopped, or another session crashed.
        return Trouble.STARTING, ended or "it ended the connection while it was asked"
    if read:
        return None, ""
    if (error := errors.get(f"{_READ};")) is not None:
        if error.code in _TIMED_OUT:
            return Trouble.TIMEOUT, error.why
        if error.code in _ENDED:
            return Trouble.STARTING, error.why
        return (Trouble.DENIED if error.code == _NOT_ALLOWED else Trouble.ERROR), error.why
    if printed.code is None:
        return Trouble.TIMEOUT, f"no answer within {asked.seconds:g} s"
    refused = _NO_SESSION.search(printed.err)
    why = refused["why"] if refused else ""
    if not why and _LOST.search(printed.err):
        why = "the server ended the connection"
        return Trouble.REFUSED, why
    for pattern, trouble in _TROUBLES:
        if pattern.search(why):
            return trouble, why
    return Trouble.ERROR, (
        why or printed.said or f"the client ended with {printed.code} and no word"
    )


def _judge_write(
    printed: Printed, asked: Asked, errors: Mapping[str, _Error], rows: list[dict[str, Any]]
) -> tuple[Written, str]:
    if not asked.write:
        return Written.LEFT_OUT, ""
    if (error := errors.get(f"{_WRITE};")) is not None:
        if error.code == _READ_ONLY:
            return Written.READ_ONLY, error.why
        if error.code in _LOCKED:
            return Written.LOCKED, error.why
        if error.code in _TIMED_OUT:
            return Written.TIMEOUT, error.why
        return Written.FAILED, error.why
    said = next((row for row in rows if row["kind"] == "written"), None)
    if said is None:
        if printed.code is None and any(row["kind"] == "read" for row in rows):
            return Written.TIMEOUT, f"no answer within {asked.seconds:g} s"
        return Written.LEFT_OUT, ""
    if said.get("recovery"):
        return Written.LEFT_OUT, ""
    if said.get("read_only"):
        return Written.READ_ONLY, "default_transaction_read_only is on"
    if said.get("stuck"):
        return Written.STUCK, f"{said['stuck']} of ours waits already"
    return (Written.DONE, "") if said.get("at") else (Written.FAILED, "it was not carried out")


def _read_rows(out: str) -> list[dict[str, Any]]:
    rows = []
    for line in out.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("kind"), str):
            rows.append(row)
    return rows


def read_number(row: Mapping[str, Any], key: str) -> float | None:
    """A number of a row; None where there is none, or something else."""
    value = row.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
