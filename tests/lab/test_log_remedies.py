"""Remedies for logs on a real host: what they mend, leave to a human, and never touch.

What each mends by its own test: test_remedies.py. What the checks say before: test_logs.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab_check import check_in
from lab_runs import PLAYBOOK, RUNTIME, find_playbooks, mend
from ruamel.yaml import YAML

from agent.lab import Lab
from agent.remedies.catalog import SHIPPED

pytestmark = [pytest.mark.lab, pytest.mark.long]

ERRORS = "/var/log/nginx/error.log"
NGINX = "/var/log/nginx"
VOLUME = "/var/log/volume"
QUARANTINE = "/var/log/journal/hostmend-quarantine"
STATE = "/var/lib/logrotate/status"


@pytest.fixture
def host(lab: Lab) -> Iterator[Lab]:
    yield lab
    lab.run(["sh", "-c", "systemctl stop nginx 'writer*'; systemctl reset-failed"], check=False)
    lab.run(["sh", "-c", f"umount -l {VOLUME} {NGINX}"], check=False)
    lab.run(
        ["rm", "-rf", RUNTIME, "/etc/tmpfiles.d/app.conf", "/var/log/app", "/var/log/elsewhere"]
    )
    lab.run(["sh", "-c", f"[ ! -L {NGINX} ] || rm {NGINX}"])
    lab.run(["install", "-d", "-o", "root", "-g", "adm", "-m", "755", NGINX])


def state(lab: Lab, *paths: str) -> list[str]:
    done = lab.run(["stat", "--format=%U:%G %a", *paths], check=False)
    return done.stdout.splitlines()


# By hand


@pytest.mark.parametrize(
    "remedy",
    [
        "restore-log-directory", "release-deleted-files", "repair-journal", "repair-logrotate",
        "rotate-runaway-log", "restart-logging",
    ],
)  # fmt: skip
def test_a_playbook_by_hand_mends_the_same_and_changes_nothing_the_second_time(
    host: Lab, remedy: str
) -> None:
    place = f"{find_playbooks(host)}/{remedy}"
    options = YAML(typ="safe").load(SHIPPED / remedy / "test" / "options.yml")

    def play(name: str, *given: str) -> str:
        done = host.run([PLAYBOOK, "-i", "localhost,", f"{place}/{name}", *given], timeout=300)
        return done.stdout

    # What the same remedy left behind before.
    host.run(["rm", "-rf", QUARANTINE, f"{STATE}.corrupt-1"])
    play("test/break.yml")
    # Without a name of a value, as a human would leave out what has a default.
    given = [word for name, value in options.items() for word in ("-e", f"{name}={value}")]
    assert "changed=1" in play("playbook.yml", *given)
    play("test/verify.yml")
    assert "changed=0" in play("playbook.yml", *given)


# restore-log-directory


def test_a_directory_that_only_the_check_knew_comes_back_as_it_was_and_nginx_starts(
    host: Lab,
) -> None:
    with check_in(host, "log", path=ERRORS) as check:
        host.run(["rm", "-r", NGINX])
        assert host.run(["nginx", "-t"], check=False).returncode == 1
        finding = check.wait_for("directory")
        assert finding["facts"]["Last seen"] == "of root:adm, permissions 0755"
        given = {
            f"seen_{what}": finding["measurements"][f"directory_{what}"]
            for what in ("uid", "gid", "mode")
        }
    outcome, detail, _ = mend(host, "restore-log-directory", path=ERRORS, preview=True, **given)
    assert (outcome, state(host, NGINX)) == ("ok", []), detail
    outcome, detail, _ = mend(host, "restore-log-directory", path=ERRORS, **given)
    assert outcome == "ok", detail
    assert "made, as root:adm 0755" in detail
    # The log too, as logrotate would make it.
    assert state(host, NGINX, ERRORS) == ["root:adm 755", "www-data:adm 640"]
    host.run(["systemctl", "start", "nginx"])


@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        ("echo 'd /var/log/app 2750 mysql adm -' > /etc/tmpfiles.d/app.conf", "mysql:adm 2750"),
        (
            "dpkg-statoverride --add redis adm 0700 /var/log/app",
            "redis:adm 700",
        ),
        (
            "systemd-run -q --unit=writer-app -p LogsDirectory=app -p LogsDirectoryMode=0711"
            " -p User=www-data -p Group=adm sleep 600",
            "www-data:adm 711",
        ),
    ],
    ids=["tmpfiles", "statoverride", "unit"],
)
def test_what_the_host_itself_says_is_right(host: Lab, known: str, wanted: str) -> None:
    host.run(["sh", "-c", known])
    try:
        host.run(["rm", "-rf", "/var/log/app"])
        # What the check saw is older than what is configured.
        given = {"seen_uid": 0.0, "seen_gid": 0.0, "seen_mode": float(0o755)}
        for _ in range(2):
            outcome, detail, _ = mend(
                host, "restore-log-directory", path="/var/log/app/app.log", **given
            )
            assert (outcome, state(host, "/var/log/app")) == ("ok", [wanted]), detail
        host.run(["chown", "root:root", "/var/log/app"])
        host.run(["chmod", "777", "/var/log/app"])
        outcome, detail, _ = mend(host, "restore-log-directory", path="/var/log/app/app.log")
        assert (outcome, state(host, "/var/log/app")) == ("ok", [wanted]), detail
        assert "changed from root:root" in detail
    finally:
        host.run(["dpkg-statoverride", "--remove", "/var/log/app"], check=False)


@pytest.mark.parametrize(
    ("broken", "path", "given", "words"),
    [
        (f"rm -r {NGINX}", ERRORS, {}, "apt-get install --reinstall nginx-common"),
        (
            f"rm -r {NGINX}",
            ERRORS,
            {"seen_uid": 0.0, "seen_gid": 0.0, "seen_mode": float(0o777)},
            "nothing on this host says whose",
        ),
        (
            f"rm -r {NGINX}; mkdir /var/log/elsewhere; ln -s /var/log/elsewhere {NGINX}",
            ERRORS,
            {"owner": "root", "group": "adm", "mode": "0755"},
            "is no directory but a link",
        ),
        ("true", "/var/log/app/deep/x.log", {}, "/var/log/app is missing too"),
        ("true", "/etc/app/x.log", {}, "is no directory that this remedy may bring back"),
        ("true", "/var/log/x.log", {}, "is no directory that this remedy may bring back"),
        ("true", "/var/log/journal/x.log", {}, "is no directory that this remedy may bring back"),
        (
            f"mkdir -p {VOLUME}; mount -t tmpfs -o ro none {VOLUME}",
            f"{VOLUME}/app/x.log",
            {"owner": "root", "group": "adm", "mode": "0755"},
            "is read-only (errno 30)",
        ),
        (
            "true",
            "/var/log/app/x.log",
            {"owner": "nobody-such", "group": "adm", "mode": "0755"},
            "names the user nobody-such",
        ),
    ],
    ids=[
        "unknown", "open-to-all", "link", "parent", "outside", "root", "journal", "read-only",
        "user",
    ],
)  # fmt: skip
def test_a_directory_of_which_it_is_not_sure_is_left_to_a_human(
    host: Lab, broken: str, path: str, given: dict[str, Any], words: str
) -> None:
    host.run(["sh", "-c", broken])
    outcome, detail, _ = mend(host, "restore-log-directory", path=path, **given)
    assert outcome == "needs_human", detail
    assert words in detail
    directory = path.rpartition("/")[0]
    if directory not in ("/var/log", "/var/log/journal") and "link" not in words:
        assert host.run(["test", "-e", directory], check=False).returncode != 0
    assert host.run(["sh", "-c", "ls -A /var/log/elsewhere 2>/dev/null || true"]).stdout == ""


# release-deleted-files

#: Holds files open, deletes them, and writes to each again and again, up to five minutes.
HOLD = """
import ctypes, os, sys, time
held = {}
for path in sys.argv[2:]:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    flags = os.O_APPEND if sys.argv[1] == "append" else 0
    held[path] = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o600)
    os.write(held[path], b"old\\n" * 50_000)
    os.unlink(path)
held["memfd"] = os.memfd_create("log", 0)
os.write(held["memfd"], b"old\\n" * 50_000)
open("/run/writer-ready", "w").close()
for _ in range(3000):
    for fd in held.values():
        os.write(fd, b"new\\n")
    time.sleep(0.1)
"""


def hold(lab: Lab, how: str, *paths: str, unit: str = "writer") -> str:
    """A service that has deleted files open; the number of its process."""
    lab.run(["rm", "-f", "/run/writer-ready"])
    lab.run(["systemd-run", "-q", f"--unit={unit}", "python3", "-c", HOLD, how, *paths])
    lab.wait_for(["test", "-e", "/run/writer-ready"])
    return lab.run(["systemctl", "show", "--value", "-p", "MainPID", unit]).stdout.strip()


def sizes(lab: Lab, pid: str) -> dict[str, int]:
    """What a process holds, by its last path: how long it is."""
    told = lab.run(["sh", "-c", f"for f in /proc/{pid}/fd/*; do readlink $f; stat -Lc %s $f; done"])
    lines = told.stdout.splitlines()
    return {
        path.removesuffix(" (deleted)"): int(size)
        for path, size in zip(lines[::2], lines[1::2], strict=True)
        if path.endswith(" (deleted)")
    }


def test_a_log_whose_writer_cannot_open_it_anew_gives_its_room_back_and_asks_for_a_restart(
    host: Lab,
) -> None:
    pid = hold(host, "append", "/var/log/app/app.log")
    given = {"path": "/var/log/app/app.log", "patience": 1}
    assert sizes(host, pid)["/var/log/app/app.log"] >= 200_000
    outcome, detail, _ = mend(host, "release-deleted-files", preview=True, **given)
    assert "would ask to open anew" in detail
    assert sizes(host, pid)["/var/log/app/app.log"] >= 200_000
    outcome, detail, _ = mend(host, "release-deleted-files", **given)
    assert outcome == "needs_human", detail
    assert f"(process {pid}, writer.service)" in detail
    assert "systemctl restart writer.service" in detail
    # It goes on at the beginning: there is no hole.
    assert 0 < sizes(host, pid)["/var/log/app/app.log"] < 200_000


def test_a_writer_that_does_not_append_is_left_alone(host: Lab) -> None:
    pid = hold(host, "over", "/var/log/app/app.log")
    outcome, detail, _ = mend(
        host, "release-deleted-files", path="/var/log/app/app.log", patience=1
    )
    assert outcome == "needs_human", detail
    assert "does not append" in detail
    assert sizes(host, pid)["/var/log/app/app.log"] >= 200_000


def test_a_service_is_asked_by_the_command_of_the_configuration(host: Lab) -> None:
    hold(host, "append", "/var/log/app/app.log")
    outcome, detail, _ = mend(
        host,
        "release-deleted-files",
        path="/var/log/app/app.log",
        reopen=["systemctl", "stop", "writer"],
    )
    assert outcome == "ok", detail
    assert "opened /var/log/app/app.log anew" in detail


#: Deleted and held, on the very filesystem whose room is wanted, and no logs all the same.
NO_LOGS = (
    "ibtmp1", "ib8Xk2Pa", "ib_logfile0", "ibdata1", "undo_001", "aria_log.00000001",
    "mariadb-bin.000002", "binlog.000001", "000000010000000000000002", "app.wal", "app.db-wal",
    "dump.sql", "app.rdb", "app.db", "app.sqlite",
)  # fmt: skip


def test_on_a_filesystem_only_logs_are_released_and_never_a_databases_files(host: Lab) -> None:
    host.volume(VOLUME, "64M")
    never = [f"{VOLUME}/{name}" for name in NO_LOGS]
    elsewhere = ["/tmp/ibAbCd12", "/var/lib/app/app.log", "/var/log/audit/audit.log",
                 "/var/log/journal/app.log", "/var/log/other.log"]  # fmt: skip
    pid = hold(host, "append", f"{VOLUME}/app.log", *never, *elsewhere)
    outcome, detail, _ = mend(host, "release-deleted-files", path=VOLUME, patience=1)
    assert outcome == "ok", detail
    found = sizes(host, pid)
    assert found.pop(f"{VOLUME}/app.log") < 200_000
    assert len(found) == len(never) + len(elsewhere) + 1
    assert min(found.values()) >= 200_000, found
    # Not by their own names either.
    for path in (*never[:3], *elsewhere[:4]):
        outcome, detail, _ = mend(host, "release-deleted-files", path=path, patience=1)
        assert outcome == "needs_human"
        assert "what is none is never touched" in detail
    assert min(size for path, size in sizes(host, pid).items() if path != f"{VOLUME}/app.log") >= (
        200_000
    )


def test_a_container_that_calls_its_own_file_so_is_left_alone(host: Lab) -> None:
    host.run(["mkdir", "-p", "/srv/inside/bin", "/srv/inside/var/log/app", "/srv/inside/proc"])
    host.run(["cp", "/bin/busybox", "/srv/inside/bin/busybox"])
    write = (
        "exec 5>>/var/log/app/app.log; i=0; while [ $i -lt 2000 ]; do echo old >&5; i=$((i+1));"
        " done; /bin/busybox rm /var/log/app/app.log; /bin/busybox sleep 300"
    )
    root = ["-p", "RootDirectory=/srv/inside", "-p", "MountAPIVFS=yes"]
    host.run(["systemd-run", "-q", "--unit=writer", *root, "/bin/busybox", "sh", "-c", write])
    pid = host.run(["systemctl", "show", "--value", "-p", "MainPID", "writer"]).stdout.strip()
    host.wait_for(lambda: "/var/log/app/app.log" in sizes(host, pid))
    outcome, detail, _ = mend(host, "release-deleted-files", path="/var/log/app/app.log")
    assert (outcome, "nothing deleted is held" in detail) == ("ok", True), detail
    assert sizes(host, pid)["/var/log/app/app.log"] == 8000


# repair-journal

DAMAGE = ["if=/dev/urandom", "conv=notrunc", "bs=1", "seek=20000", "count=4000"]


def list_journal(lab: Lab) -> dict[str, str]:
    """Digests of the archived files, by path."""
    done = lab.run(["sh", "-c", "sha256sum /var/log/journal/*/*@*.journal || true"])
    return dict(reversed(line.split("  ", 1)) for line in done.stdout.splitlines())


@pytest.fixture
def archived(host: Lab) -> Iterator[str]:
    before = list_journal(host)
    for word in ("one", "two"):
        host.run(["logger", f"{word} to keep"])
        host.run(["journalctl", "--rotate"])
    path = sorted(set(list_journal(host)) - set(before))[0]
    yield path
    host.run(["sh", "-c", f"rm -rf {QUARANTINE} /var/log/journal/*/*@*.journal"])


def test_a_corrupt_file_is_set_aside_and_its_neighbours_are_left_alone(
    host: Lab, archived: str
) -> None:
    # What another host sent here is no journal of this one.
    other = "/var/log/journal/0123456789abcdef0123456789abcdef"
    host.run(["mkdir", "-p", other])
    host.run(["cp", archived, f"{other}/system@other.journal"])
    host.run(["dd", f"of={other}/system@other.journal", *DAMAGE])
    try:
        with check_in(host, "journal") as check:
            host.run(["dd", f"of={archived}", *DAMAGE])
            check.wait_for("corrupt")
            before = list_journal(host)
            outcome, detail, _ = mend(host, "repair-journal", preview=True)
            assert (outcome, list_journal(host)) == ("ok", before), detail
            outcome, detail, _ = mend(host, "repair-journal")
            assert outcome == "ok", detail
            assert "takes lines" in detail
            check.wait_for("")
        after = list_journal(host)
        name = archived.rpartition("/")[2]
        assert after.pop(f"{QUARANTINE}/{name}") == before.pop(archived)
        # Nothing else was touched, not even by a rotation.
        assert after == before
        assert host.run(["journalctl", "--grep=^two to keep$", "-o", "cat"]).stdout.strip()
        whole = list_journal(host)
        outcome, detail, _ = mend(host, "repair-journal")
        assert (outcome, list_journal(host)) == ("ok", whole), detail
    finally:
        host.run(["rm", "-rf", other])


def test_a_corrupt_file_that_journald_writes_to_is_rotated_and_set_aside(
    host: Lab, archived: str
) -> None:
    active = f"/var/log/journal/{host.read('/etc/machine-id').strip()}/system.journal"
    host.run(["sh", "-c", "for i in $(seq 200); do logger line $i; done; journalctl --sync"])
    host.run(["dd", f"of={active}", *DAMAGE])
    assert host.run(["journalctl", "--verify"], check=False).returncode != 0
    outcome, detail, _ = mend(host, "repair-journal")
    assert outcome == "ok", detail
    host.run(["journalctl", "--verify", "--quiet"])
    assert host.run(["sh", "-c", f"ls {QUARANTINE}"]).stdout.startswith("system")


def test_a_journal_that_nobody_keeps_or_can_write_is_left_to_a_human(
    host: Lab, archived: str
) -> None:
    host.run(["dd", f"of={archived}", *DAMAGE])
    before = list_journal(host)
    host.volume(VOLUME, "16M")
    for given, words in [
        ({"quarantine": f"{VOLUME}/quarantine"}, "on another filesystem"),
        ({"directory": "/var/log/app"}, "keeps no journal"),
    ]:
        outcome, detail, _ = mend(host, "repair-journal", **given)
        assert outcome == "needs_human", detail
        assert words in detail
    host.run(["systemctl", "stop", "systemd-journald.socket", "systemd-journald-dev-log.socket",
              "systemd-journald-audit.socket", "systemd-journald"])  # fmt: skip
    try:
        outcome, detail, _ = mend(host, "repair-journal")
        assert outcome == "needs_human", detail
        assert "systemctl start systemd-journald.service" in detail
    finally:
        host.run(["systemctl", "start", "systemd-journald.socket",
                  "systemd-journald-dev-log.socket", "systemd-journald"])  # fmt: skip
    assert {path: digest for path, digest in list_journal(host).items() if path in before} == before


# repair-logrotate


@pytest.fixture
def rotating(host: Lab) -> Iterator[Lab]:
    host.run(["systemctl", "start", "logrotate"])
    yield host
    clean = f"rm -rf {STATE}* /etc/logrotate.d/again; systemctl reset-failed logrotate"
    host.run(["sh", "-c", clean], check=False)


def fail_rotation(lab: Lab, damage: str) -> None:
    lab.run(["sh", "-c", damage])
    assert lab.run(["systemctl", "start", "logrotate"], check=False).returncode != 0
    # Where it has room, logrotate writes a state anew.
    lab.run(["sh", "-c", damage])


def test_a_corrupt_state_is_set_aside_and_the_rest_is_rotated(rotating: Lab) -> None:
    rotating.write(STATE, "garbage\n")
    with check_in(rotating, "service", unit="logrotate.service") as check:
        rotating.run(["systemctl", "start", "logrotate"], check=False)
        check.wait_for("failed")
        rotating.write(STATE, "garbage\n")
        outcome, detail, _ = mend(rotating, "repair-logrotate", preview=True)
        assert (outcome, rotating.read(STATE)) == ("ok", "garbage\n"), detail
        outcome, detail, _ = mend(rotating, "repair-logrotate", unit="logrotate.service")
        assert outcome == "ok", detail
        check.wait_for("")
    assert rotating.read(f"{STATE}.corrupt-1") == "garbage\n"
    state = rotating.run(["stat", "--format=%i %Y", STATE]).stdout
    outcome, detail, _ = mend(rotating, "repair-logrotate")
    assert (outcome, detail) == ("ok", "logrotate finds nothing wrong")
    assert rotating.run(["stat", "--format=%i %Y", STATE]).stdout == state


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            "cp /etc/logrotate.d/nginx /etc/logrotate.d/again",
            ["rotated by /etc/logrotate.d/again and /etc/logrotate.d/nginx"],
        ),
        (
            f"chmod 777 {NGINX}; touch {ERRORS}",
            [f"does not trust the permissions of {NGINX}", "in /etc/logrotate.d/nginx: su USER"],
        ),
        ("echo '/var/log/x.log { nonsense' > /etc/logrotate.d/again", ["logrotate says: error:"]),
    ],
    ids=["duplicate", "permissions", "syntax"],
)
def test_what_is_wrong_in_the_configuration_is_named_and_left_to_a_human(
    rotating: Lab, damage: str, words: list[str]
) -> None:
    fail_rotation(rotating, damage)
    files = f"sha256sum /etc/logrotate.d/* {STATE}; stat -c %a {NGINX}"
    before = rotating.run(["sh", "-c", files]).stdout
    outcome, detail, _ = mend(rotating, "repair-logrotate")
    assert outcome == "needs_human", detail
    assert all(word in detail for word in words), detail
    assert rotating.run(["sh", "-c", files]).stdout == before


def test_a_logrotate_whose_reason_to_fail_is_gone_is_run_again(rotating: Lab) -> None:
    fail_rotation(rotating, "ln -sf ../nowhere /etc/logrotate.d/again")
    rotating.run(["rm", "/etc/logrotate.d/again"])
    outcome, detail, _ = mend(rotating, "repair-logrotate")
    assert (outcome, detail) == ("ok", "logrotate.service was run, and succeeded")


def test_a_state_that_is_no_file_of_roots_or_has_no_room_is_left_alone(rotating: Lab) -> None:
    fail_rotation(rotating, f"echo garbage > {STATE}; chown www-data {STATE}")
    outcome, detail, _ = mend(rotating, "repair-logrotate")
    assert (outcome, "no file of root's" in detail) == ("needs_human", True), detail
    assert rotating.read(STATE) == "garbage\n"
    rotating.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", "/var/lib/logrotate"])
    try:
        fail_rotation(rotating, f"echo garbage > {STATE}")
        outcome, detail, _ = mend(rotating, "repair-logrotate")
        assert (outcome, "no room" in detail) == ("needs_human", True), detail
        assert rotating.read(STATE) == "garbage\n"
    finally:
        rotating.run(["umount", "/var/lib/logrotate"])


# rotate-runaway-log

#: Counts into a log, which it opens anew at SIGHUP; at most some 100 MB.
COUNT = """
import os, signal, sys, time
def open_log(*_):
    global log
    log = open("/var/log/app/app.log", "a")
open_log()
signal.signal(signal.SIGHUP, open_log)
for number in range(300):
    for part in range(1000):
        log.write(f"{number * 1000 + part} " + "x" * 300 + "\\n")
    log.flush()
    time.sleep(0.2)
time.sleep(300)
"""


@pytest.fixture
def counting(host: Lab) -> str:
    """A service whose log grows; the number of its process."""
    host.run(["install", "-d", "-o", "www-data", "-g", "adm", "-m", "750", "/var/log/app"])
    given = ["-p", "User=www-data", "-p", "Group=adm"]
    host.run(["systemd-run", "-q", "--unit=writer", *given, "python3", "-c", COUNT])
    host.wait_for(["sh", "-c", "[ $(stat -c %s /var/log/app/app.log) -gt 2000000 ]"])
    return host.run(["systemctl", "show", "--value", "-p", "MainPID", "writer"]).stdout.strip()


HANG_UP = ["systemctl", "kill", "--signal=HUP", "writer"]
RUNAWAY = {"path": "/var/log/app/app.log", "larger_than_mb": 1}


def test_a_runaway_log_is_rotated_and_packed_and_no_line_of_it_is_lost(
    host: Lab, counting: str
) -> None:
    before = state(host, "/var/log/app/app.log")
    with check_in(host, "log", path="/var/log/app/app.log", growth="1M in 4s") as check:
        check.wait_for("growing")
        outcome, detail, _ = mend(
            host, "rotate-runaway-log", preview=True, reopen=HANG_UP, **RUNAWAY
        )
        assert (outcome, len(host.run(["ls", "/var/log/app"]).stdout.split())) == ("ok", 1), detail
        outcome, detail, _ = mend(host, "rotate-runaway-log", reopen=HANG_UP, **RUNAWAY)
        assert outcome == "ok", detail
        assert f"(process {counting}, writer.service)" in detail
        # Only when its writer is at rest too is it over.
        host.run(["systemctl", "kill", "--signal=STOP", "writer"])
        check.wait_for("")
    (packed,) = host.run(["sh", "-c", "ls /var/log/app/app.log-*.gz"]).stdout.split()
    assert state(host, "/var/log/app/app.log") == before == state(host, packed)
    count = f"(zcat {packed}; cat /var/log/app/app.log) | cut -d' ' -f1"
    numbers = host.run(["sh", "-c", count]).stdout.split()
    # The last may be cut.
    assert numbers[:-1] == [str(number) for number in range(len(numbers) - 1)]
    files = host.run(["ls", "-li", "/var/log/app"]).stdout
    outcome, detail, _ = mend(
        host, "rotate-runaway-log", reopen=HANG_UP, path="/var/log/app/app.log"
    )
    assert (outcome, "nothing is won" in detail) == ("ok", True), detail
    assert host.run(["ls", "-li", "/var/log/app"]).stdout == files


def test_a_runaway_log_whose_writer_cannot_be_told_is_left_to_a_human(
    host: Lab, counting: str
) -> None:
    outcome, detail, _ = mend(host, "rotate-runaway-log", **RUNAWAY)
    assert outcome == "needs_human", detail
    assert f"written by python3 (process {counting}, writer.service)" in detail
    assert "systemctl restart writer.service" in detail
    assert host.run(["ls", "/var/log/app"]).stdout == "app.log\n"
    # Somebody says how, and it is not true.
    inode = host.run(["stat", "--format=%i", "/var/log/app/app.log"]).stdout
    outcome, detail, _ = mend(host, "rotate-runaway-log", reopen=["true"], patience=1, **RUNAWAY)
    assert outcome == "needs_human", detail
    assert "has its name back" in detail
    assert host.run(["stat", "--format=%i", "/var/log/app/app.log"]).stdout == inode
    assert host.run(["ls", "/var/log/app"]).stdout == "app.log\n"


@pytest.mark.parametrize(
    "path",
    [
        "/var/log/app/ibdata1", "/var/log/app/mariadb-bin.000001", "/var/log/audit/audit.log",
        "/var/log/journal/x.log", "/var/lib/app/app.log", "/var/log/app/link.log",
        "/var/log/app/hard.log",
    ],
)  # fmt: skip
def test_what_is_no_plain_log_is_never_rotated(host: Lab, path: str) -> None:
    host.run(["install", "-D", "-m", "640", "/dev/null", path])
    host.run(["truncate", "--size=5M", path])
    if "link" in path:
        host.run(["sh", "-c", f"mv {path} /var/log/app/real.log; ln -s real.log {path}"])
    if "hard" in path:
        host.run(["ln", path, f"{path}.other"])
    pid = host.popen(["sh", "-c", f"exec sleep 60 >> {path}"])
    try:
        before = host.run(["stat", "--format=%i %s", path]).stdout
        outcome, detail, _ = mend(host, "rotate-runaway-log", path=path, larger_than_mb=1)
        assert outcome == "needs_human", detail
        assert host.run(["stat", "--format=%i %s", path]).stdout == before
    finally:
        pid.kill()
        pid.wait()
        host.run(["rm", "-rf", path, "/var/lib/app", "/var/log/audit"])


# restart-logging

SYSLOG = "/var/log/syslog"


@pytest.fixture
def logging(host: Lab) -> Iterator[Lab]:
    """A host with an rsyslog that writes."""
    host.run(["systemctl", "enable", "--now", "rsyslog"])
    host.run(["logger", "a first line"])
    host.wait_for(["test", "-s", SYSLOG])
    yield host
    host.run(["rm", "-f", "/etc/rsyslog.d/app.conf"])
    host.run(
        ["sh", "-c", "systemctl kill -s CONT rsyslog systemd-journald; systemctl restart rsyslog"]
    )


def find_pid(lab: Lab, unit: str) -> str:
    return lab.run(["systemctl", "show", "--value", "-p", "MainPID", unit]).stdout.strip()


def test_a_logger_that_hangs_is_restarted_and_one_that_writes_is_not(logging: Lab) -> None:
    pid = find_pid(logging, "rsyslog")
    outcome, detail, _ = mend(logging, "restart-logging", where=SYSLOG)
    assert (outcome, "nothing was restarted" in detail) == ("ok", True), detail
    given = {"path": SYSLOG, "canary": True, "every": "1s", "timeout": "5s"}
    with check_in(logging, "log", **given) as check:
        logging.run(["systemctl", "kill", "-s", "STOP", "rsyslog"])
        check.wait_for("silent")
        outcome, detail, _ = mend(logging, "restart-logging", where=SYSLOG, preview=True)
        assert (outcome, find_pid(logging, "rsyslog")) == ("ok", pid), detail
        outcome, detail, _ = mend(logging, "restart-logging", where=SYSLOG)
        assert (outcome, "now a line arrives" in detail) == ("ok", True), detail
        check.wait_for("")
    assert find_pid(logging, "rsyslog") != pid


#: To the last byte of the last block of the log itself.
FILL = f"dd if=/dev/zero oflag=append conv=notrunc of={VOLUME}"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("chattr +i {path}", "immutable"),
        (f"{FILL}/fill bs=64k; sync; {FILL}/more bs=1k; {FILL}/app.log bs=1; true", "clean-disk"),
        ("rm {path}; mkdir {path}; systemctl kill -s HUP rsyslog", "is no file"),
        (
            "echo 'nonsense(' > /etc/rsyslog.d/zz.conf; systemctl kill -s STOP rsyslog",
            "rsyslogd -N1 fails, so rsyslog.service was not restarted",
        ),
        ("systemctl stop syslog.socket rsyslog", "which may be on purpose"),
    ],
    ids=["immutable", "full", "directory", "configuration", "stopped"],
)
def test_what_a_restart_cannot_cure_is_left_to_a_human(
    logging: Lab, damage: str, words: str
) -> None:
    logging.volume(VOLUME, "16M")
    path = f"{VOLUME}/app.log"
    logging.write("/etc/rsyslog.d/app.conf", f'user.* action(type="omfile" file="{path}")\n')
    logging.run(["systemctl", "restart", "rsyslog"])
    logging.run(["logger", "a first line"])
    logging.wait_for(["test", "-s", path])
    pid = find_pid(logging, "rsyslog")
    try:
        logging.run(["sh", "-c", damage.format(path=path, place=VOLUME)])
        outcome, detail, _ = mend(logging, "restart-logging", where=path, patience=3)
        assert outcome == "needs_human", detail
        assert words in detail, detail
        if "stop syslog" not in damage:
            assert find_pid(logging, "rsyslog") == pid
    finally:
        logging.run(["chattr", "-i", path], check=False)
        logging.run(["rm", "-f", "/etc/rsyslog.d/zz.conf"])


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("/var/log/none/app.log", "restore-log-directory is for that"),
        ("app.log", "is neither `journal` nor the path of a log"),
        ("/var/log/../app.log", "is neither `journal` nor the path of a log"),
    ],
)
def test_a_log_that_cannot_be_written_is_no_reason_to_restart(
    logging: Lab, where: str, words: str
) -> None:
    pid = find_pid(logging, "rsyslog")
    outcome, detail, _ = mend(logging, "restart-logging", where=where, patience=1)
    assert (outcome, words in detail) == ("needs_human", True), detail
    assert find_pid(logging, "rsyslog") == pid


def test_a_logger_without_the_rights_to_its_file_is_not_restarted_but_told_of(
    logging: Lab,
) -> None:
    """As Ubuntu has it, where rsyslog gives up root's rights."""
    path = "/var/log/app/app.log"
    logging.run(["install", "-D", "-o", "root", "-g", "root", "-m", "640", "/dev/null", path])
    logging.run(["chmod", "755", "/var/log/app"])
    drop = "$PrivDropToUser www-data\n$PrivDropToGroup www-data\n"
    logging.write("/etc/rsyslog.d/app.conf", f"{drop}user.* {path}\n")
    logging.run(["systemctl", "restart", "rsyslog"])
    pid = find_pid(logging, "rsyslog")
    outcome, detail, _ = mend(logging, "restart-logging", where=path, patience=1)
    assert (outcome, "who may not write to" in detail) == ("needs_human", True), detail
    assert find_pid(logging, "rsyslog") == pid


def test_a_journald_that_is_down_is_started_and_one_that_hangs_is_left_to_systemd(
    logging: Lab,
) -> None:
    sockets = ["systemd-journald.socket", "systemd-journald-dev-log.socket",
               "systemd-journald-audit.socket"]  # fmt: skip
    logging.run(["systemctl", "stop", *sockets, "systemd-journald"])
    outcome, detail, _ = mend(logging, "restart-logging", where="journal")
    assert (outcome, "started systemd-journald.service" in detail) == ("ok", True), detail
    pid = find_pid(logging, "systemd-journald")
    outcome, detail, _ = mend(logging, "restart-logging", where="journal")
    assert (outcome, "nothing was restarted" in detail) == ("ok", True), detail
    logging.run(["systemctl", "kill", "-s", "STOP", "systemd-journald"])
    outcome, detail, _ = mend(logging, "restart-logging", where="journal", patience=3)
    assert (outcome, "never restarts systemd's own" in detail) == ("needs_human", True), detail
    logging.run(["systemctl", "kill", "-s", "CONT", "systemd-journald"])
    assert find_pid(logging, "systemd-journald") == pid
