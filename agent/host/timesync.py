"""What the kernel knows of its clock (adjtimex(2)), and who keeps it right."""

from __future__ import annotations

import ctypes
import functools
import os
from dataclasses import dataclass

from agent.core.model import Seconds
from agent.errors import Unavailable
from agent.host.systemd import Systemd

#: The clock counts as synchronised below this, as systemd has it (ntp_synced in timedated.c): the
#: kernel adds 500 microseconds a second to it, and whoever keeps the clock takes them away.
UNSYNCED: Seconds = 16.0
#: linux/timex.h
_STA_NANO = 0x2000

#: What keeps clocks right on hosts with systemd.
DAEMONS = (
    "chrony.service",
    "chronyd.service",
    "systemd-timesyncd.service",
    "ntpsec.service",
    "ntp.service",
    "ntpd.service",
    "openntpd.service",
)


class _Timex(ctypes.Structure):
    """struct timex (adjtimex(2))."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("fraction", ctypes.c_long),
        ("tick", ctypes.c_long),
        ("rest", ctypes.c_int * 32),
    )


@dataclass(frozen=True, kw_only=True)
class Discipline:
    """How the kernel steers its clock."""

    #: The most that it may be wrong, as far as whoever keeps it knows.
    error: Seconds
    #: What it is being moved by at the moment.
    offset: Seconds
    #: By how much it is made to go faster than the hardware would, in millionths.
    drift_ppm: float

    @property
    def synchronised(self) -> bool:
        return self.error < UNSYNCED


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def read_discipline() -> Discipline:
    """What the kernel says of its clock; it changes nothing. Raises Unavailable."""
    told = _Timex()
    try:
        state = _libc().adjtimex(ctypes.byref(told))
    except AttributeError:
        raise Unavailable("cannot ask the kernel for its clock: there is no adjtimex") from None
    if state < 0:
        why = os.strerror(ctypes.get_errno())
        raise Unavailable(f"cannot ask the kernel for its clock: {why}")
    unit = 1e9 if told.status & _STA_NANO else 1e6
    # Frequency in 2**-16 ppm; the length of a tick in microseconds, of which 10000 are usual at
    # 100 ticks a second, whatever the kernel's own rate is.
    drift = told.freq / 65536 + (told.tick - 1e6 / os.sysconf("SC_CLK_TCK")) * 100
    return Discipline(error=told.maxerror / 1e6, offset=told.offset / unit, drift_ppm=drift)


async def find_daemon(systemd: Systemd | None) -> str:
    """The unit that keeps the clock right; empty where none is seen to."""
    if systemd is None:
        return ""
    try:
        rows = await systemd.units(DAEMONS)
    except Unavailable:
        return ""
    return next((row.id for row in rows if row.active_state == "active"), "")
