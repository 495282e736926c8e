"""The process of one audit: `python -P -m agent.audit.child`.

One line of JSON comes in on stdin (`client.write_order`), and rows go out on stdout, one a line:
`{"progress": {...}}` now and then, at last those of `result.write_audit`, or `{"error": "why"}`.
End-of-file on stdin means that nobody waits any more: the process ends at once.

Another process reads big pages, and loads this module as it starts: what takes time and memory is
imported by `main` alone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def main() -> None:
    """Carries out one order."""
    # Ctrl-C is for whoever ordered the audit.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0o077)
    line = sys.stdin.buffer.readline()
    threading.Thread(target=_watch_lifeline, daemon=True).start()
    from agent.audit.service import serve

    sys.exit(serve(line, sys.stdout.buffer))


def _watch_lifeline() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    # Whatever was started belongs to this process's group.
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
