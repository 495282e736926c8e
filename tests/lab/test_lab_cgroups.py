"""Where a host's cgroups go, on machines with either version and with both."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.lab.cgroups import own_cgroups

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
