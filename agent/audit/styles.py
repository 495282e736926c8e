"""What a style sheet loads: `url(...)` and `@import` (CSS Syntax Level 3)."""

from __future__ import annotations

import re
from collections.abc import Iterator

_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.S)
#: Names, not addresses.
_NAMESPACE = re.compile(r"@(?:namespace|document)\b[^;{]*[;{]", re.I)
_ADDRESS = re.compile(
    r"""(?ix)
    \burl\(\s*(?: "(?P<double>(?:[^"\\\n]|\\.)*)" | '(?P<single>(?:[^'\\\n]|\\.)*)'
                | (?P<bare>(?:[^"'()\\\s]|\\.)*) )\s*\)
    | @import\s+(?: "(?P<double_import>(?:[^"\\\n]|\\.)*)" | '(?P<single_import>(?:[^'\\\n]|\\.)*)')
    | (?P<before>@import\s+)(?=url\()
    """,
    re.S,
)
_ESCAPE = re.compile(r"\\(?:([0-9a-fA-F]{1,6})\s?|\n|(.))", re.S)
_FONT = re.compile(r"\.(?:woff2?|ttf|otf|eot)(?:[?#]|$)", re.I)


def find_addresses(css: str) -> Iterator[tuple[str, str, int]]:
    """Address, role (`style`, `font` or `image`) and offset of each thing that it loads."""
    css = _COMMENT.sub(_blank, css)
    css = _NAMESPACE.sub(_blank, css)
    imported = False
    for match in _ADDRESS.finditer(css):
        if match["before"]:
            imported = True
            continue
        written = next((part for part in match.groups() if part is not None), "")
        address = _ESCAPE.sub(_unescape, written).strip()
        role = "style" if imported or match[0].startswith("@") else "image"
        imported = False
        if not address or address.startswith(("#", "data:")):
            continue
        if role == "image" and _FONT.search(address):
            role = "font"
        yield address, role, match.start()


def _blank(match: re.Match[str]) -> str:
    """As long as what it stands for, so that offsets and lines stay true."""
    return re.sub(r"[^\n]", " ", match[0])


def _unescape(match: re.Match[str]) -> str:
    if match[1]:
        code = int(match[1], 16)
        return chr(code) if 0 < code < 0x110000 and not 0xD800 <= code < 0xE000 else "\ufffd"
    return match[2] or ""
