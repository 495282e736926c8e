"""Programs of somebody else's, on a leash: as another user, with an environment from scratch.

Whatever one starts ends with it. A process of their own (`agent.host.warden`) runs them, which is
started when the first is wanted. (Programs of the host that answer a question of hostmend's own,
such as journalctl, need none of this.)
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.errors import Unavailable
from agent.host.processes import end_tree, read_environment, read_processes
from agent.host.warden import MARK

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Longest answer of the warden, in bytes: two thirds of it are output.
_LONGEST = 4 * 1024 * 1024
#: The most that a program may print.
OUTPUT_LIMIT = 1024 * 1024
#: Seconds beyond a program's time in which the warden must have told of its end.
_GRACE = 2.0
#: Longest wait for the warden's own end, and between looks for it, in seconds.
_END_SECONDS, _LOOK_SECONDS = 15.0, 0.005
_ROOT = Path(__file__).resolve().parents[2]
_MAIN = "import sys; sys.path[:0] = sys.argv[1:]; from agent.host.warden import main; main()"


@dataclass(frozen=True, kw_only=True)
class User:
    """Somebody to run a program as."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True, kw_only=True)
class Program:
    """What is run, and how."""

    argv: tuple[str, ...]
    #: None: as whoever this is.
    user: User | None = None
    #: Beside PATH, HOME, USER, LOGNAME and LC_ALL.
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Bytes of output, both streams together; more end it.
    output_limit: int = OUTPUT_LIMIT


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a program ended."""

    #: As `subprocess` has it: a negative number is the signal that ended it. None: it was ended
    #: here, because its time was over or it said too much.
    code: int | None
    out: bytes = field(repr=False)
    err: bytes = field(repr=False)
    seconds: float
    #: It said more than its limit.
    cut: bool
    #: Processes that it left behind and that were ended.
    left: int


def find_user(name: str, passwd: Path = Path("/etc/passwd")) -> User:
    """A user of this host with its groups. Raises Unavailable.

    The files themselves are read: getpwnam(3) may ask a directory service, and wait for it.
    """
    try:
        row = next((row for row in _read_rows(passwd) if row[0] == name and len(row) == 7), None)
        if row is None:
            raise Unavailable(f"cannot run as {name}: there is no such user in {passwd}")
        gid = int(row[3])
        members = {int(r[2]) for r in _read_rows(passwd.with_name("group")) if _has(r, name)}
        return User(
            name=name, uid=int(row[2]), gid=gid, groups=(gid, *sorted(members - {gid})), home=row[5]
        )
    except (OSError, ValueError) as error:
        raise Unavailable(f"cannot run as {name}: {passwd} cannot be read: {error}") from error


def _read_rows(path: Path) -> list[list[str]]:
    return [line.split(":") for line in path.read_text(errors="replace").splitlines()]


def _has(group: list[str], name: str) -> bool:
    return len(group) == 4 and name in group[3].split(",")


class Leash:
    """Runs programs through a warden of its own."""

    def __init__(self) -> None:
        self._warden: _Warden | None = None
        self._lock = asyncio.Lock()

    async def run(self, program: Program, seconds: float) -> Ran:
        """Runs it to its end, or for so many seconds.

        Raises Unavailable where it cannot be started, or where an earlier run of it cannot be
        ended. Cancelling the caller ends it too.
        """
        user, own = program.user, os.geteuid()
        if user is not None and user.uid != own and own != 0:
            raise Unavailable(
                f"cannot run {program.argv[0]} as {user.name}: hostmend does not run as root"
            )
        other = user is not None and user.uid != own
        order = {
            "argv": list(program.argv),
            "environment": {**_make_environment(user), **program.environment},
            "user": [user.uid, user.gid, list(user.groups)] if user and other else None,
            "seconds": seconds,
            "limit": program.output_limit,
        }
        warden = await self._find_warden()
        answer = await warden.ask(order, seconds + _GRACE)
        if "error" in answer:
            raise Unavailable(f"cannot run {program.argv[0]}: {answer['error']}")
        return Ran(
            code=answer["code"],
            out=base64.b64decode(answer["out"]),
            err=base64.b64decode(answer["err"]),
            seconds=answer["seconds"],
            cut=answer["cut"],
            left=answer["left"],
        )

    async def close(self) -> None:
        """Ends everything that runs."""
        if self._warden is not None:
            await self._warden.close()
            self._warden = None

    async def _find_warden(self) -> _Warden:
        async with self._lock:
            if self._warden is not None and self._warden.gone:
                await self._warden.close()
                self._warden = None
            if self._warden is None:
                self._warden = await _Warden.start()
            return self._warden


def _make_environment(user: User | None) -> dict[str, str]:
    environment = {"PATH": _PATH, "LC_ALL": "C.UTF-8", "HOME": "/"}
    if user is not None:
        environment |= {"HOME": user.home, "USER": user.name, "LOGNAME": user.name}
    return environment


def _start_process() -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            # Without site-packages: it needs nothing of them, and is small without.
            [sys.executable, "-I", "-S", "-c", _MAIN, str(_ROOT)],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": _PATH, "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
    except OSError as error:
        ours.close()
        raise Unavailable(f"cannot start the process that runs plugins: {error}") from error
    finally:
        theirs.close()
    return process, ours


def _end_left(warden: int) -> None:
    """Ends what still carries the mark of a warden that is no more."""
    marked = (
        process
        for process in read_processes().values()
        if read_environment(process.pid).get(MARK, "").startswith(f"{warden}:")
    )
    end_tree(marked)


class _Warden:
    """The warden's process, as the agent holds it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.gone = False
        self._process = process
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.get_running_loop().create_task(self._read())

    @staticmethod
    async def start() -> _Warden:
        """Raises Unavailable."""
        process, ours = _start_process()
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LONGEST)
        return _Warden(process, reader, writer)

    async def ask(self, order: Mapping[str, object], seconds: float) -> Any:
        """The answer to one order. Raises Unavailable."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._say({**order, "id": number})
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            raise Unavailable("the process that runs plugins does not answer") from None
        finally:
            if self._waiting.pop(number, None) is not None and not self.gone:
                self._say({"cancel": number})

    def _say(self, order: Mapping[str, object]) -> None:
        self._writer.write(json.dumps(order).encode() + b"\n")

    async def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := await self._reader.readline():
                told = json.loads(line)
                answer = self._waiting.pop(told["id"], None)
                if answer is not None and not answer.done():
                    answer.set_result(told)
        self.gone = True
        # It went by itself: what it ran has come back to the agent, and must end all the same.
        threading.Thread(target=_end_left, args=(self._process.pid,), daemon=True).start()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(Unavailable("the process that runs plugins went away"))

    async def close(self) -> None:
        """Hangs up, and waits for the end of it and of all that it runs."""
        self._reading.cancel()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        if not await self._has_ended():
            self._process.kill()
            await self._has_ended()

    async def _has_ended(self) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + _END_SECONDS
        while self._process.poll() is None and loop.time() < until:  # noqa: ASYNC110 - a process
            await asyncio.sleep(_LOOK_SECONDS)
        return self._process.returncode is not None
