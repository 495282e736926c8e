"""The host while one event is decided on, and what all parts of a decision do to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.core.advance import Signal, advance
from agent.core.holds import NextStep
from agent.core.model import (
    CheckPolicy,
    Held,
    Host,
    Incident,
    Instant,
    Notice,
    Outcome,
    Policy,
    Question,
    Run,
    State,
    Step,
    Transition,
)
from agent.errors import NotFound

#: More doublings than any `retry_at_most` needs; without an end they would overflow.
_DOUBLINGS = 32


@dataclass(kw_only=True)
class Desk:
    """The host while it is being decided on, and what was decided so far."""

    host: Host
    policy: Policy
    now: Instant
    transitions: list[Transition] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    holds: dict[str, Held] = field(default_factory=dict)
    ended: list[Incident] = field(default_factory=list)
    made: str = ""

    def take_number(self) -> int:
        self.host = replace(self.host, serial=self.host.serial + 1)
        return self.host.serial

    def check_of(self, incident: Incident) -> CheckPolicy:
        return self.policy.checks[incident.check]

    def find(self, incident_id: str) -> Incident:
        for incident in self.host.incidents:
            if incident.id == incident_id:
                return incident
        raise NotFound(f"cannot find incident {incident_id}: no open incident has this id")

    def run_of(self, incident: Incident) -> Run | None:
        return next((run for run in self.host.runs if run.id == incident.run), None)

    def put(self, incident: Incident) -> None:
        """Replaces the incident with the same id, or adds it."""
        others = [known for known in self.host.incidents if known.id != incident.id]
        place = next(
            (i for i, known in enumerate(self.host.incidents) if known.id == incident.id),
            len(others),
        )
        incidents = (*others[:place], incident, *others[place:])
        self.host = replace(self.host, incidents=incidents)

    def put_run(self, run: Run) -> None:
        runs = tuple(run if known.id == run.id else known for known in self.host.runs)
        self.host = replace(self.host, runs=runs)

    def signal(self, incident: Incident, signal: Signal, why: str = "") -> Incident:
        """Advances an incident and keeps the transition."""
        moved, transition = advance(incident, signal, self.now, why)
        if transition is not None:
            self.transitions.append(transition)
        if moved.state is State.PROBATION and moved.healed_by:
            run = self.run_of(moved)
            if run is None or run.outcome is not Outcome.OK:
                moved = replace(moved, healed_by=None)
        if moved.state is State.RESOLVED and moved.healed_by and signal is Signal.STABLE:
            run = self.run_of(moved)
            if run is not None:
                self.put_run(replace(run, proved=True))
        self.put(moved)
        return moved


def make_run(desk: Desk, step: Step, options: Mapping[str, object], lock: str) -> Run:
    """A planned run of one step, of no incident yet."""
    return Run(
        id=f"r{desk.take_number()}",
        remedy=step.remedy,
        options=options,
        risk=step.risk,
        changes=step.changes,
        timeout=step.timeout,
        lock=lock,
        digest=step.digest,
        planned=desk.now,
    )


def start(desk: Desk, run: Run) -> None:
    """From here on it is alive: the decision hands it to whoever carries runs out."""
    desk.host = replace(desk.host, runs=(*desk.host.runs, run))
    desk.runs.append(run)


def make_question(chosen: NextStep) -> Question:
    """What somebody is asked before a step is taken."""
    return Question(
        step=chosen.step.key,
        remedy=chosen.step.remedy,
        risk=chosen.step.risk,
        options=chosen.options,
        digest=chosen.step.digest,
        hidden=chosen.step.hidden,
    )


def with_retry(incident: Incident, desk: Desk) -> Incident:
    """An escalated incident with the time of its next slow try."""
    doubled = 2.0 ** min(incident.retries, _DOUBLINGS)
    wait = min(desk.policy.retry_after * doubled, desk.policy.retry_at_most)
    return replace(incident, retry_at=desk.now + wait)
