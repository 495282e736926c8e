"""Milliseconds from a request to the first task's end and to the playbook's end, by variant.

`python bench/remedy_run.py [ROUNDS]`, with nothing else running: the variants take turns, and the
fastest and the middle round of each are shown, with the processor time of everything that a run
starts (the preparation of what waits included) and the memory that waits between runs.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.clock import Clock
from agent.core.model import Outcome
from agent.host.processes import find_descendants, read_processes
from agent.remedies.catalog import Catalog
from agent.remedies.client import JobRequest, Spare, pack_modules, prepare_runtime, run_job

REMEDY = "summary: One command\nrisk: low\nchanges: service\ntimeout: 60s\n{more}"
PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.command: {argv: ["true"]}
"""
#: Name -> (remedy, spare). A remedy that names an interpreter gets no light one.
VARIANTS = {
    "plain": ("plain", False),
    "light": ("light", False),
    "spare + plain": ("plain", True),
    "spare + light": ("light", True),
}


def measure_memory() -> tuple[float, list[float]]:
    """PSS of all descendants in MB, as /proc/PID/smaps_rollup says it: their sum and each."""
    each = []
    for process in find_descendants(os.getpid(), read_processes()):
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        each.append(
            sum(int(x.split()[1]) for x in text.splitlines() if x.startswith("Pss:")) / 1000
        )
    return sum(each), each


def measure_processor() -> float:
    """Seconds of all descendants that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def main(rounds: int) -> None:
    base = Path(tempfile.mkdtemp(dir="/dev/shm"))
    playbooks, runtime = base / "playbooks", base / "runtime"
    for name, more in (("plain", f"interpreter: {sys.executable}\n"), ("light", "")):
        (playbooks / name).mkdir(parents=True, mode=0o755)
        (playbooks / name / "remedy.yml").write_text(REMEDY.format(more=more))
        (playbooks / name / "playbook.yml").write_text(PLAYBOOK)
    prepare_runtime(runtime)
    await pack_modules(runtime)
    catalog = Catalog.load([playbooks])
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in VARIANTS}
    memory: dict[str, tuple[float, list[float]]] = {}
    for number in range(rounds):
        for variant, (name, spared) in VARIANTS.items():
            spare, processor = Spare(runtime), measure_processor()
            if spared:
                await spare.refill()
                await asyncio.sleep(2.5)
                memory[variant] = measure_memory()
            seen: dict[str, float] = {}

            def hear(event: Mapping[str, Any], seen: dict[str, float] = seen) -> None:
                seen.setdefault(event["event"], time.perf_counter())

            request = JobRequest(
                run_id=f"{variant.replace(' + ', '-')}-{number}",
                remedy=name,
                remedy_dirs=(playbooks,),
                digest=catalog.get(name).digest,
                options={},
                timeout=60.0,
                runtime_dir=runtime,
            )
            began = time.perf_counter()
            result = await run_job(
                request, on_event=hear, cancel=asyncio.Event(), clock=Clock(), spare=spare
            )
            assert result.outcome is Outcome.OK, result
            ended = time.perf_counter()
            await spare.close()
            taken = (seen["task"] - began, ended - began, measure_processor() - processor)
            times[variant].append(tuple(1000 * seconds for seconds in taken))
    shutil.rmtree(base)
    print(f"{'ms to':14} task min  median   end min  median   CPU min  median   waiting, MB PSS")
    for variant, rows in times.items():
        task, end, cpu = ([row[i] for row in rows] for i in (0, 1, 2))
        total, each = memory.get(variant, (0.0, []))
        print(
            f"{variant:14} {min(task):8.0f} {statistics.median(task):7.0f}"
            f" {min(end):9.0f} {statistics.median(end):7.0f}"
            f" {min(cpu):9.0f} {statistics.median(cpu):7.0f}   "
            + (f"{total:.0f} ({', '.join(f'{x:.0f}' for x in each)})" if each else "-")
        )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
