"""One job's process as the agent holds it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from agent.errors import Unavailable
from agent.host.cgroups import PREFIX, find_place
from agent.host.processes import Process, read_process
from agent.remedies.protocol import MARK, MAX_LINE, scratch_of
from agent.remedies.surroundings import make_job_environment

_LAST_WORDS = 600


def find_group(token: str) -> Path | None:
    """Where a job's control group is made; None where none can be."""
    try:
        return find_place() / f"{PREFIX}{token}"
    except Unavailable:
        return None


class JobProcess:
    """A running job: lines to it, lines from it, and when it exited.

    Its end is seen through a pidfd, and only this pid is ever waited for.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        token: str,
        scratch: Path,
        group: Path | None,
        errors: BinaryIO,
    ) -> None:
        self.token = token
        self.scratch = scratch
        #: The control group that it makes and joins, with all that it starts.
        self.group = group
        self.pid = process.pid
        self.exited = asyncio.Event()
        self._process = process
        self._errors = errors
        self._identity = read_process(process.pid)
        self._loop = asyncio.get_running_loop()
        self._pidfd: int | None = os.pidfd_open(process.pid)
        self._loop.add_reader(self._pidfd, self._note_exit)
        self._transport: asyncio.BaseTransport | None = None
        #: The last line that it wrote to stderr, known once it is closed.
        self.last_words = ""

    @staticmethod
    def start(runtime_dir: Path) -> JobProcess:
        """Start one. Raises OSError."""
        token = uuid.uuid4().hex
        scratch = scratch_of(runtime_dir, token)
        group = find_group(token)
        runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A file, not a pipe: a data run goes on writing after the agent's end.
        errors = tempfile.TemporaryFile(dir=runtime_dir)  # noqa: SIM115 - closed in close()
        try:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "agent.remedies.job", str(scratch)),
                    *([str(group)] if group else []),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd="/",
                env=make_job_environment(MARK, token, scratch),
                start_new_session=True,
            )
        except OSError:
            errors.close()
            raise
        return JobProcess(process, token, scratch, group, errors)

    def identify(self) -> list[Process]:
        """The process itself, while it lives."""
        now = read_process(self.pid)
        same = now and self._identity and now.started == self._identity.started
        return [now] if now and same and not self.exited.is_set() else []

    @property
    def started(self) -> int:
        """When it was started, in clock ticks after boot."""
        return self._identity.started if self._identity else 0

    async def write(self, data: bytes) -> None:
        """Write all of it; a job that is gone already is seen elsewhere."""
        stdin = self._process.stdin
        if stdin is None or stdin.closed:
            return
        os.set_blocking(stdin.fileno(), False)
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(stdin.fileno(), view) :]
            except BlockingIOError:
                await asyncio.sleep(0.01)
            except OSError:
                return

    async def cancel(self) -> None:
        await self.write(b'{"cancel": true}\n')

    def hang_up(self) -> None:
        """Close the lifeline."""
        if self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()

    async def lines(self) -> AsyncIterator[bytes]:
        """What it says, until its end. A line that is too long ends it too."""
        assert self._process.stdout is not None  # noqa: S101 - it is PIPE
        reader = asyncio.StreamReader(limit=MAX_LINE)
        self._transport, _ = await self._loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._process.stdout
        )
        with suppress(OSError, ValueError):
            while line := await reader.readline():
                yield line

    def close(self) -> None:
        """Release everything held for it; what has not exited goes on without us."""
        self.hang_up()
        if self._transport:
            self._transport.close()
        elif self._process.stdout:
            self._process.stdout.close()
        if not self.exited.is_set():
            # It is left on purpose: Popen must neither take it for forgotten nor wait for it.
            self._process.returncode = 0
        self._forget_pidfd()
        with suppress(OSError), self._errors:
            size = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, size - _LAST_WORDS))
            lines = self._errors.read().decode(errors="replace").split("\n")
            self.last_words = next((line for line in reversed(lines) if line.strip()), "")

    def _note_exit(self) -> None:
        self._process.wait()
        self._forget_pidfd()
        self.exited.set()

    def _forget_pidfd(self) -> None:
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
