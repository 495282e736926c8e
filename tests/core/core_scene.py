"""A host to decide on, with a clock that a test moves, in the words of a story."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from agent.core.decide import decide
from agent.core.model import (
    CheckPolicy,
    Decision,
    Event,
    Finding,
    Held,
    Host,
    Incident,
    Looked,
    Notice,
    Ordered,
    Outcome,
    Policy,
    Reason,
    Reconfigured,
    RoutePolicy,
    Run,
    RunEnded,
    RunStarted,
    RunState,
    Silence,
    State,
    Status,
    Step,
    Tick,
    Transition,
    Verb,
)

EVERY_REASON = RoutePolicy(name="ops", reasons=tuple(Reason))


def step(remedy: str = "restart-service", **changes: Any) -> Step:
    """A remedy for `failed` that hostmend may use alone."""
    wanted = {"key": remedy, "causes": ("failed",), "digest": "d1", **changes}
    return Step(remedy=remedy, **wanted)


def check(name: str = "web", *ladder: Step, **changes: Any) -> CheckPolicy:
    """A check that believes its first failing look; without a ladder it restarts its service."""
    return CheckPolicy(name=name, ladder=ladder or (step(),), **changes)


def bare(name: str, **changes: Any) -> CheckPolicy:
    """A check without any remedy."""
    return CheckPolicy(name=name, **changes)


@dataclass(frozen=True, kw_only=True)
class Hourly:
    """A schedule that needs no calendar: the same minutes of every hour."""

    begin: float
    lasts: float

    def find_span(self, at: float) -> tuple[float, float]:
        begun = (at - self.begin) // 3600.0 * 3600.0 + self.begin
        begin = begun if at < begun + self.lasts else begun + 3600.0
        return begin, begin + self.lasts


class Scene:
    """Drives `decide` from event to event; after each one, a second decide must do nothing."""

    def __init__(self, *checks: CheckPolicy, **policy: Any) -> None:
        routes = policy.pop("routes", (EVERY_REASON,))
        self.policy = Policy(
            checks={one.name: one for one in checks or (check(),)}, routes=routes, **policy
        )
        self.now = 1000.0
        self.host = Host()
        self.ended: list[Incident] = []
        self.runs: list[Run] = []
        self.notices: list[Notice] = []
        self.transitions: list[Transition] = []
        self.last = Decision(host=self.host)

    # What happens

    def send(self, event: Event) -> Decision:
        self.last = decide(self.host, event, self.policy, self.now)
        self.host = self.last.host
        self.ended += self.last.ended
        self.runs += self.last.runs
        self.notices += self.last.notices
        self.transitions += self.last.transitions
        again = decide(self.host, Tick(), self.policy, self.now)
        assert again.host == self.host
        assert not again.runs
        assert not again.notices
        assert not again.transitions
        assert not again.ended
        assert again.wake == self.last.wake
        assert again.look == self.last.look
        assert again.holds == self.last.holds
        return self.last

    def wait(self, seconds: float) -> Decision:
        """Time goes on, with every wake on the way."""
        target = self.now + seconds
        while self.last.wake is not None and self.last.wake <= target:
            self.now = self.last.wake
            self.send(Tick())
        self.now, before = target, self.host
        decision = self.send(Tick())
        assert decision.host == before, "something happened before its wake"
        return decision

    def looks(
        self, name: str = "web", *findings: Finding, began: float | None = None, **changes: Any
    ) -> Decision:
        """A complete look; it ends now, and began now unless told otherwise."""
        start = self.now if began is None else began
        event = Looked(check=name, began=start, ended=self.now, findings=findings, **changes)
        return self.send(event)

    def sees(
        self,
        status: Status,
        name: str = "web",
        *,
        began: float | None = None,
        cause: str = "",
        broken: str = "",
        **changes: Any,
    ) -> Decision:
        subject = changes.pop("subject", f"{name}.service")
        finding = Finding(subject=subject, status=status, cause=cause, **changes)
        return self.looks(name, finding, began=began, broken=broken)

    def fails(self, name: str = "web", **changes: Any) -> Decision:
        """A second later, a look sees it critical for the cause `failed`."""
        return self._later(Status.CRITICAL, name, {"cause": "failed", **changes})

    def warns(self, name: str = "web", **changes: Any) -> Decision:
        return self._later(Status.WARNING, name, {"cause": "failed", **changes})

    def passes(self, name: str = "web", **changes: Any) -> Decision:
        return self._later(Status.OK, name, changes)

    def is_unclear(self, name: str = "web", **changes: Any) -> Decision:
        return self._later(Status.UNKNOWN, name, changes)

    def breaks(self, name: str = "web", why: str = "timed out") -> Decision:
        self.now += 1.0
        return self.looks(name, broken=why)

    def _later(self, status: Status, name: str, changes: dict[str, Any]) -> Decision:
        self.now += 1.0
        return self.sees(status, name, **changes)

    def keeps_passing(self, seconds: float, name: str = "web", every: float = 5.0) -> None:
        until = self.now + seconds
        while self.now < until:
            self.wait(every - 1.0)
            self.passes(name)

    def keeps_failing(self, seconds: float, name: str = "web", every: float = 5.0) -> None:
        until = self.now + seconds
        while self.now < until:
            self.wait(every - 1.0)
            self.fails(name)

    def starts(self, run: Run | None = None) -> Run:
        """The worker claims the run that is alive."""
        alive = run or self.alive()
        self.send(RunStarted(run=alive.id))
        return alive

    def ends(self, outcome: Outcome = Outcome.OK, run: Run | None = None, **changes: Any) -> Run:
        """Half a second later the run that is alive ends."""
        alive = self.alive() if run is None else next(r for r in self.host.runs if r.id == run.id)
        if alive.state is RunState.PLANNED:
            self.send(RunStarted(run=alive.id))
        self.now += 0.5
        self.send(RunEnded(run=alive.id, outcome=outcome, ended=self.now, **changes))
        return alive

    def heals(self, name: str = "web") -> None:
        """The run ends well and the next look proves it."""
        self.ends()
        self.passes(name)

    def orders(self, verb: Verb, target: str = "", **changes: Any) -> Decision:
        return self.send(Ordered(verb=verb, by="anna", target=target, **changes))

    def reconfigure(self, *checks: CheckPolicy, **policy: Any) -> Decision:
        """A new policy: other checks if any are named, other settings."""
        named = {"checks": {one.name: one for one in checks}} if checks else {}
        self.policy = replace(self.policy, **named, **policy)
        return self.send(Reconfigured())

    # What came of it

    def alive(self) -> Run:
        (run,) = [run for run in self.host.runs if run.alive]
        return run

    def incident(self, name: str = "web") -> Incident:
        """The newest incident of a check, also one that ended."""
        known = [*self.ended, *self.host.incidents]
        return max((i for i in known if i.check == name), key=lambda i: int(i.id.removeprefix("i")))

    def state(self, name: str = "web") -> State:
        return self.incident(name).state

    def hold(self, name: str = "web") -> Held | None:
        return self.last.holds.get(self.incident(name).id)

    def said(self, name: str | None = None) -> list[str]:
        """The reasons of all notices so far, in order; with a name, only that check's."""
        return [
            str(n.reason)
            for n in self.notices
            if name is None or (n.incident is not None and n.incident.check == name)
        ]

    def remedies(self) -> list[str]:
        return [run.remedy for run in self.runs]


def mute(scene: Scene, seconds: float, *, runs: bool = False, **cover: Any) -> str:
    """Silences everything, or what is named; gives the silence's id."""
    silence = Silence(
        id="",
        starts=scene.now,
        ends=scene.now + seconds,
        by="",
        runs=runs,
        **(cover or {"checks": ("*",)}),
    )
    return scene.orders(Verb.SILENCE, silence=silence).made
