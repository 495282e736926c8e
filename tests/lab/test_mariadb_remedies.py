"""The remedies for MariaDB where they must not act: gates, copies, and what is left untouched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_runs import PLAYBOOK, RUNTIME, find_playbooks, mend
from mariadb_host import CRASH, FRESH, SETUP, START

from agent.lab import Lab

pytestmark = pytest.mark.long

COPIES = "/srv/copies"
#: Everything in the data directory and the directory of the binary logs: contents, owners, modes.
STATE = """
cd /var/lib/mysql
{ find . /var/log/mysql -type f -exec sha256sum {} +; find . /var/log/mysql -printf '%p %u %g %m\\n'
} | sort
"""


class Server:
    """A server in a lab host, the remedies, and a place for copies."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def sh(self, script: str) -> str:
        return self.lab.run(["bash", "-ec", script.replace("$CRASH", CRASH)], timeout=120).stdout

    def mend(self, remedy: str, **given: Any) -> tuple[str, str]:
        given = {"unit": "mariadb.service", "copies": COPIES, **given}
        outcome, detail, _ = mend(self.lab, remedy, **given)
        return outcome, detail

    def state(self) -> str:
        return self.sh(STATE)

    def copies(self) -> list[str]:
        return self.sh(f"ls {COPIES}").split()


@pytest.fixture(scope="module")
def host(lab_tree: Path) -> Iterator[Lab]:
    with Lab.boot(lab_tree, size="3g") as lab:
        lab.run(["bash", "-ec", SETUP], timeout=180)
        yield lab


@pytest.fixture
def server(host: Lab) -> Iterator[Server]:
    """A server that was started and stopped in order, with no copy of it yet."""
    server = Server(host)
    place = f"mkdir -p {COPIES}; mount -t tmpfs -o size=300m,mode=0700 tmpfs {COPIES}"
    server.sh(f"{FRESH}{START}; systemctl stop mariadb; {place}")
    yield server
    server.sh(f"systemctl kill -s KILL mariadb || true; umount {COPIES}; rm -rf {RUNTIME}")


# repair-mariadb-aria

ARIA = "repair-mariadb-aria"
BREAK_CONTROL = "dd if=/dev/urandom of=/var/lib/mysql/aria_log_control bs=52 count=1 conv=notrunc; "
BREAK_LOG = (
    "dd if=/dev/urandom of=/var/lib/mysql/aria_log.00000001 bs=16384 seek=1 count=100 conv=notrunc;"
)
TRY = "systemctl start mariadb || true"


@pytest.mark.parametrize("damage", [BREAK_CONTROL, BREAK_LOG], ids=["control", "log"])
def test_aria_tables_are_left_to_a_human_after_a_crash(server: Server, damage: str) -> None:
    server.sh(
        f"{START}; mariadb shop -e 'INSERT INTO a SELECT seq, MD5(seq) FROM seq_1001_to_3000'"
        f"\n$CRASH\n{damage}{TRY}"
    )
    before = server.state()
    outcome, detail = server.mend(ARIA)
    assert outcome == "needs_human"
    assert "may lose acknowledged rows of shop/a.MAI" in detail
    assert "it crashed or was killed" in detail
    (place,) = server.copies()
    assert f"{COPIES}/{place}" in detail
    assert "aria_chk --ignore-control-file -r" in detail
    assert server.state() == before
    server.sh(f"cd {COPIES}/{place}; sha256sum --quiet -c SHA256SUMS; diff -r data /var/lib/mysql")
    # Tried again, there is still one copy, which is named again.
    outcome, detail = server.mend(ARIA)
    assert (outcome, server.copies()) == ("needs_human", [place])
    assert f"{COPIES}/{place}" in detail
    assert server.state() == before


def test_aria_tables_are_left_alone_where_no_copy_can_be_made(server: Server) -> None:
    server.sh(BREAK_CONTROL + TRY)
    before = server.state()
    for prepare, given, why in (
        ("", {"copies": "/root"}, "same filesystem"),
        ("", {"copies": "/srv/nowhere"}, "make it"),
        ("", {"copy_limit_gb": 0.001}, "copying it would be an outage of its own"),
        (f"ln -sfn {COPIES} /srv/link", {"copies": "/srv/link"}, "reached by a link"),
        (f"mount -o remount,size=1m {COPIES}", {}, "no room for a copy"),
        (f"mount -o remount,size=300m {COPIES}; chmod 777 {COPIES}", {}, "others than root"),
        (f"chmod 700 {COPIES}; ln -s /root /var/lib/mysql/shop/out", {}, "is a link to /root"),
    ):
        server.sh(prepare or "true")
        outcome, detail = server.mend(ARIA, **given)
        assert outcome == "needs_human", detail
        assert why in detail
    server.sh("rm /var/lib/mysql/shop/out")
    assert (server.state(), server.copies()) == (before, [])


def test_aria_tables_are_left_alone_while_anybody_uses_them(server: Server) -> None:
    server.sh(BREAK_CONTROL + TRY)
    before = server.state()
    with server.lab.popen(["sh", "-c", "cd /var/lib/mysql; exec sleep 600"]) as sleeper:
        server.lab.wait_for(["sh", "-c", "ls -l /proc/[0-9]*/cwd | grep -q /var/lib/mysql"])
        outcome, detail = server.mend(ARIA)
        sleeper.kill()
    assert outcome == "needs_human"
    assert "its data is used by others" in detail
    assert "(sleep)" in detail
    assert server.state() == before


def test_an_aria_table_that_is_not_whole_is_left_to_a_human(server: Server) -> None:
    server.sh(
        f"dd if=/dev/urandom of=/var/lib/mysql/shop/a.MAI bs=8192 seek=1 count=2 conv=notrunc;"
        f"{BREAK_CONTROL}{TRY}"
    )
    before = server.state()
    outcome, detail = server.mend(ARIA)
    assert outcome == "needs_human"
    assert "shop/a.MAI is not whole" in detail
    assert server.state() == before


def test_a_preview_of_a_repair_copies_and_changes_nothing(server: Server) -> None:
    server.sh(BREAK_CONTROL + TRY)
    before = server.state()
    outcome, detail = server.mend(ARIA, preview=True)
    assert outcome == "ok", detail
    assert re.search(r"would repair \d+ Aria tables", detail)
    assert (server.state(), server.copies()) == (before, [])


def test_a_server_that_is_up_is_left_alone(server: Server) -> None:
    server.sh(START)
    started = server.sh("systemctl show -P InvocationID mariadb")
    outcome, detail = server.mend(ARIA)
    assert outcome == "ok", detail
    assert server.sh("systemctl show -P InvocationID mariadb") == started
    assert server.copies() == []


# rebuild-mariadb-binlog-index

INDEX = "rebuild-mariadb-binlog-index"
LOGS = "/var/log/mysql/mariadb-bin"
#: A commit that waits between the binary log and the table, and is half done when it is killed.
HALF_DONE = """systemctl start mariadb
mariadb -e "SET GLOBAL rpl_semi_sync_master_timeout=600000;
    SET GLOBAL rpl_semi_sync_master_wait_point=AFTER_SYNC;
    SET GLOBAL rpl_semi_sync_master_enabled=ON"
mariadb shop -e "INSERT INTO i VALUES (5000, 'x')" >/dev/null 2>&1 &
until mariadb -BNe 'SELECT STATE FROM information_schema.PROCESSLIST' | grep -q 'semi-sync ACK'
do sleep 0.1; done
$CRASH
"""


def test_a_commit_that_only_the_unlisted_log_knows_is_there_after_the_rebuild(
    server: Server,
) -> None:
    server.sh(f"{HALF_DONE}cp {LOGS}.index /root/index; sed -i '$d' {LOGS}.index; {TRY}")
    outcome, detail = server.mend(INDEX)
    # The attempt with the wrong index says that prepared transactions are for a human.
    assert outcome == "needs_human"
    assert "1 transactions were prepared" in detail
    # One that was never started with the wrong index is mended.
    server.sh(f"{FRESH}{HALF_DONE}cp {LOGS}.index /root/index; echo nonsense > {LOGS}.index; {TRY}")
    outcome, detail = server.mend(INDEX)
    assert outcome == "ok", detail
    assert server.sh("mariadb shop -BNe 'SELECT COUNT(*) FROM i WHERE id = 5000'") == "1\n"
    assert server.sh("mariadb shop -BNe 'SELECT COUNT(*) FROM i'") == "1001\n"
    listed = server.sh(f"cat {LOGS}.index")
    assert listed.startswith(server.sh("cat /root/index"))
    (kept,) = [name for name in server.copies() if name.startswith("index-of-")]
    assert server.sh(f"cat {COPIES}/{kept}") == "nonsense\n"
    assert len(server.copies()) == 2


def test_logs_that_are_missing_are_a_humans(server: Server) -> None:
    server.sh(f"{START}; for n in 1 2 3; do mariadb -e 'FLUSH BINARY LOGS'; done")
    server.sh("systemctl stop mariadb")
    for damage, why in (
        (f"mv {LOGS}.000002 /root/", "binary log 000002"),
        (f"mv /root/*.000002 /var/log/mysql/; cp {LOGS}.000003 /root/; echo > {LOGS}.000003", "no"),
        (
            f"cp /root/*.000003 /var/log/mysql/; mkdir /root/all; mv {LOGS}.0* /root/all/",
            "there is",
        ),
    ):
        server.sh(f"{damage}; echo nonsense > {LOGS}.index; {TRY}")
        before = server.state()
        outcome, detail = server.mend(INDEX)
        assert outcome == "needs_human", detail
        assert why in detail
        assert server.state() == before
    server.sh(f"rm -f {LOGS}.*; mv /root/all/* /var/log/mysql/; rmdir /root/all")
    # One that is named and gone: after a stop in order nothing is lost by it here.
    server.sh(f"ls -1v {LOGS}.0* > {LOGS}.index; echo {LOGS}.000099 >> {LOGS}.index; {TRY}")
    outcome, detail = server.mend(INDEX)
    assert outcome == "ok", detail
    assert "mariadb-bin.000099 too, which is gone" in detail


def test_a_log_that_is_listed_and_gone_after_a_crash_is_a_humans(server: Server) -> None:
    server.sh(f"{START}\n$CRASH\necho {LOGS}.000099 >> {LOGS}.index; {TRY}")
    before = server.state()
    outcome, detail = server.mend(INDEX)
    assert outcome == "needs_human"
    assert "mariadb-bin.000099 is listed and is not there" in detail
    assert server.state() == before


# restore-mariadb-log-directory

DIRECTORY = "restore-mariadb-log-directory"


def test_a_log_directory_of_somebody_else_is_given_back_with_the_logs_and_nothing_more(
    server: Server,
) -> None:
    outcome, detail, _ = mend(server.lab, DIRECTORY, unit="mariadb.service", preview=True)
    assert (outcome, "would give back" in detail) == ("ok", True)
    server.sh(
        "echo mine > /var/log/mysql/notes; chown -R root: /var/log/mysql;"
        f"chmod 700 /var/log/mysql; chmod 600 {LOGS}.000001; {TRY}"
    )
    outcome, detail, _ = mend(server.lab, DIRECTORY, unit="mariadb.service")
    assert outcome == "ok", detail
    assert server.sh("stat -c '%U %G %a' /var/log/mysql") == "mysql adm 2750\n"
    assert server.sh("stat -c %U /var/log/mysql/notes") == "root\n"
    server.sh("mariadb shop -e 'INSERT INTO i VALUES (7001, 1)'")
    server.sh("rm /var/log/mysql/notes")


def test_no_directory_is_made_where_something_is_to_be_mounted(server: Server) -> None:
    server.sh(
        "cp -a /etc/fstab /root/fstab 2>/dev/null || touch /root/fstab; rm -r /var/log/mysql;"
        f"echo '/dev/sdz1 /var/log/mysql ext4 defaults 0 2' >> /etc/fstab; {TRY}"
    )
    outcome, detail, _ = mend(server.lab, DIRECTORY, unit="mariadb.service")
    assert outcome == "needs_human"
    assert "/var/log/mysql is not mounted" in detail
    server.sh("cp -a /root/fstab /etc/fstab; test ! -e /var/log/mysql")


# repair-mariadb-table

TABLE = "repair-mariadb-table"


def repair(server: Server, table: str, **given: Any) -> tuple[str, str]:
    outcome, detail, _ = mend(server.lab, TABLE, table=table, copies=COPIES, **given)
    return outcome, detail


def test_a_table_with_a_strange_name_is_repaired_and_its_files_are_kept(server: Server) -> None:
    server.sh(f"""{START}; mariadb <<'END'
        CREATE DATABASE `a.b-ö`; USE `a.b-ö`;
        CREATE TABLE `x``y.z$` (id INT PRIMARY KEY, t TEXT) ENGINE=MyISAM
            PARTITION BY HASH (id) PARTITIONS 2;
        INSERT INTO `x``y.z$` SELECT seq, MD5(seq) FROM seq_1_to_1000;
END
        mariadb -e 'CHECKSUM TABLE `a.b-ö`.`x``y.z$` EXTENDED' > /root/sum
        systemctl stop mariadb
        cd /var/lib/mysql/a@*
        dd if=/dev/urandom of="$(ls *P#p1.MYI)" bs=1024 seek=1 count=3 conv=notrunc
        {START}""")
    outcome, detail = repair(server, "a.b-ö.x`y.z$", preview=True)
    assert (outcome, server.copies()) == ("ok", []), detail
    outcome, detail = repair(server, "a.b-ö.x`y.z$")
    assert outcome == "ok", detail
    assert "repaired a.b-ö.x`y.z$, which has 1000 rows" in detail
    server.sh("mariadb -e 'CHECKSUM TABLE `a.b-ö`.`x``y.z$` EXTENDED' | diff - /root/sum")
    (place,) = server.copies()
    kept = server.sh(f"cd {COPIES}/{place}; sha256sum --quiet -c SHA256SUMS; ls data/*")
    assert {Path(name).suffix for name in kept.split()} == {".frm", ".par", ".MYD", ".MYI"}
    outcome, detail = repair(server, "a.b-ö.x`y.z$")
    assert (outcome, server.copies()) == ("ok", [place]), detail


def test_a_repair_that_loses_rows_is_told_with_the_copy(server: Server) -> None:
    server.sh("dd if=/dev/urandom of=/var/lib/mysql/shop/m.MYD bs=1024 seek=8 count=4 conv=notrunc")
    server.sh(START)
    outcome, detail = repair(server, "shop.m")
    assert outcome == "needs_human"
    assert "REPAIR TABLE of shop.m says" in detail
    (place,) = server.copies()
    assert f"{COPIES}/{place}" in detail


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("shop.i", "a table of InnoDB, not of MyISAM"),
        ("shop.a", "a table of Aria, not of MyISAM"),
        ("shop.none", "there is no table shop.none"),
        ("nothing", "there is no table nothing"),
        ("shop.m' OR '1'='1", "there is no table"),
    ],
)
def test_what_is_no_table_of_myisam_is_left_alone(server: Server, table: str, why: str) -> None:
    server.sh(START)
    outcome, detail = repair(server, table)
    assert outcome == "needs_human"
    assert why in detail


# free-mariadb-disk

DISK = "free-mariadb-disk"
#: Logs of 800 kB each on a filesystem of 6 MB, and so many of them that it is nearly full.
FILL_LOGS = f"""
systemctl stop mariadb
mount -t tmpfs -o size=6m,mode=0777 tmpfs /var/log/mysql
cp -a /root/log.good/. /var/log/mysql/
{START}
mariadb shop -e 'CREATE TABLE big (t MEDIUMTEXT)'
for n in 1 2 3 4 5 6; do
    mariadb shop -e "SET binlog_format=row; INSERT INTO big VALUES (REPEAT('x', 800000));
        FLUSH BINARY LOGS"
done
head -c 9M /dev/zero > /var/log/mysql/fill || true
"""


def test_binary_logs_go_only_where_it_is_known_who_needs_them(server: Server) -> None:
    server.sh(FILL_LOGS)
    logs = server.sh("cd /var/log/mysql; ls mariadb-bin.0*").split()

    def free(**given: Any) -> tuple[str, str]:
        given = {"unit": "mariadb.service", "target_percent": 50, **given}
        outcome, detail, _ = mend(server.lab, DISK, **given)
        return outcome, detail

    certain = {"no_replicas": True, "no_backup": True}
    # The server would hang over it.
    outcome, detail = free(**certain)
    assert outcome == "needs_human"
    assert "too little other space was freed" in detail
    # Found full, with as much room as cleaning up would have brought.
    server.sh("truncate -s -200K /var/log/mysql/fill")
    for given, why in (
        ({}, "nobody knows which binary logs its replicas need"),
        ({"no_replicas": True}, "nobody knows which binary logs the backup has"),
        ({"oldest_needed": ["echo", logs[0]], "no_backup": True}, "binary logs is needed"),
        ({"no_replicas": True, "newest_taken": ["echo", "nothing"]}, "'nothing' is none of its"),
        ({"no_replicas": True, "newest_taken": ["false"]}, "false fails (1)"),
        ({**certain, "keep_binlogs": 100}, "binary logs is needed"),
    ):
        outcome, detail = free(**given)
        assert outcome == "needs_human", detail
        assert why in detail
        assert "PURGE BINARY LOGS TO" in detail
    assert server.sh("cd /var/log/mysql; ls mariadb-bin.0*").split() == logs
    outcome, detail, _ = mend(
        server.lab, DISK, preview=True, unit="mariadb.service", target_percent=50, **certain
    )
    assert outcome == "ok", detail
    assert "would purge binary logs to" in detail
    assert server.sh("cd /var/log/mysql; ls mariadb-bin.0*").split() == logs
    # As far as both have them, and no further.
    outcome, detail = free(oldest_needed=["echo", logs[3]], newest_taken=["echo", logs[1]])
    assert outcome == "needs_human"
    assert "purged 2 binary logs" in detail
    assert server.sh("cd /var/log/mysql; ls mariadb-bin.0*").split() == logs[2:]
    assert server.sh("ls /var/log/mysql/fill")


def test_logs_are_not_purged_while_somebody_reads_them_as_a_replica(server: Server) -> None:
    # With room to purge at all.
    server.sh(f"{FILL_LOGS} truncate -s -500K /var/log/mysql/fill")
    logs = server.sh("cd /var/log/mysql; ls mariadb-bin.0*").split()
    reads = ["mariadb-binlog", "--read-from-remote-server", "--stop-never", "--raw", "-r", "/root/"]
    with server.lab.popen([*reads, logs[0]]) as reader:
        server.lab.wait_for(["sh", "-c", "mariadb -BNe 'SHOW PROCESSLIST' | grep -q 'Binlog Dump'"])
        outcome, detail, _ = mend(
            server.lab, DISK, unit="mariadb.service", target_percent=50,
            no_replicas=True, no_backup=True,
        )  # fmt: skip
        reader.kill()
    assert outcome == "needs_human"
    assert "it has replicas, and no_replicas says that it has none" in detail
    assert server.sh("cd /var/log/mysql; ls mariadb-bin.0*").split() == logs


# salvage-mariadb-redo

SALVAGE = "salvage-mariadb-redo"
REDO = "/var/lib/mysql/ib_logfile0"
BREAK_REDO = f"dd if=/dev/urandom of={REDO} bs=4096 count=16 conv=notrunc; "


def test_a_redo_log_that_is_gone_after_a_stop_in_order_is_done_without(server: Server) -> None:
    sums = "mariadb -e 'CHECKSUM TABLE shop.i, shop.a, shop.m, mysql.global_priv EXTENDED'"
    server.sh(f"{START}; {sums} > /root/sums; systemctl stop mariadb; rm {REDO}; {TRY}")
    outcome, detail = server.mend(SALVAGE)
    assert outcome == "ok", detail
    server.sh(f"{sums} | diff - /root/sums; rm -rf /var/lib/mysql.before-*")
    assert "are the same in a new data directory" in detail
    assert "the old one is /var/lib/mysql.before-" in detail


def test_a_redo_log_is_left_alone_where_it_may_be_missed(server: Server) -> None:
    rows = "mariadb shop -e 'INSERT INTO i SELECT seq, MD5(seq) FROM seq_1001_to_3000'"
    for script, why in (
        (f"{START}; {rows}\n$CRASH\n{BREAK_REDO}{TRY}", "what is only in the redo log"),
        (f"{FRESH}{START}; {rows}\n$CRASH\n{BREAK_REDO}", "it crashed or was killed"),
        (
            f"{FRESH}{START}; systemctl stop mariadb; {BREAK_REDO}{TRY}\n"
            "echo 18 > /var/lib/mysql/master.info",
            "/var/lib/mysql/master.info is nothing that a dump holds",
        ),
    ):
        server.sh(script)
        before = server.state()
        outcome, detail = server.mend(SALVAGE)
        assert outcome == "needs_human", detail
        assert why in detail
        assert f"{COPIES}/mariadb.service-lab-" in detail
        assert server.state() == before


def test_a_table_that_a_dump_does_not_hold_whole_leaves_the_old_directory(server: Server) -> None:
    server.sh(f"""{START}
        mariadb shop -e 'CREATE TABLE h (id INT PRIMARY KEY) WITH SYSTEM VERSIONING'
        systemctl stop mariadb; {BREAK_REDO}{TRY}""")
    outcome, detail = server.mend(SALVAGE)
    assert outcome == "needs_human"
    assert "shop.h (SYSTEM VERSIONED, InnoDB) is nothing that a dump holds whole" in detail
    assert server.sh("ls -d /var/lib/mysql*") == "/var/lib/mysql\n"


# reset-mariadb-relay-log

RELAY = "reset-mariadb-relay-log"


def test_a_relay_log_is_kept_where_it_cannot_be_fetched_anew(server: Server) -> None:
    break_it = f"{find_playbooks(server.lab)}/{RELAY}/test/break.yml"
    primary = "mariadb --socket=/run/mysqld/primary.sock"

    def reset() -> tuple[str, str]:
        outcome, detail, _ = mend(server.lab, RELAY, copies=COPIES)
        return outcome, detail

    server.sh(START)
    server.lab.run([PLAYBOOK, "-i", "localhost,", break_it], timeout=300)
    # But for the last one, which goes on.
    logs = server.sh("cd /var/lib/mysql; sha256sum mysqld-relay-bin.0*").splitlines()[:-1]
    assert logs
    server.sh(f"chmod 777 {COPIES}")
    outcome, detail = reset()
    assert outcome == "needs_human"
    assert "others than root" in detail
    # Replication was not even stopped.
    assert "IO_Running: Yes" in server.sh("mariadb -e 'SHOW SLAVE STATUS\\G'")
    server.sh(f"chmod 700 {COPIES}")
    now = server.sh("cd /var/lib/mysql; sha256sum mysqld-relay-bin.0*").splitlines()
    assert now[: len(logs)] == logs
    # The primary has purged what would have to be fetched: the copy has what had been.
    server.sh(f"""{primary} -e 'FLUSH BINARY LOGS'
        while {primary} -e 'SHOW BINARY LOGS' | grep primary-bin.000001; do
            # It stays while it is sent.
            {primary} -e "PURGE BINARY LOGS TO 'primary-bin.000002'"; sleep 0.1
        done""")
    outcome, detail = reset()
    assert outcome == "needs_human"
    assert "replication does not go on" in detail
    (place,) = server.copies()
    kept = server.sh(f"cd {COPIES}/{place}/data; sha256sum mysqld-relay-bin.0*").splitlines()
    assert kept[: len(logs)] == logs
    server.sh("systemctl stop hostmend-test-primary; mariadb -e 'STOP SLAVE; RESET SLAVE ALL'")
