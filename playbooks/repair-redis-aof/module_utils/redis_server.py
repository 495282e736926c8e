"""A Redis server that is down: what it is told, where its append only file lies, what it said last.

Signatures are those of Redis 7.0.
"""

from __future__ import annotations

import glob
import os
import re
import shlex

from ansible.module_utils.data_directory import (
    Refused,
    ask_unit,
    read_file_backwards,
    read_journal_backwards,
    run,
)

_BEGINS = re.compile(r"oO0OoO0OoO0Oo \w+ is starting oO0OoO0OoO0Oo")
_SAYS = re.compile(
    r"(Unexpected end of file|Bad file format|Unrecoverable error) reading the append only file.*"
)
#: Lines of one start that are read: it says why it gives up with its last.
_MOST_LINES = 2000
_DEEPEST = 8


class Server:
    """What is known of a server without asking it. Raises Refused."""

    def __init__(self, unit):
        self.unit = unit
        told = ask_unit(unit, "LoadState", "ActiveState", "ExecStart", "User")
        if told.get("LoadState") != "loaded":
            raise Refused(f"there is no unit {unit} (LoadState={told.get('LoadState')})")
        self.up = told["ActiveState"] in ("active", "reloading")
        self.user = told.get("User") or "root"
        self.settings = read_settings(unit, told.get("ExecStart", ""))
        named = self.settings.get("dir", "")
        if not os.path.isabs(named):
            raise Refused(f"the configuration of {unit} does not name its data directory (dir)")
        self.directory = os.path.realpath(named)
        if not os.path.isdir(self.directory):
            raise Refused(f"there is no data directory {self.directory}")

    @property
    def manifest(self):
        name = self.settings.get("appendfilename", "appendonly.aof")
        below = self.settings.get("appenddirname", "appendonlydir")
        return os.path.join(self.directory, below, f"{name}.manifest")

    def last_file(self):
        """The file that is being appended to, the only one that a crash may leave unfinished."""
        try:
            with open(self.manifest, encoding="utf-8") as file:
                lines = [shlex.split(line) for line in file if line.strip()]
        except FileNotFoundError:
            raise Refused(
                f"there is no {self.manifest}: an append only file of a Redis before 7 is left to "
                "a human"
            ) from None
        except (OSError, ValueError) as error:
            raise Refused(f"cannot read {self.manifest}: {error}") from None
        # file NAME seq NUMBER type b|h|i (redis/src/aof.c, aofLoadManifestFromFile)
        parts = [dict(zip(words[::2], words[1::2], strict=False)) for words in lines]
        grown = [part for part in parts if part.get("type") == "i" and "file" in part]
        if not grown or os.sep in grown[-1]["file"]:
            raise Refused(f"{self.manifest} names no file that is appended to")
        return os.path.join(os.path.dirname(self.manifest), grown[-1]["file"])

    def last_words(self):
        """What its last start said of its append only file; empty: nothing, or there is no log."""
        name = self.settings.get("logfile", "")
        lines = read_journal_backwards(self.unit)
        if name:
            lines = read_file_backwards(os.path.join(self.directory, name))
        try:
            for number, line in enumerate(lines):
                if found := _SAYS.search(line):
                    return found[0]
                if _BEGINS.search(line) or number >= _MOST_LINES:
                    break
        except OSError as error:
            raise Refused(f"cannot read its log {name}: {error.strerror}") from None
        return ""

    def check_aof(self):
        """What its own tool says of the append only file, as its own user; it changes nothing."""
        own = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--init-groups", "--"]
        done = run([*own, "redis-check-aof", self.manifest], timeout=None, cwd="/")
        return done.stdout + done.stderr


def read_settings(unit, command):
    """What the server reads from its file and is told by its unit."""
    found = re.search(r"argv\[\]=(.*?) ; ", command)
    words = _split(found[1]) if found else []
    if len(words) < 2 or words[1].startswith("-") or command.count("argv[]=") != 1:
        raise Refused(f"{unit} does not start a server with a file of settings, as packages do")
    settings = {}
    _read_file(words[1], settings, _DEEPEST)
    name = ""
    for word in words[2:]:
        if word.startswith("--"):
            name = word[2:].lower()
            settings[name] = ""
        elif name:
            settings[name] = f"{settings[name]} {word}".strip()
    return settings


def _read_file(path, settings, deepest):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise Refused(f"cannot read {path}: {error.strerror}") from None
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, *values = _split(line.strip())
        if name.lower() == "include" and values:
            if deepest == 0:
                raise Refused(f"{path} includes files that include files without end")
            for each in sorted(glob.glob(values[0])):
                _read_file(each, settings, deepest - 1)
        else:
            settings[name.lower()] = " ".join(values)


def _split(text):
    try:
        return shlex.split(text)
    except ValueError:
        raise Refused(f"its settings cannot be split into words: {text[:80]}") from None
