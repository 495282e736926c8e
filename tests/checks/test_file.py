"""What the file check makes of real files."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agent.checks import file
from agent.checks.file import FILE, FileOptions, gather, look
from agent.clock import Clock
from agent.core.model import Finding, Status
from agent.host import files
from agent.host.files import Entry, name_group, name_owner
from agent.host.machine import Machine
from agent.host.memory import Memories

HOUR = 3600.0


class Hand(Clock):
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.at = 10_000.0

    def now(self) -> float:
        return self.at


class Watch:
    """One check, looked at again and again."""

    def __init__(self, path: Path | str, **given: Any) -> None:
        written = FileOptions.model_validate({"type": "file", "path": str(path), **given})
        self.options = written.model_copy(update={"timeout": 10.0})
        self.clock = Hand()
        self.memories = Memories()
        self.machine = Machine(clock=self.clock)

    def look(self, seconds: float = 1.0) -> Finding:
        self.clock.at += seconds
        memory = self.memories.open("file")
        (finding,) = asyncio.run(look(self.options, self.machine.remember(memory)))
        self.memories.keep("file", memory)
        assert finding.cause == "" or finding.cause in FILE.causes
        assert set(finding.measurements) <= set(FILE.measurements)
        return finding

    def says(self, seconds: float = 1.0) -> tuple[str, str]:
        finding = self.look(seconds)
        return finding.status.value, finding.cause


def make(path: Path, size: int = 10, age: float = 2 * HOUR) -> Path:
    path.write_bytes(b"x" * size)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_a_file_that_is_there_is_ok_and_described(tmp_path: Path) -> None:
    finding = Watch(make(tmp_path / "a", 2048)).look()
    assert finding.status is Status.OK
    assert finding.summary == f"{tmp_path}/a is 2 KB long, written 2 h ago"
    assert finding.measurements["size_bytes"] == 2048
    assert finding.measurements["age_seconds"] == pytest.approx(2 * HOUR, abs=60)
    assert finding.subject == f"{tmp_path}/a"


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    assert Watch(tmp_path / "a").says() == ("critical", "missing")
    assert Watch(tmp_path / "none" / "a").says() == ("critical", "missing")
    assert Watch(f"{tmp_path}/*.gz").says() == ("critical", "missing")


def test_a_file_that_should_not_be_there_is_present(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "a", exists=False)
    assert watch.says() == ("ok", "")
    make(tmp_path / "a")
    assert watch.says() == ("critical", "present")


def test_a_backup_that_did_not_run_is_old_by_its_newest_file(tmp_path: Path) -> None:
    make(tmp_path / "1.gz", age=40 * HOUR)
    make(tmp_path / "2.gz", age=25.5 * HOUR)
    limits = {"warning": {"age": "25h"}, "critical": {"age": "26h"}}
    watch = Watch(f"{tmp_path}/*.gz", **limits)
    finding = watch.look()
    assert (finding.status, finding.cause) == (Status.WARNING, "old")
    assert finding.facts["Newest"] == f"{tmp_path}/2.gz"
    make(tmp_path / "2.gz", age=27 * HOUR)
    assert watch.look().summary == f"{tmp_path}/2.gz was written 1 d 3 h ago, 1 d 2 h is allowed"
    assert watch.says() == ("critical", "old")
    make(tmp_path / "3.gz", age=0)
    assert watch.says() == ("ok", "")


def test_a_file_of_tomorrow_is_young(tmp_path: Path) -> None:
    finding = Watch(make(tmp_path / "a", age=-HOUR), critical={"age": "1m"}).look()
    assert finding.status is Status.OK
    assert finding.measurements["age_seconds"] == 0


def test_a_backup_that_is_being_written_is_not_called_small(tmp_path: Path) -> None:
    make(tmp_path / "1.gz", 5000)
    make(tmp_path / "2.gz", 10, age=5)
    watch = Watch(f"{tmp_path}/*.gz", critical={"smaller": "1K"})
    assert watch.says() == ("ok", "")
    make(tmp_path / "2.gz", 10, age=61)
    assert watch.says() == ("critical", "small")


def test_the_largest_of_all_is_too_large(tmp_path: Path) -> None:
    make(tmp_path / "1.gz", 5000)
    make(tmp_path / "2.gz", 10)
    finding = Watch(f"{tmp_path}/*.gz", critical={"larger": "1K"}).look()
    assert finding.cause == "large"
    assert finding.summary.startswith(f"{tmp_path}/1.gz is 4.88 KB long")


def test_growth_is_of_all_together_and_ends(tmp_path: Path) -> None:
    make(tmp_path / "1", 1000)
    watch = Watch(f"{tmp_path}/*", critical={"growth": "5K in 1m"})
    assert watch.options.verify_for == 90
    assert watch.says() == ("ok", "")
    make(tmp_path / "2", 4000)
    assert watch.says() == ("ok", "")
    make(tmp_path / "1", 3000)
    finding = watch.look()
    assert finding.cause == "growing"
    assert finding.measurements["growth_bytes"] == 6000
    assert watch.says(30) == ("critical", "growing")
    assert watch.says(31) == ("ok", "")


def test_a_file_that_grows_slowly_is_not_growing(tmp_path: Path) -> None:
    path = make(tmp_path / "1", 1000)
    watch = Watch(path, critical={"growth": "5K in 1m"})
    for turn in range(20):
        assert watch.says(60) == ("ok", "")
        make(path, 1000 + turn * 4000)


def test_owner_group_and_permissions(tmp_path: Path) -> None:
    path = make(tmp_path / "a")
    path.chmod(0o640)
    own, group = name_owner(path.stat().st_uid), name_group(path.stat().st_gid)
    assert Watch(path, owner=own, group=group, permissions="0640").says() == ("ok", "")
    assert Watch(path, owner=str(path.stat().st_uid)).says() == ("ok", "")
    finding = Watch(path, owner="nobody").look()
    assert (finding.cause, finding.summary) == ("owner", f"{path} belongs to {own}, not to nobody")
    assert Watch(path, group="nogroup").says() == ("critical", "owner")
    finding = Watch(path, permissions="600").look()
    assert finding.cause == "permissions"
    assert finding.summary == f"{path} has permissions 0640, not 0600"
    assert name_owner(4_000_000) == name_group(4_000_000) == "4000000"


def test_a_directory_is_judged_too(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert Watch(tmp_path, permissions="0755", critical={"smaller": "1M"}).says() == ("ok", "")
    assert Watch(tmp_path, permissions="0700").says() == ("critical", "permissions")


def test_content_that_is_not_the_expected_is_changed(tmp_path: Path) -> None:
    path = make(tmp_path / "a")
    sum_ = hashlib.sha256(path.read_bytes()).hexdigest()
    watch = Watch(path, sha256=sum_.upper())
    assert watch.says() == ("ok", "")
    path.write_bytes(b"other")
    assert watch.says() == ("critical", "changed")


def test_packed_files_are_digested_as_they_are(tmp_path: Path) -> None:
    path = make(tmp_path / "a.gz")
    sum_ = hashlib.sha256(path.read_bytes()).hexdigest()
    assert Watch(path, sha256=sum_).says() == ("ok", "")


def test_a_change_of_content_is_told_for_a_while(tmp_path: Path) -> None:
    path = make(tmp_path / "a")
    make(tmp_path / "b")
    watch = Watch(f"{tmp_path}/*", changes="10m")
    assert watch.says() == ("ok", "")
    path.touch()
    assert watch.says() == ("ok", ""), "the same content is no change"
    make(path, 11)
    assert watch.says() == ("warning", "changed")
    watch.machine = Machine(clock=watch.clock)
    assert watch.says(590) == ("warning", "changed")
    assert watch.says(20) == ("ok", "")
    make(tmp_path / "c")
    assert watch.says() == ("ok", ""), "a new file is no change"


def test_content_is_read_only_when_it_may_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "a")
    watch = Watch(path, changes="10m")
    read: list[str] = []
    real = files.digest
    monkeypatch.setattr(file, "digest", lambda each: (read.append(each), real(each))[1])
    watch.look()
    watch.look()
    assert read == [str(path)]
    make(path, 20)
    assert watch.says() == ("warning", "changed")
    assert read == [str(path)] * 2


def test_what_is_too_long_to_be_read_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_READ", 1 << 20)
    finding = Watch(make(tmp_path / "a", (1 << 20) + 1), changes="1h").look()
    assert (finding.status, finding.cause) == (Status.UNKNOWN, "unreadable")
    assert "longer than 1 MB" in finding.summary


def test_a_hole_is_a_warning_where_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("wb") as writer:
        writer.seek(1 << 20)
        writer.write(b"end")
    assert Watch(path).says() == ("ok", "")
    assert Watch(path, nul=True).says() == ("warning", "nul")
    assert Watch(make(tmp_path / "b"), nul=True).says() == ("ok", "")


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    watch = Watch(f"{tmp_path}/*", changes="1h", nul=True, critical={"smaller": "1M"})
    assert watch.says() == ("ok", "")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert Watch(tmp_path / "loop").says() == ("unknown", "unreadable")


def test_a_filesystem_that_hangs_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(make(tmp_path / "a"))
    watch.options = watch.options.model_copy(update={"timeout": 0.2})
    release, real = threading.Event(), files.list_entries

    def hang(path: str) -> list[Entry]:
        release.wait(60)
        return real(path)

    monkeypatch.setattr(file, "list_entries", hang)
    for _ in range(3):
        assert watch.says() == ("unknown", "hung")
    release.set()
    end = time.monotonic() + 30
    while watch.says() == ("unknown", "hung"):
        assert time.monotonic() < end
    assert watch.says() == ("ok", "")


def test_evidence_lists_the_newest_first(tmp_path: Path) -> None:
    for number in range(30):
        make(tmp_path / f"{number}", age=number * HOUR)
    watch = Watch(f"{tmp_path}/*")
    (item,) = asyncio.run(gather(watch.options, watch.look(), watch.machine))
    rows = item.text.splitlines()
    assert rows[0].endswith(f"{tmp_path}/0")
    assert rows[-1] == "(10 more)"
    empty = Watch(f"{tmp_path}/*.gz")
    (item,) = asyncio.run(gather(empty.options, empty.look(), empty.machine))
    assert item.text == "(none)"
