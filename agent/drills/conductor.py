"""The agent's side of drills: one at a time, ordered, followed, judged, and seen to be undone.

The fault itself is the guard's (`agent.drills.guard`), which needs no agent to undo it. What the
conductor adds is the judgement, and an early end: a drill is over once it is judged.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from agent.clock import Clock
from agent.core.drill import Drill, DrillState, abort_drill, judge_drill
from agent.core.model import Incident, Seconds
from agent.drills.marker import MARKER, require_marker, require_root
from agent.drills.place import (
    KEEP,
    RUNTIME,
    UNIT,
    Place,
    Progress,
    Record,
    read_boottime,
    read_progress,
)
from agent.drills.sight import Eye, find_checks, may_be_of
from agent.errors import Conflict, HostmendError, Invalid, RemedyError, Unavailable
from agent.host.command import run_command
from agent.host.identity import Identity
from agent.host.journal import boot_id
from agent.remedies.catalog import Catalog
from agent.remedies.options import check_options

_log = logging.getLogger(__name__)

#: Seconds between looks at a drill that is alive.
_TICK = 0.3
#: Seconds that a fault stays beyond the drill's budget, should nobody end it, and that a guard has
#: to begin.
_GRACE = 15.0
_RESERVE = 60.0
#: Seconds without a word of the guard after which it is looked for.
_SILENCE = 15.0
_SYSTEMCTL_SECONDS = 15.0

_DRILL = TypeAdapter(Drill)


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the conductor knows of the agent around it."""

    faults: Callable[[], Catalog]
    #: The configured checks.
    eyes: Callable[[], Mapping[str, Eye]]
    #: The latest incidents, ended ones too.
    incidents: Callable[[], Awaitable[Sequence[Incident]]]
    #: Why each incident has no run now, in words.
    holds: Callable[[], Mapping[str, str]]
    #: Why this agent cannot be tried now; empty when it can.
    why_not: Callable[[], str]
    #: Keeps a drill under its number (0: a new one), and gives that number.
    keep: Callable[[int, str], Awaitable[int]]
    #: Tells whoever watches.
    tell: Callable[[str], None]


class Conductor:
    """This host's drills."""

    def __init__(
        self,
        *,
        identity: Identity,
        around: Surroundings,
        clock: Clock,
        place: Place | None = None,
        marker: Path = MARKER,
        runtime: Path = RUNTIME,
    ) -> None:
        self._place = place or Place()
        self._marker = marker
        self._identity = identity
        self._around = around
        self._clock = clock
        self._runtime = runtime
        self._drill: Drill | None = None
        self._following: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._looked_for = 0.0

    @property
    def current(self) -> Drill | None:
        """The drill that is alive, or the last one of this agent."""
        return self._drill

    @property
    def trouble(self) -> str:
        """What is not undone, in words; empty while nothing is."""
        drill = self._drill
        if drill is None or not drill.alive or not drill.trouble:
            return ""
        return f"{drill.fault} of drill {drill.id} is not undone: {drill.trouble}"

    async def start(
        self, name: str, options: Mapping[str, Any], *, budget: Seconds, by: str
    ) -> Drill:
        """Has a fault injected.

        Raises NotFound, Invalid, Conflict or Unavailable; then it was not.
        """
        async with self._turn:
            fault = self._around.faults().get(name)
            if KEEP in options:
                raise Invalid(f"cannot run {name}: it has no option {KEEP}")
            try:
                checked = check_options(
                    name, fault.options, {**options, KEEP: str(self._place.keep)}
                )
            except RemedyError as error:
                raise Invalid(str(error)) from error
            del checked[KEEP]
            require_root()
            require_marker(self._marker, self._identity, self._clock.now())
            if self._drill is not None and self._drill.alive:
                raise Conflict(f"cannot start a drill: {self._drill.id} is not over")
            if self._place.taken:
                raise Conflict("cannot start a drill: the one before is not undone")
            if why := self._around.why_not():
                raise Conflict(f"cannot start a drill: {why}")
            eyes = self._around.eyes()
            incidents = await self._around.incidents()
            for incident in incidents:
                if not incident.state.ended and may_be_of(fault, checked, incident, eyes):
                    raise Conflict(
                        f"cannot start a drill: {incident.check} fails already "
                        f"({incident.id}): what it proves could not be told"
                    )
            await _require_guard()
            drill = Drill(
                id="",
                fault=name,
                options=checked,
                by=by,
                ordered=self._clock.now(),
                budget=budget,
                checks=find_checks(fault, checked, eyes),
            )
            number = await self._around.keep(0, write_drill(drill))
            drill = replace(drill, id=f"d{number}")
            record = Record(
                id=drill.id,
                fault=name,
                digest=fault.digest,
                options=checked,
                timeout=fault.timeout,
                lasts=budget + _GRACE,
                boot=boot_id(),
                until=read_boottime() + fault.timeout + budget + _RESERVE,
            )
            await self._put(drill)
            try:
                await asyncio.to_thread(self._place.prepare, record, fault.path)
                await _systemctl("start", UNIT)
            except HostmendError as error:
                await asyncio.to_thread(self._place.clear)
                ended = replace(abort_drill(drill, str(error)), state=DrillState.ENDED)
                await self._put(ended)
                raise
            self._follow()
            return drill

    async def end(self, drill: Drill, *, by: str) -> Drill:
        """Has it undone now. One that has ended stays as it is."""
        if self._drill is None or self._drill.id != drill.id or not self._drill.alive:
            return drill
        await self._put(abort_drill(self._drill, f"{by} ended it"))
        await _systemctl("stop", UNIT, "--no-block")
        return self._drill

    async def take_up(self, last: Drill | None) -> None:
        """At the agent's start: what another agent began is undone."""
        record = None
        try:
            record = self._place.read()
        except HostmendError as error:
            _log.error("%s", error)
        if last is not None and last.alive:
            self._drill = last
        elif record is not None:
            self._drill = Drill(
                id=record.id,
                fault=record.fault,
                options=record.options,
                by="",
                ordered=self._clock.now(),
                budget=record.timeout,
            )
        else:
            return
        await self._put(abort_drill(self._drill, "the agent that judged it went away"))
        if self._place.taken:
            await self._see_to_guard(stop=True)
        self._follow()

    async def close(self) -> None:
        """The agent stops: nobody judges any more, so the fault is undone."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})
        if self._drill is not None and self._drill.alive and self._place.taken:
            await self._put(abort_drill(self._drill, "the agent was stopped"))
            try:
                await _systemctl("stop", UNIT, "--no-block")
            except HostmendError as error:
                _log.error("cannot end drill %s: %s", self._drill.id, error)

    def _follow(self) -> None:
        self._following = asyncio.ensure_future(self._keep_following())

    async def _keep_following(self) -> None:
        while self._drill is not None and self._drill.alive:
            try:
                await self._step(self._drill)
            except HostmendError as error:
                _log.error("cannot follow drill %s: %s", self._drill.id, error)
            await asyncio.sleep(_TICK)

    async def _step(self, drill: Drill) -> None:
        said = read_progress(self._runtime)
        if said is not None and said.id != drill.id:
            said = None
        moved = await self._move(drill, said)
        # An order to end it may have come in between.
        if self._drill is not drill:
            return
        if moved != drill:
            await self._put(moved)
        if moved.state is DrillState.ENDING:
            await self._see_to_guard(stop=drill.state is not DrillState.ENDING)

    async def _move(self, drill: Drill, said: Progress | None) -> Drill:
        stage = said.stage if said else ""
        if not self._place.taken and stage != "injected":
            return self._conclude(drill, said)
        if drill.state is DrillState.STARTING:
            if said is not None and stage == "injected":
                at = self._clock.at_boottime(said.at)
                return replace(drill, state=DrillState.UNDER_WAY, injected=at)
            if said is not None and stage in ("refused", "undoing", "stuck"):
                return abort_drill(drill, f"the fault was not injected: {said.detail}")
            if said is None and self._clock.now() - drill.ordered > _RESERVE:
                return abort_drill(drill, "its guard did not begin")
            return drill
        if drill.state is DrillState.UNDER_WAY:
            if stage != "injected":
                return abort_drill(drill, "the fault was undone before the drill was judged")
            return await self._judge(drill)
        return replace(drill, trouble=said.detail if said and stage == "stuck" else "")

    async def _judge(self, drill: Drill) -> Drill:
        fault, eyes = self._around.faults().get(drill.fault), self._around.eyes()
        seen = await self._around.incidents()
        mine = [i for i in seen if may_be_of(fault, drill.options, i, eyes)]
        return judge_drill(drill, mine, self._around.holds(), self._clock.now())

    def _conclude(self, drill: Drill, said: Progress | None) -> Drill:
        """Nothing is left to undo."""
        why = f"the fault was not injected: {said.detail}" if said and said.detail else "undone"
        told = said is not None and said.stage == "undone"
        undone = self._clock.at_boottime(said.at) if said and told else self._clock.now()
        drill = abort_drill(drill, why)
        return replace(drill, state=DrillState.ENDED, undone=undone, trouble="")

    async def _see_to_guard(self, *, stop: bool) -> None:
        """It undoes when it is stopped, and also when it is started: it may have been killed."""
        if not self._place.taken:
            return
        if stop:
            await _systemctl("stop", UNIT, "--no-block")
            self._looked_for = self._clock.now()
        elif self._clock.now() - self._looked_for > _SILENCE:
            self._looked_for = self._clock.now()
            asked = await run_command(["systemctl", "is-active", UNIT], seconds=_SYSTEMCTL_SECONDS)
            # To start what is down and to stop what is up both undo.
            down = asked.out.strip() in ("inactive", "failed")
            await _systemctl("start" if down else "stop", UNIT, "--no-block")

    async def _put(self, drill: Drill) -> None:
        before, self._drill = self._drill, drill
        await self._around.keep(int(drill.id[1:]), write_drill(drill))
        if before is None or (before.id, before.state) != (drill.id, drill.state):
            said = f": {drill.outcome} - {drill.detail}" if drill.outcome else ""
            self._around.tell(f"drill {drill.id} ({drill.fault}) is {drill.state}{said}")


def write_drill(drill: Drill) -> str:
    return json.dumps(asdict(drill))


def read_drill(number: int, text: str) -> Drill:
    """Raises ValueError."""
    return replace(_DRILL.validate_json(text), id=f"d{number}")


async def _require_guard() -> None:
    """Raises Unavailable where nothing would undo a fault after the agent's death or a boot."""
    asked = await run_command(["systemctl", "is-enabled", UNIT], seconds=_SYSTEMCTL_SECONDS)
    if asked.out.strip() != "enabled":
        raise Unavailable(
            f"cannot start a drill: {UNIT} is {asked.out.strip() or 'not installed'}, and nothing "
            f"else would undo it after a crash; install it and say: systemctl enable {UNIT}"
        )


async def _systemctl(*words: str) -> None:
    """Raises Unavailable."""
    done = await run_command(["systemctl", *words], seconds=_SYSTEMCTL_SECONDS)
    if done.code != 0:
        raise Unavailable(f"cannot {words[0]} {UNIT}: {done.said}")
