#!/usr/bin/python
"""Sets corrupt files of this host's journal aside, and proves that the journal is well.

DOCUMENTATION: see the playbook beside it. Whether a file is corrupt is journalctl's to say, file by
file. Files are renamed, never removed and never copied, so it needs no room. Standard library and
ansible.module_utils only: it runs by whatever Python the remedy has.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import socket
import stat
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.commands import NeedsHumanError, run

#: Longest that one file may be verified, and one other command take, in seconds.
VERIFY_LIMIT, TIME_LIMIT = 120, 30
#: A file that is written to while it is read may seem broken once, and not three times.
TRIES = 3
#: How long a line may take to arrive, in seconds.
PATIENCE = 20
JOURNALD = "systemd-journald.service"
#: What hostmend's own checks leave out of what they count.
CANARY = "hostmend canary "


def find_fault(path):
    """What journalctl says is wrong with one file; empty: nothing. None: it cannot tell."""
    quiet = [["ionice", "-c", "3"], ["nice", "-n", "19"]]
    calm = [word for words in quiet if shutil.which(words[0]) for word in words]
    code, printed = run(
        [*calm, "journalctl", "--verify", "--quiet", "--no-pager", f"--file={path}"], VERIFY_LIMIT
    )
    if code == 0 or not os.path.exists(path):
        return ""
    return next((line for line in printed.splitlines() if line.startswith("FAIL")), None)


def is_active(name):
    """Whether journald writes to it: the others are archived, or were set aside (`~`)."""
    return name.endswith(".journal") and "@" not in name


class Journal:
    """The journal of this host on the disk."""

    def __init__(self, directory, quarantine, preview):
        with open("/etc/machine-id", encoding="ascii") as file:
            self.place = os.path.join(directory, file.read().strip())
        self.quarantine = quarantine
        self.preview = preview
        self.faults = {}
        self.unclear = []

    def list(self):
        """Names of regular files, those that journald writes to last."""
        names = [
            entry.name
            for entry in os.scandir(self.place)
            if entry.name.endswith((".journal", ".journal~"))
            and entry.is_file(follow_symlinks=False)
        ]
        return sorted(names, key=lambda name: (is_active(name), name))

    def verify(self):
        """Which files are corrupt, and which nobody can tell of."""
        self.faults, self.unclear = {}, []
        for name in self.list():
            path = os.path.join(self.place, name)
            fault = find_fault(path)
            for _ in range(TRIES - 1):
                if not (fault and is_active(name)):
                    break
                time.sleep(1)
                fault = find_fault(path)
            if fault is None:
                self.unclear.append(name)
            elif fault:
                self.faults[name] = fault

    def check_gates(self):
        if not os.path.isdir(self.place):
            raise NeedsHumanError(
                f"this host keeps no journal in {self.place}: see journalctl --header"
            )
        code, printed = run(["systemctl", "is-active", JOURNALD], TIME_LIMIT)
        if code != 0:
            raise NeedsHumanError(
                f"{JOURNALD} is {printed.strip()}, and whoever starts it must see why it is down: "
                f"systemctl status {JOURNALD}; systemctl start {JOURNALD}"
            )
        if os.statvfs(self.place).f_flag & os.ST_RDONLY:
            raise NeedsHumanError(
                f"the filesystem of {self.place} is read-only (errno {errno.EROFS}), and its disk "
                f"may be dying: see findmnt -no SOURCE,OPTIONS -T {self.place}; dmesg --level=err"
            )
        above = os.path.dirname(self.quarantine)
        if os.stat(above).st_dev != os.stat(self.place).st_dev:
            raise NeedsHumanError(
                f"{self.quarantine} is on another filesystem than {self.place}, and nothing is "
                "copied: name another `quarantine`"
            )
        if self.unclear:
            raise NeedsHumanError(
                "journalctl cannot tell whether these are corrupt: "
                + "; ".join(f"journalctl --verify --file={self.place}/{n}" for n in self.unclear)
            )

    def rotate(self):
        """Has journald close its corrupt file and begin another."""
        code, printed = run(["journalctl", "--rotate"], TIME_LIMIT)
        if code != 0:
            raise NeedsHumanError(
                f"journalctl --rotate fails, so nothing was set aside: {printed.strip()[-300:]}"
            )
        self.verify()
        if left := [name for name in self.faults if is_active(name)]:
            raise NeedsHumanError(
                f"{', '.join(left)} is corrupt again after journalctl --rotate: the disk or the "
                "memory may be dying, see journalctl -k -p err"
            )

    def set_aside(self):
        """Renames each corrupt file into the quarantine; in words, what and why."""
        told = os.stat(self.place)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.quarantine, 0o750)
            os.chown(self.quarantine, 0, told.st_gid)
        own = os.stat(self.quarantine, follow_symlinks=False)
        if not stat.S_ISDIR(own.st_mode) or own.st_uid != 0:
            raise NeedsHumanError(f"{self.quarantine} is no directory of root's: remove it")
        moved = []
        for name, fault in sorted(self.faults.items()):
            target = os.path.join(self.quarantine, name)
            if os.path.lexists(target):
                target = f"{target}.{secrets.token_hex(4)}"
            with contextlib.suppress(FileNotFoundError):
                os.rename(os.path.join(self.place, name), target)
                moved.append(f"{target} ({fault[:200]})")
        return moved

    def await_whole(self):
        """The journal verifies as a whole."""
        for _ in range(TRIES):
            self.verify()
            if not self.faults and not self.unclear:
                return
        named = "; ".join(sorted([*self.faults.values(), *self.unclear]))
        raise NeedsHumanError(f"the journal still does not verify: {named}; journalctl --verify")


def send_canary():
    """A line that arrives in the journal, or a human is asked."""
    text = f"{CANARY}{secrets.token_hex(8)}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(5)
            sender.connect("/dev/log")
            sender.send(f"<13>hostmend[{os.getpid()}]: {text}".encode())
    except OSError as error:
        raise NeedsHumanError(
            f"nothing takes lines at /dev/log ({error.strerror}): systemctl status {JOURNALD}"
        ) from None
    until = time.monotonic() + PATIENCE
    ask = ["journalctl", "--quiet", "--identifier=hostmend", "--since=-2min", "--output=cat"]
    while text not in run(ask, TIME_LIMIT)[1]:
        if time.monotonic() > until:
            raise NeedsHumanError(
                f"a line to the journal did not arrive within {PATIENCE} s: "
                f"systemctl restart {JOURNALD}"
            )
        time.sleep(0.2)


def repair(journal):
    """What was done, in words, one each."""
    if os.path.isdir(journal.place):
        journal.verify()
    journal.check_gates()
    if not journal.faults:
        return []
    if journal.preview:
        return [f"would set aside {', '.join(sorted(journal.faults))}"]
    if any(map(is_active, journal.faults)):
        journal.rotate()
    moved = journal.set_aside()
    return [f"set aside {each}" for each in moved]


def main():
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "quarantine": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    journal = Journal(module.params["directory"], module.params["quarantine"], module.check_mode)
    done = []
    try:
        done = repair(journal)
        if not module.check_mode:
            if done:
                journal.await_whole()
            send_canary()
    except NeedsHumanError as error:
        module.exit_json(changed=bool(done), needs_human=True, msg="; ".join([*done, str(error)]))
    except OSError as error:
        module.fail_json(msg=f"cannot repair the journal: {error.filename}: {error.strerror}")
    whole = "the journal verifies, and takes lines"
    if module.check_mode and not done:
        done = ["no file is corrupt"]
    elif not module.check_mode:
        whole = whole if not done else f"the rest of {whole}"
        done.append(whole)
    module.exit_json(changed=len(done) > 1, needs_human=False, msg="; ".join(done))


if __name__ == "__main__":
    main()
