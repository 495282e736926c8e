#!/usr/bin/python
"""Looks at the relay log of a MariaDB replica, or has it fetched anew from the primary.

Only with GTID: then the replica itself knows which transactions it has, and asks for those after
them. Raised as a failure, for a human: a replica without GTID, one of several primaries, one whose
primary is out of reach, and a primary that has what is needed no more.
"""

from __future__ import annotations

import os
import re
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.data_directory import Refused
from ansible.module_utils.mariadb_client import reach

#: What the thread that applies a relay log says of one that it cannot read.
DAMAGED = re.compile(r"Relay log read failure|Could not parse relay log|relay log is corrupted")
#: What is asked of the state of replication.
NEEDED = {"Last_IO_Error", "Last_SQL_Error", "Relay_Log_File", "Seconds_Behind_Master"}
NEEDED |= {"Slave_IO_Running", "Slave_IO_State", "Slave_SQL_Running", "Using_Gtid"}
#: Longest that replication may take to go on, in seconds.
PATIENCE = 120
#: For so long it must have gone on, in seconds: a primary may refuse a moment after it is reached.
STEADY = 10


def read_source(client):
    """The state of replication from its one primary. Raises Refused."""
    records = client.ask_records("SHOW ALL SLAVES STATUS")
    if len(records) != 1:
        raise Refused(f"it is a replica of {len(records)} servers, which is for a human")
    if not records[0].keys() >= NEEDED:
        raise Refused("the server does not tell how replication goes")
    return records[0]


def find_files(client, source):
    """The directory of its relay logs, and their names."""
    # Without a setting the base name is empty, and they lie in the data directory.
    ((base, data),) = client.ask("SELECT IFNULL(@@relay_log_basename, ''), @@datadir")
    directory = os.path.dirname(base) or data
    name = source["Relay_Log_File"].rsplit(".", 1)[0]
    pattern = re.escape(name) + r"\.(\d{6,}|index)"
    return directory, sorted(each for each in os.listdir(directory) if re.fullmatch(pattern, each))


def check_gates(source):
    if source["Using_Gtid"] not in ("Slave_Pos", "Current_Pos"):
        raise Refused("it does not use GTID, so that its place cannot be told for certain")
    if source["Slave_IO_Running"] != "Yes":
        raise Refused(
            "its primary is out of reach, so that nothing can be fetched anew: "
            f"{source['Last_IO_Error'] or 'Slave_IO_Running is ' + source['Slave_IO_Running']}"
        )


def reset(client):
    """Where it goes on. Raises Refused where it has not applied anything within the time."""
    before = read_place(client)
    client.ask("RESET SLAVE")
    if read_source(client)["Using_Gtid"] not in ("Slave_Pos", "Current_Pos"):
        client.ask("CHANGE MASTER TO MASTER_USE_GTID = slave_pos")
    client.ask("START SLAVE")
    begun = steady_since = time.monotonic()
    while True:
        source, now = read_source(client), time.monotonic()
        if why := source["Last_IO_Error"] or source["Last_SQL_Error"]:
            raise Refused(f"replication does not go on: {why[:300]}")
        if source["Slave_IO_Running"] != "Yes" or source["Slave_SQL_Running"] != "Yes":
            steady_since = now
        applied = source["Seconds_Behind_Master"] == "0" or read_place(client) != before
        if applied and now - steady_since >= STEADY:
            return before
        if now - begun > PATIENCE:
            raise Refused(f"replication does not go on: {source['Slave_IO_State'] or 'no word'}")
        time.sleep(0.5)


def read_place(client):
    """The transactions that it has, as GTIDs."""
    ((place,),) = client.ask("SELECT @@GLOBAL.gtid_slave_pos")
    return place


def main():
    module = AnsibleModule(
        argument_spec={
            "step": {"choices": ["check", "stop", "reset"], "required": True},
            "unit": {"type": "str", "required": True},
            "socket": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        client = reach(given["unit"], given["socket"])
        if given["step"] == "check":
            source = read_source(client)
            why = source["Last_SQL_Error"]
            fine = not DAMAGED.search(why)
            if fine and why:
                raise Refused(f"replication ended for another reason: {why[:300]}")
            directory, files = find_files(client, source)
            if not fine:
                check_gates(source)
            module.exit_json(
                changed=False, fine=fine, directory=directory, files=files, msg=why or "it is fine"
            )
        if module.check_mode:
            module.exit_json(changed=True, msg=f"would {given['step']}")
        if given["step"] == "stop":
            client.ask("STOP SLAVE", seconds=PATIENCE)
            module.exit_json(changed=True, msg="replication is stopped")
        place = reset(client)
    except (Refused, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, msg=f"replication goes on after {place or 'the beginning'}")


if __name__ == "__main__":
    main()
