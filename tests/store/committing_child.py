"""Commits one decision after another, says each number once it is durable, and is killed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from agent.core.decide import decide
from agent.core.model import (
    CheckPolicy,
    Finding,
    Looked,
    Policy,
    Reason,
    RoutePolicy,
    Status,
)
from agent.store.state import State


def main() -> None:
    state = State(Path(sys.argv[1]))
    state.keep_reserve()
    policy = Policy(
        checks={"web": CheckPolicy(name="web")},
        routes=(RoutePolicy(name="ops", reasons=tuple(Reason)),),
        group_wait=0.0,
    )
    host = state.load_host()
    now = 1000.0 + host.serial
    while True:
        findings = tuple(
            Finding(subject=f"s{host.serial}-{n}", status=Status.WARNING, summary="x" * 2000)
            for n in range(40)
        )
        now += 1
        look = Looked(check="web", began=now, ended=now, findings=findings)
        decision = decide(host, look, policy, now)
        state.save(host, decision)
        host = replace(decision.host, looked={})
        print(host.serial, flush=True)


main()
