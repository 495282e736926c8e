"""PostgreSQL clusters as Debian's packages keep them: where each has its files, by its unit.

Sources: pg_ctlcluster(1), pg_createcluster(1), and PgCommon.pm of postgresql-common.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

#: Where the clusters are configured: `15/main/postgresql.conf`.
CONFIGURED = Path("/etc/postgresql")

_UNIT = re.compile(r"postgresql@(?P<version>[0-9][0-9.]*)-(?P<name>[^@/]+)\.service")
#: `port = 5433    # comment`, of which the equals sign may be left out.
_SETTING = re.compile(r"^\s*(?P<name>\w+)\s*(?:=\s*|\s)(?P<value>'(?:[^'\n]|'')*'|[^\s#']+)", re.M)
#: Most bytes that are read of one file.
_MOST_BYTES = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """One cluster: a server with its data directory."""

    version: str
    name: str
    directory: str
    #: The file of its socket.
    socket: str
    #: The file that Debian's units let it log to.
    log: str

    @property
    def unit(self) -> str:
        return f"postgresql@{self.version}-{self.name}.service"


def find_cluster(unit: str, configured: Path = CONFIGURED) -> Cluster | None:
    """The cluster that a unit of Debian's runs; None for other units, and without its files."""
    match = _UNIT.fullmatch(unit)
    if match is None:
        return None
    version, name = match["version"], match["name"]
    home = configured / version / name
    settings = _read_settings(home)
    if settings is None:
        return None
    sockets = settings.get("unix_socket_directories", "").split(",")[0].strip()
    log = home / "log"
    return Cluster(
        version=version,
        name=name,
        directory=settings.get("data_directory") or f"/var/lib/postgresql/{version}/{name}",
        socket=f"{sockets or '/var/run/postgresql'}/.s.PGSQL.{settings.get('port') or 5432}",
        log=str(
            log.resolve()
            if log.is_symlink()
            else f"/var/log/postgresql/postgresql-{version}-{name}.log"
        ),
    )


def list_clusters(configured: Path = CONFIGURED) -> tuple[Cluster, ...]:
    """The clusters of this host, however they are."""
    homes = sorted(file.parent for file in configured.glob("*/*/postgresql.conf"))
    units = [f"postgresql@{home.parent.name}-{home.name}.service" for home in homes]
    found = (find_cluster(unit, configured) for unit in units)
    return tuple(cluster for cluster in found if cluster is not None)


def _read_settings(home: Path) -> dict[str, str] | None:
    """What the configuration sets, the last word on each; None: it cannot be read."""
    try:
        files = [home / "postgresql.conf", *sorted((home / "conf.d").glob("*.conf"))]
        settings: dict[str, str] = {}
        for file in files:
            with file.open(errors="replace") as opened:
                settings.update(read_settings(opened.read(_MOST_BYTES)))
    except OSError:
        return None
    return settings


def read_settings(text: str) -> dict[str, str]:
    """The settings of one file (postgresql.conf(5)'s syntax), names in small letters."""
    found = {}
    for match in _SETTING.finditer(text):
        value = match["value"]
        if value.startswith("'"):
            value = value[1:-1].replace("''", "'")
        found[match["name"].lower()] = value
    return found
