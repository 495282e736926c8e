"""MariaDB, asked through its socket by its own client, as a user of this host without a password.

The client is never given root: a server that was taken over could otherwise ask it for any file
(LOAD DATA LOCAL INFILE). Statements stand on a line each, and what came before a silence is kept:
it tells which of them was not answered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.errors import Unavailable
from agent.host.command import Printed, run_command
from agent.host.database import Asked, Trouble, Written

#: What the server says of those who wait until a full disk has room (mysys/errors.c).
WAITS_FOR_ROOM = "Waiting for someone to free space"

_VARIABLES = (
    "datadir", "log_bin_basename", "log_error", "max_connections", "read_only",
    "relay_log_basename", "tmpdir", "version",
)  # fmt: skip
_STATUS = ("Threads_connected", "Uptime")

_READ = (
    # A row of InnoDB and one of Aria: that a server answers `SELECT 1` says nothing of either.
    "SELECT 'read' AS kind,"
    " (SELECT COUNT(*) FROM (SELECT 1 FROM mysql.innodb_table_stats LIMIT 1) a),"
    " (SELECT COUNT(*) FROM (SELECT 1 FROM mysql.db LIMIT 1) b)"
)
_SHOW_VARIABLES = f"SHOW GLOBAL VARIABLES WHERE Variable_name IN {_VARIABLES}"
_SHOW_STATUS = f"SHOW GLOBAL STATUS WHERE Variable_name IN {_STATUS}"
#: Locks of tables and rows, and room: who waits for them, without the statements themselves,
#: which may hold secrets.
_WAITING = (
    "SELECT 'waiting' AS kind, ID, USER, IFNULL(DB, ''), IFNULL(TIME, 0), STATE"
    " FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID()"
    " AND (STATE = 'Waiting for someone to free space' OR STATE LIKE 'Waiting for % lock')"
    " ORDER BY TIME DESC LIMIT 20"
)
_BLOCKED = (
    "SELECT 'waiting' AS kind, t.trx_mysql_thread_id, IFNULL(p.USER, ''), IFNULL(p.DB, ''),"
    " TIMESTAMPDIFF(SECOND, t.trx_wait_started, NOW()), 'Waiting for row lock'"
    " FROM information_schema.INNODB_TRX t"
    " LEFT JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id"
    " WHERE t.trx_state = 'LOCK WAIT' ORDER BY t.trx_wait_started LIMIT 20"
)
_SOURCES = "SHOW ALL SLAVES STATUS\\G"
#: Each that hangs would stay on the server and take up a connection for as long as it hangs.
_COUNT_STUCK = (
    "SET @stuck = (SELECT COUNT(*) FROM information_schema.PROCESSLIST"
    " WHERE STATE = 'Waiting for someone to free space'"
    " OR (ID <> CONNECTION_ID() AND INFO LIKE 'INSERT INTO hostmend.probe %'))"
)
_MAKE = (
    "CREATE DATABASE IF NOT EXISTS hostmend",
    "CREATE TABLE IF NOT EXISTS hostmend.probe"
    " (id TINYINT PRIMARY KEY, at DATETIME NOT NULL) ENGINE=InnoDB",
)
#: It may have become a replica since it was last looked at.
_COUNT_SOURCES = (
    "SET @sources = (SELECT VARIABLE_VALUE + 0 FROM information_schema.GLOBAL_STATUS"
    " WHERE VARIABLE_NAME = 'SLAVES_RUNNING')"
)
#: The same row each time: one that was given up may still be carried out later.
_WRITE = (
    "EXECUTE IMMEDIATE IF(@stuck = 0 AND @sources = 0 AND @@global.read_only = 0,"
    " 'INSERT INTO hostmend.probe (id, at) VALUES (1, NOW())"
    " ON DUPLICATE KEY UPDATE at = VALUES(at)', 'DO 0')"
)
_WRITTEN = "SELECT 'written' AS kind, @stuck, @sources, @@global.read_only"

_ALL = "all"

_ERROR = re.compile(r"^ERROR (?P<code>\d+) \(\w+\)(?: at line (?P<line>\d+))?: (?P<why>.*)$", re.M)
_VERTICAL = re.compile(r"^ *(?P<name>[A-Za-z_]+): ?(?P<value>.*)$")
#: Error codes of MariaDB: connections, and the client's own.
_TROUBLES = {
    1040: Trouble.FULL, 1203: Trouble.FULL, 1226: Trouble.FULL,
    1044: Trouble.DENIED, 1045: Trouble.DENIED, 1130: Trouble.DENIED, 1698: Trouble.DENIED,
    2002: Trouble.REFUSED, 2003: Trouble.REFUSED, 2006: Trouble.REFUSED, 2013: Trouble.REFUSED,
    2012: Trouble.REFUSED,
}  # fmt: skip
_NO_SUCH = (1049, 1146)
_NOT_ALLOWED = (1044, 1142, 1143, 1227)
_LOCKED = (1205, 1213)
_TIMED_OUT = (1969,)
_READ_ONLY = (1290, 1792)
_FINE = ("OK", "Table is already up to date")


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A connection that waits for something that another one has."""

    id: int
    user: str
    database: str
    seconds: float
    state: str


@dataclass(frozen=True, kw_only=True)
class MariadbAnswer:
    """What the server said, as far as it came."""

    #: None: it read.
    trouble: Trouble | None = None
    why: str = ""
    #: It read as far as this user may: not the tables themselves.
    limited: bool = False
    #: Everything that was asked came, but for what is found of tables.
    complete: bool = False
    #: Nothing was cut short.
    ended: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    status: Mapping[str, str] = field(default_factory=dict)
    waiting: tuple[Waiting, ...] = ()
    #: The servers that this one is a replica of, as `SHOW ALL SLAVES STATUS` has them; None: the
    #: user may not see them.
    sources: tuple[Mapping[str, str], ...] | None = ()
    written: Written = Written.LEFT_OUT
    #: What the write probe was answered, where it failed.
    write_error: str = ""
    #: Of the tables asked for: what is wrong with each; empty: nothing. One that is locked is left
    #: out.
    tables: Mapping[str, str] = field(default_factory=dict)

    def number(self, name: str) -> float | None:
        """A variable or a status as a number."""
        text = self.variables.get(name, self.status.get(name, ""))
        try:
            return float(text)
        except ValueError:
            return None


async def ask_mariadb(asked: Asked, tables: Mapping[str, bool] | None = None) -> MariadbAnswer:
    """Asks the server in one child.

    `tables` (`shop.orders`) are checked: whether their indexes can be read, which takes long for
    a large one, or else only whether they are marked as crashed, as such a check leaves them.
    Raises Unavailable if the client cannot be run: that says nothing of the server.
    """
    lines = list_statements(asked, tables)
    argv = [
        "--no-defaults",
        f"--socket={asked.socket}",
        f"--user={asked.user}",
        "--batch",
        # What came before a silence tells what was not answered.
        "--unbuffered",
        "--force",
        "--local-infile=0",
        "--skip-auto-rehash",
        # Ours is the shorter one: only that tells silence from a connection that was ended.
        f"--connect-timeout={round(asked.seconds) + 5}",
    ]
    script = "\n".join(line if line.endswith("\\G") else f"{line};" for line in lines) + "\n"
    for client in ("mariadb", "mysql"):
        try:
            printed = await run_command(
                [client, *argv], seconds=asked.seconds, user=asked.user, given=script
            )
        except Unavailable as error:
            if client == "mariadb" and "No such file" in str(error):
                continue
            raise
        break
    return read_answer(printed, asked, lines)


def list_statements(asked: Asked, tables: Mapping[str, bool] | None = None) -> list[str]:
    """What is asked, one statement a line."""
    # The server gives up first, so that nothing goes on there for nobody. 0 is not to wait at all.
    locks = int(asked.seconds / 2)
    lines = [
        f"SET SESSION max_statement_time={asked.seconds * 0.8:g}, lock_wait_timeout={locks},"
        f" innodb_lock_wait_timeout={locks}",
        _READ,
    ]
    if asked.deep:
        lines += [_SHOW_VARIABLES, _SHOW_STATUS, _WAITING, _BLOCKED, _SOURCES]
    if asked.make:
        lines += _MAKE
    if asked.write:
        lines += [_COUNT_STUCK, _COUNT_SOURCES, _WRITE, _WRITTEN]
    lines.append(f"SELECT '{_ALL}' AS kind, 1")
    # Last: they may take longer than there is time.
    for table, thoroughly in (tables or {}).items():
        lines.append(f"CHECK TABLE {quote_table(table)} {'' if thoroughly else 'FAST '}QUICK")
    return lines


def quote_table(table: str) -> str:
    database, _, name = table.partition(".")
    return ".".join("`" + part.replace("`", "``") + "`" for part in (database, name))


@dataclass(frozen=True, kw_only=True)
class _Error:
    code: int
    why: str


def read_answer(printed: Printed, asked: Asked, lines: list[str]) -> MariadbAnswer:
    """What was printed, as values."""
    errors: dict[int, _Error] = {}
    for match in _ERROR.finditer(printed.err):
        error = _Error(code=int(match["code"]), why=match["why"][:300])
        errors.setdefault(int(match["line"] or 0), error)
    rows, sources = _read_rows(printed.out)
    kinds = {row[0] for row in rows}
    at_read = errors.get(lines.index(_READ) + 1)
    limited = at_read is not None and at_read.code in _NOT_ALLOWED
    trouble, why = _judge(printed, asked, errors, read="read" in kinds or limited, at_read=at_read)
    written, write_error = _judge_write(printed, asked, lines, errors, rows)
    pairs = {row[0]: row[1] for row in rows if len(row) == 2}
    hidden = _SOURCES in lines and lines.index(_SOURCES) + 1 in errors
    return MariadbAnswer(
        trouble=trouble,
        why=why,
        limited=limited,
        complete=trouble is None and _ALL in kinds,
        ended=printed.code is not None,
        variables={name: pairs[name] for name in _VARIABLES if name in pairs},
        status={name: pairs[name] for name in _STATUS if name in pairs},
        waiting=tuple(found for row in rows if (found := _read_waiting(row)) is not None),
        sources=None if hidden else sources,
        written=written,
        write_error=write_error,
        tables=_read_tables(rows),
    )


def _judge(
    printed: Printed,
    asked: Asked,
    errors: Mapping[int, _Error],
    *,
    read: bool,
    at_read: _Error | None,
) -> tuple[Trouble | None, str]:
    """Why the server did not read; None when it did."""
    if read:
        return None, ""
    if (error := errors.get(0) or at_read) is not None:
        if error.code in _TIMED_OUT:
            return Trouble.TIMEOUT, error.why
        return _TROUBLES.get(error.code, Trouble.ERROR), error.why
    if printed.code is None:
        return Trouble.TIMEOUT, f"no answer within {asked.seconds:g} s"
    return Trouble.ERROR, printed.said or f"the client ended with {printed.code} and no word"


def _judge_write(
    printed: Printed,
    asked: Asked,
    lines: list[str],
    errors: Mapping[int, _Error],
    rows: list[list[str]],
) -> tuple[Written, str]:
    if not asked.write:
        return Written.LEFT_OUT, ""
    said = next((row for row in rows if row[0] == "written" and len(row) == 4), None)
    ours = (*_MAKE, _COUNT_STUCK, _COUNT_SOURCES, _WRITE)
    own = [number for number, line in enumerate(lines, 1) if line in ours]
    error = next((errors[number] for number in own if number in errors), None)
    if error is not None:
        if error.code in _NO_SUCH:
            return Written.ABSENT, error.why
        if error.code in _READ_ONLY:
            return Written.READ_ONLY, error.why
        if error.code in _LOCKED:
            return Written.LOCKED, error.why
        if error.code in _TIMED_OUT:
            return Written.TIMEOUT, error.why
        return Written.FAILED, error.why
    if said is None:
        if printed.code is None and any(row[0] == "read" for row in rows):
            return Written.TIMEOUT, f"no answer within {asked.seconds:g} s"
        return Written.LEFT_OUT, ""
    if said[2] != "0":
        return Written.LEFT_OUT, ""
    if said[3] != "0":
        return Written.READ_ONLY, "read_only is set"
    return (Written.DONE, "") if said[1] == "0" else (Written.STUCK, f"{said[1]} wait already")


def _read_rows(out: str) -> tuple[list[list[str]], tuple[Mapping[str, str], ...]]:
    """The rows, without what the client escapes in them, and the vertical part by its blocks."""
    rows: list[list[str]] = []
    sources: list[dict[str, str]] = []
    vertical = False
    for line in out.splitlines():
        if re.fullmatch(r"\*+ \d+\. row \*+", line.strip()):
            sources.append({})
            vertical = True
        elif "\t" in line:
            rows.append([_unescape(cell) for cell in line.split("\t")])
            vertical = False
        elif vertical and (match := _VERTICAL.match(line)):
            sources[-1][match["name"]] = match["value"].strip()
    return rows, tuple(sources)


def _unescape(cell: str) -> str:
    signs = {"t": "\t", "n": "\n", "0": "\0", "\\": "\\"}
    return re.sub(r"\\(.)", lambda match: signs.get(match[1], match[0]), cell)


def _read_waiting(row: list[str]) -> Waiting | None:
    if row[0] != "waiting" or len(row) != 6:
        return None
    try:
        return Waiting(
            id=int(row[1]), user=row[2], database=row[3], seconds=float(row[4]), state=row[5]
        )
    except ValueError:
        return None


def _read_tables(rows: list[list[str]]) -> Mapping[str, str]:
    """`CHECK TABLE`: the exit code says nothing, so what is printed is read."""
    tables: dict[str, str] = {}
    busy: set[str] = set()
    gone: set[str] = set()
    for row in rows:
        if len(row) != 4 or row[1] != "check":
            continue
        table, kind, said = row[0], row[2].lower(), row[3][:200]
        if "Lock wait timeout" in said or "was interrupted" in said:
            busy.add(table)
        # A table that was dropped since needs no repair.
        good = kind == "note" or said in _FINE or "doesn't exist" in said
        if table not in tables or (tables[table] == "" and not good and table not in gone):
            # The first that complains says most: later ones are `Corrupt` or `Operation failed`.
            tables[table] = "" if good else said
        if "doesn't exist" in said:
            gone.add(table)
    return {table: said for table, said in tables.items() if table not in busy}
