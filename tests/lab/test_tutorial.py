"""docs/writing-remedies.md, executed: its files are written, its commands carried out in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab_agent import PATIENCE, LabAgent
from lab_runs import PLAYBOOK

from agent.lab import Lab

PAGE = Path(__file__).parents[2] / "docs" / "writing-remedies.md"
_BLOCK = re.compile(
    r"^`(?P<file>[\w./-]+)`:\n\n```yaml\n(?P<text>.*?)^```$|^```console\n(?P<orders>.*?)^```$",
    flags=re.MULTILINE | re.DOTALL,
)
REMEDY = "clear-stale-lock"


@dataclass(frozen=True, kw_only=True)
class Write:
    """A file, with a name of the author's directory or one of the host."""

    file: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Order:
    """A command after `$` or `#`, and what must be in its output."""

    prompt: str
    command: str
    shown: tuple[str, ...]


def read_steps(page: str) -> Iterator[Write | Order]:
    for block in _BLOCK.finditer(page):
        if block["file"]:
            yield Write(file=block["file"], text=block["text"])
            continue
        for order in re.split(r"^(?=[$#] )", block["orders"], flags=re.MULTILINE)[1:]:
            command, *shown = order.strip().splitlines()
            yield Order(prompt=command[0], command=command[2:], shown=tuple(shown))


def carry_out(order: Order, run: Callable[[], subprocess.CompletedProcess[str]]) -> None:
    """Once; but what shows something that only comes to be is asked until it does."""
    until = time.monotonic() + PATIENCE
    while True:
        done = run()
        said = " ".join((done.stdout + done.stderr).split())
        missing = [line for line in order.shown if line not in said]
        if done.returncode == 0 and not missing:
            return
        asks = order.command.startswith(("hostmend runs", "systemctl is-active"))
        if not asks or time.monotonic() > until:
            said = f"{done.stdout}{done.stderr}"
            pytest.fail(f"{order.command}: {done.returncode}, without {missing}:\n{said}")
        time.sleep(0.5)


@pytest.mark.long
def test_the_tutorial_leads_from_a_failure_to_a_remedy_in_use(lab: Lab, tmp_path: Path) -> None:
    steps = list(read_steps(PAGE.read_text()))
    at_host = next(n for n, s in enumerate(steps) if isinstance(s, Order) and s.prompt == "#")
    (tmp_path / "bin").mkdir()
    hostmend = tmp_path / "bin" / "hostmend"
    hostmend.write_text(f'#!/bin/sh\nexec {sys.executable} -m api.cli "$@"\n')
    hostmend.chmod(0o755)
    path = f"{hostmend.parent}:{os.environ['PATH']}"

    def on_machine(order: Order) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", order.command],
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(PAGE.parents[1])},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    for step in steps[:at_host]:
        if isinstance(step, Write):
            (tmp_path / step.file).write_text(step.text)
        else:
            carry_out(step, lambda step=step: on_machine(step))

    # The host of the page: it has the shop, and an agent that knows nothing of it.
    lab.copy_in(tmp_path / REMEDY, f"/root/{REMEDY}")
    lab.run([PLAYBOOK, "-i", "localhost,", f"/root/{REMEDY}/test/prepare.yml"], timeout=300)
    agent = LabAgent(lab)
    agent.install("version: 1\n")
    agent.start()

    def on_host(order: Order) -> subprocess.CompletedProcess[str]:
        return lab.run(["sh", "-c", f"cd /root && {order.command}"], check=False, timeout=300)

    for step in steps[at_host:]:
        if isinstance(step, Write):
            lab.write(step.file, step.text, 0o600)
        else:
            carry_out(step, lambda step=step: on_host(step))
    assert lab.run(["test", "-s", "/var/lib/shop/worker.lock"], check=False).returncode == 0


def test_every_file_and_command_of_the_tutorial_is_executed() -> None:
    """What is written in another way would be left out in silence."""
    page = PAGE.read_text()
    steps = list(read_steps(page))
    assert len([s for s in steps if isinstance(s, Write)]) == page.count("```yaml\n")
    assert len([s for s in steps if isinstance(s, Order)]) == len(
        re.findall(r"^[$#] ", "".join(re.findall(r"```console\n(.*?)```", page, re.DOTALL)), re.M)
    )
