"""Puts a corrupt copy of the journal's newest archived file beside it."""

import os
import shutil
import sys
from pathlib import Path

machine = Path("/etc/machine-id").read_text().strip()
archived = [
    path
    for place in ("/var/log/journal", "/run/log/journal")
    for path in Path(place, machine).glob("system@*.journal")
]
if not archived:
    sys.exit("the journal has no archived file")
newest = max(archived, key=lambda path: path.stat().st_mtime)
copy = newest.with_name(newest.name.replace("system@", "hostmend-drill@"))
draft = copy.with_suffix(".draft")
shutil.copyfile(newest, draft)
size = draft.stat().st_size
with draft.open("r+b") as file:
    # Behind the header, and where objects are.
    file.seek(4096)
    file.write(os.urandom(min(65_536, max(1, size // 4))))
shutil.copystat(newest, draft)
draft.rename(copy)
