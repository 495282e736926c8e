#!/usr/bin/python
"""Copies a data directory to another filesystem, and proves that the copy is equal.

A module of the remedies that change data. The copy gets a directory of its own in `to`:

    UNIT-HOST-20261126T031500Z/
        about.json    what it is a copy of, and of which state
        SHA256SUMS    of all files, as they were; `sha256sum -c` knows the format
        data/         the copy, with owners, modes and times

`only` names files below the source: nothing else is copied. `in_use`: the service goes on, and what
is copied must not change meanwhile. `name` takes the place of UNIT-HOST.

It is there as a whole or not at all. A copy of this same state that is there already is taken as it
is: whoever runs a remedy again makes no second one. In a preview it copies nothing, and says all
the same whether it could.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.data_directory import (
    RESERVE,
    Refused,
    Tree,
    check_place,
    find_users,
    hash_file,
    run,
    show_size,
)

#: Of one unit's data in one place. Each may be large, and nothing but a human removes one.
MOST_COPIES = 3


def check_room(to, tree, copies):
    told = os.statvfs(to)
    free = told.f_bavail * told.f_frsize
    needed = tree.bytes + 4096 * len(tree.entries) + int(RESERVE * told.f_blocks * told.f_frsize)
    if needed > free or (told.f_files and len(tree.entries) + 16 > told.f_favail):
        older = f"; earlier copies lie there: {', '.join(copies[:5])}" if copies else ""
        raise Refused(
            f"there is no room for a copy in {to}: {show_size(needed)} are needed, with what must "
            f"stay free, and {show_size(free)} are there{older}"
        )


def find_copies(to, prefix):
    """Earlier copies of this one's data, the newest first."""
    names = [name for name in os.listdir(to) if name.startswith(f"{prefix}-")]
    return sorted((os.path.join(to, name) for name in names), reverse=True)


def find_same(copies, state):
    """A copy of exactly this state that is still whole."""
    for place in copies:
        with contextlib.suppress(OSError, ValueError, KeyError, Refused):
            with open(os.path.join(place, "about.json"), encoding="utf-8") as file:
                about = json.load(file)
            if about["state"] == state and Tree(os.path.join(place, "data")).digest() == state:
                return place
    return ""


def compare(source, copy):
    """Every file by its content, every other entry by its kind and owner: the sums of all files."""
    if source.digest() != copy.digest():
        names = source.entries.keys() | copy.entries.keys()
        differ = [n for n in sorted(names) if source.entries.get(n) != copy.entries.get(n)]
        raise Refused(f"the copy differs from {source.root}: {', '.join(differ[:5])}")
    sums = {}
    for name in source.files():
        sums[name] = hash_file(os.path.join(source.root, name))
        if hash_file(os.path.join(copy.root, name)) != sums[name]:
            raise Refused(f"the copy of {source.root}/{name} differs")
    return sums


def make_copy(source, tree, place, about, in_use=False):
    """The copy, whole and written down, at `place`."""
    draft = os.path.join(os.path.dirname(place), f".{os.path.basename(place)}.partial")
    os.mkdir(draft, 0o700)
    try:
        data = os.path.join(draft, "data")
        argv = ["cp", "--archive", "--reflink=auto"]
        if tree.only:
            os.mkdir(data, 0o700)
            argv += ["--parents", f"--target-directory={data}", "--", *sorted(tree.only)]
        else:
            argv += ["--no-target-directory", "--", source, data]
        done = run(argv, timeout=None, cwd=source)
        if done.returncode != 0:
            raise Refused(f"the copy failed: {done.stderr.strip()[:300]}")
        now = Tree(source, tree.only).digest()
        if now != tree.digest() or (not in_use and find_users([source])):
            raise Refused(f"{source} was changed while it was copied: somebody else is at work")
        sums = compare(tree, Tree(data))
        with open(os.path.join(draft, "SHA256SUMS"), "w", errors="surrogateescape") as file:
            file.writelines(f"{value}  data/{name}\n" for name, value in sums.items())
        with open(os.path.join(draft, "about.json"), "w", encoding="utf-8") as file:
            json.dump(about, file, indent=1)
        run(["sync", "--file-system", draft], timeout=None)
        os.rename(draft, place)
        run(["sync", "--file-system", place], timeout=None)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def copy(given, preview):
    source, to = os.path.realpath(given["source"]), given["to"]
    if not os.path.isdir(source):
        raise Refused(f"there is no directory {given['source']} to copy")
    check_place(to, source)
    tree = Tree(source, given["only"])
    if missing := sorted(tree.only - tree.entries.keys()):
        raise Refused(f"{source}/{missing[0]} is not there to be copied")
    state = tree.digest()
    prefix = given["name"] or f"{given['unit']}-{socket.gethostname()}"
    copies = find_copies(to, prefix)
    if place := find_same(copies, state):
        return False, place, tree, "is there already"
    if tree.bytes > given["limit_gb"] * 2**30:
        raise Refused(
            f"{source} holds {show_size(tree.bytes)}, more than copy_limit_gb "
            f"({given['limit_gb']:g}): copying it would be an outage of its own"
        )
    if len(copies) >= MOST_COPIES:
        raise Refused(
            f"{len(copies)} copies of it lie in {to} already: a fault that keeps coming back needs "
            "eyes; remove those that nobody needs"
        )
    check_room(to, tree, copies)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    place = os.path.join(to, f"{prefix}-{stamp}")
    if preview:
        return True, place, tree, "would be made"
    if not given["in_use"] and (users := find_users([source])):
        raise Refused(f"{source} is in use, so no copy of it is whole: {', '.join(users[:5])}")
    with open(os.path.join(to, f".{prefix}.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refused(f"another copy of {source} is being made in {to}") from None
        for name in os.listdir(to):
            # Left behind by a run that was killed.
            if name.startswith(f".{prefix}-") and name.endswith(".partial"):
                shutil.rmtree(os.path.join(to, name))
        about = {
            "unit": given["unit"],
            "source": source,
            "made": stamp,
            "bytes": tree.bytes,
            "files": len(tree.files()),
            "state": state,
            "by": "hostmend",
        }
        make_copy(source, tree, place, about, given["in_use"])
    return True, place, tree, "is made, and every file of it compared"


def main():
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "source": {"type": "path", "required": True},
            "to": {"type": "path", "required": True},
            "limit_gb": {"type": "float", "required": True},
            "only": {"type": "list", "elements": "str", "default": []},
            "name": {"type": "str", "default": ""},
            "in_use": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        changed, place, tree, how = copy(module.params, module.check_mode)
    except Refused as error:
        module.fail_json(msg=str(error))
    except (OSError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"cannot copy {module.params['source']}: {error}")
    size, count = show_size(tree.bytes), len(tree.files())
    module.exit_json(
        changed=changed,
        place=place,
        bytes=tree.bytes,
        msg=f"a copy of {tree.root} ({size}, {count} files) {how}: {place}",
    )


if __name__ == "__main__":
    main()
