#!/usr/bin/python
"""Removes a postmaster.pid that no server belongs to, and the lock files of sockets with it.

What stands in it: pidfile.h of PostgreSQL. A server changes into its data directory, whatever it is
called in its container, so that its working directory's device and number tell it.
"""

from __future__ import annotations

import contextlib
import os
import socket

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.data_directory import Refused, find_users
from ansible.module_utils.postgres_server import SHARED_KINDS, Server, find_mount, read_small

NAME = "postmaster.pid"


class PidFile:
    """The file, as it was read."""

    def __init__(self, server):
        self.server = server
        self.path = os.path.join(server.directory, NAME)
        self.text, told = read_small(self.path)
        self.key = (told.st_dev, told.st_ino, told.st_mtime_ns)
        self.lines = self.text.splitlines()
        # A server without shared buffers of its own (standalone) writes its number negated.
        first = self.lines[0].strip().lstrip("-") if self.lines else ""
        if not first.isdecimal() or int(first) < 1:
            raise Refused(f"{self.path} names no process: it is {self.text[:80]!r}")
        self.pid = int(first)
        named = self.line(1)
        if named and os.path.realpath(named) != server.directory:
            raise Refused(f"{self.path} is of another data directory, {named}")

    def line(self, index):
        return self.lines[index].strip() if index < len(self.lines) else ""

    def check_process(self):
        """That the process that it names is none of PostgreSQL. Raises Refused."""
        if not os.path.exists(f"/proc/{self.pid}"):
            return "is gone"
        try:
            program = os.path.basename(os.readlink(f"/proc/{self.pid}/exe").split(" (deleted)")[0])
        except FileNotFoundError:
            return "is gone"
        except OSError as error:
            raise Refused(f"what process {self.pid} is cannot be told: {error.strerror}") from None
        if program in ("postgres", "postmaster"):
            raise Refused(f"process {self.pid}, which {self.path} names, is a {program}")
        return f"is {program}"

    def check_users(self):
        """That nobody uses the directory, by whatever name. Raises Refused."""
        told = os.stat(self.server.directory)
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                place = os.stat(f"/proc/{pid}/cwd")
                if (place.st_dev, place.st_ino) == (told.st_dev, told.st_ino):
                    raise Refused(f"process {pid} works in {self.server.directory}")
        if users := find_users([self.server.directory]):
            raise Refused(f"{self.server.directory} is used: {', '.join(users[:5])}")
        point, kind = find_mount(self.server.directory)
        if SHARED_KINDS.search(kind):
            raise Refused(
                f"{self.server.directory} lies on {point} ({kind}), where another host may use it"
            )

    def check_sockets(self):
        """That nothing listens where it would. Raises Refused."""
        paths = set(self.server.sockets())
        if self.line(4) and self.line(3):
            paths.add(os.path.join(self.line(4), f".s.PGSQL.{self.line(3)}"))
        for path in sorted(paths):
            with socket.socket(socket.AF_UNIX) as asked:
                asked.settimeout(2)
                try:
                    asked.connect(path)
                except (FileNotFoundError, ConnectionRefusedError):
                    continue
                except OSError as error:
                    raise Refused(f"whether {path} is held cannot be told: {error}") from None
                raise Refused(f"something listens at {path}")
        return sorted(paths)

    def check_memory(self):
        """That nobody is attached to the shared memory that it names. Raises Refused."""
        words = self.line(6).split()
        if len(words) != 2:
            return
        with open("/proc/sysvipc/shm", encoding="ascii") as file:
            names = file.readline().split()
            for line in file:
                row = dict(zip(names, line.split(), strict=False))
                if row["shmid"] == words[1] and int(row["nattch"]):
                    raise Refused(
                        f"{row['nattch']} processes are attached to its shared memory {words[1]}"
                    )

    def remove(self, sockets):
        text, told = read_small(self.path)
        if (told.st_dev, told.st_ino, told.st_mtime_ns) != self.key or text != self.text:
            raise Refused(f"{self.path} has changed meanwhile: somebody else is at work")
        os.unlink(self.path)
        # They name the same process, and would be the next reason not to start.
        for path in sockets:
            lock = f"{path}.lock"
            with contextlib.suppress(FileNotFoundError):
                pid, place, *_ = [*read_small(lock)[0].splitlines(), "", ""]
                same = os.path.realpath(place.strip()) == self.server.directory
                if same and pid.strip() == str(self.pid):
                    os.unlink(lock)


def main():
    module = AnsibleModule(
        argument_spec={"unit": {"type": "str", "required": True}}, supports_check_mode=True
    )
    unit = module.params["unit"]
    try:
        server = Server(unit)
        if server.up:
            module.exit_json(changed=False, msg=f"{unit} is up, and was left alone")
        if not server.down:
            raise Refused(f"{unit} is {server.state}: somebody is at work")
        try:
            found = PidFile(server)
        except FileNotFoundError:
            module.exit_json(changed=False, msg=f"there is no {NAME} in {server.directory}")
        what = found.check_process()
        found.check_users()
        sockets = found.check_sockets()
        found.check_memory()
        if not module.check_mode:
            found.remove(sockets)
    except Refused as error:
        module.fail_json(msg=f"{error}. Nothing was changed")
    except OSError as error:
        module.fail_json(msg=f"cannot clear {NAME} of {unit}: {error}")
    module.exit_json(
        changed=True,
        msg=f"removed {found.path}, whose process {found.pid} {what}, and which nobody holds",
    )


if __name__ == "__main__":
    main()
