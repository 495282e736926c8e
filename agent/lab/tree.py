"""The tree that hosts boot from: built once into a cache, and only read from then on."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from agent.errors import Unavailable
from agent.lab.machine import (
    PATH,
    Command,
    Progress,
    default_cache,
    remove_tree,
    require_lab,
    say,
    tail,
)
from agent.lab.mirror import RELEASE, Mirror, find_mirror, find_proxies

#: Counted up whenever this file builds another tree from the same lists.
RECIPE = 1
BASE = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "procps",
    "python3",
    "python3-venv",
    "systemd",
    "systemd-sysv",
)
#: What every lab has beside the base.
PACKAGES = (
    "busybox-static",
    "curl",
    "dnsmasq-base",
    "dovecot-imapd",
    "dovecot-pop3d",
    "e2fsprogs",
    "logrotate",
    "mariadb-server",
    "monitoring-plugins-basic",
    "nginx-light",
    "openssh-server",
    "podman",
    "postgresql",
    "python3-aiosmtpd",
    "redis-server",
    "rsyslog",
)
#: Debian starts these by the clock or at boot: in a lab they would be a package manager at work.
QUIET = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
)
#: Where hostmend lies in the host, below the root.
VENV = "opt/hostmend"
_CERTIFICATES = "etc/hostmend-lab-ca.crt"

#: The kernel is this machine's own: what a package's scripts set in it (sysctl.d(5)) would stay.
_ENTER = """\
set -e
mount -t proc proc "$0/proc"
mount --bind "$0/proc/sys" "$0/proc/sys"
mount -o remount,bind,ro "$0/proc/sys"
exec chroot "$0" "$@"
"""


def source_root() -> Path:
    """Where `agent/`, `api/` and `playbooks/` lie side by side: a checkout or site-packages."""
    return Path(__file__).resolve().parents[2]


def runtime_requirements() -> tuple[str, ...]:
    """What hostmend itself needs from Python: of the checkout, or of the installed distribution."""
    project = source_root() / "pyproject.toml"
    if project.is_file():
        return tuple(tomllib.loads(project.read_text())["project"]["dependencies"])
    found = importlib.metadata.requires("hostmend") or []
    return tuple(requirement for requirement in found if "extra ==" not in requirement)


def pinned_versions() -> str:
    """The checkout's constraints.txt, so that a host has what the gate was run with; or nothing."""
    file = source_root() / "constraints.txt"
    return file.read_text() if file.is_file() else ""


def build(
    cache: Path | None = None,
    *,
    packages: Iterable[str] = (),
    requirements: Iterable[str] | None = None,
    progress: Progress = say,
) -> Path:
    """The tree with these Debian packages and Python requirements, made if it is not there.

    `packages` come on top of PACKAGES; `requirements` are hostmend's own unless given. A second
    builder waits for the first. Half a tree never has a finished one's name: it is made beside it
    and renamed. Raises Unavailable.
    """
    require_lab("build a lab")
    cache = cache or default_cache()
    wanted = sorted({*PACKAGES, *packages})
    python = sorted(runtime_requirements() if requirements is None else requirements)
    pins = pinned_versions()
    key = _key(wanted, python, pins)
    tree = cache / "trees" / key
    if tree.is_dir():
        return tree
    tree.parent.mkdir(parents=True, exist_ok=True)
    with (tree.parent / f"{key}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another process builds this tree: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if tree.is_dir():
            return tree
        draft = tree.parent / f"{key}.draft"
        # The lock is held, so a draft that is there was left by a builder that was killed.
        remove_tree(draft)
        draft.mkdir()
        try:
            log = tree.parent / f"{key}.log"
            _Builder(draft, log, lock.fileno(), progress).build(wanted, python, pins)
            draft.rename(tree)
        finally:
            remove_tree(draft)
    return tree


def _key(packages: Sequence[str], requirements: Sequence[str], pins: str) -> str:
    """Names a tree by everything that defines it."""
    lists = [RECIPE, RELEASE, platform.machine(), BASE, QUIET, packages, requirements, pins]
    return hashlib.sha256(json.dumps(lists).encode()).hexdigest()[:16]


class _Builder:
    """The steps that make a host of an empty directory."""

    def __init__(self, tree: Path, log: Path, lock: int, progress: Progress) -> None:
        self._tree = tree
        self._log = log
        self._lock = lock
        self._progress = progress
        self._begun = time.monotonic()

    def build(self, packages: Sequence[str], requirements: Sequence[str], pins: str) -> None:
        self._log.write_text("")
        mirror = find_mirror()
        self._step("unpacking the base system (about half a minute)")
        self._unpack_base(mirror)
        with self._lent_configuration(mirror):
            self._step(f"installing {' '.join(packages)}")
            self._install_packages(packages)
            self._step(f"installing {len(requirements)} Python requirements")
            self._install_python(requirements, pins)
        self._settle()
        self._step("the tree is complete")

    def _unpack_base(self, mirror: Mirror) -> None:
        argv: list[str | Path] = ["debootstrap", "--variant=minbase", f"--include={','.join(BASE)}"]
        if mirror.keyring:
            argv.append(f"--keyring={mirror.keyring}")
        env = {**os.environ, **find_proxies(), "PATH": PATH, "LC_ALL": "C"}
        self._execute([*argv, RELEASE, self._tree, mirror.uri], env)

    def _install_packages(self, packages: Sequence[str]) -> None:
        policy = self._write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
        hasty = self._write("etc/dpkg/dpkg.cfg.d/hostmend-lab", "force-unsafe-io\n")
        before = self._enabled_units()
        self._inside(["apt-get", "update", "-q"])
        self._inside(["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages])
        # What a package enables is started by a test that wants it, and never by the boot.
        if enabled := self._enabled_units() - before:
            self._inside(["systemctl", "disable", *sorted(enabled)])
        # Masked: other units and the packages' own presets would pull them in again.
        self._inside(["systemctl", "mask", *QUIET])
        self._inside(["sh", "-c", "apt-get clean && rm -rf /var/lib/apt/lists/*"])
        policy.unlink()
        hasty.unlink()

    def _enabled_units(self) -> set[str]:
        return {link.name for link in (self._tree / "etc/systemd/system").glob("*.wants/*")}

    def _install_python(self, requirements: Sequence[str], pins: str) -> None:
        python = f"/{VENV}/bin/python"
        self._inside(["/usr/bin/python3", "-m", "venv", f"/{VENV}"])
        if requirements:
            constraints = self._write("opt/constraints.txt", pins)
            pip = [python, "-m", "pip", "install", "-q", "--no-cache-dir", "--no-compile"]
            self._inside([*pip, "-c", "/opt/constraints.txt", *requirements])
            constraints.unlink()
        self._inside([python, "-m", "compileall", "-q", "-j", "0", f"/{VENV}/lib"])

    def _settle(self) -> None:
        """What debootstrap took over from this machine goes."""
        self._write("etc/resolv.conf", "# A lab has no network but its own loopback.\n")
        self._write("etc/hostname", "lab\n")
        self._write("etc/machine-id", "")

    @contextlib.contextmanager
    def _lent_configuration(self, mirror: Mirror) -> Iterator[None]:
        """This machine's ways to its package sources, in the tree only while it is built."""
        bundle = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
        lent = {
            Path("/etc/apt"): "etc/apt",
            Path("/etc/resolv.conf"): "etc/resolv.conf",
            Path("/etc/pip.conf"): "etc/pip.conf",
            Path("/etc/xdg/pip"): "etc/xdg/pip",
            Path.home() / ".config/pip": "root/.config/pip",
            bundle: _CERTIFICATES,
        }
        with contextlib.ExitStack() as back:
            for source, name in lent.items():
                if source.exists():
                    back.callback(self._lend(source, self._tree / name))
            remove_tree(self._tree / "etc/apt/sources.list.d")
            (self._tree / "etc/apt/sources.list").unlink(missing_ok=True)
            self._write("etc/apt/sources.list.d/debian.sources", mirror.sources)
            if bundle.exists():
                option = f'Acquire::https::CaInfo "/{_CERTIFICATES}";\n'
                self._write("etc/apt/apt.conf.d/zz-hostmend-lab", option)
            yield

    def _lend(self, source: Path, place: Path) -> Callable[[], None]:
        """Put a copy of `source` in a place of the tree; returns what takes it back."""
        own = place.with_name(f"{place.name}.own")
        made = [parent for parent in place.parents if not parent.exists()]
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_symlink() or place.exists():
            place.rename(own)
        if source.is_dir():
            shutil.copytree(source, place)
        else:
            shutil.copy(source, place)

        def take_back() -> None:
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink()
            if own.is_symlink() or own.exists():
                own.rename(place)
            for parent in made:
                parent.rmdir()

        return take_back

    def _inside(self, argv: Command) -> None:
        """Run a command in the tree."""
        env = {k: v for k, v in os.environ.items() if k.startswith("PIP_") or "proxy" in k.lower()}
        env |= {"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8"}
        env |= {"DEBIAN_FRONTEND": "noninteractive", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        if (self._tree / _CERTIFICATES).exists():
            env["PIP_CERT"] = f"/{_CERTIFICATES}"
        self._execute(["sh", "-c", _ENTER, self._tree, *argv], env)

    def _execute(self, argv: Command, env: Mapping[str, str]) -> None:
        """Run a command whose mounts and processes end with it, and it with this process."""
        apart = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation=private"]
        apart += ["--pid", "--fork", "--kill-child", "--mount-proc", "--"]
        with self._log.open("ab") as log:
            log.write(f"\n$ {shlex.join(map(str, argv))}\n".encode())
            log.flush()
            done = subprocess.run(
                [*apart, *argv],
                env=env,
                # Held by the last process of a killed builder too, and only then a new one begins.
                pass_fds=(self._lock,),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            )
        if done.returncode != 0:
            raise Unavailable(
                f"cannot build a lab: {shlex.join(map(str, argv[:12]))} ended with"
                f" {done.returncode}; {self._log} ends with:\n{tail(self._log)}"
            )

    def _step(self, what: str) -> None:
        self._progress(f"{time.monotonic() - self._begun:5.1f} s  {what}")

    def _write(self, name: str, text: str, mode: int = 0o644) -> Path:
        file = self._tree / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file
