"""A throw-away Debian host with systemd as PID 1, for tests and for authors of remedies.

`build` makes the host's tree once and keeps it in a cache; `Lab.boot` boots it with systemd-nspawn
on an overlay in memory, so that every host starts from the same state and nothing of it stays. Both
need root. What a host leaves behind when its owner is killed, the next boot sweeps away: all of it
carries the owner's process number and start time.

`python -m agent.lab --help` is the same for people. A leaf: it imports nothing but errors.
"""

from agent.lab.host import Lab, LabProcess
from agent.lab.machine import default_cache, missing_for_lab
from agent.lab.remains import sweep
from agent.lab.tree import VENV, build

#: Where a host has hostmend's programs, and its own Python.
BIN = f"/{VENV}/bin"
PYTHON = f"{BIN}/python"

__all__ = [
    "BIN",
    "PYTHON",
    "Lab",
    "LabProcess",
    "build",
    "default_cache",
    "missing_for_lab",
    "sweep",
]
