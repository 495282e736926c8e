#!/usr/bin/python
"""One step of freeing room on one filesystem, until a target is reached.

DOCUMENTATION: see the playbook beside it. Each step first measures: with the target reached it does
nothing. It touches only what belongs to the one mount that was named, as the kernel counts mounts:
nothing behind a symbolic link, on another filesystem, or mounted over it, even from the same device
(a bind mount may be a database's or a container's). It removes names in a directory that it holds
open, and works with no byte and no inode left. Standard library and ansible.module_utils only: it
runs by whatever Python the remedy has.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import stat
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule

#: Longest that one command may take, in seconds.
TIME_LIMIT = 60
#: The same of removing packages, which nothing may end half way.
PACKAGES_LIMIT = 240

#: Nothing below these is ever removed as a log, whatever an option says.
NEVER = (
    "/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/root", "/run", "/sbin", "/sys", "/tmp",
    "/usr", "/var/backups", "/var/cache", "/var/lib", "/var/log/audit", "/var/log/journal",
    "/var/mail", "/var/run", "/var/spool", "/var/tmp",
)  # fmt: skip
#: A rotated log as logrotate names it: NAME.1, NAME.2.gz, NAME-20260131.gz.
ROTATED = re.compile(r"(?P<live>.+?)(?:\.1|\.[0-9]{1,4}\.gz|-[0-9]{8}\.gz)")
#: Who logged in and who did what: kept for as long as the host's own rules say.
AUDIT = re.compile(r"(audit|auth|secure|sudo|wtmp|btmp|lastlog|faillog|tallylog)", re.IGNORECASE)
#: Rotated by the same tool, and no logs: copies of data.
DATA = re.compile(r"(sql|dump|backup|bak|tar|zip|mbox|-bin|wal)", re.IGNORECASE)
#: What is named a cache: nothing else is emptied as one. `cachet` is another word.
CACHE = re.compile(r"(?i)(?:.*[._-])?caches?(?:[._-].*)?")
#: How deep files of a cache are looked for below it, and how many directories of it at most.
CACHE_DEPTH, CACHE_DIRECTORIES = 16, 100_000
#: Apt writes no cache of its own: there is no room for it, and it was just removed.
APT = ["apt-get", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="]
#: Packages of a kernel, as `apt-get --simulate autoremove` names what would go.
KERNEL = re.compile(
    r"Remv (linux-(?:image|headers|modules|modules-extra)-(?:unsigned-)?([0-9][^\s:]*))"
)
#: How the remedy make-ballast marks its file.
BALLAST = b"hostmend ballast\n"


class Filesystem:
    """The one that room is needed on."""

    def __init__(self, point, measure, target_percent):
        self.point = point
        self.inodes = measure == "inodes"
        self.target = target_percent
        self.mount = read_mount(point)
        #: In a preview: what would be free by now.
        self.imagined_bytes = 0
        self.imagined_inodes = 0

    def measure(self):
        """Bytes and inodes: used, and free to an ordinary user."""
        told = os.statvfs(self.point)
        used = (told.f_blocks - told.f_bfree) * told.f_frsize - self.imagined_bytes
        free = told.f_bavail * told.f_frsize + self.imagined_bytes
        inodes = told.f_files - told.f_ffree - self.imagined_inodes
        return used, free, inodes, told.f_favail + self.imagined_inodes

    def used_percent(self):
        used, free, inodes, inodes_free = self.measure()
        if self.inodes:
            used, free = inodes, inodes_free
        return 100.0 * used / (used + free) if used + free else 0.0

    def reached(self):
        return self.used_percent() <= self.target

    def holds(self, path):
        """Whether a directory or file lies on it, and no link leads there."""
        with contextlib.suppress(OSError):
            return read_mount(path) == self.mount
        return False

    def holds_name(self, name, fd):
        """The same of a name in an open directory."""
        with contextlib.suppress(OSError):
            found = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=fd)
            try:
                return read_mount_of(found) == self.mount
            finally:
                os.close(found)
        return False

    def settle(self):
        """Some filesystems count what was freed only once it is written down."""
        with contextlib.suppress(OSError, AttributeError):
            fd = os.open(self.point, os.O_RDONLY | os.O_DIRECTORY)
            try:
                ctypes.CDLL(None, use_errno=True).syncfs(fd)
            finally:
                os.close(fd)


def open_place(path):
    """A descriptor of what lies there; a link anywhere on the way is an error. Raises OSError."""
    fd = os.open("/", os.O_PATH | os.O_DIRECTORY)
    for name in filter(None, os.path.normpath(path).split("/")):
        try:
            below = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.ELOOP, f"{name} is a symbolic link", path)
    return fd


def read_mount(path):
    """The number of the mount that a place belongs to. Raises OSError."""
    fd = open_place(path)
    try:
        return read_mount_of(fd)
    finally:
        os.close(fd)


def read_mount_of(fd):
    """As proc_pid_fdinfo(5) has it: two mounts of one filesystem differ, which st_dev does not."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        for line in file:
            if line.startswith("mnt_id:"):
                return int(line[7:])
    raise OSError(errno.ENOSYS, "the kernel does not tell mounts")


class Step:
    """What one step did."""

    def __init__(self, filesystem, category, preview):
        self.filesystem = filesystem
        self.category = category
        self.preview = preview
        self.removed = []
        self.notes = []
        self.skipped = ""
        self.before = filesystem.measure()
        self.freed = self.freed_inodes = 0

    def run(self, argv, seconds=TIME_LIMIT):
        """A command that frees room; that it fails is noted, and other steps go on."""
        if shutil.which(argv[0]) is None:
            self.skipped = f"there is no {argv[0]} here"
            return
        if self.preview:
            self.skipped = f"would run {' '.join(argv)}"
            return
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            self.notes.append(f"{argv[0]} took longer than {seconds} s")
            return
        if done.returncode != 0:
            # Warnings come first, and what made it give up last.
            words = (done.stderr or done.stdout).decode(errors="replace").split("\n")
            why = next((word.strip() for word in reversed(words) if word.strip()), "no word")
            self.notes.append(f"{' '.join(argv[:2])} failed: {why[:200]}")

    def remove_below(self, directory, older_than):
        """Removes old files of a directory and of those below it, on this filesystem alone."""
        left, seen = [(directory, 0)], 0
        while left and seen < CACHE_DIRECTORIES and not self.filesystem.reached():
            path, depth = left.pop(0)
            seen += 1
            self.remove(path, lambda _name, _fd: True, older_than)
            if depth < CACHE_DEPTH:
                with contextlib.suppress(OSError), os.scandir(path) as scan:
                    below = sorted(e.path for e in scan if e.is_dir(follow_symlinks=False))
                    left += [(name, depth + 1) for name in below if self.filesystem.holds(name)]

    def remove(self, directory, choose, older_than):
        """Removes chosen files of one directory, the oldest first, until the target is reached."""
        with contextlib.suppress(OSError):
            place = open_place(directory)
            try:
                # A descriptor made by O_PATH cannot be listed.
                fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=place)
            finally:
                os.close(place)
            try:
                self._remove_in(fd, directory, choose, older_than)
            finally:
                os.close(fd)

    def _remove_in(self, fd, directory, choose, older_than):
        names = os.listdir(fd)
        oldest_first = []
        for name in names:
            with contextlib.suppress(OSError):
                told = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if (
                    self._may_go(told, older_than)
                    and choose(name, fd)
                    and self.filesystem.holds_name(name, fd)
                ):
                    oldest_first.append((told.st_mtime, name))
        for _mtime, name in sorted(oldest_first):
            if self.filesystem.reached():
                return
            try:
                # Once more: it may have been written to since.
                told = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if self._may_go(told, older_than):
                    self._unlink(fd, directory, name, told)
            except FileNotFoundError:
                pass
            except OSError as error:
                # Protected by an attribute, or by a security module: the others may still go.
                self.notes.append(f"{directory}/{name} cannot be removed: {error.strerror}")

    def _may_go(self, told, older_than):
        return (
            stat.S_ISREG(told.st_mode)
            and told.st_nlink == 1
            and told.st_mtime < time.time() - older_than
        )

    def _unlink(self, fd, directory, name, told):
        free = self.filesystem.measure()[1]
        if self.preview:
            self.filesystem.imagined_bytes += told.st_blocks * 512
            self.filesystem.imagined_inodes += 1
        else:
            os.unlink(name, dir_fd=fd)
            if told.st_blocks and self.filesystem.measure()[1] <= free:
                self.filesystem.settle()
        self.removed.append(f"{directory}/{name}")

    def finish(self):
        if not self.preview and self.filesystem.measure() == self.before:
            self.filesystem.settle()
        now = self.filesystem.measure()
        self.freed = max(0, self.before[0] - now[0])
        self.freed_inodes = max(0, self.before[2] - now[2])


def is_rotated(name, fd):
    """A rotated log whose live one stands beside it, and no audit log and no copy of data."""
    found = ROTATED.fullmatch(name)
    if found is None or AUDIT.match(name) or DATA.search(name):
        return False
    try:
        return stat.S_ISREG(os.stat(found["live"], dir_fd=fd, follow_symlinks=False).st_mode)
    except OSError:
        return False


def is_core(name, _fd):
    return name.startswith("core.")


def is_forbidden(directory):
    """Whether no log may be removed there: by its name, or by where its name leads."""
    return any(
        path == never or path.startswith(never + "/")
        for path in (os.path.normpath(directory), os.path.realpath(directory))
        for never in NEVER
    )


def is_cache(directory):
    """Whether a directory, or one above it, is called a cache, and none of it is kept by others."""
    kept = ("/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/run", "/sbin", "/sys", "/usr")
    path = os.path.normpath(directory)
    named = any(CACHE.fullmatch(name) for name in path.split("/"))
    # Below these lie the caches of package managers and of the host, each with a step of its own.
    own = path == "/var/cache" or path.startswith(("/var/cache/apt", "/var/cache/debconf"))
    return named and not own and not any(path == k or path.startswith(k + "/") for k in kept)


def remove_kernels(step):
    """Removes kernels that apt itself would remove (apt(8), autoremove), and no other package.

    Apt keeps the running one and the newest; they are left out here once more.
    """
    if shutil.which("apt-get") is None or shutil.which("systemd-run") is None:
        step.skipped = "there is no apt-get here, or no systemd-run"
        return
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        asked = subprocess.run(
            [*APT, "--simulate", "autoremove"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        step.notes.append(f"apt-get took longer than {TIME_LIMIT} s to say which kernels are old")
        return
    if asked.returncode != 0:
        step.notes.append(f"apt-get --simulate autoremove failed: {asked.stderr.strip()[-200:]}")
        return
    names = pick_kernels(asked.stdout, os.uname().release, list_images())
    if not names:
        step.skipped = "apt keeps every kernel that is installed"
        return
    if step.preview:
        step.skipped = f"would remove {' '.join(names)}"
        return
    # As a unit of its own: whatever ends this run, dpkg is not ended half way.
    argv = ["systemd-run", "--quiet", "--wait", "--collect"]
    argv += ["--setenv=DEBIAN_FRONTEND=noninteractive", *APT, "--yes", "remove", *names]
    step.run(argv, PACKAGES_LIMIT)
    step.removed += names


def list_images():
    """Versions of the kernels in /boot, the newest last, as their packages have them in names."""
    found = [name.removeprefix("vmlinuz-") for name in os.listdir("/boot") if "vmlinuz-" in name]
    return sorted(found, key=lambda v: [int(part) for part in re.findall(r"[0-9]+", v)])


def pick_kernels(simulated, running, images):
    """Names of packages to remove: never of the running kernel, and never of the newest."""
    kept = {read_release(version) for version in (running, *images[-1:])}
    found = KERNEL.findall(simulated)
    return [name for name, version in found if read_release(version) not in kept]


def read_release(version):
    """`6.1.0-18` of `6.1.0-18-amd64`: what the packages of one kernel have in common."""
    return re.match(r"[0-9.]*(?:-[0-9]+)?", version)[0]


def find_linked(filesystem, directories):
    """Those that lie on it, and that only a link leads to."""
    return [
        path
        for path in directories
        if not filesystem.holds(path) and filesystem.holds(os.path.realpath(path))
    ]


def vacuum(step, directory, keep_mb):
    """Archived journals of this host only: those of others lie beside them."""
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            own = os.path.join(directory, file.read().strip())
    except OSError:
        step.skipped = "this host has no machine-id"
        return
    if not step.filesystem.holds(own):
        step.skipped = f"no journal of this host lies on {step.filesystem.point}"
        return
    step.run(["journalctl", f"--directory={own}", f"--vacuum-size={keep_mb}M"])


def spend(step, path):
    """Removes the ballast, if it is one: a wrong option must not remove a file of somebody."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        step.skipped = f"there is no ballast at {path}: {error.strerror}"
        return
    try:
        told = os.fstat(fd)
        marked = stat.S_ISREG(told.st_mode) and os.pread(fd, len(BALLAST), 0) == BALLAST
    finally:
        os.close(fd)
    if not marked or not step.filesystem.holds(path):
        step.skipped = f"{path} is no ballast of hostmend on {step.filesystem.point}"
        return
    directory, name = os.path.split(path)
    step.remove(directory, lambda each, _fd: each == name, 0)


def find_largest(filesystem, seconds=10, most_entries=200_000):
    """The directories of up to three levels that hold most, with their bytes."""
    until = time.monotonic() + seconds
    avoid = read_mount_points() - {filesystem.point}
    sizes, entries = {}, 0
    left = [(filesystem.point, (filesystem.point,))]
    while left and entries < most_entries and time.monotonic() < until:
        directory, counted = left.pop(0)
        with contextlib.suppress(OSError), os.scandir(directory) as scan:
            for entry in scan:
                entries += 1
                # Another machine may be behind a mount point: it is not even looked at.
                if entry.path in avoid:
                    continue
                with contextlib.suppress(OSError):
                    told = entry.stat(follow_symlinks=False)
                    for name in counted:
                        amount = 1 if filesystem.inodes else told.st_blocks * 512
                        sizes[name] = sizes.get(name, 0) + amount
                    if stat.S_ISDIR(told.st_mode):
                        deep = len(counted) > 3
                        left.append((entry.path, counted if deep else (*counted, entry.path)))
    return sorted(sizes.items(), key=lambda each: (-each[1], each[0]))


def pick_largest(sizes, most=4):
    """Leaves out those of which nearly all is in one below."""
    below = {}
    for path, size in sizes:
        above = os.path.dirname(path)
        if above != path:
            below[above] = max(size, below.get(above, 0))
    return [(path, size) for path, size in sizes if below.get(path, 0) < 0.9 * size][:most]


def read_mount_points():
    points = set()
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        for line in file:
            point = line.split(" ")[4]
            points.add(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), point))
    return points


def show_size(size):
    for unit, whole in (("GB", 2**30), ("MB", 2**20), ("KB", 2**10)):
        if size >= whole:
            return (
                f"{size / whole:.3g} {unit}" if size < 1000 * whole else f"{size // whole} {unit}"
            )
    return f"{size} B"


def report(filesystem, steps, preview):
    """One sentence for people, and whether one of them is needed."""
    point, percent = filesystem.point, filesystem.used_percent()
    freed, notes = {}, []
    for step in steps:
        if step.get("freed_bytes") or step.get("freed_inodes"):
            freed[step["category"]] = step["freed_inodes" if filesystem.inodes else "freed_bytes"]
        notes += step.get("notes") or []

    def show(amount):
        return f"{amount} inodes" if filesystem.inodes else show_size(amount)

    spent = "ballast" in freed
    what = "inodes are" if filesystem.inodes else "room is"
    state = f"{percent:.0f} % of its {what} used, {filesystem.target:g} % is the target"
    if freed:
        parts = ", ".join(f"{name} {show(amount)}" for name, amount in freed.items())
        verb = "would free" if preview else "freed"
        words = f"{verb} {show(sum(freed.values()))} on {point} ({parts})"
    else:
        words = f"nothing {'would be' if preview else 'could be'} freed on {point}"
    reached = filesystem.reached()
    words = f"{words}; {state}" if freed or reached else f"{words}: {state}"
    if spent:
        words += "; the ballast is spent, which buys time and cures nothing: remove the cause, "
        words += "then make it again (make-ballast)"
    if not reached or spent:
        largest = pick_largest(find_largest(filesystem))
        named = ", ".join(f"{path} {show(amount)}" for path, amount in largest)
        words += f"; the largest directories: {named}" if named else ""
    if notes:
        words += f"; {'; '.join(notes)}"
    return {"msg": words, "freed": freed, "reached": reached, "needs_human": not reached or spent}


def main():
    module = AnsibleModule(
        argument_spec={
            "filesystem": {"type": "path", "required": True},
            "measure": {"choices": ["full", "inodes"], "default": "full"},
            "target_percent": {"type": "float", "required": True},
            "step": {
                "choices": [
                    "command",
                    "tmpfiles",
                    "journal",
                    "cores",
                    "logs",
                    "caches",
                    "kernels",
                    "ballast",
                    "report",
                ],
                "required": True,
            },
            "category": {"default": ""},
            "directories": {"type": "list", "elements": "path", "default": []},
            "argv": {"type": "list", "elements": "str", "default": []},
            "older_than": {"type": "float", "default": 0},
            "keep_mb": {"type": "int", "default": 0},
            "steps": {"type": "list", "elements": "dict", "default": []},
        },
        supports_check_mode=True,
    )
    given = module.params
    point = given["filesystem"]
    if point not in read_mount_points():
        module.fail_json(msg=f"cannot free room on {point}: nothing is mounted there")
    filesystem = Filesystem(point, given["measure"], given["target_percent"])
    if given["step"] == "report":
        if module.check_mode:
            for each in given["steps"]:
                filesystem.imagined_bytes += each.get("freed_bytes") or 0
                filesystem.imagined_inodes += each.get("freed_inodes") or 0
        module.exit_json(changed=False, **report(filesystem, given["steps"], module.check_mode))
    step = Step(filesystem, given["category"], module.check_mode)
    here = [path for path in given["directories"] if filesystem.holds(path)]
    linked = find_linked(filesystem, given["directories"])
    if filesystem.reached():
        linked = []
        step.skipped = "the target is reached"
    elif not here:
        step.skipped = f"nothing of it lies on {point}"
    elif given["step"] == "command":
        step.run(given["argv"])
    elif given["step"] == "tmpfiles":
        step.run(["systemd-tmpfiles", "--clean", *(f"--prefix={path}" for path in here)])
    elif given["step"] == "journal":
        vacuum(step, here[0], given["keep_mb"])
    elif given["step"] == "ballast":
        spend(step, here[0])
    elif given["step"] == "kernels":
        remove_kernels(step)
    elif given["step"] == "caches":
        for directory in here:
            if not is_cache(directory):
                step.notes.append(f"{directory} is not called a cache, and is left alone")
            elif not filesystem.reached():
                step.remove_below(directory, given["older_than"])
    elif given["step"] == "cores":
        step.remove(here[0], is_core, given["older_than"])
    else:
        for directory in here:
            if is_forbidden(directory):
                step.notes.append(f"{directory} is no place to remove logs from")
            elif not filesystem.reached():
                step.remove(directory, is_rotated, given["older_than"])
    if linked:
        step.notes.append(f"left alone, for a link leads there: {', '.join(linked)}")
    step.finish()
    module.exit_json(
        changed=bool(step.freed or step.removed),
        category=step.category,
        freed_bytes=step.freed,
        freed_inodes=step.freed_inodes,
        removed=step.removed[:20],
        removed_count=len(step.removed),
        notes=step.notes,
        msg=step.skipped or f"freed {show_size(step.freed)}, {len(step.removed)} files removed",
    )


if __name__ == "__main__":
    main()
