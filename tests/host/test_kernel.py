"""Figures of the kernel: as they really are, and as they are on hosts that this is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.errors import Unavailable
from agent.host.kernel import (
    count_kills,
    find_pressure,
    parse_pairs,
    read_load,
    read_memory,
    read_pressure,
    read_processors,
)

GB = 2**30


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    place = tmp_path / "proc"
    place.mkdir()
    (place / "meminfo").write_text(
        "MemTotal:        8388608 kB\nMemFree: 100 kB\nMemAvailable:    1048576 kB\n"
        "SwapTotal:       2097152 kB\nSwapFree:        1048576 kB\nHugePages_Total:       0\n"
    )
    (place / "vmstat").write_text("nr_free_pages 5\npswpin 25\npswpout 3\noom_kill 4\n")
    return place


@pytest.fixture
def cgroup(tmp_path: Path) -> Path:
    """What a container of 2 GB sees as the root of its cgroups."""
    place = tmp_path / "cgroup"
    place.mkdir()
    (place / "memory.max").write_text(f"{2 * GB}\n")
    (place / "memory.current").write_text(f"{GB}\n")
    (place / "memory.stat").write_text(f"anon {GB // 2}\ninactive_file {GB // 4}\n")
    (place / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\n")
    return place


def test_memory_is_as_the_kernel_says(proc: Path) -> None:
    figures = read_memory(proc=proc)
    assert (figures.total, figures.available) == (8 * GB, GB)
    assert (figures.swap_total, figures.swap_free) == (2 * GB, GB)
    assert figures.swapped_in == 25 * os.sysconf("SC_PAGE_SIZE")


def test_memory_of_this_machine_can_be_read() -> None:
    figures = read_memory()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert figures.total == pages
    assert 0 < figures.available <= figures.total


def test_what_zfs_keeps_in_its_cache_is_available_but_for_its_least(proc: Path) -> None:
    (proc / "spl/kstat/zfs").mkdir(parents=True)
    (proc / "spl/kstat/zfs/arcstats").write_text(
        "13 1 0x01 123 33456 1 2\nname                            type data\n"
        f"c_min                           4    {GB}\n"
        f"size                            4    {4 * GB}\n"
    )
    assert read_memory(proc=proc).available == 4 * GB


def test_a_container_has_what_its_limit_leaves(proc: Path, cgroup: Path) -> None:
    figures = read_memory(container=True, proc=proc, cgroup=cgroup)
    assert figures.total == 2 * GB
    assert figures.available == GB, "no more than the machine around it has"
    assert figures.limited
    (cgroup / "memory.current").write_text(f"{2 * GB}")
    assert read_memory(container=True, proc=proc, cgroup=cgroup).available == GB // 4
    assert read_memory(proc=proc, cgroup=cgroup).total == 8 * GB


@pytest.mark.parametrize("most", ["max\n", f"{64 * GB}\n", "garbage", None])
def test_a_container_without_a_limit_has_what_the_machine_has(
    proc: Path, cgroup: Path, most: str | None
) -> None:
    (cgroup / "memory.max").unlink()
    if most is not None:
        (cgroup / "memory.max").write_text(most)
    figures = read_memory(container=True, proc=proc, cgroup=cgroup)
    assert (figures.total, figures.limited) == (8 * GB, False)


def test_kills_are_counted_for_the_host_and_for_a_container_of_its_own(
    proc: Path, cgroup: Path, tmp_path: Path
) -> None:
    assert count_kills(proc=proc, cgroup=cgroup) == 4
    assert count_kills(container=True, proc=proc, cgroup=cgroup) == 1
    assert count_kills(container=True, proc=proc, cgroup=tmp_path / "none") is None
    (proc / "vmstat").write_text("nr_free_pages 5\n")
    assert count_kills(proc=proc) is None
    assert count_kills() is not None


@pytest.mark.parametrize(
    "text", ["", "garbage", "MemTotal: 5 kB\n", "MemAvailable: 5 kB\n", "\xff\0:::\n"]
)
def test_memory_that_is_no_memory_cannot_be_read(proc: Path, text: str) -> None:
    (proc / "meminfo").write_text(text)
    with pytest.raises(Unavailable, match="does not say what is available"):
        read_memory(proc=proc)
    (proc / "meminfo").unlink()
    with pytest.raises(Unavailable, match=r"cannot read .*meminfo: No such file"):
        read_memory(proc=proc)


def test_lines_that_are_no_pairs_are_left_out() -> None:
    assert parse_pairs("a 1\nb: 2 kB\nc\nd x\n\ne -5\n") == {"a": 1, "b": 2048}


def test_times_of_processors_add_up() -> None:
    figures = read_processors()
    # The first line is in hundredths of a second, of all processors together.
    assert figures.total > figures.idle + figures.iowait + figures.steal > 0
    assert read_processors().total >= figures.total


@pytest.mark.parametrize(
    "text", ["", "cpu 1 2 3\n", "cpu0 1 2 3 4 5 6 7 8\n", "cpu a b c d e f g h\n"]
)
def test_times_that_are_none_cannot_be_read(proc: Path, text: str) -> None:
    (proc / "stat").write_text(text)
    with pytest.raises(Unavailable, match="does not begin as it should"):
        read_processors(proc=proc)


def test_guests_are_not_counted_twice(proc: Path) -> None:
    (proc / "stat").write_text("cpu  100 10 50 800 20 5 5 10 90 9\nintr 5\n")
    figures = read_processors(proc=proc)
    assert (figures.total, figures.idle, figures.iowait, figures.steal) == (1000, 800, 20, 10)


def test_the_load_is_that_of_the_machine(proc: Path) -> None:
    assert len(read_load()) == 3
    (proc / "loadavg").write_text("garbage")
    with pytest.raises(Unavailable, match="it is no load"):
        read_load(proc=proc)


def test_pressure_is_read_as_the_kernel_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "memory"
    file.write_text(
        "some avg10=1.50 avg60=2.25 avg300=3.00 total=15\n"
        "full avg10=0.50 avg60=0.75 avg300=1.00 total=9\n"
    )
    pressure = read_pressure(file)
    assert (pressure.some10, pressure.some60, pressure.some300) == (1.5, 2.25, 3.0)
    assert pressure.full60 == 0.75


def test_pressure_of_processors_has_no_full_on_old_kernels(tmp_path: Path) -> None:
    file = tmp_path / "cpu"
    file.write_text("some avg10=1.50 avg60=2.25 avg300=3.00 total=15\n")
    assert read_pressure(file).full60 == 0.0


@pytest.mark.parametrize(
    "text", ["", "garbage\n", "some avg10=x avg60=1 avg300=2\n", "full avg10=0"]
)
def test_pressure_that_is_none_cannot_be_read(tmp_path: Path, text: str) -> None:
    file = tmp_path / "memory"
    file.write_text(text)
    with pytest.raises(Unavailable, match="does not tell of pressure"):
        read_pressure(file)


def test_a_kernel_without_pressure_says_how_to_have_it(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="boot it with psi=1"):
        read_pressure(tmp_path / "none")


def test_a_container_asks_for_its_own_pressure_where_it_has_one(
    cgroup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.host.kernel.CGROUP", cgroup)
    assert find_pressure("memory", container=True) == Path("/proc/pressure/memory")
    (cgroup / "memory.pressure").touch()
    assert find_pressure("memory", container=True) == cgroup / "memory.pressure"
    assert find_pressure("memory") == Path("/proc/pressure/memory")
