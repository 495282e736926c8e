"""The remedies for PostgreSQL where they must not act: gates, and what is left untouched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_runs import PLAYBOOK, RUNTIME, find_playbooks, mend

from agent.lab import Lab

pytestmark = pytest.mark.long

UNIT = "postgresql@15-hostmend.service"
PLACE = "/srv/hostmend-postgres"
DATA = f"{PLACE}/data"
#: Everything on the small filesystem: contents, owners, modes.
STATE = f"cd {PLACE}; {{ find . -type f -exec sha256sum {{}} +; find . -printf '%p %u %g %m\\n'; }}"
PSQL = "runuser -u postgres -- psql -XqAt -p 5499"
SUM = f"{PSQL} -c \"SELECT count(*), md5(string_agg(t::text, ',' ORDER BY id)) FROM t\""


class Server:
    """A cluster in a lab host that a remedy's own test has broken, and the remedy."""

    def __init__(self, lab: Lab, remedy: str, unit: str) -> None:
        self.lab, self.remedy, self.unit = lab, remedy, unit
        lab.run(
            [PLAYBOOK, "-i", "localhost,", f"{find_playbooks(lab)}/{remedy}/test/break.yml"],
            timeout=300,
        )
        self.sums = lab.read("/root/hostmend-test-sums")

    def sh(self, script: str) -> str:
        return self.lab.run(["bash", "-ec", script], timeout=120).stdout

    def mend(self, *, preview: bool = False, **given: Any) -> tuple[str, str]:
        given = {"unit": self.unit, **given}
        outcome, detail, _ = mend(self.lab, self.remedy, preview=preview, **given)
        return outcome, detail

    def state(self) -> str:
        return "\n".join(sorted(self.sh(STATE).splitlines()))

    def start_id(self) -> str:
        return self.sh(f"systemctl show -P InvocationID {self.unit}")

    def refuses(self, words: str, **given: Any) -> None:
        """It asks for a human in these words, and has changed nothing."""
        before = self.state()
        outcome, detail = self.mend(**given)
        assert outcome == "needs_human", detail
        assert words in detail
        assert "by hand: " in detail
        assert self.state() == before


@pytest.fixture(scope="module")
def host(lab_tree: Path) -> Iterator[Lab]:
    with Lab.boot(lab_tree, size="3g") as lab:
        lab.run(["mkdir", "-p", "/etc/systemd/system/postgresql@.service.d"])
        limit = "[Unit]\nStartLimitIntervalSec=0\n"
        lab.write("/etc/systemd/system/postgresql@.service.d/lab.conf", limit)
        yield lab
        lab.run(["rm", "-rf", RUNTIME])


# free-postgres-wal

ALLOWED: dict[str, Any] = {"slots": ["gone"], "slot_mb": 16, "ballast": f"{PLACE}/ballast"}


def test_a_full_log_is_left_to_a_human_wherever_a_gate_does_not_hold(host: Lab) -> None:
    server = Server(host, "free-postgres-wal", UNIT)
    server.refuses(
        "none of the slots that may be dropped (none) is there", **{**ALLOWED, "slots": []}
    )
    server.refuses("those that are: gone, other", **{**ALLOWED, "slots": ["replica2"]})
    server.refuses("'x; --' is no name of a slot", **{**ALLOWED, "slots": ["x; --"]})
    server.refuses("was used within 6 h", **{**ALLOWED, "slots": ["other"]})
    server.refuses("was used within 12 h", **{**ALLOWED, "idle_for": 43200})
    without = {name: value for name, value in ALLOWED.items() if name != "ballast"}
    server.refuses("no ballast is configured", **without)
    server.refuses("cannot be had", **{**ALLOWED, "ballast": f"{PLACE}/none"})
    server.refuses("is no ballast of hostmend", **{**ALLOWED, "ballast": f"{DATA}/PG_VERSION"})
    server.sh(f"ln -s ballast {PLACE}/link")
    server.refuses("cannot be had", **{**ALLOWED, "ballast": f"{PLACE}/link"})
    server.sh(
        f"rm {PLACE}/link; {{ echo 'hostmend ballast'; head -c 40M /dev/zero; }} > /srv/other"
    )
    server.refuses("not on the filesystem", **{**ALLOWED, "ballast": "/srv/other"})
    server.sh(f"cp -a {PLACE}/ballast /srv/ballast; truncate -s 1M {PLACE}/ballast;"
              f"head -c 34M /dev/zero > {PLACE}/fill")  # fmt: skip
    server.refuses("holds too little", **ALLOWED)
    server.sh(f"rm {PLACE}/fill; mv /srv/ballast {PLACE}/ballast; mv {PLACE}/ballast {DATA}/")
    server.refuses("lies in the data directory", **{**ALLOWED, "ballast": f"{DATA}/ballast"})
    server.sh(f"mv {DATA}/ballast {PLACE}/")
    # A preview says what it would do, and does nothing.
    before = server.state()
    outcome, detail = server.mend(preview=True, **ALLOWED)
    assert outcome == "ok", detail
    assert server.state() == before
    # Known only once the server runs: a slot that keeps little stays, and so do all rows.
    outcome, detail = server.mend(**{**ALLOWED, "slot_mb": 4000})
    assert outcome == "needs_human"
    assert "runs, and no slot was dropped: gone keeps only" in detail
    assert f"removed the ballast {PLACE}/ballast; make it again" in detail
    assert server.sh(SUM) == server.sums
    slots = f"{PSQL} -c 'SELECT slot_name FROM pg_replication_slots ORDER BY 1'"
    assert server.sh(slots) == "gone\nother\n"
    # Mended now, and nothing is left for a second run to do.
    outcome, detail = server.mend(**ALLOWED)
    assert outcome == "ok", detail
    assert "dropped the slot gone (physical" in detail
    assert server.sh(slots) == "other\n"
    started, size = server.start_id(), server.sh(f"du -s {DATA}/pg_wal")
    outcome, detail = server.mend(**ALLOWED)
    assert outcome == "ok", detail
    assert (server.start_id(), server.sh(f"du -s {DATA}/pg_wal")) == (started, size)
    assert server.sh(SUM) == server.sums


def test_a_slot_that_came_into_use_again_stays(host: Lab) -> None:
    server = Server(host, "free-postgres-wal", UNIT)
    outcome, detail = server.mend(**ALLOWED)
    assert outcome == "ok", detail
    server.sh(f"{PSQL} -c \"SELECT pg_create_physical_replication_slot('gone', true)\"")
    receive = ["runuser", "-u", "postgres", "--", "pg_receivewal", "-p", "5499", "-S", "gone",
               "-D", "/tmp", "--no-loop"]  # fmt: skip
    with server.lab.popen(receive) as receiver:
        active = f"{PSQL} -c \"SELECT active FROM pg_replication_slots WHERE slot_name = 'gone'\""
        server.lab.wait_for(["sh", "-c", f"{active} | grep -q t"])
        server.sh(f"touch -d '7 hours ago' {DATA}/pg_replslot/gone/state")
        outcome, detail = server.mend(**{**ALLOWED, "slot_mb": 0})
        assert outcome == "ok", detail
        assert "gone is in use" in detail
        assert server.sh(active) == "t\n"
        receiver.kill()


# clear-postgres-pid

#: Holds a segment of shared memory, and prints its number.
HOLD = """
import ctypes, time
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
segment = libc.shmget(0, 4096, 0o1600)
libc.shmat(segment, None, 0)
print(segment, flush=True)
libc.shmctl(segment, 0, None)
time.sleep(600)
"""


def test_a_pid_file_stays_wherever_it_may_belong_to_somebody(host: Lab) -> None:
    server = Server(host, "clear-postgres-pid", "test-postgres.service")
    pid_file = f"{DATA}/postmaster.pid"
    with server.lab.popen(["sh", "-c", f"cd {DATA}; exec sleep 600"]) as sleeper:
        server.lab.wait_for(["sh", "-c", f"ls -l /proc/[0-9]*/cwd | grep -q {DATA}"])
        server.refuses(f"works in {DATA}")
        sleeper.kill()
    with server.lab.popen(["sh", "-c", f"exec sleep 600 < {DATA}/PG_VERSION"]) as sleeper:
        server.lab.wait_for(["sh", "-c", f"ls -l /proc/[0-9]*/fd | grep -q {DATA}"])
        server.refuses("(sleep)")
        sleeper.kill()
    listen = (
        "import socket, time; s = socket.socket(socket.AF_UNIX);"
        "s.bind('/run/postgresql/.s.PGSQL.5499'); s.listen(); time.sleep(600)"
    )
    server.sh("rm -f /run/postgresql/.s.PGSQL.5499")
    with server.lab.popen(["python3", "-c", listen]) as listener:
        server.lab.wait_for(["grep", "-q", "5499", "/proc/net/unix"])
        server.refuses("something listens at /var/run/postgresql/.s.PGSQL.5499")
        listener.kill()
    server.sh(f"rm -f /run/postgresql/.s.PGSQL.5499; cp -a {pid_file} /root/pid")
    with server.lab.popen(["python3", "-c", HOLD], stdout=-1, text=True) as holder:
        assert holder.stdout is not None
        number = int(holder.stdout.readline())
        server.sh(f"sed -i '7s/.*/5499 {number}/' {pid_file}")
        server.refuses(f"attached to its shared memory {number}")
        holder.kill()
    for text, words in (
        ("", "names no process"),
        ("nonsense", "names no process"),
        ("1\\n/srv/elsewhere", "is of another data directory, /srv/elsewhere"),
    ):
        server.sh(f"printf '{text}\\n' > {pid_file}")
        server.refuses(words)
    # A server that somebody started past its unit.
    server.sh(
        f"cp -a /root/pid {pid_file}; systemctl stop test-decoy; setsid runuser -u postgres --"
        f" /usr/lib/postgresql/15/bin/postgres -D {DATA}"
        " -c config_file=/etc/postgresql/15/hostmend/postgresql.conf >/dev/null 2>&1 </dev/null &"
        f" until {SUM}; do sleep 0.1; done"
    )
    main = server.sh(f"head -1 {pid_file}").strip()
    server.sh("systemctl start test-postgres || true")
    outcome, detail = server.mend()
    assert outcome == "needs_human"
    assert f"process {main}" in detail
    assert "is a postgres" in detail
    assert server.sh(f"head -1 {pid_file}").strip() == main
    assert server.sh(SUM) == server.sums
    # All that is left of one whose first process was killed.
    server.sh(
        f"{PSQL} -c 'SELECT pg_sleep(600)' >/dev/null 2>&1 </dev/null & "
        f"until {PSQL} -c \"SELECT pid FROM pg_stat_activity WHERE query ~ 'sleep.600'"
        ' AND pid <> pg_backend_pid()" | grep . > /root/backend; do sleep 0.1; done;'
        f"kill -STOP $(cat /root/backend); kill -9 {main}"
    )
    server.sh(f"test -e {pid_file} || cp -a /root/pid {pid_file}")
    server.sh("kill -0 $(cat /root/backend)")
    server.refuses(f"works in {DATA}")
    server.sh(
        "kill -9 $(cat /root/backend); while kill -0 $(cat /root/backend); do sleep 0.1; done"
    )
    outcome, detail = server.mend()
    assert outcome == "ok", detail
    assert server.sh(SUM) == server.sums
    started = server.start_id()
    assert server.mend()[0] == "ok"
    assert server.start_id() == started


# restore-postgres-log-directory


def test_a_log_directory_that_somebody_arranged_is_left_to_a_human(host: Lab) -> None:
    server = Server(host, "restore-postgres-log-directory", UNIT)
    logs = "/var/log/postgresql"
    server.sh(f"mv {logs} /srv/logs; ln -s /srv/logs {logs}")
    look = f"stat -c '%U:%G %a' /srv/logs /etc/shadow {logs}/ 2>/dev/null || true"
    before = server.sh(look)
    server.refuses("is a link or no directory")
    assert server.sh(look) == before
    # Whoever may write there must not be given a file of root's.
    server.sh(f"rm {logs}; mv /srv/logs {logs}; cp /etc/shadow /root/shadow;"
              f"mkdir /var/log/secret; mv /root/shadow /var/log/secret/;"
              f"ln /var/log/secret/shadow {logs}/postgresql-15-hostmend.log")  # fmt: skip
    owner = f"stat -c '%U:%G %a' {logs} /var/log/secret/shadow"
    before = server.sh(owner)
    server.refuses("is no plain file of its own (2 names)")
    assert server.sh(owner) == before
    server.sh(f"rm {logs}/postgresql-15-hostmend.log; mount -t tmpfs -o ro tmpfs {logs}")
    server.refuses("read-only; a disk may be dying")
    server.sh(f"umount {logs}")
    server.refuses("is no unit of Debian's", unit="test-postgres.service")
    server.refuses("stands for all clusters", unit="postgresql.service")
    before = server.state()
    outcome, detail = server.mend(preview=True)
    assert outcome == "ok", detail
    assert server.state() == before
    outcome, detail = server.mend()
    assert outcome == "ok", detail
    assert "gave /var/log/postgresql to root:postgres with mode 1775" in detail
    assert server.sh(SUM) == server.sums
    started = server.start_id()
    assert server.mend()[0] == "ok"
    assert server.start_id() == started
