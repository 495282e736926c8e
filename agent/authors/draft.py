"""A remedy to begin with: one that works, with its test, to be changed step by step."""

from __future__ import annotations

import shutil
from pathlib import Path

from agent.errors import Conflict, RemedyError
from agent.remedies.catalog import why_no_remedy

_SKELETON = Path(__file__).resolve().parent / "skeleton"
#: What stands in the skeleton for the name.
_NAME = "NEW-REMEDY"


def write_draft(name: str, directory: Path) -> Path:
    """Write the remedy into a new directory there, all of it or nothing; returns its path.

    Raises RemedyError for a name that cannot be one and where nothing can be written, Conflict
    where something of that name is.
    """
    if why := why_no_remedy(name):
        raise RemedyError(f"cannot write remedy {name!r}: {why}")
    place = directory / name
    if place.exists() or place.is_symlink():
        raise Conflict(f"cannot write remedy {name}: {place} is there already")
    # The catalogue passes over names that begin with a dot.
    draft = directory / f".{name}.draft"
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        draft.mkdir(mode=0o755)
        try:
            for source in sorted(_SKELETON.rglob("*.yml")):
                target = draft / source.relative_to(_SKELETON)
                target.parent.mkdir(exist_ok=True)
                target.write_text(source.read_text().replace(_NAME, name))
            # Whatever the umask is: others must not be able to write to it.
            for entry in (draft, *draft.rglob("*")):
                entry.chmod(0o755 if entry.is_dir() else 0o644)
            draft.rename(place)
        except BaseException:
            shutil.rmtree(draft)
            raise
    except OSError as error:
        raise RemedyError(f"cannot write remedy {name}: {place}: {error.strerror}") from None
    return place
