"""The filesystem of a write-ahead log, and the ballast on it."""

from __future__ import annotations

import os
import re
import stat

from ansible.module_utils.data_directory import Refused

#: How the remedy make-ballast marks its file.
BALLAST = b"hostmend ballast\n"
#: A start after a crash may need a segment to go on in, and its checkpoint another one.
SEGMENTS = 2


class Room:
    """The room for the write-ahead log of one server."""

    def __init__(self, server):
        self.place = os.path.realpath(os.path.join(server.directory, "pg_wal"))
        if not os.path.isdir(self.place):
            raise Refused(f"{self.place} is no directory")
        sizes = [
            os.stat(os.path.join(self.place, name)).st_size
            for name in os.listdir(self.place)
            if re.fullmatch("[0-9A-F]{24}", name)
        ]
        if not sizes:
            raise Refused(f"there is no segment of a write-ahead log in {self.place}")
        # All are as large as they will be from the beginning.
        self.needed = SEGMENTS * max(sizes)

    def free(self):
        """Bytes that the server's user may have of it."""
        told = os.statvfs(self.place)
        return told.f_bavail * told.f_frsize

    def short(self):
        return self.free() < self.needed

    def check_ballast(self, server, path):
        """That it is one, on this filesystem, and large enough. Raises Refused."""
        if not path:
            raise Refused(f"{self.place} has no room for a start, and no ballast is configured")
        check_mark(path)
        real = os.path.realpath(path)
        if os.path.commonpath([real, server.directory]) == server.directory:
            raise Refused(f"the ballast {path} lies in the data directory {server.directory}")
        told = os.stat(path)
        if told.st_dev != os.stat(self.place).st_dev:
            raise Refused(f"the ballast {path} is not on the filesystem of {self.place}")
        if told.st_blocks * 512 + self.free() < self.needed:
            raise Refused(
                f"the ballast {path} holds too little: a start needs {self.needed >> 20} MB"
            )


def check_mark(path):
    """That a file is a ballast of hostmend. Raises Refused."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Refused(f"the ballast {path} cannot be had: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode) or os.pread(fd, len(BALLAST), 0) != BALLAST:
            raise Refused(f"{path} is no ballast of hostmend")
    finally:
        os.close(fd)
