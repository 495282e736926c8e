"""The sockets that the server listens on, and who is at the other end of one."""

from __future__ import annotations

import grp
import os
import shutil
import socket
import stat
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agent.errors import Unavailable
from api.addresses import name_client
from api.auth import UnixPeer

#: How long a client on the network may leave unread what was sent to it, or be gone (tcp(7)): an
#: answer that nobody reads would hold its connection for ever.
UNREAD_SECONDS = 60.0
#: Longest wait for a listener that may be dead, in seconds.
_PROBE_SECONDS = 2.0


@dataclass(frozen=True)
class UnixListener:
    """A listening UNIX socket and the file that is its name."""

    socket: socket.socket
    path: Path
    device: int
    inode: int

    def remove(self) -> None:
        """Takes the file away, unless it is another agent's by now."""
        try:
            found = self.path.lstat()
        except OSError:
            return
        if (found.st_dev, found.st_ino) == (self.device, self.inode):
            self.path.unlink(missing_ok=True)


def open_unix_socket(path: Path, *, group: str | None = None) -> UnixListener:
    """Listens at `path`: for its owner alone, or for a group of this host too.

    The file of an agent that died is replaced; one that answers is left alone. Raises Unavailable.
    """
    try:
        _make_directory(path.parent, group)
        _refuse_living(path)
        return _bind(path, group)
    except OSError as error:
        raise Unavailable(f"cannot listen at {path}: {error.strerror or error}") from error


def _make_directory(directory: Path, group: str | None) -> None:
    if directory.is_dir():
        return
    directory.mkdir(mode=0o700, parents=True)
    if group is not None:
        shutil.chown(directory, group=group)
        directory.chmod(0o750)


def _refuse_living(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Unavailable(f"cannot listen at {path}: it is something else; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except (TimeoutError, BlockingIOError):
            who = "another agent"  # its queue is full: it is alive, if not well
        else:
            who = f"another agent (process {read_unix_peer(probe).pid})"
    raise Unavailable(
        f"cannot listen at {path}: {who} answers there; stop it first, or set HOSTMEND_RUNTIME_DIR"
    )


def _bind(path: Path, group: str | None) -> UnixListener:
    """Binds beside `path` and renames, so that the name never leads to nobody.

    The mode is set before bind(2): Linux makes the file with the mode of the socket's own inode, so
    it is never wider than this, and the umask of a process with threads stays alone.
    """
    beside = path.with_name(f".{os.getpid()}.sock")
    beside.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(os.fspath(beside))
        if group is not None:
            shutil.chown(beside, group=_find_group(group))
            beside.chmod(0o660)
        listener.listen(128)
        listener.setblocking(False)
        made = beside.lstat()
        beside.rename(path)
    except BaseException:
        listener.close()
        beside.unlink(missing_ok=True)
        raise
    return UnixListener(listener, path, made.st_dev, made.st_ino)


def _find_group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise Unavailable(
            f"cannot give the socket to group {name}: there is no such group"
        ) from None


class _Counted(socket.socket):
    """A connection that says when it is closed."""

    def __init__(self, fileno: int, on_close: Callable[[], None]) -> None:
        super().__init__(fileno=fileno)
        self._on_close: Callable[[], None] | None = on_close

    def close(self) -> None:
        on_close, self._on_close = self._on_close, None
        super().close()
        if on_close is not None:
            on_close()


class TcpListener(socket.socket):
    """Takes a limited number of connections at once, and closes the others at once.

    It counts when they are taken, before TLS: whoever opens connections and says nothing must not
    use up the descriptors with which the agent repairs this host.
    """

    def __init__(self, family: int, *, at_most: int = 200, each: int = 100) -> None:
        """`each`: connections of one client, `api.addresses.name_client`."""
        super().__init__(family, socket.SOCK_STREAM)
        self._at_most = at_most
        self._each = each
        self._open: Counter[str] = Counter()

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection that is within the limits. Raises what accept(2) says."""
        while True:
            connection, address = super().accept()
            client = name_client(str(address[0]))
            if self._open.total() < self._at_most and self._open[client] < self._each:
                timeout = int(UNREAD_SECONDS * 1000)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout)
                self._open[client] += 1
                return _Counted(connection.detach(), partial(self._release, client)), address
            connection.close()

    def _release(self, client: str) -> None:
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]


def open_tcp_socket(address: tuple[str, int]) -> TcpListener:
    """Listens on an address of this host, given as numbers or `localhost`. Raises Unavailable."""
    host, port = address
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | _numeric(host)
        )
        family, _, _, _, where = found[0]
        listener = TcpListener(family)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(where)
            listener.listen(128)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise Unavailable(
            f"cannot listen on {shown}: {error.strerror or error}; "
            "set HOSTMEND_LISTEN to another address"
        ) from error
    return listener


def _numeric(host: str) -> int:
    """No name server is asked: it may be what is broken."""
    return 0 if host == "localhost" else socket.AI_NUMERICHOST


def read_unix_peer(connection: socket.socket) -> UnixPeer:
    """The process at the other end, as it was at connect(2) (SO_PEERCRED, unix(7))."""
    size = struct.calcsize("3i")
    given = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid, uid, gid = struct.unpack("3i", given)
    # uid_t and gid_t are unsigned.
    return UnixPeer(pid=pid, uid=uid & 0xFFFFFFFF, gid=gid & 0xFFFFFFFF)
