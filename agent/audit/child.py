"""The process of one audit: `python -P -m agent.audit.child`.

One line of JSON comes in on stdin (`client.write_order`), and rows go out on stdout, one a line:
`{"progress": {...}}` now and then, at last those of `result.write_audit`, or `{"error": "why"}`.
End-of-file on stdin means that nobody waits any more: the process ends at once.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading


def main() -> None:
    """Carries out one order."""
    # Ctrl-C is for whoever ordered the audit.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0o077)
    # Nearly all that is imported and that a crawl makes stays: looking for cycles in it again and
    # again finds none.
    gc.disable()
    from agent.audit.service import serve

    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    gc.enable()
    line = sys.stdin.buffer.readline()
    threading.Thread(target=_watch_lifeline, daemon=True).start()
    code = serve(line, sys.stdout.buffer)
    # All is said: a page that is still being read is waited for by nobody.
    os._exit(code)


def _watch_lifeline() -> None:
    # Not through sys.stdin, whose lock this thread would hold to the end.
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
