#!/usr/bin/python
"""Gives back the room of deleted logs that processes still write to.

DOCUMENTATION: see the playbook beside it. First who writes is asked to open its log anew, as the
host's own configuration does it after a rotation. What is still held then is truncated through its
descriptor, only where each writer appends: one that does not would go on where it was, and leave a
hole. Standard library and ansible.module_utils only: it runs by whatever Python the remedy has.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import stat
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.logrotate import find_script

#: Longest that one command may take, in seconds.
TIME_LIMIT = 30
DELETED = " (deleted)"
#: No logs, wherever they lay: a database's files, write-ahead and binary logs, copies of data.
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


class Holder:
    """A descriptor by which a process writes to a file that has no name any more."""

    def __init__(self, pid, descriptor, path, told, flags):
        self.pid = pid
        self.path = path
        self.file = (told.st_dev, told.st_ino)
        self.bytes = told.st_blocks * 512
        self.appends = bool(flags & os.O_APPEND)
        self.door = f"/proc/{pid}/fd/{descriptor}"
        self.command, self.unit = read_process(pid)

    def __str__(self):
        unit = f", {self.unit}" if self.unit else ""
        return f"{self.command} (process {self.pid}{unit})"


def read_process(pid):
    command = unit = ""
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            command = file.read().strip()
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
            found = UNIT.search(file.read())
            unit = found[1] if found else ""
    return command, unit


def read_flags(pid, descriptor):
    """As open(2) was told, in octal (proc_pid_fdinfo(5))."""
    with open(f"/proc/{pid}/fdinfo/{descriptor}", encoding="ascii") as file:
        found = re.search(r"^flags:\s*([0-7]+)", file.read(), re.MULTILINE)
    return int(found[1], 8) if found else 0


def shares_root(pid):
    """Whether a process calls files by the names that they have here: none in a container does."""
    own, other = os.stat("/"), os.stat(f"/proc/{pid}/root/")
    return (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino)


def is_log(path, roots):
    """Whether what lay there was a log, by where it lay and how it was called."""
    inside = any(path.startswith(root.rstrip("/") + "/") for root in roots)
    return inside and not path.startswith(KEPT) and not DATA.search(os.path.basename(path))


def find_holders(choose):
    """Who writes to deleted regular files. `choose` is told the last path and the state of each."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if not shares_root(pid):
                continue
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    door = f"/proc/{pid}/fd/{descriptor}"
                    link = os.readlink(door)
                    # A memfd is called so too, and is none of these: it does not begin with a path.
                    if not link.endswith(DELETED) or link.startswith("/memfd:"):
                        continue
                    told, flags = os.stat(door), read_flags(pid, descriptor)
                    path = link.removesuffix(DELETED)
                    gone = stat.S_ISREG(told.st_mode) and told.st_nlink == 0
                    writes = flags & os.O_ACCMODE != os.O_RDONLY
                    if gone and writes and choose(path, told):
                        found.append(Holder(int(pid), int(descriptor), path, told, flags))
    return found


# Asking to open anew


def find_command(holder, reopen):
    """What makes a process open its log anew; None: nothing is known."""
    if not holder.unit or any(fnmatch.fnmatchcase(holder.unit, name) for name in NEVER):
        return None
    if reopen:
        return reopen
    if script := find_script(holder.path):
        return ["sh", "-c", script, "logrotate_script", holder.path]
    if signal := SIGNALS.get(holder.unit):
        return ["systemctl", "kill", f"--signal={signal}", "--kill-who=main", holder.unit]
    return None


def ask_to_reopen(holders, reopen):
    """Runs each command once; in words, what failed."""
    asked, notes = [], []
    for holder in holders:
        argv = find_command(holder, reopen)
        if argv is None or argv in asked:
            continue
        asked.append(argv)
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIME_LIMIT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            notes.append(f"{argv[0]} for {holder.path}: {error}")
            continue
        if done.returncode != 0:
            why = (done.stderr or done.stdout).decode(errors="replace").strip()[-200:]
            notes.append(f"asking {holder.unit} to open {holder.path} anew failed: {why}")
    return bool(asked), notes


# Truncating


def truncate(holders):
    """Frees the room of one file whose writers all append. Raises OSError."""
    for holder in holders:
        fd = os.open(holder.door, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            # The descriptor may stand for another file by now.
            told = os.fstat(fd)
            if (told.st_dev, told.st_ino) == holder.file and told.st_nlink == 0:
                os.ftruncate(fd, 0)
                return True
        finally:
            os.close(fd)
    return False


def group_files(holders):
    files = {}
    for holder in holders:
        files.setdefault(holder.file, []).append(holder)
    return list(files.values())


def show_size(size):
    for unit, whole in (("GB", 2**30), ("MB", 2**20), ("KB", 2**10)):
        if size >= whole:
            return f"{size / whole:.3g} {unit}"
    return f"{size} B"


class Work:
    """One run."""

    def __init__(self, given, preview):
        self.path = os.path.normpath(given["path"])
        self.roots = given["log_directories"]
        self.reopen = given["reopen"]
        self.patience = given["patience"]
        self.preview = preview
        self.whole_filesystem = os.path.ismount(self.path)
        self.device = os.stat(self.path).st_dev if self.whole_filesystem else None
        self.done, self.notes, self.open = [], [], []

    def chosen(self, path, told):
        if not is_log(path, self.roots):
            return False
        return told.st_dev == self.device if self.whole_filesystem else path == self.path

    def find(self):
        return find_holders(self.chosen)

    def run(self):
        if not self.whole_filesystem and not is_log(self.path, self.roots):
            self.notes.append(
                f"{self.path} is no log below {', '.join(self.roots)}, and what is none is never "
                "touched"
            )
            return
        held = self.find()
        if not held or self.preview:
            self.open = held
            return
        asked, self.notes = ask_to_reopen(held, self.reopen)
        left = self.await_release() if asked else held
        let_go = {holder.file for holder in held} - {holder.file for holder in left}
        for file in group_files(held):
            if file[0].file in let_go:
                self.done.append(
                    f"{file[0]} opened {file[0].path} anew, which gave back "
                    f"{show_size(file[0].bytes)}"
                )
        for file in group_files(left):
            self.free(file)

    def await_release(self):
        until = time.monotonic() + self.patience
        while (left := self.find()) and time.monotonic() < until:
            time.sleep(0.1)
        return left

    def free(self, file):
        """Truncates one file that is still held, where that harms nobody."""
        holder = file[0]
        self.open += file
        others = [each for each in file if not each.appends]
        if others:
            self.notes.append(
                f"{others[0]} does not append to {holder.path}, so truncating it would leave a hole"
            )
            return
        if not holder.bytes:
            return
        with contextlib.suppress(OSError):
            if truncate(file):
                self.done.append(
                    f"{show_size(holder.bytes)} of the deleted {holder.path} were given back by "
                    f"truncating it; {holder} still writes to it"
                )

    def report(self):
        if self.preview and self.open:
            named = ", ".join(dict.fromkeys(f"{each.path} of {each}" for each in self.open))
            return f"would ask to open anew, and else truncate: {named}", False
        if not self.open:
            words = "; ".join([*self.done, *self.notes])
            # What nobody knows is left to whoever asked for it.
            return words or f"nothing deleted is held of {self.path}", bool(self.notes)
        units = dict.fromkeys(each.unit for each in self.open if each.unit)
        ways = [f"systemctl restart {unit}" for unit in units]
        ways += [f"end process {each.pid} ({each.command})" for each in self.open if not each.unit]
        paths = ", ".join(dict.fromkeys(each.path for each in self.open))
        words = f"lines written to {paths} are still seen by nobody: {'; '.join(ways)}"
        # A filesystem needs only its room.
        needed = not (self.whole_filesystem and self.done and not self.notes)
        return "; ".join([*self.done, *self.notes, words]), needed


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "reopen": {"type": "list", "elements": "str"},
            "patience": {"type": "float", "required": True},
            "log_directories": {"type": "list", "elements": "path", "required": True},
        },
        supports_check_mode=True,
    )
    work = Work(module.params, module.check_mode)
    work.run()
    words, needs_human = work.report()
    module.exit_json(changed=bool(work.done), needs_human=needs_human, msg=words)


if __name__ == "__main__":
    main()
