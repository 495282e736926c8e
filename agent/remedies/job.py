"""The short-lived process that owns one run and everything it starts: the supervisor.

Started by `agent.remedies.process` as `python -P -m agent.remedies.job SCRATCH [warm]`, it waits
for one request on stdin, validates all of it again, has `agent.remedies.runner` carry it out, and
ends everything that was started when the run ends, in whatever way that happens. See `protocol`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from agent.host.processes import become_subreaper
from agent.remedies.surroundings import make_scratch


def main() -> None:
    os.umask(0o022)
    become_subreaper()
    scratch = Path(sys.argv[1])
    make_scratch(scratch)
    runner = subprocess.Popen(
        [sys.executable, "-P", "-m", "agent.remedies.runner", *sys.argv[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    # Only now: both processes get ready at the same time.
    from agent.remedies.supervisor import Supervisor

    code = Supervisor(scratch, runner).run()
    # Nothing is left to tidy up, and the runner is reaped already.
    os._exit(code)


if __name__ == "__main__":
    main()
