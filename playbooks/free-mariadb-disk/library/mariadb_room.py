#!/usr/bin/python
"""Looks where MariaDB has no room, and purges binary logs that nobody needs any more.

Logs are purged by the server, never as files, and only once its writes go on and there is room:
PURGE BINARY LOGS hangs while the disk is full. Raised as a failure, for a human: writes that still
wait, and logs of which nobody knows whether a replica or a backup needs them.
"""

from __future__ import annotations

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.data_directory import Refused, run, show_size
from ansible.module_utils.mariadb_client import reach
from ansible.module_utils.mariadb_server import Server

#: Longest that writes may take to go on once there is room, in seconds; the server looks every 60.
PATIENCE = 120
#: Full: nothing is left for an ordinary user, or nearly so, in bytes.
NEARLY = 1 << 20
#: What a purge itself needs, by far, in bytes.
LITTLE = 128 << 10
WAITING = (
    "SELECT COUNT(*) FROM information_schema.PROCESSLIST"
    " WHERE STATE = 'Waiting for someone to free space'"
)


def find_mount(path):
    path = os.path.realpath(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def measure(point):
    """Percent that is used as df shows it, and bytes that are free."""
    told = os.statvfs(point)
    used, free = told.f_blocks - told.f_bfree, told.f_bavail
    return 100.0 * used / (used + free) if used + free else 100.0, free * told.f_frsize


def look(server, socket):
    """That of the filesystems its files lie on which has least room, and whether it is full."""
    places = [server.directory]
    if server.log_base:
        places.append(os.path.dirname(server.log_base))
    points = dict.fromkeys(find_mount(place) for place in places)
    point = min(points, key=lambda point: measure(point)[1])
    percent, free = measure(point)
    waits = server.up and reach(server.unit, socket).ask(WAITING)[0][0] != "0"
    return (
        point,
        free < NEARLY or waits,
        f"{point} has {show_size(free)} free, {percent:.0f} % is used",
    )


def wait_for_writes(client):
    until = time.monotonic() + PATIENCE
    while count := int(client.ask(WAITING)[0][0]):
        if time.monotonic() > until:
            raise Refused(f"{count} writes still wait for room: too little other space was freed")
        time.sleep(0.5)


class Logs:
    """Its binary logs, the oldest first."""

    def __init__(self, client):
        self.client = client
        self.names = [row[0] for row in client.ask("SHOW BINARY LOGS")]
        self.sizes = [int(row[1]) for row in client.ask("SHOW BINARY LOGS")]

    def find(self, name):
        if name not in self.names:
            raise Refused(f"{name[:80]!r} is none of its binary logs")
        return self.names.index(name)

    def find_limit(self, given):
        """The first that must stay. Raises Refused where nobody knows."""
        limit = max(0, len(self.names) - max(1, given["keep"]))
        replicas = self.client.ask("SHOW SLAVE HOSTS")
        dumping = self.client.ask(
            "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'"
        )
        if given["oldest_needed"]:
            limit = min(limit, self.find(ask_command(given["oldest_needed"])))
        elif not given["no_replicas"]:
            raise Refused(
                "nobody knows which binary logs its replicas need: set oldest_needed or no_replicas"
            )
        elif replicas or dumping[0][0] != "0":
            raise Refused("it has replicas, and no_replicas says that it has none")
        if given["newest_taken"]:
            limit = min(limit, self.find(ask_command(given["newest_taken"])) + 1)
        elif not given["no_backup"]:
            raise Refused(
                "nobody knows which binary logs the backup has: set newest_taken or no_backup"
            )
        return limit


def ask_command(argv):
    done = run(argv)
    if done.returncode != 0:
        raise Refused(f"{argv[0]} fails ({done.returncode}): {done.stderr.strip()[:200]}")
    return done.stdout.strip()


def purge(given, server, point, preview):
    """Purges one log after the other, the oldest first, until the target is reached."""
    client = reach(given["unit"], given["socket"])
    if not preview:
        wait_for_writes(client)
    percent, free = measure(point)
    words = f"{point} is {percent:.0f} % full, {given['target_percent']:g} % is the target"
    if free < LITTLE and not preview:
        raise Refused(f"{words}: too little other space was freed to purge binary logs")
    if percent <= given["target_percent"]:
        return False, f"other space was enough: {words}"
    if not server.log_base or find_mount(os.path.dirname(server.log_base)) != point:
        raise Refused(f"{words}; no binary log lies there")
    logs = Logs(client)
    limit = logs.find_limit(given)
    if not limit:
        raise Refused(f"{words}; each of its {len(logs.names)} binary logs is needed")
    if preview:
        return True, f"{words}; would purge binary logs to {logs.names[limit]}"
    gone = 0
    while gone < limit and measure(point)[0] > given["target_percent"]:
        gone += 1
        client.ask(f"PURGE BINARY LOGS TO '{logs.names[gone]}'")
        if logs.names[gone - 1] in Logs(client).names:
            raise Refused(f"the server keeps {logs.names[gone - 1]}: somebody reads it")
    percent, _free = measure(point)
    words = (
        f"purged {gone} binary logs, {show_size(sum(logs.sizes[:gone]))}, to {logs.names[gone]}; "
        f"{point} is {percent:.0f} % full"
    )
    if percent > given["target_percent"]:
        raise Refused(f"{words}, and each of the others is needed")
    return True, words


def main():
    module = AnsibleModule(
        argument_spec={
            "step": {"choices": ["look", "purge"], "required": True},
            "unit": {"type": "str", "required": True},
            "socket": {"type": "path", "required": True},
            "target_percent": {"type": "float", "required": True},
            "filesystem": {"type": "path", "default": "/"},
            "no_replicas": {"type": "bool", "default": False},
            "oldest_needed": {"type": "list", "elements": "str", "default": []},
            "no_backup": {"type": "bool", "default": False},
            "newest_taken": {"type": "list", "elements": "str", "default": []},
            "keep": {"type": "int", "default": 3},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        server = Server(given["unit"])
        if given["step"] == "look":
            point, full, words = look(server, given["socket"])
            module.exit_json(changed=False, filesystem=point, full=full, up=server.up, msg=words)
        if module.check_mode and not server.up:
            module.exit_json(changed=False, msg=f"{given['unit']} is down and would be started")
        changed, words = purge(given, server, given["filesystem"], module.check_mode)
    except (Refused, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, msg=words)


if __name__ == "__main__":
    main()
