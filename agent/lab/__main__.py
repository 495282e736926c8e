"""`python -m agent.lab`: the lab for people."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence

from agent.errors import Unavailable
from agent.lab.host import Lab
from agent.lab.machine import default_cache, say
from agent.lab.remains import remove_cache
from agent.lab.tree import build


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one order and return the exit code; `run` returns the command's own."""
    parser = argparse.ArgumentParser(
        prog="python -m agent.lab", description="A throw-away Debian host with systemd."
    )
    parser.add_argument(
        "--package", action="append", default=[], help="one more Debian package in its tree"
    )
    orders = parser.add_subparsers(dest="order", required=True)
    orders.add_parser("build", help="build the tree if it is not in the cache, and print its path")
    orders.add_parser("boot", help="boot a host, tell how to enter it, keep it until Ctrl-C")
    orders.add_parser("shell", help="boot a host and open a shell in it")
    orders.add_parser("clean", help="remove the cache; refused while a host is booted from it")
    run = orders.add_parser("run", help="boot a host and run a command in it")
    run.add_argument("command", nargs="+", metavar="-- COMMAND")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.order == "clean":
            remove_cache(default_cache())
            return 0
        tree = build(packages=chosen.package)
        if chosen.order == "build":
            sys.stdout.write(f"{tree}\n")
            return 0
        begun = time.monotonic()
        with Lab.boot(tree) as lab:
            say(f"{lab.name} is up after {time.monotonic() - begun:.1f} s")
            if chosen.order == "boot":
                say(f"enter it with: nsenter -t {lab.init} -a bash -l")
                signal.pause()
            command = chosen.command if chosen.order == "run" else ["bash", "-l"]
            return lab.popen(command, env={"TERM": os.environ.get("TERM", "dumb")}).wait()
    except Unavailable as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
