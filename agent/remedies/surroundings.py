"""The environments of a job and of Ansible: made from scratch, nothing of the host's leaks in."""

from __future__ import annotations

import os
import pwd
import site
import sys
from collections.abc import Sequence
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
#: An ansible.cfg without a setting: naming it keeps those of cwd, home and /etc out.
_CONFIG = _PACKAGE / "ansible.cfg"
_LIGHT = _PACKAGE / "light_interpreter"
#: A script, started by path: it needs nothing of this package, and no PYTHONPATH leads to it.
WARM_CLIENT = _PACKAGE / "warm_client.py"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def make_job_environment(mark: str, token: str, scratch: Path) -> dict[str, str]:
    """For a job and all that it starts."""
    environment = {
        "PATH": _PATH,
        "LANG": "C.UTF-8",
        "HOME": _home(),
        "TMPDIR": str(scratch / "tmp"),
        mark: token,
    }
    source = _PACKAGE.parent.parent
    if str(source) not in site.getsitepackages():
        # A checkout: `-P` keeps the working directory out, so it must be named.
        environment["PYTHONPATH"] = str(source)
    return environment


def _home() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"


def make_scratch(scratch: Path) -> None:
    """The directories that the environments name, for this user alone. Raises OSError."""
    scratch.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch.mkdir(mode=0o700)
    for name in ("tmp", "home", "local", "remote", "private"):
        (scratch / name).mkdir(mode=0o700)


def make_ansible_environment(
    scratch: Path, collections: Sequence[str] = (), vault: str = ""
) -> dict[str, str]:
    """What ansible-core reads (its configuration reference names each), all on the runtime tmpfs.

    Only there can it work while `/` has no byte and no inode left.
    """
    environment = {
        "ANSIBLE_CONFIG": str(_CONFIG),
        "ANSIBLE_HOME": str(scratch / "home"),
        "ANSIBLE_LOCAL_TEMP": str(scratch / "local"),
        "ANSIBLE_REMOTE_TEMP": str(scratch / "remote"),
        # Modules go to their interpreter's stdin: no file, and /run is noexec anyway.
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_GATHERING": "explicit",
        "ANSIBLE_INVENTORY_ENABLED": "yaml",
        "ANSIBLE_LIBRARY": str(scratch / "none"),
        "ANSIBLE_MODULE_UTILS": str(scratch / "none"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "ANSIBLE_DEPRECATION_WARNINGS": "0",
        # Modules would write their arguments to the system's log, secrets among them, and where
        # there may be no room.
        "ANSIBLE_NO_TARGET_SYSLOG": "1",
        "ANSIBLE_DUPLICATE_YAML_DICT_KEY": "error",
        # ansible-runner's: a result with more characters loses everything, its return code too.
        "MAX_EVENT_RES": "4000000",
        "HOSTMEND_PYTHON": sys.executable,
    }
    if collections:
        environment["ANSIBLE_COLLECTIONS_PATH"] = ":".join(collections)
    if vault:
        environment["ANSIBLE_VAULT_PASSWORD_FILE"] = vault
    return environment


def brings_modules(remedy: Path) -> bool:
    """Whether the remedy has modules of its own, which no prepared process knows."""
    return any(entry.name in ("library", "module_utils") for entry in remedy.rglob("*"))


def choose_interpreter(remedy: Path, wanted: str | None) -> str:
    """The Python for the remedy's modules: as it wants, else the light one, else our own.

    The light one takes Ansible's modules from the installed package, so a remedy that brings
    modules of its own gets a plain one.
    """
    if wanted:
        return wanted
    light = os.access(_LIGHT, os.X_OK) and not brings_modules(remedy)
    return str(_LIGHT) if light else sys.executable
