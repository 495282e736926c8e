#!/usr/bin/python
"""Makes the directory of MariaDB's binary logs, or gives it and the logs back to the server's user.

Owner, group and mode are those of Debian's package. Raised as a failure, for a human: a place that
something is to be mounted on and is not, and one whose parent everybody may write to.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.data_directory import Refused
from ansible.module_utils.mariadb_server import Server

MODE = 0o2750


def find_mount_missing(directory, fstab="/etc/fstab", mounts="/proc/self/mounts"):
    """A mount point at or above the directory that is to be mounted and is not; empty for none."""
    with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
        there = {_unescape(line.split(" ")[1]) for line in file}
    try:
        with open(fstab, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.split() for line in file if not line.lstrip().startswith("#")]
    except FileNotFoundError:
        return ""
    for words in lines:
        point = os.path.normpath(_unescape(words[1])) if len(words) > 1 else ""
        if not point.startswith("/") or point in there:
            continue
        if os.path.commonpath([point, directory]) == point:
            return point
    return ""


def _unescape(text):
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def find_owner(user):
    """The numbers of the server's user, and of the group that may read logs."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise Refused(f"there is no user {user} on this host") from None
    try:
        return entry.pw_uid, grp.getgrnam("adm").gr_gid
    except KeyError:
        return entry.pw_uid, entry.pw_gid


def restore(server, preview):
    """What was done, in words."""
    if not server.log_base:
        raise Refused(f"{server.unit} has no binary log configured (log_bin)")
    directory = os.path.dirname(server.log_base)
    if directory == server.directory:
        raise Refused("its binary logs lie in its data directory, which is there")
    above = os.path.dirname(directory)
    if point := find_mount_missing(directory):
        raise Refused(f"{point} is not mounted: mount it, for its binary logs are there")
    if not os.path.isdir(above):
        raise Refused(f"{above} is missing as well: nobody knows what belongs there")
    told = os.stat(above)
    if told.st_uid != 0 or (told.st_mode & stat.S_IWOTH and not told.st_mode & stat.S_ISVTX):
        raise Refused(f"everybody may write to {above}: chmod o-w {above}")
    owner = find_owner(server.user)
    made = not os.path.lexists(directory)
    if preview:
        return made, f"would {'make' if made else 'give back'} {directory}"
    if made:
        os.mkdir(directory, 0o700)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        given = [] if made else give_back_logs(fd, server, owner)
        told = os.fstat(fd)
        if (told.st_uid, told.st_gid) != owner or stat.S_IMODE(told.st_mode) != MODE:
            os.fchown(fd, *owner)
            os.fchmod(fd, MODE)
            given.append(directory)
    finally:
        os.close(fd)
    if made:
        return True, f"made {directory}; binary logs that were in it are gone: see to your replicas"
    if not given:
        raise Refused(f"{directory} is there and belongs to {server.user}: it is not the cause")
    return True, f"gave {directory} back to {server.user}"


def give_back_logs(fd, server, owner):
    """The logs and their index; nothing else that lies there, and nothing with a second name."""
    base = re.escape(os.path.basename(server.log_base))
    given = []
    for name in os.listdir(fd):
        if not re.fullmatch(rf"{base}\.(\d{{6,}}|index|state)", name):
            continue
        told = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if not stat.S_ISREG(told.st_mode) or told.st_nlink != 1:
            raise Refused(f"{name} in {server.log_base} is no plain file")
        if told.st_uid != owner[0] or told.st_mode & 0o600 != 0o600:
            os.chown(name, *owner, dir_fd=fd, follow_symlinks=False)
            each = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)
            try:
                os.fchmod(each, 0o660)
            finally:
                os.close(each)
            given.append(name)
    return given


def main():
    module = AnsibleModule(
        argument_spec={"unit": {"type": "str", "required": True}}, supports_check_mode=True
    )
    try:
        server = Server(module.params["unit"])
        if server.up:
            raise Refused(f"{server.unit} is up again: somebody else is at work")
        changed, words = restore(server, module.check_mode)
    except (Refused, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, msg=words)


if __name__ == "__main__":
    main()
