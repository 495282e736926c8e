#!/usr/bin/python
"""Takes a damaged Aria control file and log away, and what the tables say of that log.

Found out with MariaDB 10.11: without the control file alone, or with only one of the two steps for
each table, tables were corrupt afterwards; with both all sums were the same. The control file is
the last to go: until then the server does not start, so whatever ends this in between leaves
nothing that somebody could start half done.
"""

from __future__ import annotations

import os
import re

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.data_directory import Refused, hash_file, sync_directory
from ansible.module_utils.mariadb_server import Server

#: What a table says that was in use in a crash. It takes no row.
IN_USE = re.compile(r"warning: .*(using or hasn't closed|usage count)", re.IGNORECASE)
#: What the tool says of every table.
NOISE = re.compile(r"^(Checking Aria file: |aria_chk: Aria file |- |State updated)")


class Aria:
    def __init__(self, server):
        self.server = server
        self.tables = server.find_files(".MAI")
        self.of_users = server.find_files(".MAI", outside_system=True)

    def log_files(self):
        names = os.listdir(self.server.directory)
        return sorted(n for n in names if re.fullmatch(r"aria_log_control|aria_log\.\d+", n))

    def check_gate(self, clean, why):
        """Raises Refused where an acknowledged row may be in the log only."""
        if clean or not self.of_users:
            return
        more = f" and {len(self.of_users) - 3} more" if len(self.of_users) > 3 else ""
        raise Refused(
            f"a new Aria log may lose acknowledged rows of {', '.join(self.of_users[:3])}{more}: "
            f"of the server's last end, {why}. Nothing was changed"
        )

    def check_tables(self, *, may_be_in_use):
        """Raises Refused where a table is not whole; changes nothing."""
        for table in self.tables:
            complaints = self._ask(table, "--check", "--silent", "--read-only")
            if may_be_in_use:
                complaints = [line for line in complaints if not IN_USE.search(line)]
            if complaints:
                raise Refused(f"{table} is not whole: {complaints[0][:300]}")

    def count_rows(self):
        counts = {}
        for table in self.tables:
            done = self.server.run_own(
                "aria_chk", "--ignore-control-file", "--description", "--", table
            )
            found = re.search(r"^Data records: +(\d+)", done.stdout, re.MULTILINE)
            if found is None:
                raise Refused(f"{table} does not say how many rows it has")
            counts[table] = int(found[1])
        return counts

    def repair(self):
        for step in ("--recover", "--zerofill"):
            for table in self.tables:
                if complaints := self._ask(table, step, "--silent"):
                    raise Refused(f"aria_chk {step} of {table}: {complaints[0][:300]}")

    def _ask(self, table, *options):
        """What the tool has to complain of. Its exit code alone says too little."""
        done = self.server.run_own("aria_chk", "--ignore-control-file", *options, "--", table)
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
        lines = [line for line in lines if line and not NOISE.match(line)]
        if done.returncode != 0:
            lines.append(f"exit code {done.returncode}")
        return lines

    def forget_log(self, place):
        """Removes the log's files, of which the copy has each."""
        names = self.log_files()
        for name in names:
            path = os.path.join(self.server.directory, name)
            if hash_file(path) != hash_file(os.path.join(place, "data", name)):
                raise Refused(f"the copy of {path} is not what it is now")
        for name in sorted(names, key=lambda name: name == "aria_log_control"):
            os.unlink(os.path.join(self.server.directory, name))
        sync_directory(self.server.directory)


def main():
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "clean": {"type": "bool", "required": True},
            "why": {"type": "str", "required": True},
            "place": {"type": "path", "required": True},
            "no_place": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        server = Server(given["unit"])
        if server.up:
            raise Refused(f"{given['unit']} is up again: somebody else is at work")
        aria = Aria(server)
        aria.check_gate(given["clean"], given["why"])
        if not given["place"]:
            raise Refused(given["no_place"])
        aria.check_tables(may_be_in_use=not given["clean"])
        counts = aria.count_rows()
        if module.check_mode:
            module.exit_json(changed=True, msg=f"would repair {len(aria.tables)} Aria tables")
        aria.repair()
        aria.check_tables(may_be_in_use=False)
        after = aria.count_rows()
        if differ := sorted(name for name in counts if counts[name] != after[name]):
            name = differ[0]
            raise Refused(f"{name} had {counts[name]} rows and has {after[name]} after its repair")
        aria.forget_log(given["place"])
    except (Refused, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=True,
        rows=after,
        msg=f"made {len(aria.tables)} Aria tables with {sum(after.values())} rows fit a new log",
    )


if __name__ == "__main__":
    main()
