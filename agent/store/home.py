"""Where the state lives: in its directory, and while that fails, in a shelter in memory.

The shelter is a file on the runtime tmpfs. Of the two files the one with more commits is the
newer, and it wins when both are there: on the way home, and when an agent starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from agent.core.model import Host
from agent.errors import StoreError
from agent.store.state import State

_log = logging.getLogger(__name__)

FILE = "state.db"
HISTORY = "history.db"
#: What belongs to a database file.
_SUFFIXES = ("", "-journal")

#: Seconds between attempts to go home: doubled by each that fails, and by each new flight.
_FIRST_WAIT = 5.0
_LONGEST_WAIT = 600.0
#: A home that held this long, in seconds, is trusted again.
_TRUSTED = 600.0

_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_DISK = (
    *_CORRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
)


class Home:
    """The one owner of a state directory, and what keeps its state going whatever happens to it.

    Everything here is called on the state's own thread. Raises StoreError when the directory
    belongs to somebody else, to another agent, or to a newer program.
    """

    def __init__(
        self, directory: Path, shelter: Path, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.directory = directory
        self.path = directory / FILE
        self._shelter = shelter / FILE
        self._now = clock
        self._lock: int | None = None
        self._inode: tuple[int, int] | None = None
        self._wait, self._try_at, self._home_since = _FIRST_WAIT, 0.0, clock()
        #: Why the state is not at home; empty: it is.
        self.trouble = ""
        #: Why what it holds may not be what this host had; empty: it is.
        self.lost = ""
        self._news: list[str] = []
        make_private(self._shelter.parent)
        try:
            self.state = self._open()
        except BaseException:
            self._unlock()
            raise

    def close(self) -> None:
        self.state.close()
        self._unlock()

    def take_news(self) -> list[str]:
        """What people must know of the state, in sentences; each is given once."""
        news, self._news = self._news, []
        return news

    # At the start

    def _open(self) -> State:
        sheltered = self._open_left_shelter()
        try:
            self._settle_in()
            was_used = self._was_used()
            state = self._open_or_set_aside()
        except StoreError as error:
            if sheltered is not None and not _is_of_disk(error):
                sheltered.close()
            if not _is_of_disk(error):
                raise
            return self._start_in_shelter(sheltered, error)
        if state.created and was_used and not self.lost:
            self.lost = f"the state file {self.path} is gone"
        if sheltered is not None:
            state = self._bring_home(sheltered, state)
        if not state.keep_reserve():
            _log.warning("there is no room in %s for the state's reserve", self.directory)
        self._remember()
        return state

    def _open_left_shelter(self) -> State | None:
        """What an agent of this boot had to leave in the shelter."""
        if not self._shelter.exists():
            return None
        try:
            state = State(self._shelter, reserve=0)
        except StoreError as error:
            _log.error("what is left in the shelter is of no use: %s", error)
            _remove(self._shelter)
            return None
        if state.created:
            state.close()
            _remove(self._shelter)
            return None
        return state

    def _open_or_set_aside(self) -> State:
        """The state of the directory; one that cannot be read is moved aside for a new one."""
        try:
            state = State(self.path)
            fault = state.find_fault()
            if not fault:
                return state
            state.close()
        except StoreError as error:
            if not _is_corrupt(error):
                raise
            fault = str(error)
        aside = self._set_aside("corrupt")
        self.lost = f"the state was corrupt ({fault}) and is kept as {aside.name}"
        _log.error("%s", self.lost)
        return State(self.path)

    def _bring_home(self, sheltered: State, state: State) -> State:
        """The newer of the two, at home."""
        whole = not (self.lost or state.created)
        if whole and state.commits >= sheltered.commits:
            sheltered.close()
        elif whole and sheltered.partial:
            state.adopt(sheltered)
            sheltered.close()
        else:
            state.close()
            sheltered.move(self.path)
            state, self.lost = sheltered, ""
        _remove(self._shelter)
        return state

    def _start_in_shelter(self, sheltered: State | None, error: StoreError) -> State:
        """On a directory that cannot be used: go on with a copy of what it has."""
        copy = self._shelter.with_name("copy.db")
        _remove(copy)
        state: State | None = None
        try:
            for suffix in _SUFFIXES:
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(_with(self.path, suffix), _with(copy, suffix))
            if copy.exists() and copy.stat().st_size:
                state = State(copy, reserve=0)
                if fault := state.find_fault():
                    self.lost = f"the state cannot be read ({fault})"
                    state.close()
                    state = None
        except (OSError, StoreError) as why:
            self.lost = f"the state cannot be read ({why})"
        if sheltered is not None and (state is None or sheltered.commits >= state.commits):
            if state is not None:
                state.close()
            state, self.lost = sheltered, ""
        elif state is not None:
            if sheltered is not None:
                sheltered.close()
            _remove(self._shelter)
            state.move(self._shelter)
        else:
            if not self.lost and self._was_used():
                self.lost = f"the state file {self.path} is gone"
            state = State(self._shelter, reserve=0)
        _remove(copy)
        self._be_away(error)
        return state

    # While it runs

    def flee(self, error: StoreError, host: Host) -> bool:
        """After a failed read or write: go on in the shelter. False where that is no way out.

        `host` is what the last commit left, for when the file cannot even be read.
        """
        if self.trouble or not _is_of_disk(error):
            return False
        try:
            make_private(self._shelter.parent)
            _remove(self._shelter)
            try:
                self.state.move(self._shelter)
            except StoreError as why:
                _log.error("%s; going on with what memory holds", why)
                _remove(self._shelter)
                self.state.begin_again(self._shelter, host)
        except StoreError as why:
            _log.error("cannot keep the state in the shelter either: %s", why)
            return False
        if self._now() - self._home_since > _TRUSTED:
            self._wait = _FIRST_WAIT
        self._be_away(error)
        return True

    def tend(self, host: Host) -> None:
        """Now and then: goes home when that is possible, and sees when the file was taken away."""
        if self.trouble:
            if self._now() >= self._try_at:
                self._go_home()
        elif self._is_displaced():
            self._build_again(host)

    def _go_home(self) -> None:
        try:
            self._settle_in()
            if self.state.partial:
                self._return_partial()
            else:
                self._make_way()
                self.state.move(self.path)
        except StoreError as error:
            self._wait = min(self._wait * 2, _LONGEST_WAIT)
            self._try_at = self._now() + self._wait
            _log.warning("the state stays in the shelter for %g s more: %s", self._wait, error)
            return
        self._arrive(f"the state is kept in {self.directory} again; nothing was lost")

    def _return_partial(self) -> None:
        """Of what was begun again from memory: the old file has all the rest."""
        home = self._open_or_set_aside()
        whole, self.lost = not (self.lost or home.created), ""
        if whole:
            home.adopt(self.state)
            self.state.take_over(home)
        else:
            home.close()
            self.state.move(self.path)

    def _make_way(self) -> None:
        """A file that cannot take the copy is moved aside; one that can is overwritten."""
        try:
            State(self.path, reserve=0).close()
        except StoreError as error:
            if not _is_corrupt(error):
                raise
            self._set_aside("corrupt")

    def _build_again(self, host: Host) -> None:
        """The file was removed or replaced: it is still held open, and is written anew."""
        _log.error("%s was taken away while it was in use; it is written again", self.path)
        try:
            self._settle_in()
            if self.path.exists():
                self._set_aside("replaced")
            self.state.move(self.path)
        except StoreError as error:
            if not self.flee(error, host):
                _log.error("cannot write the state again: %s", error)
            return
        self._arrive(
            f"{self.path} was removed or replaced while it was in use; it is whole again, "
            "and nothing was lost"
        )

    def _arrive(self, news: str) -> None:
        self.trouble = ""
        self._home_since = self._now()
        self.state.keep_reserve()
        self._remember()
        _remove(self._shelter)
        _log.warning("%s", news)
        self._news.append(news)

    def _be_away(self, error: StoreError) -> None:
        self.trouble = (
            f"the state is kept in memory only ({self._shelter.parent}): {error}; "
            "a reboot would lose what happened since"
        )
        self._wait = min(self._wait * 2, _LONGEST_WAIT)
        self._try_at = self._now() + self._wait
        _log.error("%s", self.trouble)
        self._news.append(self.trouble)

    # The directory

    def _settle_in(self) -> None:
        """Makes the directory where it is missing, and owns it."""
        make_private(self.directory)
        held = self._lock
        if held is not None:
            with contextlib.suppress(OSError):
                if os.path.sameopenfile(held, handle := os.open(self.directory, os.O_RDONLY)):
                    os.close(handle)
                    return
                os.close(handle)
        lock = _lock_directory(self.directory)
        self._unlock()
        self._lock = lock

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _was_used(self) -> bool:
        """Whether an agent lived here: a first start is not a loss."""
        return (self.directory / HISTORY).exists() or any(self.directory.glob(f"{FILE}.corrupt-*"))

    def _set_aside(self, why: str) -> Path:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        aside = self.path.with_name(f"{FILE}.{why}-{stamp}")
        number = 1
        while aside.exists():
            number += 1
            aside = self.path.with_name(f"{FILE}.{why}-{stamp}-{number}")
        try:
            for suffix in _SUFFIXES:
                with contextlib.suppress(FileNotFoundError):
                    _with(self.path, suffix).rename(_with(aside, suffix))
        except OSError as error:
            raise StoreError(f"cannot move {self.path} aside: {error.strerror}") from error
        return aside

    def _remember(self) -> None:
        with contextlib.suppress(OSError):
            held = self.path.stat()
            self._inode = (held.st_dev, held.st_ino)

    def _is_displaced(self) -> bool:
        try:
            found = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            # Whether it can still be used is for the next write to say.
            return False
        return (found.st_dev, found.st_ino) != self._inode


def make_private(directory: Path) -> None:
    """A directory that only its owner enters. Raises StoreError where it cannot be that."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = directory.stat()
    except OSError as error:
        raise StoreError(f"cannot use {directory}: {error.strerror}") from error
    if held.st_uid != os.geteuid():
        raise StoreError(f"cannot use {directory}: it belongs to user {held.st_uid}, not to us")
    if held.st_mode & 0o022:
        raise StoreError(f"cannot use {directory}: others may write to it; chmod 700 it")


def _lock_directory(directory: Path) -> int | None:
    """Owns a directory until the handle is closed (flock(2), which takes no room on a full disk).

    None where its filesystem has no such locks; the state file's own lock remains.
    """
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"cannot use {directory}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise StoreError(
            f"cannot use {directory}: another agent uses it; stop that one first, "
            f"or give this one a state directory of its own"
        ) from None
    except OSError:
        os.close(handle)
        return None
    return handle


def _with(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _remove(path: Path) -> None:
    for suffix in _SUFFIXES:
        with contextlib.suppress(OSError):
            _with(path, suffix).unlink()


def _code_of(error: StoreError) -> int | None:
    """SQLite's primary result code, where the error is one of SQLite."""
    cause = error.__cause__
    while isinstance(cause, StoreError):
        cause = cause.__cause__
    code = getattr(cause, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _is_corrupt(error: StoreError) -> bool:
    return _code_of(error) in _CORRUPT or isinstance(error.__cause__, ValueError)


def _is_of_disk(error: StoreError) -> bool:
    """Whether the directory or its filesystem is at fault, not what was asked of it."""
    return _code_of(error) in _DISK or isinstance(error.__cause__, OSError)
