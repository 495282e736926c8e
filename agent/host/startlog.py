"""What a server logged since its present start: in the journal, in a file of its own, or both.

Lines of earlier starts say nothing of this one. In the journal a start has an id. In a file it
begins where the file ended when the start before it was last seen, and after the last line that
says that a server starts.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.model import Seconds
from agent.errors import Unavailable
from agent.host.journal import read_log, read_on
from agent.host.machine import Machine
from agent.host.space import Hung
from agent.host.units import UnitState

#: Bytes at the end of a log in which its beginning is looked for.
_MOST_BYTES = 256 * 1024
_MOST_LINES = 400
#: Longest that a file is waited for, in seconds.
_PATIENCE: Seconds = 2.0
#: Seconds by which a file's time may be behind that of the start: clocks of filesystems are coarse.
_NEAR: Seconds = 2.0


@dataclass(frozen=True, kw_only=True)
class StartLog:
    """Where one server logs, and how far that was read."""

    machine: Machine
    #: None where systemd does not run it.
    state: UnitState | None
    #: The file that it logs to; empty: only the journal.
    file: str
    #: How its first line of a start looks in that file.
    begins: re.Pattern[str]

    async def read_attempt(self) -> str:
        """All of the present start, or of the last one that came to nothing; bounded."""
        parts = []
        if self.state is not None:
            try:
                parts.append(
                    await read_log(
                        self.state.id,
                        self.state.invocation_id,
                        lines=_MOST_LINES,
                        most_bytes=_MOST_BYTES,
                    )
                )
            except Unavailable as error:
                parts.append(f"({error})\n")
        if self.file:
            parts.append(await self._call(self._read_attempt_of_file))
        return "\n".join(parts)

    async def read_on(self) -> str:
        """What came since the last reading; at first all of the present start, bounded.

        It costs a process only where there is no file.
        """
        if self.file:
            return await self._call(self._read_on_file)
        if self.state is None or not self.state.invocation_id:
            return ""
        memory = self.machine.memory
        known = memory.get("journal") or {}
        after = known.get("cursor", "") if known.get("start") == self.state.invocation_id else ""
        text, cursor = await read_on(self.state.invocation_id, after=after, lines=_MOST_LINES)
        memory.put("journal", {"start": self.state.invocation_id, "cursor": cursor})
        return text

    async def _call(self, function: Any) -> str:
        try:
            text: str = await self.machine.space.patience.call(
                f"the log {self.file}", _PATIENCE, function
            )
        except (OSError, Hung):
            return ""
        return text

    def _read_attempt_of_file(self) -> str:
        place = self._find_place()
        began = self._began()
        if began and Path(self.file).stat().st_mtime < began - _NEAR:
            return ""
        return self._read(place["from"])

    def _read_on_file(self) -> str:
        place = self._find_place()
        text = self._read(place["read"])
        self.machine.memory.put("file", {**place, "read": place["end"]})
        return text

    def _find_place(self) -> dict[str, Any]:
        """Where the present start begins in the file, how far that was read, and where it ends."""
        status = Path(self.file).stat()
        known = self.machine.memory.get("file") or {"inode": 0, "end": 0}
        start = self.state.invocation_id if self.state is not None else ""
        if known["inode"] != status.st_ino or known["end"] > status.st_size:
            # A new file, or one that was emptied: all of it is new.
            known = {**known, "inode": status.st_ino, "from": 0, "read": 0, "end": 0}
        if known.get("start") != start:
            known = {**known, "start": start, "from": known["end"], "read": known["end"]}
        place = {**known, "end": status.st_size}
        self.machine.memory.put("file", place)
        return place

    def _read(self, offset: int) -> str:
        """What stands in the file from there on, without what belongs to earlier starts."""
        text = _read_end(self.file, offset)
        last = None
        for match in self.begins.finditer(text):
            last = match
        return text if last is None else text[last.start() :]

    def _began(self) -> float:
        """The wall clock as this start began; 0: unknown."""
        if self.state is None or not self.state.left_inactive:
            return 0.0
        now = self.machine.clock.now()
        return time.time() - (now - self.machine.clock.at_monotonic(self.state.left_inactive))


def _read_end(file: str, offset: int) -> str:
    """The text from an offset on, of which no more than the last part; whole lines."""
    with Path(file).open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        begin = max(offset, size - _MOST_BYTES)
        opened.seek(begin)
        data = opened.read(_MOST_BYTES)
    text = data.decode(errors="replace")
    return text.partition("\n")[2] if begin > offset else text
