"""Which filesystems there are, from the kernel's words."""

from __future__ import annotations

import pytest

from agent.host.mounts import (
    find_mount,
    parse_fstab,
    parse_mountinfo,
    pick_filesystems,
    read_mounts,
)

#: A host with what hosts have: the root after what is on it, as after pivot_root(2).
HOST = r"""
20 30 0:5 / /proc rw - proc proc rw
21 30 0:6 / /sys rw - sysfs sysfs rw
22 30 0:7 / /dev rw - devtmpfs udev rw
23 30 0:8 / /run rw,noexec - tmpfs tmpfs rw,size=100k
30 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
31 30 8:2 / /var rw shared:2 - xfs /dev/sda2 rw
32 30 8:3 / /srv/my\040data rw - ext4 /dev/sda3 rw
33 30 8:2 /log /srv/logs rw - xfs /dev/sda2 rw
34 30 7:0 / /snap/core/1 ro - squashfs /dev/loop0 ro
35 30 7:1 / /media/cdrom ro - iso9660 /dev/sr0 ro
36 31 0:40 / /var/lib/docker/overlay2/abc/merged rw - overlay overlay rw,lowerdir=a
37 30 0:41 / /mnt/share rw - nfs4 files:/share rw,hard
38 30 0:42 / /mnt/auto rw - autofs systemd-1 rw
39 30 0:43 /@home /home rw - btrfs /dev/sdb rw,subvol=/@home
40 30 0:43 /@data /data rw - btrfs /dev/sdb rw,subvol=/@data
41 30 0:44 / /run/user/0/gvfs rw - fuse.gvfsd-fuse gvfsd rw
42 30 8:4 / /hidden/below rw - ext4 /dev/sda4 rw
43 30 8:5 / /hidden rw - ext4 /dev/sda5 rw
44 43 8:6 / /hidden rw - ext4 /dev/sda6 rw
45 30 8:7 / /broken rw - ext4 /dev/sda7 ro,errors=remount-ro
46 30 8:8 / /sandboxed ro - ext4 /dev/sda8 rw
47 30 0:50 / /tank rw - zfs tank rw
48 30 8:9 /a rw only six
nonsense
"""


def points(network: bool = False) -> list[str]:
    return [m.point for m in pick_filesystems(parse_mountinfo(HOST), network=network)]


def test_each_real_filesystem_is_there_once_and_nothing_else() -> None:
    assert points() == [
        "/", "/broken", "/data", "/hidden", "/sandboxed", "/srv/my data", "/tank", "/var",
    ]  # fmt: skip


def test_network_mounts_are_there_when_they_are_asked_for() -> None:
    assert set(points(network=True)) - set(points()) == {"/mnt/share"}


def test_of_mounts_on_each_other_the_uppermost_is_seen() -> None:
    mounts = {mount.point: mount for mount in parse_mountinfo(HOST)}
    assert mounts["/hidden"].device == "8:6"
    assert "/hidden/below" not in mounts


def test_an_overlay_counts_where_it_is_the_root() -> None:
    text = "1 0 0:30 / / rw - overlay overlay rw\n2 1 0:31 / /x rw - overlay overlay rw"
    assert [m.point for m in pick_filesystems(parse_mountinfo(text))] == ["/"]


def test_read_only_is_what_the_filesystem_says_and_not_one_mount_of_it() -> None:
    mounts = {mount.point: mount.read_only for mount in parse_mountinfo(HOST)}
    assert mounts["/broken"]
    assert not mounts["/sandboxed"]
    assert not mounts["/"]


@pytest.mark.parametrize(
    ("path", "point"),
    [
        ("/", "/"),
        ("/etc/passwd", "/"),
        ("/var", "/var"),
        ("/var/lib/mysql/ibdata1", "/var"),
        ("/variable", "/"),
        ("/srv/logs/x", "/srv/logs"),
        ("/srv/my data/x", "/srv/my data"),
        ("/srv//my data/", "/srv/my data"),
        ("/srv/my", "/"),
    ],
)
def test_a_path_lies_on_the_nearest_mount_above_it(path: str, point: str) -> None:
    found = find_mount(parse_mountinfo(HOST), path)
    assert found is not None
    assert found.point == point


def test_what_fstab_wants() -> None:
    wanted = parse_fstab(
        "# comment\nUUID=1 / ext4 errors=remount-ro 0 1\nUUID=2 none swap sw 0 0\n"
        "/dev/b /srv/my\\040data xfs ro,nofail\n/dev/c /mnt/usb vfat noauto\n/dev/d /short ext4\n"
    )
    assert set(wanted) == {"/", "/srv/my data", "/mnt/usb", "/short"}
    assert not wanted["/"].read_only
    assert wanted["/"].at_boot
    assert wanted["/srv/my data"].read_only
    assert not wanted["/srv/my data"].at_boot
    assert not wanted["/srv/my data"].lazy
    assert wanted["/mnt/usb"].lazy


def test_this_machine_has_a_root() -> None:
    assert find_mount(read_mounts(), "/") is not None
