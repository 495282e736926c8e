"""What changed since the audit before, and how what is new is told of without a flood.

Between audits a book is kept: which defects are known since when, under which subject each is told
of, and which addresses were fine.

A subject stands for one problem until that is over. Up to `ALONE` new defects of an audit are told
of one by one, each with its target as its subject. More are one problem, the subject
`https://shop.example/*`: a release that broke a thousand pages is one incident. The next such audit
gets `https://shop.example/* (2)`, so that whatever is new is told, and nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from zlib import crc32

from agent.audit.result import Audit, Defect, Kind
from agent.core.model import Instant

_FORMAT = 1
#: New defects of one audit that get a subject each.
ALONE = 3
#: Subjects of single targets, and of many together, that are in use at once.
MOST_SINGLE, MOST_GROUPS = 10, 5
#: How long a subject that is over is still reported as fine, so that its end is seen to last.
MENDED_FOR = 86_400.0
#: Subjects that are over and are remembered.
_MOST_MENDED = 20
#: Defects that a book keeps, and addresses that it remembers as fine.
MOST_KEPT, MOST_FINE = 2000, 10_000


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A defect that the book knows."""

    #: When an audit first saw it.
    since: Instant
    #: Under which it is told of.
    subject: str


@dataclass(frozen=True, kw_only=True)
class Book:
    """What was known at the end of an audit."""

    #: By the defects' keys.
    defects: Mapping[str, Kept] = field(default_factory=dict)
    #: CRC-32 of each address that was fine, as it is shown: a book has room for little more.
    fine: frozenset[int] = frozenset()
    #: Subject -> when it was seen to be over.
    mended: Mapping[str, Instant] = field(default_factory=dict)
    #: When the last audit that it knows of began; None: there was none.
    at: Instant | None = None


@dataclass(frozen=True, kw_only=True)
class Change:
    """What an audit means beside the one before."""

    defects: tuple[Defect, ...]
    #: Keys of those that are no more.
    fixed: tuple[str, ...]
    #: Subject -> numbers of its defects in `defects`; none: it was not seen this time.
    groups: Mapping[str, tuple[int, ...]]
    book: Book


def compare(
    book: Book,
    defects: Iterable[Defect],
    fine: Iterable[str],
    *,
    site: str,
    now: Instant,
    complete: bool,
) -> Change:
    """The defects with since when they are known, and the book for the next audit.

    `complete`: everything was asked. Otherwise what was not seen stays as it was known. `site` is
    the first address.
    """
    book = replace(
        book, mended={subject: at for subject, at in book.mended.items() if now < at + MENDED_FOR}
    )
    seen = [
        _date(defect, book, now)
        for defect in defects
        # That it lets nobody in says something only where it did before.
        if defect.kind is not Kind.BLOCKED or _was_fine(defect, book) or defect.key in book.defects
    ]
    seen = _choose(seen, book)
    kept = {d.key: book.defects[d.key] for d in seen if d.key in book.defects and not d.known}
    healthy = frozenset(map(hash_address, fine))
    gone = {key: value for key, value in book.defects.items() if key not in kept}
    if not complete:
        gone_for_good = {key for key in gone if hash_address(_target_of(key)) in healthy}
        kept |= {key: value for key, value in gone.items() if key not in gone_for_good}
        gone = {key: gone[key] for key in gone_for_good}
    new = [defect for defect in seen if defect.new and not defect.known]
    used = {value.subject for value in (*book.defects.values(), *kept.values())}
    kept |= {
        defect.key: Kept(since=now, subject=subject)
        for defect, subject in _assign_subjects(new, used, book.mended, site)
    }
    numbers: dict[str, list[int]] = {subject: [] for subject in _list_subjects(kept.values())}
    for number, defect in enumerate(seen):
        if defect.key in kept and not defect.known:
            numbers[kept[defect.key].subject].append(number)
    known = {d.key for d in seen if d.known}
    return Change(
        defects=tuple(seen),
        fixed=tuple(sorted(key for key in gone if key not in known)),
        groups={subject: tuple(found) for subject, found in numbers.items()},
        book=Book(
            defects=kept,
            fine=_remember_fine(book, healthy, seen, complete=complete),
            mended=_remember_mended(book, used, set(numbers), now),
            at=now,
        ),
    )


def _remember_fine(
    book: Book, healthy: frozenset[int], seen: Iterable[Defect], *, complete: bool
) -> frozenset[int]:
    remembered = healthy
    if not complete:
        broken = {hash_address(defect.target) for defect in seen}
        remembered = healthy | (book.fine - broken)
    return frozenset(sorted(remembered)[:MOST_FINE])


def _remember_mended(
    book: Book, before: set[str], failing: set[str], now: Instant
) -> dict[str, Instant]:
    mended = {**book.mended, **dict.fromkeys(before - failing, now)}
    lasting = [(subject, at) for subject, at in mended.items() if subject not in failing]
    return dict(sorted(lasting, key=lambda each: each[1])[-_MOST_MENDED:])


def _choose(seen: list[Defect], book: Book) -> list[Defect]:
    """As many as a book keeps. What it has no room for would be news at each audit, so those that
    it knows come first."""
    if len(seen) <= MOST_KEPT:
        return seen
    first = sorted(seen, key=lambda defect: defect.key not in book.defects)[:MOST_KEPT]
    chosen = {defect.key for defect in first}
    return [defect for defect in seen if defect.key in chosen]


def _date(defect: Defect, book: Book, now: Instant) -> Defect:
    kept = book.defects.get(defect.key)
    if kept is not None:
        return replace(defect, since=kept.since, new=False)
    since = None if book.at is None else now
    return replace(defect, since=since, new=True, regressed=_was_fine(defect, book))


def _was_fine(defect: Defect, book: Book) -> bool:
    return hash_address(defect.target) in book.fine


def hash_address(address: str) -> int:
    return crc32(address.encode("utf-8", "surrogatepass"))


def _target_of(key: str) -> str:
    return key.partition(" ")[2].partition("#")[0]


def _list_subjects(kept: Iterable[Kept]) -> list[str]:
    return sorted({value.subject for value in kept})


def _assign_subjects(
    new: list[Defect], used: set[str], mended: Mapping[str, Instant], site: str
) -> Iterable[tuple[Defect, str]]:
    groups = [f"{site}*", *(f"{site}* ({number})" for number in range(2, 2 * _MOST_MENDED))]
    taken = [group for group in groups if group in used]
    targets = list(dict.fromkeys(defect.target for defect in new))
    if len(targets) <= ALONE and len(used.difference(groups).union(targets)) <= MOST_SINGLE:
        return [(defect, defect.target) for defect in new]
    if len(taken) >= MOST_GROUPS:
        # The last one takes whatever comes once all are in use.
        return [(defect, taken[-1]) for defect in new]
    # One whose end is still to be seen to last would not be told of anew.
    free = next(
        (group for group in groups if group not in used and group not in mended), groups[-1]
    )
    return [(defect, free) for defect in new]


def remember(audit: Audit) -> Book:
    """The book as a whole result has it."""
    subject = dict.fromkeys(range(len(audit.defects)), audit.site)
    for name, numbers in audit.groups.items():
        subject |= dict.fromkeys(numbers, name)
    return Book(
        defects={
            defect.key: Kept(since=defect.since or audit.began, subject=subject[number])
            for number, defect in enumerate(audit.defects)
            if not defect.known
        },
        fine=frozenset(hash_address(s.url) for s in audit.urls if s.fate in ("fine", "redirect")),
        at=audit.began,
    )


# On its way


def dump_book(book: Book) -> dict[str, Any]:
    """As JSON can hold it."""
    return {
        "format": _FORMAT,
        "at": book.at,
        "defects": {key: asdict(kept) for key, kept in book.defects.items()},
        "fine": "".join(f"{number:08x}" for number in sorted(book.fine)),
        "mended": dict(book.mended),
    }


def load_book(value: Any) -> Book:
    """The book, or an empty one for what is none: it may be lost."""
    try:
        if value["format"] != _FORMAT:
            return Book()
        fine = value["fine"]
        return Book(
            defects={key: Kept(**kept) for key, kept in value["defects"].items()},
            fine=frozenset(int(fine[at : at + 8], 16) for at in range(0, len(fine), 8)),
            mended=dict(value["mended"]),
            at=value["at"],
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return Book()
