"""Makes empty files until a filesystem takes no more: `exhaust.py MOUNT-POINT AT-MOST`."""

import errno
import os
import sys
from pathlib import Path

#: Directories become slow beyond this.
EACH = 10_000


def main(place: Path, at_most: int) -> None:
    held = os.statvfs(place)
    if held.f_files == 0:
        sys.exit(f"{place} has no limit of inodes")
    if held.f_ffree > at_most:
        sys.exit(f"{place} has {held.f_ffree} free inodes, more than {at_most}")
    here = place / ".hostmend-drill-inodes"
    here.mkdir(mode=0o700)
    try:
        for number in range(at_most + EACH):
            if number % EACH == 0:
                part = here / str(number)
                part.mkdir()
            os.close(os.open(part / str(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


main(Path(sys.argv[1]), int(sys.argv[2]))
