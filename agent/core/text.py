"""Text from elsewhere without what does harm to a terminal, a message or a store."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TypeVar

V = TypeVar("V")

#: What is shown in the place of a secret, wherever one is.
MASK = "***"

# A terminal's own sequences (ECMA-48: CSI, then OSC and other strings, then two-byte escapes).
_ESCAPES = re.compile(
    r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b\n]{0,512}(?:\x07|\x1b\\)?"
    r"|\x1b[0-~]?"
)
# Control characters but tab and newline, invisible direction marks (they make text read as what it
# is not), and halves of surrogate pairs, which no mail can carry.
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def clean_text(text: str) -> str:
    """Text without terminal sequences and control characters; lines and tabs stay."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def mask_values(values: Mapping[str, V], secret: Collection[str]) -> dict[str, V | str]:
    """The values with those of secret names hidden."""
    return {name: MASK if name in secret else value for name, value in values.items()}


def cut(text: str, length: int) -> str:
    """At most `length` characters; what is cut ends in an ellipsis."""
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"
