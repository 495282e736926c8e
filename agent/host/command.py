"""Programs that answer a question: bounded in time and output, and ended with all they started."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import pwd
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.core.model import Seconds
from agent.errors import Unavailable

#: What every program is given, beside what its caller adds. Nothing of the agent's own leaks in.
ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/nonexistent",
}
#: Most bytes that are kept of each stream; lines can be of any length.
MOST_BYTES = 256 * 1024
#: Seconds that a killed program is waited for.
_LAST_WORDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Printed:
    """What a program printed, and how it ended."""

    #: None: it did not end in its time, and was killed.
    code: int | None
    #: What came before that is kept also of one that was killed.
    out: str
    err: str

    @property
    def said(self) -> str:
        """The last line that says something, for people: of the errors if there is one."""
        lines = [line.strip() for text in (self.out, self.err) for line in text.splitlines()]
        return next((line[:300] for line in reversed(lines) if line), "")


@dataclass(frozen=True, kw_only=True)
class _Stream:
    kept: bytearray = field(default_factory=bytearray)

    async def take(self, stream: asyncio.StreamReader | None, most: int) -> None:
        """All of a stream, of which the first bytes are kept and the rest is let go by."""
        while stream is not None and (chunk := await stream.read(65536)):
            self.kept.extend(chunk[: max(0, most - len(self.kept))])

    @property
    def text(self) -> str:
        return self.kept.decode(errors="replace")


@functools.lru_cache(maxsize=64)
def _identity(user: str) -> tuple[int, int, tuple[int, ...]]:
    """Number, group and groups of a user of this host. Raises KeyError."""
    entry = pwd.getpwnam(user)
    return entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(user, entry.pw_gid))


def _become(user: str) -> dict[str, Any]:
    """What makes a child run as that user. Raises Unavailable."""
    try:
        number, group, groups = _identity(user)
    except KeyError:
        raise Unavailable(f"there is no user {user} on this host") from None
    if number == os.geteuid():
        return {}
    if os.geteuid() != 0:
        raise Unavailable(f"hostmend is not root and cannot become {user}")
    return {"user": number, "group": group, "extra_groups": groups}


async def run_command(
    argv: Sequence[str],
    *,
    seconds: Seconds,
    user: str = "",
    given: str = "",
    environment: Mapping[str, str] | None = None,
    most_bytes: int = MOST_BYTES,
) -> Printed:
    """Runs a program to its end, or kills it and all of its process group after so many seconds.

    `user`: whose rights it has (empty: ours). `given`: what it reads from its stdin. Raises
    Unavailable if it cannot be started.
    """
    name = argv[0]
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if given else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**ENVIRONMENT, **(environment or {})},
            cwd="/",
            start_new_session=True,
            **(_become(user) if user else {}),
        )
    except (OSError, Unavailable) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise Unavailable(f"cannot run {name}: {why}") from error
    out, err = _Stream(), _Stream()
    code: int | None = None
    try:
        async with asyncio.timeout(seconds):
            await asyncio.gather(
                _give(process.stdin, given),
                out.take(process.stdout, most_bytes),
                err.take(process.stderr, most_bytes),
            )
            code = await process.wait()
    except TimeoutError:
        pass
    finally:
        if code is None:
            await _end(process)
    return Printed(code=code, out=out.text, err=err.text)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kills what is left of it: the program, or one that it started and that holds its output."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    # One that hangs in the kernel ends when that lets it; nobody waits for it here.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORDS):
            await process.wait()


async def _give(stream: asyncio.StreamWriter | None, text: str) -> None:
    if stream is None:
        return
    # One that ends without having read everything says why on its stderr.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(text.encode())
        await stream.drain()
    stream.close()
