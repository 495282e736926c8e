"""Ends the process that a file names by number and start: `end.py FILE`."""

import os
import signal
import sys
import time
from pathlib import Path

#: Seconds for the kernel to take it away.
PATIENCE = 30.0


def is_alive(pid: str, began: str) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[19] == began and fields[0] != "Z"


try:
    pid, began = Path(sys.argv[1]).read_text().split()
except (FileNotFoundError, ValueError):
    sys.exit(0)
until = time.monotonic() + PATIENCE
while is_alive(pid, began):
    if time.monotonic() > until:
        sys.exit(f"process {pid} does not end")
    try:
        os.kill(int(pid), signal.SIGKILL)
    except ProcessLookupError:
        break
    time.sleep(0.05)
