"""Figures that the kernel keeps of the whole host (proc(5)), and of a container (cgroups(7)).

Reading these never waits for a disk or for another machine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agent.errors import Unavailable

PROC = Path("/proc")
#: The root of the cgroups that a container sees as its own, where it has a namespace of them.
CGROUP = Path("/sys/fs/cgroup")
#: ZFS keeps what it caches outside of what the kernel calls available.
_ZFS = "spl/kstat/zfs/arcstats"

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True)
class MemoryFigures:
    """Memory in bytes, as far as programs can have it."""

    total: int
    #: What programs can still take without swapping.
    available: int
    swap_total: int = 0
    swap_free: int = 0
    #: Read back from swap since boot.
    swapped_in: int = 0
    #: Where the figures are those of a container: what limits it.
    limited: bool = False


@dataclass(frozen=True, kw_only=True)
class ProcessorFigures:
    """Time of all processors together since boot, in clock ticks, by what they did."""

    total: int
    idle: int
    #: Idle, while something waited for a disk.
    iowait: int
    #: Ready to work, while the hypervisor gave the time to another guest.
    steal: int


@dataclass(frozen=True, kw_only=True)
class Pressure:
    """How much of the time work waited for something, in percent (Linux's psi.rst)."""

    #: Some of the work, over the last 10, 60 and 300 seconds.
    some10: float
    some60: float
    some300: float
    #: All of it at once, over the last 60 seconds.
    full60: float = 0.0


def read_text(path: Path | str) -> str:
    """A file of the kernel. Raises Unavailable."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a third of the time
            return file.read().decode(errors="replace")
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}") from error


def parse_pairs(text: str) -> dict[str, int]:
    """`name value` or `name: value kB`, one a line; what is no such line is left out."""
    found = {}
    for line in text.splitlines():
        words = line.replace(":", " ", 1).split()
        if len(words) >= 2 and words[1].isdecimal():
            found[words[0]] = int(words[1]) * (1024 if words[-1] == "kB" else 1)
    return found


def read_memory(
    *, container: bool = False, proc: Path = PROC, cgroup: Path = CGROUP
) -> MemoryFigures:
    """Memory of this host, or of this container where that has less. Raises Unavailable."""
    told = parse_pairs(read_text(proc / "meminfo"))
    if "MemTotal" not in told or "MemAvailable" not in told:
        raise Unavailable(f"cannot read {proc / 'meminfo'}: it does not say what is available")
    figures = MemoryFigures(
        total=told["MemTotal"],
        available=min(told["MemTotal"], told["MemAvailable"] + _read_zfs(proc)),
        swap_total=told.get("SwapTotal", 0),
        swap_free=told.get("SwapFree", 0),
        swapped_in=parse_pairs(read_text(proc / "vmstat")).get("pswpin", 0) * _PAGE,
    )
    return _limit(figures, cgroup) if container else figures


def _read_zfs(proc: Path) -> int:
    """Bytes of ZFS's cache that it gives back when they are wanted."""
    try:
        lines = (proc / _ZFS).read_text().splitlines()
    except OSError:
        return 0
    words = [line.split() for line in lines]
    told = {w[0]: int(w[2]) for w in words if len(w) == 3 and w[2].isdecimal()}
    return max(0, told.get("size", 0) - told.get("c_min", 0))


def _limit(figures: MemoryFigures, cgroup: Path) -> MemoryFigures:
    """The same within the limit of a container, which /proc/meminfo knows nothing of."""
    try:
        most, used = (int((cgroup / f"memory.{name}").read_text()) for name in ("max", "current"))
        told = parse_pairs(read_text(cgroup / "memory.stat"))
    except (OSError, ValueError, Unavailable):
        return figures
    if most >= figures.total:
        return figures
    # What was read from files and not lately is given back before anything else is taken.
    kept = max(0, used - told.get("inactive_file", 0))
    available = max(0, min(most - kept, figures.available))
    return replace(figures, total=most, available=available, limited=True)


def count_kills(*, container: bool = False, proc: Path = PROC, cgroup: Path = CGROUP) -> int | None:
    """Processes killed for want of memory since boot; None where nothing counts them.

    /proc/vmstat counts for the whole machine, which is no business of a container on it.
    """
    path = cgroup / "memory.events" if container else proc / "vmstat"
    try:
        return parse_pairs(read_text(path)).get("oom_kill")
    except Unavailable:
        return None


def read_reclaimable(group: str, *, cgroup: Path = CGROUP) -> int | None:
    """Bytes that a control group holds for files, and gives back; None where nothing tells.

    A unit that reads files fills its limit with them, and is not short of memory.
    """
    for path, names in (
        (cgroup / group.lstrip("/"), ("inactive_file", "active_file")),
        (cgroup / "memory" / group.lstrip("/"), ("total_inactive_file", "total_active_file")),
    ):
        try:
            told = parse_pairs(read_text(path / "memory.stat"))
        except Unavailable:
            continue
        if names[0] in told:
            return sum(told.get(name, 0) for name in names)
    return None


def count_group_kills(group: str, *, cgroup: Path = CGROUP) -> int | None:
    """Processes of a control group that were killed for want of memory; None in version 1."""
    try:
        # Asked for every unit at every look: joining paths would cost more than reading them.
        told = parse_pairs(read_text(f"{cgroup}/{group.lstrip('/')}/memory.events"))
    except Unavailable:
        return None
    return told.get("oom_kill")


def read_processors(*, proc: Path = PROC) -> ProcessorFigures:
    """Times of all processors. Raises Unavailable."""
    first = read_text(proc / "stat").partition("\n")[0].split()
    try:
        if first[0] != "cpu":
            raise ValueError
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, first[1:9])
    except (ValueError, IndexError):
        raise Unavailable(f"cannot read {proc / 'stat'}: it does not begin as it should") from None
    # What guests use is part of user and nice.
    busy = user + nice + system + irq + softirq
    return ProcessorFigures(
        total=busy + idle + iowait + steal, idle=idle, iowait=iowait, steal=steal
    )


def read_load(*, proc: Path = PROC) -> tuple[float, float, float]:
    """The load over 1, 5 and 15 minutes. Raises Unavailable."""
    words = read_text(proc / "loadavg").split()
    try:
        one, five, fifteen = map(float, words[:3])
    except ValueError:
        raise Unavailable(f"cannot read {proc / 'loadavg'}: it is no load") from None
    return one, five, fifteen


def find_pressure(what: str, *, container: bool = False) -> Path:
    """Where the kernel tells of the pressure on `cpu`, `memory` or `io`."""
    own = CGROUP / f"{what}.pressure"
    return own if container and own.exists() else PROC / "pressure" / what


def read_pressure(path: Path) -> Pressure:
    """Raises Unavailable where this kernel does not measure it."""
    try:
        lines = read_text(path).splitlines()
    except Unavailable as error:
        raise Unavailable(
            f"{error}: this kernel does not measure pressure; boot it with psi=1"
        ) from error
    told: dict[str, Mapping[str, str]] = {}
    for line in lines:
        kind, _, rest = line.partition(" ")
        told[kind] = dict(word.split("=", 1) for word in rest.split() if "=" in word)
    try:
        some, full = told["some"], told.get("full", {})
        return Pressure(
            some10=float(some["avg10"]),
            some60=float(some["avg60"]),
            some300=float(some["avg300"]),
            full60=float(full.get("avg60", "0")),
        )
    except (KeyError, ValueError):
        raise Unavailable(f"cannot read {path}: it does not tell of pressure") from None
