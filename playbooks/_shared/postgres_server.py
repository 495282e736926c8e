"""A PostgreSQL server by its unit: where its files lie, and what its own programs say.

Shared by the remedies for PostgreSQL. Found out with PostgreSQL 15 of Debian 12.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import stat

from ansible.module_utils.data_directory import Refused, ask_unit, run

_DEBIAN = re.compile(r"postgresql@(?P<version>[0-9][0-9.]*)-(?P<name>[^@/]+)\.service")
#: Where a server of another host may run on the same files, and nothing here shows it.
SHARED_KINDS = re.compile(r"nfs|cifs|smb|ceph|gluster|gfs|ocfs|lustre|fuse|9p|afs", re.IGNORECASE)


class Server:
    """What is known of a server without asking it. Raises Refused."""

    def __init__(self, unit):
        self.unit = unit
        told = ask_unit(
            unit, "LoadState", "ActiveState", "ExecStart", "Environment", "User", "Type"
        )
        if told.get("LoadState") != "loaded":
            raise Refused(f"there is no unit {unit} (LoadState={told.get('LoadState')})")
        if told.get("Type") == "oneshot":
            raise Refused(f"{unit} stands for all clusters: name the unit of the one")
        self.state = told["ActiveState"]
        self.debian = _DEBIAN.fullmatch(unit)
        if self.debian is not None:
            version, name = self.debian["version"], self.debian["name"]
            self.programs = f"/usr/lib/postgresql/{version}/bin"
            self.config = f"/etc/postgresql/{version}/{name}"
            self._told = ["-c", f"config_file={self.config}/postgresql.conf"]
            self.user = _owner(f"{self.config}/postgresql.conf")
        else:
            self.config = ""
            self.programs, self._told = _read_command(unit, told)
            self.user = told.get("User") or ""
        if self.user in ("", "root"):
            raise Refused(f"{unit} has no user of its own that PostgreSQL would run as")
        self.directory = os.path.realpath(self.ask("data_directory"))
        if not os.path.isfile(os.path.join(self.directory, "PG_VERSION")):
            raise Refused(f"{self.directory} is no data directory of PostgreSQL")
        if _owner(self.directory) != self.user:
            raise Refused(
                f"{self.directory} belongs to {_owner(self.directory)} and not to {self.user}"
            )

    @property
    def up(self):
        return self.state in ("active", "reloading")

    @property
    def down(self):
        return self.state in ("inactive", "failed")

    def ask(self, setting):
        """A setting as the server would read it now, all its files and its command line."""
        done = self.run_own(f"{self.programs}/postgres", "-C", setting, *self._told)
        if done.returncode != 0:
            raise Refused(f"{self.unit} does not tell its {setting}: {done.stderr.strip()[:300]}")
        return done.stdout.strip()

    def sockets(self):
        """The files of its sockets."""
        port = self.ask("port")
        places = [place.strip() for place in self.ask("unix_socket_directories").split(",")]
        return [os.path.join(place, f".s.PGSQL.{port}") for place in places if place]

    def query(self, statement, timeout=60):
        """The rows of a statement, each a list of its cells."""
        sockets = self.sockets()
        if not sockets:
            raise Refused(f"{self.unit} has no socket, so it cannot be asked")
        place, port = sockets[0].rsplit("/.s.PGSQL.", 1)
        argv = [f"{self.programs}/psql", "-XqAtw", "-F", "\t", "-v", "ON_ERROR_STOP=1"]
        argv += ["-h", place, "-p", port, "-U", self.user, "-d", "postgres", "-c", statement]
        done = self.run_own(*argv, timeout=timeout)
        if done.returncode != 0:
            raise Refused(f"{self.unit} answers: {done.stderr.strip()[:300]}")
        return [line.split("\t") for line in done.stdout.splitlines()]

    def run_own(self, *argv, timeout=60):
        """A program of its own, as its own user."""
        own = ["setpriv", f"--reuid={self.user}", f"--regid={pwd.getpwnam(self.user).pw_gid}"]
        return run([*own, "--init-groups", "--", *argv], timeout=timeout, cwd="/")


def _owner(path):
    try:
        return pwd.getpwuid(os.stat(path).st_uid).pw_name
    except OSError as error:
        raise Refused(f"cannot look at {path}: {error.strerror}") from None
    except KeyError:
        raise Refused(f"{path} belongs to nobody that this host knows") from None


def _read_command(unit, told):
    """Where the programs lie, and what the server is told, of a unit that somebody wrote."""
    match = re.search(r"argv\[\]=(.*?) ; ignore_errors=", told.get("ExecStart", ""))
    try:
        words = shlex.split(match[1]) if match else []
        variables = dict(
            word.split("=", 1) for word in shlex.split(told.get("Environment", "")) if "=" in word
        )
    except ValueError:
        words, variables = [], {}
    if not words or os.path.basename(words[0]) not in ("postgres", "postmaster"):
        raise Refused(f"{unit} does not start postgres itself, so that its files are not known")
    for index, word in enumerate(words):
        variable = re.fullmatch(r"\$\{?(\w+)\}?", word)
        if variable:
            words[index] = variables.get(variable[1], "")
    if "-D" not in words and "PGDATA" in variables:
        words += ["-D", variables["PGDATA"]]
    if "-D" not in words:
        raise Refused(f"{unit} does not say which data directory it starts (-D)")
    return os.path.dirname(words[0]), words[1:]


def find_mount(path):
    """The mount point that a path is on, and its kind of filesystem."""
    done = run(["findmnt", "--noheadings", "--output", "TARGET,FSTYPE", "--target", path])
    words = done.stdout.split()
    if done.returncode != 0 or len(words) < 2:
        raise Refused(f"findmnt does not tell what {path} is mounted from")
    return " ".join(words[:-1]), words[-1]


def read_small(path, most=4096):
    """The text of a regular file, and what it is. Raises OSError, Refused."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        told = os.fstat(file.fileno())
        if not stat.S_ISREG(told.st_mode):
            raise Refused(f"{path} is no regular file")
        return file.read(most).decode("utf-8", "replace"), told
