"""The one place where everything is wired."""

from __future__ import annotations

from agent.core.model import Decision, Event
from agent.engine import Engine
from agent.watcher import Watcher
from agent.worker import Worker


def connect(engine: Engine, watcher: Watcher, worker: Worker) -> None:
    """Hands on what each decision asks for: runs and notices to the worker, looks to the watcher.

    The worker is first, since the repair waits for nobody.
    """

    def hear(event: Event, decision: Decision) -> None:
        worker.hear(event, decision)
        watcher.request(decision.look)

    engine.listen(hear)
