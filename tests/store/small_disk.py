"""What a state does on a small filesystem of its own; run by `unshare --mount` as root.

Arguments: a directory, the kind of filesystem, what happens to it. Prints what was seen as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agent.clock import Clock
from agent.core.model import Evidence, Policy, Reason, Reported, RoutePolicy
from agent.engine import Engine
from agent.store.history import History
from agent.store.home import Home
from agent.store.state import State

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


async def live(home: Home, history: History, what: str, how_many: int, place: Path) -> None:
    """The real engine, which commits one message after another."""
    with ThreadPoolExecutor(1) as writer:
        engine = Engine(
            state=home.state, clock=Clock(), policy=POLICY, writer=writer, rescue=home.flee
        )
        for number in range(how_many):
            if number == 3:
                spoil(place, what)
            await engine.take(Reported(summary=f"message {number}"))
        assert len(await engine.read(State.due_notices)) == how_many
        engine.close()
    history.add_evidence("i1", "before", 1.0, (Evidence(title="t", text="seen"),))
    assert history.list_evidence("i1")


def main() -> None:
    base, kind, what, how_many = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    place, shelter = base / "disk", base / "shelter"
    mount(place, kind)
    place.chmod(0o700)
    if what == "full at first":
        fill(place)
    home = Home(place if what == "full at first" else place / "state", shelter)
    history = History(home.directory / "history.db")
    asyncio.run(live(home, history, what, how_many, place))
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
    again.state.set_meta("one more", "yes")
    again.close()
    print(json.dumps(seen))


main()
