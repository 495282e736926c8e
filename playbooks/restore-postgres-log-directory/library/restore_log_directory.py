#!/usr/bin/python
"""Makes PostgreSQL's log directory and log writable for it again, as Debian's package has them.

It follows no link, and changes no file that has another name elsewhere: members of the group may
write to that directory, and could otherwise have root hand any file over to them.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.data_directory import Refused
from ansible.module_utils.postgres_server import Server

#: As postgresql-common's maintainer scripts make it.
PLACE, OWNER, GROUP, MODE = "/var/log/postgresql", "root", "postgres", 0o1775
#: As pg_ctlcluster makes a log.
LOG_GROUP, LOG_MODE = "adm", 0o640


class Directory:
    """The directory, held open, so that nobody puts another in its place."""

    def __init__(self, server, preview):
        self.server = server
        self.preview = preview
        self.done = []
        if server.debian is None:
            raise Refused(f"{server.unit} is no unit of Debian's, so where it logs is not known")
        own = f"{server.config}/log"
        name = f"postgresql-{server.debian['version']}-{server.debian['name']}.log"
        path = os.readlink(own) if os.path.islink(own) else f"{PLACE}/{name}"
        if os.path.dirname(path) != PLACE:
            raise Refused(f"{server.unit} logs to {path}, which is not below {PLACE}")
        self.log = os.path.basename(path)

    def restore(self):
        try:
            fd = os.open(PLACE, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            self.done.append(f"made {PLACE}")
            if self.preview:
                return
            os.mkdir(PLACE, 0o700)
            fd = os.open(PLACE, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise Refused(f"{PLACE} is a link or no directory: somebody arranged it") from None
            raise
        try:
            log = self._open_log(fd)
            self._give(fd, PLACE, OWNER, GROUP, MODE)
            if log is not None:
                told = os.fstat(log)
                user = pwd.getpwnam(self.server.user).pw_uid
                if told.st_uid != user or not told.st_mode & 0o200:
                    path = f"{PLACE}/{self.log}"
                    self._give(log, path, self.server.user, LOG_GROUP, LOG_MODE)
                os.close(log)
        finally:
            os.close(fd)

    def _open_log(self, directory):
        """The log; None: there is none yet. Raises Refused where it may be more than that."""
        try:
            fd = os.open(self.log, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        except FileNotFoundError:
            return None
        told = os.fstat(fd)
        if stat.S_ISREG(told.st_mode) and told.st_nlink == 1:
            return fd
        os.close(fd)
        raise Refused(f"{PLACE}/{self.log} is no plain file of its own ({told.st_nlink} names)")

    def _give(self, fd, path, owner, group, mode):
        told = os.fstat(fd)
        wanted = (pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid)
        if (told.st_uid, told.st_gid) == wanted and stat.S_IMODE(told.st_mode) == mode:
            return
        self.done.append(f"gave {path} to {owner}:{group} with mode {mode:o}")
        if not self.preview:
            os.fchown(fd, *wanted)
            os.fchmod(fd, mode)

    def check(self):
        """That its user can write there now. Raises Refused."""
        path = f"{PLACE}/{self.log}"
        target = path if os.path.lexists(path) else PLACE
        if self.server.run_own("test", "-w", target).returncode != 0:
            raise Refused(
                f"{self.server.user} may still not write to {target}: see getfacl, lsattr"
            )


def main():
    module = AnsibleModule(
        argument_spec={"unit": {"type": "str", "required": True}}, supports_check_mode=True
    )
    unit = module.params["unit"]
    try:
        server = Server(unit)
        if server.up:
            module.exit_json(changed=False, msg=f"{unit} is up, and was left alone")
        directory = Directory(server, module.check_mode)
        directory.restore()
        if not directory.done:
            raise Refused(f"{PLACE} and the log in it are as they should be; another reason counts")
        if not module.check_mode:
            directory.check()
    except Refused as error:
        module.fail_json(msg=str(error))
    except KeyError as error:
        module.fail_json(msg=f"this host does not know {error.args[0]}")
    except OSError as error:
        # A log that is a link is told here too.
        why = "its filesystem is read-only; a disk may be dying: see dmesg and findmnt"
        why = why if error.errno == errno.EROFS else error.strerror
        module.fail_json(msg=f"cannot restore {PLACE}: {why}")
    module.exit_json(changed=True, msg="; ".join(directory.done))


if __name__ == "__main__":
    main()
