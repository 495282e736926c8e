"""A repair of data outlives the agent that began it, and is not done a second time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from lab_agent import MAIL_ROUTE, LabAgent
from mariadb_host import SETUP

from agent.lab import Lab

COPIES = "/srv/copies"
CONFIGURATION = f"""\
version: 1
policy: {{act_alone_up_to: medium, storm: {{group_wait: 1s}}}}
checks:
  db:
    type: mariadb
    every: 2s
    stable_for: 2s
    ladder:
      - {{remedy: repair-mariadb-aria, options: {{copies: {COPIES}}}}}
routes:
  ops: {{url: "{MAIL_ROUTE}", reasons: [escalated, held, healed, ended]}}
"""
#: The real tool, slowed down so that a kill falls into its work; notes what it is asked to do.
SLOW_TOOL = """\
#!/bin/sh
echo "$*" >>/tmp/aria-asked
sleep 0.2
exec /usr/bin/aria_chk "$@"
"""
SUMS = "mariadb -e 'CHECKSUM TABLE shop.i, shop.a, shop.m, mysql.global_priv EXTENDED'"


@pytest.mark.long
def test_a_repair_of_data_outlives_the_agent_and_is_done_once(lab_tree: Path) -> None:
    with Lab.boot(lab_tree, size="3g") as lab:
        lab.run(["bash", "-ec", SETUP], timeout=180)
        place = f"mkdir -p {COPIES}; mount -t tmpfs -o size=300m,mode=0700 tmpfs {COPIES}"
        lab.run(["bash", "-ec", f"{place}; systemctl start mariadb; {SUMS} >/root/sums"])
        lab.write("/usr/local/bin/aria_chk", SLOW_TOOL, 0o755)
        lab.run(["install", "-m", "666", "/dev/null", "/tmp/aria-asked"])
        agent = LabAgent(lab)
        agent.install(CONFIGURATION)
        agent.start_mail()
        agent.start()
        agent.wait(lambda: agent.check("db")["looked"] is not None, "its first look")
        lab.run(["systemctl", "stop", "mariadb"])
        damage = "dd if=/dev/urandom of=/var/lib/mysql/aria_log_control bs=52 count=1 conv=notrunc"
        lab.run(["bash", "-c", f"{damage}; systemctl start mariadb || true"])
        # In the middle: some tables are repaired, others are not.
        agent.wait(lambda: "--recover" in lab.read("/tmp/aria-asked"), "the repair to begin")
        (run,) = agent.runs()
        lab.run(["systemctl", "kill", "-s", "KILL", "--kill-whom=main", "hostmend"])
        lab.wait_for(["systemctl", "is-active", "hostmend"])
        agent.wait(agent.answers, "the agent to answer again")
        asked = lab.read("/tmp/aria-asked")
        assert "--zerofill" not in asked, "the kill came too late"
        agent.wait(
            lambda: [i for i in agent.incidents() if i["state"] == "resolved"], "it to be healed"
        )
        (again,) = agent.runs()
        assert (again["id"], again["state"], again["outcome"]) == (run["id"], "ended", "ok")
        lab.run(["bash", "-ec", f"{SUMS} | diff - /root/sums"])
        asked = lab.read("/tmp/aria-asked")
        for step in ("--recover", "--zerofill"):
            times = Counter(line for line in asked.splitlines() if step in line)
            assert len(times) > 20
            assert set(times.values()) == {1}
        assert len(lab.run(["ls", COPIES]).stdout.split()) == 1
