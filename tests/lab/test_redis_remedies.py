"""The remedy for Redis where it must not act: gates, copies, and what is left untouched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab_runs import PLAYBOOK, RUNTIME, find_playbooks, mend

from agent.lab import Lab

pytestmark = pytest.mark.long

REMEDY = "repair-redis-aof"
COPIES = "/srv/hostmend-copies"
AOF = "/var/lib/redis/appendonlydir/appendonly.aof.1.incr.aof"
#: Everything in the data directory: contents, owners, modes.
STATE = """
cd /var/lib/redis
{ find . -type f -exec sha256sum {} +; find . -printf '%p %u %g %m\\n'; } | sort
"""
STOP = "systemctl stop redis-server; systemctl reset-failed redis-server 2>/dev/null || true\n"
TRY = "systemctl start redis-server || true\n"


class Server:
    """A server that its own test has broken, the remedy, and a place for copies."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def sh(self, script: str) -> str:
        return self.lab.run(["bash", "-ec", script], timeout=120).stdout

    def mend(self, **given: Any) -> tuple[str, str]:
        given = {"unit": "redis-server.service", "copies": COPIES, **given}
        outcome, detail, _ = mend(self.lab, REMEDY, **given)
        return outcome, detail

    def state(self) -> str:
        return self.sh(STATE)

    def copies(self) -> list[str]:
        return self.sh(f"ls {COPIES}").split()


@pytest.fixture(scope="module")
def host(lab: Lab) -> Lab:
    """As the remedy's own test breaks it."""
    path = f"{find_playbooks(lab)}/{REMEDY}/test/break.yml"
    lab.run([PLAYBOOK, "-i", "localhost,", path], timeout=300)
    lab.run(["cp", "-a", "/var/lib/redis", "/root/redis.broken"])
    return lab


@pytest.fixture
def server(host: Lab) -> Iterator[Server]:
    server = Server(host)
    server.sh(
        "systemctl kill -s KILL redis-server || true\n"
        f"{STOP}rm -rf /var/lib/redis; cp -a /root/redis.broken /var/lib/redis\n"
        f"umount {COPIES}; mount -t tmpfs -o size=64m,mode=0700 tmpfs {COPIES}\n{TRY}"
    )
    yield server
    server.sh(f"rm -rf {RUNTIME}")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (f"dd if=/dev/urandom of={AOF} bs=1 count=20 seek=4000 conv=notrunc", "Bad file format"),
        # The length of a value in the middle becomes one beyond the end of the file: all that is
        # behind it looks like one command without an end.
        (f"sed -i '0,/^\\$9\\r$/s//$9999\\r/' {AOF}", "further commands"),
        (f"truncate -s 0 {AOF}; printf '*3\\r\\n$3\\r\\nSET\\r\\n$1\\r\\na\\r\\n$99999\\r\\n' >> "
         f"{AOF}; head -c 70k /dev/zero >> {AOF}", "more than cut_limit_kb (64)"),
        (f"chown root: {AOF}; chmod 600 {AOF}", "does not say that its append only file"),
    ],
    ids=["random bytes amid", "a length amid", "a long end", "another fault"],
)  # fmt: skip
def test_what_may_lose_a_whole_command_is_left_to_a_human(
    server: Server, damage: str, why: str
) -> None:
    server.sh(STOP + damage + "\n" + TRY)
    before = server.state()
    outcome, detail = server.mend()
    assert outcome == "needs_human", detail
    assert why in detail
    assert "redis-check-aof --fix" in detail
    (place,) = server.copies()
    assert f"{COPIES}/{place}" in detail
    assert server.state() == before
    server.sh(f"cd {COPIES}/{place}; sha256sum --quiet -c SHA256SUMS; diff -r data /var/lib/redis")
    # Tried again, there is still one copy, which is named again.
    outcome, detail = server.mend()
    assert (outcome, server.copies()) == ("needs_human", [place])
    assert f"{COPIES}/{place}" in detail
    assert server.state() == before


def test_nothing_is_cut_where_no_copy_can_be_made(server: Server) -> None:
    before = server.state()
    for prepare, given, why in (
        ("", {"copies": "/root"}, "same filesystem"),
        ("", {"copies": "/srv/nowhere"}, "make it"),
        ("", {"copy_limit_gb": 0.000001}, "copying it would be an outage of its own"),
        (f"mount -o remount,size=4k {COPIES}", {}, "no room for a copy"),
    ):
        server.sh(prepare or "true")
        outcome, detail = server.mend(**given)
        assert outcome == "needs_human", detail
        assert why in detail
    assert (server.state(), server.copies()) == (before, [])


def test_nothing_is_cut_while_anybody_uses_the_data(server: Server) -> None:
    before = server.state()
    with server.lab.popen(["sh", "-c", "cd /var/lib/redis; exec sleep 600"]) as sleeper:
        server.lab.wait_for(["sh", "-c", "ls -l /proc/[0-9]*/cwd | grep -q /var/lib/redis"])
        outcome, detail = server.mend()
        sleeper.kill()
    assert outcome == "needs_human"
    assert "its data is used by others" in detail
    assert server.state() == before


def test_a_preview_copies_and_changes_nothing(server: Server) -> None:
    before = server.state()
    outcome, detail, _ = mend(
        server.lab, REMEDY, preview=True, unit="redis-server.service", copies=COPIES
    )
    assert outcome == "ok", detail
    assert (server.state(), server.copies()) == (before, [])


def test_the_unfinished_end_lies_in_the_copy_and_all_else_is_served(server: Server) -> None:
    size = int(server.sh(f"stat -c %s {AOF}"))
    outcome, detail = server.mend()
    assert outcome == "ok", detail
    assert f"which had {size}" in detail
    (place,) = server.copies()
    copy = f"{COPIES}/{place}/data/appendonlydir/appendonly.aof.1.incr.aof"
    assert int(server.sh(f"stat -c %s {copy}")) == size
    assert server.sh("redis-cli dbsize").strip() == "199"
    server.sh(f"cmp -n $(stat -c %s {AOF}) {copy} {AOF}")
    assert server.sh(f"stat -c '%U %G' {AOF}").split() == ["redis", "redis"]
