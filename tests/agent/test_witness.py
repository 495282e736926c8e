"""Evidence while there is no room for it. Whole agents: tests/lab/test_disk.py."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agent.clock import Clock
from agent.core.model import Decision, Evidence, Finding, Host, Incident, State, Status, Tick
from agent.core.model import Transition as Step
from agent.errors import StoreError
from agent.store.history import History
from agent.witness import Witness

FULL = Finding(subject="/srv", status=Status.CRITICAL, cause="full", summary="/srv is full")


class FullHistory(History):
    """A history whose filesystem is full for a while."""

    full = True

    def add_evidence(
        self, incident: str, stage: str, taken: float, items: tuple[Evidence, ...]
    ) -> None:
        if self.full:
            raise StoreError("cannot write: database or disk is full")
        super().add_evidence(incident, stage, taken, items)


def moved(old: State, new: State) -> Decision:
    incident = Incident(
        id="i1",
        check="disk",
        subject="/srv",
        state=new,
        finding=FULL,
        looked=1.0,
        before=FULL,
        began=1.0,
        entered=1.0,
        seen=1.0,
        look_ended=1.0,
    )
    step = Step(incident="i1", at=1.0, old=old, new=new, why="")
    return Decision(host=Host(incidents=(incident,)), transitions=(step,))


async def gather(_check: str, finding: Finding) -> tuple[Evidence, ...]:
    return (Evidence(title="Largest directories of /srv", text=finding.summary),)


async def test_evidence_waits_in_memory_and_is_written_when_there_is_room(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as writer:
        history = FullHistory(tmp_path / "history.db")
        witness = Witness(gather=gather, history=history, writer=writer, clock=Clock())
        witness.hear(Tick(), moved(State.PENDING, State.OPEN))
        await witness.settle("i1")
        told = [kept.evidence.title for kept in await witness.read("i1")]
        assert told == ["Finding: critical", "Largest directories of /srv"]
        assert history.list_evidence("i1") == ()
        history.full = False
        witness.hear(Tick(), moved(State.VERIFYING, State.PROBATION))
        await witness.settle("i1")
        stages = [kept.stage for kept in history.list_evidence("i1")]
        assert stages == ["before", "before", "after", "after"]
        assert len(await witness.read("i1")) == 4
        history.close()
