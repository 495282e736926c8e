"""How soon what happens is looked at: each trigger beside a bare program that waits for the same.

    python bench/triggers.py [--rounds 20]

On a lab host (docs/lab.md, needs root) with an agent whose timers are an hour apart, so that only a
trigger can lead to a look. Each round makes one thing happen. What counts is the time from then to
the beginning of the look; beside it, in the same rounds, the time until a program that does nothing
else tells of it: `busctl monitor` for a unit that died, `tail -F` for a line in a file,
`journalctl -f` for one in the journal, poll(2) on a pidfd for a process that ended. Stalls (PSI)
are made on this machine itself, for want of its processors, beside a bare poll(2) of that file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import select
import statistics
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "lab")]

from lab_agent import LabAgent  # noqa: E402

from agent.clock import Clock  # noqa: E402
from agent.host.machine import Machine  # noqa: E402
from agent.host.stalls import _ALARM  # noqa: E402
from agent.lab import Lab  # noqa: E402
from agent.triggers.psi import PsiTrigger  # noqa: E402

PATH = "/proc/pressure/cpu"

CONFIGURATION = """\
version: 1
policy: {mode: "off"}
checks:
  unit: {type: service, unit: victim.service, every: 1h}
  lines: {type: log, path: /run/victim.log, critical: {error: "ERROR"}, every: 1h}
  entries: {type: journal, identifier: victim, critical: {error: "ERROR"}, every: 1h}
  process: {type: process, command: "sleep 3599", every: 1h}
"""

#: Runs inside the host; prints a JSON object: trigger -> [[seconds to the look, to the peer], ...].
MEASURE = r"""
import datetime, http.client, json, os, select, signal, socket, subprocess, sys, threading, time

class Agent(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect('/run/hostmend/hostmend.sock')

def ask(method, path):
    agent = Agent('agent')
    agent.request(method, f'/v1/checks/{path}')
    said = json.load(agent.getresponse())
    agent.close()
    return said

def looked(check):
    said = ask('GET', check)['looked']
    return 0.0 if said is None else datetime.datetime.fromisoformat(said).timestamp()

def look(check, since):
    # What the API tells is in whole milliseconds.
    until = time.time() + 60
    while time.time() < until:
        at = looked(check)
        if at >= since - 0.001:
            return max(0.0, at - since)
        time.sleep(0.05)
    sys.exit(f'{check} was not looked at within 60 s')

class Peer:
    # Tells when its program first prints a line with the words.
    def __init__(self, words, *argv):
        self.words, self.seen, self.came = words, 0.0, threading.Event()
        self.program = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        threading.Thread(target=self.read, daemon=True).start()
        time.sleep(1)
    def read(self):
        for line in self.program.stdout:
            if self.words in line:
                self.seen = time.time()
                self.came.set()
                return
    def end(self, since):
        if not self.came.wait(60):
            sys.exit(f'{self.program.args[0]} told of nothing within 60 s')
        self.program.kill()
        self.program.wait()
        return self.seen - since

def systemd():
    subprocess.run(['systemctl', 'start', 'victim'], check=True)
    time.sleep(1)
    path = '/org/freedesktop/systemd1/unit/victim_2eservice'
    match = f"type='signal',path='{path}'"
    peer = Peer(b'ActiveState', 'stdbuf', '-oL', 'busctl', 'monitor', '--match', match)
    pid = int(subprocess.check_output(['systemctl', 'show', '-p', 'MainPID', '--value', 'victim']))
    since = time.time()
    os.kill(pid, signal.SIGKILL)
    return look('unit', since), peer.end(since)

def inotify():
    peer = Peer(b'ERROR', 'tail', '-n0', '-F', '/run/victim.log')
    with open('/run/victim.log', 'a') as file:
        since = time.time()
        file.write('ERROR\n')
    return look('lines', since), peer.end(since)

def journal():
    peer = Peer(b'ERROR', 'journalctl', '-f', '-n0', '-t', 'victim')
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.connect('/dev/log')
    # A look is led to at most every five seconds.
    time.sleep(6)
    since = time.time()
    log.send(b'<11>victim: ERROR')
    return look('entries', since), peer.end(since)

def pidfd():
    victim = subprocess.Popen(['sleep', '3599'])
    # It must be looked at once to be known.
    ask('POST', 'process/look')
    seen, poll = [], select.poll()
    poll.register(os.pidfd_open(victim.pid), select.POLLIN)
    def wait():
        poll.poll()
        seen.append(time.time())
    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(1)
    since = time.time()
    victim.kill()
    thread.join(60)
    victim.wait()
    return look('process', since), seen[0] - since

kinds = systemd, inotify, journal, pidfd
found = {kind.__name__: [] for kind in kinds}
for _ in range(int(sys.argv[1])):
    for kind in kinds:
        found[kind.__name__].append(kind())
print(json.dumps(found))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    with Lab.boot() as lab:
        agent = LabAgent(lab)
        lab.write(
            "/etc/systemd/system/victim.service", "[Service]\nExecStart=/bin/sleep infinity\n"
        )
        lab.write("/run/victim.log", "")
        agent.install(CONFIGURATION)
        lab.run(["systemctl", "start", "victim"])
        agent.start()
        measured = lab.run(["python3", "-c", MEASURE, str(rounds)], timeout=60.0 * rounds + 60)
    found: dict[str, list[tuple[float, float]]] = json.loads(measured.stdout)
    found["psi"] = [asyncio.run(stall()) for _ in range(rounds)]
    print(f"from what happens to the look, {rounds} rounds, milliseconds")
    print(f"  {'':10}{'median':>8}{'longest':>9}{'bare, median':>14}{'longest':>9}")
    for name, pairs in found.items():
        looks, peers = zip(*pairs, strict=True)
        row = (statistics.median(looks), max(looks), statistics.median(peers), max(peers))
        ms = [f"{1000 * seconds:.0f}" for seconds in row]
        print(f"  {name:10}{ms[0]:>8}{ms[1]:>9}{ms[2]:>14}{ms[3]:>9}")


async def stall() -> tuple[float, float]:
    """Seconds until the trigger, and until a bare poll, tell of a stall for want of processors."""
    # The kernel tells of one trigger at most once in two seconds.
    await asyncio.sleep(3)
    looked, told = asyncio.Event(), []
    trigger = PsiTrigger(Machine(clock=Clock()), lambda _name: looked.set())
    bare = threading.Thread(target=lambda: told.append(wait_for_stall()))
    bare.start()
    await trigger.watch({"cpu": frozenset({"busy"})})
    burn = "import time; end = time.monotonic() + 20\nwhile time.monotonic() < end: pass"
    burners = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", burn)
        for _ in range(2 * (os.cpu_count() or 1))
    ]
    began = time.monotonic()
    try:
        async with asyncio.timeout(20):
            await looked.wait()
        seen = time.monotonic()
        await asyncio.to_thread(bare.join)
    finally:
        trigger.close()
        for burner in burners:
            burner.kill()
        for burner in burners:
            await burner.wait()
    return seen - began, told[0] - began


def wait_for_stall() -> float:
    """CLOCK_MONOTONIC in seconds when the kernel told of a stall; after 30 s in any case."""
    file = os.open(PATH, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(file, _ALARM)
        poll = select.poll()
        poll.register(file, select.POLLPRI)
        poll.poll(30_000)
        return time.monotonic()
    finally:
        os.close(file)


if __name__ == "__main__":
    main()
