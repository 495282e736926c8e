#!/usr/bin/python
"""Restarts the system's logger when it does not write, and proves by a line that it does again.

DOCUMENTATION: see the playbook beside it. Whether it writes is proved by a line of its own, before
and after: that the service is up says nothing. Standard library and ansible.module_utils only: it
runs by whatever Python the remedy has.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import socket
import stat
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.commands import NeedsHumanError, run

SOCKET = "/dev/log"
#: What hostmend's own checks leave out of what they count.
CANARY = "hostmend canary "
#: Longest that a restart, and another command, may take, in seconds.
RESTART_LIMIT, TIME_LIMIT = 120, 30
LOGGERS = ("rsyslog.service", "syslog-ng.service")
#: What must succeed before a restart, where it is there.
VALIDATIONS = {"rsyslog.service": ["rsyslogd", "-N1"], "syslog-ng.service": ["syslog-ng", "-s"]}
JOURNALD = "systemd-journald.service"
JOURNALD_UNITS = ("systemd-journald.socket", "systemd-journald-dev-log.socket", JOURNALD)
#: ioctl_iflags(2).
GET_FLAGS, IMMUTABLE = 0x80086601, 0x10
#: A line before the canary may be longer than what is read at once.
MOST = 16 * 2**20


def ask(unit, what):
    return run(["systemctl", "show", "--value", f"--property={what}", unit], TIME_LIMIT)[1].strip()


def send_line(text):
    """Why nothing takes a line; empty: it was taken."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(5)
            sender.connect(SOCKET)
            sender.send(f"<13>hostmend[{os.getpid()}]: {text}".encode())
    except OSError as error:
        return f"nothing takes lines at {SOCKET} ({error.strerror})"
    return ""


def prove(arrived, patience):
    """Why a line does not arrive; empty: it does. `arrived` is told the line."""
    text = f"{CANARY}{secrets.token_hex(8)}"
    if why := send_line(text):
        return why
    until = time.monotonic() + patience
    while not arrived(text):
        if time.monotonic() > until:
            return f"a line did not arrive within {patience:g} s"
        time.sleep(0.2)
    return ""


# A log


def stands_in(path, text):
    """Whether a line stands near the end of a file."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            size = os.fstat(fd).st_size
            return text.encode() in os.pread(fd, MOST, max(0, size - MOST))
        finally:
            os.close(fd)
    return False


def find_logger(unit):
    """The service that writes the system's logs, if it is meant to be up."""
    known = [unit] if unit else [each for each in LOGGERS if ask(each, "LoadState") == "loaded"]
    meant = [each for each in known if ask(each, "ActiveState") != "inactive"]
    if len(meant) != 1:
        named = " and ".join(known) or "neither rsyslog nor syslog-ng"
        why = (
            "are both up" if len(meant) > 1 else "is stopped, or not there, which may be on purpose"
        )
        raise NeedsHumanError(f"{named} {why}: name the `unit`, or systemctl start it")
    return meant[0]


def check_log(path, unit):
    """What a restart cannot cure."""
    place = os.path.dirname(path)
    if not os.path.isdir(place):
        raise NeedsHumanError(
            f"the directory {place} is not there: the remedy restore-log-directory is for that"
        )
    room = os.statvfs(place)
    if room.f_flag & os.ST_RDONLY:
        raise NeedsHumanError(
            f"the filesystem of {path} is read-only (errno {errno.EROFS}), and its disk may be "
            f"dying: see findmnt -no SOURCE,OPTIONS -T {place}, then journalctl -k -p err"
        )
    # What is kept for root is no room either, where a line has just not arrived.
    if room.f_bavail == 0 or (room.f_files and room.f_favail == 0):
        raise NeedsHumanError(
            f"the filesystem of {path} is full: df -h {place}; the remedy clean-disk is for that"
        )
    if not os.path.lexists(path):
        return
    told = os.stat(path)
    if not stat.S_ISREG(told.st_mode):
        raise NeedsHumanError(f"{path} is no file: see ls -ld {path}")
    if is_immutable(path):
        raise NeedsHumanError(
            f"somebody has made {path} immutable, which may be on purpose: lsattr {path}; "
            f"chattr -i {path}"
        )
    check_rights(path, told, unit)


def is_immutable(path):
    flags = array.array("l", [0])
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            fcntl.ioctl(fd, GET_FLAGS, flags)
        finally:
            os.close(fd)
    return bool(flags[0] & IMMUTABLE)


def check_rights(path, told, unit):
    """A logger that gave up root's rights must own what it writes to, or be of its group."""
    pid = ask(unit, "MainPID")
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            status = file.read()
    except OSError:
        return
    uid = int(re.search(r"^Uid:\s+\d+\s+(\d+)", status, re.MULTILINE)[1])
    own = re.findall(r"^Gid:\s+\d+\s+(\d+)", status, re.MULTILINE)
    others = re.findall(r"^Groups:([\d \t]*)$", status, re.MULTILINE)
    groups = {*own, *" ".join(others).split()}
    mode = told.st_mode
    may = (
        uid == 0
        or (told.st_uid == uid and mode & stat.S_IWUSR)
        or (str(told.st_gid) in groups and mode & stat.S_IWGRP)
        or mode & stat.S_IWOTH
    )
    if not may:
        raise NeedsHumanError(
            f"{unit} runs as user {uid}, who may not write to {path}: see ls -l {path}; "
            f"then chown {uid} {path}; systemctl restart {unit}"
        )


def check_configuration(unit):
    argv = VALIDATIONS.get(unit)
    if argv is None or shutil.which(argv[0]) is None:
        return
    code, printed = run(argv, TIME_LIMIT)
    if code != 0:
        words = [line for line in printed.splitlines() if "error" in line.lower()]
        raise NeedsHumanError(
            f"{' '.join(argv)} fails, so {unit} was not restarted: "
            f"{(words or [printed.strip()])[0][:300]}"
        )


def restart_logger(given, preview):
    """What was done, in words; empty: nothing had to be."""
    path = os.path.normpath(given["where"])

    def arrived(text):
        return stands_in(path, text)

    unit = find_logger(given["unit"])
    if not preview:
        why = prove(arrived, min(given["patience"], 5))
        if not why:
            return ""
    check_log(path, unit)
    check_configuration(unit)
    if preview:
        return f"would restart {unit}, unless a line arrives in {path}"
    code, _ = run(["systemctl", "restart", unit], RESTART_LIMIT)
    why_not = prove(arrived, given["patience"]) if code == 0 else "it could not be started"
    if why_not:
        said = run(
            ["journalctl", "--quiet", "--output=cat", "--lines=3", f"--unit={unit}"], TIME_LIMIT
        )[1]
        raise NeedsHumanError(
            f"{unit} was restarted, and all the same {path} gets no line: {why_not}; "
            f"journalctl -u {unit} -n 20; it said last: {said.strip()[-300:]}"
        )
    return f"restarted {unit}, since {why}; now a line arrives in {path}"


# The journal


def stands_in_journal(text):
    argv = ["journalctl", "--quiet", "--identifier=hostmend", "--since=-3min", "--output=cat"]
    return text in run(argv, TIME_LIMIT)[1]


def start_journald(given, preview):
    """What was done, in words; empty: nothing had to be."""
    state = ask(JOURNALD, "ActiveState")
    down = state in ("failed", "inactive")
    if preview:
        return f"would start {JOURNALD}" if down else ""
    # A dead one would be started by the line itself, and could not prove anything.
    why = f"it was {state}" if down else prove(stands_in_journal, min(given["patience"], 5))
    if not why:
        return ""
    if not down:
        raise NeedsHumanError(
            f"{JOURNALD} is {state}, and {why}: systemd ends it by itself when it hangs for "
            f"{ask(JOURNALD, 'WatchdogUSec')}, and hostmend never restarts systemd's own units: "
            f"systemctl status {JOURNALD}; systemctl restart {JOURNALD}"
        )
    if "masked" in (ask(JOURNALD, "LoadState"), ask(JOURNALD, "UnitFileState")):
        raise NeedsHumanError(
            f"{JOURNALD} is masked, by somebody who wants it down: systemctl unmask {JOURNALD}"
        )
    run(["systemctl", "reset-failed", JOURNALD], TIME_LIMIT)
    code, printed = run(["systemctl", "start", *JOURNALD_UNITS], RESTART_LIMIT)
    why_not = prove(stands_in_journal, given["patience"]) if code == 0 else printed.strip()[-300:]
    if why_not:
        raise NeedsHumanError(
            f"{JOURNALD} was started, and all the same it takes no line: {why_not}; "
            f"systemctl status {JOURNALD}"
        )
    return f"started {JOURNALD}, since {why}; now a line arrives in the journal"


def main():
    module = AnsibleModule(
        argument_spec={
            "where": {"required": True},
            "unit": {},
            "patience": {"type": "float", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        if given["where"] == "journal":
            done = start_journald(given, module.check_mode)
        elif given["where"].startswith("/") and ".." not in given["where"].split("/"):
            done = restart_logger(given, module.check_mode)
        else:
            raise NeedsHumanError(f"{given['where']!r} is neither `journal` nor the path of a log")
    except NeedsHumanError as error:
        module.exit_json(changed=False, needs_human=True, msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"cannot restart logging: {error.filename}: {error.strerror}")
    module.exit_json(
        changed=bool(done) and not module.check_mode,
        needs_human=False,
        msg=done or f"a line arrives in {given['where']}, so that nothing was restarted",
    )


if __name__ == "__main__":
    main()
