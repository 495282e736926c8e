"""What says "look now": one file each, all in one visible dict. A trigger decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from agent.host.machine import Machine
from agent.triggers.inotify import InotifyTrigger
from agent.triggers.pidfd import PidfdTrigger
from agent.triggers.psi import PsiTrigger
from agent.triggers.systemd import SystemdTrigger

#: Asks for a look of a check.
LookNow = Callable[[str], None]

#: One look in this time, however much is written to the journal: each starts a journalctl.
JOURNAL_PACE = 5.0


class Trigger(Protocol):
    """Watches things, and says "look now" for the checks that they matter to."""

    async def watch(self, mapping: Mapping[str, frozenset[str]]) -> None:
        """From now on watch exactly these things for these checks: thing -> names of checks.

        What cannot be watched is left to the timer, and is no error.
        """

    def close(self) -> None:
        """Say nothing any more."""


def _open_systemd(machine: Machine, look_now: LookNow) -> Trigger | None:
    return None if machine.systemd is None else SystemdTrigger(machine.systemd, look_now)


def _open_inotify(machine: Machine, look_now: LookNow) -> Trigger | None:
    return InotifyTrigger(machine.space.patience, look_now)


def _open_journal(machine: Machine, look_now: LookNow) -> Trigger | None:
    return InotifyTrigger(machine.space.patience, look_now, pace=JOURNAL_PACE)


def _open_psi(machine: Machine, look_now: LookNow) -> Trigger:
    return PsiTrigger(machine, look_now)


def _open_pidfd(machine: Machine, look_now: LookNow) -> Trigger:
    return PidfdTrigger(machine.deaths, look_now)


#: How each is opened; None where this machine does not have what it listens to.
TRIGGERS: dict[str, Callable[[Machine, LookNow], Trigger | None]] = {
    "inotify": _open_inotify,
    "journal": _open_journal,
    "pidfd": _open_pidfd,
    "psi": _open_psi,
    "systemd": _open_systemd,
}


def open_triggers(machine: Machine, look_now: LookNow) -> dict[str, Trigger]:
    """Those that this machine can have, by name."""
    opened = {name: make(machine, look_now) for name, make in TRIGGERS.items()}
    return {name: trigger for name, trigger in opened.items() if trigger is not None}
