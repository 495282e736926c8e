"""What is kept beside a finding on a log, and logs of this host that are worth a check."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial

from agent.checks.check import Proposal
from agent.core.model import Evidence
from agent.host.holders import Holder, find_writers, find_written
from agent.host.machine import Machine
from agent.host.space import Hung
from agent.host.tail import read_end
from agent.host.text import fit_line

#: Bytes of the end of a log, and lines of it.
_END, _END_LINES = 16 * 1024, 30


def take_evidence(path: str) -> tuple[Evidence, ...]:
    """The end of a log, its state, and who writes it. May hang; never raises."""
    items = []
    try:
        told = os.stat(path)  # noqa: PTH116
        lines = read_end(path, _END).decode(errors="replace").splitlines()[-_END_LINES:]
        where = f"mode {told.st_mode & 0o7777:04o}, owner {told.st_uid}:{told.st_gid}"
        items.append(Evidence(title=f"End of {path}", text="\n".join(map(fit_line, lines))))
        items.append(Evidence(title=f"State of {path}", text=f"{told.st_size} bytes, {where}"))
    except OSError as error:
        items.append(Evidence(title=f"State of {path}", text=error.strerror or "cannot be read"))
    if writers := find_writers(path):
        rows = [
            f"{writer}: {'appends' if writer.appends else 'writes without appending'}"
            for writer in writers
        ]
        items.append(Evidence(title=f"Who writes {path}", text="\n".join(rows)))
    return tuple(items)


#: Patterns worth watching for, by the end of a log's path: levels as nginx and Apache have them.
_WORTH = (
    ("nginx/error.log", {"emergency": r"\[(emerg|alert|crit)\]"}),
    ("apache2/error.log", {"emergency": r"\[[a-z_0-9]*:?(emerg|alert|crit)\]"}),
    ("httpd/error_log", {"emergency": r"\[[a-z_0-9]*:?(emerg|alert|crit)\]"}),
)
#: Where the system's logger writes what any program sends: a line of hostmend's arrives here.
_SYSTEM_LOGS = frozenset({"/var/log/syslog", "/var/log/messages"})
_LOGGERS = frozenset({"rsyslog.service", "syslog-ng.service"})
#: A logger that is just restarted may take longer than one look waits.
_CANARY = {"canary": True, "every": "1m", "confirm": "2 of 2"}
#: Kept by rules of their own, and no text.
_NO_LOGS = ("/var/log/audit/", "/var/log/journal/", "/var/log/private/")
_NO_TEXT = frozenset({"wtmp", "btmp", "lastlog", "faillog", "tallylog"})
#: A database's binary logs and their indices: `mariadb-bin.000004`, `mysqld-relay-bin.index`.
_BINLOG = re.compile(r"bin(?:log)?\.(?:[0-9]{6,}|index|state)$")


async def propose(machine: Machine) -> tuple[Proposal, ...]:
    """The logs that running services have open: what their configuration comes to."""
    try:
        found = await machine.space.patience.call(
            "the logs of services", 10.0, partial(find_written, "/var/log")
        )
    except Hung:
        return ()
    return tuple(
        Proposal(
            name=_name(holder.path),
            options={"type": "log", "path": holder.path, **_find_worth(holder)},
            why=f"{holder.unit} writes it",
        )
        for holder in found
        if _is_text(holder.path)
    )


def _is_text(path: str) -> bool:
    name = os.path.basename(path)  # noqa: PTH119
    return not (path.startswith(_NO_LOGS) or name in _NO_TEXT or _BINLOG.search(name))


def _find_worth(holder: Holder) -> Mapping[str, object]:
    path = holder.path
    if path in _SYSTEM_LOGS and holder.unit in _LOGGERS:
        return _CANARY
    return next(({"critical": worth} for end, worth in _WORTH if path.endswith(end)), {})


def _name(path: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", path.removeprefix("/var/log/").lower()).strip("-")
    return f"log-{words.removesuffix('-log')}"
