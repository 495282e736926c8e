"""A lab host with database servers, broken on purpose and looked at as the agent does."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from agent.lab import PYTHON, Lab

#: What every program begins with. Waiting has a generous limit and measures nothing.
PRELUDE = '''
import asyncio, json, subprocess, sys
from agent.checks import CHECKS
from agent.clock import Clock
from agent.host.machine import open_machine
from agent.host.memory import Memories

LIMIT = 120


def sh(script, check=True):
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=LIMIT)
    if check and done.returncode:
        raise SystemExit(f"{script}\\nended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def show(finding):
    return {
        "subject": finding.subject,
        "status": finding.status,
        "cause": finding.cause,
        "intended": finding.intended,
        "transition": finding.transition,
        "summary": finding.summary,
        "facts": dict(finding.facts),
        "measurements": dict(finding.measurements),
        "implicates": list(finding.implicates),
        "resource": finding.resource,
    }


class Watcher:
    """One check, looked at again and again with what it remembers."""

    def __init__(self, machine, type, **options):
        self.machine = machine
        self.kind = CHECKS[type]
        self.options = self.kind.model.model_validate({"type": type, **options})
        self.memories = Memories()

    async def look(self):
        memory = self.memories.open("db")
        findings = await self.kind.look(self.options, self.machine.remember(memory))
        self.memories.keep("db", memory)
        for finding in findings:
            assert finding.cause in self.kind.causes or not finding.cause, finding
            assert set(finding.measurements) <= set(self.kind.measurements), finding
        return [show(finding) for finding in findings]

    async def until(self, wanted):
        """Look until the findings are as wanted."""
        seen = []
        try:
            async with asyncio.timeout(LIMIT):
                while True:
                    findings = await self.look()
                    if wanted(findings):
                        return findings
                    if findings != seen[-1:]:
                        seen.append(findings)
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise SystemExit(f"did not come true; at last: {json.dumps(seen[-3:], indent=1)}")

    async def settle(self):
        """Look until nothing is on its way any more."""
        return await self.until(lambda findings: not any(f["transition"] for f in findings))

    async def fail(self):
        """Look until the server itself is critical."""
        return await self.until(lambda findings: findings[0]["status"] == "critical")


async def run():
    machine = await open_machine(Clock())
    # A container has no kernel of its own; nothing else may be missing.
    assert set(machine.missing) <= {"kernel"}, machine.missing
    try:
        print(json.dumps(await main(machine)))
    finally:
        await machine.close()
'''


def run(lab: Lab, program: str, prelude: str = "", timeout: float = 400) -> Any:
    """Run `async def main(machine)` in the host; what it returns."""
    text = (
        f"{PRELUDE}\n{textwrap.dedent(prelude)}\n{textwrap.dedent(program)}\nasyncio.run(run())\n"
    )
    done = lab.run([PYTHON, "-P", "-X", "dev", "-W", "error", "-"], input=text, timeout=timeout)
    return json.loads(done.stdout.splitlines()[-1])
