"""Fills a filesystem with one file: `fill.py MOUNT-POINT BYTES-TO-LEAVE`."""

import os
import sys
from pathlib import Path

STEPS = (1 << 30, 1 << 26, 1 << 20, 4096)


def main(place: str, leave: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    handle = os.open(Path(place, ".hostmend-drill-fill"), flags, 0o600)
    size = 0
    for step in STEPS:
        while free(handle) - leave >= step:
            try:
                os.posix_fallocate(handle, size, step)
            except OSError:
                break
            size += step
    if leave == 0:
        # The last block, which statvfs may not tell of.
        os.lseek(handle, size, os.SEEK_SET)
        try:
            while True:
                os.write(handle, bytes(512))
        except OSError:
            pass
    os.close(handle)


def free(handle: int) -> int:
    """What root can still write."""
    held = os.fstatvfs(handle)
    return held.f_bfree * held.f_frsize


main(sys.argv[1], int(sys.argv[2]))
