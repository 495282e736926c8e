"""What the lab needs of this machine itself."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.errors import Unavailable

Command = Sequence[str | Path]
Progress = Callable[[str], None]

#: For commands on this machine and in the host alike.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: The commands that a lab needs on this machine, and the Debian packages they come from.
TOOLS = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "losetup": "mount",
    "mount": "mount",
    "tar": "tar",
}


def say(line: str) -> None:
    """Write one line of progress to standard error."""
    sys.stderr.write(f"lab: {line}\n")
    sys.stderr.flush()


def default_cache() -> Path:
    """`$HOSTMEND_LAB_CACHE`, else `hostmend` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if chosen := os.environ.get("HOSTMEND_LAB_CACHE"):
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "hostmend"


def missing_for_lab() -> str | None:
    """Why this machine cannot have a lab, with the way out; None if it can."""
    if os.geteuid() != 0:
        return "it needs root"
    lacking = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    if not lacking:
        return None
    packages = sorted({TOOLS[tool] for tool in lacking})
    return f"{', '.join(lacking)} not found: apt-get install {' '.join(packages)}"


def require_lab(purpose: str) -> None:
    """Raise Unavailable, "cannot <purpose>: why", if this machine cannot have a lab."""
    if why := missing_for_lab():
        raise Unavailable(f"cannot {purpose}: {why}")


def execute(argv: Command) -> str:
    """Run a command on this machine and return what it prints; raises Unavailable if it fails."""
    env = {"PATH": PATH, "LC_ALL": "C"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        why = done.stderr.strip() or f"it ended with {done.returncode}"
        raise Unavailable(f"cannot run {shlex.join(map(str, argv))} for a lab: {why}")
    return done.stdout


def remove_tree(tree: Path) -> None:
    """Remove a directory and all in it, if it is there."""
    if tree.exists():
        shutil.rmtree(tree)


def tail(file: Path, lines: int = 25) -> str:
    """The last lines of a text file; nothing if it cannot be read."""
    with contextlib.suppress(OSError):
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
    return ""
