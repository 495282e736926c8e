#!/usr/bin/python
"""Drops slots that nobody uses and that keep much, and has the server remove what is left over.

What is dropped is told first: name, kind and place in the log are all that a slot is.
"""

from __future__ import annotations

import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.data_directory import Refused, show_size
from ansible.module_utils.postgres_server import Server
from ansible.module_utils.wal_room import Room

#: Longest that a recovery from a crash is waited for, in seconds, and a checkpoint.
RECOVERY = 900
CHECKPOINT = 600


def await_server(server):
    """Until it reads. Raises Refused."""
    until = time.monotonic() + RECOVERY
    while True:
        try:
            server.query("SELECT count(*) FROM pg_catalog.pg_class", timeout=10)
            return
        except Refused as error:
            now = Server(server.unit)
            if now.down:
                raise Refused(f"{server.unit} was started and went down again: {error}") from None
            if time.monotonic() > until:
                raise Refused(
                    f"{server.unit} is up and has not answered within {RECOVERY} s, and is left "
                    f"to recover: {error}"
                ) from None
        time.sleep(0.5)


def read_slots(server):
    """The slots that are there: name -> (in use, bytes kept, all of it for people)."""
    statement = (
        "SELECT slot_name, active, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint,"
        " slot_type, coalesce(plugin, '-'), coalesce(database, '-'), restart_lsn"
        " FROM pg_replication_slots"
    )
    slots = {}
    for name, active, kept, *about in server.query(statement):
        slots[name] = (active != "f", int(kept or 0), " ".join(about))
    return slots


def drop(server, names, least):
    """What was dropped, and why others were not. Raises Refused."""
    dropped, left = [], []
    slots = read_slots(server)
    for name in names:
        if name not in slots:
            continue
        active, kept, about = slots[name]
        if active:
            left.append(f"{name} is in use")
        elif kept < least:
            left.append(f"{name} keeps only {show_size(kept)}")
        else:
            # The server itself refuses one that came into use since.
            server.query(f"SELECT pg_drop_replication_slot('{name}')")
            dropped.append(f"{name} ({about}), which kept {show_size(kept)}")
    return dropped, left


def read_log_size(server):
    """Bytes of its write-ahead log, and of what of that waits to be written to anew."""
    statement = (
        "SELECT coalesce(sum(size), 0)::bigint, coalesce(sum(size) FILTER (WHERE"
        " name > pg_walfile_name(pg_current_wal_lsn())), 0)::bigint"
        " FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'"
    )
    ((size, ahead),) = server.query(statement)
    return int(size), int(ahead)


def main():
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "slots": {"type": "list", "elements": "str", "required": True},
            "slot_mb": {"type": "int", "required": True},
            "was_up": {"type": "bool", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    names = ", ".join(given["slots"])
    if module.check_mode:
        module.exit_json(changed=True, msg=f"would drop {names} where that keeps enough")
    try:
        server = Server(given["unit"])
        await_server(server)
        room = Room(server)
        before, _ = read_log_size(server)
        dropped, left = drop(server, given["slots"], given["slot_mb"] << 20)
        if not dropped and given["was_up"]:
            module.exit_json(changed=False, msg=f"{server.unit} runs: {'; '.join(left)}")
        if not dropped:
            raise Refused(
                f"{server.unit} runs, and no slot was dropped: {'; '.join(left) or 'none is there'}"
            )
        # What no slot keeps any more goes with the next checkpoint, or is written to anew.
        server.query("CHECKPOINT", timeout=CHECKPOINT)
        after, ahead = read_log_size(server)
        free = room.free()
        if free + ahead < room.needed:
            raise Refused(
                f"dropped {'; '.join(dropped)}, and {room.place} has only {show_size(free)} free: "
                "something else keeps its write-ahead log"
            )
    except (Refused, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=True,
        msg=f"dropped the slot {'; '.join(dropped)}; the write-ahead log takes {show_size(after)} "
        f"now, {show_size(before)} before; {show_size(free)} are free there",
    )


if __name__ == "__main__":
    main()
