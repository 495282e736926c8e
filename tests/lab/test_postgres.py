"""The check `postgres` against a real server that is broken in every way known to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import database_host
import pytest

from agent.lab import Lab

#: A small server with a table of known rows, and what puts it back.
SETUP = """
cat > /etc/postgresql/15/main/conf.d/lab.conf <<'END'
shared_buffers = 16MB
max_connections = 10
max_wal_size = 32MB
min_wal_size = 32MB
lc_messages = 'C'
END
# A test starts it more often than an operator would.
mkdir -p /etc/systemd/system/postgresql@.service.d
printf '[Unit]\\nStartLimitIntervalSec=0\\n' > /etc/systemd/system/postgresql@.service.d/lab.conf
# A unit as people write them who do without Debian's pg_ctlcluster, which clears a stale pid file.
cat > /etc/systemd/system/raw-postgres.service <<'END'
[Service]
Type=notify
User=postgres
ExecStart=/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main \\
    -c config_file=/etc/postgresql/15/main/postgresql.conf
END
systemctl daemon-reload
systemctl start postgresql@15-main
runuser -u postgres -- psql -Xq <<'END'
CREATE TABLE shop AS SELECT g AS id, md5(g::text) AS t FROM generate_series(1, 1000) g;
END
systemctl stop postgresql@15-main
cp -a /var/lib/postgresql/15/main /root/postgres.good
"""

PRELUDE = '''
UNIT = "postgresql@15-main.service"
DATA = "/var/lib/postgresql/15/main"
LOG = "/var/log/postgresql/postgresql-15-main.log"
FRESH = f"""
set -e
systemctl kill -s CONT {UNIT} 2>/dev/null || true
systemctl stop raw-postgres {UNIT} postgresql 2>/dev/null
systemctl reset-failed raw-postgres {UNIT} 2>/dev/null || true
while mountpoint -q {DATA}/pg_wal; do umount -l {DATA}/pg_wal; done
while mountpoint -q {DATA}; do umount -l {DATA}; done
rm -rf {DATA} /var/log/postgresql /etc/postgresql/15/main/conf.d/test.conf
cp -a /root/postgres.good {DATA}
install -d -o root -g postgres -m 1775 /var/log/postgresql
install -o postgres -g adm -m 640 /dev/null {LOG}
"""
START = f"systemctl start {UNIT}"
CRASH = f"""
systemctl kill -s KILL {UNIT}
while systemctl is-active -q {UNIT}; do sleep 0.05; done
systemctl stop {UNIT}
"""
#: Its write-ahead log on a small filesystem of its own, and a slot that nobody uses.
SMALL_WAL = f"""
mv {DATA}/pg_wal /root/pg_wal; mkdir {DATA}/pg_wal
mount -t tmpfs -o size=80m,mode=0700,uid=$(id -u postgres),gid=$(id -g postgres) tmpfs {DATA}/pg_wal
cp -a /root/pg_wal/. {DATA}/pg_wal/; rm -r /root/pg_wal
"""
SLOT = "SELECT pg_create_physical_replication_slot('gone', true)"
ROWS = "INSERT INTO shop SELECT g, repeat(md5(g::text), 4) FROM generate_series({}, {}) g"
FILL = f"""
for n in $(seq 40); do
    runuser -u postgres -- psql -Xqc "{ROWS.format(1, 50000)}" || break
done
"""


def psql(sql, check=True):
    return sh(f"runuser -u postgres -- psql -XAtq <<'END'\\n{sql}\\nEND", check)


def watch(machine, **options):
    return Watcher(machine, "postgres", **{"unit": UNIT, "deep_every": "100ms", **options})


def fine(findings):
    return all(f["status"] == "ok" for f in findings)


def of(findings, name):
    return next((f for f in findings if f["subject"] == f"{UNIT} {name}"), None)


async def fresh(watcher):
    """The server as it was at first, and seen to be whole."""
    await asyncio.to_thread(sh, FRESH + START)
    return await watcher.until(fine)
'''

#: Name, what is done to a server that is down, the cause, and what people are told.
NO_START = [
    (
        "no-valid-checkpoint",
        "dd if=/dev/urandom of=$(ls $DATA/pg_wal/0* | head -1) bs=1M count=16 conv=notrunc",
        "checkpoint",
        "pg_resetwal would lose",
    ),
    (
        "wal-filled-by-an-abandoned-slot",
        '$SMALL_WAL systemctl start $UNIT; runuser -u postgres -- psql -Xqc "$SLOT"\n$FILL',
        "wal-full",
        "never delete in pg_wal",
    ),
    (
        "log-directory-of-another-owner",
        "chown -R root: /var/log/postgresql; chmod 755 /var/log/postgresql; rm $LOG",
        "log-directory",
        "root:postgres",
    ),
    (
        "log-file-of-another-owner",
        "chown root: $LOG; chmod 640 $LOG",
        "log-directory",
        "root:postgres",
    ),
    (
        "no-room-for-the-data",
        "cp -a $DATA /root/data; mount -t tmpfs -o size=60m tmpfs $DATA\n"
        "cp -a /root/data/. $DATA/; rm -r /root/data; head -c 60M /dev/zero > $DATA/fill || true",
        "no-room",
        "/var/lib/postgresql/15/main",
    ),
    (
        "a-setting-that-does-not-exist",
        "echo 'nonsense = 1' > /etc/postgresql/15/main/conf.d/test.conf",
        "down",
        "protocol",
    ),
]


@pytest.fixture(scope="module")
def host(lab_tree: Path) -> Iterator[Lab]:
    with Lab.boot(lab_tree, size="3g") as lab:
        lab.run(["bash", "-ec", SETUP], timeout=180)
        yield lab


def run(host: Lab, program: str) -> Any:
    return database_host.run(host, program, PRELUDE)


def part(findings: list[dict[str, Any]], name: str = "") -> tuple[str, str]:
    subject = f"postgresql@15-main.service {name}".strip()
    (finding,) = [f for f in findings if f["subject"] == subject]
    return finding["status"], finding["cause"]


def test_a_server_that_hangs_loses_its_socket_or_is_stopped_is_told_apart(host: Lab) -> None:
    """The short way through: the gate takes this one."""
    told = run(
        host,
        """
        async def main(machine):
            watcher = watch(machine, write=True, answer_within="2s")
            told = {"whole": await fresh(watcher)}
            told["tables"] = psql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
            sh(f"systemctl kill -s STOP {UNIT}")
            told["hung"] = await watcher.fail()
            sh(f"systemctl kill -s CONT {UNIT}")
            told["again"] = await watcher.until(fine)
            sh("rm /run/postgresql/.s.PGSQL.5432")
            told["no socket"] = await watcher.fail()
            sh(f"systemctl stop {UNIT}; chown root: /var/log/postgresql; rm {LOG}; "
               "chmod 755 /var/log/postgresql")
            sh(START, check=False)
            told["log"] = await watcher.fail()
            await fresh(watcher)
            # The unit that stands for all clusters, as operators have it in their fingers.
            sh("systemctl start postgresql; systemctl stop postgresql")
            told["stopped"] = await watcher.settle()
            sh("systemctl start postgresql")
            proposals = await CHECKS["postgres"].propose(machine)
            told["proposed"] = [(each.name, each.options, each.why) for each in proposals]
            told["wrapper up"] = await watch(machine, unit="postgresql.service").look()
            return told
        """,
    )
    assert [f["subject"].removeprefix("postgresql@15-main.service").strip()
            for f in told["whole"]] == ["", "start", "connections", "queries", "wal"]  # fmt: skip
    assert told["whole"][0]["summary"] == "postgresql@15-main.service reads and writes"
    assert told["whole"][0]["resource"] == "unit:postgresql@15-main.service"
    # Nothing is left behind by the write.
    assert told["tables"] == "1\n"
    assert part(told["hung"]) == ("critical", "timeout")
    assert part(told["no socket"]) == ("critical", "refused")
    assert "/run/postgresql/.s.PGSQL.5432" in told["no socket"][0]["summary"]
    assert part(told["log"]) == ("critical", "log-directory")
    assert "Could not create log file" in told["log"][0]["facts"]["Log"]
    (stopped,) = told["stopped"]
    assert (stopped["status"], stopped["intended"]) == ("ok", True)
    ((name, options, why),) = told["proposed"]
    assert (name, options) == (
        "postgres",
        {"type": "postgres", "unit": "postgresql@15-main.service"},
    )
    assert why == "PostgreSQL Cluster 15-main is installed, and active."
    (up,) = told["wrapper up"]
    assert (up["status"], up["cause"]) == ("unknown", "unavailable")
    assert "postgresql@15-main.service" in up["summary"]


@pytest.fixture(scope="module")
def no_start(host: Lab) -> Any:
    """What is found after each of NO_START, with one memory for all: no case blames another."""
    return run(
        host,
        f"""
        async def main(machine):
            watcher = watch(machine)
            told = {{}}
            for name, script in {[(name, script) for name, script, *_ in NO_START]!r}:
                print(name, file=sys.stderr)
                await fresh(watcher)
                sh(f"systemctl stop {{UNIT}}")
                for word in ("SMALL_WAL", "UNIT", "DATA", "SLOT", "FILL", "LOG"):
                    script = script.replace("$" + word, globals()[word])
                sh("set -e\\n" + script)
                sh(f"systemctl start {{UNIT}}", check=False)
                told[name] = [f for f in await watcher.fail()]
            return told
        """,
    )


@pytest.mark.long
@pytest.mark.parametrize(("name", "cause", "words"), [(n, c, w) for n, _, c, w in NO_START])
def test_a_server_that_does_not_start_says_why(
    no_start: Any, name: str, cause: str, words: str
) -> None:
    finding = no_start[name][0]
    assert finding["cause"] == cause, finding
    assert words in finding["summary"]
    if cause in ("wal-full", "no-room"):
        points = {"wal-full": "/pg_wal", "no-room": ""}
        mount = f"filesystem:/var/lib/postgresql/15/main{points[cause]}"
        assert finding["implicates"] == [mount]
    if cause == "checkpoint":
        assert "/var/lib/postgresql/15/main" in finding["facts"]["What a human does"]


@pytest.mark.long
def test_looks_at_a_server_without_a_checkpoint_touch_no_file_of_data(host: Lab) -> None:
    before, findings, after = run(
        host,
        """
        async def main(machine):
            watcher = watch(machine, write=True)
            await fresh(watcher)
            sh(CRASH + f"dd if=/dev/urandom of=$(ls {DATA}/pg_wal/0* | head -1) bs=1M count=16"
               f" conv=notrunc; systemctl start {UNIT} || true")
            state = (f"cd {DATA}; find . -type f -exec sha256sum {{}} + | sort;"
                     "find . -printf '%p %u %g %m %T@\\n' | sort")
            before = sh(state)
            await watcher.fail()
            findings = await watcher.look()
            kind, machine = CHECKS["postgres"], machine.remember(watcher.memories.open("db"))
            (finding, *_) = await kind.look(watcher.options, machine)
            await kind.gather(watcher.options, finding, machine)
            return before, findings, sh(state)
        """,
    )
    assert before == after
    assert (findings[0]["status"], findings[0]["cause"]) == ("critical", "checkpoint")


@pytest.mark.long
def test_a_stale_pid_file_is_the_cause_where_nobody_clears_it(host: Lab) -> None:
    told, started = run(
        host,
        """
        async def main(machine):
            raw = watch(machine, unit="raw-postgres.service")
            await fresh(watch(machine))
            sh(f"systemctl stop {UNIT}; systemctl start raw-postgres")
            await raw.until(fine)
            sh(f"cp {DATA}/postmaster.pid /root/pid; systemctl stop raw-postgres")
            # Of the same user: of another one's process the server knows that it is none of its.
            sh("systemd-run -q --unit=decoy --uid=postgres sleep 1000")
            sh("sed -i \\"1s/.*/$(systemctl show -P MainPID decoy)/\\" /root/pid;"
               f"install -o postgres -g postgres -m 600 /root/pid {DATA}/postmaster.pid")
            sh("systemctl start raw-postgres", check=False)
            told = await raw.fail()
            # Debian's own way of starting it takes the file for what it is.
            sh("systemctl reset-failed raw-postgres")
            sh(START)
            started = await watch(machine).look()
            sh(f"systemctl stop decoy {UNIT}")
            return told, started
        """,
    )
    assert (told[0]["status"], told[0]["cause"]) == ("critical", "pid-file")
    assert 'lock file "postmaster.pid" already exists' in told[0]["facts"]["Log"]
    assert part(started) == ("ok", "")


@pytest.mark.long
def test_a_write_ahead_log_that_fills_up_ends_a_server_that_runs(host: Lab) -> None:
    slot, ended = run(
        host,
        """
        async def main(machine):
            watcher = watch(machine, write=True, warning={"slot": "10M"})
            await fresh(watcher)
            sh(f"systemctl stop {UNIT}\\n" + SMALL_WAL + START)
            await watcher.until(fine)
            psql(SLOT)
            psql(ROWS.format(1, 50000))
            psql(ROWS.format(1, 50000))
            psql("CHECKPOINT")
            slot = await watcher.until(lambda found: not fine(found))
            filling = asyncio.create_task(asyncio.to_thread(sh, FILL))
            ended = await watcher.until(lambda found: found[0]["cause"] == "wal-full")
            await filling
            return slot, ended
        """,
    )
    (finding,) = [f for f in slot if f["status"] != "ok"]
    assert finding["subject"] == "postgresql@15-main.service slot gone"
    assert (finding["status"], finding["cause"]) == ("warning", "abandoned-slot")
    assert finding["measurements"]["slot_bytes"] > 10 * 2**20
    main = ended[0]
    (lost,) = [f for f in ended if f["subject"] == finding["subject"]]
    assert (main["status"], main["cause"]) == ("critical", "wal-full")
    assert main["implicates"] == ["filesystem:/var/lib/postgresql/15/main/pg_wal"]
    assert main["facts"]["Slots that nobody uses"] == "gone"
    assert (lost["status"], lost["cause"]) == ("unknown", "unavailable")


@pytest.mark.long
def test_a_restart_by_an_operator_is_no_failure(host: Lab) -> None:
    """Looks go on without a pause, over and over, while the server goes down and comes back."""
    seen, after = run(
        host,
        """
        async def main(machine):
            watcher = watch(machine, write=True)
            await fresh(watcher)
            restarts = asyncio.create_task(asyncio.to_thread(sh,
                f"for n in 1 2; do systemctl restart {UNIT}; sleep 0.7; done;"
                "systemctl start postgresql;"
                "for n in 1 2; do systemctl restart postgresql; sleep 0.7; done;"
                "pg_ctlcluster 15 main restart; sleep 1"))
            seen = []
            while not restarts.done():
                seen += [(f["status"], f["cause"], f["summary"]) for f in await watcher.look()]
            await restarts
            return sorted(set(seen)), await watcher.until(fine)
        """,
    )
    assert not [each for each in seen if each[0] not in ("ok", "unknown")]
    assert {cause for _, cause, _ in seen} <= {
        "", "starting", "stopping", "restarting", "unavailable"
    }, seen  # fmt: skip
    assert part(after) == ("ok", "")


@pytest.mark.long
def test_a_crash_is_told_after_the_recovery_and_for_a_while_only(host: Lab) -> None:
    told = run(
        host,
        """
        async def main(machine):
            watcher = watch(machine)
            await fresh(watcher)
            psql("CHECKPOINT")
            # Enough to replay that looks fall into the recovery.
            for n in range(1, 6):
                psql(ROWS.format(1001, 60000))
            sh(CRASH + f"systemctl start --no-block {UNIT}")
            seen = []
            recovered = await watcher.until(lambda found: seen.append(found) or (
                (of(found, "start") or {}).get("status") == "warning"))
            during = sorted({f["status"] for found in seen for f in found})
            # The time over which it is told must have passed.
            await asyncio.sleep(0.2)
            short = await watch(machine, recovered_for="100ms").look()
            sh(f"systemctl restart {UNIT}")
            whole = await watcher.until(fine)
            # A session's crash ends all others, and the server recovers with no new start.
            seen.clear()
            sh("kill -9 $(pgrep -u postgres -f walwriter)")
            crashed = await watcher.until(lambda found: seen.append(found) or (
                (of(found, "start") or {}).get("status") == "warning"))
            alive = sorted({(f["status"], f["cause"]) for found in seen for f in found})
            return during, recovered, short, whole, crashed, alive
        """,
    )
    during, recovered, short, whole, crashed, alive = told
    assert "critical" not in during
    for findings in (recovered, crashed):
        assert part(findings, "start") == ("warning", "recovered")
        assert part(findings) == ("ok", "")
    assert part(short, "start") == ("ok", "")
    assert {f["status"] for f in whole} == {"ok"}
    assert "critical" not in {status for status, _ in alive}, alive


@pytest.mark.long
def test_a_damaged_tail_of_the_log_is_told_although_the_server_starts_without_a_word(
    host: Lab,
) -> None:
    findings, rows = run(
        host,
        """
        async def main(machine):
            watcher = watch(machine)
            await fresh(watcher)
            psql("CHECKPOINT")
            name, offset = psql("SELECT file_name, file_offset FROM"
                " pg_walfile_name_offset(pg_current_wal_insert_lsn())").strip().split("|")
            psql(ROWS.format(1001, 21000))
            sh(CRASH + f"dd if=/dev/urandom of={DATA}/pg_wal/{name} bs=1 count=40000 conv=notrunc"
               f" seek={int(offset) + 200000}\\n" + START)
            return await watcher.settle(), psql("SELECT count(*) FROM shop")
        """,
    )
    assert rows == "1000\n"
    assert part(findings) == ("ok", "")
    assert part(findings, "start") == ("warning", "wal-tail")


@pytest.mark.long
def test_locks_connections_and_a_user_without_access_have_findings_of_their_own(host: Lab) -> None:
    told = run(
        host,
        """
        def hold(sql):
            held = subprocess.Popen(["runuser", "-u", "postgres", "--", "psql", "-Xq"],
                                    stdin=subprocess.PIPE, text=True)
            held.stdin.write(sql + "\\n")
            held.stdin.flush()
            return held

        async def main(machine):
            watcher = watch(machine, write=True, warning={"blocked": "1s"})
            told = {"whole": await fresh(watcher)}
            holder = hold("BEGIN; UPDATE shop SET t = 'x' WHERE id = 1;")
            sh("until runuser -u postgres -- psql -XAtqc \\"SELECT 1 FROM pg_stat_activity WHERE"
               " state = 'idle in transaction'\\" | grep -q 1; do sleep 0.1; done")
            waiter = hold("UPDATE shop SET t = 'secret' WHERE id = 1;")
            told["row"] = await watcher.until(lambda found: not fine(found))
            for each in (holder, waiter):
                each.stdin.write("ROLLBACK;\\n")
                each.stdin.close()
                each.wait()
            await watcher.until(fine)
            many = [hold("SELECT pg_sleep(100);") for _ in range(6)]
            told["some"] = await watcher.until(lambda found: not fine(found))
            many += [hold("SELECT pg_sleep(100);") for _ in range(4)]
            told["all"] = await watcher.until(lambda found: "critical" in [
                f["status"] for f in found])
            for each in many:
                each.kill()
                each.wait()
            sh(f"systemctl restart {UNIT}")
            await watcher.until(fine)
            psql("ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()")
            told["read-only"] = await watcher.until(lambda found: not fine(found))
            psql("SET default_transaction_read_only = off;"
                 "ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()")
            await watcher.until(fine)
            # A replica that every commit waits for, and that is not there.
            psql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'; SELECT pg_reload_conf()")
            told["synchronous"] = await watcher.fail()
            for _ in range(4):
                told["later"] = await watcher.look()
            told["stuck"] = psql("SELECT count(*) FROM pg_stat_activity"
                                 " WHERE application_name = 'hostmend' AND wait_event = 'SyncRep'")
            psql("ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()")
            await watcher.until(fine)
            # As docs/databases.md has it.
            sh("useradd --system hostmend")
            psql("CREATE ROLE hostmend LOGIN; GRANT pg_monitor TO hostmend")
            told["own user"] = await watch(machine, user="hostmend", write=True).look()
            psql("REVOKE pg_monitor FROM hostmend")
            told["little"] = await watch(machine, user="hostmend").look()
            psql("DROP ROLE hostmend")
            sh("userdel hostmend")
            told["denied"] = await watch(machine, user="nobody").look()
            told["nobody"] = await watch(machine, socket="/run/none/.s.PGSQL.5432").look()
            return told
        """,
    )
    assert part(told["row"], "queries") == ("warning", "blocked")
    assert part(told["row"]) == ("ok", "")
    assert part(told["some"], "connections") == ("warning", "connections")
    assert "critical" in [f["status"] for f in told["all"]]
    assert part(told["read-only"]) == ("warning", "read-only")
    for key in ("synchronous", "later"):
        assert part(told[key]) == ("critical", "write-timeout")
    # What hangs on the server must not become more with each look.
    assert int(told["stuck"]) <= 2
    assert {finding["status"] for finding in told["own user"]} == {"ok"}
    assert told["own user"][0]["summary"] == "postgresql@15-main.service reads and writes"
    assert "Not read" not in told["own user"][0]["facts"]
    assert len(told["own user"]) == len(told["whole"])
    assert part(told["little"]) == ("ok", "")
    assert "wal" in told["little"][0]["facts"]["Not read"]
    assert part(told["denied"]) == ("unknown", "denied")
    assert part(told["nobody"]) == ("unknown", "unavailable")
    # A statement may hold a password, so that none is ever shown.
    assert "UPDATE" not in str(told)
    assert "secret" not in str(told)


@pytest.mark.long
def test_an_archive_that_takes_nothing_is_told(host: Lab) -> None:
    failing, again = run(
        host,
        """
        async def main(machine):
            watcher = watch(machine)
            await fresh(watcher)
            with open("/etc/postgresql/15/main/conf.d/test.conf", "w") as settings:
                print("archive_mode = on", "archive_command = 'false'", sep=chr(10), file=settings)
            sh("chmod 644 /etc/postgresql/15/main/conf.d/test.conf")
            sh(f"systemctl restart {UNIT}")
            await watcher.until(fine)
            psql("CREATE TABLE more (); SELECT pg_switch_wal()")
            failing = await watcher.until(lambda found: not fine(found))
            sh("sed -i s/false/true/ /etc/postgresql/15/main/conf.d/test.conf")
            psql("SELECT pg_reload_conf()")
            return failing, await watcher.until(fine)
        """,
    )
    assert part(failing, "archive") == ("warning", "archive-failing")
    assert part(failing) == ("ok", "")
    assert part(again, "archive") == ("ok", "")


@pytest.mark.long
def test_replication_that_breaks_stops_or_is_behind_is_told_and_a_replica_is_never_written_to(
    host: Lab,
) -> None:
    told = run(
        host,
        """
        REPLICA = "postgresql@15-second.service"

        async def main(machine):
            primary = watch(machine)
            await fresh(primary)
            sh("pg_createcluster 15 second -p 5433 >/dev/null")
            sh("rm -r /var/lib/postgresql/15/second; runuser -u postgres -- pg_basebackup -R -C -S "
               "second -c fast -D /var/lib/postgresql/15/second")
            sh("echo 'max_connections = 10' > /etc/postgresql/15/second/conf.d/lab.conf")
            sh("systemctl daemon-reload")
            replica = watch(machine, unit=REPLICA, socket="/run/postgresql/.s.PGSQL.5433",
                            write=True)
            # Each cluster is enabled; whether it is to start says the unit of all of them.
            never = await replica.look()
            sh("systemctl enable postgresql")
            missed = await replica.look()
            sh(f"systemctl disable postgresql; systemctl start {REPLICA}")
            told = {"never": never, "missed": missed}
            told |= {"following": await replica.until(lambda found: fine(found) and any(
                f["subject"].endswith("replication") for f in found))}
            told["followed"] = await primary.until(lambda found: of(found, "replicas"))
            ask = "runuser -u postgres -- psql -XAtq -p 5433 -c "
            sh(ask + "'SELECT pg_wal_replay_pause()'")
            told["paused"] = await replica.until(lambda found: not fine(found))
            sh(ask + "'SELECT pg_wal_replay_resume()'")
            await replica.until(fine)
            sh(f"systemctl stop {UNIT}")
            told["alone"] = await replica.until(lambda found: not fine(found))
            sh(START)
            await replica.until(fine)
            # The primary forgets what the replica has not had.
            sh(f"systemctl stop {REPLICA}")
            psql("SELECT pg_drop_replication_slot('second')")
            for n in range(4):
                psql("CREATE TABLE IF NOT EXISTS more (); DROP TABLE more; SELECT pg_switch_wal();"
                     "CHECKPOINT")
            sh(f"sed -i /primary_slot_name/d /var/lib/postgresql/15/second/postgresql.auto.conf;"
               f"systemctl start {REPLICA}")
            told["broken"] = await replica.until(lambda found: "critical" in [
                f["status"] for f in found])
            sh("pg_dropcluster --stop 15 second")
            return told
        """,
    )

    def of_replica(key: str) -> tuple[str, str]:
        (finding,) = [f for f in told[key] if f["subject"].endswith("service replication")]
        return finding["status"], finding["cause"]

    (never,), (missed,) = told["never"], told["missed"]
    assert (never["status"], never["intended"]) == ("ok", True)
    assert "postgresql.service is disabled" in never["summary"]
    assert (missed["status"], missed["cause"]) == ("critical", "down")
    assert of_replica("following") == ("ok", "")
    assert told["following"][0]["facts"]["Not written"] == "it is a replica"
    assert part(told["followed"], "replicas") == ("ok", "")
    assert part(told["followed"], "slot second") == ("ok", "")
    assert of_replica("paused") == ("warning", "replication-stopped")
    assert of_replica("alone") == ("warning", "replication-stopped")
    assert of_replica("broken") == ("critical", "replication-broken")


@pytest.mark.long
def test_a_server_that_talks_nonsense_or_nothing_is_told_from_one_that_is_not_there(
    host: Lab,
) -> None:
    nonsense, nothing = run(
        host,
        """
        import os, socket, threading

        def serve(place, data):
            os.mkdir(place)
            path = f"{place}/.s.PGSQL.5432"
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
            await fresh(watch(machine))
            serve("/run/nonsense", os.urandom(3) + b"\\x00" + os.urandom(2000))
            serve("/run/nothing", b"")
            return [
                (await watch(machine, socket=f"/run/{name}/.s.PGSQL.5432",
                             answer_within="1s").look())[0]
                for name in ("nonsense", "nothing")
            ]
        """,
    )
    assert nonsense["status"] in ("critical", "unknown")
    assert nonsense["cause"] in ("error", "timeout", "unavailable")
    assert (nothing["status"], nothing["cause"]) == ("critical", "timeout")
