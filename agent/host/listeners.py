"""Who listens on this host: TCP ports and UNIX sockets, and their programs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A place where a program of this host takes connections."""

    #: Empty for a UNIX socket.
    address: str = ""
    port: int = 0
    #: Empty for TCP.
    path: str = ""
    #: Empty where this user may not know.
    program: str = ""
    pid: int | None = None

    @property
    def reachable(self) -> str:
        """An address to reach it by from this host."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.address, self.address)  # noqa: S104


def find_listeners() -> tuple[Listener, ...]:
    """Those of this network namespace, by port. Blocks for as long as reading /proc takes."""
    # Here: it is needed now and then, and nothing else needs it.
    import psutil

    found = []
    for row in psutil.net_connections("tcp"):
        if row.status == psutil.CONN_LISTEN and row.laddr:
            found.append(
                Listener(
                    address=row.laddr.ip,
                    port=row.laddr.port,
                    program=_name(row.pid),
                    pid=row.pid,
                )
            )
    return tuple(sorted(set(found), key=lambda each: (each.port, each.address)))


def find_sockets() -> tuple[Listener, ...]:
    """UNIX sockets that have a path and take connections, by path. Blocks likewise."""
    import psutil

    held = {str(row.laddr): row.pid for row in psutil.net_connections("unix") if row.pid}
    found = []
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:  # noqa: PTH123
        for line in table:
            # Num RefCount Protocol Flags Type St Inode Path (proc_net_unix(5)): __SO_ACCEPTCON.
            parts = line.split(None, 7)
            if len(parts) == 8 and parts[3] == "00010000" and parts[4] == "0001":
                path = parts[7].rstrip("\n")
                if path.startswith("/"):
                    pid = held.get(path)
                    found.append(Listener(path=path, program=_name(pid), pid=pid))
    return tuple(sorted(set(found), key=lambda each: each.path))


def _name(pid: int | None) -> str:
    import psutil

    if pid is None:
        return ""
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return ""
