"""What Redis logs: why it does not start, and how a start that succeeded began.

Signatures were taken from Redis 7.0 with each of these failures brought about. Valkey says the same
under its own name.
"""

from __future__ import annotations

import re

from agent.checks.database import Signature

#: Its first line in a log of its own.
BEGINS = re.compile(r"^.*oO0OoO0OoO0Oo \w+ is starting oO0OoO0OoO0Oo", re.MULTILINE)
#: It has no recovery that a start waits for: it loads, and is asked how far it is.
RECOVERING = re.compile(r"(?!)")

#: Why it does not start, what says most first. One failure brings about further lines: a directory
#: that is missing is an error of the configuration too.
SIGNATURES = (
    Signature(
        cause="aof-truncated",
        pattern=re.compile(r"Unexpected end of file reading the append only file"),
        says="does not start: its append only file breaks off, and `aof-load-truncated` is `no`",
    ),
    Signature(
        cause="aof-damaged",
        pattern=re.compile(
            r"Bad file format reading the append only file"
            r"|Unrecoverable error reading the append only file"
        ),
        says="does not start: its append only file is damaged amid what it holds; "
        "`redis-check-aof --fix` would cut off everything from there on",
    ),
    Signature(
        cause="aof-files",
        pattern=re.compile(
            r"Invalid AOF manifest file format|Unable to obtain the AOF file \S+ length"
            r"|Found an empty AOF manifest|The AOF file \S+ doesn't exist"
            r"|Unknown AOF file type"
        ),
        says="does not start: the manifest of its append only file is damaged, or names what is "
        "not there",
    ),
    Signature(
        cause="snapshot-version",
        pattern=re.compile(r"Can't handle RDB format version"),
        says="does not start: its snapshot was written by a newer version",
    ),
    Signature(
        cause="data-directory",
        pattern=re.compile(
            r">>> 'dir [^\n]*|Can't chdir to"
            r"|(?:append only|append-only|AOF|\bDB\b)[^\n]*: Permission denied"
        ),
        says="does not start: its data directory is missing, or it may not use what is in it",
    ),
    Signature(
        cause="snapshot-damaged",
        pattern=re.compile(
            r"Short read or OOM loading DB|Wrong signature trying to load DB|Wrong RDB checksum"
            r"|Internal error in RDB reading"
        ),
        says="does not start: its snapshot breaks off or is damaged",
    ),
    Signature(
        cause="log-directory",
        pattern=re.compile(r"Can't open the log file"),
        says="does not start: the directory of its log is missing, or it may not write there",
    ),
    Signature(
        cause="port-taken",
        pattern=re.compile(
            r"Could not create server TCP listening socket [^\n]*Address already in use"
        ),
        says="does not start: something else listens on its port",
    ),
    Signature(
        cause="configuration",
        pattern=re.compile(r">>> '|FATAL CONFIG FILE ERROR"),
        says="does not start: it does not understand a line of its configuration",
    ),
)
#: What it says to a stop that would lose what it holds. It goes on, and systemd waits for its end,
#: with Debian's unit for ever.
NO_STOP = Signature(
    cause="stop-refused",
    pattern=re.compile(r"can't exit\.|Errors trying to shut ?down the server"),
    says="was told to stop and refuses, for it cannot save what it holds: mend that, and stop it "
    "once more with `systemctl kill --kill-whom=main`",
)
#: What a start that succeeded may say all the same.
TRUNCATED = Signature(
    cause="aof-cut",
    pattern=re.compile(r"!!! Truncating the AOF \S+ at offset \d+"),
    says="was started with an append only file that broke off, and cut it there: what was written "
    "last is gone",
)
