#!/usr/bin/python
"""Rotates one log that grows without measure: renamed, opened anew by its writer, packed.

DOCUMENTATION: see the playbook beside it. Everything is asked before anything is changed; where the
writer does not open the new file, the old one gets its name back. Standard library and
ansible.module_utils only: it runs by whatever Python the remedy has.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import re
import shutil
import stat
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.logrotate import find_script

#: Longest that one command, and packing, may take, in seconds.
TIME_LIMIT, PACK_LIMIT = 30, 480
#: No logs, wherever they lie: a database's files, write-ahead and binary logs, copies of data.
DATA = re.compile(
    r"^ib(data|_|tmp|[a-z0-9]{6}$)|^(undo_|aria_log|[0-9A-F]{24})|[-_.](bin|wal)(\.|$)|binlog"
    r"|\.(sql|dump|bak|tar|zip|ibd|frm|my[id]|ma[id]|db|sqlite|rdb|aof|mbox)(\.|$)",
    re.IGNORECASE,
)
#: Kept by rules of their own: who did what, and who logged in.
KEPT = ("/var/log/journal/", "/var/log/audit/", "/var/log/private/")
#: Who opens logs anew at a signal (nginx(8), rsyslogd(8)), where logrotate has no word for it.
SIGNALS = {"nginx.service": "USR1", "rsyslog.service": "HUP"}
#: Asked for nothing: a host hangs on them.
NEVER = ("dbus*", "hostmend*", "init.scope", "ssh.service", "sshd.service", "systemd-*")
UNIT = re.compile(r"/([^/]+\.(?:service|scope))(?:/|$)", re.MULTILINE)
MB = 2**20


class NeedsHumanError(Exception):
    """Why nothing is done, with what a human would do."""


class Writer:
    """A process that has the log open for writing."""

    def __init__(self, pid):
        self.pid = pid
        self.command = self.unit = ""
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                self.command = file.read().strip()
            with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
                found = UNIT.search(file.read())
                self.unit = found[1] if found else ""

    def __str__(self):
        unit = f", {self.unit}" if self.unit else ""
        return f"{self.command} (process {self.pid}{unit})"


def find_writers(file):
    """Who has a file (device and inode) open for writing (proc_pid_fdinfo(5))."""
    found = {}
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    told = os.stat(f"/proc/{pid}/fd/{descriptor}")
                    if (told.st_dev, told.st_ino) != file:
                        continue
                    with open(f"/proc/{pid}/fdinfo/{descriptor}", encoding="ascii") as info:
                        flags = re.search(r"^flags:\s*([0-7]+)", info.read(), re.MULTILINE)
                    if flags and int(flags[1], 8) & os.O_ACCMODE != os.O_RDONLY:
                        found[pid] = Writer(int(pid))
    return list(found.values())


def is_log(path, roots):
    """Whether what lies there is a log, by where it lies and how it is called."""
    inside = any(path.startswith(root.rstrip("/") + "/") for root in roots)
    return inside and not path.startswith(KEPT) and not DATA.search(os.path.basename(path))


# Asking to open anew


def find_command(writer, log, reopen):
    """What makes a process open its log anew; None: nothing is known."""
    if not writer.unit or any(fnmatch.fnmatchcase(writer.unit, name) for name in NEVER):
        return None
    if reopen:
        return reopen
    if script := find_script(log):
        return ["sh", "-c", script, "logrotate_script", log]
    if signal := SIGNALS.get(writer.unit):
        return ["systemctl", "kill", f"--signal={signal}", "--kill-who=main", writer.unit]
    return None


# The work


def show_size(size):
    for unit, whole in (("GB", 2**30), ("MB", 2**20), ("KB", 2**10)):
        if size >= whole:
            return f"{size / whole:.3g} {unit}"
    return f"{size} B"


class Rotation:
    """One run."""

    def __init__(self, given):
        self.path = os.path.normpath(given["path"])
        self.given = given
        self.told = self.check_file()
        self.file = (self.told.st_dev, self.told.st_ino)
        self.writers = find_writers(self.file)
        self.target = time.strftime(f"{self.path}-%Y%m%d-%H%M%S")

    def check_file(self):
        path, roots = self.path, self.given["log_directories"]
        if not is_log(path, roots):
            raise NeedsHumanError(
                f"{path} is no log below {', '.join(roots)}, and what is none is never touched"
            )
        if os.path.realpath(path) != path:
            raise NeedsHumanError(
                f"a link leads to {path}: name the real place, {os.path.realpath(path)}"
            )
        told = os.lstat(path)
        if not stat.S_ISREG(told.st_mode) or told.st_nlink != 1:
            raise NeedsHumanError(f"{path} is no plain file with one name: see ls -li {path}")
        return told

    def find_commands(self):
        """How each writer is asked; a human is, where one of them cannot be."""
        path, writers = self.path, self.writers
        if not writers:
            raise NeedsHumanError(
                f"nobody has {path} open just now, so that it cannot be said who fills it: see "
                f"fatrace, or auditctl -w {path} -p w; then: truncate -s 0 {path}"
            )
        commands = []
        for writer in writers:
            argv = find_command(writer, path, self.given["reopen"])
            if argv is None:
                stop = f"systemctl restart {writer.unit}" if writer.unit else f"kill {writer.pid}"
                raise NeedsHumanError(
                    f"{path} ({show_size(self.told.st_size)}) is written by {writer}, and nothing "
                    f"says how it opens its log anew: a rule in /etc/logrotate.d with postrotate "
                    f"would; now: mv {path} {path}.old; {stop}"
                )
            if argv not in commands:
                commands.append(argv)
        if os.statvfs(os.path.dirname(path)).f_flag & os.ST_RDONLY:
            raise NeedsHumanError(
                f"the filesystem of {path} is read-only (errno {errno.EROFS}), and its disk may be "
                f"dying: see findmnt -no SOURCE,OPTIONS -T {path}"
            )
        return commands

    def rename(self):
        """The new log has the owner and the permissions of the old one, and is there at once."""
        place = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY)
        name, target = os.path.basename(self.path), os.path.basename(self.target)
        try:
            os.link(name, target, src_dir_fd=place, dst_dir_fd=place, follow_symlinks=False)
            draft = f".{name}.hostmend"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=place)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            fd = os.open(draft, flags, 0o600, dir_fd=place)
            try:
                os.fchown(fd, self.told.st_uid, self.told.st_gid)
                os.fchmod(fd, stat.S_IMODE(self.told.st_mode))
            finally:
                os.close(fd)
            os.rename(draft, name, src_dir_fd=place, dst_dir_fd=place)
        except OSError:
            with contextlib.suppress(OSError):
                if os.lstat(self.path).st_ino == self.told.st_ino:
                    os.unlink(target, dir_fd=place)
            raise
        finally:
            os.close(place)

    def reopen(self, commands):
        """Asks all writers, and waits until none has the old file open; in words, why not."""
        for argv in commands:
            try:
                done = subprocess.run(
                    argv,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=TIME_LIMIT,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                return f"{argv[0]}: {error}"
            if done.returncode != 0:
                why = (done.stderr or done.stdout).decode(errors="replace").strip()[-200:]
                return f"{argv[0]} ends with {done.returncode}: {why}"
        until = time.monotonic() + self.given["patience"]
        while left := find_writers(self.file):
            if time.monotonic() > until:
                return f"{left[0]} still writes to the old file"
            time.sleep(0.1)
        return ""

    def give_back(self):
        """The old file under its name again, where nothing was written to the new one."""
        told = os.lstat(self.path)
        if told.st_size == 0 and not find_writers((told.st_dev, told.st_ino)):
            os.rename(self.target, self.path)
            return f"{self.path} has its name back"
        return f"the old file is {self.target}"

    def pack(self):
        """Packs the old file, in words. Room and time are not spent without need."""
        room = os.statvfs(os.path.dirname(self.path))
        size = self.told.st_size
        if shutil.which("gzip") is None or size > self.given["pack_up_to_mb"] * MB:
            return f"{self.target}, which is not packed: gzip {self.target}"
        if room.f_bavail * room.f_frsize < size:
            return f"{self.target}, for which there is no room to pack it: gzip {self.target}"
        calm = [["ionice", "-c", "3"], ["nice", "-n", "19"]]
        words = [word for each in calm if shutil.which(each[0]) for word in each]
        try:
            done = subprocess.run(
                [*words, "gzip", "--no-name", self.target],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PACK_LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                os.unlink(f"{self.target}.gz")
            return f"{self.target}, since packing it takes long: gzip {self.target}"
        if done.returncode != 0:
            return f"{self.target}, since packing it failed: gzip {self.target}"
        return f"{self.target}.gz, {show_size(os.lstat(f'{self.target}.gz').st_size)}"


def rotate(rotation, preview):
    """What was done, in words, and whether a human is needed."""
    size = rotation.told.st_size
    if size <= rotation.given["larger_than_mb"] * MB:
        return "", f"{rotation.path} is {show_size(size)}: nothing is won by a rotation", False
    commands = rotation.find_commands()
    by = ", ".join(map(str, rotation.writers[:3]))
    if preview:
        return "", f"would rotate {rotation.path}, {show_size(size)}, written by {by}", False
    rotation.rename()
    if why := rotation.reopen(commands):
        back = rotation.give_back()
        units = dict.fromkeys(each.unit for each in rotation.writers)
        ways = "; ".join(f"systemctl restart {unit}" for unit in units)
        return "", f"{by} did not open {rotation.path} anew: {why}; {back}; {ways}", True
    where = rotation.pack()
    return f"rotated {rotation.path}, {show_size(size)}, written by {by}, to {where}", "", False


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "larger_than_mb": {"type": "int", "required": True},
            "pack_up_to_mb": {"type": "int", "required": True},
            "reopen": {"type": "list", "elements": "str"},
            "patience": {"type": "float", "required": True},
            "log_directories": {"type": "list", "elements": "path", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        done, words, needed = rotate(Rotation(module.params), module.check_mode)
    except NeedsHumanError as error:
        module.exit_json(changed=False, needs_human=True, msg=str(error))
    except FileNotFoundError:
        path = module.params["path"]
        module.exit_json(changed=False, needs_human=False, msg=f"there is no {path} to rotate")
    except OSError as error:
        module.fail_json(msg=f"cannot rotate {module.params['path']}: {error.strerror}")
    module.exit_json(changed=bool(done), needs_human=needed, msg=done or words)


if __name__ == "__main__":
    main()
