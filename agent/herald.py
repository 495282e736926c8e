"""Says on the live feed what happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.clock import Clock
from agent.core.model import (
    Decision,
    Event,
    Incident,
    Looked,
    Notice,
    Run,
    RunEnded,
    RunStarted,
    Transition,
)
from agent.feed import Feed


class Herald:
    """Puts what was decided, and what becomes of it, in words for those who watch."""

    def __init__(self, *, feed: Feed, clock: Clock) -> None:
        self._feed = feed
        self._clock = clock
        self._seen: dict[str, tuple[str, ...]] = {}

    def hear(self, event: Event, decision: Decision) -> None:
        """Passes a committed decision on."""
        if isinstance(event, Looked):
            self._put_look(event, decision)
        known = {i.id: i for i in (*decision.ended, *decision.host.incidents)}
        for transition in decision.transitions:
            self._put_transition(transition, known.get(transition.incident))
        runs = list(decision.runs)
        if isinstance(event, RunStarted | RunEnded):
            runs += [run for run in decision.host.runs if run.id == event.run]
        for run in runs:
            self._put_run(run)
        for notice in decision.notices:
            self.hear_notice(notice)

    def hear_notice(self, notice: Notice) -> None:
        """A message that is due, or an attempt at its delivery."""
        self._feed.put(
            self._clock.now(),
            "notice",
            {
                "notice": notice.id,
                "route": notice.route,
                "reason": notice.reason,
                "state": notice.state,
                "attempts": notice.attempts,
                "error": notice.error,
                "incident": notice.incident.id if notice.incident else None,
            },
        )

    def hear_task(self, run_id: str, number: int, event: Mapping[str, Any]) -> None:
        """What a job said."""
        self._feed.put(self._clock.now(), "task", {**event, "run": run_id, "number": number})

    def tell(self, text: str) -> None:
        """What was done with the agent itself, or by it, in a sentence."""
        self._feed.put(self._clock.now(), "agent", {"text": text})

    def _put_look(self, event: Looked, decision: Decision) -> None:
        """A look is news when it says something else than the one before, or an incident waits."""
        seen = tuple(sorted(f"{f.subject}={f.status}:{f.cause}" for f in event.findings))
        seen += (event.broken,)
        waiting = any(incident.check == event.check for incident in decision.host.incidents)
        if self._seen.get(event.check) == seen and not waiting:
            return
        self._seen[event.check] = seen
        self._feed.put(
            event.ended,
            "look",
            {
                "check": event.check,
                "broken": event.broken,
                "took_seconds": event.ended - event.began,
                "findings": [
                    {
                        "subject": f.subject,
                        "status": f.status,
                        "cause": f.cause,
                        "summary": f.summary,
                    }
                    for f in event.findings
                ],
            },
        )

    def _put_transition(self, transition: Transition, incident: Incident | None) -> None:
        downtime = incident.count_downtime(self._clock.now()) if incident else 0.0
        self._feed.put(
            transition.at,
            "incident",
            {
                "incident": transition.incident,
                "old": transition.old,
                "new": transition.new,
                "why": transition.why,
                "check": incident.check if incident else "",
                "subject": incident.subject if incident else "",
                "resolved_by": incident.resolved_by if incident else None,
                "downtime_seconds": downtime,
            },
        )

    def _put_run(self, run: Run) -> None:
        self._feed.put(
            self._clock.now(),
            "run",
            {
                "run": run.id,
                "remedy": run.remedy,
                "state": run.state,
                "outcome": run.outcome,
                "incident": run.incident,
                "detail": run.detail,
                "preview": run.preview,
            },
        )
