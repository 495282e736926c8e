#!/usr/bin/python
"""Writes the index of MariaDB's binary logs anew, from the logs that are there.

The index is kept as it was before. Raised as a failure, for a human: logs with a gap between them,
one that is no binary log, one that is listed and missing after a crash, and prepared transactions,
whose end only a log that is missing can know.
"""

from __future__ import annotations

import os
import re
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.data_directory import (
    Refused,
    check_place,
    read_journal_backwards,
    write_file,
)
from ansible.module_utils.mariadb_server import WORDS, Server

#: The first bytes of every binary log.
MAGIC = b"\xfebin"


class Index:
    def __init__(self, server):
        if not server.log_base:
            raise Refused(f"{server.unit} has no binary log configured (log_bin)")
        self.path, self.server = server.log_index, server
        self.directory, self.base = os.path.split(server.log_base)
        try:
            with open(self.path, "rb") as file:
                self.text = file.read(1 << 24)
        except FileNotFoundError:
            self.text = None
        except OSError as error:
            raise Refused(f"cannot read {self.path}: {error.strerror}") from None
        self.there = self._find()
        self.listed = set(self._read())

    def _find(self):
        """The numbers of the logs that are there, and their names."""
        found = {}
        try:
            names = os.listdir(self.directory)
        except OSError as error:
            raise Refused(f"cannot read {self.directory}: {error.strerror}") from None
        for name in names:
            if match := re.fullmatch(re.escape(self.base) + r"\.(\d{6,})", name):
                found[int(match[1])] = name
        return found

    def _read(self):
        """The numbers that are listed, as far as it can be read."""
        pattern = rf"^(?:.*/)?{re.escape(self.base)}\.(\d{{6,}})$"
        text = (self.text or b"").decode("utf-8", "replace")
        return [int(number) for number in re.findall(pattern, text, re.MULTILINE)]

    def check(self, clean, why):
        """Raises Refused where what is there is not all that must be."""
        if not self.there:
            raise Refused(f"there is no binary log in {self.directory}")
        numbers = sorted(self.there)
        for number in range(numbers[0], numbers[-1]):
            if number not in self.there:
                raise Refused(f"binary log {number:06d} of {self.server.log_base} is missing")
        for name in self.there.values():
            path = os.path.join(self.directory, name)
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if os.read(fd, len(MAGIC)) != MAGIC:
                    raise Refused(f"{path} is no binary log")
            finally:
                os.close(fd)
        if (lost := self.find_lost()) and not clean:
            raise Refused(
                f"{lost[-1]} is listed and is not there, and may know the end of the last "
                f"transactions: of the server's last end, {why}"
            )
        if not clean and (count := find_prepared(self.server)):
            raise Refused(
                f"{count} transactions were prepared in a crash, and the binary log that knows "
                "whether they were committed is missing"
            )

    def find_lost(self):
        """Listed, and newer than all that is there; older ones were purged."""
        newest = max(self.there, default=0)
        return [f"{self.base}.{n:06d}" for n in sorted(self.listed) if n > newest]

    def make(self):
        configured = self.server.settings["log_bin"]
        below = self.directory if os.path.isabs(configured) else "."
        names = [self.there[number] for number in sorted(self.there)]
        return "".join(f"{below}/{name}\n" for name in names).encode()

    def write(self, text):
        """In one step, with the owner and the mode of the logs themselves."""
        name = self.there[max(self.there)]
        told = os.stat(os.path.join(self.directory, name), follow_symlinks=False)
        write_file(self.path, text, owner=(told.st_uid, told.st_gid), mode=0o660)

    def keep(self, copies):
        """The index as it was, where only root can touch it: its path there."""
        if self.text is None:
            return "there was none"
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        path = os.path.join(copies, f"index-of-{self.server.unit}-{stamp}")
        write_file(path, self.text)
        return f"as it was it is {path}"


def find_prepared(server):
    """How many transactions the last attempt to start it found prepared and could not end."""
    if "log_error" in server.settings:
        return 0
    for line in read_journal_backwards(server.unit):
        if found := re.search(r"\[ERROR\] Found (\d+) prepared transactions", line):
            return int(found[1])
        if WORDS.begins.search(line):
            break
    return 0


def main():
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "clean": {"type": "bool", "required": True},
            "why": {"type": "str", "required": True},
            "copies": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        check_place(given["copies"])
        server = Server(given["unit"])
        if server.up:
            raise Refused(f"{given['unit']} is up again: somebody else is at work")
        index = Index(server)
        index.check(given["clean"], given["why"])
        text = index.make()
        if text == index.text:
            raise Refused(f"{index.path} lists all binary logs that are there: it is not the cause")
        words = f"{index.path} lists the {len(index.there)} binary logs that are there"
        if lost := index.find_lost():
            words += (
                f"; it named {', '.join(lost[:3])} too, which is gone: see that replicas and "
                "backups do not miss it"
            )
        if module.check_mode:
            module.exit_json(changed=True, msg=f"would make that {words}")
        kept = index.keep(given["copies"])
        index.write(text)
    except (Refused, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, msg=f"{words}; {kept}")


if __name__ == "__main__":
    main()
