"""Data directories: what lies in one, who uses it, and what a server's log says of its last end.

Shared by the remedies that change data. Standard library only: it runs by whatever Python a remedy
has.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import subprocess
import time

#: Kept back on the filesystem that a copy is made on, as a share of it.
RESERVE = 0.05


class Refused(Exception):
    """Why a human must go on from here, in words that name what to do."""


def make_environment(temporary="/var/tmp"):
    """For commands that run as another user, to whom a run's own temporary directory is closed."""
    return {**os.environ, "LC_ALL": "C.UTF-8", "TMPDIR": temporary}


def run(argv, timeout=60, **more):
    """A command's result, with its output as text. Raises Refused where it does not end in time."""
    more.setdefault("env", make_environment())
    try:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
            **more,
        )
    except FileNotFoundError:
        raise Refused(f"there is no {argv[0]} on this host: install it") from None
    except subprocess.TimeoutExpired:
        raise Refused(f"{argv[0]} took longer than {timeout} s and was ended") from None


def ask_unit(unit, *properties):
    """What systemd has of a unit, by property."""
    names = ",".join(properties)
    done = run(["systemctl", "show", f"--property={names}", "--", unit])
    if done.returncode != 0:
        raise Refused(f"systemd does not tell of {unit}: {done.stderr.strip()}")
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


# What lies there


def read_device(path):
    """The filesystem that a path is on, as mountinfo names it: subvolumes of one are the same."""
    fd = os.open(path, os.O_PATH)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            mount = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
    finally:
        os.close(fd)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            words = line.split(" ")
            if words[0] == mount:
                return words[2]
    raise Refused(f"the kernel does not tell what {path} is mounted from")


def check_place(to, source=None):
    """That a copy, of `source`, may be made there. Raises Refused."""
    if os.path.realpath(to) != os.path.normpath(to):
        raise Refused(f"{to} is reached by a link: name the place itself as `copies`")
    try:
        told = os.stat(to, follow_symlinks=False)
    except OSError as error:
        raise Refused(f"no copy can be made in {to}: {error.strerror}; make it") from None
    if not stat.S_ISDIR(told.st_mode):
        raise Refused(f"no copy can be made in {to}: it is no directory")
    if told.st_uid != os.geteuid() or told.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Refused(
            f"no copy can be made in {to}: others than root may write to it; "
            f"chown root {to}; chmod go-w {to}"
        )
    if source is not None and read_device(to) == read_device(source):
        raise Refused(
            f"no copy can be made in {to}: it lies on the same filesystem as {source}; "
            "name one on another as `copies`"
        )


def write_file(path, text, *, owner=(0, 0), mode=0o600):
    """Writes a new file, or another in place of one, in one step. Raises OSError."""
    draft = f"{path}.hostmend"
    if os.path.lexists(draft):
        os.unlink(draft)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(os.open(draft, flags, 0o600), "wb") as file:
        file.write(text)
        os.fchown(file.fileno(), *owner)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, path)
    sync_directory(os.path.dirname(path))


def sync_directory(path):
    """What was made, renamed and removed in it is there after a loss of power too."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Tree:
    """All that lies in a directory: regular files and directories, links that stay inside.

    `only`: paths below it; nothing but these, and the directories that they lie in.
    """

    def __init__(self, root, only=()):
        self.root = os.path.realpath(root)
        self.only = frozenset(only)
        self._above = {above for name in only for above in _find_above(name)}
        #: Path below the root -> (mode, user, group, size, change of its content in ns).
        self.entries = {}
        self.bytes = 0
        try:
            self._read("")
        except OSError as error:
            raise Refused(f"cannot read {error.filename}: {error.strerror}") from None

    def _read(self, below):
        with os.scandir(os.path.join(self.root, below)) as scan:
            for entry in scan:
                name = os.path.join(below, entry.name)
                if self.only and name not in self.only | self._above:
                    continue
                told = entry.stat(follow_symlinks=False)
                if stat.S_ISSOCK(told.st_mode) or stat.S_ISFIFO(told.st_mode):
                    continue
                if stat.S_ISLNK(told.st_mode):
                    self._check_link(name)
                size = told.st_size if stat.S_ISREG(told.st_mode) else 0
                self.bytes += size
                changed = 0 if stat.S_ISDIR(told.st_mode) else told.st_mtime_ns
                self.entries[name] = (told.st_mode, told.st_uid, told.st_gid, size, changed)
                if stat.S_ISDIR(told.st_mode):
                    self._read(name)

    def _check_link(self, name):
        path = os.path.join(self.root, name)
        target = os.path.realpath(path)
        if os.path.commonpath([target, self.root]) != self.root:
            raise Refused(
                f"{path} is a link to {target}: a copy of {self.root} alone would not be whole"
            )

    def digest(self):
        """Names its present state: sha256 over names, modes, owners, sizes and times."""
        lines = (f"{name!r} {told}" for name, told in sorted(self.entries.items()))
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def files(self):
        return [name for name, told in sorted(self.entries.items()) if stat.S_ISREG(told[0])]


def _find_above(name):
    while name := os.path.dirname(name):
        yield name


def hash_file(path):
    digest = hashlib.sha256()
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def find_users(directories):
    """Processes that have a file of one of these open or work in it: `1234 (mariadbd)`."""
    roots = [os.path.realpath(directory) for directory in directories]
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            links = [f"/proc/{pid}/cwd"]
            links += [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
            for link in links:
                with contextlib.suppress(OSError):
                    place = os.readlink(link)
                    if any(place == root or place.startswith(root + "/") for root in roots):
                        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                            found.append(f"{pid} ({file.read().strip()})")
                        break
    return found


# How it ended last


class Words:
    """How a server's log says that it begins, is ready, ended in order and gave up."""

    def __init__(self, *, begins, ready, ended, gave_up):
        self.begins, self.ready = re.compile(begins), re.compile(ready)
        self.ended, self.gave_up = re.compile(ended), re.compile(gave_up)


class LastStop:
    """How the last start that served anybody ended."""

    def __init__(self, clean, why, line=""):
        self.clean = clean
        #: For people: `its log says so: ...`, `its log does not say ...`.
        self.why = why
        #: The line that says that it ended in order.
        self.line = line


def judge_last_stop(newest_first, words, most_lines=2_000_000, seconds=60):
    """How the last start that served anybody ended, by a log that is read from its end.

    Clean only where that start itself logged its end in order, and every later attempt gave up by
    itself before it was ready: one that was killed on its way may have changed anything.
    """
    until = time.monotonic() + seconds
    attempt = []
    for number, line in enumerate(newest_first):
        if words.begins.search(line):
            attempt.reverse()
            ready = _find_last(attempt, words.ready)
            if ready >= 0:
                ended = _find_last(attempt, words.ended)
                if ended > ready:
                    return LastStop(True, "its log says that it ended in order", attempt[ended])
                return LastStop(False, "it crashed or was killed: its log has no end in order")
            if _find_last(attempt, words.gave_up) < 0:
                return LastStop(False, "an attempt to start it since then was ended from outside")
            attempt = []
        elif any(each.search(line) for each in (words.ready, words.ended, words.gave_up)):
            attempt.append(line)
        if number >= most_lines or time.monotonic() > until:
            break
    return LastStop(False, "its log does not reach back to its last start, so nobody knows")


def _find_last(lines, pattern):
    for index in range(len(lines) - 1, -1, -1):
        if pattern.search(lines[index]):
            return index
    return -1


def read_journal_backwards(unit):
    """What a unit's processes logged, the newest line first."""
    argv = ["journalctl", f"--unit={unit}", "--output=cat", "--no-pager", "--reverse", "--all"]
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
    )
    try:
        yield from process.stdout
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def read_file_backwards(path, block=1 << 16):
    """The lines of a log file, the newest first; lines beyond a block's length are cut."""
    with open(path, "rb") as file:
        left, rest = file.seek(0, os.SEEK_END), b""
        while left > 0:
            size = min(block, left)
            left -= size
            file.seek(left)
            parts = (file.read(size) + rest[: 4 * block]).split(b"\n")
            rest = parts.pop(0)
            for part in reversed(parts):
                yield part.decode("utf-8", "replace")
        if rest:
            yield rest.decode("utf-8", "replace")


def show_size(size):
    for unit, whole in (("GB", 2**30), ("MB", 2**20), ("KB", 2**10)):
        if size >= whole:
            return f"{size / whole:.3g} {unit}"
    return f"{size} B"
