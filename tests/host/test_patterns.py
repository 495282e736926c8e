"""Patterns: what they match in lines, and what cannot be one."""

from __future__ import annotations

import random
import re

import pytest

from agent.host.patterns import CANARY, KEPT, Scan, check_pattern


def count(pattern: str, *blocks: bytes, ignore: tuple[str, ...] = ()) -> int:
    scan = Scan({"found": pattern}, ignore)
    for block in blocks:
        scan.take(block)
    return scan.counts["found"]


@pytest.mark.parametrize(
    ("pattern", "text", "lines"),
    [
        ("error", b"an error\nfine\nerror error\n", 2),
        ("^error$", b"error\nan error\nerror\n", 2),
        ("(?i)error|panic", b"ERROR\nPanic\nfine\n", 2),
        ("a.*b", b"a\nb\n", 0),
        (r"a\s+b", b"a\nb\n", 0),
        ("[^x]+b", b"aa\nab\n", 1),
        ("^$", b"a\n\nb\n", 1),
        ("é.x", "é\xe9x\n".encode(), 1),
        ("a.b", b"a\xffb\n", 1),
        ("x*", b"a\nb\n", 2),
        ("end", b"the end", 1),
        (r"\bid=\d{3}\b", b"id=123\nid=1234\n", 1),
    ],
)
def test_a_pattern_matches_within_one_line(pattern: str, text: bytes, lines: int) -> None:
    assert count(pattern, text) == lines


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("a(?=b)", "invalid perl operator: (?="),
        (r"(a)\1", r"invalid escape sequence: \1"),
        ("(?<!a)b", "invalid"),
        ("[", "missing ]"),
        ("((a{100}){100}){100}", "invalid repetition size"),
        ("a{1,5000}", "invalid repetition size"),
        (r"\Aerror", "write `^`, the beginning of a line"),
        (r"error\z", "write `$`, the end of a line"),
        (r"error\C", "write what it stands for"),
        ("a\nb", "holds an end of line"),
        ("", "1 to 1000 characters"),
        ("x" * 1001, "1 to 1000 characters"),
        (r"(\pL{1,100}){10}", "too large"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_the_reason(pattern: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        check_pattern(pattern)


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)+$", r"(.*a){20}$", r"^(([a-z])+.)+[A-Z]$"])
def test_what_keeps_other_engines_busy_for_ever_ends(pattern: str) -> None:
    assert count(pattern, b"a" * 60_000 + b"!\n") == 0


def test_an_escaped_backslash_before_a_letter_is_none_of_those() -> None:
    assert count(r"C:\\Ab", b"C:\\Ab\n") == 1


def test_a_line_in_pieces_counts_once_for_each_cause() -> None:
    scan = Scan({"one": "one", "two": "two"})
    for piece in (b"one", b" two ", b"one two", b"\none\n", b"two"):
        scan.take(piece)
    assert scan.counts == {"one": 2, "two": 2}
    assert scan.open == frozenset({"two"})


def test_lines_that_are_ignored_count_for_none() -> None:
    text = b"error\nDEBUG error\nerror of a health check\n"
    assert count("error", text, ignore=("^DEBUG", "health.?check")) == 1


def test_the_own_canary_counts_for_none() -> None:
    assert count("hostmend", f"hostmend: {CANARY}1234\n".encode()) == 0


def test_the_last_lines_are_kept_fit_to_be_shown() -> None:
    scan = Scan({"error": "error"})
    for number in range(20):
        scan.take(f"error {number} password=secret \x1b[31m{'x' * 500}\n".encode())
    lines = scan.lines("error")
    assert len(lines) == KEPT
    assert lines[-1].startswith("error 19 password=*** xxx")
    assert max(map(len, lines)) <= 240
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize("seed", range(20))
def test_however_the_text_is_cut_the_lines_are_the_same(seed: int) -> None:
    chance = random.Random(seed)
    lines = [chance.choice(["aa", "ab", "b", "", "é", "a b"]) for _ in range(200)]
    text = "\n".join(lines).encode()
    whole = {cause: count(cause, text) for cause in ("a", "b", "^$", "ab|é")}
    scan = Scan({cause: cause for cause in ("a", "b", "ab|é")})
    while text:
        # Between characters: a file is cut at ends of lines or where it must be.
        size = chance.randrange(1, 30)
        while size < len(text) and text[size] & 0xC0 == 0x80:
            size += 1
        # A pattern that spans a cut is not seen: cut only where none does.
        if size < len(text) and text[size - 1 : size] == b"a":
            size += 1
        scan.take(text[:size])
        text = text[size:]
    assert scan.counts == {cause: whole[cause] for cause in scan.counts}
