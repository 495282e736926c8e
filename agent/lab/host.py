"""A booted host: how it comes up, what one does with it, how it ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import tarfile
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agent.errors import Unavailable
from agent.host.cgroups import own_cgroups
from agent.lab.cgroups import empty_cgroups, make_cgroup
from agent.lab.machine import PATH, Command, default_cache, execute, require_lab, tail
from agent.lab.remains import discard, new_name, sweep
from agent.lab.tree import VENV, build, source_root

#: Seconds. Limits against hanging, far from what is usual (0.3 s and 1 s).
BOOT_LIMIT = 180.0
STOP_LIMIT = 120.0

#: nspawn has no option for it: the process that becomes nspawn joins the cgroups first.
_JOIN = (
    'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit 125; shift; done; shift; exec "$@"'
)


class LabProcess(subprocess.Popen[Any]):
    """A command in a host. Signals reach the command itself, not the nsenter it came in by."""

    @property
    def inner_pid(self) -> int | None:
        """The command's number as this machine counts; None before it begins and after its end."""
        try:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def send_signal(self, sig: int) -> None:
        """Send a signal to the command; nothing if it has ended."""
        deadline = time.monotonic() + 10
        while self.poll() is None and time.monotonic() < deadline:
            if (pid := self.inner_pid) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sig)
                return
            time.sleep(0.005)


@dataclass(frozen=True, kw_only=True)
class _Volume:
    path: str
    #: The loop device of an ext4; None for a tmpfs.
    device: str | None
    options: str


class Lab:
    """A booted host. Made by `Lab.boot`, gone with the end of its `with`."""

    def __init__(self, directory: Path, *, hostname: str) -> None:
        self.name = directory.name
        self.hostname = hostname
        #: The root of its file system as this machine sees it, without what the host mounts on it
        #: (/run, /tmp, volumes). Symbolic links in it would lead out into this machine: for single
        #: files there are `read` and `write`, which go through the host.
        self.path = directory / "root"
        #: Its PID 1, as this machine counts.
        self.init = 0
        self._directory = directory
        self._cgroups = [parent / self.name for parent in own_cgroups()]
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._volumes: list[_Volume] = []
        self._commands: list[LabProcess] = []

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
        """Boot a throw-away host, and end it with the block, however that ends.

        `tree`: what `build` returned (default: it is called). `machine_id`: 32 hexadecimal digits
        (default: new ones). `size`: how much the host may write, as tmpfs(5) takes it. `code`: the
        directory whose `agent/`, `api/` and `playbooks/` the host's hostmend is made of (default:
        the one this module is from). Sweeps first. Raises Unavailable if it does not come up.
        """
        require_lab("boot a lab")
        cache = cache or default_cache()
        sweep(cache)
        tree = tree or build(cache)
        lab = cls(cache / "hosts" / new_name(), hostname=hostname)
        with _unwinding_when_terminated():
            try:
                lab._assemble(tree, size)
                lab._furnish(machine_id or uuid.uuid4().hex, code or source_root())
                lab._start()
                yield lab
            finally:
                lab._end()

    def run(
        self,
        argv: Command,
        *,
        check: bool = True,
        timeout: float = 60.0,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the host to its end, as root, in an environment made from scratch.

        After `timeout` seconds it and its process group are killed and subprocess.TimeoutExpired is
        raised. With `check`, an exit code other than 0 raises subprocess.CalledProcessError, with
        what was printed as a note.
        """
        begun = time.monotonic()
        # Limited inside: from outside only nsenter would be killed, and not what it started.
        with self.popen(
            ["timeout", "--signal=KILL", f"{timeout:.3f}", *argv],
            env=env,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        ) as process:
            try:
                out, err = process.communicate(input, timeout=timeout + 30)
            except BaseException:
                process.kill()
                raise
        words = [str(word) for word in argv]
        if process.returncode != 0 and time.monotonic() - begun >= timeout:
            raise subprocess.TimeoutExpired(words, timeout, out, err)
        if check and process.returncode != 0:
            error = subprocess.CalledProcessError(process.returncode, words, out, err)
            error.add_note(f"it printed:\n{out}{err}")
            raise error
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def popen(
        self, argv: Command, *, env: Mapping[str, str] | None = None, **options: Any
    ) -> LabProcess:
        """Start a command in the host, as `run` does; `options` are those of subprocess.Popen.

        The command ends with the host at the latest.
        """
        clean = {"PATH": PATH, "HOME": "/root", "USER": "root", "LANG": "C.UTF-8", "TERM": "dumb"}
        door = [shutil.which("nsenter", path=PATH) or "nsenter", "-t", str(self.init), "-a", "--"]
        process = LabProcess([*door, *argv], env={**clean, **(env or {})}, **options)
        self._commands = [each for each in self._commands if each.returncode is None]
        self._commands.append(process)
        return process

    def copy_in(self, source: Path, target: str | Path) -> None:
        """Copy a file or a directory of this machine to `target` in the host, owned by its root."""
        place = Path(target)

        def owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
            member.uid = member.gid = 0
            member.uname = member.gname = "root"
            return None if "__pycache__" in member.name.split("/") else member

        self.run(["mkdir", "-p", place.parent])
        with tempfile.TemporaryFile() as spool:
            with tarfile.open(fileobj=spool, mode="w") as archive:
                archive.add(source, arcname=place.name, filter=owned_by_root)
            spool.seek(0)
            unpack = ["tar", "-xp", "-C", str(place.parent), "-f", "-"]
            with self.popen(unpack, stdin=spool, stderr=subprocess.PIPE) as process:
                _, err = process.communicate()
        if process.returncode != 0:
            raise Unavailable(f"cannot copy {source} into the lab: {err.decode().strip()}")

    def write(self, path: str | Path, text: str, mode: int = 0o644) -> None:
        """Write a file of the host, and make the directories above it."""
        self.run(["install", "-D", "-m", f"{mode:o}", "/dev/stdin", path], input=text)

    def read(self, path: str | Path) -> str:
        """The text of a file of the host."""
        return self.run(["cat", "--", path]).stdout

    def wait_for(self, what: Command | Callable[[], Any], seconds: float = 60.0) -> Any:
        """Wait for a command in the host to succeed or a callable to return something true.

        Returns what that was: the CompletedProcess, or the callable's answer. Raises TimeoutError
        after `seconds`, which guard against hanging and measure nothing.
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
                raise TimeoutError(f"{what} did not come true in {seconds:g} s; at last: {last}")
            time.sleep(0.05)

    def volume(self, path: str | Path, size: str, fs: Literal["ext4", "tmpfs"] = "ext4") -> None:
        """Mount a new, empty file system of this size ("64M") in the host, for as long as it lives.

        ext4 lies on a loop device and, as everywhere, keeps 5 % for root.
        """
        device = None
        if fs == "ext4":
            image = self._directory / "disk/volumes" / f"{len(self._volumes)}.img"
            execute(["truncate", f"--size={size}", image])
            device = execute(["losetup", "--find", "--show", image]).strip()
            self._make_node(device)
            # At once, where else a kernel thread would go on writing in the background.
            at_once = "lazy_itable_init=0,lazy_journal_init=0"
            self.run(["mkfs.ext4", "-q", "-F", "-E", at_once, device])
        options = "defaults" if device else f"size={size},mode=0755"
        volume = _Volume(path=str(path), device=device, options=options)
        self._mount(volume)
        self._volumes.append(volume)

    def reboot(self, *, crash: bool = False) -> None:
        """Stop the host and boot it again with the same files; `crash`: as by a power cut.

        Commands that run in it end. Raises Unavailable if it does not come up.
        """
        self._stop(crash=crash)
        empty_cgroups(self._cgroups)
        self._start()

    def _assemble(self, tree: Path, size: str) -> None:
        self._directory.mkdir()
        listed = "".join(f"{cgroup}\n" for cgroup in self._cgroups)
        (self._directory / "cgroups").write_text(listed)
        disk = self._directory / "disk"
        for place in (disk, self.path):
            place.mkdir()
        execute(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", self.name, disk])
        for name in ("upper", "work", "volumes"):
            (disk / name).mkdir(mode=0o755)
        layers = f"lowerdir={tree},upperdir={disk}/upper,workdir={disk}/work"
        try:
            execute(["mount", "-t", "overlay", "-o", layers, self.name, self.path])
        except Unavailable:
            # No overlayfs, or not on top of the file system of the cache: slower, else the same.
            execute(["cp", "-a", "--reflink=auto", f"{tree}/.", self.path])

    def _furnish(self, machine_id: str, code: Path) -> None:
        """What differs from the tree, written before the boot while nothing in it can be a trap."""
        self._place("etc/machine-id", f"{machine_id}\n", 0o444)
        self._place("etc/hostname", f"{self.hostname}\n")
        self._place("etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {self.hostname}\n::1 localhost\n")
        (packages,) = (self.path / VENV / "lib").glob("python3.*/site-packages")
        for part in ("agent", "api", "playbooks"):
            if (code / part).is_dir():
                leave = shutil.ignore_patterns("__pycache__")
                shutil.copytree(code / part, packages / part, symlinks=True, ignore=leave)
                _give_to_root(packages / part)
        call = "import sys\n\nfrom api.cli.main import main\n\nsys.exit(main())\n"
        self._place(f"{VENV}/bin/hostmend", f"#!/{VENV}/bin/python -P\n{call}", 0o755)
        (self.path / "usr/local/bin/hostmend").symlink_to(f"/{VENV}/bin/hostmend")

    def _place(self, name: str, text: str, mode: int = 0o644) -> None:
        file = self.path / name
        file.unlink(missing_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def _start(self) -> None:
        for cgroup in self._cgroups:
            make_cgroup(cgroup)
        argv = ["sh", "-c", _JOIN, "sh", *map(str, self._cgroups), "--"]
        argv += ["systemd-nspawn", "--quiet", "--boot", "-D", str(self.path), "-M", self.name]
        argv += [f"--hostname={self.hostname}", "--register=no", "--keep-unit", "--private-network"]
        argv += ["--link-journal=no", "--resolv-conf=off", "--timezone=off", "--console=read-only"]
        with (self._directory / "console.log").open("wb") as console:
            self._nspawn = subprocess.Popen(
                argv,
                env={"PATH": PATH, "LC_ALL": "C.UTF-8", "SYSTEMD_NSPAWN_LOCK": "0"},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        deadline = time.monotonic() + BOOT_LIMIT
        self.init = self._await_init(self._nspawn, deadline)
        self._await_boot(self._nspawn, deadline)
        self.run(["ip", "link", "set", "lo", "up"])
        # As on real hosts, where Debian's initramfs does it and nspawn does not.
        self.run(["mount", "-o", "remount,noexec", "/run"])
        if "noexec" not in self.run(["findmnt", "-no", "OPTIONS", "/run"]).stdout.split(","):
            raise Unavailable("cannot boot a lab: its /run cannot be made noexec")
        for volume in self._volumes:
            self._mount(volume)

    def _await_init(self, nspawn: subprocess.Popen[bytes], deadline: float) -> int:
        """nspawn's child that is number 1 in a namespace of its own (NSpid, proc_pid_status(5))."""
        children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")
        while time.monotonic() < deadline and nspawn.poll() is None:
            with contextlib.suppress(OSError):
                for child in children.read_text().split():
                    status = Path(f"/proc/{child}/status").read_text()
                    numbers = status.partition("NSpid:")[2].partition("\n")[0].split()
                    if len(numbers) > 1 and numbers[-1] == "1":
                        return int(child)
            time.sleep(0.01)
        raise self._no_boot(nspawn, "it has no first process")

    def _await_boot(self, nspawn: subprocess.Popen[bytes], deadline: float) -> None:
        state = "does not answer"
        door = Path(f"/proc/{self.init}/root/run/systemd/private")
        while (left := deadline - time.monotonic()) > 0 and nspawn.poll() is None:
            if door.exists():
                asked = ["systemctl", "is-system-running", "--wait"]
                with contextlib.suppress(subprocess.TimeoutExpired):
                    state = self.run(asked, check=False, timeout=left).stdout.strip() or state
                if state in ("running", "degraded"):
                    return
            time.sleep(0.02)
        raise self._no_boot(nspawn, f"its systemd: {state}")

    def _no_boot(self, nspawn: subprocess.Popen[bytes], why: str) -> Unavailable:
        code = nspawn.poll()
        end = f"after {BOOT_LIMIT:g} s" if code is None else f"nspawn ended with {code}"
        console = tail(self._directory / "console.log")
        return Unavailable(f"cannot boot a lab: {why}; {end}; its console:\n{console}")

    def _make_node(self, device: str) -> None:
        """A loop device's node in the host's own /dev, which is not this machine's."""
        number = Path(device).stat().st_rdev
        self.run(["rm", "-f", device])
        numbers = [str(os.major(number)), str(os.minor(number))]
        self.run(["mknod", "-m", "0660", device, "b", *numbers])

    def _mount(self, volume: _Volume) -> None:
        if volume.device:
            self._make_node(volume.device)
        self.run(["mkdir", "-p", volume.path])
        kind, source = ("ext4", volume.device) if volume.device else ("tmpfs", "tmpfs")
        self.run(["mount", "-t", kind, "-o", volume.options, source, volume.path])

    def _stop(self, *, crash: bool) -> None:
        nspawn = self._nspawn
        if nspawn is None or nspawn.poll() is not None:
            return
        if not crash:
            self.run(["systemctl", "poweroff", "--no-block"], check=False)
            with contextlib.suppress(subprocess.TimeoutExpired):
                nspawn.wait(STOP_LIMIT)
        if nspawn.poll() is None:
            # With its PID 1 the kernel ends all that is in the host; nspawn follows.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.init or nspawn.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                nspawn.wait(STOP_LIMIT)

    def _end(self) -> None:
        try:
            self._stop(crash=True)
        finally:
            discard(self._directory)
            if self._nspawn is not None:
                self._nspawn.wait(STOP_LIMIT)
            for process in self._commands:
                process.wait(STOP_LIMIT)


def _give_to_root(directory: Path) -> None:
    """Nobody else owns it or may write to it: hostmend refuses remedies of which that is not so."""
    for file in [directory, *directory.rglob("*")]:
        os.chown(file, 0, 0, follow_symlinks=False)
        if not file.is_symlink():
            runs = file.is_dir() or file.stat().st_mode & stat.S_IXUSR
            file.chmod(0o755 if runs else 0o644)


@contextlib.contextmanager
def _unwinding_when_terminated() -> Iterator[None]:
    """Make SIGTERM, where nobody handles it, unwind as Ctrl-C does: else a host would be left."""
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
