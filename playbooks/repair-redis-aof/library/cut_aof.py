#!/usr/bin/python
"""Cuts an unfinished last command off the file that Redis appended to last.

As `redis-check-aof --fix` does it, but for its question, and only where three agree that no whole
command is lost: the log of the last start, that tool, and what stands in the part that is cut. A
length that is damaged makes the rest of a file look like one command without an end too.
"""

from __future__ import annotations

import os
import re

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.data_directory import Refused, hash_file, show_size
from ansible.module_utils.redis_server import Server

#: What the tool says of each file that it has read (redis/src/redis-check-aof.c).
_ANALYZED = re.compile(
    r"AOF analyzed: filename=(?P<name>\S+), size=(?P<size>\d+), ok_up_to=(?P<good>\d+)"
)
_ENDS = re.compile(
    r"Expected to read \d+ bytes, got \d+ bytes|Reached EOF before reading EXEC for MULTI"
)
_VALID = "All AOF files and manifest are valid"
#: How a command begins, in the midst of what should be one value.
_BEGINS = re.compile(rb"\r\n\*\d+\r\n\$\d+\r\n")
#: When it was written (`aof-timestamp-enabled`).
_NOTE = re.compile(rb"#[^\r\n]*\r\n")
_NUMBER = re.compile(rb"([*$])(\d{1,10})\r\n")


def find_end(server, limit):
    """The file, its size, and how much of it is whole. Raises Refused where more may be lost."""
    said = server.last_words()
    if not said.startswith("Unexpected end of file"):
        words = f"says: {said}" if said else "does not say that its append only file breaks off"
        raise Refused(f"the log of its last start {words}. Nothing was changed")
    path = server.last_file()
    told = server.check_aof()
    found = [match for match in _ANALYZED.finditer(told) if match["name"] == os.path.basename(path)]
    if len(found) != 1 or not _ENDS.search(told):
        words = " ".join(told.split())[-300:]
        raise Refused(
            f"redis-check-aof does not say that {path} breaks off: {words}. Nothing was changed"
        )
    size, good = int(found[0]["size"]), int(found[0]["good"])
    if size != os.path.getsize(path) or not good < size:
        raise Refused(f"{path} changed while it was read: somebody else is at work")
    if size - good > limit:
        raise Refused(
            f"{path} is readable up to byte {good}, and {show_size(size - good)} would be cut off, "
            f"more than cut_limit_kb ({limit // 1024}). Nothing was changed"
        )
    with open(path, "rb") as file:
        file.seek(good)
        check_unfinished(file.read(), path)
    return path, size, good


def check_unfinished(end, path):
    """That the end of a file is one command, or one transaction, without its own end."""
    at, whole = 0, 0
    while True:
        while (note := _NOTE.match(end, at)) is not None:
            at = note.end()
        name, after = read_command(end, at)
        if not name:
            break
        # Whole commands are there to be cut only of a transaction that was not ended.
        if whole == 0 and name.upper() != b"MULTI":
            raise Refused(
                f"what would be cut off {path} is more than an unfinished command. "
                "Nothing was changed"
            )
        whole, at = whole + 1, after
    if _BEGINS.search(end, at):
        raise Refused(
            f"what would be cut off {path} holds the beginnings of further commands: a length is "
            "damaged, and whole commands would be lost. Nothing was changed"
        )
    if at < len(end) and end.endswith(b"\r\n"):
        raise Refused(
            f"the last command in {path} ends as one that is whole, so that rather its length is "
            "damaged. Nothing was changed"
        )


def read_command(data, at):
    """The name of the command there, and where it ends; an empty one without its end."""
    if (head := _NUMBER.match(data, at)) is None or head[1] != b"*":
        return b"", at
    name, end = b"", head.end()
    for _ in range(int(head[2])):
        if (size := _NUMBER.match(data, end)) is None or size[1] != b"$":
            return b"", at
        begin, end = size.end(), size.end() + int(size[2])
        if data[end : end + 2] != b"\r\n":
            return b"", at
        name, end = name or data[begin:end], end + 2
    return name, end


def cut(server, path, good, place):
    """Cuts, and has it looked at again. Raises Refused."""
    copied = os.path.join(place, "data", os.path.relpath(path, server.directory))
    if hash_file(path) != hash_file(copied):
        raise Refused(f"the copy of {path} is not what it is now")
    with open(path, "r+b") as file:
        file.truncate(good)
        os.fsync(file.fileno())
    told = server.check_aof()
    if _VALID not in told:
        raise Refused(f"{path} was cut, and is not whole yet: {' '.join(told.split())[-300:]}")


def main():
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "limit_kb": {"type": "int", "required": True},
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
        path, size, good = find_end(server, given["limit_kb"] * 1024)
        if not given["place"]:
            raise Refused(given["no_place"])
        words = f"{size - good} bytes of an unfinished command off {path}, which had {size}"
        if module.check_mode:
            module.exit_json(changed=True, msg=f"would cut {words}")
        cut(server, path, good, given["place"])
    except (Refused, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, msg=f"cut {words}")


if __name__ == "__main__":
    main()
