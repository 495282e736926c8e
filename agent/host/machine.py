"""The edges to this machine, handed to looks in one value."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.clock import Clock
from agent.core.model import Instant
from agent.errors import Unavailable
from agent.host.census import Census
from agent.host.cgroups import find_place
from agent.host.condition import Condition
from agent.host.deaths import Deaths
from agent.host.http import HttpClient
from agent.host.identity import is_container
from agent.host.leash import Leash
from agent.host.memory import Memory
from agent.host.shortage import Shortage
from agent.host.space import Space
from agent.host.systemd import Systemd

#: sd_booted(3): this directory exists exactly where systemd is PID 1.
_BOOTED = Path("/run/systemd/system")


def _no_repair(_check: str) -> Instant | None:
    return None


def has_systemd() -> bool:
    """Whether systemd is PID 1 here."""
    return _BOOTED.is_dir()


def _no_run(_unit: str, _at: Instant) -> bool:
    return False


def _no_deployment() -> Instant | None:
    return None


def _tell_nobody(_audit: Any) -> None:
    pass


def _no_names() -> frozenset[str]:
    return frozenset()


@dataclass(kw_only=True)
class Machine:
    """What looks may use of this machine. An edge that is not there is None."""

    clock: Clock
    #: The kernel, its clock and some of its figures are those of the machine around this one.
    container: bool = False
    #: None where systemd is not PID 1. Elsewhere calls raise Unavailable while it is out of reach.
    systemd: Systemd | None = None
    #: Asks over HTTP.
    http: HttpClient = field(default_factory=HttpClient)
    #: Runs programs of others.
    leash: Leash = field(default_factory=Leash)
    #: Whether a run of hostmend that concerns a unit was alive at an instant: what such a run stops
    #: is no operator's wish.
    ran: Callable[[str, Instant], bool] = _no_run
    #: Units that checks of their own are for.
    named: Callable[[], frozenset[str]] = _no_names
    #: How the agent itself is; None where this machine is looked at without one.
    condition: Callable[[], Condition] | None = None
    #: When the last run for a check ended; None where there was none lately.
    repaired: Callable[[str], Instant | None] = _no_repair
    #: What was found out of units that failed, by unit: which end of it, and whether it had room.
    shortages: dict[str, tuple[object, Shortage | None]] = field(default_factory=dict)
    #: The last line of units that failed, by unit, with which end of it that is of.
    last_words: dict[str, tuple[object, str]] = field(default_factory=dict)
    #: Filesystems: how they are asked, and what is remembered of them.
    space: Space = field(default_factory=Space)
    #: Processes, and who is told of their ends.
    census: Census = field(default_factory=Census)
    deaths: Deaths = field(default_factory=Deaths)
    #: What the check that looks remembers.
    memory: Memory = field(default_factory=Memory)
    #: Told of each audit of a site (`agent.audit.result.Audit`), which is above this layer.
    audited: Callable[[Any], None] = _tell_nobody
    #: When the sites of this host were last deployed; None: nobody says so.
    deployed: Callable[[], Instant | None] = _no_deployment
    #: What is not to be had here, and why: `{"systemd": "systemd is not PID 1 here ..."}`.
    missing: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.deaths.bury = self.census.bury

    def list_missing(self) -> Mapping[str, str]:
        """What is not to be had here now, and why, in words."""
        if self.systemd is None or not self.systemd.trouble:
            return self.missing
        why = f"{self.systemd.trouble}: install and start dbus; hostmend goes on trying"
        return {"systemd": why, **self.missing}

    def forget(self) -> None:
        """What was read of this machine before now counts no more: a run changed it.

        What looks share for a moment must not prove a repair that ended within that moment.
        """
        self.census.forget()
        self.space.held.clear()

    def remember(self, memory: Memory) -> Machine:
        """This machine as one check sees it; the edges are the same."""
        # For every look: `replace` would make all edges anew only to throw them away.
        seen = object.__new__(Machine)
        seen.__dict__ |= self.__dict__ | {"memory": memory}
        return seen

    async def close(self) -> None:
        """Let go of every edge."""
        self.deaths.close()
        await self.leash.close()
        if self.systemd is not None:
            await self.systemd.close()


async def open_machine(clock: Clock) -> Machine:
    """Try each edge; those that are not there are named in `missing`. Never raises for that."""
    machine = Machine(clock=clock, container=is_container())
    missing: dict[str, str] = {}
    if not has_systemd():
        missing["systemd"] = "systemd is not PID 1 here: services cannot be watched"
    else:
        machine.systemd = Systemd(clock)
        with contextlib.suppress(Unavailable):
            await machine.systemd.open()
        if os.geteuid() != 0:
            missing["journal"] = (
                "not root: unless this user may read the whole journal (group systemd-journal), "
                "an operator's stop before this start of hostmend looks like an unclear one"
            )
    if os.geteuid() != 0:
        missing["root"] = (
            "not root: only what this user may see is watched, and remedies change only what it "
            "may change"
        )
    if machine.container:
        missing["kernel"] = (
            "this is a container: its kernel, clock and hardware are those of the machine around "
            "it, and are not watched"
        )
    try:
        find_place()
    except Unavailable as error:
        missing["control groups"] = (
            f"{error}: should agent and run be killed at one moment, a process that hides from its "
            "run is not found"
        )
    machine.missing = missing
    return machine
