"""Commands that a remedy runs, and the way out of it where one does not do what it should.

Shared by the remedies for logs. Standard library only: it runs by whatever Python a remedy has.
"""

from __future__ import annotations

import os
import subprocess


class NeedsHumanError(Exception):
    """Why it is not done, with what a human would do."""


def run(argv, limit):
    """Exit code and everything that was printed. `limit`: seconds, after which it is ended.

    Raises NeedsHumanError where there is no such command, or it takes too long.
    """
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            check=False,
        )
    except FileNotFoundError:
        raise NeedsHumanError(f"there is no {argv[0]} on this host") from None
    except subprocess.TimeoutExpired:
        raise NeedsHumanError(
            f"{' '.join(argv)} took longer than {limit} s: see what it waits for (ps -ef --forest, "
            "systemctl list-jobs), and whether the disk is dying (journalctl -k -p err)"
        ) from None
    return done.returncode, done.stdout.decode(errors="replace")
