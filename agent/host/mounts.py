"""What is mounted, from /proc/self/mountinfo, and what /etc/fstab wants (proc(5), fstab(5)).

Reading these never touches a filesystem, so a hung one cannot hold it up.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import Unavailable

_MOUNTINFO = Path("/proc/self/mountinfo")
_FSTAB = Path("/etc/fstab")

#: Filesystems with files that are nowhere else, on storage of this host.
LOCAL = frozenset(
    {
        "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "reiserfs", "nilfs2",
        "bcachefs", "vfat", "exfat", "ntfs", "ntfs3", "fuseblk", "hfsplus", "ubifs", "jffs2",
        "gfs2", "ocfs2",
    }
)  # fmt: skip
#: Filesystems behind which another machine stands: any call may hang.
NETWORK = frozenset(
    {
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "9p", "afs", "lustre",
        "virtiofs", "davfs", "fuse.glusterfs", "fuse.sshfs", "fuse.ceph", "fuse.s3fs",
        "fuse.rclone", "fuse.davfs2",
    }
)  # fmt: skip
#: What a superblock says of itself once nothing can be written to it (ext4 and XFS after errors).
_READ_ONLY = frozenset({"ro", "emergency_ro", "shutdown"})


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One line of mountinfo."""

    point: str
    #: The type: `ext4`, `nfs4`.
    kind: str
    source: str
    #: `major:minor`, the same for each mount of one filesystem.
    device: str
    #: What of the filesystem is mounted: `/` or a directory (bind mounts, btrfs subvolumes).
    root: str = "/"
    #: The filesystem's own options, not those of this one mount of it.
    options: frozenset[str] = field(default_factory=frozenset)

    @property
    def read_only(self) -> bool:
        """Whether the filesystem itself takes no writes.

        What only this mount of it says does not count: a sandbox around hostmend says so too.
        """
        return bool(self.options & _READ_ONLY)

    @property
    def network(self) -> bool:
        return self.kind in NETWORK


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What /etc/fstab says of one mount point."""

    kind: str
    options: frozenset[str]

    @property
    def read_only(self) -> bool:
        return "ro" in self.options

    @property
    def lazy(self) -> bool:
        """Whether it is mounted only when somebody asks for it."""
        return bool(self.options & {"noauto", "x-systemd.automount"})

    @property
    def at_boot(self) -> bool:
        """Whether no boot is complete without it."""
        return not self.lazy and "nofail" not in self.options


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """What is to be seen: what lies hidden under another mount is left out."""
    mounts: dict[str, Mount] = {}
    below: dict[str, list[str]] = {}
    parents: dict[str, str] = {}
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if not dash or len(fields) < 6 or len(kind) < 2:
            continue
        mounts[fields[0]] = Mount(
            point=_unescape(fields[4]),
            kind=kind[0],
            source=_unescape(kind[1]),
            device=fields[2],
            root=_unescape(fields[3]),
            options=frozenset(kind[2].split(",")) if len(kind) > 2 else frozenset(),
        )
        parents[fields[0]] = fields[1]
        if fields[0] != fields[1]:
            below.setdefault(fields[1], []).append(fields[0])
    # The order of the lines says nothing: a root that was pivoted to may stand after what is on it.
    left = [id for id in mounts if parents[id] not in mounts or parents[id] == id]
    seen: dict[str, Mount] = {}
    while left:
        id = left.pop()
        children = below.get(id, [])
        over = [child for child in children if mounts[child].point == mounts[id].point]
        if over:
            left.append(over[-1])
            continue
        seen[mounts[id].point] = mounts[id]
        points = {mounts[child].point for child in children}
        left += [child for child in children if not points & set(_above(mounts[child].point))]
    return tuple(sorted(seen.values(), key=lambda mount: mount.point))


def _above(point: str) -> list[str]:
    parts = point.split("/")
    return ["/".join(parts[:count]) for count in range(2, len(parts))]


def read_mounts() -> tuple[Mount, ...]:
    """What is mounted now. Raises Unavailable."""
    try:
        # Bytes of any kind may be in a path; what cannot be decoded comes back as it was.
        return parse_mountinfo(_MOUNTINFO.read_bytes().decode(errors="surrogateescape"))
    except OSError as error:
        raise Unavailable(f"cannot read {_MOUNTINFO}: {error.strerror}") from error


def pick_filesystems(mounts: Iterable[Mount], *, network: bool = False) -> tuple[Mount, ...]:
    """The real filesystems, each once, by mount point.

    Left out: what has no storage of its own (proc, tmpfs, overlays but the one at `/`), images that
    are never written to (squashfs, iso9660), and all but one mount of the same filesystem: bind
    mounts and btrfs subvolumes share its room. Network mounts only with `network`.
    """
    chosen: dict[str, Mount] = {}
    for mount in mounts:
        real = mount.kind in LOCAL or (mount.kind == "overlay" and mount.point == "/")
        if not real and not (network and mount.network):
            continue
        key = mount.source if mount.kind == "zfs" else mount.device
        known = chosen.get(key)
        if known is None or _standing(mount) < _standing(known):
            chosen[key] = mount
    return tuple(sorted(chosen.values(), key=lambda mount: mount.point))


def _standing(mount: Mount) -> tuple[bool, bool, int, str]:
    """The mount that people name a filesystem by is least."""
    return (mount.point != "/", mount.root != "/", mount.point.count("/"), mount.point)


def find_mount(mounts: Iterable[Mount], path: str) -> Mount | None:
    """The mount that an absolute path without symbolic links lies on."""
    wanted = posixpath.normpath(path)
    on = [mount for mount in mounts if _is_within(wanted, mount.point)]
    return max(on, key=lambda mount: len(mount.point), default=None)


def parse_fstab(text: str) -> Mapping[str, Wanted]:
    """Mount point -> what is wanted there."""
    wanted: dict[str, Wanted] = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 3 or fields[0].startswith("#") or not fields[1].startswith("/"):
            continue
        options = fields[3].split(",") if len(fields) > 3 else []
        point = posixpath.normpath(_unescape(fields[1]))
        wanted[point] = Wanted(kind=fields[2], options=frozenset(options))
    return wanted


def read_fstab() -> Mapping[str, Wanted]:
    """What /etc/fstab wants; nothing where there is none."""
    try:
        return parse_fstab(_FSTAB.read_text(errors="surrogateescape"))
    except OSError:
        return {}


def _is_within(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _unescape(text: str) -> str:
    """Blanks, tabs, newlines and backslashes are written in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
