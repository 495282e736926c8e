"""Moves a directory aside and puts it back, losing nothing.

`directory.py check|aside|back|merge PATH`
"""

import os
import shutil
import sys
from pathlib import Path

path = Path(sys.argv[2])
aside = path.with_name(f"{path.name}.hostmend-drill")
meanwhile = path.with_name(f"{path.name}.hostmend-drill-meanwhile")


def check() -> None:
    if path.is_symlink() or not path.is_dir() or os.path.ismount(path):
        sys.exit(f"{path} is no plain directory")
    for place in (aside, meanwhile):
        if os.path.lexists(place):
            sys.exit(f"{place} is there already")


def move_aside() -> None:
    check()
    path.rename(aside)


def put_back() -> None:
    if not aside.is_dir():
        return
    if path.is_dir() and not path.is_symlink():
        path.rename(meanwhile)
    aside.rename(path)


def merge() -> None:
    if not meanwhile.is_dir():
        return
    for entry in sorted(meanwhile.rglob("*")):
        place = path / entry.relative_to(meanwhile)
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            continue
        if not os.path.lexists(place):
            if not entry.is_dir():
                entry.rename(place)
            else:
                place.mkdir()
                shutil.copystat(entry, place)
                held = entry.stat()
                os.chown(place, held.st_uid, held.st_gid)
        elif entry.is_file() and place.is_file() and not place.is_symlink():
            with entry.open("rb") as source, place.open("ab") as target:
                shutil.copyfileobj(source, target)
            # At once: whoever does this a second time must not add it again.
            entry.unlink()
    shutil.rmtree(meanwhile)


{"check": check, "aside": move_aside, "back": put_back, "merge": merge}[sys.argv[1]]()
