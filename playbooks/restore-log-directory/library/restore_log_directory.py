#!/usr/bin/python
"""Brings one directory of logs back as the host's own configuration wants it.

DOCUMENTATION: see the playbook beside it. Everything is asked before anything is changed. It works
through descriptors, so that a link that somebody puts in the way leads nowhere. Standard library
and ansible.module_utils only: it runs by whatever Python the remedy has.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import grp
import os
import pwd
import re
import shlex
import shutil
import stat
import subprocess

from ansible.module_utils.basic import AnsibleModule

#: Kept by systemd and by the audit system, by rules of their own.
NEVER = ("/var/log/journal", "/var/log/private", "/var/log/audit")
#: Longest that one question may take, in seconds.
TIME_LIMIT = 20
#: Users that belong to packages, not to people (login.defs(5): SYS_UID_MAX).
SYSTEM_IDS = 999


class NeedsHumanError(Exception):
    """Why nothing is done, with what a human would do."""


class Wanted:
    """How the directory should be, and who says so."""

    def __init__(self, uid, gid, mode, source):
        self.uid = uid
        self.gid = gid
        self.mode = mode
        self.source = source

    def __str__(self):
        return f"{name_user(self.uid)}:{name_group(self.gid)} {self.mode:04o}"

    def is_of(self, told):
        return (told.st_uid, told.st_gid, stat.S_IMODE(told.st_mode)) == (
            self.uid,
            self.gid,
            self.mode,
        )


def name_user(uid):
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def name_group(gid):
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def find_uid(name, source):
    try:
        return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid
    except KeyError:
        raise NeedsHumanError(f"{source} names the user {name}, whom nobody knows here") from None


def find_gid(name, source):
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise NeedsHumanError(f"{source} names the group {name}, which nobody knows here") from None


def read_mode(text, source):
    if not re.fullmatch(r"[0-7]{3,4}", text):
        raise NeedsHumanError(f"{source} has the permissions {text!r}, which are none")
    return int(text, 8)


def ask(argv):
    """What a command prints; nothing where it is not there or fails."""
    if shutil.which(argv[0]) is None:
        return ""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIME_LIMIT,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


# Who knows how it should be


def read_statoverride(directory):
    """dpkg-statoverride(1): `root adm 0755 /var/log/nginx`."""
    source = "dpkg-statoverride"
    for line in ask([source, "--list", directory]).splitlines():
        words = line.split(None, 3)
        if len(words) == 4 and words[3] == directory:
            owner, group = (word.removeprefix("#") for word in words[:2])
            return Wanted(
                find_uid(owner, source),
                find_gid(group, source),
                read_mode(words[2], source),
                source,
            )
    return None


def read_tmpfiles(directory):
    """tmpfiles.d(5): the line that makes it, and those that change its owner or permissions."""
    source, made = "tmpfiles.d", False
    owner, group, mode = "root", "root", "0755"
    for line in ask(["systemd-tmpfiles", "--cat-config"]).splitlines():
        words = read_words(line)
        if len(words) < 2 or words[1].rstrip("/") != directory or words[0].startswith("#"):
            continue
        makes = words[0][0] in "dDvqQ"
        if not makes and words[0][0] not in "zm":
            continue
        if makes and made:
            # The first line is the one that counts.
            continue
        made = made or makes
        given = [*(word.lstrip(":~") for word in words[2:5]), "-", "-", "-"]
        mode = mode if given[0] == "-" else given[0]
        owner = owner if given[1] == "-" else given[1]
        group = group if given[2] == "-" else given[2]
    if not made:
        return None
    return Wanted(find_uid(owner, source), find_gid(group, source), read_mode(mode, source), source)


def read_words(line):
    try:
        return shlex.split(line)
    except ValueError:
        return []


def read_units(directory):
    """A service's LogsDirectory= (systemd.exec(5)), which is below /var/log."""
    shown = ask(
        [
            "systemctl",
            "show",
            "--property=Id,LogsDirectory,LogsDirectoryMode,User,Group,DynamicUser",
            "*.service",
        ]
    )
    for block in shown.split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        names = [f"/var/log/{name}" for name in unit.get("LogsDirectory", "").split()]
        if directory not in names or unit.get("DynamicUser") == "yes":
            continue
        source = f"LogsDirectory= of {unit.get('Id')}"
        uid = find_uid(unit.get("User") or "root", source)
        group = unit.get("Group")
        gid = find_gid(group, source) if group else pwd.getpwuid(uid).pw_gid
        return Wanted(uid, gid, read_mode(unit.get("LogsDirectoryMode", "0755"), source), source)
    return None


def read_record(given):
    """What the check saw while the directory was there; only what is harmless is believed."""
    seen = [given[name] for name in ("seen_uid", "seen_gid", "seen_mode")]
    if None in seen:
        return None
    uid, gid, mode = (int(value) for value in seen)
    if not (0 <= uid <= SYSTEM_IDS and 0 <= gid <= SYSTEM_IDS) or mode & ~0o3777:
        return None
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        return None
    return Wanted(uid, gid, mode, "the check, which saw it while it was there")


def read_options(given):
    named = [given[name] for name in ("owner", "group", "mode")]
    if None in named:
        return None
    owner, group, mode = named
    source = "hostmend's configuration"
    return Wanted(find_uid(owner, source), find_gid(group, source), read_mode(mode, source), source)


def find_wanted(directory, given, exists):
    wanted = (
        read_options(given)
        or read_statoverride(directory)
        or read_tmpfiles(directory)
        or read_units(directory)
    )
    if wanted is None and not exists:
        # Of what is there nobody can tell whether it is as it was left on purpose.
        wanted = read_record(given)
    return wanted


def find_package(directory):
    """The Debian package that has the directory, by dpkg's own list."""
    return ask(["dpkg-query", "--search", directory]).partition(": ")[0].partition(",")[0]


# logrotate


def read_create(log):
    """Mode, user and group that logrotate gives a new log (`create`); None: it does not say."""
    for file in ["/etc/logrotate.conf", *sorted(glob.glob("/etc/logrotate.d/*"))]:
        try:
            with open(file, encoding="utf-8", errors="replace") as stream:
                text = re.sub(r"(?m)#.*$", "", stream.read())
        except OSError:
            continue
        for names, body in re.findall(r"([^{}]*)\{([^{}]*)\}", text):
            if log not in [path for name in read_words(names) for path in match(name, log)]:
                continue
            found = re.search(r"(?m)^\s*create\s+([0-7]{3,4})\s+(\S+)\s+(\S+)\s*$", body)
            if found:
                return found.groups()
    return None


def match(name, log):
    """The log, where a pattern of logrotate's (glob(7)) means it."""
    same = os.path.dirname(name) == os.path.dirname(log)
    pattern = re.compile(glob_to_regex(os.path.basename(name)))
    return [log] if same and pattern.fullmatch(os.path.basename(log)) else []


def glob_to_regex(name):
    return re.escape(name).replace(r"\*", ".*").replace(r"\?", ".")


# The work


def open_parent(directory):
    """A descriptor of what it lies in; a link anywhere on the way is an error."""
    fd = os.open("/", os.O_PATH | os.O_DIRECTORY)
    for name in filter(None, os.path.dirname(directory).split("/")):
        try:
            below = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=fd)
        except FileNotFoundError:
            raise NeedsHumanError(
                f"{os.path.dirname(directory)} is missing too: bring it back first, or see whether "
                f"a filesystem is not mounted: findmnt --verify; systemctl list-units --failed "
                "'*.mount'"
            ) from None
        finally:
            os.close(fd)
        fd = below
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            raise NeedsHumanError(
                f"{name}, on the way to {directory}, is no directory but a link "
                f"or a file: see ls -ld {os.path.dirname(directory)}"
            )
    return fd


def check_place(directory, roots):
    inside = any(directory.startswith(root.rstrip("/") + "/") for root in roots)
    kept = any(directory == never or directory.startswith(never + "/") for never in NEVER)
    if not inside or kept or glob.has_magic(directory):
        raise NeedsHumanError(
            f"{directory} is no directory that this remedy may bring back: it is for those below "
            f"{', '.join(roots)}, and not for {', '.join(NEVER)}"
        )


def check_writable(fd, directory):
    if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
        parent = os.path.dirname(directory)
        raise NeedsHumanError(
            f"the filesystem of {directory} is read-only (errno {errno.EROFS}), and its disk may "
            f"be dying: see findmnt -no SOURCE,OPTIONS -T {parent}, then journalctl -k -p err; "
            f"only then: mount -o remount,rw $(findmnt -no TARGET -T {parent})"
        )


def restore(directory, given, preview):
    """What was done, in words; empty: nothing had to be."""
    check_place(directory, given["log_directories"])
    parent = open_parent(directory)
    try:
        name = os.path.basename(directory)
        try:
            told = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            told = None
        if told is not None and not stat.S_ISDIR(told.st_mode):
            raise NeedsHumanError(
                f"{directory} is no directory but a link or a file, which may be on purpose: "
                f"see ls -ld {directory}"
            )
        check_writable(parent, directory)
        wanted = find_wanted(directory, given, told is not None)
        if wanted is None:
            if told is not None:
                return ""
            package = find_package(directory)
            again = f"apt-get install --reinstall {package}, or " if package else ""
            raise NeedsHumanError(
                f"nothing on this host says whose {directory} should be: {again}"
                f"install -d -o USER -g GROUP -m MODE {directory}; a line in tmpfiles.d(5) would "
                "make it known"
            )
        if told is not None and wanted.is_of(told):
            return ""
        if not preview:
            put_right(parent, name, directory, wanted, new=told is None)
        before = "made" if told is None else f"changed from {show(told)}"
        return f"{directory} was {before}, as {wanted}, as {wanted.source} has it"
    finally:
        os.close(parent)


def show(told):
    user, group = name_user(told.st_uid), name_group(told.st_gid)
    return f"{user}:{group} {stat.S_IMODE(told.st_mode):04o}"


def put_right(parent, name, directory, wanted, *, new):
    # It is at its place as it should be, or not at all.
    draft = f".{name}.hostmend" if new else name
    if new:
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(draft, dir_fd=parent)
        os.mkdir(draft, 0o700, dir_fd=parent)
    fd = os.open(draft, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        os.fchown(fd, wanted.uid, wanted.gid)
        os.fchmod(fd, wanted.mode)
    finally:
        os.close(fd)
    if new:
        os.rename(draft, name, src_dir_fd=parent, dst_dir_fd=parent)
    ask(["restorecon", directory])


def make_log(directory, log, preview):
    """The empty log that logrotate would make there; empty: it says nothing of it, or it is there.

    Some services may write to their log, and not make one.
    """
    created = read_create(log)
    if created is None or os.path.lexists(log) or (preview and not os.path.isdir(directory)):
        return ""
    mode, user, group = created
    source = f"logrotate's rule for {log}"
    uid, gid = find_uid(user, source), find_gid(group, source)
    if not preview:
        place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            fd = os.open(os.path.basename(log), flags, 0o600, dir_fd=place)
        except FileExistsError:
            return ""
        finally:
            os.close(place)
        try:
            os.fchown(fd, uid, gid)
            os.fchmod(fd, read_mode(mode, source))
        finally:
            os.close(fd)
    return f"{log} was made, empty, as {user}:{group} {mode}, as logrotate has it"


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "directory": {"type": "path"},
            "owner": {},
            "group": {},
            "mode": {},
            "seen_uid": {"type": "float"},
            "seen_gid": {"type": "float"},
            "seen_mode": {"type": "float"},
            "log_directories": {"type": "list", "elements": "path", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    log = os.path.normpath(given["path"])
    directory = os.path.normpath(given["directory"] or os.path.dirname(log))
    done = []
    try:
        done.append(restore(directory, given, module.check_mode))
        if os.path.dirname(log) == directory and not glob.has_magic(log):
            with contextlib.suppress(OSError):
                done.append(make_log(directory, log, module.check_mode))
    except NeedsHumanError as error:
        words = "; ".join([*(each for each in done if each), str(error)])
        module.exit_json(changed=any(done), needs_human=True, msg=words)
    except OSError as error:
        module.fail_json(msg=f"cannot restore {directory}: {error.strerror}")
    done = [each for each in done if each]
    module.exit_json(
        changed=bool(done),
        needs_human=False,
        msg="; ".join(done) or f"{directory} is as it should be, as far as this host knows",
    )


if __name__ == "__main__":
    main()
