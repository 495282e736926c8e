"""What hostmend costs while nothing happens: memory and processor of everything that runs.

    python bench/footprint.py [--checks 50] [--seconds 60] [--warm]

On a lab host (docs/lab.md, needs root): an agent with so many service checks, looked at every 10 s.
Memory is PSS (proc_pid_smaps_rollup(5)), in which shared pages count in parts; processor time is
that of the agent and all its children, as a share of one core. Beside it, in the same minute on the
same host: a bare Python interpreter, whose memory nothing written in Python can be below, and the
barest watcher that could be written, which asks systemd for the state of each unit every 10 s, one
after another, and does nothing with the answers. A processor that rests most of the time runs from
cold caches, in a virtual machine twice as slow in one minute as in another: the ratio to the bare
watcher is what can be compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "lab")]

from lab_agent import LabAgent  # noqa: E402

from agent.lab import PYTHON, Lab  # noqa: E402

#: Runs inside the host: PSS in bytes and processor time in seconds of some processes.
COUNT = """
import json, os, subprocess, sys
def pss(pid):
    for line in open(f'/proc/{pid}/smaps_rollup'):
        if line.startswith('Pss:'):
            return int(line.split()[1]) * 1024
def cpu(pid):
    words = open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()
    return sum(map(int, words[11:15])) / os.sysconf('SC_CLK_TCK')
def name(pid):
    return open(f'/proc/{pid}/cmdline').read().replace(chr(0), ' ').strip()
def tree(pid):
    yield pid
    for child in open(f'/proc/{pid}/task/{pid}/children').read().split():
        yield from tree(int(child))
main = int(subprocess.check_output(
    ['systemctl', 'show', '-p', 'MainPID', '--value', sys.argv[1]], text=True))
print(json.dumps([[name(p), pss(p), cpu(p)] for p in tree(main)]))
"""

#: The barest watcher: one call each 10 s for each unit, each unit in its own time.
WATCHER = """
import asyncio, sys
from dbus_fast import BusType, Message
from dbus_fast.aio import MessageBus
async def ask(bus, unit):
    reply = await bus.call(Message(
        destination='org.freedesktop.systemd1', path='/org/freedesktop/systemd1',
        interface='org.freedesktop.systemd1.Manager', member='ListUnitsByNames',
        signature='as', body=[[unit]]))
    assert reply.body[0][0][3] == 'active', reply.body
async def keep_asking(bus, unit, first):
    await asyncio.sleep(first)
    while True:
        await ask(bus, unit)
        await asyncio.sleep(10)
async def main(units):
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    await asyncio.gather(
        *(keep_asking(bus, unit, 10 * n / len(units)) for n, unit in enumerate(units)))
asyncio.run(main(sys.argv[1:]))
"""

BARE = """
import subprocess, sys
child = subprocess.Popen(
    [sys.argv[1], '-c', 'print(1, flush=True); input()'],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
for line in open(f'/proc/{child.pid}/smaps_rollup'):
    if line.startswith('Pss:'):
        print(int(line.split()[1]) * 1024)
child.stdin.close()
child.wait()
"""


def count_processes(lab: Lab, unit: str = "hostmend") -> list[tuple[str, int, float]]:
    """Each process of a unit: its command, its memory (PSS) in bytes, its seconds of processor."""
    return [tuple(row) for row in json.loads(lab.run(["python3", "-c", COUNT, unit]).stdout)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checks", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--warm", action="store_true")
    given = parser.parse_args()
    with Lab.boot() as lab:
        agent = LabAgent(lab)
        lab.write("/etc/systemd/system/idle@.service", "[Service]\nExecStart=/bin/sleep infinity\n")
        checks = "".join(
            f"  idle-{n}: {{type: service, unit: idle@{n}.service, every: 10s}}\n"
            for n in range(given.checks)
        )
        agent.install(f"version: 1\npolicy: {{warm: {str(given.warm).lower()}}}\nchecks:\n{checks}")
        units = [f"idle@{n}.service" for n in range(given.checks)]
        lab.run(["systemctl", "start", *units])
        agent.start()
        lab.run(["systemd-run", "-q", "-u", "bare", PYTHON, "-c", WATCHER, *units])
        lab.run(["sleep", "15"])
        before = {unit: count_processes(lab, unit) for unit in ("hostmend", "bare")}
        lab.run(["sleep", str(given.seconds)], timeout=given.seconds + 30)
        after = {unit: count_processes(lab, unit) for unit in ("hostmend", "bare")}
        bare = int(lab.run(["python3", "-c", BARE, PYTHON]).stdout)
    memory = sum(pss for _, pss, _ in after["hostmend"])
    spent, peer = (
        sum(cpu for _, _, cpu in after[unit]) - sum(cpu for _, _, cpu in before[unit])
        for unit in ("hostmend", "bare")
    )
    warm = ", warm" if given.warm else ""
    print(f"idle with {given.checks} checks every 10 s{warm}, over {given.seconds} s")
    for name, pss, _ in after["hostmend"]:
        print(f"  {pss / 1e6:>7.1f} MB PSS  {name}")
    print(f"memory of everything   {memory / 1e6:.1f} MB PSS ({memory / bare:.1f} x a bare Python)")
    print(
        f"processor              {100 * spent / given.seconds:.2f} % of a core "
        f"({spent / peer:.2f} x the barest watcher's {100 * peer / given.seconds:.2f} %)"
    )


if __name__ == "__main__":
    main()
