"""What PostgreSQL logs: why it does not start, and how its start, or its last recovery, went.

Signatures were taken from PostgreSQL 15 with each of these failures brought about. They are its
English words: a server with another `lc_messages` has the cause `down`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.checks import database
from agent.checks.database import Match, Signature, Unit
from agent.core.model import Instant
from agent.errors import Unavailable
from agent.host.machine import Machine
from agent.host.startlog import StartLog

#: Why it does not start, what says most first.
SIGNATURES = (
    Signature(
        cause="pid-file",
        pattern=re.compile(r'lock file "postmaster\.pid" already exists'),
        says="does not start: its postmaster.pid names a process that runs; if that is another "
        "program, the file is stale",
    ),
    Signature(
        cause="checkpoint",
        pattern=re.compile(r"could not locate (?:a valid|required) checkpoint record"),
        says="does not start: its write-ahead log has no valid checkpoint; restore it from a "
        "backup or a replica (pg_resetwal would lose what was committed last)",
    ),
    Signature(
        cause="wal-full",
        pattern=re.compile(
            r'could not \w+(?: to)? file "pg_wal/[^"\n]*": '
            r"(?:No space left on device|Disk quota exceeded)"
        ),
        says="ended, or does not start: its write-ahead log has no room; free other files there, "
        "and never delete in pg_wal",
    ),
    Signature(
        cause="log-directory",
        pattern=re.compile(r"could not (?:create|open) log ?file", re.IGNORECASE),
        says="does not start: it may not write its log; its directory belongs to root:postgres "
        "with mode 1775",
    ),
)
_RECOVERED = Signature(
    cause="recovered",
    pattern=re.compile(r"was not properly shut down; automatic recovery in progress"),
    says="crashed and recovered: see that the last rows are there",
)
_WAL_TAIL = Signature(
    cause="wal-tail",
    pattern=_RECOVERED.pattern,
    says="crashed, and what it recovered from ends in damage, or in an old segment's rest: rows "
    "that were committed may be gone; compare the last ones with replicas, backups and "
    "applications",
)
RECOVERING = _RECOVERED.pattern
#: Its first line in a log of its own.
BEGINS = re.compile(r"^.*LOG:  starting PostgreSQL .*$", re.MULTILINE)
#: How reading a write-ahead log may end (xlogreader.c of 15 and of 17).
_ENDS = re.compile(
    r"invalid (?:record (?:offset|length)|contrecord length|resource manager ID|magic number"
    r"|info bits|block_id|primary checkpoint)|unexpected pageaddr|out-of-(?:sequence|order)"
    r"|contrecord is requested|there is no contrecord flag|missing contrecord"
    r"|record length \d+ at \S+ too long|record with (?:incorrect prev-link|invalid length)"
    r"|incorrect resource manager data checksum|BKP\w+_\w+ (?:not )?set|could not decompress"
    r"|WAL file is from different database system"
)
#: What was never written is zeros.
_NORMAL_END = re.compile(r"invalid record length at \S+: (?:wanted|expected at least) 24, got 0\b")
_READ_TO_THE_END = re.compile(
    r"redo done at|redo is not required|ready to accept|entering standby mode"
)


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the log of a server that is up said, as far as it was read."""

    #: It recovered from a crash.
    recovered: Match | None = None
    #: When; None: as it was started.
    at: Instant | None = None


async def read_log(machine: Machine, unit: Unit, log: StartLog) -> Said:
    """What this start logged since it was last read, with what is remembered of it.

    A server whose child crashes ends all others and recovers by itself: systemd sees no new start.
    """
    known = machine.memory.get("start") or {}
    first = known.get("id") != unit.start
    if first:
        known = {"id": unit.start, "cause": "", "line": "", "at": None}
    try:
        text = await log.read_on()
    except Unavailable:
        text = ""
    if (found := find_recovery(text)) is not None:
        at = None if first else machine.clock.now()
        known = {**known, "cause": found.signature.cause, "line": found.line, "at": at}
    machine.memory.put("start", known)
    signature = next((s for s in (_WAL_TAIL, _RECOVERED) if s.cause == known["cause"]), None)
    if signature is None:
        return Said()
    return Said(recovered=Match(signature=signature, line=known["line"]), at=known["at"])


def find_recovery(log: str) -> Match | None:
    """The last recovery from a crash that a log tells of, and how what it read ended."""
    match = database.find_signature(log, (_RECOVERED,))
    if match is None:
        return None
    last = log[log.rfind("automatic recovery in progress") :]
    for line in last.splitlines():
        if _READ_TO_THE_END.search(line):
            break
        if _ENDS.search(line) and not _NORMAL_END.search(line):
            found = database.find_signature(line, (Signature(cause="", pattern=_ENDS, says=""),))
            return Match(signature=_WAL_TAIL, line=found.line if found else "")
    return match
