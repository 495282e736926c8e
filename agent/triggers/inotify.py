"""Changes of files as "look now", through inotify(7): one descriptor for all of them.

A directory is watched for names that come and go, which says at once that a log was rotated. A file
is watched for one change only (IN_ONESHOT): the next is waited for after `pace`, so a log that is
written to ten thousand times a second makes one look in that time, and the kernel is silent in
between.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from agent.core.model import Seconds
from agent.errors import Unavailable
from agent.host.space import Patience
from agent.triggers.bursts import Bursts
from agent.triggers.plan import Plan, is_of, make_plan

if TYPE_CHECKING:
    from inotify_simple import INotify

_log = logging.getLogger(__name__)

#: One look in this time, however often a file changes.
PACE: Seconds = 1.0
#: So long events gather in the kernel, where equal ones become one, before they are read again.
_GATHER: Seconds = 0.05
#: Longest wait for the filesystem when watches are set, and until the next attempt.
_PATIENCE: Seconds = 2.0
_RETRY: Seconds = 60.0

# linux/inotify.h
_MODIFY, _ATTRIB = 0x2, 0x4
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _UNMOUNT = 0x400, 0x800, 0x2000
_Q_OVERFLOW, _IGNORED = 0x4000, 0x8000
_ONLYDIR, _ISDIR, _ONESHOT = 0x01000000, 0x40000000, 0x80000000
_OF_DIRECTORY = _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
_OF_FILE = _MODIFY | _ATTRIB | _ONESHOT
_LOST = _DELETE_SELF | _MOVE_SELF | _UNMOUNT | _IGNORED


class InotifyTrigger:
    """Says "look now" for checks whose files changed. It watches paths, and patterns of paths."""

    def __init__(
        self, patience: Patience, look_now: Callable[[str], None], *, pace: Seconds = PACE
    ) -> None:
        self._patience = patience
        self._bursts = Bursts(look_now)
        self._pace = pace
        self._inotify: INotify | None = None
        self._checks: Mapping[str, frozenset[str]] = {}
        self._plan = Plan()
        #: What is watched, by watch descriptor. Files of several names may be one inode.
        self._directories: dict[int, str] = {}
        self._files: dict[int, set[str]] = {}
        #: Files that changed, with the time from which on they are watched again.
        self._resting: dict[str, Seconds] = {}
        #: When a look was last asked for, by file.
        self._asked: dict[str, Seconds] = {}
        #: Events that came before it was known what they are of.
        self._early: list[Any] = []
        self._adding = 0
        self._planned = -self._pace
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._full = False

    async def watch(self, mapping: Mapping[str, frozenset[str]]) -> None:
        """From now on watch these paths for these checks: path or pattern -> names of checks."""
        self._checks = dict(mapping)
        if self._inotify is None:
            if not self._checks:
                return
            from inotify_simple import INotify

            try:
                self._inotify = INotify(nonblocking=True)
            except OSError as error:
                _log.warning("cannot watch files, they are looked at by the clock: %s", error)
                return
            self._listen()
        await self._set_watches(tell=False)

    def close(self) -> None:
        """Say nothing any more."""
        self._checks = {}
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        self._bursts.close()
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None

    # What happens

    def _listen(self) -> None:
        if self._inotify is not None:
            asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._take)

    def _take(self) -> None:
        if self._inotify is None:
            return
        asyncio.get_running_loop().remove_reader(self._inotify.fileno())
        self._later("listen", _GATHER, self._listen)
        self._hear(self._inotify.read(timeout=0))

    def _hear(self, events: Iterable[Any]) -> None:
        again = False
        for event in events:
            if event.mask & _Q_OVERFLOW:
                # Nobody knows what was lost.
                self._say(self._checks)
                again = True
            elif event.wd in self._directories:
                again |= self._hear_directory(event.wd, event.mask, event.name)
            elif event.wd in self._files:
                # With it the kernel has removed the watch.
                for path in self._files.pop(event.wd):
                    self._rest(path)
            elif self._adding:
                self._early.append(event)
        if again:
            wait = self._planned + self._pace - self._now()
            self._later("plan", max(0.0, wait), self._plan_again)

    def _hear_directory(self, wd: int, mask: int, name: str) -> bool:
        """Whether what is to be watched may be something else now."""
        directory = self._directories[wd]
        things = self._plan.directories.get(directory, set())
        if mask & _LOST:
            del self._directories[wd]
            self._say(things)
            return True
        path = f"{directory.rstrip('/')}/{name}"
        meant = {thing for thing in things if is_of(thing, path)}
        if meant:
            # Another file may be there now.
            self._leave_file(path)
            self._say(meant)
        return bool(meant) or bool(mask & _ISDIR)

    def _rest(self, path: str) -> None:
        """A file changed: a look, at most one in `pace`, and no more watching until then."""
        now = self._now()
        if now - self._asked.get(path, -self._pace) >= self._pace:
            self._asked[path] = now
            self._say(self._plan.files.get(path, ()))
        self._resting[path] = self._asked[path] + self._pace
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._resting:
            wait = min(self._resting.values()) - self._now()
            self._later("watch", max(0.0, wait), lambda: self._start(self._watch_again()))

    def _say(self, things: Iterable[str]) -> None:
        for check in sorted({check for thing in things for check in self._checks.get(thing, ())}):
            self._bursts.signal(check)

    # Setting watches, which may hang and is therefore done in a thread

    def _plan_again(self) -> None:
        self._start(self._set_watches(tell=True))

    async def _set_watches(self, *, tell: bool) -> None:
        """Watches what there is now. `tell`: what is new may have changed before it was watched."""
        self._planned = self._now()
        try:
            plan = await self._patience.call(
                f"what to watch ({id(self)})", _PATIENCE, lambda: make_plan(tuple(self._checks))
            )
        except (Unavailable, OSError) as error:
            self._put_off(error)
            return
        self._plan = plan
        self._leave_others(plan)
        files = plan.files.keys() - self._resting.keys() - set().union(*self._files.values())
        directories = plan.directories.keys() - set(self._directories.values())
        new = await self._add([*directories], [*files])
        if tell:
            self._say({thing for path in new for thing in plan.things_of(path)})

    async def _watch_again(self) -> None:
        """Files that have rested are watched again, and looked at for what they did meanwhile."""
        now = self._now()
        due = [path for path, at in self._resting.items() if at <= now + _GATHER]
        for path in due:
            del self._resting[path]
            self._asked[path] = now
        await self._add([], [path for path in due if path in self._plan.files])
        self._say({thing for path in due for thing in self._plan.files.get(path, ())})
        self._set_alarm()

    async def _add(self, directories: list[str], files: list[str]) -> list[str]:
        """Watches these. Returns those that are there."""
        inotify = self._inotify
        if inotify is None or not (directories or files):
            return []

        def add() -> list[tuple[int, str]]:
            added = []
            masks = [(path, _OF_DIRECTORY) for path in directories]
            for path, mask in [*masks, *((path, _OF_FILE) for path in files)]:
                try:
                    added.append((inotify.add_watch(path, mask), path))
                except OSError as error:
                    # What is gone again is no error.
                    self._complain(error)
            return added

        self._adding += 1
        try:
            added = await self._patience.call(f"the watches ({id(self)})", _PATIENCE, add)
        except (Unavailable, OSError, ValueError) as error:
            self._put_off(error)
            return []
        finally:
            self._adding -= 1
        known = set(directories)
        for wd, path in added:
            if path in known:
                self._directories[wd] = path
            else:
                self._files.setdefault(wd, set()).add(path)
        early, self._early = self._early, []
        self._hear(early)
        return [path for _, path in added]

    def _leave_others(self, plan: Plan) -> None:
        """No longer watch what no check is about."""
        for wd, directory in list(self._directories.items()):
            if directory not in plan.directories:
                del self._directories[wd]
                self._remove(wd)
        for path in set().union(*self._files.values()) - plan.files.keys():
            self._leave_file(path)
        self._asked = {path: at for path, at in self._asked.items() if path in plan.files}
        self._resting = {path: at for path, at in self._resting.items() if path in plan.files}

    def _leave_file(self, path: str) -> None:
        for wd in [wd for wd, paths in self._files.items() if path in paths]:
            self._files[wd].discard(path)
            if not self._files[wd]:
                del self._files[wd]
                self._remove(wd)

    def _remove(self, wd: int) -> None:
        with contextlib.suppress(OSError):  # the kernel may have removed it itself
            if self._inotify is not None:
                self._inotify.rm_watch(wd)

    def _put_off(self, error: Exception) -> None:
        if self._inotify is not None:
            _log.warning("cannot set watches, trying again in %g s: %s", _RETRY, error)
            self._later("plan", _RETRY, self._plan_again)

    def _complain(self, error: OSError) -> None:
        if error.errno == errno.ENOSPC and not self._full:
            self._full = True
            _log.warning(
                "cannot watch more files, the others are looked at by the clock: "
                "raise fs.inotify.max_user_watches"
            )

    # Timers and tasks

    def _now(self) -> Seconds:
        return asyncio.get_running_loop().time()

    def _later(self, name: str, seconds: Seconds, function: Callable[[], None]) -> None:
        """Once, in so many seconds. Of one name there is one, the sooner."""
        loop = asyncio.get_running_loop()
        earlier = self._timers.get(name)
        if earlier is not None and not earlier.cancelled() and earlier.when() > loop.time():
            if earlier.when() <= loop.time() + seconds:
                return
            earlier.cancel()
        self._timers[name] = loop.call_later(seconds, function)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
