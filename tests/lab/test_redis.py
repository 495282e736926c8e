"""The check `redis` against a real server that is broken in every way known to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import database_host
import pytest

from agent.lab import Lab

PRELUDE = '''
import shlex

#: The server as it was at first, with 200 keys in an append only file, and whatever settings come
#: in $1. A server that cannot save refuses to be stopped, so that it is killed.
FRESH = """
set -e
systemctl kill -s KILL redis-server 2>/dev/null || true
systemctl stop redis-server
systemctl reset-failed redis-server 2>/dev/null || true
while mountpoint -q /var/lib/redis; do umount -l /var/lib/redis; done
install -d -o redis -g redis -m 750 /var/lib/redis
install -d -o redis -g adm -m 2750 /var/log/redis
find /var/lib/redis -mindepth 1 -delete
sed -i '/^# lab/,$d' /etc/redis/redis.conf
cat - <(printf %s "$MORE") >> /etc/redis/redis.conf <<'END'
# lab
appendonly yes
appendfsync always
aof-use-rdb-preamble no
END
systemctl start redis-server
seq 200 | sed 's/.*/SET key:& value:&/' | redis-cli > /dev/null
"""
STOP = "systemctl stop redis-server\\n"
START = "systemctl start redis-server"
AOF = "/var/lib/redis/appendonlydir/appendonly.aof.1.incr.aof"
#: Has no room but for what is on it already, and nothing is lost by unmounting it.
SMALL = """
systemctl stop redis-server
mount -t tmpfs -o size=1m,mode=0770,uid=$(id -u redis),gid=$(id -g redis) tmpfs /var/lib/redis
"""
FILL = "head -c 2m /dev/zero > /var/lib/redis/fill || true"


def fine(findings):
    return all(f["status"] == "ok" for f in findings)


def part(findings, name):
    return next(f for f in findings if f["subject"] == f"redis-server.service {name}")


def worst(findings):
    return next((f for f in findings if f["status"] == "critical"), None)


def make_fresh(more=""):
    sh(f"MORE={shlex.quote(more)}\\n{FRESH}")


async def fresh(watcher, more=""):
    """The server as it was at first, and seen to be whole."""
    await asyncio.to_thread(make_fresh, more)
    return await watcher.until(fine)
'''

#: Name, settings, what is done to a server that is down, the cause, and what people are told.
NO_START = [
    (
        "append-only-file-that-breaks-off",
        "aof-load-truncated no\n",
        "truncate -s -20 $AOF",
        "aof-truncated",
        "breaks off",
    ),
    (
        "append-only-file-damaged-amid",
        "",
        "dd if=/dev/urandom of=$AOF bs=1 count=20 seek=4000 conv=notrunc",
        "aof-damaged",
        "cut off everything",
    ),
    (
        "manifest-of-nonsense",
        "",
        "echo nonsense >> /var/lib/redis/appendonlydir/appendonly.aof.manifest",
        "aof-files",
        "manifest",
    ),
    ("no-append-only-file", "", "rm $AOF", "aof-files", "not there"),
    (
        "snapshot-that-breaks-off",
        "appendonly no\n",
        "truncate -s -20 /var/lib/redis/dump.rdb",
        "snapshot-damaged",
        "breaks off",
    ),
    (
        "snapshot-of-nonsense",
        "appendonly no\n",
        "printf NONSENSE | dd of=/var/lib/redis/dump.rdb conv=notrunc",
        "snapshot-damaged",
        "damaged",
    ),
    (
        "snapshot-with-random-bytes",
        "appendonly no\n",
        "dd if=/dev/urandom of=/var/lib/redis/dump.rdb bs=1 seek=1000 count=300 conv=notrunc",
        "snapshot-damaged",
        "damaged",
    ),
    (
        "snapshot-of-a-newer-version",
        "appendonly no\n",
        "printf REDIS0099 | dd of=/var/lib/redis/dump.rdb conv=notrunc",
        "snapshot-version",
        "newer",
    ),
    ("no-data-directory", "", "mv /var/lib/redis /var/lib/gone", "data-directory", "missing"),
    (
        "files-of-another-owner",
        "",
        "chown -R root: /var/lib/redis/*; chmod -R go= /var/lib/redis/*",
        "data-directory",
        "may not use",
    ),
    (
        "snapshot-of-another-owner",
        "appendonly no\n",
        "chown root: /var/lib/redis/dump.rdb; chmod 600 /var/lib/redis/dump.rdb",
        "data-directory",
        "may not use",
    ),
    ("no-log-directory", "", "mv /var/log/redis /var/log/gone", "log-directory", "missing"),
    (
        "a-setting-that-does-not-exist",
        "",
        "echo nonsense 1 >> /etc/redis/redis.conf",
        "configuration",
        "configuration",
    ),
    (
        "another-program-on-its-port",
        "",
        "systemd-run -u squatter -p Restart=no "
        "redis-server --port 6379 --bind 127.0.0.1 --save '' --dir /\n"
        "until redis-cli ping; do sleep 0.1; done",
        "port-taken",
        "port",
    ),
    (
        "no-room",
        "",
        "mount -t tmpfs -o size=64k,mode=0770,uid=$(id -u redis) tmpfs /var/lib/redis\n"
        "head -c 65k /dev/zero > /var/lib/redis/fill || true",
        "no-room",
        "/var/lib/redis",
    ),
]


@pytest.fixture(scope="module")
def host(lab_tree: Path) -> Iterator[Lab]:
    with Lab.boot(lab_tree) as lab:
        yield lab


def run(host: Lab, program: str) -> Any:
    return database_host.run(host, program, PRELUDE)


def test_a_server_that_is_killed_hangs_refuses_writes_or_is_stopped_is_told_apart(
    host: Lab,
) -> None:
    """The short way through: the gate takes this one."""
    told = run(
        host,
        """
        async def main(machine):
            watcher = Watcher(machine, "redis", write=True, answer_within="1s",
                              deep_every="100ms")
            told = {"whole": await fresh(watcher, "aof-load-truncated no\\n")}
            told["key"] = sh("redis-cli ttl hostmend:probe")
            sh("systemctl kill -s STOP redis-server")
            told["hung"] = await watcher.fail()
            sh("systemctl kill -s CONT redis-server")
            await watcher.until(fine)
            sh("redis-cli config set port 0")
            told["deaf"] = await watcher.fail()
            sh("systemctl kill -s KILL redis-server")
            await watcher.until(fine)
            sh("redis-cli config set maxmemory 1")
            told["memory"] = await watcher.fail()
            sh("redis-cli config set maxmemory 0")
            await watcher.until(fine)
            sh(STOP + f"truncate -s -20 {AOF}")
            sh(START, check=False)
            told["aof"] = await watcher.fail()
            told["sum"] = [sh(f"stat -c %s {AOF}"), sh("systemctl is-active redis-server || true")]
            make_fresh()
            await watcher.until(fine)
            sh(STOP)
            told["stopped"] = await watcher.settle()
            return told
        """,
    )
    assert [f["subject"] for f in told["whole"]] == [
        "redis-server.service",
        "redis-server.service start",
        "redis-server.service connections",
        "redis-server.service memory",
        "redis-server.service saving",
    ]
    assert told["whole"][0]["summary"] == "redis-server.service reads and writes"
    assert told["whole"][0]["resource"] == "unit:redis-server.service"
    assert 0 < int(told["key"]) <= 60
    assert told["hung"][0]["cause"] == "timeout"
    assert told["deaf"][0]["cause"] == "refused"
    assert "127.0.0.1:6379" in told["deaf"][0]["summary"]
    assert told["memory"][0]["cause"] == "out-of-memory"
    assert told["aof"][0]["cause"] == "aof-truncated"
    assert "Unexpected end of file" in told["aof"][0]["facts"]["Log"]
    (stopped,) = told["stopped"]
    assert (stopped["status"], stopped["intended"]) == ("ok", True)


@pytest.fixture(scope="module")
def no_start(host: Lab) -> Any:
    """What is found after each of NO_START, with one memory for all: no case blames another."""
    return run(
        host,
        f"""
        async def main(machine):
            watcher = Watcher(machine, "redis")
            told = {{}}
            for name, more, script in {[(n, more, script) for n, more, script, *_ in NO_START]!r}:
                print(name, file=sys.stderr)
                await fresh(watcher, more)
                sh(STOP)
                sh(f"AOF={{AOF}}\\nset -e\\n" + script)
                sh(START, check=False)
                told[name] = [await watcher.fail()]
                # Of an agent that comes to it only now.
                sh("while [ $(systemctl show -P ActiveState redis-server) != failed ]; do "
                   "sleep 0.1; done")
                told[name].append(await Watcher(machine, "redis").fail())
                sh("systemctl stop squatter; for d in lib log; do"
                   " [ -d /var/$d/gone ] && rm -rf /var/$d/redis && mv /var/$d/gone /var/$d/redis;"
                   " done", check=False)
            return told
        """,
    )


@pytest.mark.long
@pytest.mark.parametrize(("name", "cause", "words"), [(n, c, w) for n, _, _, c, w in NO_START])
def test_a_server_that_does_not_start_says_why(
    no_start: Any, name: str, cause: str, words: str
) -> None:
    for (finding,) in no_start[name]:
        assert finding["cause"] == cause, finding
        assert words in finding["summary"]
        if cause == "no-room":
            assert finding["implicates"] == ["filesystem:/var/lib/redis"]


@pytest.mark.long
def test_a_restart_by_an_operator_is_no_failure(host: Lab) -> None:
    """Looks go on without a pause, over and over, while the server goes down and comes back."""
    statuses = run(
        host,
        """
        async def main(machine):
            watcher = Watcher(machine, "redis", write=True, deep_every="1s")
            await fresh(watcher)
            restarts = asyncio.create_task(asyncio.to_thread(
                sh, "for n in 1 2 3 4 5; do systemctl reset-failed redis-server; "
                    "systemctl restart redis-server; sleep 0.7; done"))
            seen = []
            while not restarts.done():
                seen += [(f["status"], f["cause"], f["summary"]) for f in await watcher.look()]
            await restarts
            return sorted(set(seen)), await watcher.until(fine)
        """,
    )
    assert {status for status, _, _ in statuses[0]} <= {"ok", "unknown"}, statuses
    assert {cause for _, cause, _ in statuses[0]} <= {"", "starting", "stopping", "restarting"}


@pytest.mark.long
def test_writes_that_a_full_disk_stops_name_the_disk_and_need_no_write_to_be_seen(
    host: Lab,
) -> None:
    told = run(
        host,
        """
        async def main(machine):
            told = {}
            for name, more in (("snapshot", "appendonly no\\nsave 1 1\\n"),
                               ("append only file", "appendfsync everysec\\n")):
                watcher = Watcher(machine, "redis", deep_every="100ms")
                await fresh(watcher, more)
                sh(SMALL + START)
                await watcher.until(fine)
                sh(FILL)
                for n in range(LIMIT):
                    sh("redis-cli set a $(head -c 3000 /dev/zero | tr '\\\\0' x)", check=False)
                    if worst(findings := await watcher.look()):
                        break
                    await asyncio.sleep(1)
                told[name] = findings
                sh("rm /var/lib/redis/fill")
                # Redis tries again by itself, a snapshot within 5 s.
                told[name + " again"] = await watcher.until(fine)
            return told
        """,
    )
    for name in ("snapshot", "append only file"):
        finding = told[name][0]
        assert (finding["status"], finding["cause"]) == ("critical", "writes-stopped"), finding
        assert finding["implicates"] == ["filesystem:/var/lib/redis"]
        saving = next(f for f in told[name] if f["subject"] == "redis-server.service saving")
        assert (saving["status"], saving["cause"]) == ("warning", "not-saved")
        assert name in saving["summary"]


@pytest.mark.long
def test_a_server_that_refuses_to_be_stopped_is_told_and_why(host: Lab) -> None:
    found = run(
        host,
        """
        async def main(machine):
            watcher = Watcher(machine, "redis", deep_every="100ms")
            await fresh(watcher, "appendonly no\\nsave 3600 1\\n")
            sh(SMALL + START)
            await watcher.until(fine)
            sh("redis-cli set a b; " + FILL)
            sh("systemctl stop --no-block redis-server")
            told = await watcher.fail()
            sh("rm /var/lib/redis/fill; systemctl kill --kill-whom=main redis-server")
            return [*told, *await watcher.until(fine)]
        """,
    )
    refused, stopped = found
    assert (refused["cause"], refused["implicates"]) == (
        "stop-refused",
        ["filesystem:/var/lib/redis"],
    )
    assert "can't exit" in refused["facts"]["Log"] or "shut down" in refused["facts"]["Log"]
    assert (stopped["status"], stopped["intended"]) == ("ok", True)


@pytest.mark.long
def test_an_append_only_file_that_was_cut_at_the_start_is_told_for_a_while(host: Lab) -> None:
    told = run(
        host,
        """
        async def main(machine):
            watcher = Watcher(machine, "redis")
            await fresh(watcher)
            sh(STOP + f"truncate -s -20 {AOF}\\n" + START)
            told = [await watcher.settle(), await Watcher(machine, "redis").look()]
            # The time over which it is told must have passed.
            await asyncio.sleep(0.2)
            told.append(await Watcher(machine, "redis", recovered_for="100ms").look())
            told.append(sh("redis-cli dbsize"))
            sh("systemctl restart redis-server")
            await watcher.until(fine)
            return told
        """,
    )
    for findings in told[:2]:
        start = next(f for f in findings if f["subject"] == "redis-server.service start")
        assert (start["status"], start["cause"]) == ("warning", "aof-cut")
        assert "Truncating the AOF" in start["facts"]["Log"]
        assert findings[0]["status"] == "ok"
    assert {f["status"] for f in told[2]} == {"ok"}
    assert told[3].strip() == "199"


@pytest.mark.long
def test_a_load_is_waited_for_and_has_a_limit(host: Lab) -> None:
    told = run(
        host,
        """
        async def main(machine):
            watcher = Watcher(machine, "redis")
            # As slow as a much larger one: it answers now and then meanwhile.
            await fresh(watcher, "appendonly no\\nrdbcompression no\\n"
                        "loading-process-events-interval-bytes 1024\\n")
            sh('long=$(seq -s - 300); for n in $(seq 200); do echo "SET long:$n $long"; done'
               " | redis-cli")
            sh("redis-cli save")
            sh("echo 'key-load-delay 50000' >> /etc/redis/redis.conf")
            sh("systemctl restart --no-block redis-server")
            short = Watcher(machine, "redis", warning={"loading": "500ms"},
                            critical={"loading": "2s"})
            told = {"loads": await watcher.until(
                lambda found: found[0]["transition"] == "loading its data")}
            told["long"] = await short.fail()
            told["later"] = await watcher.look()
            told["done"] = await watcher.until(fine)
            return told
        """,
    )
    loads, long = told["loads"][0], told["long"][0]
    assert (loads["status"], loads["cause"]) == ("unknown", "starting")
    assert 0 <= loads["measurements"]["loading_percent"] <= 100
    assert (long["status"], long["cause"], long["transition"]) == ("critical", "loading", "")
    assert told["later"][0]["status"] in ("unknown", "ok")
    assert told["done"][0]["summary"] == "redis-server.service reads"


@pytest.mark.long
def test_clients_memory_passwords_and_users_are_told_apart(host: Lab) -> None:
    told = run(
        host,
        """
        import socket
        from pathlib import Path

        async def main(machine):
            watcher = Watcher(machine, "redis", deep_every="100ms")
            told = {"whole": await fresh(watcher, "maxclients 10\\n")}
            held = [socket.create_connection(("127.0.0.1", 6379)) for _ in range(9)]
            told["some"] = await watcher.until(lambda found: not fine(found))
            held += [socket.create_connection(("127.0.0.1", 6379)) for _ in range(4)]
            told["all"] = await watcher.fail()
            for each in held:
                each.close()
            told["rejected"] = await watcher.until(
                lambda found: not worst(found) and not fine(found))
            await watcher.until(fine)

            used = part(await watcher.look(), "memory")["measurements"]["memory_bytes"]
            sh(f"redis-cli config set maxmemory {round(used * 1.05)}")
            told["nearly"] = await watcher.until(lambda found: not fine(found))
            sh("redis-cli config set maxmemory-policy allkeys-lru")
            await watcher.until(fine)
            sh("redis-cli config set maxmemory 0")

            secret = Path("/run/redis.secret")
            secret.touch(0o600)
            secret.write_text("open sesame\\n")
            sh("redis-cli config set requirepass 'open sesame'")
            told["asked"] = await watcher.look()
            told["let in"] = await Watcher(machine, "redis", write=True,
                                           password_file=str(secret)).look()
            secret.write_text("close sesame\\n")
            told["wrong"] = await Watcher(machine, "redis", password_file=str(secret)).look()
            sh("REDISCLI_AUTH='open sesame' redis-cli config set requirepass ''")
            told["none needed"] = await Watcher(machine, "redis", password_file=str(secret)).look()
            sh("redis-cli acl setuser hostmend on '>close sesame' '~hostmend:*' "
               "+get +set +ping +info '+config|get'")
            told["own user"] = await Watcher(machine, "redis", write=True, user="hostmend",
                                             password_file=str(secret)).look()
            sh("redis-cli acl setuser hostmend -@all +info")
            told["little"] = await Watcher(machine, "redis", write=True, user="hostmend",
                                           password_file=str(secret)).look()
            return told
        """,
    )

    def part(key: str, name: str = "") -> tuple[str, str]:
        subject = f"redis-server.service {name}".strip()
        (finding,) = [f for f in told[key] if f["subject"] == subject]
        return finding["status"], finding["cause"]

    assert part("some", "connections") == ("warning", "connections")
    assert part("some") == ("ok", "")
    assert part("all") == ("critical", "connections")
    assert part("rejected", "connections") == ("warning", "rejected")
    assert part("nearly", "memory") == ("warning", "memory")
    assert part("nearly") == ("ok", "")
    assert part("asked") == ("unknown", "denied")
    assert "password_file" in told["asked"][0]["summary"]
    assert told["let in"][0]["summary"] == "redis-server.service reads and writes"
    assert part("wrong") == ("unknown", "denied")
    assert part("none needed") == ("ok", "")
    assert {f["status"] for f in told["own user"]} == {"ok"}
    assert told["own user"][0]["summary"] == "redis-server.service reads and writes"
    assert len(told["own user"]) == len(told["whole"])
    assert part("little") == ("ok", "")
    assert "NOPERM" in told["little"][0]["facts"]["Not written"]
    assert "sesame" not in str(told)


@pytest.mark.long
def test_replicas_that_lose_their_master_or_fall_behind_are_told_and_never_written_to(
    host: Lab,
) -> None:
    told = run(
        host,
        """
        async def main(machine):
            watcher = Watcher(machine, "redis", write=True, deep_every="100ms",
                              warning={"link": "1s", "lag": "3s"}, critical={"link": "2s"})
            await fresh(watcher, "repl-diskless-sync-delay 0\\n")
            sh("systemctl stop other 2>/dev/null; systemd-run -u other redis-server --port 6380 "
               "--bind 127.0.0.1 --save '' --dir /run --repl-diskless-sync-delay 0 "
               "--repl-ping-replica-period 1")
            sh("until redis-cli -p 6380 replicaof 127.0.0.1 6379; do sleep 0.1; done")
            named = "redis-server.service replica 127.0.0.1:6380"
            has = lambda found: any(
                f["subject"] == named and f["measurements"] for f in found)
            told = {"master": await watcher.until(lambda found: fine(found) and has(found))}
            sh("systemctl kill -s STOP other")
            told["behind"] = await watcher.until(lambda found: not fine(found))
            sh("systemctl kill -s CONT other")
            await watcher.until(fine)
            sh("redis-cli -p 6380 replicaof no one")
            sh("redis-cli -p 6380 flushall; redis-cli replicaof 127.0.0.1 6380")
            told["replica"] = await watcher.until(
                lambda found: fine(found) and found[-1]["subject"].endswith("replication"))
            sh("systemctl stop other")
            told["cut off"] = await watcher.until(worst)
            told["keys"] = sh("redis-cli --raw keys '*'")
            sh("redis-cli replicaof no one")
            await watcher.until(fine)
            return told
        """,
    )
    behind = next(f for f in told["behind"] if "replica" in f["subject"])
    assert (behind["status"], behind["cause"]) == ("warning", "replication-lag")
    assert told["replica"][0]["facts"]["Not written"] == "it is a replica"
    cut_off = told["cut off"][-1]
    assert cut_off["subject"] == "redis-server.service replication"
    assert (cut_off["status"], cut_off["cause"]) == ("critical", "replication-down")
    assert told["cut off"][0]["status"] == "ok"
    assert told["keys"].strip() == ""


@pytest.mark.long
def test_a_server_that_talks_nonsense_or_nothing_is_told_from_one_that_is_not_there(
    host: Lab,
) -> None:
    nonsense, nothing, nobody, found = run(
        host,
        """
        import os, socket, threading

        def serve(path, data):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            listener.listen()

            def answer():
                held = []
                while True:
                    held.append(listener.accept()[0])
                    held[-1].send(data)

            threading.Thread(target=answer, daemon=True).start()

        async def main(machine):
            await fresh(Watcher(machine, "redis"))
            serve("/run/nonsense.sock", os.urandom(2000).replace(b"\\n", b"") + b"\\n")
            serve("/run/nothing.sock", b"")
            asked = [
                (await Watcher(machine, "redis", socket=f"/run/{name}.sock",
                               answer_within="1s").look())[0]
                for name in ("nonsense", "nothing", "nobody")
            ]
            return [*asked, [[p.name, dict(p.options)]
                             for p in await CHECKS["redis"].propose(machine)]]
        """,
    )
    assert (nonsense["status"], nonsense["cause"]) == ("critical", "error")
    assert nonsense["summary"].isprintable()
    assert (nothing["status"], nothing["cause"]) == ("critical", "timeout")
    assert (nobody["status"], nobody["cause"]) == ("unknown", "unavailable")
    assert found == [["redis", {"type": "redis", "unit": "redis-server.service", "write": True}]]
