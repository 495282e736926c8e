"""The short-lived process that owns one run and everything it starts: the supervisor.

Started by `agent.remedies.process` as `python -P -m agent.remedies.job SCRATCH [GROUP]`, it waits
for one request on stdin, validates all of it again, has `agent.remedies.runner` carry it out, and
ends everything that was started when the run ends, in whatever way that happens. See `protocol`.

The runner is a fork, and so is ansible-playbook of the runner: what all of them need is imported
once, here, and its memory is shared. Each goes on with its own imports at the same time.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from agent.host.cgroups import join
from agent.host.processes import become_subreaper
from agent.remedies import events, lines
from agent.remedies.surroundings import make_scratch

#: Two of them are here for the runner and the supervisor, which both need them.
__all__ = ["RunnerProcess", "events", "lines", "main"]


@dataclass(frozen=True, kw_only=True)
class RunnerProcess:
    """The runner as the supervisor holds it."""

    pid: int
    #: Descriptor for the one line of work; its end tells the runner that the job is gone.
    work: int
    #: Descriptor that its events come from.
    events: int


def start_runner(scratch: Path) -> RunnerProcess:
    """Fork it. Raises OSError. Only before there is a second thread."""
    work_in, work_out = os.pipe()
    events_in, events_out = os.pipe()
    gc.freeze()
    pid = os.fork()
    if pid:
        os.close(work_in)
        os.close(events_out)
        return RunnerProcess(pid=pid, work=work_out, events=events_in)
    code = 1
    try:
        os.setsid()
        # Nothing of the agent's lines may stay open here: their end is a message.
        os.dup2(work_in, 0)
        os.dup2(events_out, 1)
        os.closerange(3, max(work_in, work_out, events_in, events_out) + 1)
        from agent.remedies.runner import main as run

        code = run(scratch)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> None:
    # Nothing of what is imported is ever garbage.
    gc.disable()
    os.umask(0o022)
    become_subreaper()
    scratch, group = Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None
    # Before anything is started.
    if group and not join(group):
        group = None
    make_scratch(scratch)
    runner = start_runner(scratch)
    # Only now: both processes get ready at the same time.
    from agent.remedies.supervisor import Supervisor

    gc.freeze()
    gc.enable()
    code = Supervisor(scratch, runner, group).run()
    # Nothing is left to tidy up, and the runner is reaped already.
    os._exit(code)


if __name__ == "__main__":
    main()
