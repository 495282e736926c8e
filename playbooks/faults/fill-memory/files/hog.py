"""Takes memory and holds it: `hog.py WHO-FILE LEAVE-PERCENT AT-MOST-BYTES [UNIT]`.

Says that it is ready (sd_notify(3)) once it has what it wanted, and ends by itself after two hours.
"""

import mmap
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

STEP = 4 << 20
LONGEST = 7200.0


def main(who: str, leave: float, at_most: int, unit: str) -> None:
    # When it began too: the number alone may be another's later (proc_pid_stat(5), field 22).
    began = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    Path(who).write_text(f"{os.getpid()} {began}")
    if unit:
        join(unit)
    figures = read_figures()
    floor = max(figures["MemTotal"] * leave / 100, 32 << 20)
    held = []
    taken = 0
    ready = False
    until = time.monotonic() + LONGEST
    while time.monotonic() < until:
        room = read_figures()["MemAvailable"] - floor
        if room > STEP and not (at_most and taken + STEP > at_most):
            part = mmap.mmap(-1, STEP)
            for place in range(0, STEP, mmap.PAGESIZE):
                part[place] = 1
            held.append(part)
            taken += STEP
            continue
        if not ready:
            notify()
            ready = True
        time.sleep(0.5)


def read_figures() -> dict[str, int]:
    lines = Path("/proc/meminfo").read_text().splitlines()
    parts = (line.replace(":", "").split() for line in lines)
    return {words[0]: int(words[1]) * 1024 for words in parts}


def join(unit: str) -> None:
    """Into the control group of a service, in every hierarchy that has it."""
    asked = ["systemctl", "show", "--property=ControlGroup", "--value", "--", unit]
    group = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    if not group.strip("/"):
        sys.exit(f"{unit} does not run")
    root = Path("/sys/fs/cgroup")
    joined = False
    for place in (root, *(entry for entry in root.iterdir() if entry.is_dir())):
        tasks = place / group.strip("/") / "cgroup.procs"
        if tasks.exists():
            tasks.write_text(str(os.getpid()))
            joined = True
    if not joined:
        sys.exit(f"there is no control group of {unit}")


def notify() -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            line.send(b"READY=1")


main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), "".join(sys.argv[4:5]))
