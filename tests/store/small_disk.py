"""What a state does on a small filesystem of its own; run by `unshare --mount` as root.

Arguments: a directory, the kind of filesystem, what happens to it. Prints what was seen as JSON.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

from agent.core.decide import decide
from agent.core.model import Host, Policy, Reason, Reported, RoutePolicy
from agent.errors import StoreError
from agent.store.history import History
from agent.store.home import Home

POLICY = Policy(routes=(RoutePolicy(name="ops", reasons=(Reason.AGENT,)),))


def mount(place: Path, kind: str) -> None:
    place.mkdir()
    if kind == "tmpfs":
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=16m,nr_inodes=64", "t", place], check=True
        )
        return
    image = place.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-N", "64", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)


def fill(place: Path) -> None:
    """0 bytes and 0 inodes, to the last."""
    with contextlib.suppress(OSError), (place / "big").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    with contextlib.suppress(OSError), (place / "big").open("ab", buffering=0) as file:
        while True:
            file.write(b"x")
    with contextlib.suppress(OSError):
        for number in range(1000):
            (place / f"file{number}").touch()


def spoil(place: Path, what: str) -> None:
    if what == "full":
        fill(place)
    elif what == "read-only":
        subprocess.run(["mount", "-o", "remount,abort", place], check=True)
    elif what == "dead":
        # EXT4_IOC_SHUTDOWN without a flush: every read and write is answered with EIO.
        handle = os.open(place, os.O_RDONLY)
        fcntl.ioctl(handle, 0x8004587D, struct.pack("I", 2))
        os.close(handle)


def report(home: Home, host: Host, number: int) -> Host:
    """One decision with one message, as the engine commits it."""
    decision = decide(host, Reported(summary=f"message {number}"), POLICY, 1000.0 + number)
    before = home.state.commits
    try:
        home.state.save(host, decision)
    except StoreError as error:
        if not home.flee(error, host):
            raise
        if home.state.commits == before:
            home.state.save(host, decision)
    return decision.host


def main() -> None:
    base, kind, what, how_many = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    place, shelter = base / "disk", base / "shelter"
    mount(place, kind)
    place.chmod(0o700)
    if what == "full at first":
        fill(place)
    home = Home(place if what == "full at first" else place / "state", shelter)
    history = History(home.directory / "history.db")
    host = home.state.load_host()
    for number in range(3):
        host = report(home, host, number)
    spoil(place, what)
    for number in range(3, how_many):
        host = report(home, host, number)
    history.add_evidence("i1", "before", 1.0, ())
    seen = {
        "trouble": home.trouble,
        "news": home.take_news(),
        "due": [n.id for n in home.state.due_notices()],
        "serial": home.state.load_host().serial,
        "fault": home.state.find_fault(),
        "free": os.statvfs(place).f_bavail if what == "full" else None,
        "inodes": os.statvfs(place).f_favail if what == "full" else None,
        "commits": home.state.commits,
    }
    home.close()
    history.close()
    # The next agent, on the same disk, has everything.
    again = Home(home.directory, shelter)
    seen["again"] = [n.id for n in again.state.due_notices()]
    seen["again_lost"] = again.lost
    seen["again_trouble"] = again.trouble
    again.close()
    print(json.dumps(seen))


main()
