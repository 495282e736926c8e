"""Many checks on one host: how late looks begin, what they cost, and whether memory stays flat.

    python bench/scale.py [--checks 2000] [--minutes 10] [--every 10]

On a lab host (docs/lab.md, needs root) with an agent, nginx and idle services: a mix of check
types, each looked at every so many seconds. Printed are the processor time of a look by its kind,
taken in a process of its own; then, of the agent: the lateness of its looks, its share of a core
with all its children, and its memory (PSS, proc_pid_smaps_rollup(5)) through the run. Beside it,
in the same run and by the same means: the least that one request to nginx costs a Python program.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "lab")]

from footprint import count_processes  # noqa: E402
from lab_agent import LabAgent  # noqa: E402

from agent.checks import CHECKS  # noqa: E402
from agent.lab import PYTHON, Lab  # noqa: E402

UNITS = 200

#: Each kind of probe: its share of the mix, and the options of its nth check.
KINDS: Mapping[str, tuple[int, Callable[[int], str]]] = {
    "service": (25, lambda n: f"unit: idle@{n % UNITS}.service"),
    "http": (20, lambda n: f'url: "http://127.0.0.1/?{n}"'),
    "tcp": (15, lambda _n: "host: 127.0.0.1, port: 80"),
    "process": (10, lambda _n: "name: nginx"),
    "file": (10, lambda _n: "path: /etc/passwd"),
    "log": (10, lambda n: f'path: /var/log/idle/{n % 50}.log, critical: {{error: "ERROR"}}'),
    "disk": (5, lambda _n: "path: /"),
    "memory": (2, lambda _n: ""),
    "cpu": (2, lambda _n: ""),
    "plugin": (1, lambda _n: "command: [/bin/true]"),
}

#: Runs inside the host: processor milliseconds for one look of each kind.
COST = """
import asyncio, json, resource, sys, time
from agent.checks import CHECKS
from agent.clock import Clock
from agent.host.machine import open_machine

def spent():
    return sum(
        u.ru_utime + u.ru_stime
        for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))

async def least():
    reader, writer = await asyncio.open_connection('127.0.0.1', 80)
    writer.write(b'GET / HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nConnection: close\\r\\n\\r\\n')
    await reader.read()
    writer.close()
    await writer.wait_closed()

async def main():
    machine = await open_machine(Clock())
    async def look(name, options):
        findings = await CHECKS[name].look(options, machine)
        bad = [f.summary for f in findings if f.status != 'ok']
        assert not bad, (name, bad)
    for name, written in json.loads(sys.argv[1]).items():
        options = CHECKS[name].model.model_validate({'type': name, 'timeout': '5s', **written})
        await look(name, options)
        count, before = 0, spent()
        until = time.monotonic() + 3
        while time.monotonic() < until and count < 500:
            await look(name, options)
            count += 1
        print(name, 1000 * (spent() - before) / count)
    count, before = 0, spent()
    while count < 500:
        await least()
        count += 1
    print('least', 1000 * (spent() - before) / count)
    await machine.close()

asyncio.run(main())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checks", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=10.0)
    given = parser.parse_args()
    kinds = {name: kind for name, kind in KINDS.items() if name in CHECKS}
    with Lab.boot(size="3G") as lab:
        lab.write("/etc/systemd/system/idle@.service", "[Service]\nExecStart=/bin/sleep infinity\n")
        lab.run(["mkdir", "-p", "/var/log/idle"])
        lab.run(["sh", "-c", "for n in $(seq 0 49); do echo begin > /var/log/idle/$n.log; done"])
        lab.run(["systemctl", "start", "nginx", *(f"idle@{n}" for n in range(UNITS))])
        print_costs(lab, kinds)
        agent = LabAgent(lab)
        agent.install(make_configuration(kinds, given.checks, given.every))
        agent.start()
        watch(lab, agent, given.minutes, given.every)


def make_configuration(
    kinds: Mapping[str, tuple[int, Callable[[int], str]]], checks: int, every: float
) -> str:
    whole = sum(share for share, _ in kinds.values())
    rows = [
        f"  {name}-{n}: {{type: {name}, every: {every:g}s, ladder: [], {options(n)}}}"
        for name, (share, options) in kinds.items()
        for n in range(round(checks * share / whole))
    ]
    print(f"\n{len(rows)} checks every {every:g} s")
    return "\n".join(["version: 1", "checks:", *rows, ""]).replace(", }", "}")


def print_costs(lab: Lab, kinds: Mapping[str, tuple[int, Callable[[int], str]]]) -> None:
    from agent.documents import parse_document

    written = {}
    for name, (_, options) in kinds.items():
        node = parse_document(f"{{{options(0)}}}", "options")
        written[name] = node.plain() if node else {}
    done = lab.run([PYTHON, "-c", COST, json.dumps(written)], timeout=120)
    rows = dict(line.split() for line in done.stdout.splitlines())
    least = float(rows.pop("least"))
    print("processor time of one look")
    for name, cost in rows.items():
        print(f"  {name:<10} {float(cost):>7.2f} ms   {float(cost) / least:>6.1f} x")
    print(f"  {'least':<10} {least:>7.2f} ms      1.0 x   (one request by a Python program)")


def watch(lab: Lab, agent: LabAgent, minutes: float, every: float) -> None:
    time.sleep(3 * every)
    begun = time.monotonic()
    before = count_processes(lab)
    memory = [sum(pss for _, pss, _ in before)]
    while (passed := time.monotonic() - begun) < 60 * minutes:
        time.sleep(min(30.0, 60 * minutes - passed + 0.1))
        after = count_processes(lab)
        memory.append(sum(pss for _, pss, _ in after))
        late = agent.get("status")["lateness"]
        shown = {name: f"{1000 * late[f'{name}_seconds']:.0f}" for name in ("median", "p99")}
        print(
            f"  {time.monotonic() - begun:>5.0f} s   late: median {shown['median']} ms, "
            f"p99 {shown['p99']} ms   memory {memory[-1] / 1e6:.1f} MB",
            flush=True,
        )
    seconds = time.monotonic() - begun
    spent = sum(cpu for _, _, cpu in after) - sum(cpu for _, _, cpu in before)
    status = agent.get("status")
    late = status["lateness"]
    print(f"lateness    p99 {1000 * late['p99_seconds']:.0f} ms of {late['count']} looks")
    print(f"processor   {100 * spent / seconds:.1f} % of a core")
    print(f"memory      {memory[0] / 1e6:.1f} MB PSS, then {memory[-1] / 1e6:.1f} MB")
    print(f"checks      {status['checks_count']}")


if __name__ == "__main__":
    main()
