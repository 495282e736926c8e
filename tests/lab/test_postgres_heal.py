"""An agent and a PostgreSQL server: found, mended and proved, or left to a human."""

from __future__ import annotations

from typing import Any

import pytest
from lab_agent import LabAgent
from lab_runs import PLAYBOOK, find_playbooks

from agent.lab import Lab

UNIT = "postgresql@15-hostmend.service"
DATA = "/srv/hostmend-postgres/data"
CONFIGURATION = f"""\
version: 1
policy: {{act_alone_up_to: medium, runs_per_hour: 20}}
checks:
  db:
    type: postgres
    unit: {UNIT}
    socket: /run/postgresql/.s.PGSQL.5499
    write: true
    every: 2s
    confirm: 1 of 1
    cool_down: 1s
    stable_for: 3s
    ladder:
      - remedy: free-postgres-wal
        options: {{slots: [gone], slot_mb: 16, ballast: /srv/hostmend-postgres/ballast}}
      - {{remedy: restore-postgres-log-directory}}
"""
TAKE_AWAY = f"""
systemctl stop {UNIT}
rm /var/log/postgresql/postgresql-15-hostmend.log
chown root: /var/log/postgresql
chmod 755 /var/log/postgresql
systemctl start {UNIT} || true
"""
DAMAGE = f"""
systemctl kill -s KILL {UNIT}
systemctl stop {UNIT}
for file in {DATA}/pg_wal/0*; do dd if=/dev/urandom of=$file bs=1M count=16 conv=notrunc; done
systemctl start {UNIT} || true
"""
#: The contents of all files of data.
STATE = f"cd {DATA}; find . -type f -exec sha256sum {{}} + | sort"


@pytest.mark.long
def test_what_fills_and_locks_a_server_is_mended_and_a_damaged_log_is_a_humans(lab: Lab) -> None:
    agent = LabAgent(lab)
    agent.install(CONFIGURATION)
    broken = f"{find_playbooks(lab)}/free-postgres-wal/test"
    lab.run([PLAYBOOK, "-i", "localhost,", f"{broken}/break.yml"], timeout=300)

    def last() -> dict[str, Any]:
        mine = [each for each in agent.incidents() if each["subject"] == UNIT]
        return mine[-1] if mine else {"state": "none"}

    agent.start()
    agent.wait(lambda: last()["state"] == "resolved", "a full log to be freed")
    (run,) = agent.runs()
    assert (run["remedy"], run["outcome"]) == ("free-postgres-wal", "ok")
    lab.run([PLAYBOOK, "-i", "localhost,", f"{broken}/verify.yml"], timeout=300)

    lab.run(["bash", "-ec", TAKE_AWAY])
    agent.wait(lambda: len(agent.runs()) == 2, "a second run")
    agent.wait(lambda: last()["state"] == "resolved", "a log directory to be given back")
    assert agent.runs()[-1]["remedy"] == "restore-postgres-log-directory"
    lab.run([PLAYBOOK, "-i", "localhost,", f"{broken}/verify.yml"], timeout=300)

    lab.run(["bash", "-ec", DAMAGE])
    before = lab.run(["bash", "-ec", STATE]).stdout
    agent.wait(lambda: last()["state"] == "escalated", "a human to be asked")
    assert "has no valid checkpoint" in str(last())
    assert len(agent.runs()) == 2
    assert lab.run(["bash", "-ec", STATE]).stdout == before
    agent.forget()
