"""The check `mariadb` against a real server that is broken in every way known to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import database_host
import pytest
from mariadb_host import CRASH, FRESH, SETUP, START

from agent.lab import Lab

PRELUDE = f"""
FRESH, START, CRASH = {FRESH!r}, {START!r}, {CRASH!r}
"""
PRELUDE += '''
#: As docs/databases.md has it.
OWN_USER = """
useradd --system hostmend
mariadb <<'END'
CREATE USER hostmend IDENTIFIED VIA unix_socket;
GRANT PROCESS, REPLICA MONITOR ON *.* TO hostmend;
GRANT SELECT ON mysql.* TO hostmend;
GRANT ALL ON hostmend.* TO hostmend;
DROP DATABASE hostmend;
END
"""


def fine(findings):
    return all(f["status"] == "ok" for f in findings)


def of(findings, subject):
    return next((f for f in findings if f["subject"] == subject), None)


async def fresh(watcher):
    """The server as it was at first, and seen to be whole."""
    await asyncio.to_thread(sh, FRESH + START)
    return await watcher.until(fine)
'''

#: Name, what is done to a server that is down, the cause, and what people are told.
NO_START = [
    (
        "random-aria-control-file",
        "dd if=/dev/urandom of=/var/lib/mysql/aria_log_control bs=52 count=1 conv=notrunc",
        "aria-control",
        "Aria",
    ),
    (
        "random-aria-log-after-a-crash",
        """systemctl start mariadb
        mariadb shop -e 'INSERT INTO a SELECT seq, MD5(seq) FROM seq_1001_to_3000'
        $CRASH
        dd if=/dev/urandom of=/var/lib/mysql/aria_log.00000001 bs=16384 seek=1 count=100 \\
            conv=notrunc""",
        "aria-log",
        "acknowledged rows",
    ),
    (
        "random-redo-header",
        "dd if=/dev/urandom of=/var/lib/mysql/ib_logfile0 bs=4096 count=16 conv=notrunc",
        "redo-header",
        "ib_logfile0",
    ),
    ("no-redo-log", "rm /var/lib/mysql/ib_logfile0", "redo-header", "missing"),
    ("empty-redo-log", "truncate -s 0 /var/lib/mysql/ib_logfile0", "redo-header", "empty"),
    (
        "binlog-index-of-nonsense",
        "yes nonsense | head -c 200 > /var/log/mysql/mariadb-bin.index",
        "binlog-index",
        "index",
    ),
    (
        "binlog-index-that-names-what-is-not-there",
        "echo /var/log/mysql/mariadb-bin.000099 >> /var/log/mysql/mariadb-bin.index",
        "binlog-index",
        "index",
    ),
    (
        "last-binlog-missing-after-a-crash",
        # A commit that waits between the binary log and the table for a replica that never comes:
        # the crash finds it half done, every time.
        """systemctl start mariadb
        mariadb -e "SET GLOBAL rpl_semi_sync_master_timeout=600000;
            SET GLOBAL rpl_semi_sync_master_wait_point=AFTER_SYNC;
            SET GLOBAL rpl_semi_sync_master_enabled=ON"
        mariadb shop -e "INSERT INTO i VALUES (5000, 'x')" >/dev/null 2>&1 &
        until mariadb -BNe 'SELECT STATE FROM information_schema.PROCESSLIST' \\
            | grep -q 'semi-sync ACK'; do sleep 0.1; done
        $CRASH
        sed -i '$d' /var/log/mysql/mariadb-bin.index""",
        "prepared-transactions",
        "prepared",
    ),
    ("no-log-directory", "rm -r /var/log/mysql", "log-directory", "directory"),
    (
        "log-directory-of-another-owner",
        "chown -R root: /var/log/mysql; chmod 700 /var/log/mysql",
        "log-directory",
        "directory",
    ),
    (
        "no-room",
        "mount -t tmpfs -o size=64k,mode=0777 tmpfs /var/log/mysql\n"
        "cp -a /root/log.good/. /var/log/mysql/\n"
        "head -c 64k /dev/zero > /var/log/mysql/fill || true",
        "no-room",
        "/var/log/mysql",
    ),
    (
        "a-setting-that-does-not-exist",
        "printf '[mariadbd]\\nnonsense=1\\n' > /etc/mysql/mariadb.conf.d/99-wrong.cnf",
        "down",
        "exit code 7",
    ),
]


@pytest.fixture(scope="module")
def host(lab_tree: Path) -> Iterator[Lab]:
    with Lab.boot(lab_tree, size="3g") as lab:
        lab.run(["bash", "-ec", SETUP], timeout=180)
        yield lab


def run(host: Lab, program: str) -> Any:
    return database_host.run(host, program, PRELUDE)


def test_a_server_that_is_killed_hangs_or_is_stopped_is_told_apart(host: Lab) -> None:
    """The short way through: the gate takes this one."""
    told = run(
        host,
        """
        async def main(machine):
            watcher = Watcher(machine, "mariadb", write=True, answer_within="2s")
            told = {"whole": await fresh(watcher)}
            sh("systemctl kill -s STOP mariadb")
            told["hung"] = await watcher.fail()
            sh("systemctl kill -s CONT mariadb")
            told["again"] = await watcher.until(fine)
            sh("rm /run/mysqld/mysqld.sock")
            told["no socket"] = await watcher.fail()
            sh("systemctl restart mariadb")
            await watcher.until(fine)
            sh(FRESH + "dd if=/dev/urandom of=/var/lib/mysql/aria_log_control bs=52 count=1 "
               "conv=notrunc")
            sh("systemctl start mariadb", check=False)
            told["aria"] = await watcher.fail()
            await fresh(watcher)
            sh("systemctl stop mariadb")
            told["stopped"] = await watcher.settle()
            told["rows"] = sh("cat /var/lib/mysql/hostmend/probe.frm >/dev/null && echo there")
            return told
        """,
    )
    assert [f["subject"] for f in told["whole"]] == [
        "mariadb.service",
        "mariadb.service start",
        "mariadb.service connections",
        "mariadb.service queries",
        "mariadb.service binlogs",
    ]
    assert told["whole"][0]["summary"] == "mariadb.service reads and writes"
    assert told["whole"][0]["resource"] == "unit:mariadb.service"
    assert told["hung"][0]["cause"] == "timeout"
    assert told["no socket"][0]["cause"] == "refused"
    assert "/run/mysqld/mysqld.sock" in told["no socket"][0]["summary"]
    assert told["aria"][0]["cause"] == "aria-control"
    assert "not a valid aria control file" in told["aria"][0]["facts"]["Log"]
    (stopped,) = told["stopped"]
    assert (stopped["status"], stopped["intended"]) == ("ok", True)


@pytest.fixture(scope="module")
def no_start(host: Lab) -> Any:
    """What is found after each of NO_START, with one memory for all: no case blames another."""
    return run(
        host,
        f"""
        async def main(machine):
            watcher = Watcher(machine, "mariadb")
            told = {{}}
            for name, script in {[(name, script) for name, script, *_ in NO_START]!r}:
                print(name, file=sys.stderr)
                await fresh(watcher)
                sh("systemctl stop mariadb")
                sh(f"set -e\\nCRASH='{{CRASH}}'\\n" + script.replace("$CRASH", CRASH))
                # One that hangs would do so for 15 minutes.
                sh("systemctl start --no-block mariadb")
                told[name] = await watcher.fail()
                sh("systemctl kill -s KILL mariadb", check=False)
                sh("rm -f /etc/mysql/mariadb.conf.d/99-wrong.cnf")
            return told
        """,
    )


@pytest.mark.long
@pytest.mark.parametrize(("name", "cause", "words"), [(n, c, w) for n, _, c, w in NO_START])
def test_a_server_that_does_not_start_says_why(
    no_start: Any, name: str, cause: str, words: str
) -> None:
    (finding,) = no_start[name]
    assert finding["cause"] == cause, finding
    assert words in finding["summary"]
    if cause == "no-room":
        assert finding["implicates"] == ["filesystem:/var/log/mysql"]


@pytest.mark.long
def test_a_restart_by_an_operator_is_no_failure(host: Lab) -> None:
    """Looks go on without a pause, over and over, while the server goes down and comes back."""
    statuses = run(
        host,
        """
        async def main(machine):
            watcher = Watcher(machine, "mariadb", write=True, deep_every="1s")
            await fresh(watcher)
            restarts = asyncio.create_task(asyncio.to_thread(
                sh, "for n in 1 2 3 4 5; do systemctl restart mariadb; sleep 0.7; done"))
            seen = []
            while not restarts.done():
                seen += [(f["status"], f["cause"], f["summary"]) for f in await watcher.look()]
            return sorted(set(seen)), await watcher.until(fine)
        """,
    )
    assert {status for status, _, _ in statuses[0]} <= {"ok", "unknown"}, statuses
    assert {cause for _, cause, _ in statuses[0]} <= {"", "starting", "stopping", "restarting"}


@pytest.mark.long
def test_a_crash_is_told_after_the_recovery_and_for_a_while_only(host: Lab) -> None:
    told = run(
        host,
        """
        async def main(machine):
            watcher = Watcher(machine, "mariadb")
            await fresh(watcher)
            rows = "mariadb shop -e 'INSERT INTO i SELECT seq, MD5(seq) FROM seq_1001_to_3000'"
            sh(rows + CRASH + START)
            recovered = await watcher.settle()
            anew = Watcher(machine, "mariadb")
            short = Watcher(machine, "mariadb", recovered_for="100ms")
            told = [recovered, await anew.look()]
            # The time over which it is told must have passed.
            await asyncio.sleep(0.2)
            told.append(await short.look())
            sh("systemctl restart mariadb")
            told.append(await watcher.until(fine))
            sh(rows.replace("1001_to_3000", "4001_to_6000") + CRASH)
            sh("truncate -s -20 $(ls /var/log/mysql/mariadb-bin.0* | tail -1)")
            sh(START)
            told.append(await watcher.settle())
            return told
        """,
    )
    for findings in told[:2]:
        start = next(f for f in findings if f["subject"] == "mariadb.service start")
        assert (start["status"], start["cause"]) == ("warning", "recovered")
        assert "crash" in start["facts"]["Log"] or "recovery" in start["facts"]["Log"]
        assert findings[0]["status"] == "ok"
    assert {f["status"] for f in told[2]} == {"ok"}
    cut = next(f for f in told[4] if f["subject"] == "mariadb.service start")
    assert (cut["status"], cut["cause"]) == ("warning", "binlog-truncated")


@pytest.mark.long
def test_a_damaged_table_is_named_and_is_fine_after_its_repair(host: Lab) -> None:
    told = run(
        host,
        """
        async def main(machine):
            watcher = Watcher(machine, "mariadb", deep_every="100ms")
            await fresh(watcher)
            sh("systemctl stop mariadb")
            # Beyond the header, so that the tables can be opened.
            spoil = "cd /var/lib/mysql/shop; dd if=/dev/urandom seek=1 count=3 conv=notrunc"
            sh(f"{spoil} of=m.MYI bs=1024; {spoil} of=a.MAI bs=8192")
            sh(START)
            before = await watcher.settle()
            for table in "ma":
                sh(f"mariadb shop -e 'SELECT * FROM {table} WHERE id = 500'", check=False)
            names = ("shop.a", "shop.m")
            damaged = await watcher.until(lambda found: all(
                (of(found, name) or {}).get("status") == "critical" for name in names))
            sh("mariadb shop -e 'REPAIR TABLE m, a'")
            again = await watcher.until(fine)
            sh("mariadb shop -e 'DROP TABLE m, a'")
            return [before, damaged, again, await watcher.until(fine)]
        """,
    )
    before, damaged, again, dropped = told
    assert not [f for f in before if f["subject"].startswith("shop.")]
    for name in ("shop.a", "shop.m"):
        (finding,) = [f for f in damaged if f["subject"] == name]
        assert (finding["status"], finding["cause"]) == ("critical", "crashed-table"), finding
        (finding,) = [f for f in again if f["subject"] == name]
        assert finding["status"] == "ok"
    assert {f["status"] for f in dropped} == {"ok"}


@pytest.mark.long
def test_writes_that_wait_for_a_full_disk_are_critical_while_reads_go_on(host: Lab) -> None:
    waiting, later, written, count = run(
        host,
        """
        async def main(machine):
            await fresh(Watcher(machine, "mariadb"))
            sh("systemctl stop mariadb")
            sh("mount -t tmpfs -o size=4m,mode=0777 tmpfs /var/log/mysql;"
               "cp -a /root/log.good/. /var/log/mysql/")
            sh(START)
            watcher = Watcher(machine, "mariadb", write=True, answer_within="1s",
                              deep_every="100ms")
            await watcher.until(fine)
            sh("head -c 9M /dev/zero > /var/log/mysql/fill", check=False)
            big = subprocess.Popen(["mariadb", "shop", "-e", "SET binlog_format=row;"
                "CREATE TABLE big (t MEDIUMTEXT); INSERT INTO big VALUES (REPEAT('x', 800000))"])
            waiting = await watcher.fail()
            # What hangs on the server must not become more with each look.
            for _ in range(8):
                later = await watcher.look()
            count = int(sh("mariadb -BN -e 'SELECT COUNT(*) FROM information_schema.PROCESSLIST'"))
            sh("rm /var/log/mysql/fill")
            big.wait()
            return waiting, later, await watcher.until(fine), count
        """,
    )
    for findings in (waiting, later):
        assert findings[0]["cause"] == "disk-full-waiting"
        assert findings[0]["implicates"] == ["filesystem:/var/log/mysql"]
    assert written[0]["summary"] == "mariadb.service reads and writes"
    # The statement that waits, the one that asks, and at most one probe of our own.
    assert count <= 4


@pytest.mark.long
def test_locks_connections_and_a_user_without_access_have_findings_of_their_own(host: Lab) -> None:
    told = run(
        host,
        """
        async def main(machine):
            watcher = Watcher(machine, "mariadb", write=True, deep_every="100ms",
                              answer_within="2s", warning={"blocked": "1s"})
            told = {"whole": await fresh(watcher)}
            holder = subprocess.Popen(["mariadb", "shop"], stdin=subprocess.PIPE, text=True)
            holder.stdin.write("BEGIN; UPDATE i SET t = 'x' WHERE id = 1;\\n")
            holder.stdin.flush()
            sh("until mariadb -BN -e 'SELECT * FROM information_schema.INNODB_TRX' | grep -q .;"
               " do sleep 0.1; done")
            wait = "mariadb shop -e \\"UPDATE i SET t = 'y' WHERE id = 1\\""
            waiter = subprocess.Popen(["bash", "-c", wait])
            told["row"] = await watcher.until(lambda found: not fine(found))
            holder.stdin.write("COMMIT; FLUSH TABLES WITH READ LOCK;\\n")
            holder.stdin.flush()
            waiter.wait()
            told["write"] = await watcher.until(
                lambda found: found[0]["cause"] == "write-locked")
            holder.stdin.write("UNLOCK TABLES;\\n")
            holder.stdin.flush()
            await watcher.until(fine)
            many = [subprocess.Popen(["mariadb", "-e", "SELECT SLEEP(100)"]) for _ in range(8)]
            told["some"] = await watcher.until(lambda found: not fine(found))
            many += [subprocess.Popen(["mariadb", "-e", "SELECT SLEEP(100)"]) for _ in range(2)]
            told["all"] = await watcher.until(lambda found: "critical" in [
                f["status"] for f in found])
            for each in (holder, *many):
                each.kill()
                each.wait()
            await asyncio.to_thread(sh, "systemctl restart mariadb")
            await watcher.until(fine)
            sh("mariadb -e 'SET GLOBAL read_only=1'")
            told["read-only"] = await watcher.until(lambda found: not fine(found))
            sh("mariadb -e 'SET GLOBAL read_only=0'")
            await watcher.until(fine)
            sh(OWN_USER)
            told["own user"] = await Watcher(machine, "mariadb", user="hostmend",
                                             write=True).look()
            sh("mariadb -e 'DROP USER hostmend'; userdel hostmend")
            told["denied"] = await Watcher(machine, "mariadb", user="nobody").look()
            told["nobody"] = await Watcher(machine, "mariadb", socket="/run/no.sock").look()
            return told
        """,
    )

    def part(key: str, name: str = "") -> tuple[str, str]:
        subject = f"mariadb.service {name}".strip()
        (finding,) = [f for f in told[key] if f["subject"] == subject]
        return finding["status"], finding["cause"]

    assert part("row", "queries") == ("warning", "blocked")
    assert part("row") == ("ok", "")
    assert part("write") == ("warning", "write-locked")
    assert part("some", "connections") == ("warning", "connections")
    assert "critical" in [part("all", "connections")[0], part("all")[0]]
    assert part("read-only") == ("warning", "read-only")
    assert {finding["status"] for finding in told["own user"]} == {"ok"}
    assert told["own user"][0]["summary"] == "mariadb.service reads and writes"
    assert "Not read" not in told["own user"][0]["facts"]
    assert len(told["own user"]) == len(told["whole"])
    assert part("denied") == ("unknown", "denied")
    assert part("nobody") == ("unknown", "unavailable")
    # A statement may hold a password, so that none is ever shown.
    assert "UPDATE" not in str(told)


@pytest.mark.long
def test_replication_that_ends_or_was_stopped_is_told_and_a_replica_is_never_written_to(
    host: Lab,
) -> None:
    broken, stopped, wrote = run(
        host,
        """
        async def main(machine):
            watcher = Watcher(machine, "mariadb", write=True, deep_every="100ms")
            await fresh(Watcher(machine, "mariadb"))
            sh("mariadb -e \\"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=1, "
               "MASTER_USER='x'; START SLAVE\\"")
            broken = await watcher.until(lambda found: "critical" in [f["status"] for f in found])
            sh("mariadb -e 'STOP SLAVE'")
            stopped = await watcher.until(lambda found: not any(
                f["status"] == "critical" for f in found))
            return broken, stopped, sh("ls /var/lib/mysql | grep -x hostmend || true")
        """,
    )
    for findings, status, cause in (
        (broken, "critical", "replication-broken"),
        (stopped, "warning", "replication-stopped"),
    ):
        (finding,) = [f for f in findings if f["subject"] == "mariadb.service replication"]
        assert (finding["status"], finding["cause"]) == (status, cause)
        assert findings[0]["facts"]["Not written"] == "it is a replica"
    assert wrote == ""


@pytest.mark.long
def test_a_start_that_hangs_without_a_word_is_critical_after_a_minute(host: Lab) -> None:
    early, late = run(
        host,
        """
        async def main(machine):
            watcher = Watcher(machine, "mariadb")
            await fresh(watcher)
            sh("systemctl stop mariadb; truncate -s 0 /var/lib/mysql/aria_log.00000001;"
               "systemctl start --no-block mariadb")
            early = await watcher.look()
            late = await watcher.fail()
            sh("systemctl kill -s KILL mariadb; systemctl stop mariadb")
            return early, late
        """,
    )
    assert (early[0]["status"], early[0]["transition"]) == ("unknown", "starting")
    assert late[0]["cause"] == "start-hangs"
    assert "aria_log" in late[0]["summary"]


@pytest.mark.long
def test_a_server_that_talks_nonsense_or_nothing_is_told_from_one_that_is_not_there(
    host: Lab,
) -> None:
    nonsense, nothing = run(
        host,
        """
        import os, socket, threading

        def serve(path, data):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            os.chmod(path, 0o777)
            listener.listen()

            def answer():
                held = []
                while True:
                    held.append(listener.accept()[0])
                    held[-1].send(data)

            threading.Thread(target=answer, daemon=True).start()

        async def main(machine):
            await fresh(Watcher(machine, "mariadb"))
            serve("/run/nonsense.sock", os.urandom(3) + b"\\x00" + os.urandom(2000))
            serve("/run/nothing.sock", b"")
            return [
                (await Watcher(machine, "mariadb", socket=f"/run/{name}.sock",
                               answer_within="1s").look())[0]
                for name in ("nonsense", "nothing")
            ]
        """,
    )
    assert nonsense["status"] in ("critical", "unknown")
    assert nonsense["cause"] in ("error", "timeout", "unavailable")
    assert (nothing["status"], nothing["cause"]) == ("critical", "timeout")
