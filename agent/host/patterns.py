"""Patterns searched in lines of text, in time that grows with the text and never faster.

A pattern comes from a configuration and the text from anybody: with an engine that tries one way
after the other (Python's, PCRE), a line of a few dozen characters can keep it busy for ever. RE2
cannot, and has no look-around and no back-references for it:
https://github.com/google/re2/wiki/Syntax. The one module that imports it, when first needed.
"""

from __future__ import annotations

import functools
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.host.text import fit_line

#: Longest pattern, in characters.
LONGEST = 1000
#: Most memory that one pattern may take for its automata, in bytes.
_MEMORY = 1 << 20
#: Of matching lines, so many of the last are kept.
KEPT = 5
#: Bytes kept of one.
_LINE = 4096
#: What marks lines that hostmend itself sends: they are no findings.
CANARY = "hostmend canary "

#: These mean the whole text in RE2 (or a byte of any kind), and a line here.
_WHOLE = re.compile(r"(?<!\\)(?:\\\\)*\\([AzC])")
_INSTEAD = {"A": "write `^`, the beginning of a line", "z": "write `$`, the end of a line"}


@functools.lru_cache(maxsize=4096)
def compile_pattern(text: str) -> Any:
    """RE2's expression, which matches within one line. Raises ValueError with what is wrong."""
    import re2

    if not text or len(text) > LONGEST:
        raise ValueError(f"a pattern has 1 to {LONGEST} characters")
    if "\n" in text:
        raise ValueError(f"{text!r} holds an end of line: a pattern is searched within one line")
    if found := _WHOLE.search(text):
        instead = _INSTEAD.get(found[1], "write what it stands for")
        raise ValueError(f"`{text}` cannot be used: instead of `\\{found[1]}` {instead}")
    options = re2.Options()
    options.log_errors = False
    options.never_nl = True
    options.never_capture = True
    options.max_mem = _MEMORY
    try:
        re2.compile(text, options)
        return re2.compile(f"(?m:{text})", options)
    except re2.error as error:
        why = error.args[0].decode(errors="replace") if error.args else "cannot be read"
        raise ValueError(
            f"`{text}` cannot be used: {why} (patterns are RE2's, which has no look-around and no"
            " back-references: https://github.com/google/re2/wiki/Syntax)"
        ) from None


def check_pattern(text: str) -> str:
    """The pattern, if it can be used. Raises ValueError."""
    compile_pattern(text)
    return text


class Scan:
    """Counts the lines that match patterns, by their causes, and keeps the last ones.

    Text comes in blocks; a line may come in pieces, and still counts once for a cause.
    """

    def __init__(self, patterns: Mapping[str, str], ignore: Sequence[str] = ()) -> None:
        """`patterns`: cause -> pattern. Lines that match one of `ignore` count for none."""
        self._patterns = {cause: compile_pattern(text) for cause, text in patterns.items()}
        self._ignored = [compile_pattern(text) for text in ignore]
        self.counts = dict.fromkeys(patterns, 0)
        self._kept = {cause: deque[bytes](maxlen=KEPT) for cause in patterns}
        #: Causes already found in a line whose end has not come; None at the beginning of a line.
        self.open: frozenset[str] | None = None

    def take(self, block: bytes) -> None:
        """The next bytes of the text."""
        if not block:
            return
        # What is no UTF-8 would be matched by nothing, not even by a dot.
        if not block.isascii():
            block = block.decode(errors="replace").encode()
        last_begin = block.rfind(b"\n") + 1
        known = self.open or frozenset()
        unfinished = set(known) if last_begin == 0 else set()
        for cause, pattern in self._patterns.items():
            for begin, end in _find_lines(pattern, block):
                # The first line may be the rest of one that was counted by its beginning.
                if begin == 0 and cause in known:
                    continue
                if self._counts(cause, block[begin:end]) and begin >= last_begin:
                    unfinished.add(cause)
        self.open = None if last_begin == len(block) else frozenset(unfinished)

    def _counts(self, cause: str, line: bytes) -> bool:
        if CANARY.encode() in line or any(p.search(line) is not None for p in self._ignored):
            return False
        self.counts[cause] += 1
        self._kept[cause].append(line[:_LINE])
        return True

    def lines(self, cause: str) -> list[str]:
        """The last lines that were counted for a cause, oldest first, fit to be shown."""
        return [fit_line(line.decode(errors="replace")) for line in self._kept[cause]]


def _find_lines(pattern: Any, block: bytes) -> Iterator[tuple[int, int]]:
    """Where the lines that match begin and end, their ends of line left out; each line once."""
    at = 0
    while at < len(block):
        found = pattern.search(block, at)
        if found is None:
            return
        # A match of nothing at the very end of the text lies after the last line.
        if found.start() == len(block) and block.endswith(b"\n"):
            return
        begin = block.rfind(b"\n", 0, found.start()) + 1
        end = block.find(b"\n", found.start())
        end = len(block) if end < 0 else end
        yield begin, end
        at = end + 1
