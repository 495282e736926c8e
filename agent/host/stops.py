"""Who brought a unit down: an operator's stop is an intention, a death is not.

Neither `inactive` nor an exit code tells (a Java server that is told to stop leaves 143 and is
`failed`). What tells is the stop job: seen on the bus while it is watched, and in the journal for
what happened before. This module is the bookkeeping; it asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from agent.core.model import Instant

# Message ids of systemd's own log lines (sd-messages.h, systemd.catalog).
STARTING = "7d4958e842da4a758f6c1cdc7b36dcc5"
STARTED = "39f53479d3a045ac8e11786248231fbf"
START_FAILED = "be02cf6855d2428ba40df7e9d022f03d"
STOPPING = "de5b426a63be47a7b6ac3eaac82e2f6f"
STOPPED = "9d1aaa27d60140bd96365438aad20286"
SUCCEEDED = "7ad2d189f7e94e70a38c781354912448"
FAILED = "d9b373ed55a64feb8242e02dbe79a49c"
PROCESS_ENDED = "98e322203f7a4ed290d09fe03c09fe15"
RESTART_SCHEDULED = "5eb03494b6584870a536b337290809b3"

TOLD = (
    STARTING,
    STARTED,
    START_FAILED,
    STOPPING,
    STOPPED,
    SUCCEEDED,
    FAILED,
    PROCESS_ENDED,
    RESTART_SCHEDULED,
)
_STARTS = frozenset({STARTING, STARTED, START_FAILED})

#: Results of a stop job after which the unit was stopped: it may have taken a SIGKILL or an error.
_CARRIED_OUT = frozenset({"done", "failed", "timeout"})
#: Jobs that bring a unit up, whatever was wanted before.
_UPWARD = frozenset({"start", "restart"})

#: Seconds between an event and its entry in the journal, or between two events of one transaction.
NEAR = 2.0


class StoppedBy(StrEnum):
    """What brought a unit down."""

    #: A stop job that somebody asked for.
    OPERATOR = "operator"
    #: A run of hostmend that stopped it and did not start it again.
    HOSTMEND = "hostmend"
    #: Itself: it ended, or was killed, without a stop job.
    ITSELF = "itself"
    #: systemd, because a unit that it is bound to, or needs for its start, went away.
    DEPENDENCY = "dependency"
    #: systemd, because a unit that cannot run beside it was started.
    CONFLICT = "conflict"
    #: A condition in its unit file, which kept it from its last start.
    CONDITION = "condition"
    #: Nothing: it has not been started since boot.
    NOBODY = "nobody"
    #: Neither the bus nor the journal can tell.
    UNCLEAR = "unclear"


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Why a unit is down."""

    by: StoppedBy
    #: The other unit, for `dependency` and `conflict`.
    unit: str = ""
    #: When it went down; None where nobody knows.
    at: Instant | None = None


@dataclass(frozen=True, kw_only=True)
class Told:
    """One line that systemd itself wrote to the journal about a unit."""

    unit: str
    message_id: str
    #: CLOCK_MONOTONIC in seconds when the journal took it.
    monotonic: float
    job_type: str = ""
    job_result: str = ""


class Verdict(Enum):
    """What the bus alone says of a unit that is down."""

    STOPPED = "a stop job was seen"
    ENDED = "it was watched since it was last up, and there was no stop job"
    ASK_JOURNAL = "the bus was not watched all the time, or a job ended before its type was read"


@dataclass(kw_only=True)
class _Job:
    #: None: not known (yet).
    type: str | None = None
    #: Empty while it is under way.
    result: str = ""


@dataclass(kw_only=True)
class _Page:
    #: It has been watched without a gap since it was last seen up.
    covered: bool = False
    #: Jobs under way, or over before their type was known. Numbers grow from job to job.
    jobs: dict[int, _Job] = field(default_factory=dict)
    #: The last job that brought it up, that stopped it, and that was carried out without a known
    #: type, since it was last seen up; 0: none.
    last_up: int = 0
    last_stop: int = 0
    last_doubt: int = 0
    #: CLOCK_MONOTONIC in seconds when it was seen to go down, 0 if that was not seen.
    went_down: float = 0.0
    #: What was found out of its present end, and which end that is.
    settled: tuple[object, Stop] | None = None


class StopBook:
    """What jobs seen on the bus say of why units are down. Names are primary names."""

    def __init__(self) -> None:
        self._pages: dict[str, _Page] = {}

    def watch(self, units: Iterable[str]) -> None:
        """From now on exactly these units are watched."""
        self._pages = {unit: self._pages.get(unit, _Page()) for unit in units}

    def lose_sight(self) -> None:
        """The bus went away: anything may have happened since."""
        self._pages = {unit: _Page() for unit in self._pages}

    def see_state(self, unit: str, active_state: str, now: float) -> None:
        """A watched unit was seen in this active state. `now`: CLOCK_MONOTONIC in seconds."""
        page = self._pages.get(unit)
        if page is None or active_state == "deactivating":
            return
        if active_state in ("inactive", "failed"):
            if page.covered and not page.went_down:
                page.went_down = now
            return
        page.covered = True
        page.went_down = 0.0
        page.settled = None
        page.jobs = {id: job for id, job in page.jobs.items() if not job.result}
        if not page.jobs:
            page.last_up = page.last_stop = page.last_doubt = 0

    def see_job(self, unit: str, job: int) -> bool:
        """A job began; True if its type is wanted."""
        page = self._pages.get(unit)
        if page is None:
            return False
        page.jobs.setdefault(job, _Job())
        return True

    def type_job(self, unit: str, job: int, job_type: str | None) -> None:
        """The type of a job became known, maybe after its end; None: it never will."""
        page = self._pages.get(unit)
        if page is None or job not in page.jobs:
            return
        seen = page.jobs[job]
        seen.type = job_type
        if job_type in _UPWARD:
            page.last_up = max(page.last_up, job)
            page.settled = None
        if seen.result:
            self._close(page, job)

    def end_job(self, unit: str, job: int, result: str) -> None:
        """A job ended."""
        page = self._pages.get(unit)
        if page is None or job not in page.jobs:
            return
        page.jobs[job].result = result
        if page.jobs[job].type is not None:
            self._close(page, job)

    def _close(self, page: _Page, job: int) -> None:
        closed = page.jobs.pop(job)
        if closed.result not in _CARRIED_OUT:
            return
        page.settled = None
        if closed.type is None:
            page.last_doubt = max(page.last_doubt, job)
        elif closed.type == "stop":
            page.last_stop = max(page.last_stop, job)

    def judge(self, unit: str) -> Verdict:
        """What is known of a unit that is down now."""
        page = self._pages.get(unit)
        if page is None:
            return Verdict.ASK_JOURNAL
        stops = [id for id, job in page.jobs.items() if job.type == "stop"]
        doubts = [id for id, job in page.jobs.items() if job.type is None]
        last_stop = max([page.last_stop, *stops])
        if max([page.last_doubt, *doubts]) > max(page.last_up, last_stop):
            return Verdict.ASK_JOURNAL
        if last_stop > page.last_up:
            return Verdict.STOPPED
        return Verdict.ENDED if page.covered else Verdict.ASK_JOURNAL

    def went_down(self, unit: str) -> float:
        """CLOCK_MONOTONIC in seconds when a unit was seen to go down, 0 if that was not seen."""
        page = self._pages.get(unit)
        return page.went_down if page else 0.0

    def settle(self, unit: str, end: object, stop: Stop) -> None:
        """Remember what was found out about one end of a unit."""
        page = self._pages.get(unit)
        if page is not None:
            page.settled = (end, stop)

    def settled(self, unit: str, end: object) -> Stop | None:
        """What was found out before about the same end."""
        page = self._pages.get(unit)
        if page is None or page.settled is None or page.settled[0] != end:
            return None
        return page.settled[1]


def judge_journal(told: Iterable[Told], *, became_inactive: float) -> StoppedBy | None:
    """Who brought a unit down, from systemd's lines about it since boot, newest first.

    `became_inactive` is CLOCK_MONOTONIC in seconds, 0 if systemd does not know (it forgets units
    that nothing refers to). None: the journal does not tell, or not yet.
    """
    lines = list(told)
    if not lines and not became_inactive:
        return StoppedBy.NOBODY
    if not lines or lines[0].monotonic < became_inactive - NEAR:
        return None
    if lines[0].message_id == STARTED and not became_inactive:
        # The start job was carried out, and nothing had to end for the unit to be down.
        return StoppedBy.CONDITION
    for line in lines:
        if line.message_id == STOPPED:
            return StoppedBy.OPERATOR if _is_stop(line) else StoppedBy.ITSELF
        if line.message_id == STOPPING:
            return None
        if line.message_id == START_FAILED and line.job_result == "dependency":
            return StoppedBy.DEPENDENCY
        if line.message_id in _STARTS:
            break
    return StoppedBy.ITSELF


def _is_stop(line: Told) -> bool:
    # The stopping half of a restart ends with the same message, and the type `restart`.
    return line.job_type in ("stop", "") and line.job_result in {*_CARRIED_OUT, ""}


def ended_by_itself(told: Iterable[Told], *, before: float) -> bool:
    """Whether a unit, by its lines (newest first), ended without a job just before an instant.

    `before`: CLOCK_MONOTONIC in seconds. It may be up again since, by systemd's own restart.
    """
    ended = False
    for line in told:
        if line.monotonic > before + NEAR or (
            line.message_id in _STARTS and line.monotonic > before
        ):
            continue
        if line.message_id in _STARTS or line.monotonic < before - 5 * NEAR:
            break
        if line.message_id in (STOPPING, STOPPED):
            return False
        ended = True
    return ended
