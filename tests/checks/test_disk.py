"""What the disk check makes of usage. Real full disks: tests/lab/test_disk.py."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agent.checks import disk
from agent.checks.disk import DISK, DiskOptions, gather, judge, look, propose
from agent.clock import Clock
from agent.core.model import Finding, Status
from agent.core.units import format_size, parse_size, write_size
from agent.host.machine import Machine
from agent.host.mounts import Mount, Wanted
from agent.host.space import Space, Usage, measure
from agent.host.survey import OpenDeleted, find_open_deleted, survey
from agent.host.trend import Forecast

GB = 2**30
VAR = Mount(point="/var", kind="ext4", source="/dev/sda2", device="8:2", options=frozenset({"rw"}))
HALF = Usage(
    size_bytes=100 * GB,
    used_bytes=50 * GB,
    free_bytes=50 * GB,
    inodes_used=1000,
    inodes_free=9000,
)
SOON = Forecast(full_in=7200, low=3600, high=10800, rate=1000.0, seen=3600)


def sh(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def options(**given: Any) -> DiskOptions:
    return DiskOptions.model_validate({"type": "disk", **given})


def used(percent: float) -> Usage:
    return replace(HALF, used_bytes=int(percent * GB), free_bytes=int((100 - percent) * GB))


@pytest.mark.parametrize(
    ("sentence", "usage", "given", "status", "cause"),
    [
        ("half full is ok", HALF, {}, "ok", ""),
        ("85 % is a warning by default", used(85), {}, "warning", "full"),
        ("95 % is critical by default", used(95), {}, "critical", "full"),
        ("limits can be set", used(60), {"critical": {"used": "60%"}, "warning": {"used": "50%"}},
         "critical", "full"),
        ("free room can be a limit", used(60), {"warning": {"free": "41G"}}, "warning", "full"),
        ("free room replaces the default share", used(99), {"critical": {"free": "500M"},
         "warning": {"free": "600M"}}, "ok", ""),
        ("no inodes left is critical", replace(HALF, inodes_free=0), {}, "critical", "inodes"),
        ("few inodes left is a warning", replace(HALF, inodes_free=150), {}, "warning", "inodes"),
        ("where inodes are not counted there are enough", replace(HALF, inodes_used=0,
         inodes_free=None), {}, "ok", ""),
        ("a critical lack of inodes goes before a warning of room",
         replace(used(90), inodes_free=0), {}, "critical", "inodes"),
        ("an empty filesystem of size 0 is ok", Usage(size_bytes=0, used_bytes=0, free_bytes=0,
         inodes_used=0, inodes_free=None), {}, "ok", ""),
    ],
)  # fmt: skip
def test_what_usage_means(
    sentence: str, usage: Usage, given: dict[str, Any], status: str, cause: str
) -> None:
    finding = judge(VAR, usage, options(**given))
    assert (finding.status, finding.cause) == (status, cause), sentence
    assert finding.subject == "/var"
    assert finding.resource == "filesystem:/var"


def test_the_finding_says_how_much_is_left_in_numbers_with_units() -> None:
    finding = judge(VAR, used(95.5), options())
    assert finding.summary == "/var is 96 % full: 4.5 GB of 100 GB are free"
    assert finding.measurements == {
        "used_percent": 95.5,
        "used_bytes": int(95.5 * GB),
        "free_bytes": int(4.5 * GB),
        "size_bytes": 100 * GB,
        "target_percent": 80.0,
        "inodes_used_percent": 10.0,
        "inodes_free_count": 9000.0,
        "target_inodes_percent": 80.0,
    }


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ({}, 80.0),
        ({"warning": {"used": "70%"}}, 65.0),
        ({"warning": {"free": "30G"}, "critical": {"free": "10G"}}, 65.0),
        ({"warning": {"used": "90%", "free": "20G"}}, 75.0),
        ({"warning": {"used": "2%"}}, 1.0),
    ],
)
def test_cleaning_goes_below_every_limit(given: dict[str, Any], target: float) -> None:
    assert judge(VAR, HALF, options(**given)).measurements["target_percent"] == target


def test_read_only_though_it_should_not_be_is_critical() -> None:
    mount = replace(VAR, options=frozenset({"ro"}))
    finding = judge(mount, HALF, options(), writable="/etc/fstab says so")
    assert (finding.status, finding.cause) == (Status.CRITICAL, "read-only")
    assert "/etc/fstab says so" in finding.summary


def test_read_only_on_purpose_is_ok_however_full() -> None:
    finding = judge(replace(VAR, options=frozenset({"ro"})), used(100), options())
    assert (finding.status, finding.cause) == (Status.OK, "")


def test_a_forecast_is_told_and_warns_only_when_that_is_configured() -> None:
    told = judge(VAR, HALF, options(), forecast=SOON)
    assert told.status is Status.OK
    assert "full in 2 h (between 1 h and 3 h)" in told.summary
    assert told.measurements["full_in_seconds"] == 7200
    assert told.measurements["full_in_low_seconds"] == 3600
    assert told.measurements["full_in_high_seconds"] == 10800
    warned = judge(VAR, HALF, options(warning={"full_in": "24h"}), forecast=SOON)
    assert (warned.status, warned.cause) == (Status.WARNING, "filling")
    later = judge(VAR, HALF, options(warning={"full_in": "1h"}), forecast=SOON)
    assert later.status is Status.OK
    both = judge(VAR, used(96), options(warning={"full_in": "24h"}), forecast=SOON)
    assert (both.status, both.cause) == (Status.CRITICAL, "full")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"warning": {"used": 85}}, "85%"),
        ({"warning": {"used": "85"}}, "85%"),
        ({"warning": {"used": "120%"}}, "less than or equal to 100"),
        ({"warning": {"used": "x%"}}, "85%"),
        ({"critical": {"free": "1 lot"}}, "1G"),
        ({"critical": {"free": 1000}}, "500M or 1G"),
        ({"critical": {"full_in": "24h"}}, "Extra inputs"),
        ({"warning": {"used": "96%"}}, "must not be above critical.used"),
        ({"critical": {"inodes": "80%"}}, "must not be above critical.inodes"),
        ({"warning": {"free": "1G"}, "critical": {"free": "2G"}}, "must not be below"),
        ({"path": "var"}, "/var"),
        ({"path": "/var/../etc"}, "without .."),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        options(**given)


@pytest.mark.parametrize(
    ("text", "size"), [("1G", GB), ("1.5G", 3 * GB // 2), ("500M", 500 * 2**20), ("7B", 7),
                       ("2TiB", 2 * 2**40), ("10KB", 10240), ("12", 12)]
)  # fmt: skip
def test_sizes_are_read_and_written(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert parse_size(write_size(size)) == size


def test_sizes_for_people() -> None:
    sizes = (0, 999, 2048, 1.5 * GB, 999.6 * 2**20, 1000 * 2**20, 3e15)
    assert [format_size(size) for size in sizes] == [
        "0 B", "999 B", "2 KB", "1.5 GB", "1000 MB", "1000 MB", "2728 TB",
    ]  # fmt: skip


# Real filesystems


def test_percent_is_what_df_says() -> None:
    rows = sh("df", "-P", "/").splitlines()
    shown = int(rows[1].split()[4].rstrip("%"))
    # df rounds up, and somebody may write meanwhile.
    assert shown - 1.2 <= measure("/").used_percent <= shown + 0.2


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of 16 MB, of which it keeps 5 % for root."""
    image, point = tmp_path / "image", tmp_path / "small"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(16 * 2**20)
    sh("mkfs.ext4", "-q", "-F", str(image))
    sh("mount", "-o", "loop", str(image), str(point))
    yield point
    sh("umount", "--lazy", str(point))


@pytest.mark.lab
async def test_a_real_filesystem_is_full_as_df_says_when_root_could_still_write(
    small: Path,
) -> None:
    machine = Machine(clock=Clock())
    (before,) = await look(options(path=str(small / "lost+found")), machine)
    assert before.status is Status.OK
    assert before.subject == str(small)
    free = measure(str(small)).free_bytes
    (small / "fill").write_bytes(bytes(free))
    (full,) = await look(options(path=str(small)), machine)
    assert (full.status, full.cause) == (Status.CRITICAL, "full")
    assert full.measurements["free_bytes"] < 64 * 1024
    assert sh("df", "-P", str(small)).splitlines()[1].split()[4] == "100%"
    assert os.statvfs(small).f_bfree > 0


@pytest.mark.lab
async def test_a_real_remount_to_read_only_is_critical(small: Path) -> None:
    machine = Machine(clock=Clock())
    (first,) = await look(options(path=str(small)), machine)
    assert first.status is Status.OK
    sh("mount", "-o", "remount,ro", str(small))
    (second,) = await look(options(path=str(small)), machine)
    assert (second.status, second.cause) == (Status.CRITICAL, "read-only")
    assert "writable before" in second.summary


@pytest.mark.lab
async def test_what_was_read_only_from_the_first_is_meant_to_be(small: Path) -> None:
    sh("mount", "-o", "remount,ro", str(small))
    (finding,) = await look(options(path=str(small)), Machine(clock=Clock()))
    assert finding.status is Status.OK


async def test_what_fstab_wants_and_is_not_there_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = {
        "/srv/none": Wanted(kind="ext4", options=frozenset({"defaults"})),
        "/srv/usb": Wanted(kind="vfat", options=frozenset({"noauto"})),
        "/srv/maybe": Wanted(kind="ext4", options=frozenset({"nofail"})),
    }
    monkeypatch.setattr(disk, "read_fstab", lambda: wanted)
    machine = Machine(clock=Clock())
    found = {finding.subject: finding for finding in await look(options(), machine)}
    assert (found["/srv/none"].status, found["/srv/none"].cause) == (Status.CRITICAL, "missing")
    assert "/srv/usb" not in found
    assert "/srv/maybe" not in found
    (below,) = await look(options(path="/srv/none/data"), machine)
    assert (below.subject, below.cause) == ("/srv/none", "missing")
    (named,) = await look(options(path="/srv/maybe"), machine)
    assert named.cause == "missing"


async def test_a_path_that_is_not_there_is_unknown_and_says_why() -> None:
    (finding,) = await look(options(path="/no/such/place"), Machine(clock=Clock()))
    assert (finding.status, finding.cause) == (Status.UNKNOWN, "unavailable")
    assert "No such file" in finding.summary


# A mount that hangs


async def test_a_mount_that_hangs_is_unknown_alone_and_delays_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release, asked = threading.Event(), []

    def hang(point: str) -> Usage:
        asked.append(point)
        if point == "/hung":
            release.wait()
        return HALF

    mounts = tuple(
        replace(VAR, point=point, device=f"8:{n}") for n, point in enumerate(("/", "/hung", "/var"))
    )
    monkeypatch.setattr(disk, "read_mounts", lambda: mounts)
    monkeypatch.setattr(disk, "read_fstab", dict)
    monkeypatch.setattr(disk, "_PATIENCE", 0.2)
    machine = Machine(clock=Clock(), space=Space(measure=hang))
    try:
        for _ in range(3):
            found = {finding.subject: finding for finding in await look(options(), machine)}
            assert {point: f.status.value for point, f in found.items()} == {
                "/": "ok", "/hung": "unknown", "/var": "ok",
            }  # fmt: skip
            assert found["/hung"].cause == "hung"
            assert "has not answered for" in found["/hung"].summary
        assert asked.count("/hung") == 1, "each look added a thread that hangs"
        waiting = [thread for thread in threading.enumerate() if thread.name == "patience /hung"]
        assert [thread.daemon for thread in waiting] == [True]
    finally:
        release.set()
    for thread in waiting:
        await asyncio.to_thread(thread.join)
    found = {finding.subject: finding for finding in await look(options(), machine)}
    assert found["/hung"].status is Status.OK


async def test_two_who_ask_at_once_are_both_answered_by_a_call_of_their_own() -> None:
    asked = []

    def answer(point: str) -> Usage:
        asked.append(point)
        time.sleep(0.05)
        return replace(HALF, used_bytes=len(asked))

    space = Space(measure=answer)
    found = await asyncio.gather(*(space.ask("/var", 30) for _ in range(4)))
    assert [usage.used_bytes for usage in found] == [1, 2, 3, 4]


async def test_an_error_of_a_call_is_no_concern_of_the_next() -> None:
    def fail(_point: str) -> Usage:
        time.sleep(0.05)
        raise OSError(5, "Input/output error")

    space = Space(measure=fail)
    found = await asyncio.gather(*(space.ask("/", 30) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in found] == [OSError] * 3


async def test_a_call_that_hangs_does_not_hold_up_the_end_of_the_program() -> None:
    code = (
        "import asyncio, threading\n"
        "from agent.host.space import Hung, Space\n"
        "async def main():\n"
        "    try:\n"
        "        await Space(measure=lambda _: threading.Event().wait()).ask('/', 0.05)\n"
        "    except Hung:\n"
        "        print('hung')\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=root, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert out == b"hung\n"
    assert process.returncode == 0


async def test_an_error_of_a_filesystem_is_unknown_and_says_which() -> None:
    def fail(_point: str) -> Usage:
        raise OSError(5, "Input/output error")

    (finding,) = await look(options(path="/"), Machine(clock=Clock(), space=Space(measure=fail)))
    assert (finding.status, finding.cause) == (Status.UNKNOWN, "unavailable")
    assert "Input/output error" in finding.summary


# Evidence


def write(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))


def test_a_survey_names_the_largest_directories(tmp_path: Path) -> None:
    write(tmp_path / "a/deep/er/and/deeper/file", 400_000)
    write(tmp_path / "b/file", 100_000)
    os.link(tmp_path / "b/file", tmp_path / "b/again")
    found = survey(str(tmp_path))
    named = dict(found.largest())
    assert str(tmp_path / "a") not in named, "nearly all of it is in one below"
    assert named[str(tmp_path / "a/deep/er/and")] >= 400_000
    assert 100_000 <= named[str(tmp_path / "b")] < 150_000, "a second name is no second file"
    assert found.cut == ""
    write(tmp_path / "b/more", 900_000)
    grown = dict(survey(str(tmp_path)).grown(found.sizes))
    assert grown[str(tmp_path / "b")] >= 900_000
    assert str(tmp_path / "a/deep/er/and") not in grown


def test_a_survey_never_looks_behind_a_mount_point(tmp_path: Path) -> None:
    write(tmp_path / "share/file", 500_000)
    write(tmp_path / "own/file", 100_000)
    found = survey(str(tmp_path), avoid={str(tmp_path / "share")})
    assert str(tmp_path / "share") not in found.sizes


def test_a_survey_ends_after_so_many_entries(tmp_path: Path) -> None:
    for number in range(50):
        write(tmp_path / str(number), 10)
    found = survey(str(tmp_path), most_entries=20)
    assert found.entries == 20
    assert "20 entries" in found.cut


def test_a_deleted_file_that_is_open_is_named_with_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "gone.log"
    with path.open("wb") as file:
        file.write(bytes(3_000_000))
        file.flush()
        os.fsync(file.fileno())
        path.unlink()
        held = [
            each for each in find_open_deleted(str(tmp_path), most=1000) if each.path == str(path)
        ]
    assert [(each.pid, each.size >= 3_000_000) for each in held] == [(os.getpid(), True)]
    assert held[0].command


@pytest.mark.parametrize(
    ("sentence", "percent", "held", "status", "cause"),
    [
        ("without them there is room enough", 96, 20, "critical", "held"),
        ("without them it would be a warning only", 96, 5, "critical", "held"),
        ("without them it would be full all the same", 99, 2, "critical", "full"),
        ("without them there is no warning", 86, 5, "warning", "held"),
        ("without them there is a warning too", 94, 3, "warning", "full"),
        ("where there is room nobody asks", 50, 40, "ok", ""),
    ],
)
def test_a_disk_that_deleted_files_fill_is_held(
    sentence: str, percent: int, held: int, status: str, cause: str
) -> None:
    files = [
        OpenDeleted(pid=7, command="rsyslogd", unit="rsyslog.service", path="/var/log/x", size=each)
        for each in (held * GB - 1, 1)
    ]
    finding = judge(VAR, used(percent), options(), held=files)
    assert (finding.status, finding.cause) == (status, cause), sentence
    assert finding.measurements["held_bytes"] == held * GB
    if cause == "held":
        assert (
            "have rsyslogd (process 7 of rsyslog.service) let go of /var/log/x" in finding.summary
        )
    assert ("Held" in finding.facts) == (cause in ("held", "full"))


def test_a_lack_of_inodes_is_no_matter_of_deleted_files() -> None:
    files = [OpenDeleted(pid=7, command="x", unit="", path="/x", size=40 * GB)]
    finding = judge(VAR, replace(HALF, inodes_free=0), options(), held=files)
    assert finding.cause == "inodes"


@pytest.mark.lab
async def test_a_real_disk_is_held_until_the_file_is_closed(small: Path) -> None:
    machine = Machine(clock=Clock())
    path = small / "app.log"
    with path.open("wb") as file:
        file.write(bytes(measure(str(small)).free_bytes))
        file.flush()
        os.fsync(file.fileno())
        (finding,) = await look(options(path=str(small)), machine)
        assert (finding.status, finding.cause) == (Status.CRITICAL, "full")
        path.unlink()
        (finding,) = await look(options(path=str(small)), machine)
        assert finding.cause == "full", "it is not asked for again within the minute"
        machine.forget()
        (finding,) = await look(options(path=str(small)), machine)
        assert (finding.status, finding.cause) == (Status.CRITICAL, "held")
        assert f"process {os.getpid()}" in finding.summary
        assert str(path) in finding.summary
    (finding,) = await look(options(path=str(small)), machine)
    assert finding.status is Status.OK


async def test_open_files_that_cannot_be_listed_in_time_leave_it_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = threading.Event()
    monkeypatch.setattr(disk, "_HELD_PATIENCE", 0.2)
    monkeypatch.setattr(disk, "find_open_deleted", lambda point, most: release.wait() and [])
    machine = Machine(clock=Clock(), space=Space(measure=lambda _point: used(99)))
    (finding,) = await look(options(path="/"), machine)
    assert (finding.status, finding.cause) == (Status.CRITICAL, "full")
    release.set()


async def test_each_real_filesystem_is_proposed() -> None:
    proposals = {p.options["path"]: p for p in await propose(Machine(clock=Clock()))}
    assert proposals["/"].name == "disk-root"
    for proposal in proposals.values():
        assert DISK.model.model_validate(proposal.options)


@pytest.mark.lab
async def test_evidence_says_what_fills_it_and_what_grew(small: Path) -> None:
    machine = Machine(clock=Clock())
    (finding,) = await look(options(path=str(small)), machine)
    write(small / "app/old", 500_000)
    before = await gather(options(), finding, machine)
    assert before[0].title == f"Largest directories of {small}"
    assert f"{small}/app" in before[0].text
    write(small / "log/new", 2_000_000)
    after = {item.title: item.text for item in await gather(options(), finding, machine)}
    (grew,) = [text for title, text in after.items() if title.startswith("Grew most")]
    assert grew.splitlines()[0].endswith(f"{small}/log")


async def test_of_what_does_not_answer_nothing_more_is_asked() -> None:
    hung = Finding(subject="/mnt", status=Status.UNKNOWN, cause="hung")
    assert await gather(options(), hung, Machine(clock=Clock())) == ()


def test_the_default_ladder_cleans() -> None:
    (step,) = DISK.default_ladder(options())
    assert step.remedy == "clean-disk"


def test_the_page_on_disks_names_every_cause() -> None:
    page = (Path(__file__).parents[2] / "docs" / "disks.md").read_text()
    assert [cause for cause in DISK.causes if f"`{cause}`" not in page] == []
