#!/usr/bin/python
"""Makes a file of a given size that says what it is, or leaves one that is there.

DOCUMENTATION: see the playbook beside it.
"""

from __future__ import annotations

import contextlib
import os
import stat

from ansible.module_utils.basic import AnsibleModule

#: The first line of every ballast, without which clean-disk does not remove it.
MARK = b"hostmend ballast\n"
#: A filesystem that would be fuller than this with it gets none, in percent.
MOST = 80.0


def read_size(path):
    """The size of the ballast at that path; None: nothing is there. Raises ValueError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(error.strerror) from None
    try:
        told = os.fstat(fd)
        if not stat.S_ISREG(told.st_mode) or os.pread(fd, len(MARK), 0) != MARK:
            raise ValueError("what is there is no ballast of hostmend; choose another path")
        return told.st_size
    finally:
        os.close(fd)


def why_too_large(directory, size):
    """In words why there is no room for it; empty when there is."""
    told = os.statvfs(directory)
    used = (told.f_blocks - told.f_bfree) * told.f_frsize + size
    whole = (told.f_blocks - told.f_bfree + told.f_bavail) * told.f_frsize
    if used <= MOST / 100 * whole:
        return ""
    return f"the filesystem would be {100.0 * used / whole:.0f} % full; make it smaller"


def make(path, size):
    """Written beside its place and then moved there: it is whole or not there at all."""
    draft = f"{path}.draft"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, MARK)
        os.posix_fallocate(fd, 0, size)
        os.fsync(fd)
        os.rename(draft, path)
    except OSError:
        os.unlink(draft)
        raise
    finally:
        os.close(fd)


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "size_mb": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    path, size = module.params["path"], module.params["size_mb"] * 1024 * 1024
    if size < 1:
        module.fail_json(msg="cannot make a ballast: its size must be at least 1 MB")
    try:
        if read_size(path) == size:
            module.exit_json(changed=False, msg=f"{path} is there")
        if why := why_too_large(os.path.dirname(path), size):
            raise ValueError(why)
        if not module.check_mode:
            make(path, size)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"cannot make the ballast {path}: {error}")
    module.exit_json(changed=True, msg=f"{path} holds {module.params['size_mb']} MB")


if __name__ == "__main__":
    main()
