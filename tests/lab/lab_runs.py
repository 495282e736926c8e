"""Runs of shipped remedies in a lab host, as jobs without an agent."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from agent.lab import BIN, PYTHON, Lab

PLAYBOOK = f"{BIN}/ansible-playbook"
#: Gone with `rm -rf` once nobody runs anything there.
RUNTIME = "/run/hostmend-test"

#: Carries out one run and prints how it ended and what was heard. Every option counts as named by
#: the configuration.
_RUN = f"""
import asyncio, json, sys
from pathlib import Path
from agent.clock import Clock
from agent.remedies.catalog import SHIPPED, Catalog
from agent.remedies.client import JobRequest, Spare, prepare_runtime, run_job

name, options, number, preview, warm = json.loads(sys.argv[1])
runtime = Path("{RUNTIME}")


async def main():
    prepare_runtime(runtime)
    spare = Spare(runtime) if warm else None
    while spare and not list(runtime.glob("scratch/*/warm")):
        await spare.refill()
        await asyncio.sleep(0.05)
    remedy = Catalog.load([SHIPPED]).get(name)
    named = [v for o in options.values() for v in (o if isinstance(o, list) else [o])]
    events = []
    result = await run_job(
        JobRequest(
            run_id=number, remedy=remedy.name, remedy_dirs=(SHIPPED,), digest=remedy.digest,
            options=options, timeout=remedy.timeout, runtime_dir=runtime, preview=preview,
            configured=(*options.values(), *named),
        ),
        on_event=events.append, cancel=asyncio.Event(), clock=Clock(), spare=spare,
    )
    if spare:
        await spare.close()
    print(json.dumps([result.outcome, result.detail, events]))


asyncio.run(main())
"""

_numbers = count(1)


def mend(
    lab: Lab, remedy: str, *, preview: bool = False, warm: bool = False, **options: object
) -> tuple[str, str, list[dict[str, Any]]]:
    """Outcome, detail and events of one run."""
    given = json.dumps([remedy, options, f"run-{next(_numbers)}", preview, warm])
    done = lab.run([PYTHON, "-P", "-c", _RUN, given], timeout=300)
    outcome, detail, events = json.loads(done.stdout.splitlines()[-1])
    return outcome, detail, events


def find_playbooks(lab: Lab) -> str:
    """Where the shipped remedies lie in the host."""
    ask = "from agent.remedies.catalog import SHIPPED; print(SHIPPED)"
    return lab.run([PYTHON, "-P", "-c", ask]).stdout.strip()
