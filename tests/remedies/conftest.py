"""A runtime directory, remedies to run in it, and the certainty that nothing is left of a run."""

from __future__ import annotations

import asyncio
import os
import signal
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.clock import Clock
from agent.remedies.catalog import Catalog
from agent.remedies.client import JobRequest, JobResult, Spare, prepare_runtime, run_job

#: Against hanging only; nothing here is meant to take so long.
PATIENCE = 60.0


def find_processes(needle: str) -> list[int]:
    """Live processes with that text in their environment or command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if needle.encode() in text and state not in "ZX":
            found.append(int(entry.name))
    return found


async def wait_until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"not within {PATIENCE} s: {what}"
        await asyncio.sleep(0.02)


@pytest.fixture
def until() -> Callable[[Callable[[], object], str], Awaitable[None]]:
    """Waits for a condition, so long as it takes within reason."""
    return wait_until


@dataclass
class Bench:
    """Writes remedies and runs them."""

    playbooks: Path
    runtime: Path
    events: list[Mapping[str, Any]] = field(default_factory=list)
    cancel: asyncio.Event = field(default_factory=asyncio.Event)
    count: int = 0
    on_event: Callable[[Mapping[str, Any]], None] | None = None

    def write(
        self,
        tasks: str,
        *,
        name: str = "mend",
        changes: str = "service",
        options: str = "{}",
        more: str = "",
    ) -> Path:
        """A remedy with these tasks, indented as a list of its own."""
        path = self.playbooks / name
        path.mkdir(parents=True)
        (path / "remedy.yml").write_text(
            f"summary: For a test\nrisk: low\nchanges: {changes}\ntimeout: 60s\n"
            f"options: {options}\n{more}"
        )
        body = textwrap.indent(textwrap.dedent(tasks).strip(), "    ")
        (path / "playbook.yml").write_text(
            f"- hosts: localhost\n  gather_facts: false\n  tasks:\n{body}\n"
        )
        for entry in (path, *path.rglob("*")):
            entry.chmod(0o755 if entry.is_dir() else 0o644)
        return path

    def request(self, name: str = "mend", **changed: Any) -> JobRequest:
        self.count += 1
        remedy = Catalog.load([self.playbooks]).get(name)
        values: dict[str, Any] = {
            "run_id": f"run-{self.count}",
            "remedy": name,
            "remedy_dirs": (self.playbooks,),
            "digest": remedy.digest,
            "options": {},
            "timeout": 60.0,
            "runtime_dir": self.runtime,
            "changes": remedy.changes,
        }
        return JobRequest(**{**values, **changed})

    async def run(
        self, request: JobRequest, *, spare: Spare | None = None, grace: float = 30.0
    ) -> JobResult:
        async with asyncio.timeout(PATIENCE):
            return await run_job(
                request,
                on_event=self.hear,
                cancel=self.cancel,
                clock=Clock(),
                spare=spare,
                grace=grace,
            )

    def hear(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)
        if self.on_event:
            self.on_event(event)

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        return [event for event in self.events if event["event"] == kind]

    @property
    def tasks(self) -> list[Mapping[str, Any]]:
        return self.of("task")

    def alive(self) -> list[int]:
        return find_processes(str(self.runtime))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    playbooks, runtime = tmp_path / "playbooks", tmp_path / "runtime"
    playbooks.mkdir(mode=0o755)
    prepare_runtime(runtime)
    made = Bench(playbooks, runtime)
    yield made
    left = made.alive()
    scratch = list((runtime / "scratch").iterdir())
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == [], "processes were left behind"
    assert scratch == [], "temporary files were left behind"


@pytest.fixture
def stubborn(tmp_path: Path) -> Iterator[tuple[str, Callable[[], list[int]]]]:
    """A command that ignores SIGTERM and SIGHUP in a session and an environment of its own.

    Its child does so too. With what finds them.
    """
    token = f"stubborn-{tmp_path.name}-{os.getpid()}"
    code = (
        "import os,signal,time;"
        "[signal.signal(n, signal.SIG_IGN) for n in (1,2,15)];"
        "os.fork() or os.setsid(); time.sleep(300)"
    )
    program = tmp_path / "stubborn.py"
    program.write_text(code)
    yield f"env -i /usr/bin/python3 {program} {token}", lambda: find_processes(token)
    for pid in find_processes(token):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def hidden(tmp_path: Path) -> Iterator[tuple[str, Callable[[], list[int]]]]:
    """A remedy that leaves a process alone in a session of its own, with nothing in its environment
    and its parents gone: only its control group tells whose it is. With what finds it."""
    token = f"hidden-{tmp_path.name}-{os.getpid()}"
    program = tmp_path / "hidden.py"
    program.write_text("import time; time.sleep(300)")
    hide = f"setsid --fork env -i /usr/bin/python3 {program} {token} >/dev/null 2>&1 </dev/null"
    tasks = f"""
        - {{name: Hide, ansible.builtin.command: {{argv: [sh, -c, "{hide}"]}}}}
        - {{name: Wait, ansible.builtin.wait_for: {{timeout: 50}}}}
    """
    yield tasks, lambda: find_processes(token)
    for pid in find_processes(token):
        os.kill(pid, signal.SIGKILL)
