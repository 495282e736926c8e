"""One check of a lab host, looked at from within again and again, as the agent does it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from agent.lab import PYTHON, Lab

#: Looks at a check for each line that it reads, and prints what it found.
LOOKER = """
import asyncio, dataclasses, json, sys
from pathlib import Path
from agent.clock import Clock
from agent.config import load_config
from agent.host.machine import open_machine
from agent.host.memory import Memories
from agent.remedies.catalog import SHIPPED, Catalog

options = json.loads(sys.argv[1])
path = Path(f"/run/looker-{options['type']}.json")
path.write_text(json.dumps({"version": 1, "checks": {"check": options}}))


async def main():
    check = load_config(path, catalog=Catalog.load([SHIPPED])).checks["check"]
    machine = await open_machine(Clock())
    memories = Memories()
    loop = asyncio.get_running_loop()
    while order := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        memory = memories.open("check")
        seen = machine.remember(memory)
        if order == "look":
            found = await check.type.look(check.options, seen)
            memories.keep("check", memory)
            answer = [dataclasses.asdict(finding) for finding in found]
        elif order == "propose":
            answer = [dataclasses.asdict(each) for each in await check.type.propose(seen)]
        else:
            found = await check.type.look(check.options, seen)
            items = await check.type.gather(check.options, found[0], seen)
            answer = {item.title: item.text for item in items}
        print(json.dumps(answer), flush=True)


asyncio.run(main())
"""


class LabCheck:
    """Made by `check_in`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def order(self, word: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the check broke: see what it printed"
        return json.loads(line)

    def findings(self) -> Mapping[str, Mapping[str, Any]]:
        return {finding["subject"]: finding for finding in self.order("look")}

    def look(self) -> Mapping[str, Any]:
        """The worst of what one look found."""
        ranks = ("critical", "unknown", "warning", "ok")
        return min(self.order("look"), key=lambda each: ranks.index(each["status"]))

    def wait(
        self, what: Callable[[Mapping[str, Any]], bool], seconds: float = 60.0
    ) -> Mapping[str, Any]:
        """Looks until a finding is as it is waited for."""
        until = time.monotonic() + seconds
        while not what(finding := self.look()):
            assert time.monotonic() < until, f"at last: {finding}"
            time.sleep(0.1)
        return finding

    def wait_for(self, cause: str, seconds: float = 60.0) -> Mapping[str, Any]:
        return self.wait(lambda finding: finding["cause"] == cause, seconds)


@contextmanager
def check_in(lab: Lab, kind: str, **options: Any) -> Iterator[LabCheck]:
    """A check in a host, with its first look behind it."""
    given = json.dumps({"type": kind, **options})
    with lab.popen(
        [PYTHON, "-P", "-c", LOOKER, given],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            check = LabCheck(process)
            check.order("look")
            yield check
        finally:
            process.kill()
