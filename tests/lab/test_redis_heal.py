"""An agent and a Redis server: found, mended and proved, or left to a human."""

from __future__ import annotations

from typing import Any

import pytest
from lab_agent import LabAgent
from lab_runs import PLAYBOOK, find_playbooks

from agent.lab import Lab

UNIT = "redis-server.service"
FILES = "/var/lib/redis/appendonlydir"
CONFIGURATION = """\
version: 1
policy: {act_alone_up_to: medium, runs_per_hour: 20}
checks:
  redis:
    type: redis
    write: true
    every: 2s
    deep_every: 2s
    confirm: 1 of 1
    cool_down: 1s
    stable_for: 3s
    ladder:
      - {remedy: repair-redis-aof, options: {copies: /srv/hostmend-copies}}
"""
DAMAGE = f"""
systemctl stop {UNIT}
dd if=/dev/urandom of={FILES}/appendonly.aof.1.incr.aof bs=1 count=20 seek=4000 conv=notrunc
systemctl start {UNIT} || true
"""
#: The contents of all files of data.
STATE = f"cd {FILES}; find . -type f -exec sha256sum {{}} + | sort"


@pytest.mark.long
def test_an_unfinished_command_is_cut_off_and_what_is_damaged_is_a_humans(lab: Lab) -> None:
    agent = LabAgent(lab)
    agent.install(CONFIGURATION)
    broken = f"{find_playbooks(lab)}/repair-redis-aof/test"
    lab.run([PLAYBOOK, "-i", "localhost,", f"{broken}/break.yml"], timeout=300)

    def last() -> dict[str, Any]:
        mine = [each for each in agent.incidents() if each["subject"] == UNIT]
        return mine[-1] if mine else {"state": "none"}

    agent.start()
    agent.wait(lambda: last()["state"] == "resolved", "the server to be mended")
    (run,) = agent.runs()
    assert (run["remedy"], run["outcome"]) == ("repair-redis-aof", "ok")
    lab.run([PLAYBOOK, "-i", "localhost,", f"{broken}/verify.yml"], timeout=300)

    lab.run(["bash", "-ec", DAMAGE])
    before = lab.run(["bash", "-ec", STATE]).stdout
    agent.wait(lambda: last()["state"] == "escalated", "a human to be asked")
    run = agent.runs()[-1]
    assert run["outcome"] == "needs_human"
    assert "Bad file format" in str(run)
    assert lab.run(["bash", "-ec", STATE]).stdout == before
    agent.forget()
