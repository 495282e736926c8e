"""Runs one playbook through ansible-runner: a process of its own, forked by a job.

The only module that imports ansible_runner. It forks the process that ansible-playbook will be
(`warm_playbook`) before it has anything to do, so that Ansible is imported meanwhile. It takes one
line of work from the job on stdin and writes events to stdout. The end of stdin means that the job
is gone: then it ends everything it started and itself, unless the remedy changes data, which it
brings to its end.
"""

from __future__ import annotations

import gc
import json
import os
import shlex
import shutil
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible_runner import Runner, RunnerConfig

from agent.core.model import Changes, Outcome
from agent.host.processes import become_subreaper, end_own_descendants
from agent.remedies.events import EventReader
from agent.remedies.protocol import judge, now, shelf_of, write_line, write_whole
from agent.remedies.surroundings import WARM_CLIENT, make_ansible_environment

#: Seconds between ansible-runner's looks at its child while that says nothing. Its default of 5
#: would be the delay of every end.
_POLL = 0.1
_IDENT = "run"


class Work:
    """One run, as the job hands it over: a line of JSON, made and validated by the job."""

    def __init__(self, scratch: Path, given: Mapping[str, Any]) -> None:
        self.private = scratch / "private"
        self.artifacts = self.private / "artifacts" / _IDENT
        self.scratch = scratch
        self.playbook = str(given["playbook"])
        self.variables: Mapping[str, object] = given["variables"]
        self.preview = bool(given["preview"])
        self.interpreter = str(given["interpreter"])
        self.collections: list[str] = given["collections"]
        self.vault = str(given["vault"])
        #: No process that was made ready before may carry it out.
        self.fresh = bool(given["fresh"])
        self.changes = Changes(given["changes"])
        self.result = Path(given["result"])
        self.run_id = str(given["run_id"])
        self.unchecked = frozenset((str(file), int(line)) for file, line in given["unchecked"])
        self.secrets: tuple[str, ...] = tuple(given["secrets"])

    def prepare(self) -> RunnerConfig:
        """Write ansible-runner's private directory, which is fresh for each run."""
        settings = {
            "pexpect_timeout": _POLL,
            "suppress_output_file": True,
            "suppress_ansible_output": True,
        }
        host = {
            "ansible_connection": "local",
            "ansible_python_interpreter": self.interpreter,
        }
        inventory = {"all": {"hosts": {"localhost": host}}}
        # Files, not arguments: an argument is for everybody to see in the list of processes.
        for name, value in (
            ("env/settings", settings),
            ("env/extravars", self.variables),
            ("inventory/hosts.json", inventory),
        ):
            path = self.private / name
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.write_text(json.dumps(value))
            path.chmod(0o600)
        arguments = ["-P", "-m", "ansible.cli.playbook", self.playbook]
        if not self.fresh:
            arguments = ["-I", "-S", str(WARM_CLIENT), str(_warm_socket(self.scratch))]
            arguments.append(self.playbook)
        if self.preview:
            arguments += ["--check", "--diff"]
        config = RunnerConfig(
            private_data_dir=str(self.private),
            ident=_IDENT,
            quiet=True,
            inventory=str(self.private / "inventory" / "hosts.json"),
            envvars=make_ansible_environment(self.scratch, self.collections, self.vault),
            # Named in full, so that no PATH decides what runs.
            binary=sys.executable,
            cmdline=shlex.join(arguments),
        )
        config.prepare()
        return config


def start_playbook(scratch: Path) -> int:
    """Fork the process that the playbook finds ready, with that playbook's environment: its pid."""
    private = scratch / "private"
    config = RunnerConfig(
        private_data_dir=str(private),
        ident=_IDENT,
        quiet=True,
        envvars=make_ansible_environment(scratch),
        binary=sys.executable,
    )
    config.prepare()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    place = _warm_socket(scratch)
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # By descriptor: a path of its own may be longer than the 107 bytes of unix(7).
        listener.bind(f"/proc/self/fd/{folder}/{place.name}")
    finally:
        os.close(folder)
    listener.listen(1)
    gc.freeze()
    pid = os.fork()
    if pid:
        listener.close()
        return pid
    code = 1
    try:
        from agent.remedies.warm_playbook import serve

        code = serve(listener, config.env, private, shelf_of(scratch.parent.parent))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _warm_socket(scratch: Path) -> Path:
    return scratch / "warm"


class _Agreement:
    """The line to the job, and whether there is still a job."""

    def __init__(self) -> None:
        # Whatever prints to stdout or reads stdin must not touch the protocol.
        self._in, self._out = os.dup(0), os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        self.alone = False

    def read_work(self) -> Mapping[str, Any] | None:
        """The job's one line, or None: the job ended before it had any."""
        text = b""
        while not text.endswith(b"\n"):
            part = os.read(self._in, 65_536)
            if not part:
                return None
            text += part
        work: Mapping[str, Any] = json.loads(text)
        return work

    def watch(self, work: Work) -> None:
        """Wait for the job's end, in a thread."""
        with suppress(OSError):
            while os.read(self._in, 4_096):
                pass
        self.alone = True
        if work.changes is not Changes.DATA:
            end_own_descendants()
            shutil.rmtree(work.scratch, ignore_errors=True)
            os._exit(1)

    def emit(self, event: Mapping[str, object]) -> None:
        line = memoryview(write_line(event))
        try:
            while line:
                line = line[os.write(self._out, line) :]
        except BrokenPipeError:
            self.alone = True


def run_work(work: Work, reader: EventReader) -> dict[str, object]:
    """Run the playbook. Returns the `ended` event, as far as this process can know it."""

    def forget_command(_status: Mapping[str, Any], **_: object) -> None:
        # It holds the whole environment.
        with suppress(OSError):
            (work.artifacts / "command").unlink(missing_ok=True)

    try:
        runner = Runner(
            work.prepare(),
            event_handler=reader.handle,
            status_handler=forget_command,
            # Without one, ansible-runner would take over the signal handlers.
            cancel_callback=lambda: False,
            # The reader takes them: their presence is what makes an event genuine.
            remove_partials=False,
        )
        _status, rc = runner.run()
    except Exception as error:
        outcome, detail = Outcome.FAILED, f"ansible-runner could not go on: {error!r}"
        if reader.needs_human:
            outcome, detail = Outcome.NEEDS_HUMAN, reader.needs_human
    else:
        outcome, detail = judge(
            rc=rc,
            stats=reader.stats,
            needs_human=reader.needs_human,
            failure=reader.failure,
            preview=work.preview,
            did=reader.did,
        )
    return {
        "event": "ended",
        "run_id": work.run_id,
        "outcome": outcome.value,
        "detail": detail,
        "stats": reader.stats,
        "stats_at": reader.stats_at,
    }


def main(scratch: Path) -> int:
    """Returns the exit code. Descriptors 0 and 1 are the lines from and to the job."""
    Path("/proc/self/comm").write_text("hostmend-run")
    become_subreaper()
    os.environ.pop("PYTHONPATH", None)
    playbook = start_playbook(scratch)
    gc.enable()
    agreement = _Agreement()
    given = agreement.read_work()
    if given is None:
        end_own_descendants()
        return 0
    work = Work(scratch, given)
    if work.fresh:
        os.kill(playbook, signal.SIGKILL)
        os.waitpid(playbook, 0)
    threading.Thread(target=agreement.watch, args=(work,), daemon=True).start()
    reader = EventReader(
        agreement.emit,
        folder=work.artifacts / "job_events",
        unchecked=work.unchecked,
        secrets=work.secrets,
    )
    ended = run_work(work, reader)
    agreement.emit(ended)
    if agreement.alone:
        # The job cannot say it any more: whoever attaches to the run reads it there.
        left = end_own_descendants()
        write_whole(work.result, {**ended, "ended_at": now(), "left": len(left)})
        shutil.rmtree(work.scratch, ignore_errors=True)
    return 0
