"""What logrotate is told of one log, and the script it runs after a rotation (logrotate(8)).

Shared by the remedies for logs. Standard library only: it runs by whatever Python a remedy has.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import os
import shlex
import stat


class Rule:
    """One rule of logrotate: for which logs, and what is run after a rotation."""

    def __init__(self, names):
        self.names = names
        self.script = []

    def means(self, log):
        return any(
            os.path.dirname(name) == os.path.dirname(log)
            and fnmatch.fnmatchcase(os.path.basename(log), os.path.basename(name))
            for name in self.names
        )


def read_rules(text):
    """logrotate.conf(5), as far as it is needed: names, `{`, lines, `}`, and scripts."""
    rules, names, rule, in_script = [], "", None, ""
    for line in text.splitlines():
        words = line.split("#", 1)[0].strip()
        if in_script:
            if words == "endscript":
                in_script = ""
            elif in_script == "postrotate":
                rule.script.append(line)
        elif rule is None:
            before, brace, after = words.partition("{")
            names += f" {before}"
            if brace:
                with contextlib.suppress(ValueError):
                    rule = Rule([each for each in shlex.split(names) if each.startswith("/")])
                rule = rule or Rule([])
                names = ""
                if after.strip() == "}":
                    rule = None
            elif words and not words.startswith(("/", '"', "'")):
                # A setting for all rules.
                names = ""
        elif words == "}":
            rules.append(rule)
            rule = None
        elif words in ("postrotate", "prerotate", "firstaction", "lastaction", "preremove"):
            in_script = words
    return rules


def find_script(log):
    """What logrotate runs after it rotated that log; empty: nothing, or nobody may rely on it."""
    for file in ["/etc/logrotate.conf", *sorted(glob.glob("/etc/logrotate.d/*"))]:
        with contextlib.suppress(OSError):
            told = os.stat(file)
            # Whoever may write it could have root run anything; logrotate ignores it too.
            if told.st_uid != 0 or told.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                continue
            with open(file, encoding="utf-8", errors="replace") as stream:
                for rule in read_rules(stream.read()):
                    if rule.means(log) and rule.script:
                        return "\n".join(rule.script)
    return ""
