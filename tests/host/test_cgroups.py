"""Control groups, on machines with either version and with both."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import Unavailable
from agent.host import cgroups
from agent.host.cgroups import PREFIX, find_place, list_members, own_cgroups, remove_empty
from agent.host.processes import end_tree, read_process

V1 = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime shared:9 - cgroup cgroup rw,xattr,name=systemd
"""
UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
PURE = "30 23 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
CONTAINER = "30 23 0:27 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n"


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "expected"),
    [
        (
            "4:cpu,cpuacct:/\n3:memory:/box\n1:name=systemd:/user.slice\n",
            V1,
            ["cpu,cpuacct", "memory/box", "systemd/user.slice"],
        ),
        (
            "4:cpu,cpuacct:/\n3:memory:/box\n1:name=systemd:/\n0::/a\n",
            V1 + UNIFIED,
            ["cpu,cpuacct", "memory/box", "systemd", "unified/a"],
        ),
        ("0::/user.slice/session-1.scope\n", PURE, ["user.slice/session-1.scope"]),
        ("0::/docker/abc/inner\n", CONTAINER, ["inner"]),
        ("0::/elsewhere\n", CONTAINER, ["."]),
        ("2:pids:/\n0::/\n", PURE, ["."]),
    ],
    ids=["version 1", "both", "version 2", "container", "outside of the mount", "not mounted"],
)
def test_a_process_finds_its_cgroup_in_each_hierarchy_that_is_mounted(
    tmp_path: Path, cgroup: str, mountinfo: str, expected: list[str]
) -> None:
    (tmp_path / "cgroup").write_text(cgroup)
    (tmp_path / "mountinfo").write_text(mountinfo)
    assert own_cgroups(tmp_path) == [Path("/sys/fs/cgroup", name) for name in expected]


@pytest.fixture(params=["version 2", "version 1"])
def group(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A group below our own, in a hierarchy of either version where this machine has it."""
    second = request.param == "version 2"
    places = [
        place
        for place in own_cgroups()
        if (place / "cgroup.controllers").exists() == second
        and not (place / "cpuset.cpus").exists()
    ]
    made = (places or [find_place()])[0] / f"{PREFIX}{tmp_path.name}"
    yield made
    cgroups.remove(made)


#: Joins the group, and goes on as many processes in sessions of their own that have no parents.
MANY = """
import os, sys, time
from pathlib import Path
from agent.host.cgroups import join

assert join(Path(sys.argv[1]))
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            os.closerange(0, 3)
            time.sleep(300)
        os._exit(0)
    os.wait()
"""


@pytest.mark.lab
def test_everything_in_a_group_is_ended_whatever_it_made_of_itself(group: Path) -> None:
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", MANY, str(group)], env=environment, check=True)
    found = list_members(group)
    assert len(found) == 20
    assert end_tree([], group=group) == []
    assert not group.exists()
    left = [read_process(pid) for pid in found]
    assert all(process is None or process.zombie for process in left)


@pytest.mark.lab
def test_what_this_process_is_a_part_of_is_never_what_it_ends() -> None:
    for place in own_cgroups():
        assert list_members(place) == set()
    assert end_tree([], group=find_place()) == []
    assert find_place().exists()


@pytest.mark.lab
def test_groups_that_were_left_empty_are_removed_and_others_are_not(group: Path) -> None:
    group.mkdir()
    (group / "below").mkdir()
    other = group.with_name(f"other-{group.name}")
    other.mkdir()
    try:
        remove_empty(group.parent)
        assert not group.exists()
        assert other.exists()
    finally:
        other.rmdir()


@pytest.mark.parametrize(("places", "why"), [([], "none is mounted"), (["none"], "No such file")])
def test_where_no_group_can_be_made_it_is_told_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: list[str], why: str
) -> None:
    monkeypatch.setattr(cgroups, "own_cgroups", lambda: [tmp_path / name for name in places])
    with pytest.raises(Unavailable, match=f"cannot make a control group: .*{why}"):
        find_place()
