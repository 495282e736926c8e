#!/usr/bin/python
"""Looks at a MyISAM table of a MariaDB server that is up, or repairs it.

Raised as a failure, for a human: a table of another engine, too little room for its repair, and a
repair that lost rows or did not make it whole; in the last two the copy has what was there.
"""

from __future__ import annotations

import os
import re

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.data_directory import Refused, show_size
from ansible.module_utils.mariadb_client import quote_name, quote_text, reach

#: Longest that a check or a repair may take, in seconds.
LONG = 3000
#: What CHECK TABLE and REPAIR TABLE say of a table that is in order.
FINE = ("OK", "Table is already up to date")


class Table:
    def __init__(self, client, name):
        self.client, self.name = client, name
        found = []
        for dot in (index for index, letter in enumerate(name) if letter == "."):
            schema, table = name[:dot], name[dot + 1 :]
            statement = (
                "SELECT HEX(TABLE_SCHEMA), HEX(TABLE_NAME), IFNULL(ENGINE, ''),"
                " HEX(CONVERT(TABLE_SCHEMA USING filename)),"
                " HEX(CONVERT(TABLE_NAME USING filename))"
                " FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE'"
            )
            where = f" AND TABLE_SCHEMA = {quote_text(schema)} AND TABLE_NAME = {quote_text(table)}"
            found += client.ask(statement + where)
        if len(found) != 1:
            raise Refused(f"there is no table {name}, or more than one could be meant")
        schema, table, engine, place, base = found[0]
        self.engine = engine
        self.quoted = f"{quote_name(_unhex(schema))}.{quote_name(_unhex(table))}"
        self.place, self.base = _unhex(place), _unhex(base)
        ((self.directory,),) = client.ask("SELECT @@GLOBAL.datadir")

    def find_files(self):
        """Below the data directory: its files, and those of its partitions."""
        pattern = re.escape(self.base) + r"(#P#.+)?\.(frm|par|MYD|MYI)"
        names = os.listdir(os.path.join(self.directory, self.place))
        return [
            os.path.join(self.place, name) for name in sorted(names) if re.fullmatch(pattern, name)
        ]

    def check(self, how=""):
        """What is wrong with it; empty for nothing."""
        rows = self.client.ask(f"CHECK TABLE {self.quoted} {how}", seconds=LONG)
        bad = [row for row in rows if row[2] == "error" or row[2:] == ["status", "Corrupt"]]
        bad += [row for row in rows if row[2] == "status" and row[3] not in FINE]
        return "; ".join(dict.fromkeys(row[3] for row in bad))

    def count(self):
        statement = f"SELECT COUNT(*) FROM {self.quoted}"  # noqa: S608 - a quoted name
        ((count,),) = self.client.ask(statement, seconds=LONG)
        return int(count)

    def check_room(self):
        """A repair writes data and index anew, beside the old ones."""
        needed = sum(os.stat(os.path.join(self.directory, n)).st_size for n in self.find_files())
        told = os.statvfs(os.path.join(self.directory, self.place))
        free = told.f_bavail * told.f_frsize
        if free < 1.1 * needed + (1 << 20):
            raise Refused(
                f"a repair of {self.name} needs {show_size(needed)} in {self.directory}, and "
                f"{show_size(free)} are free"
            )

    def repair(self):
        """Raises Refused where it is not whole afterwards, or has lost rows."""
        # Replicas have tables of their own, which are not damaged.
        rows = self.client.ask(f"REPAIR NO_WRITE_TO_BINLOG TABLE {self.quoted}", seconds=LONG)
        said = [row[3] for row in rows if row[2] in ("error", "warning")]
        if said or [row[3] for row in rows if row[2] == "status"] != ["OK"]:
            words = "; ".join(said or (row[3] for row in rows))
            raise Refused(
                f"REPAIR TABLE of {self.name} says: {words[:300]}. Compare it with the copy"
            )
        if wrong := self.check("EXTENDED"):
            raise Refused(f"{self.name} is still damaged after REPAIR TABLE: {wrong[:300]}")


def _unhex(text):
    return bytes.fromhex(text).decode()


def main():
    module = AnsibleModule(
        argument_spec={
            "step": {"choices": ["check", "repair"], "required": True},
            "unit": {"type": "str", "required": True},
            "socket": {"type": "path", "required": True},
            "table": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    name = given["table"]
    try:
        table = Table(reach(given["unit"], given["socket"]), name)
        if table.engine != "MyISAM":
            raise Refused(f"{name} is a table of {table.engine or 'no engine'}, not of MyISAM")
        if given["step"] == "check":
            wrong = table.check()
            if wrong:
                table.check_room()
            module.exit_json(
                changed=False,
                fine=not wrong,
                directory=table.directory,
                files=table.find_files(),
                label=f"{table.place}.{table.base}",
                msg=f"{name}: {wrong}" if wrong else f"{name} is in order",
            )
        if module.check_mode:
            module.exit_json(changed=True, msg=f"would repair {name}")
        table.repair()
        count = table.count()
    except (Refused, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, rows=count, msg=f"repaired {name}, which has {count} rows")


if __name__ == "__main__":
    main()
