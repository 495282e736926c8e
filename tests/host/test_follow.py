"""Each line of a log is seen once, whatever rotation does and whenever nobody looks.

Real logrotate: tests/lab/test_logs.py.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.host import patterns, tail
from agent.host.follow import Added, Place, read_added
from agent.host.holders import Holder, find_deleted
from agent.host.patterns import Scan
from agent.host.rotation import is_rotated
from agent.host.tail import Allowance, Mark, Text

OLD = 3600.0


class Log:
    """A log with one writer and one reader, who forgets nothing but what it packs."""

    def __init__(self, directory: Path, pattern: str = "error") -> None:
        self.path = directory / "app.log"
        self.path.touch()
        self.writer = self.path.open("ab", buffering=0)
        self.pattern = pattern
        self.place: Place | None = None
        self.now = 1000.0
        self.ticks = time.time_ns()
        self.seen: list[str] = []
        self.allowance = 16 << 20

    def write(self, text: str | bytes) -> None:
        self.writer.write(text.encode() if isinstance(text, str) else text)
        self.stamp(self.writer.fileno())

    def stamp(self, file: int | Path) -> None:
        """The kernel's own times are some milliseconds coarse, and tests are faster than that."""
        self.ticks += 1
        os.utime(file, ns=(self.ticks, self.ticks))

    def reopen(self) -> None:
        self.writer.close()
        self.writer = self.path.open("ab", buffering=0)

    def rename(self) -> Path:
        """As logrotate does with `create`: older generations move up, the writer is not told."""
        for number in range(80, 0, -1):
            for packed in ("", ".gz"):
                old = Path(f"{self.path}.{number}{packed}")
                if old.exists():
                    old.rename(f"{self.path}.{number + 1}{packed}")
        first = Path(f"{self.path}.1")
        self.path.rename(first)
        self.path.touch()
        self.stamp(self.path)
        return first

    def copy_and_truncate(self) -> Path:
        writer_knows = self.path
        first = self.rename()
        self.path.unlink()
        copy = first.with_name("copy")
        shutil.copy2(first, copy)
        first.rename(writer_knows)
        copy.rename(first)
        os.truncate(writer_knows, 0)
        self.stamp(writer_knows)
        return first

    def pack(self, path: Path) -> Path:
        packed = path.with_name(path.name + ".gz")
        with path.open("rb") as source, gzip.open(packed, "wb") as target:
            shutil.copyfileobj(source, target)
        shutil.copystat(path, packed)
        path.unlink()
        return packed

    def look(self, *, from_end: bool = True, others: tuple[Mark, ...] = ()) -> Added:
        scan = Scan({"error": self.pattern})
        self.now += 1
        added = read_added(
            str(self.path),
            self.place,
            scan,
            Allowance(self.allowance, 60),
            now=self.now,
            from_end=from_end,
            find_holder=find_holder,
            others=others,
        )
        # What is remembered must survive a restart.
        self.place = Place.unpack(json.loads(json.dumps(added.place.pack())))
        assert self.place == added.place
        self.seen += scan.lines("error")
        self.counted = scan.counts["error"]
        return added


def find_holder(path: str, mark: Mark | None) -> Holder | None:
    found = find_deleted(lambda last, told: told.st_ino == mark.inode if mark else last == path)
    return found[0] if found else None


MakeLog = Callable[[], Log]


@pytest.fixture(autouse=True)
def keep_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line that counts is kept, for the tests to see."""
    monkeypatch.setattr(patterns, "KEPT", 1000)


@pytest.fixture
def make_log(tmp_path: Path) -> Iterator[MakeLog]:
    made: list[Log] = []

    def make() -> Log:
        made.append(Log(tmp_path))
        return made[-1]

    yield make
    for log in made:
        log.writer.close()


@pytest.fixture
def log(make_log: MakeLog) -> Log:
    made = make_log()
    made.write("error old\n")
    made.look()
    return made


def age(path: Path, seconds: float = OLD) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_first_look_begins_at_the_end(log: Log) -> None:
    assert log.seen == []
    log.write("fine\nerror 1\nerror 2\n")
    log.look()
    assert log.seen == ["error 1", "error 2"]


def test_a_log_that_appears_later_is_read_from_its_beginning(make_log: MakeLog) -> None:
    log = make_log()
    log.write("error 1\n")
    log.look(from_end=False)
    assert log.seen == ["error 1"]


def test_nothing_is_opened_when_nothing_changed(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_text: Text, path: str) -> None:
        raise AssertionError(path)

    monkeypatch.setattr(Text, "__init__", refuse)
    assert log.look().error == 0


def test_a_line_counts_when_it_ends(log: Log) -> None:
    log.write("fine\nerr")
    log.look()
    log.write("or 1\nfine\n")
    log.look()
    assert log.seen == ["error 1"]


def test_a_last_line_without_an_end_counts_after_a_while_and_once(log: Log) -> None:
    log.write("fine\nerror: out of memory")
    log.look()
    assert log.counted == 0
    age(log.path)
    log.look()
    assert log.counted == 1
    log.write(" and error again\nfine\n")
    log.look()
    assert log.counted == 0


def test_a_huge_line_counts_once_and_is_not_kept_whole(log: Log) -> None:
    log.write("x" * 300_000 + "error" + "y" * 300_000 + "error")
    log.look()
    assert log.counted == 1
    log.write("error" * 100_000 + "\nerror next\n")
    log.look()
    assert log.seen[-1] == "error next"
    assert log.counted == 1
    assert max(map(len, log.seen)) <= 240


def test_bytes_that_are_no_text_are_read_over(log: Log) -> None:
    log.pattern = "error.*end"
    log.write(b"\xff\xfe\x00error\x80\xc3 end\n\x00\x00error end\n" + bytes(range(256)) + b"\n")
    log.look()
    assert log.counted == 2
    assert all(line.isprintable() for line in log.seen)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("reopens", ["at once", "later", "never"])
def test_a_log_that_is_renamed_and_made_anew(log: Log, packed: bool, reopens: str) -> None:
    log.write("error 1\n")
    moved = log.rename()
    if reopens == "at once":
        log.reopen()
    log.write("error 2\n")
    log.look()
    assert sorted(log.seen) == ["error 1", "error 2"]
    log.write("error 3\n")
    if reopens == "later":
        log.look()
        log.reopen()
        log.write("error 4\n")
    if packed and reopens != "never":
        log.pack(moved)
    log.look()
    log.look()
    assert sorted(log.seen) == [f"error {n}" for n in range(1, 5 if reopens == "later" else 4)]


@pytest.mark.parametrize("packed", [False, True])
def test_a_log_that_is_copied_and_truncated(log: Log, packed: bool) -> None:
    log.write("error 1\n")
    log.look()
    log.write("error 2\n")
    copy = log.copy_and_truncate()
    if packed:
        log.pack(copy)
    log.write("error 3\n")
    log.look()
    assert log.seen == ["error 1", "error 2", "error 3"]


def test_a_log_that_grew_beyond_where_it_was_before_it_was_truncated(log: Log) -> None:
    log.copy_and_truncate()
    log.write("other\n" * 100 + "error 1\n")
    log.look()
    assert log.seen == ["error 1"]


def test_many_rotations_while_nobody_looked(log: Log) -> None:
    for number in range(1, 7):
        log.write(f"{number} error\n" * (1 if number % 2 else 60))
        moved = log.rename() if number % 3 else log.copy_and_truncate()
        log.reopen()
        if number % 2:
            log.pack(moved)
    log.write("7 error\n")
    log.look()
    assert sorted(set(log.seen)) == [f"{number} error" for number in range(1, 8)]
    log.seen.clear()
    for packed in log.path.parent.glob("*.gz"):
        packed.touch()
    log.write("8 error\n")
    log.rename()
    log.reopen()
    log.look()
    assert log.seen == ["8 error"]


def test_a_log_that_is_truncated_by_hand_is_read_from_its_beginning(log: Log) -> None:
    log.write("error 1\n")
    log.look()
    os.truncate(log.path, 0)
    log.write("error 2\n")
    log.look()
    assert log.seen == ["error 1", "error 2"]


def test_a_log_that_is_replaced_by_its_own_copy_goes_on(log: Log) -> None:
    log.write("error 1\n")
    log.look()
    copy = log.path.with_name("copy")
    shutil.copy(log.path, copy)
    copy.rename(log.path)
    log.reopen()
    log.write("error 2\n")
    log.look()
    assert log.seen == ["error 1", "error 2"]


def test_another_log_in_its_place_is_another_log(log: Log) -> None:
    log.path.unlink()
    log.path.write_text("error 1\n" * 2)
    log.look()
    assert log.counted == 2


def test_a_log_under_a_new_name_is_known_again(log: Log, make_log: MakeLog, tmp_path: Path) -> None:
    log.write("error 1\n")
    log.look()
    mark = log.place and log.place.mark
    assert mark
    log.path.rename(tmp_path / "other.log")
    other = make_log()
    other.path = tmp_path / "other.log"
    log.write("error 2\n")
    other.look(from_end=False, others=(mark,))
    assert other.seen == ["error 2"]


def test_a_deleted_log_is_read_through_its_writer(log: Log) -> None:
    log.path.unlink()
    log.write("error 1\n")
    added = log.look()
    assert log.seen == ["error 1"]
    assert added.error == 2
    assert [held.holder.pid for held in added.held] == [os.getpid()]
    log.now += OLD
    log.write("error 2\n")
    (held,) = log.look().held
    assert log.seen == ["error 1", "error 2"]
    assert held.holder.appends
    assert held.holder.size_bytes > 0
    assert held.since == 1002.0
    log.path.touch()
    log.reopen()
    log.write("error 3\n")
    added = log.look(from_end=False)
    assert (added.error, added.held) == (0, ())
    log.now += OLD
    log.look()
    assert log.place is not None
    assert log.place.moved == ()
    assert log.seen == ["error 1", "error 2", "error 3"]


def test_a_log_that_was_deleted_before_anybody_looked_is_found_by_its_writer(log: Log) -> None:
    log.path.unlink()
    log.place = None
    added = log.look()
    assert added.error == 2
    assert [held.holder.pid for held in added.held] == [os.getpid()]


def test_a_log_whose_directory_is_gone_is_missing(log: Log) -> None:
    shutil.rmtree(log.path.parent)
    log.writer.close()
    assert log.look().error == 2
    log.now += OLD
    log.look()
    assert log.place == Place(past=log.place.past if log.place else ())


def test_more_than_one_look_may_read_is_left_to_the_next(log: Log) -> None:
    log.allowance = 300_000
    log.write("".join(f"error {number}\n" for number in range(50_000)))
    behind, total = [], 0
    while not behind or behind[-1]:
        behind.append(log.look().behind)
        total += log.counted
    assert total == 50_000
    assert len(behind) > 1
    assert behind == sorted(behind, reverse=True)


def test_what_is_too_far_behind_is_skipped_and_said(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "MOST_BEHIND", 100_000)
    monkeypatch.setattr(tail, "_KEPT_BEHIND", 1000)
    log.write("".join(f"error {number}\n" for number in range(50_000)))
    size = log.path.stat().st_size
    added = log.look()
    assert added.skipped == size - 1000 - len("error old\n")
    # A line that was cut in two still counts by what is left of it.
    assert 0 < log.counted <= 1000 // len("error 49999\n") + 1
    assert log.seen[-1] == "error 49999"


def test_a_hole_of_nul_bytes_is_jumped_over_and_remembered(make_log: MakeLog) -> None:
    log = make_log()
    log.writer.close()
    log.writer = log.path.open("wb", buffering=0)  # does not append
    log.write("x" * 2_000_000 + "\n")
    log.look()
    os.truncate(log.path, 0)
    log.write("error 1\n")
    added = log.look()
    assert log.seen == ["error 1"]
    assert added.grown < 10_000
    assert log.place is not None
    assert log.place.mark is not None
    assert log.place.mark.hole == 0
    anew = make_log()
    anew.look()
    assert anew.place is not None
    assert anew.place.mark is not None
    assert anew.place.mark.hole == 0


def test_written_nul_bytes_are_a_hole_and_utf_16_is_none(log: Log) -> None:
    log.write("wide\n".encode("utf-16-le") * 100)
    log.look()
    assert log.place is not None
    assert log.place.mark is not None
    assert log.place.mark.hole is None
    begin = log.path.stat().st_size - 1  # the second half of the last character is a NUL too
    log.write(bytes(5000) + b"error 1\n")
    log.look()
    assert log.place.mark is not None
    assert log.place.mark.hole == begin
    assert log.seen == ["error 1"]


@pytest.mark.parametrize("kind", ["pipe", "directory", "device", "loop"])
def test_what_is_no_file_is_not_read_and_not_waited_for(make_log: MakeLog, kind: str) -> None:
    log = make_log()
    log.path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(log.path)
        case "directory":
            log.path.mkdir()
        case "device":
            log.path.symlink_to("/dev/zero")
        case "loop":
            log.path.symlink_to(log.path)
    assert log.look().error not in (0, 2)


def test_growth_is_what_was_added_across_a_rotation(log: Log) -> None:
    log.write("x" * 1000)
    assert log.look().grown == 1000
    log.write("x" * 1000)
    log.rename()
    log.reopen()
    log.write("x" * 500)
    assert log.look().grown == 1500


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_each_line_is_seen_once(make_log: MakeLog, seed: int) -> None:
    chance = random.Random(seed)
    log = make_log()
    log.write("begin\n")
    log.look()
    written: list[str] = []
    last: Path | None = None
    for step in range(60):
        # A writer is told of a rotation before the next one comes.
        current = os.fstat(log.writer.fileno()).st_ino == log.path.stat().st_ino
        match chance.choice("wwwwlllrcpzo"):
            case "w":
                for _ in range(chance.randrange(1, 4)):
                    written.append(f"error {step} {chance.random()}")
                    log.write("fine\n" * chance.randrange(40) + written[-1] + "\n")
            case "l":
                log.look()
            case "r" if current:
                last = log.rename()
                if chance.random() < 0.6:
                    log.reopen()
            case "c" if current:
                last = log.copy_and_truncate()
            case "p" if current and last is not None and last.exists():
                log.pack(last)
            case "z" if current:
                log.now += 70.0
            case "o":
                log.reopen()
    log.look()
    log.look()
    assert sorted(log.seen) == sorted(written)


@pytest.mark.parametrize(
    ("name", "live", "rotated"),
    [
        ("app.log.1", "app.log", True),
        ("app.log.12.gz", "app.log", True),
        ("app.log-20260131", "app.log", True),
        ("app.log-20260131-1769817600.gz", "app.log", True),
        ("app.log.2026-01-31_05", "app.log", True),
        ("app-2026-01-31-1.log", "app.log", True),
        ("app.1.log.gz", "app.log", True),
        ("app.log.old", "app.log", True),
        ("syslog.1", "syslog", True),
        ("app.log", "app.log", False),
        ("app2.log", "app.log", False),
        ("app-worker.log", "app.log", False),
        ("app.log.swp", "app.log", False),
        ("other.log.1", "app.log", False),
        ("app.logs.1", "app.log", False),
    ],
)
def test_names_that_rotation_gives(name: str, live: str, rotated: bool) -> None:
    assert is_rotated(name, live) is rotated


def test_who_only_reads_a_deleted_log_does_not_hold_it(log: Log) -> None:
    log.writer.close()
    code = "import sys,time; f=open(sys.argv[1]); print(flush=True); time.sleep(60)"
    reader = subprocess.Popen([sys.executable, "-c", code, str(log.path)], stdout=subprocess.PIPE)
    try:
        assert reader.stdout is not None
        reader.stdout.readline()
        inode = log.path.stat().st_ino
        log.path.unlink()
        assert find_deleted(lambda _path, told: told.st_ino == inode) == []
    finally:
        reader.kill()
        reader.communicate()
