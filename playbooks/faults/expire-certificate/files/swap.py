"""Puts an expired certificate in a certificate's place, and back.

`swap.py expire|restore PATH KEEP`

Each is there as a whole or not at all, and keeps its owner and mode.
"""

import os
import shutil
import sys
from pathlib import Path

verb, path, keep = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
original, expired = keep / "original.pem", keep / "expired.pem"


def place(source: Path, like: Path, target: Path) -> None:
    draft = target.with_name(f".{target.name}.hostmend-drill")
    shutil.copyfile(source, draft)
    held = like.stat()
    os.chown(draft, held.st_uid, held.st_gid)
    shutil.copystat(like, draft)
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(target)


# A link stays one: what it leads to is what is read.
real = path.resolve(strict=True)
if verb == "expire":
    place(real, real, original)
    place(expired, real, real)
elif original.exists() and real.read_bytes() == expired.read_bytes():
    place(original, original, real)
