"""A throw-away Debian host with systemd as PID 1, for tests and for authors of remedies.

`build` makes the host's tree once and keeps it in a cache; `Lab.boot` boots it with systemd-nspawn on
an overlay in memory, so that every host starts from the same state and nothing of it stays. Both
need root. What a boot leaves behind when its owner is killed, the next boot sweeps away: everything
it makes lies in one directory, and cgroups, that carry the owner's process number and start time.

`python -m agent.lab --help` is the same for people. How it works is told in docs/lab.md.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib.metadata
import itertools
import json
import os
import platform
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import tomllib
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agent.errors import Unavailable

RELEASE = "bookworm"
#: Counted up whenever this file builds another tree from the same lists.
RECIPE = 1
BASE = ("systemd", "systemd-sysv", "dbus", "python3", "python3-venv", "procps", "iproute2")
BASE += ("ca-certificates",)
#: What every lab has beside the base; `build` takes more.
PACKAGES = ("nginx-light", "curl", "e2fsprogs")
#: Hosts run these on their own time: in a lab they would be a package manager at work.
QUIET = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer")
QUIET += ("e2scrub_reap.service", "fstrim.timer", "systemd-timesyncd.service")
#: The commands that a lab needs on the machine, and the Debian packages they come from.
TOOLS = {"debootstrap": "debootstrap", "systemd-nspawn": "systemd-container"}
TOOLS |= {"unshare": "util-linux", "nsenter": "util-linux", "setpriv": "util-linux"}
TOOLS |= {"losetup": "mount", "tar": "tar"}
VENV = "opt/hostmend"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BOOT_LIMIT = 180.0
STOP_LIMIT = 120.0

Progress = Callable[[str], None]
Command = Sequence[str | Path]

_numbers = itertools.count(1)


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
    """Why this machine cannot boot a lab, with the way out; None if it can."""
    if os.geteuid() != 0:
        return "root is needed"
    lacking = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    if lacking:
        packages = sorted({TOOLS[tool] for tool in lacking})
        return f"{', '.join(lacking)} not found: apt-get install {' '.join(packages)}"
    return None


def _require_tools(what: str) -> None:
    if why := missing_for_lab():
        raise Unavailable(f"cannot {what}: {why}")


# ---------------------------------------------------------------------------------------- the tree


def source_root() -> Path:
    """Where `agent/`, `api/` and `playbooks/` lie side by side: a checkout or site-packages."""
    return Path(__file__).resolve().parents[1]


def runtime_requirements() -> tuple[str, ...]:
    """What hostmend itself needs from Python: of the checkout, or of the installed distribution."""
    project = source_root() / "pyproject.toml"
    if project.is_file():
        found = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        found = [r for r in importlib.metadata.requires("hostmend") or [] if "extra ==" not in r]
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """Where Debian's packages come from on this machine."""

    uri: str
    #: The file for `debootstrap --keyring`, where the source names one.
    keyring: Path | None
    #: The sources, as the machine's apt has them, that are of our release.
    sources: str


def find_mirror(apt: Path = Path("/etc/apt")) -> Mirror:
    """Read the Debian mirror out of apt's own sources, one-line and deb822 (sources.list(5)).

    `$HOSTMEND_LAB_MIRROR` wins over them. Sources that are signed with a key other than Debian's
    own are somebody else's and are passed over. Raises Unavailable if there is none.
    """
    if chosen := os.environ.get("HOSTMEND_LAB_MIRROR"):
        return Mirror(uri=chosen, keyring=None, sources=f"deb {chosen} {RELEASE} main\n")
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))]
    stanzas = [s for f in files if f.is_file() for s in _one_line_stanzas(f.read_text())]
    for file in sorted((apt / "sources.list.d").glob("*.sources")):
        stanzas += _deb822_stanzas(file.read_text())
    ours = [s for s in stanzas if _is_debian(s)]
    for fields in ours:
        if RELEASE in fields["suites"].split():
            key = fields.get("signed-by", "")
            keyring = Path(key) if key.startswith("/") and Path(key).is_file() else None
            text = "\n".join(_as_deb822(s) for s in ours)
            return Mirror(uri=fields["uris"].split()[0], keyring=keyring, sources=text)
    raise Unavailable(
        f"cannot build a lab: apt's sources on this machine name no Debian mirror with {RELEASE}:"
        " set HOSTMEND_LAB_MIRROR to the address of one"
    )


def _one_line_stanzas(text: str) -> Iterator[dict[str, str]]:
    for raw in text.splitlines():
        line = raw.split("#", 1)[0].strip()
        if not line.startswith("deb ") and not line.startswith("deb\t"):
            continue
        rest, options = line[3:].strip(), ""
        if rest.startswith("["):
            options, _, rest = rest[1:].partition("]")
        uri, suite, *components = rest.split()
        fields = {"types": "deb", "uris": uri, "suites": suite, "components": " ".join(components)}
        for option in options.split():
            key, _, value = option.partition("=")
            fields[key.lower()] = value.replace(",", " ")
        yield fields


def _deb822_stanzas(text: str) -> Iterator[dict[str, str]]:
    for block in text.split("\n\n"):
        fields: dict[str, str] = {}
        key = ""
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t"):
                fields[key] += "\n" + line
            elif ":" in line:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if {"types", "uris", "suites"} <= fields.keys():
            yield fields


def _is_debian(fields: Mapping[str, str]) -> bool:
    suites = {f"{RELEASE}{tail}" for tail in ("", "-updates", "-security")}
    key = fields.get("signed-by", "")
    return (
        "deb" in fields["types"].split()
        and fields.get("enabled", "yes").lower() not in ("no", "false", "0")
        and fields["uris"].startswith(("http://", "https://"))
        and set(fields["suites"].split()) <= suites
        and "main" in fields.get("components", "").split()
        and (not key.startswith("/") or "debian-archive" in key)
    )


def _as_deb822(fields: Mapping[str, str]) -> str:
    return "".join(f"{key.title()}: {value}\n" for key, value in fields.items())


def tree_key(packages: Iterable[str], requirements: Iterable[str]) -> str:
    """Names a tree by everything that defines it."""
    lists = [RECIPE, RELEASE, platform.machine(), BASE, QUIET]
    lists += [sorted({*PACKAGES, *packages}), sorted(requirements)]
    return hashlib.sha256(json.dumps(lists).encode()).hexdigest()[:16]


def build(
    cache: Path | None = None,
    *,
    packages: Iterable[str] = (),
    requirements: Iterable[str] | None = None,
    progress: Progress = say,
) -> Path:
    """The tree of a lab with these Debian packages and Python requirements; made if it is not there.

    A second builder waits for the first. Half a tree never has a finished one's name: it is built
    beside and renamed. Raises Unavailable.
    """
    _require_tools("build a lab")
    cache = cache or default_cache()
    packages = sorted({*PACKAGES, *packages})
    python = runtime_requirements() if requirements is None else tuple(requirements)
    key = tree_key(packages, python)
    tree = cache / "trees" / key
    if tree.is_dir():
        return tree
    tree.parent.mkdir(parents=True, exist_ok=True)
    with (cache / f"{key}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another process builds this tree: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if tree.is_dir():
            return tree
        draft = cache / "drafts" / key
        # The lock is ours, so a draft of this name is what a killed builder left.
        _remove_tree(draft)
        draft.mkdir(parents=True)
        try:
            _Builder(draft, cache / f"{key}.log", progress).build(packages, python)
            draft.rename(tree)
        finally:
            _remove_tree(draft)
    return tree


def _remove_tree(tree: Path) -> None:
    if tree.exists():
        shutil.rmtree(tree)


class _Builder:
    """The steps that fill an empty directory with a host."""

    def __init__(self, tree: Path, log: Path, progress: Progress) -> None:
        self.tree = tree
        self.log = log
        self.progress = progress
        self.begun = time.monotonic()

    def build(self, packages: Sequence[str], requirements: Sequence[str]) -> None:
        self.log.write_text("")
        mirror = find_mirror()
        self._step("downloading and unpacking the base system")
        keyring = [f"--keyring={mirror.keyring}"] if mirror.keyring else []
        include = f"--include={','.join(BASE)}"
        self._execute(
            ["debootstrap", "--variant=minbase", include, *keyring, RELEASE, self.tree, mirror.uri],
            env={**os.environ, **_apt_proxies(), "PATH": PATH, "LC_ALL": "C"},
        )
        with self._lent_configuration(mirror):
            self._step(f"installing {' '.join(packages)}")
            self._write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
            self._write("etc/dpkg/dpkg.cfg.d/hostmend-lab", "force-unsafe-io\n")
            self._inside(["apt-get", "update", "-q"])
            install = ["apt-get", "install", "-q", "-y", "--no-install-recommends"]
            self._inside([*install, *packages])
            self._inside(["apt-get", "clean"])
            (self.tree / "usr/sbin/policy-rc.d").unlink()
            self._step(f"installing {len(requirements)} Python requirements")
            self._inside(["/usr/bin/python3", "-m", "venv", f"/{VENV}"])
            pip = [f"/{VENV}/bin/python", "-m", "pip", "install", "-q", "--no-cache-dir"]
            if requirements:
                self._inside([*pip, "--no-compile", *requirements])
            self._inside([f"/{VENV}/bin/python", "-m", "compileall", "-q", "-j", "0", f"/{VENV}"])
        self._step("making it quiet")
        self._settle()
        self._step("done")

    def _settle(self) -> None:
        """What a fresh host would start by itself, or would have from the machine, goes."""
        services = self.tree / "etc/systemd/system/multi-user.target.wants"
        keep = {"dbus.service", "remote-fs.target"}
        ours = [unit.name for unit in services.iterdir() if unit.name not in keep]
        present = [
            unit for unit in (*ours, *QUIET) if (self.tree / "lib/systemd/system" / unit).exists()
        ]
        self._inside(["systemctl", "disable", *present])
        # Masked as well, because other units and the package's own presets pull these in.
        self._inside(["systemctl", "mask", *QUIET, "getty.target", "console-getty.service"])
        for name in ("var/lib/apt/lists", "var/cache/apt", "root/.cache"):
            _remove_tree(self.tree / name)
        (self.tree / "var/lib/apt/lists/partial").mkdir(parents=True)
        (self.tree / "var/cache/apt/archives/partial").mkdir(parents=True)
        (self.tree / "etc/dpkg/dpkg.cfg.d/hostmend-lab").unlink()
        self._write("etc/resolv.conf", "# A lab has no network but its own loopback.\n")
        self._write("etc/machine-id", "")

    @contextlib.contextmanager
    def _lent_configuration(self, mirror: Mirror) -> Iterator[None]:
        """The machine's ways to its package sources, in the tree for the time of the build only."""
        bundle = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
        home = Path.home()
        lent = {
            Path("/etc/apt"): "etc/apt",
            Path("/etc/resolv.conf"): "etc/resolv.conf",
            Path("/etc/pip.conf"): "etc/pip.conf",
            Path("/etc/xdg/pip"): "etc/xdg/pip",
            home / ".config/pip": "root/.config/pip",
            home / ".pip": "root/.pip",
            Path(bundle): "etc/hostmend-lab-ca.crt",
        }
        with contextlib.ExitStack() as back:
            for source, name in lent.items():
                if source.exists():
                    back.callback(self._lend(source, self.tree / name))
            _remove_tree(self.tree / "etc/apt/sources.list.d")
            (self.tree / "etc/apt/sources.list").unlink(missing_ok=True)
            self._write("etc/apt/sources.list.d/debian.sources", mirror.sources)
            ca = 'Acquire::https::CaInfo "/etc/hostmend-lab-ca.crt";\n'
            if Path(bundle).is_file():
                self._write("etc/apt/apt.conf.d/zz-hostmend-lab", ca)
            yield

    def _lend(self, source: Path, place: Path) -> Callable[[], None]:
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
        """Run a command in the tree, with mounts and processes that end together with it."""
        env = {k: v for k, v in os.environ.items() if k.startswith("PIP_") or "proxy" in k.lower()}
        env |= {"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", "TMPDIR": "/tmp"}  # noqa: S108
        env |= {"DEBIAN_FRONTEND": "noninteractive", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        if (self.tree / "etc/hostmend-lab-ca.crt").exists():
            env |= {"PIP_CERT": "/etc/hostmend-lab-ca.crt"}
        script = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private"]
        self._execute([*apart, "sh", "-c", script, self.tree, *argv], env=env)

    def _execute(self, argv: Command, *, env: Mapping[str, str]) -> None:
        # A builder that is killed takes its children with it: two would share one draft.
        bound = ["setpriv", "--pdeathsig", "KILL", "--", *argv]
        with self.log.open("ab") as log:
            log.write(f"\n$ {shlex.join(map(str, argv))}\n".encode())
            log.flush()
            done = subprocess.run(
                bound, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
            )
        if done.returncode != 0:
            raise Unavailable(
                f"cannot build a lab: {shlex.join(map(str, argv[:12]))} ended with"
                f" {done.returncode}; {self.log} ends with:\n{_tail(self.log)}"
            )

    def _step(self, what: str) -> None:
        self.progress(f"{time.monotonic() - self.begun:6.1f} s  {what}")

    def _write(self, name: str, text: str, mode: int = 0o644) -> None:
        file = self.tree / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(text, encoding="utf-8")
        file.chmod(mode)


def _apt_proxies() -> dict[str, str]:
    """Apt's proxies in the form that debootstrap's downloader reads."""
    words = ["http_proxy", "Acquire::http::Proxy", "https_proxy", "Acquire::https::Proxy"]
    done = subprocess.run(
        ["apt-config", "shell", *words], capture_output=True, text=True, check=False
    )
    pairs = (line.partition("=") for word in [done.stdout] for line in shlex.split(word))
    return {key: value for key, _, value in pairs if value and value != "DIRECT"}


def _tail(file: Path, lines: int = 25) -> str:
    with contextlib.suppress(OSError):
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
    return ""


# ------------------------------------------------------------------------------------- the cgroups


def _own_cgroups() -> list[Path]:
    """The directory of this process's own cgroup in each hierarchy that is mounted.

    cgroups(7): /proc/self/cgroup has the path, /proc/self/mountinfo (proc_pid_mountinfo(5)) the place.
    """
    paths: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        paths[controllers] = path
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, place = left.split()[3:5]
        names = set(options.split(","))
        for controllers, path in paths.items():
            ours = not controllers if kind == "cgroup2" else set(controllers.split(",")) <= names
            if ours and (controllers or kind == "cgroup2"):
                inner = os.path.relpath(path, root)
                directory = Path(place) if inner.startswith("..") else Path(place, inner)
                found.append(Path(os.path.normpath(directory)))
    return found


def _make_cgroup(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    # cpuset(7): a version 1 cpuset takes no process before it has processors and memory nodes.
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = directory / name
        if file.exists() and not (directory / "cgroup.type").exists():
            file.write_text((directory.parent / name).read_text())


def _members(directory: Path) -> set[int]:
    pids: set[int] = set()
    for file in directory.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            pids |= {int(word) for word in file.read_text().split()}
    return pids


def _empty_cgroups(cgroups: Iterable[Path]) -> None:
    """End whatever is in these cgroups and remove what is below them; raises Unavailable."""
    cgroups = [directory for directory in cgroups if directory.is_dir()]
    deadline = time.monotonic() + 30
    while True:
        members = set().union(*(_members(directory) for directory in cgroups))
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            for directory in cgroups:
                _remove_cgroups_below(directory)
            if not members:
                return
        if time.monotonic() > deadline:
            raise Unavailable(f"cannot end a lab: processes {sorted(members)} do not die")
        time.sleep(0.02)


def _remove_cgroups_below(directory: Path) -> None:
    for child in directory.iterdir():
        if child.is_dir():
            _remove_cgroups_below(child)
            child.rmdir()


# ---------------------------------------------------------------------------------------- clean-up


def _start_time(pid: int) -> str | None:
    """When a process started, in clock ticks since boot (proc_pid_stat(5), field 22)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()[19]


def _new_name() -> str:
    pid = os.getpid()
    return f"hostmend-lab-{pid}-{_start_time(pid)}-{next(_numbers)}"


def _owner_lives(name: str) -> bool:
    pid, started = name.removeprefix("hostmend-lab-").split("-")[:2]
    return _start_time(int(pid)) == started


def sweep(cache: Path | None = None) -> list[str]:
    """Remove what hosts left whose owners are dead; returns their names. Live ones are not touched."""
    hosts = (cache or default_cache()) / "hosts"
    hosts.mkdir(parents=True, exist_ok=True)
    with (hosts / ".sweep").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        dead = [d for d in sorted(hosts.glob("hostmend-lab-*")) if not _owner_lives(d.name)]
        for directory in dead:
            _discard(directory)
    return [directory.name for directory in dead]


def _discard(directory: Path) -> None:
    """End a host's processes and remove its mounts, loop devices, cgroups and directory."""
    cgroups: list[Path] = []
    with contextlib.suppress(FileNotFoundError):
        cgroups = [Path(line) for line in (directory / "cgroups").read_text().splitlines()]
    _empty_cgroups(cgroups)
    for place in (directory / "root", directory / "disk"):
        if place.name == "disk":
            _detach_loops(place)
        while place.is_mount():
            _machine(["umount", place])
    for cgroup in cgroups:
        if cgroup.is_dir():
            cgroup.rmdir()
    _remove_tree(Path("/run/systemd/nspawn/propagate", directory.name))
    _remove_tree(directory)


def _detach_loops(place: Path) -> None:
    for line in _machine(
        ["losetup", "--list", "--noheadings", "-O", "NAME,BACK-FILE"]
    ).splitlines():
        device, _, file = line.strip().partition(" ")
        if file.strip().startswith(f"{place}/"):
            _machine(["losetup", "-d", device])


def _machine(argv: Command) -> str:
    """Run a command on this machine itself, and return what it prints."""
    env = {"PATH": PATH, "LC_ALL": "C"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        why = done.stderr.strip() or f"it ended with {done.returncode}"
        raise Unavailable(f"cannot run {shlex.join(map(str, argv))} for a lab: {why}")
    return done.stdout


@contextlib.contextmanager
def _unwinding_when_terminated() -> Iterator[None]:
    """Make SIGTERM unwind as Ctrl-C does, where nobody handles it: else a host would be left."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def unwind(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt("terminated")

    signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


# ---------------------------------------------------------------------------------------- the host


class LabProcess(subprocess.Popen[Any]):
    """A command in a lab. Signals reach the command itself, not the door it went in by."""

    @property
    def inner_pid(self) -> int | None:
        """The command's number as this machine counts; None before it has begun and after its end."""
        try:
            words = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except OSError:
            return None
        return int(words[0]) if words else None

    def send_signal(self, sig: int) -> None:
        """Send a signal to the command."""
        deadline = time.monotonic() + 5
        while self.poll() is None and time.monotonic() < deadline:
            if (pid := self.inner_pid) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sig)
                return
            time.sleep(0.005)


@dataclass(frozen=True, kw_only=True)
class _Volume:
    path: str
    device: str | None
    options: str


class Lab:
    """A booted host. Made by `Lab.boot`, gone with the end of its `with`."""

    def __init__(self, directory: Path, *, hostname: str) -> None:
        self.name = directory.name
        self.hostname = hostname
        #: The root of its file system as this machine sees it, without what the host mounts on it
        #: (/run, /tmp, volumes). Symbolic links in it are the host's: use `read` and `write`.
        self.path = directory / "root"
        #: Its PID 1, as this machine counts.
        self.init = 0
        self._directory = directory
        self._cgroups: list[Path] = []
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._volumes: list[_Volume] = []
        self._children: list[LabProcess] = []

    @classmethod
    @contextlib.contextmanager
    def boot(
        cls,
        tree: Path | None = None,
        *,
        cache: Path | None = None,
        hostname: str = "lab",
        machine_id: str | None = None,
        size: str = "1g",
        code: Path | None = None,
    ) -> Iterator[Lab]:
        """Boot a throw-away host from a tree (default: the one `build` makes) and end it at last.

        `machine_id`: 32 hexadecimal digits; default: a new one for each host. `size`: how much the
        host may write, as tmpfs(5) takes it. `code`: the directory with `agent/`, `api/` and
        `playbooks/` that become the host's /opt/hostmend (default: those this module is of).
        Raises Unavailable if it does not come up.
        """
        _require_tools("boot a lab")
        cache = cache or default_cache()
        sweep(cache)
        tree = tree or build(cache)
        lab = cls(cache / "hosts" / _new_name(), hostname=hostname)
        with _unwinding_when_terminated():
            try:
                lab._assemble(tree, size, machine_id or uuid.uuid4().hex, code or source_root())
                lab._start()
                yield lab
            finally:
                lab._end()

    # How it comes up and goes down.

    def _assemble(self, tree: Path, size: str, machine_id: str, code: Path) -> None:
        directory = self._directory
        self._cgroups = [parent / self.name for parent in _own_cgroups()]
        directory.mkdir()
        (directory / "cgroups").write_text("".join(f"{cgroup}\n" for cgroup in self._cgroups))
        disk = directory / "disk"
        for place in (disk, self.path):
            place.mkdir()
        _machine(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", self.name, disk])
        for name in ("upper", "work", "volumes"):
            (disk / name).mkdir(mode=0o755)
        layers = f"lowerdir={tree},upperdir={disk}/upper,workdir={disk}/work"
        try:
            _machine(["mount", "-t", "overlay", "-o", layers, self.name, self.path])
        except Unavailable:
            # A machine without overlayfs, or itself on one: slower, and the same to who uses it.
            _machine(["cp", "-a", "--reflink=auto", f"{tree}/.", self.path])
        self._place("etc/machine-id", f"{machine_id}\n", 0o444)
        self._place("etc/hostname", f"{self.hostname}\n")
        self._place("etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {self.hostname}\n::1 localhost\n")
        self._place_code(code)

    def _place(self, name: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the tree before the boot; the parents are known to be no links."""
        file = self.path / name
        file.unlink(missing_ok=True)
        file.write_text(text, encoding="utf-8")
        file.chmod(mode)

    def _place_code(self, code: Path) -> None:
        (packages,) = (self.path / VENV / "lib").glob("python3.*/site-packages")
        for part in ("agent", "api", "playbooks"):
            if (code / part).is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(code / part, packages / part, symlinks=True, ignore=ignore)
                for file in [packages / part, *(packages / part).rglob("*")]:
                    os.chown(file, 0, 0, follow_symlinks=False)
                    if not file.is_symlink():
                        runs = file.is_dir() or file.stat().st_mode & stat.S_IXUSR
                        file.chmod(0o755 if runs else 0o644)
        entry = "import sys\nfrom api.cli.main import main\nsys.exit(main())\n"
        self._place(f"{VENV}/bin/hostmend", f"#!/{VENV}/bin/python -P\n{entry}", 0o755)
        (self.path / "usr/local/bin/hostmend").symlink_to(f"/{VENV}/bin/hostmend")

    def _start(self) -> None:
        for cgroup in self._cgroups:
            _make_cgroup(cgroup)
        # Two hosts that share a cgroup end each other's services, so the process that becomes
        # nspawn goes into its own first.
        join = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit 125; shift; done; shift'
        argv = ["sh", "-c", f'{join}; exec "$@"', "sh", *self._cgroups, "--"]
        argv += ["systemd-nspawn", "--quiet", "--boot", "-D", self.path, "-M", self.name]
        argv += [f"--hostname={self.hostname}", "--register=no", "--keep-unit", "--private-network"]
        argv += ["--link-journal=no", "--resolv-conf=off", "--timezone=off", "--console=read-only"]
        env = {"PATH": PATH, "LC_ALL": "C.UTF-8", "SYSTEMD_NSPAWN_LOCK": "0"}
        console = self._directory / "console.log"
        with console.open("wb") as out:
            self._nspawn = subprocess.Popen(
                argv,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        deadline = time.monotonic() + BOOT_LIMIT
        self.init = self._await_init(deadline)
        self._await_boot(deadline)
        self.run(["ip", "link", "set", "lo", "up"])
        # Debian's initramfs mounts /run noexec, nspawn does not.
        self.run(["mount", "-o", "remount,noexec", "/run"])
        if "noexec" not in self.run(["findmnt", "-n", "-o", "OPTIONS", "/run"]).stdout.split(","):
            raise Unavailable("cannot boot a lab: its /run stays executable")
        for volume in self._volumes:
            self._mount(volume)

    def _await_init(self, deadline: float) -> int:
        """nspawn's child that is number 1 in a namespace of its own (NSpid, proc_pid_status(5))."""
        assert self._nspawn is not None  # noqa: S101
        pid = self._nspawn.pid
        while time.monotonic() < deadline and self._nspawn.poll() is None:
            with contextlib.suppress(OSError):
                for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                    status = Path(f"/proc/{child}/status").read_text()
                    numbers = status.partition("NSpid:")[2].splitlines()[0].split()
                    if len(numbers) > 1 and numbers[-1] == "1":
                        return int(child)
            time.sleep(0.01)
        raise Unavailable(f"cannot boot a lab: {self._why_not()}")

    def _await_boot(self, deadline: float) -> None:
        assert self._nspawn is not None  # noqa: S101
        state = "no answer"
        while (left := deadline - time.monotonic()) > 0 and self._nspawn.poll() is None:
            if Path(f"/proc/{self.init}/root/run/systemd/private").exists():
                asked = ["systemctl", "is-system-running", "--wait"]
                with contextlib.suppress(subprocess.TimeoutExpired):
                    state = self.run(asked, check=False, timeout=left).stdout.strip() or state
                if state in ("running", "degraded"):
                    return
            time.sleep(0.02)
        raise Unavailable(f"cannot boot a lab: systemd says {state}; {self._why_not()}")

    def _why_not(self) -> str:
        code = self._nspawn.poll() if self._nspawn else None
        end = f"nspawn ended with {code}" if code is not None else "it took too long"
        return f"{end}; its console says:\n{_tail(self._directory / 'console.log')}"

    def reboot(self, *, crash: bool = False) -> None:
        """Stop the host and boot it again, with the same files. `crash`: as by a power cut."""
        self._stop(crash=crash)
        _empty_cgroups(self._cgroups)
        self._start()

    def _stop(self, *, crash: bool) -> None:
        nspawn = self._nspawn
        if nspawn is None or nspawn.poll() is not None:
            return
        if not crash:
            self.run(["systemctl", "poweroff", "--no-block"], check=False)
            with contextlib.suppress(subprocess.TimeoutExpired):
                nspawn.wait(STOP_LIMIT)
        if nspawn.poll() is None:
            # With its PID 1 the kernel ends everything in the host; nspawn then ends by itself.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.init or nspawn.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            nspawn.wait(STOP_LIMIT)

    def _end(self) -> None:
        try:
            self._stop(crash=True)
        finally:
            _discard(self._directory)
            for child in self._children:
                child.wait(STOP_LIMIT)
            if self._nspawn is not None:
                self._nspawn.wait(STOP_LIMIT)

    # What one does with it.

    def run(
        self,
        argv: Command,
        *,
        check: bool = True,
        timeout: float = 60.0,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the host to its end, as root, with an environment made from scratch.

        After `timeout` seconds it is ended with everything of its process group, and
        subprocess.TimeoutExpired is raised; an exit code other than 0 raises
        subprocess.CalledProcessError if `check`, with what it printed as a note.
        """
        limited = ["timeout", "--signal=KILL", f"{timeout:.3f}", *argv]
        begun = time.monotonic()
        with self._enter(
            limited,
            env,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process:
            try:
                out, err = process.communicate(input, timeout=timeout + 30)
            except BaseException:
                process.kill()
                raise
        if process.returncode and time.monotonic() - begun >= timeout:
            raise subprocess.TimeoutExpired(list(argv), timeout, out, err)
        done = subprocess.CompletedProcess(
            [str(word) for word in argv], process.returncode, out, err
        )
        if check and done.returncode != 0:
            error = subprocess.CalledProcessError(done.returncode, done.args, out, err)
            error.add_note(f"it printed:\n{out}{err}")
            raise error
        return done

    def popen(
        self, argv: Command, *, env: Mapping[str, str] | None = None, **options: Any
    ) -> LabProcess:
        """Start a command in the host; `options` are those of subprocess.Popen. Its end is the host's."""
        child = self._enter(argv, env, **options)
        self._children.append(child)
        return child

    def _enter(self, argv: Command, env: Mapping[str, str] | None, **options: Any) -> LabProcess:
        clean = {"PATH": PATH, "HOME": "/root", "USER": "root", "LANG": "C.UTF-8", "TERM": "dumb"}
        door = [shutil.which("nsenter", path=PATH) or "nsenter", "-t", str(self.init), "-a", "--"]
        return LabProcess([*door, *argv], env={**clean, **(env or {})}, **options)

    def copy_in(self, source: Path, target: str | Path) -> None:
        """Copy a file or directory of this machine to `target` in the host, owned by its root."""
        place = Path(target)

        def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
            member.uid = member.gid = 0
            member.uname = member.gname = "root"
            return None if "__pycache__" in member.name.split("/") else member

        self.run(["mkdir", "-p", place.parent])
        with tempfile.TemporaryFile() as spool:
            with tarfile.open(fileobj=spool, mode="w") as archive:
                archive.add(source, arcname=place.name, filter=plain)
            spool.seek(0)
            unpack = ["tar", "-x", "-p", "-f", "-", "-C", place.parent]
            with self._enter(unpack, None, stdin=spool, stderr=subprocess.PIPE) as process:
                _, err = process.communicate(timeout=300)
        if process.returncode != 0:
            raise Unavailable(f"cannot copy {source} into the lab: {err.decode().strip()}")

    def write(self, path: str | Path, text: str, mode: int = 0o644) -> None:
        """Write a file of the host, and the directories above it."""
        self.run(["install", "-D", "-m", f"{mode:o}", "/dev/stdin", path], input=text)

    def read(self, path: str | Path) -> str:
        """The text of a file of the host."""
        return self.run(["cat", "--", path]).stdout

    def wait_for(self, what: Command | Callable[[], Any], seconds: float = 60.0) -> Any:
        """Wait until a command in the host succeeds, or a callable returns something true.

        Returns that something (or the command's CompletedProcess). Raises TimeoutError after so
        many seconds, which is a limit against hanging and no measurement.
        """
        deadline = time.monotonic() + seconds
        while True:
            if callable(what):
                answer = what()
                if answer:
                    return answer
                last = repr(answer)
            else:
                done = self.run(what, check=False)
                if done.returncode == 0:
                    return done
                last = f"exit code {done.returncode}: {(done.stdout + done.stderr).strip()}"
            if time.monotonic() > deadline:
                name = getattr(what, "__name__", "condition") if callable(what) else what
                raise TimeoutError(f"{name} did not come true in {seconds:g} s; at last {last}")
            time.sleep(0.05)

    def volume(self, path: str | Path, size: str, fs: Literal["ext4", "tmpfs"] = "ext4") -> None:
        """Mount a new, empty file system of this size (`64M`) in the host; it lives until the end.

        ext4 lies on a loop device and, as everywhere, keeps 5 % for root.
        """
        device = None
        if fs == "ext4":
            image = self._directory / "disk/volumes" / f"{len(self._volumes)}.img"
            _machine(["truncate", f"--size={size}", image])
            device = _machine(["losetup", "--find", "--show", image]).strip()
        options = "defaults" if device else f"size={size},mode=0755"
        volume = _Volume(path=str(path), device=device, options=options)
        if device:
            self._make_node(device)
            # Nothing is left to a kernel thread: free space stays what it is.
            eager = "lazy_itable_init=0,lazy_journal_init=0"
            self.run(["mkfs.ext4", "-q", "-F", "-E", eager, device])
        self._mount(volume)
        self._volumes.append(volume)

    def _make_node(self, device: str) -> None:
        """Give the host the node of a loop device; its /dev is its own, not the machine's."""
        number = os.stat(device).st_rdev
        major, minor = str(os.major(number)), str(os.minor(number))
        self.run(["rm", "-f", device])
        self.run(["mknod", "-m", "0660", device, "b", major, minor])

    def _mount(self, volume: _Volume) -> None:
        self.run(["mkdir", "-p", volume.path])
        kind = "ext4" if volume.device else "tmpfs"
        if volume.device:
            self._make_node(volume.device)
        source = volume.device or "tmpfs"
        self.run(["mount", "-t", kind, "-o", volume.options, source, volume.path])


# -------------------------------------------------------------------------------------- for people


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m agent.lab`: returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m agent.lab", description="A throw-away host.")
    parser.add_argument("--package", action="append", default=[], help="one more Debian package")
    orders = parser.add_subparsers(dest="order", required=True)
    orders.add_parser("build", help="build the tree, if it is not in the cache, and print its path")
    orders.add_parser("boot", help="boot a host, say how to enter it, and wait for Ctrl-C")
    orders.add_parser("shell", help="boot a host and open a shell in it")
    run = orders.add_parser("run", help="boot a host, run a command in it, return its exit code")
    run.add_argument("command", nargs="+", metavar="-- COMMAND")
    chosen = parser.parse_args(arguments)
    try:
        tree = build(packages=chosen.package)
        if chosen.order == "build":
            sys.stdout.write(f"{tree}\n")
            return 0
        begun = time.monotonic()
        with Lab.boot(tree) as lab:
            say(f"{lab.name} is up after {time.monotonic() - begun:.1f} s")
            if chosen.order == "boot":
                say(f"enter it with: nsenter -t {lab.init} -a bash")
                signal.pause()
            argv = chosen.command if chosen.order == "run" else ["bash", "-l"]
            terminal = {"TERM": os.environ.get("TERM", "dumb")}
            return lab.popen(argv, env=terminal).wait()
    except Unavailable as error:
        say(str(error))
    except KeyboardInterrupt:
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main())
