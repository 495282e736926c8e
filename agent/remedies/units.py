"""Names of systemd units as options take them."""

from __future__ import annotations

import re

#: systemd.unit(5): "Valid unit names consist of a unit name prefix, and a suffix specifying the
#: unit type"; letters, digits, ":", "-", "_", ".", "\\" and one "@", at most 255 characters.
_UNIT = re.compile(
    r"[A-Za-z0-9:_.\\-]+(?:@[A-Za-z0-9:_.\\-]*)?"
    r"\.(?:service|socket|device|mount|automount|swap|target|path|timer|slice|scope)"
)
_MAX_UNIT = 255


def is_unit(text: str) -> bool:
    """Whether this is a complete unit name, its suffix included."""
    return (
        len(text) <= _MAX_UNIT
        and bool(_UNIT.fullmatch(text))
        and not text.startswith(("-", "."))
        and ".." not in text
    )
