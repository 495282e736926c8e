"""A MariaDB server that is down: what it is told, where its files lie, how it ended last.

Shared by the remedies for MariaDB. Signatures are those of MariaDB 10.11.
"""

from __future__ import annotations

import os
import re
import shlex
import socket

from ansible.module_utils.data_directory import (
    Refused,
    Words,
    ask_unit,
    judge_last_stop,
    make_environment,
    read_file_backwards,
    read_journal_backwards,
    run,
)

_STAMP = r"^\d{4}-\d\d-\d\d +\d+:\d\d:\d\d \d+ "
WORDS = Words(
    begins=_STAMP + r"\[Note\] Starting MariaDB |^\d{6,8} .* starting as process \d+|"
    + _STAMP + r"\[Note\] \S+ .* starting as process \d+",
    ready=_STAMP + r"\[Note\] \S+: ready for connections\.\s*$",
    ended=_STAMP + r"\[Note\] \S+: Shutdown complete\s*$",
    gave_up=_STAMP + r"\[ERROR\] Aborting\s*$",
)  # fmt: skip
#: Settings that put a part of its data elsewhere than in the data directory.
PLACES = (
    "aria_log_dir_path",
    "innodb_data_home_dir",
    "innodb_log_group_home_dir",
    "innodb_undo_directory",
)


class Server:
    """What is known of a server without asking it. Raises Refused."""

    def __init__(self, unit):
        self.unit = unit
        told = ask_unit(unit, "LoadState", "ActiveState", "ExecStart", "Environment", "User")
        if told.get("LoadState") != "loaded":
            raise Refused(f"there is no unit {unit} (LoadState={told.get('LoadState')})")
        self.up = told["ActiveState"] in ("active", "reloading")
        self.user = told.get("User") or "mysql"
        self.settings = read_settings(unit, told)
        self.directory = os.path.realpath(self.settings.get("datadir") or "/var/lib/mysql")
        if not os.path.isdir(os.path.join(self.directory, "mysql")):
            raise Refused(f"{self.directory} is no data directory of MariaDB")

    def check_whole(self):
        """That all of its data lies in the data directory, and that no other server has it too."""
        if self.settings.get("wsrep_on", "OFF").upper() in ("ON", "1", "TRUE", ""):
            raise Refused(
                f"{self.unit} belongs to a Galera cluster: let it take its data from another node"
            )
        for name in PLACES:
            place = os.path.realpath(os.path.join(self.directory, self.settings.get(name) or "."))
            if os.path.commonpath([place, self.directory]) != self.directory:
                raise Refused(f"{name} is {place}: not all of its data lies in {self.directory}")

    @property
    def log_base(self):
        """The path of its binary logs without their numbers; empty: it has none."""
        if "log_bin" not in self.settings:
            return ""
        base = self.settings["log_bin"]
        if not base:
            base = self.settings.get("log_basename") or socket.gethostname().split(".")[0]
            base += "-bin"
        elif "." in os.path.basename(base):
            base = base.rsplit(".", 1)[0]
        return os.path.join(self.directory, base)

    @property
    def log_index(self):
        """The file that lists them."""
        index = self.settings.get("log_bin_index") or self.log_base
        index = os.path.join(self.directory, index)
        return index if "." in os.path.basename(index) else f"{index}.index"

    def judge_last_stop(self):
        if "log_error" not in self.settings:
            return judge_last_stop(read_journal_backwards(self.unit), WORDS)
        name = self.settings["log_error"]
        if not name:
            name = f"{socket.gethostname().split('.')[0]}.err"
        elif "." not in os.path.basename(name):
            name += ".err"
        try:
            return judge_last_stop(read_file_backwards(os.path.join(self.directory, name)), WORDS)
        except OSError as error:
            raise Refused(f"cannot read its log {name}: {error.strerror}") from None

    def find_files(self, suffix, *, outside_system=False):
        """Its tables' files below the data directory: `shop/orders.MAI`."""
        found = []
        for database in sorted(os.listdir(self.directory)):
            place = os.path.join(self.directory, database)
            if not os.path.isdir(place) or (outside_system and database in ("mysql", "sys")):
                continue
            names = sorted(name for name in os.listdir(place) if name.endswith(suffix))
            found += [os.path.join(database, name) for name in names]
        return found

    def run_own(self, *argv, timeout=None):
        """A tool of its own, as its own user, in the data directory."""
        own = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--init-groups", "--"]
        environment = make_environment(self.settings.get("tmpdir") or "/var/tmp")
        return run([*own, *argv], timeout=timeout, cwd=self.directory, env=environment)


def read_settings(unit, told):
    """What the server reads from its files and is told by its unit; `-` in a name as `_`."""
    command = told.get("ExecStart", "")
    if "@" in unit or re.search(r"--(defaults-|datadir|log[-_])", command):
        raise Refused(
            f"{unit} is told where its files are by its own command line, which is not read here"
        )
    done = run(["my_print_defaults", "--mariadbd"])
    if done.returncode != 0:
        raise Refused(f"my_print_defaults fails: {done.stderr.strip()[:200]}")
    words = done.stdout.splitlines()
    for assignment in _split(told.get("Environment", "")):
        if assignment.startswith("MYSQLD_OPTS="):
            words += _split(assignment.removeprefix("MYSQLD_OPTS="))
    settings = {}
    for word in words:
        name, _, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_").removeprefix("loose_")
        if name.startswith(("skip_", "disable_")):
            settings.pop(name.split("_", 1)[1], None)
        else:
            settings[name] = value
    return settings


def _split(text):
    try:
        return shlex.split(text)
    except ValueError:
        raise Refused("its unit's environment cannot be split into words") from None
