"""One text file, read on from where reading had come to.

A file is known again by its inode and, since inodes are used again and files are copied, by digests
of its first bytes and of the last ones that were read.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import stat
import time
import zlib
from dataclasses import dataclass, replace
from typing import Any

from agent.core.model import Seconds
from agent.host.patterns import Scan

#: Bytes that are read at once, and from where on a line is judged in pieces.
_CHUNK = 256 * 1024
_LONGEST_LINE = 64 * 1024
#: Bytes that a file is known by: the first, and the last before where reading has come to.
_HEAD, _TAIL = 256, 64
#: So many NUL bytes together are a hole; text in UTF-16 has single ones.
_HOLE = bytes(64)
#: Seconds after which a line without an end is judged as it is.
_UNFINISHED: Seconds = 10.0
#: What is farther behind than this is skipped but for its end, in bytes.
MOST_BEHIND, _KEPT_BEHIND = 256 << 20, 16 << 20


class Allowance:
    """What one look may spend on reading."""

    def __init__(self, most_bytes: int, seconds: Seconds) -> None:
        self.left = most_bytes
        self._until = time.monotonic() + seconds

    @property
    def spent(self) -> bool:
        return self.left <= 0 or time.monotonic() >= self._until


@dataclass(frozen=True, kw_only=True)
class Mark:
    """How far one file was read, and what it is known by."""

    inode: int
    #: Everything before it was handed on.
    offset: int = 0
    #: Digests of the first bytes before `offset`, and of the last.
    head: str = ""
    tail: str = ""
    #: Size and time of change (ns) when last read; the same means that nothing was added.
    size: int = 0
    changed: int = 0
    #: `Scan.open` at `offset`.
    open: frozenset[str] | None = None
    #: Where the first hole of NUL bytes begins; None: none was seen.
    hole: int | None = None

    def pack(self) -> list[Any]:
        """As JSON takes it."""
        open_ = None if self.open is None else sorted(self.open)
        known_by = [self.head, self.tail, self.size, self.changed]
        return [self.inode, self.offset, *known_by, open_, self.hole]

    @classmethod
    def unpack(cls, value: Any) -> Mark:
        inode, offset, head, tail, size, changed, open_, hole = value
        return cls(
            inode=inode,
            offset=offset,
            head=head,
            tail=tail,
            size=size,
            changed=changed,
            open=None if open_ is None else frozenset(open_),
            hole=hole,
        )

    def has_news(self, told: os.stat_result) -> bool:
        """Whether a file with this mark may have something to read."""
        if (told.st_ino, told.st_size, told.st_mtime_ns) != (self.inode, self.size, self.changed):
            return True
        return self.offset < self.size and not _is_young(told)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What reading on came to."""

    mark: Mark
    #: Bytes by which the file grew since its mark, holes left out.
    grown: int = 0
    #: Bytes that were left for the next time, and bytes that nobody will read.
    behind: int = 0
    skipped: int = 0
    #: Everything that is there was read.
    whole: bool = True


class Text:
    """A regular file opened for reading, unpacked where its name ends in `.gz`.

    Raises OSError; whatever else is there (a pipe, a device) is neither opened nor waited for.
    """

    def __init__(self, path: str, *, unpack: bool = True) -> None:
        _require_regular(os.stat(path), path)  # noqa: PTH116
        raw = io.FileIO(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
        try:
            _require_regular(os.fstat(raw.fileno()), path)
        except OSError:
            raw.close()
            raise
        self.packed = unpack and path.endswith(".gz")
        self._raw = raw
        self._file: io.FileIO | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if self.packed else raw

    def __enter__(self) -> Text:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._raw.close()

    def stat(self) -> os.stat_result:
        return os.fstat(self._raw.fileno())

    def read_at(self, offset: int, size: int) -> bytes:
        """So many bytes, or what there is of them. Raises OSError, also for what is not packed."""
        try:
            self._file.seek(offset)
            data = bytearray()
            while len(data) < size and (more := self._file.read(size - len(data))):
                data += more
        except (EOFError, zlib.error) as error:
            raise OSError(errno.EIO, f"cannot be unpacked: {error}") from error
        return bytes(data)

    def find_data(self, offset: int) -> int:
        """Where data begins from an offset on, as far as the filesystem can tell (lseek(2))."""
        return self._seek(offset, os.SEEK_DATA, offset)

    def find_hole(self) -> int | None:
        """Where the first hole within the file begins; None: there is none to be told of."""
        size = self.stat().st_size
        begin = self._seek(0, os.SEEK_HOLE, size)
        return begin if begin < size else None

    def _seek(self, offset: int, whence: int, otherwise: int) -> int:
        if self.packed:
            return otherwise
        try:
            return os.lseek(self._raw.fileno(), offset, whence)
        except OSError as error:
            # Nothing but a hole up to the end; EINVAL: it cannot tell.
            return self.stat().st_size if error.errno == errno.ENXIO else otherwise

    def seal(self, mark: Mark) -> Mark:
        """The mark with the digests of this file's bytes."""
        head = self.read_at(0, min(_HEAD, mark.offset))
        begin = max(0, mark.offset - _TAIL)
        tail = self.read_at(begin, mark.offset - begin)
        return replace(mark, head=_digest(head), tail=_digest(tail))

    def read_head(self) -> str:
        """The digest of its first bytes, as a mark beyond them has it."""
        return _digest(self.read_at(0, _HEAD))

    def is_of(self, mark: Mark) -> bool:
        """Whether this is the file of the mark, or a copy of it: it holds what was read."""
        if not mark.offset:
            return True
        if self.packed:
            # Only what begins alike is worth unpacking as far as the mark.
            head = self.read_at(0, min(_HEAD, mark.offset))
            if _digest(head) != mark.head or mark.offset > MOST_BEHIND:
                return False
        elif self.stat().st_size < mark.offset:
            return False
        return self.seal(mark) == mark

    def mark_end(self) -> Mark:
        """A mark at the end: only what is added from now on is read."""
        told = self.stat()
        size = told.st_size
        middle = size > 0 and self.read_at(size - 1, 1) != b"\n"
        mark = Mark(
            inode=told.st_ino,
            offset=size,
            size=size,
            changed=told.st_mtime_ns,
            open=frozenset() if middle else None,
            hole=self.find_hole(),
        )
        return self.seal(mark)

    def read_on(
        self, mark: Mark, scan: Scan, allowance: Allowance, *, ended: bool = False
    ) -> Piece:
        """Hands `scan` what follows the mark, as far as the allowance reaches.

        The last line waits for its end; not if `ended`, since nothing more will be written.
        """
        told = self.stat()
        # How long a packed text is shows only at its end.
        size = None if self.packed else told.st_size
        offset, hole, skipped, holes = mark.offset, mark.hole, 0, 0
        scan.open = mark.open
        if size is not None and size - offset > MOST_BEHIND:
            skipped = size - _KEPT_BEHIND - offset
            offset, scan.open = offset + skipped, frozenset()
        rest, whole = b"", False
        while not allowance.spent:
            at = offset + len(rest)
            if not rest and (data := self.find_data(at)) > at:
                hole = at if hole is None else hole
                holes += data - at
                at = offset = data
            chunk = self.read_at(at, _CHUNK)
            if not chunk:
                whole = True
                break
            allowance.left -= len(chunk)
            if hole is None and _HOLE in chunk:
                hole = at + chunk.index(_HOLE)
            rest += chunk
            cut = rest.rfind(b"\n") + 1
            if cut == 0 and len(rest) >= _LONGEST_LINE:
                cut = len(rest)
            scan.take(rest[:cut].lstrip(b"\0"))
            offset, rest = offset + cut, rest[cut:]
        if rest and whole and (ended or not _is_young(told)):
            scan.take(rest)
            offset, rest = offset + len(rest), b""
        size = max(offset + len(rest), size or 0)
        read = replace(
            mark,
            offset=offset,
            size=size,
            # What is not read to its end has news, whether it changes or not.
            changed=told.st_mtime_ns if whole else -1,
            open=scan.open,
            hole=hole,
        )
        return Piece(
            # Nobody reads on in a packed text that was read whole.
            mark=replace(read, head=self.read_head()) if self.packed and whole else self.seal(read),
            grown=0 if self.packed else max(0, size - mark.size - holes),
            behind=0 if whole else size - offset,
            skipped=skipped,
            whole=whole,
        )


def _require_regular(told: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(told.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _is_young(told: os.stat_result) -> bool:
    return time.time() - told.st_mtime < _UNFINISHED


def read_end(path: str, most: int) -> bytes:
    """The last bytes of a file, from the beginning of a line. Raises OSError; may hang."""
    with Text(path) as text:
        begin = max(0, text.stat().st_size - most)
        data = text.read_at(begin, most)
        return data.partition(b"\n")[2] if begin else data
