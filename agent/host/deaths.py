"""Ends of processes, known the moment they happen: pidfd_open(2), and no polling.

A descriptor stands for exactly one process, also when its number is given to another one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping

from agent.host.census import Identity
from agent.host.processes import read_process

_log = logging.getLogger(__name__)

#: Processes followed in all, and for one name: each holds a descriptor. Others are left to the
#: timer.
MOST = 256
MOST_OF_ONE = 64


class Deaths:
    """Follows processes under names, and tells the names when one ends.

    Use it from one event loop only.
    """

    def __init__(self) -> None:
        #: Is told which process ended, before the names that follow it are.
        self.bury: Callable[[Identity], None] = lambda _identity: None
        #: Why processes cannot be followed; empty while they can.
        self.trouble = ""
        self._callback: Callable[[str], None] = lambda _name: None
        self._wanted: frozenset[str] = frozenset()
        self._descriptors: dict[Identity, int] = {}
        self._names: dict[Identity, set[str]] = {}

    def watch(self, names: Iterable[str], callback: Callable[[str], None]) -> None:
        """From now on tell `callback` of ends under these names, and of no others."""
        self._callback = callback
        self._wanted = frozenset(names)
        for identity, of in list(self._names.items()):
            of &= self._wanted
            if not of:
                self._drop(identity)

    def follow(self, name: str, identities: Iterable[Identity]) -> None:
        """From now on follow exactly these under this name, if anybody watches it.

        What ended already, since whoever asks saw it, is told soon.
        """
        if name not in self._wanted:
            return
        chosen = set(list(identities)[:MOST_OF_ONE])
        for identity, of in list(self._names.items()):
            if name in of and identity not in chosen:
                of.discard(name)
                if not of:
                    self._drop(identity)
        for identity in chosen:
            if identity in self._names:
                self._names[identity].add(name)
            elif len(self._descriptors) < MOST:
                self._take_up(identity, name)

    def close(self) -> None:
        """Follow nothing any more."""
        self.watch((), lambda _name: None)

    @property
    def followed(self) -> Mapping[Identity, frozenset[str]]:
        """What is followed, and under which names."""
        return {identity: frozenset(names) for identity, names in self._names.items()}

    def _take_up(self, identity: Identity, name: str) -> None:
        pid, started = identity
        loop = asyncio.get_running_loop()
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            loop.call_soon(self._end, identity, frozenset({name}))
            return
        except OSError as error:
            # No more descriptors, or a kernel before 5.3: the timer goes on looking.
            if not self.trouble:
                self.trouble = f"cannot follow processes: {error.strerror}"
                _log.warning("%s; their ends are seen at the next look", self.trouble)
            return
        self.trouble = ""
        # Only now that the descriptor holds on to a process can it be told whether it is the one.
        found = read_process(pid)
        if found is None or found.started != started:
            os.close(descriptor)
            loop.call_soon(self._end, identity, frozenset({name}))
            return
        self._descriptors[identity] = descriptor
        self._names[identity] = {name}
        # It can be read from as soon as the process is a zombie (pidfd_open(2)).
        loop.add_reader(descriptor, self._take_end, identity)

    def _take_end(self, identity: Identity) -> None:
        names = frozenset(self._names.get(identity, ()))
        self._drop(identity)
        self._end(identity, names)

    def _end(self, identity: Identity, names: frozenset[str]) -> None:
        self.bury(identity)
        for name in sorted(names & self._wanted):
            try:
                self._callback(name)
            except Exception:
                _log.exception("cannot pass on the end of process %s", identity[0])

    def _drop(self, identity: Identity) -> None:
        self._names.pop(identity, None)
        descriptor = self._descriptors.pop(identity, None)
        if descriptor is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)
