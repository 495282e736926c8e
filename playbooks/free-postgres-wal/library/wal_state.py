#!/usr/bin/python
"""Which slots may be dropped, and whether the server needs room to start. It changes nothing.

What a slot is, a server that is down cannot be asked: its file pg_replslot/NAME/state is written
whenever a checkpoint finds that the slot was moved on (SaveSlotToPath in slot.c), so that the
file's time says since when nobody has.
"""

from __future__ import annotations

import os
import re
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.data_directory import Refused
from ansible.module_utils.postgres_server import Server
from ansible.module_utils.wal_room import Room


def read_idle(server, name):
    """Seconds since a slot was last moved on; None: there is no such slot."""
    path = os.path.join(server.directory, "pg_replslot", name, "state")
    try:
        return time.time() - os.lstat(path).st_mtime
    except FileNotFoundError:
        return None


def see(given):
    for name in given["slots"]:
        if not re.fullmatch(r"[a-z0-9_]{1,63}", name):
            raise Refused(f"{name!r} is no name of a slot")
    server = Server(given["unit"])
    if not server.up and not server.down:
        raise Refused(f"{given['unit']} is {server.state}: somebody is at work")
    idle = {name: read_idle(server, name) for name in given["slots"]}
    there = {name: seconds for name, seconds in idle.items() if seconds is not None}
    candidates = sorted(name for name in there if there[name] >= given["idle_for"])
    if server.up:
        return server, candidates, False
    if not there:
        found = sorted(os.listdir(os.path.join(server.directory, "pg_replslot")))
        raise Refused(
            f"none of the slots that may be dropped ({', '.join(given['slots']) or 'none'}) is "
            f"there; those that are: {', '.join(found) or 'none'}"
        )
    if not candidates:
        youngest = ", ".join(f"{name} {there[name] / 3600:.1f} h ago" for name in sorted(there))
        raise Refused(
            f"every slot that may be dropped was used within {given['idle_for'] / 3600:g} h: "
            f"{youngest}"
        )
    room = Room(server)
    short = room.short()
    if short:
        room.check_ballast(server, given["ballast"])
    return server, candidates, short


def main():
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "slots": {"type": "list", "elements": "str", "required": True},
            "idle_for": {"type": "float", "required": True},
            "ballast": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        server, candidates, short = see(module.params)
    except (Refused, OSError) as error:
        module.fail_json(msg=f"{error}. Nothing was changed")
    module.exit_json(
        changed=False,
        up=server.up,
        candidates=candidates,
        short=short,
        msg=f"{server.unit} is {server.state}; may be dropped: {', '.join(candidates) or 'none'}",
    )


if __name__ == "__main__":
    main()
