"""Statements for a MariaDB server that is up, by its own client, as its own user.

Shared by the remedies for MariaDB. Never as root: a server that somebody has taken over could ask
root's client for any file (LOAD DATA LOCAL INFILE).
"""

from __future__ import annotations

import re

from ansible.module_utils.data_directory import Refused, ask_unit, run


class Client:
    def __init__(self, user, socket):
        self.user, self.socket = user, socket

    def command(self, program, *options):
        """The words of a client program that asks this server."""
        own = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--init-groups", "--"]
        reached = ["--protocol=socket", f"--socket={self.socket}", f"--user={self.user}"]
        return [*own, program, "--no-defaults", *reached, *options]

    def ask(self, *statements, seconds=60):
        """Rows of all statements, as lists of text. Raises Refused where one fails."""
        printed = self._run(["--skip-column-names"], "; ".join(statements), seconds)
        return [line.split("\t") for line in printed.splitlines()]

    def ask_records(self, statement, seconds=60):
        """The records of a statement, by column."""
        records = []
        for line in self._run([], f"{statement}\\G", seconds).splitlines():
            if line.startswith("*****"):
                records.append({})
            elif records and (found := re.match(r" *([A-Za-z_]+): ?(.*)$", line)):
                records[-1][found[1]] = found[2]
        return records

    def _run(self, options, text, seconds):
        options = ["--local-infile=0", "--default-character-set=utf8mb4", "--batch", *options]
        done = run(self.command("mariadb", *options, "--execute", text), timeout=seconds)
        if done.returncode != 0:
            raise Refused(f"the server answers: {done.stderr.strip()[:300] or 'nothing'}")
        return done.stdout


def reach(unit, socket):
    """A client of the server that a unit runs. Raises Refused where that is not up."""
    told = ask_unit(unit, "ActiveState", "User")
    if told.get("ActiveState") != "active":
        raise Refused(f"{unit} is not up, so that it cannot be asked")
    return Client(told.get("User") or "mysql", socket)


def quote_text(text):
    """A text in a statement, whatever it holds."""
    return f"CONVERT(X'{text.encode().hex()}' USING utf8mb4)" if text else "''"


def quote_name(name):
    return "`" + name.replace("`", "``") + "`"
