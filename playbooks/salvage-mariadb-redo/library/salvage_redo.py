#!/usr/bin/python
"""Makes MariaDB's data directory anew from a dump of the old one, whose redo log is damaged.

Found out with MariaDB 10.11: with innodb_force_recovery=6 (and no less) a server reads its tables
without the redo log. After a stop in order all is in the tables. The dump, and the sums of all
tables before it, lie beside the copy; the new directory lies beside the old one until both are
exchanged in one step, and the old one is kept.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.data_directory import (
    RESERVE,
    Refused,
    Tree,
    make_environment,
    run,
    show_size,
    sync_directory,
    write_file,
)
from ansible.module_utils.mariadb_client import Client, quote_name
from ansible.module_utils.mariadb_server import Server

#: Longest that a server of this remedy may take to start or to end, in seconds.
PATIENCE = 600
#: Longest that a sum of all tables may take, in seconds.
LONG = 3 * 3600
#: What lies in a data directory beside databases and is made anew, or is not needed any more.
KNOWN = re.compile(
    r"ibdata\d+|ib_logfile\d+|ib_buffer_pool|ibtmp\d+|undo\d+|aria_log_control|aria_log\.\d+"
    r"|multi-master\.info|(mysql|mariadb)_upgrade_info|debian-[\d.]+\.flag|ddl_recovery.*\.log"
    r"|tc\.log|.+\.(pid|err|sock)"
)
#: Engines whose tables a dump holds as a whole.
ENGINES = ("InnoDB", "Aria", "MyISAM", "CSV", "MEMORY", "MRG_MyISAM")
#: Of the server's own tables those that say what people have made; others change by themselves.
OWN = ("global_priv", "db", "tables_priv", "columns_priv", "procs_priv", "proxies_priv", "proc")
OWN += ("roles_mapping", "func", "servers")
#: Tables that note when a row was made: what is to be the same of these.
COLUMNS = {
    "`mysql`.`proc`": "db, name, type, param_list, `returns`, body, definer, sql_mode,"
    " security_type, is_deterministic, sql_data_access, comment",
    "`sys`.`sys_config`": "variable, value",
}


class Private:
    """A server that only this remedy reaches, on a data directory."""

    def __init__(self, server, directory, *options):
        self.server, self.directory, self.options = server, directory, options

    def __enter__(self):
        user = self.server.user
        # In /run: short enough for a socket, and gone with the next boot.
        self.place = tempfile.mkdtemp(prefix="hostmend-salvage-", dir="/run")
        shutil.chown(self.place, user, user)
        socket = os.path.join(self.place, "socket")
        self.client = Client(user, socket)
        self.log = os.path.join(self.place, "log")
        own = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"]
        argv = [
            *own, "mariadbd", f"--datadir={self.directory}", f"--socket={socket}",
            f"--pid-file={self.place}/pid", f"--log-error={self.log}", "--skip-networking",
            "--skip-log-bin", "--skip-slave-start", "--event-scheduler=OFF", *self.options,
        ]  # fmt: skip
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=make_environment(self.server.settings.get("tmpdir") or "/var/tmp"),
        )
        try:
            self._await()
        except BaseException:
            self._end()
            raise
        return self.client

    def _await(self):
        until = time.monotonic() + PATIENCE
        while True:
            if self.process.poll() is not None:
                raise Refused(f"a server of the remedy's own does not start: {self._last_error()}")
            try:
                self.client.ask("SELECT 1", seconds=10)
            except Refused as error:
                if time.monotonic() > until:
                    raise Refused(
                        f"a server of the remedy's own gives no answer: {error}"
                    ) from None
                time.sleep(0.2)
            else:
                return

    def _last_error(self):
        try:
            with open(self.log, encoding="utf-8", errors="replace") as file:
                errors = [line.strip() for line in file if "[ERROR]" in line]
        except OSError:
            errors = []
        return errors[0][:300] if errors else f"exit code {self.process.returncode}"

    def __exit__(self, kind, _error, _trace):
        code = self._end()
        if kind is None and code != 0:
            raise Refused(f"a server of the remedy's own ended with {code}")

    def _end(self):
        self.process.terminate()
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        shutil.rmtree(self.place, ignore_errors=True)
        return code


def check_gates(server, given):
    """Raises Refused where a row may be lost, or where there is more than a dump holds."""
    if not given["clean"]:
        raise Refused(
            "what is only in the redo log would be lost: of the server's last end, "
            f"{given['why']}. Nothing was changed"
        )
    if not given["place"]:
        raise Refused(given["no_place"] or "there is no copy of its data")
    if os.path.ismount(server.directory):
        raise Refused(f"{server.directory} is a mount point, so that no other can take its place")
    if server.log_base and os.path.dirname(server.log_base) == server.directory:
        raise Refused("its binary logs lie in its data directory, which a dump does not hold")
    for name in sorted(os.listdir(server.directory)):
        path = os.path.join(server.directory, name)
        if not os.path.isdir(path) and not KNOWN.fullmatch(name):
            raise Refused(f"{path} is nothing that a dump holds: move it elsewhere, or it is lost")
    size = Tree(server.directory).bytes
    for place in (given["place"], os.path.dirname(server.directory)):
        told = os.statvfs(place)
        free = told.f_bavail * told.f_frsize
        if free < 1.1 * size + RESERVE * told.f_blocks * told.f_frsize:
            raise Refused(f"{show_size(int(1.1 * size))} are needed in {place} as well")


def list_tables(client):
    """All tables with rows of people's, `schema`.`table`."""
    rows = client.ask(
        "SELECT HEX(TABLE_SCHEMA), HEX(TABLE_NAME), TABLE_TYPE, IFNULL(ENGINE, '')"
        " FROM information_schema.TABLES"
        " WHERE TABLE_SCHEMA NOT IN ('information_schema', 'performance_schema')"
        " AND TABLE_TYPE NOT LIKE '%VIEW' AND TABLE_TYPE <> 'SEQUENCE'"
    )
    found = []
    for schema, table, kind, engine in rows:
        schema, table = (bytes.fromhex(each).decode() for each in (schema, table))
        if schema == "mysql" and table not in OWN:
            continue
        if kind != "BASE TABLE" or engine not in ENGINES:
            raise Refused(f"{schema}.{table} ({kind}, {engine}) is nothing that a dump holds whole")
        found.append(f"{quote_name(schema)}.{quote_name(table)}")
    return sorted(found)


def take_sums(client):
    """The sum of each table's rows and their number, by its name."""
    sums = {}
    for name in list_tables(client):
        statement = f"SELECT COUNT(*) FROM {name}"  # noqa: S608 - a quoted name
        ((count,),) = client.ask(statement, seconds=LONG)
        if columns := COLUMNS.get(name):
            words = f"SELECT SUM(CRC32(CONCAT_WS('|', {columns}))) FROM {name}"  # noqa: S608
            ((value,),) = client.ask(words) if int(count) else (("0",),)
        else:
            ((_, value),) = client.ask(f"CHECKSUM TABLE {name} EXTENDED", seconds=LONG)
        if value == "NULL":
            raise Refused(f"{name} cannot be read")
        sums[name] = [value, int(count)]
    return sums


def dump(server, given):
    """Writes a dump and the sums beside the copy."""
    path = os.path.join(given["place"], "dump.sql")
    with Private(server, server.directory, "--innodb-force-recovery=6") as client:
        sums = take_sums(client)
        argv = client.command(
            "mariadb-dump", "--all-databases", "--routines", "--events", "--triggers",
            "--flush-privileges", "--skip-lock-tables", "--hex-blob", "--max-allowed-packet=1G",
            "--default-character-set=utf8mb4",
        )  # fmt: skip
        with open(path, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                check=False,
            )
            os.fsync(file.fileno())
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - 200))
        whole = b"\n-- Dump completed" in file.read()
    if done.returncode != 0 or not whole:
        raise Refused(f"the dump is not whole: {done.stderr.strip()[:300] or 'it ends too soon'}")
    write_file(os.path.join(given["place"], "sums.json"), json.dumps(sums).encode())
    return (
        f"dumped {len(sums)} tables with {sum(count for _, count in sums.values())} rows to {path}"
    )


def name_new(server):
    return f"{server.directory}.hostmend-new"


def load(server, given):
    """Makes the new data directory, loads the dump, and compares all tables."""
    new = name_new(server)
    if os.path.lexists(new):
        shutil.rmtree(new)
    told = os.stat(server.directory)
    os.mkdir(new, 0o700)
    os.chown(new, told.st_uid, told.st_gid)
    os.chmod(new, told.st_mode & 0o7777)
    done = run(
        [
            "mariadb-install-db",
            f"--user={server.user}",
            f"--datadir={new}",
            "--auth-root-authentication-method=socket",
            "--skip-test-db",
        ],
        timeout=PATIENCE,
    )
    if done.returncode != 0:
        raise Refused(f"mariadb-install-db fails: {(done.stderr or done.stdout).strip()[-300:]}")
    with Private(server, new) as client:
        with open(os.path.join(given["place"], "dump.sql"), "rb") as file:
            argv = client.command("mariadb", "--binary-mode", "--max-allowed-packet=1G")
            loaded = subprocess.run(
                argv,
                stdin=file,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                check=False,
            )
        if loaded.returncode != 0:
            raise Refused(f"the dump cannot be loaded: {loaded.stderr.strip()[:300]}")
        client.ask("FLUSH PRIVILEGES")
        now = take_sums(client)
    with open(os.path.join(given["place"], "sums.json"), encoding="utf-8") as file:
        before = json.load(file)
    if now != before:
        names = [n for n in sorted(now.keys() | before.keys()) if now.get(n) != before.get(n)]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise Refused(f"not the same once they are loaded: {', '.join(names[:3])}{more}")
    count = sum(rows for _, rows in now.values())
    return f"{len(now)} tables with {count} rows are the same in a new data directory"


def exchange(server):
    """Puts the new directory in the old one's place, in one step, and keeps the old one."""
    new = name_new(server)
    libc = ctypes.CDLL(None, use_errno=True)
    at_cwd, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of renameat2(2)
    old = os.fsencode(server.directory)
    if libc.renameat2(at_cwd, os.fsencode(new), at_cwd, old, both) != 0:
        why = os.strerror(ctypes.get_errno())
        raise Refused(f"{new} cannot take the place of {server.directory}: {why}")
    kept = f"{server.directory}.before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    os.rename(new, kept)
    sync_directory(os.path.dirname(server.directory))
    return f"the old one is {kept}"


def main():
    module = AnsibleModule(
        argument_spec={
            "step": {"choices": ["dump", "load", "exchange"], "required": True},
            "unit": {"type": "str", "required": True},
            "clean": {"type": "bool", "required": True},
            "why": {"type": "str", "required": True},
            "place": {"type": "path", "required": True},
            "no_place": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        server = Server(given["unit"])
        if server.up:
            raise Refused(f"{given['unit']} is up again: somebody else is at work")
        if module.check_mode:
            if not given["clean"]:
                check_gates(server, given)
            module.exit_json(changed=True, msg=f"would {given['step']}")
        check_gates(server, given)
        if given["step"] == "dump":
            words = dump(server, given)
        elif given["step"] == "load":
            words = load(server, given)
        else:
            words = exchange(server)
    except (Refused, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, msg=words)


if __name__ == "__main__":
    main()
