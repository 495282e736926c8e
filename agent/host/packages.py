"""What package managers left to do: updates that wait, and what still runs what they replaced.

Everything is read from what is on this host already. Nothing is fetched, and no lock is taken.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.core.model import Seconds
from agent.errors import Unavailable
from agent.host.census import read_table
from agent.host.command import run_command
from agent.host.processes import read_unit

#: Written by Debian's and Ubuntu's packages, and which ones did so.
REBOOT_REQUIRED = Path("/run/reboot-required")
_MODULES = Path("/lib/modules")
_KERNELS = Path("/boot")
_LISTS = Path("/var/lib/apt/lists")
_STAMP = Path("/var/lib/apt/periodic/update-success-stamp")
_STATUS = Path("/var/lib/dpkg/status")

#: What apt would install, from its own lists: no lock, no cache written, nothing fetched.
_SIMULATE = (
    "apt-get",
    "--simulate",
    "--option=Debug::NoLocking=1",
    "--option=Dir::Cache::pkgcache=",
    "--option=Dir::Cache::srcpkgcache=",
    "--option=APT::Get::Show-User-Simulation-Note=0",
    "dist-upgrade",
)
_DNF = ("dnf", "--cacheonly", "--quiet", "updateinfo", "list", "--security")
_DNF_REBOOT = ("needs-restarting", "--reboothint")

#: `Inst libssl3 [3.0.11-1] (3.0.15-1 Debian-Security:12/stable-security [amd64])`
_INSTALL = re.compile(r"^Inst (?P<name>\S+) (?:\[\S+\] )?\((?P<version>\S+) (?P<from>.*?)\[")
_SECURITY = re.compile(r"[Ss]ecurity")
#: `RHSA-2024:1234 Important/Sec. openssl-1:3.0.7-25.el9_3.x86_64`
_ADVISORY = re.compile(r"^\S+\s+\S*/Sec\.\s+(?P<package>\S+)$")
#: Words of a kernel's release that are part of its version and not of its flavour.
_VERSION_WORDS = frozenset({"deb", "bpo", "rc", "el", "fc"})

#: Libraries and programs live there; what is deleted elsewhere is a file of the program's own.
_CODE = ("/lib", "/usr/lib", "/usr/local/lib", "/bin", "/sbin", "/usr/bin", "/usr/sbin")
_DELETED = " (deleted)"


@dataclass(frozen=True, kw_only=True)
class Reboot:
    """A reason to boot again."""

    why: str
    #: The wall clock when it came about, in seconds.
    since: float


def find_reboots(*, container: bool = False) -> list[Reboot]:
    """What on this host says that it must be booted again, but for what needs a program."""
    found = []
    try:
        since = REBOOT_REQUIRED.stat().st_mtime
    except OSError:
        pass
    else:
        packages: dict[str, None] = {}
        try:
            listed = REBOOT_REQUIRED.with_name(f"{REBOOT_REQUIRED.name}.pkgs").read_text()
            packages = dict.fromkeys(line for line in listed.split() if line)
        except OSError:
            pass
        of = f" by {', '.join(packages)}" if packages else ""
        found.append(Reboot(why=f"a reboot is asked for{of}", since=since))
    if not container:
        newer = find_newer_kernel(os.uname().release)
        found += [newer] if newer else []
    return found


def find_newer_kernel(
    running: str, *, modules: Path = _MODULES, kernels: Path = _KERNELS
) -> Reboot | None:
    """The newest installed kernel of the same flavour, if the one that runs is older."""
    try:
        names = [entry.name for entry in modules.iterdir()]
    except OSError:
        return None
    installed = {
        name: kernels / f"vmlinuz-{name}"
        for name in names
        if (kernels / f"vmlinuz-{name}").exists() and _flavour(name) == _flavour(running)
    }
    # Where the running one is none of the host's own (a container, a kernel from outside), theirs
    # are not what it would boot.
    if running not in installed:
        return None
    newest = max(installed, key=_version)
    if _version(newest) <= _version(running):
        return None
    try:
        since = installed[newest].stat().st_mtime
    except OSError:
        return None
    return Reboot(why=f"kernel {newest} is installed, and {running} runs", since=since)


def _flavour(release: str) -> tuple[str, ...]:
    words = re.findall(r"[a-z]+", release)
    return tuple(word for word in words if word not in _VERSION_WORDS)


def _version(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]


async def needs_reboot(seconds: Seconds) -> bool | None:
    """What `needs-restarting` of Fedora and its kin says; None where it is not there, or fails."""
    if shutil.which(_DNF_REBOOT[0]) is None:
        return None
    try:
        printed = await run_command(_DNF_REBOOT, seconds=seconds)
    except Unavailable:
        return None
    return {0: False, 1: True}.get(-1 if printed.code is None else printed.code)


def find_manager() -> str:
    """`apt-get` or `dnf`, whichever keeps this host's packages; empty for none."""
    return next((name for name in ("apt-get", "dnf") if shutil.which(name)), "")


def read_freshness() -> tuple[float, float]:
    """The wall clock when apt last asked for news, 0: never; and when anything last changed."""
    asked = 0.0
    changed = 0.0
    for path in (_STAMP, _LISTS / "partial", _LISTS, _STATUS):
        try:
            at = path.stat().st_mtime
        except OSError:
            continue
        changed = max(changed, at)
        if path != _STATUS:
            asked = max(asked, at)
    if not any(_LISTS.glob("*Release")):
        asked = 0.0
    return asked, changed


async def list_security_updates(
    manager: str, *, seconds: Seconds, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Package -> version of each security update that could be installed. Raises Unavailable."""
    argv = _SIMULATE if manager == "apt-get" else _DNF
    printed = await run_command(
        argv, seconds=seconds, environment=environment, most_bytes=4 * 2**20
    )
    if printed.code is None:
        raise Unavailable(f"cannot list updates: {manager} has not answered for {seconds:g} s")
    if printed.code != 0:
        raise Unavailable(f"cannot list updates: {printed.said or f'exit code {printed.code}'}")
    return parse_apt(printed.out) if manager == "apt-get" else parse_dnf(printed.out)


def parse_apt(text: str) -> dict[str, str]:
    """Security updates among what `apt-get --simulate dist-upgrade` would install."""
    found = {}
    for line in text.splitlines():
        told = _INSTALL.match(line)
        if told is not None and _SECURITY.search(told["from"]):
            found[told["name"]] = told["version"]
    return found


def parse_dnf(text: str) -> dict[str, str]:
    """Security updates among what `dnf updateinfo list` prints."""
    found = {}
    for line in text.splitlines():
        told = _ADVISORY.match(line.strip())
        if told is not None:
            # name-epoch:version-release.architecture; a name may hold dashes.
            name, version, release = ([*told["package"].rsplit("-", 2), "", ""])[:3]
            found[name] = f"{version}-{release}".rstrip("-")
    return found


def find_outdated(proc: Path = Path("/proc")) -> dict[str, tuple[str, ...]]:
    """Services that still run a library or program that was replaced -> what that is.

    It reads the maps of every process, which takes a tenth of a second and may hang on one that is
    stuck in its memory: it is for a thread. Raises OSError.
    """
    own = _identify_root(proc / "self")
    found: dict[str, set[str]] = {}
    for task in read_table(proc).tasks.values():
        if task.kernel or task.zombie:
            continue
        place = proc / str(task.pid)
        if _identify_root(place) != own:
            # A container: what is replaced there is its own business.
            continue
        files = set(_find_deleted(place))
        if files and (unit := read_unit(task.pid, proc)).endswith(".service"):
            found.setdefault(unit, set()).update(files)
    return {unit: tuple(sorted(files)) for unit, files in sorted(found.items())}


def _identify_root(place: Path) -> tuple[int, int] | None:
    try:
        root = os.stat(place / "root/")  # noqa: PTH116
    except OSError:
        return None
    return (root.st_dev, root.st_ino)


def _find_deleted(place: Path) -> Iterable[str]:
    try:
        lines = (place / "maps").read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        if not line.endswith(_DELETED.encode()):
            continue
        # address perms offset dev inode path; only what is executed counts.
        fields = line.split(None, 5)
        if len(fields) == 6 and b"x" in fields[1]:
            path = fields[5].decode(errors="replace").removesuffix(_DELETED)
            if path.startswith(tuple(f"{each}/" for each in _CODE)):
                yield path
