#!/usr/bin/python
"""Puts a known good copy of a file in its place, and keeps what was there before.

DOCUMENTATION: see the playbook beside it. Everything is asked before anything is changed. It works
through descriptors of directories, so that a link that somebody puts in the way leads nowhere.
Standard library and ansible.module_utils only.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule

#: Larger files are no pages and no configuration: they belong into a backup.
MOST_BYTES = 256 * 2**20
#: Kept of one file. One that has to be put right again and again needs eyes.
MOST_KEPT = 20
#: Longest that the validation may take, in seconds.
TIME_LIMIT = 30
#: Text up to this is shown as a difference.
DIFF_BYTES = 64 * 1024
#: Links on the way, as the kernel has it (path_resolution(7)).
MOST_LINKS = 40


class NeedsHumanError(Exception):
    """Why nothing is changed, with what a human would do."""


def is_own(told):
    """Whether nobody but root, or who runs this, may change it.

    What is root's own in a directory with the sticky bit (inode(7)) nobody else can replace.
    """
    own = told.st_uid in (0, os.geteuid())
    sticky = stat.S_ISDIR(told.st_mode) and told.st_mode & stat.S_ISVTX
    return own and (sticky or not told.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def open_directory(path, *, own):
    """A descriptor of a directory. A link on the way counts only where it is root's own, and lies
    where nobody else could have put it; with `own` every directory must be root's.
    """
    left, fd, links = path.split("/")[::-1], os.open("/", os.O_PATH | os.O_DIRECTORY), 0
    done = ""
    try:
        while left:
            name = left.pop()
            if name in ("", "."):
                continue
            try:
                below = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=fd)
            except OSError as error:
                raise NeedsHumanError(f"{done}/{name}: {error.strerror}") from None
            told, above = os.fstat(below), os.fstat(fd)
            if stat.S_ISLNK(told.st_mode):
                target = os.readlink("", dir_fd=below)
                os.close(below)
                links += 1
                if not (is_own(above) and told.st_uid in (0, os.geteuid())) or links > MOST_LINKS:
                    raise NeedsHumanError(
                        f"{done}/{name} is a link that others than root may change: name the place "
                        "that it leads to"
                    )
                left += target.split("/")[::-1]
                if target.startswith("/"):
                    os.close(fd)
                    fd, done = os.open("/", os.O_PATH | os.O_DIRECTORY), ""
                continue
            os.close(fd)
            fd, done = below, f"{done}/{name}"
            if not stat.S_ISDIR(told.st_mode):
                raise NeedsHumanError(f"{done} is no directory")
            if own and not is_own(told):
                raise NeedsHumanError(
                    f"others than root may write to {done}: chown root {done}; chmod go-w {done}"
                )
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
    finally:
        os.close(fd)


def read_file(directory, name, path):
    """Content and what is known of a regular file; None where there is none."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        why = "is a link" if error.errno == errno.ELOOP else f"cannot be read: {error.strerror}"
        raise NeedsHumanError(f"{path} {why}, which may be on purpose: ls -ld {path}") from None
    with open(fd, "rb") as file:
        told = os.fstat(fd)
        if not stat.S_ISREG(told.st_mode):
            raise NeedsHumanError(f"{path} is no regular file: see ls -ld {path}")
        if told.st_size > MOST_BYTES:
            raise NeedsHumanError(f"{path} has more than {MOST_BYTES >> 20} MB: restore a backup")
        return file.read(MOST_BYTES + 1), told


def read_good(given):
    path = given["good_copy"]
    directory = open_directory(os.path.dirname(path), own=True)
    try:
        found = read_file(directory, os.path.basename(path), path)
    finally:
        os.close(directory)
    if found is None:
        raise NeedsHumanError(f"the good copy {path} is missing")
    content, told = found
    if not is_own(told):
        raise NeedsHumanError(
            f"others than root may write to the good copy: chown root {path}; chmod go-w {path}"
        )
    digest = hashlib.sha256(content).hexdigest()
    wanted = given["sha256"]
    if wanted and digest != wanted.lower():
        raise NeedsHumanError(f"the good copy {path} has the digest {digest}, and not {wanted}")
    return content, told


def keep(given, content):
    """Where what was there is kept: the same content once."""
    place, name = given["kept_in"], os.path.basename(given["path"])
    os.makedirs(place, mode=0o700, exist_ok=True)
    directory = open_directory(place, own=True)
    try:
        digest = hashlib.sha256(content).hexdigest()[:16]
        kept = [n for n in os.listdir(directory) if n.startswith(f"{name}-")]
        for earlier in kept:
            if earlier.endswith(digest):
                return os.path.join(place, earlier)
        if len(kept) >= MOST_KEPT:
            raise NeedsHumanError(
                f"{len(kept)} earlier contents of {name} lie in {place}: something changes it "
                "again and again; find out what, and remove those"
            )
        new = f"{name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{digest}"
        write(directory, new, content, None)
        return os.path.join(place, new)
    finally:
        os.close(directory)


def write(directory, name, content, told):
    """The whole file, or none. `told`: whose owner and permissions it gets; None: root's alone."""
    draft = f".{name[:100]}.{secrets.token_hex(6)}"
    fd = os.open(
        draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory
    )
    try:
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            if told is not None:
                os.fchown(fd, told.st_uid, told.st_gid)
                # Never set-user-ID: it is a page or a configuration.
                os.fchmod(fd, stat.S_IMODE(told.st_mode) & 0o777)
            os.fsync(fd)
        os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft, dir_fd=directory)
        raise
    os.fsync(directory)


def validate(argv):
    """Why it fails; empty: it does not."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIME_LIMIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    return (done.stderr or done.stdout).strip()[:1000] or f"exit code {done.returncode}"


def restore(given, preview):
    """Whether it was changed, what was done, and the difference."""
    path = given["path"]
    content, good = read_good(given)
    directory = open_directory(os.path.dirname(path), own=False)
    try:
        name = os.path.basename(path)
        before = read_file(directory, name, path)
        if before is not None and before[0] == content:
            return False, f"{path} is as the good copy has it", None
        if os.fstatvfs(directory).f_flag & os.ST_RDONLY:
            raise NeedsHumanError(
                f"the filesystem of {path} is read-only, and its disk may be dying: see "
                f"findmnt -no SOURCE,OPTIONS -T {path}, then journalctl -k -p err"
            )
        difference = show_difference(before, content, path)
        if preview:
            return True, f"{path} would be restored from {given['good_copy']}", difference
        kept = keep(given, before[0]) if before is not None else ""
        write(directory, name, content, before[1] if before is not None else good)
        if given["validate"] and (why := validate(given["validate"])):
            if before is not None:
                write(directory, name, before[0], before[1])
            else:
                os.unlink(name, dir_fd=directory)
            raise NeedsHumanError(
                f"{' '.join(given['validate'])} fails with the good copy too, so {path} is as it "
                f"was: {why}"
            )
        was = f"; what was there is kept as {kept}" if kept else ""
        return True, f"{path} was restored from {given['good_copy']}{was}", difference
    finally:
        os.close(directory)


def show_difference(before, content, path):
    old = before[0] if before is not None else b""
    if max(len(old), len(content)) > DIFF_BYTES:
        return None
    try:
        return {
            "before_header": path,
            "after_header": path,
            "before": old.decode(),
            "after": content.decode(),
        }
    except UnicodeDecodeError:
        return None


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "good_copy": {"type": "path", "required": True},
            "sha256": {},
            "validate": {"type": "list", "elements": "str"},
            "kept_in": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        changed, msg, difference = restore(module.params, module.check_mode)
    except NeedsHumanError as error:
        module.exit_json(changed=False, needs_human=True, msg=f"{error}")
    except OSError as error:
        why = f"{module.params['path']} cannot be restored: {error.strerror} ({error.filename})"
        module.exit_json(changed=False, needs_human=True, msg=why)
    more = {"diff": difference} if difference else {}
    module.exit_json(changed=changed, needs_human=False, msg=msg, **more)


if __name__ == "__main__":
    main()
