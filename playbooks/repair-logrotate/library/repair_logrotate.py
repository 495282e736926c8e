#!/usr/bin/python
"""Sets a corrupt state file of logrotate aside, and names what else keeps it from its work.

DOCUMENTATION: see the playbook beside it. What is wrong is logrotate's own to say, by a run that
changes nothing (`--debug`). It writes a state anew by itself where it can (3.21), but its service
stays failed until it is run again. Standard library and ansible.module_utils only: it runs by
whatever Python the remedy has.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import glob
import os
import re
import shlex
import stat
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.commands import NeedsHumanError, run

#: Longest that a dry run, and a rotation, may take, in seconds.
DRY_LIMIT, ROTATION_LIMIT = 60, 420
#: A state file begins so (logrotate 3.8 and later write version 2).
HEAD = re.compile(rb"logrotate state -- version [12]\n")
BAD_STATE = re.compile(
    r"error: bad (?:top )?line(?: [0-9]+)? in state file|bad year|bad month|bad day"
)
DUPLICATE = re.compile(r"error: (?P<file>[^\s:]+):[0-9]+ duplicate log entry for (?P<log>.+)")
INSECURE = re.compile(
    r'error: skipping "(?P<log>[^"]+)" because (?:parent directory|log file) has insecure perm'
)
#: What follows from the others.
ECHO = re.compile(r"error: found error in (?:file )?\S+.*skipping")
ROOM = 64 * 1024


def ask(unit, what):
    return run(["systemctl", "show", "--value", f"--property={what}", unit], DRY_LIMIT)[1].strip()


class Logrotate:
    """What one unit runs."""

    def __init__(self, unit):
        self.unit = re.sub(r"\.timer$", ".service", unit)
        found = re.search(r"argv\[\]=(.*?) ;", ask(self.unit, "ExecStart"))
        words = found[1].split() if found else []
        if not words or os.path.basename(words[0]) != "logrotate":
            raise NeedsHumanError(
                f"{self.unit} does not run logrotate itself: see systemctl cat {self.unit}"
            )
        self.program, self.state, self.configs = words[0], "", []
        words = iter(words[1:])
        for word in words:
            if word in ("-s", "--state"):
                self.state = next(words, "")
            elif word.startswith("--state="):
                self.state = word.partition("=")[2]
            elif word in ("-l", "--log", "-m", "--mail"):
                next(words, "")
            elif not word.startswith("-"):
                self.configs.append(word)
        self.state = self.state or self.find_default_state()

    def find_default_state(self):
        found = re.search(
            r"state file path:\s*(\S+)", run([self.program, "--version"], DRY_LIMIT)[1]
        )
        if not found:
            raise NeedsHumanError(f"{self.program} --version does not say where its state is")
        return found[1]

    def find_errors(self):
        """What logrotate says, without rotating anything and without writing its state."""
        argv = [self.program, "--debug", "--state", self.state, *self.configs]
        code, printed = run(argv, DRY_LIMIT)
        lines = [line.strip() for line in printed.splitlines() if "error:" in line]
        if code and not lines:
            lines = [f"{' '.join(argv)} ends with {code}: {printed.strip()[-300:]}"]
        return list(dict.fromkeys(lines))

    def await_rest(self):
        """Until it is not at its work; it keeps its state open meanwhile."""
        until = time.monotonic() + DRY_LIMIT
        while ask(self.unit, "ActiveState") == "activating":
            if time.monotonic() > until:
                raise NeedsHumanError(f"{self.unit} is at its work for long: systemctl status")
            time.sleep(0.5)

    def is_state_corrupt(self, errors):
        """By its own words, and by what is there: one alone is not enough to move it."""
        if not any(BAD_STATE.search(error) for error in errors):
            return False
        with open(self.state, "rb") as file:
            return not HEAD.match(file.read(100)) or any("bad line" in each for each in errors)

    def set_state_aside(self):
        """Where the corrupt state went. It holds only when each log was last rotated."""
        told = os.lstat(self.state)
        place = os.path.dirname(self.state)
        if not stat.S_ISREG(told.st_mode) or told.st_uid != 0:
            raise NeedsHumanError(
                f"{self.state} is corrupt, and no file of root's: see ls -l {self.state}"
            )
        room = os.statvfs(place)
        if room.f_flag & os.ST_RDONLY:
            raise NeedsHumanError(
                f"the filesystem of {self.state} is read-only (errno {errno.EROFS}), and its disk "
                f"may be dying: see findmnt -no SOURCE,OPTIONS -T {place}"
            )
        if room.f_bavail * room.f_frsize < ROOM or (room.f_files and not room.f_favail):
            raise NeedsHumanError(
                f"there is no room on the filesystem of {self.state}, so that a new one would be "
                f"corrupt too: df -h {place}; then systemctl start {self.unit}"
            )
        number = 1
        while os.path.lexists(target := f"{self.state}.corrupt-{number}"):
            number += 1
        os.rename(self.state, target)
        return target

    def rotate(self):
        code, _ = run(["systemctl", "start", self.unit], ROTATION_LIMIT)
        return code == 0


# Words for a human


def find_files(log):
    """The files of the configuration that rotate that log, by the patterns in front of each `{`."""
    found = []
    for file in ["/etc/logrotate.conf", *sorted(glob.glob("/etc/logrotate.d/*"))]:
        with contextlib.suppress(OSError), open(file, encoding="utf-8", errors="replace") as stream:
            if any(fnmatch.fnmatchcase(log, name) for name in read_names(stream.read())):
                found.append(file)
    return found


def read_names(text):
    """The logs and patterns that rules are for, as shells write them."""
    names = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].partition("{")[0].strip()
        if words.startswith(("/", '"', "'")):
            with contextlib.suppress(ValueError):
                names += [word for word in shlex.split(words) if word.startswith("/")]
    return names


def explain(errors):
    """What a human should do about each; one for each pair of files and each directory."""
    told = []
    for error in errors:
        if found := DUPLICATE.search(error):
            files = find_files(found["log"])
            named = " and ".join(files) if len(files) > 1 else f"{found['file']} and another file"
            told.append(
                f"{found['log']} is rotated by {named}, and all of the second file is skipped: "
                "take it out of one of them, then logrotate --debug /etc/logrotate.conf"
            )
        elif found := INSECURE.search(error):
            place = os.path.dirname(found["log"])
            files = " or ".join(find_files(found["log"])) or "its rule"
            told.append(
                f"logrotate does not trust the permissions of {place}, which others may write to, "
                f"and rotates nothing in it: see ls -ld {place}; then chmod g-w,o-w {place}, or "
                f"say whose it is in {files}: su USER GROUP"
            )
        elif not ECHO.search(error):
            told.append(f"logrotate says: {error[:300]}")
    return list(dict.fromkeys(told))


def repair(logrotate, preview):
    """What was done, in words, one each, and what is left to a human."""
    done = []
    failed = ask(logrotate.unit, "ActiveState") == "failed"
    logrotate.await_rest()
    errors = logrotate.find_errors()
    if logrotate.is_state_corrupt(errors):
        if preview:
            return [f"would set {logrotate.state} aside, and run {logrotate.unit}"], []
        target = logrotate.set_state_aside()
        done.append(
            f"the corrupt {logrotate.state} was set aside as {target}: each log is rotated when "
            "its time has passed once more"
        )
        errors, failed = logrotate.find_errors(), True
    left = explain(errors)
    if failed and not preview and (done or not left):
        if logrotate.rotate():
            done.append(f"{logrotate.unit} was run, and succeeded")
        elif not left:
            left.append(
                f"{logrotate.unit} still fails: journalctl -u {logrotate.unit} -n 20 -o cat"
            )
    return done, left


def main():
    module = AnsibleModule(
        argument_spec={"unit": {"required": True}},
        supports_check_mode=True,
    )
    try:
        done, left = repair(Logrotate(module.params["unit"]), module.check_mode)
    except NeedsHumanError as error:
        module.exit_json(changed=False, needs_human=True, msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"cannot repair logrotate: {error.filename}: {error.strerror}")
    words = "; ".join([*done, *left]) or "logrotate finds nothing wrong"
    changed = bool(done) and not module.check_mode
    module.exit_json(changed=changed, needs_human=bool(left), msg=words)


if __name__ == "__main__":
    main()
