"""What was added to a log since it was last looked at, whatever rotation made of it meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.core.model import Instant, Seconds
from agent.host.holders import Holder
from agent.host.patterns import Scan
from agent.host.rotation import Siblings
from agent.host.tail import Allowance, Mark, Piece, Text

#: A file that was moved away is followed until it has not grown for so long.
_LINGER: Seconds = 60.0
#: So many generations that were read to their ends are known again.
_PAST = 8


#: Who writes to a file without a name: by its last path, and its mark if it has one.
FindHolder = Callable[[str, Mark | None], Holder | None]


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A file that was at the path once and may have more to say."""

    mark: Mark
    #: When it was noticed, and until when it is followed. The same: it is read once, to its end.
    since: Instant
    until: Instant

    @property
    def ended(self) -> bool:
        """Nobody writes to it any more: it is a copy, or an older generation."""
        return self.until <= self.since


@dataclass(frozen=True, kw_only=True)
class Place:
    """All that is remembered of one path."""

    #: Of the file that is there; None: there is none.
    mark: Mark | None = None
    moved: tuple[Moved, ...] = ()
    #: Heads of earlier files that were read to their ends.
    past: tuple[str, ...] = ()

    def pack(self) -> list[Any]:
        """As JSON takes it."""
        moved = [[each.mark.pack(), each.since, each.until] for each in self.moved]
        return [self.mark and self.mark.pack(), moved, list(self.past)]

    @classmethod
    def unpack(cls, value: Any) -> Place:
        mark, moved, past = value
        return cls(
            mark=mark and Mark.unpack(mark),
            moved=tuple(
                Moved(mark=Mark.unpack(each), since=since, until=until)
                for each, since, until in moved
            ),
            past=tuple(past),
        )


@dataclass(frozen=True, kw_only=True)
class Held:
    """A deleted file of the path that a process still writes to."""

    holder: Holder
    since: Instant


@dataclass(kw_only=True)
class Added:
    """What a look found at one path."""

    place: Place
    #: Why the file cannot be read, as errno; ENOENT: nothing is there. 0: it can.
    error: int = 0
    #: Bytes that were added, that are left for the next look, and that nobody will read.
    grown: int = 0
    behind: int = 0
    skipped: int = 0
    held: tuple[Held, ...] = ()

    def count(self, piece: Piece) -> None:
        self.grown += piece.grown
        self.behind += piece.behind
        self.skipped += piece.skipped


def read_added(
    path: str,
    known: Place | None,
    scan: Scan,
    allowance: Allowance,
    *,
    now: Instant,
    from_end: bool,
    find_holder: FindHolder,
    others: Sequence[Mark] = (),
) -> Added:
    """Hands `scan` what was added to the log at a path since `known`. May hang; never raises.

    `from_end`: a log that is not known is read from its end on, else from its beginning; not if it
    is one of `others` under a new name. `find_holder` finds who writes to a deleted file.
    """
    place = known or Place()
    added = Added(place=place)
    text: Text | None = None
    try:
        if place.mark is None or place.mark.has_news(os.stat(path)):  # noqa: PTH116
            text = Text(path)
            place = _recognise(text, place, now, others=others, from_end=from_end)
    except OSError as error:
        added.error = error.errno or errno.EIO
        if added.error in (errno.ENOENT, errno.ENOTDIR):
            added.error = errno.ENOENT
            place = move_away(place, now, followed=True)
    try:
        # What was written before comes first.
        place = _read_moved(path, place, scan, allowance, added, now, find_holder)
        if known is None and added.error == errno.ENOENT:
            if (holder := find_holder(path, None)) is not None:
                added.held = (Held(holder=holder, since=0.0),)
        elif text is not None and place.mark is not None:
            piece = text.read_on(place.mark, scan, allowance)
            added.count(piece)
            place = replace(place, mark=piece.mark)
    except OSError as error:
        added.error = error.errno or errno.EIO
    finally:
        if text is not None:
            text.close()
    added.place = place
    return added


def _recognise(
    text: Text, place: Place, now: Instant, *, others: Sequence[Mark], from_end: bool
) -> Place:
    """With the mark from which to read on in the file that is at the path now."""
    mark, inode = place.mark, text.stat().st_ino
    if mark is not None:
        # One of which nothing was read has nothing to be known by, and may be another by now.
        if mark.offset and text.is_of(mark):
            return replace(place, mark=replace(mark, inode=inode))
        # Of one that was truncated, a copy is all that can be left.
        place = move_away(place, now, followed=mark.inode != inode)
    elif not place.moved:
        for other in others:
            if other.offset and text.is_of(other):
                return replace(place, mark=replace(other, inode=inode))
        if from_end:
            return replace(place, mark=text.mark_end())
    return replace(place, mark=Mark(inode=inode))


def move_away(place: Place, now: Instant, *, followed: bool) -> Place:
    """Its file is there no more. `followed`: it may have more to say."""
    if place.mark is None:
        return place
    gone = Moved(mark=place.mark, since=now, until=now + _LINGER if followed else now)
    # Numbers of inodes are used again: what had this one is no more.
    others = (each for each in place.moved if each.mark.inode != gone.mark.inode)
    return replace(place, mark=None, moved=(*others, gone))


def _read_moved(
    path: str,
    place: Place,
    scan: Scan,
    allowance: Allowance,
    added: Added,
    now: Instant,
    find_holder: FindHolder,
) -> Place:
    """Reads on in what was moved away, and leaves out what is done with."""
    if not place.moved:
        return place
    siblings = Siblings(path)
    left: list[Moved] = []
    held: list[Held] = []
    past = list(place.past)
    moved = list(place.moved)
    marks = [each.mark for each in moved] + ([place.mark] if place.mark else [])
    while moved:
        each = moved.pop(0)
        found, ended = siblings.find(each.mark), each.ended
        if found and not each.mark.offset and not _is_new(found[0], past, marks):
            # An empty file is known by its inode only, which belongs to another by now.
            found[0].close()
            continue
        if found is None and not ended and (holder := find_holder(path, each.mark)) is not None:
            held.append(Held(holder=holder, since=each.since))
            each = replace(each, until=now + _LINGER)
            with contextlib.suppress(OSError):
                found = Text(holder.door), False
        if found is not None:
            text, copied = found
            with text:
                ended = ended or copied or text.packed
                piece = text.read_on(each.mark, scan, allowance, ended=ended)
            added.count(piece)
            marks.append(piece.mark)
            if piece.whole and (ended or (now >= each.until and not piece.grown)):
                past += [piece.mark.head] if piece.mark.offset else []
            else:
                until = now + _LINGER if piece.grown and not ended else each.until
                left.append(replace(each, mark=piece.mark, until=until))
        elif now < each.until:
            left.append(each)
        if not moved and each.since == now and each.mark.changed > 0:
            moved = _find_generations(siblings, each.mark, past, marks, now)
    added.held = tuple(held)
    return replace(place, moved=tuple(left), past=tuple(past[-_PAST:]))


def _find_generations(
    siblings: Siblings, mark: Mark, past: list[str], marks: list[Mark], now: Instant
) -> list[Moved]:
    """What came and went at the path while nobody looked: rotated after the file of that mark."""
    found = []
    for each in siblings.list_since(mark.changed):
        with contextlib.suppress(OSError), Text(each.path) as text:
            if _is_new(text, past, marks):
                new = Mark(inode=each.inode)
                found.append(Moved(mark=new, since=now, until=now + _LINGER))
    return found


def _is_new(text: Text, past: list[str], marks: list[Mark]) -> bool:
    """Whether nothing of this file was ever read."""
    known = any(mark.offset and text.is_of(mark) for mark in marks)
    return not known and text.read_head() not in past
