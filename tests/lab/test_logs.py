"""What goes wrong with logs on real hosts, and what the checks say of it; and of an ordinary day.

A corrupt archived journal, a dead and a hanging journald: test_journal.py. What the checks make of
files and lines without a host: tests/checks/test_log.py.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from lab_check import LabCheck, check_in

from agent.lab import Lab

SYSLOG = "/var/log/syslog"
ACCESS, ERRORS = "/var/log/nginx/access.log", "/var/log/nginx/error.log"
VOLUME = "/srv/volume"

#: Everything that looks at logs, as a careful operator has it.
CHECKS: Mapping[str, Mapping[str, Any]] = {
    "journal": {"type": "journal", "canary": True, "every": "1s", "timeout": "60s"},
    "syslog": {"type": "log", "path": SYSLOG, "canary": True, "every": "1s", "timeout": "60s"},
    "nginx-logs": {"type": "log", "path": "/var/log/nginx/*.log"},
    "access": {"type": "file", "path": ACCESS, "nul": True, "critical": {"growth": "50M in 1m"}},
    "rotation": {"type": "service", "unit": "logrotate.service"},
    "nginx": {"type": "service", "unit": "nginx.service"},
    "disk": {"type": "disk", "path": "/var/log", "critical": {"used": "95%"}},
}

#: Writes a package anew from what dpkg has installed of it, as a later version.
REPACK = """
set -e
rm -rf /root/repack && mkdir -p /root/repack/DEBIAN && cd /root/repack
dpkg -L "$1" | while read -r path; do
    if [ -d "$path" ]; then mkdir -p ".$path"; else cp -a "$path" ".$path"; fi
done
for file in /var/lib/dpkg/info/"$1".*; do
    case "${file##*.}" in preinst|postinst|prerm|postrm|conffiles|triggers)
        cp "$file" "DEBIAN/${file##*.}";;
    esac
done
dpkg-query -W -f='Package: ${Package}\\nVersion: ${Version}+later\\n' "$1" > DEBIAN/control
dpkg-query -W -f='Architecture: ${Architecture}\\nDepends: ${Depends}\\n' "$1" >> DEBIAN/control
dpkg-query -W -f='Maintainer: ${Maintainer}\\nDescription: again\\n' "$1" >> DEBIAN/control
dpkg-deb --root-owner-group -b . "/root/$1.deb"
"""

#: Writes without O_APPEND, as `program > file` does, until it is ended or has written enough.
WRITER = (
    "i=0; while [ $i -lt 900 ]; do printf '%05000d\\n' $i; i=$((i+1)); sleep 0.1; done > {path}"
)


def ask(lab: Lab, unit: str, what: str) -> str:
    return lab.run(["systemctl", "show", "--value", "-p", what, unit]).stdout.strip()


@pytest.fixture(scope="module")
def host(lab: Lab) -> Lab:
    lab.run(["systemctl", "enable", "--now", "rsyslog", "nginx"])
    # It keeps requests where they can be read.
    lab.run(["curl", "-fsS", "http://127.0.0.1/"])
    lab.run(["logger", "a first line"])
    lab.wait_for(["test", "-s", SYSLOG])
    return lab


@pytest.fixture(autouse=True)
def whole(host: Lab) -> Iterator[None]:
    """What a test broke is whole again after it."""
    yield
    host.run(["sh", "-c", "umount -l /var/log/nginx; umount -l " + VOLUME], check=False)
    host.run(["sh", "-c", "rm -f /etc/logrotate.d/again /var/log/journal/*/*.journal~"])
    host.run(["install", "-d", "-o", "root", "-g", "adm", "-m", "755", "/var/log/nginx"])
    host.run(["sh", "-c", "systemctl stop 'writer*'; systemctl reset-failed"])
    host.run(["systemctl", "restart", "nginx", "rsyslog"])


@contextmanager
def watching(host: Lab) -> Iterator[Mapping[str, list[Mapping[str, Any]]]]:
    """Looks at everything over and over meanwhile; what failed, by check, is known afterwards."""
    with ExitStack() as stack:
        checks = {n: stack.enter_context(check_in(host, **given)) for n, given in kinds()}
        failed: dict[str, list[Mapping[str, Any]]] = {name: [] for name in checks}
        over = threading.Event()

        def look(name: str, check: LabCheck) -> None:
            while True:
                last = over.is_set()
                found = check.findings().values()
                failed[name] += [each for each in found if each["status"] != "ok"]
                if last:
                    return

        threads = [threading.Thread(target=look, args=each) for each in checks.items()]
        for thread in threads:
            thread.start()
        try:
            yield failed
        finally:
            over.set()
            for thread in threads:
                thread.join()


def kinds() -> list[tuple[str, dict[str, Any]]]:
    return [
        (name, {"kind": given["type"], **{k: v for k, v in given.items() if k != "type"}})
        for name, given in CHECKS.items()
    ]


# An ordinary day


@pytest.mark.long
def test_restarts_rotations_and_an_upgrade_are_no_fault_of_logs(
    host: Lab, subtests: pytest.Subtests
) -> None:
    host.run(["sh", "-c", REPACK, "sh", "rsyslog"])
    host.run(["sh", "-c", REPACK, "sh", "nginx-common"])
    with watching(host) as failed:
        for _ in range(3):
            host.run(["systemctl", "restart", "rsyslog", "nginx"])
            host.run(["systemctl", "restart", "systemd-journald"])
            host.run(["journalctl", "--rotate"])
            host.run(["journalctl", "--vacuum-files=3"])
            host.run(["curl", "-fsS", "http://127.0.0.1/"])
            host.run(["logrotate", "--force", "/etc/logrotate.conf"])
            host.run(["systemctl", "start", "logrotate"])
        host.run(["dpkg", "-i", "/root/rsyslog.deb", "/root/nginx-common.deb"], timeout=300)
        host.run(["curl", "-fsS", "http://127.0.0.1/"])
    for name, found in failed.items():
        with subtests.test(name):
            # A unit that is being restarted is said to be, and that is no fault.
            told = [each for each in found if each["cause"] not in TRANSITIONS]
            assert told == []


#: What the service check says of a unit between two states.
TRANSITIONS = frozenset({"starting", "stopping", "reloading", "restarting"})


# The journal


def test_an_active_file_that_is_corrupt_is_set_aside_by_journald_and_told(host: Lab) -> None:
    with check_in(host, "journal") as check:
        active = f"/var/log/journal/{host.read('/etc/machine-id').strip()}/system.journal"
        host.run(["logger", "before it breaks"])
        host.run(["journalctl", "--sync"])
        # journald finds its own file broken when it opens it.
        host.run(["systemctl", "kill", "-s", "STOP", "systemd-journald"])
        damage = ["bs=1", "seek=16", "count=100", "conv=notrunc"]
        host.run(["dd", "if=/dev/urandom", f"of={active}", *damage])
        host.run(["systemctl", "kill", "-s", "KILL", "systemd-journald"])
        host.run(["systemctl", "restart", "systemd-journald"])
        finding = check.wait_for("unclean")
        assert finding["status"] == "warning"
        assert ".journal~" in finding["summary"]
        assert host.run(["sh", "-c", "ls /var/log/journal/*/*.journal~"]).stdout
        host.run(["logger", "and afterwards"])
        host.wait_for(["journalctl", "--grep=^and afterwards$", "--quiet"])


# rsyslog


def test_an_rsyslog_that_is_up_and_cannot_write_is_told_by_a_line_that_does_not_arrive(
    host: Lab,
) -> None:
    host.volume(VOLUME, "16M")
    path = f"{VOLUME}/app.log"
    host.write("/etc/rsyslog.d/app.conf", f'user.* action(type="omfile" file="{path}")\n')
    host.run(["systemctl", "restart", "rsyslog"])
    host.run(["logger", "a first line"])
    host.wait_for(["test", "-s", path])
    try:
        with (
            check_in(host, "log", path=path, canary=True, every="1s", timeout="5s") as check,
            check_in(host, "journal") as journal,
        ):
            assert check.look()["status"] == "ok"
            assert journal.look()["status"] == "ok"
            # Whoever has it open cannot write to it any more either.
            host.run(["chattr", "+i", path])
            finding = check.wait_for("silent", 120)
            assert finding["status"] == "critical"
            assert "did not get two lines" in finding["summary"]
            assert ask(host, "rsyslog", "ActiveState") == "active"
            finding = journal.wait_for("suspended")
            assert (finding["status"], "message lost" in finding["summary"]) == ("warning", True)
            host.run(["chattr", "-i", path])
            host.run(["systemctl", "restart", "rsyslog"])
            check.wait_for("", 120)
    finally:
        host.run(["chattr", "-i", path], check=False)
        host.run(["rm", "-f", "/etc/rsyslog.d/app.conf"])


def test_an_action_that_rsyslog_suspends_is_told(host: Lab) -> None:
    host.volume(VOLUME, "16M")
    path = f"{VOLUME}/app.log"
    host.write(path, "of before\n")
    host.run(["chattr", "+i", path])
    host.write("/etc/rsyslog.d/app.conf", f'user.* action(type="omfile" file="{path}")\n')
    try:
        with check_in(host, "journal") as check:
            assert check.look()["status"] == "ok"
            host.run(["systemctl", "restart", "rsyslog"])
            host.run(["logger", "nobody reads this"])
            finding = check.wait(lambda each: " suspended (module" in each["summary"])
            assert (finding["status"], finding["cause"]) == ("warning", "suspended")
            assert ask(host, "rsyslog", "ActiveState") == "active"
    finally:
        host.run(["chattr", "-i", path])
        host.run(["rm", "-f", "/etc/rsyslog.d/app.conf"])


# Plain logs


@pytest.mark.long
def test_a_deleted_log_that_is_still_written_to_names_who_holds_it(host: Lab) -> None:
    with check_in(host, "log", path=ACCESS) as check:
        host.run(["rm", ACCESS])
        host.run(["curl", "-fsS", "http://127.0.0.1/"])
        finding = check.wait_for("deleted", 120)
        assert finding["status"] == "critical"
        assert "nginx.service" in finding["facts"]["Held by"]
        assert finding["measurements"]["deleted_bytes"] > 0
        host.run(["systemctl", "kill", "-s", "USR1", "--kill-who=main", "nginx"])
        check.wait_for("")


def test_a_log_that_was_truncated_under_a_writer_that_does_not_append_has_a_hole(
    host: Lab,
) -> None:
    path = "/var/log/writer.log"
    host.run(["systemd-run", "-q", "--unit=writer", "sh", "-c", WRITER.format(path=path)])
    host.wait_for(["grep", "-q", "0009$", path])
    with check_in(host, "log", path=path) as log, check_in(host, "file", path=path, nul=True) as f:
        assert log.look()["status"] == f.look()["status"] == "ok"
        host.run(["truncate", "-s", "0", path])
        for check in (log, f):
            finding = check.wait_for("nul")
            assert finding["status"] == "warning"
        assert host.run(["grep", "-qaP", r"\x00", path]).returncode == 0


def test_a_missing_directory_is_named_before_nginx_finds_out(host: Lab) -> None:
    with (
        check_in(host, "log", path=ERRORS) as log,
        check_in(host, "service", unit="nginx.service") as service,
    ):
        host.run(["rm", "-r", "/var/log/nginx"])
        finding = log.wait_for("directory")
        assert finding["status"] == "critical"
        assert finding["summary"] == "the directory /var/log/nginx is not there"
        assert service.look()["status"] == "ok"
        host.run(["systemctl", "restart", "nginx"], check=False)
        finding = service.wait_for("failed")
        assert "(2: No such file or directory)" in finding["facts"]["Last words"]
        # The directory is mended first.
        assert finding["implicates"] == [log.look()["resource"]]


def test_a_log_directory_that_became_read_only_is_told_of_the_disk(host: Lab) -> None:
    host.run(["systemctl", "stop", "nginx"])
    host.volume("/var/log/nginx", "16M")
    host.run(["systemctl", "start", "nginx"])
    with (
        check_in(host, "disk", path="/var/log/nginx") as disk,
        check_in(host, "service", unit="nginx.service") as service,
    ):
        assert disk.look()["status"] == service.look()["status"] == "ok"
        host.run(["systemctl", "stop", "nginx"])
        host.run(["mount", "-o", "remount,ro", "/var/log/nginx"])
        finding = disk.wait_for("read-only")
        assert (finding["status"], finding["subject"]) == ("critical", "/var/log/nginx")
        host.run(["systemctl", "start", "nginx"], check=False)
        finding = service.wait_for("failed")
        assert "(30: Read-only file system)" in finding["facts"]["Last words"]
        assert f"file:{ERRORS}" in finding["implicates"]


def test_a_log_that_grows_without_measure_is_told_with_the_process_that_writes_it(
    host: Lab,
) -> None:
    path = "/var/log/writer.log"
    host.run(["sh", "-c", f"echo begin > {path}"])
    with (
        check_in(host, "log", path=path, growth="5M in 4s") as log,
        check_in(host, "file", path=path, critical={"growth": "5M in 4s"}) as file,
    ):
        assert log.look()["status"] == file.look()["status"] == "ok"
        run = (
            "i=0; while [ $i -lt 300 ]; do head -c 500000 /dev/zero | tr '\\0' x; sleep 0.1;"
            f" i=$((i+1)); done >> {path}"
        )
        host.run(["systemd-run", "-q", "--unit=writer", "sh", "-c", run])
        for check in (log, file):
            finding = check.wait_for("growing")
            assert finding["status"] == "critical"
            assert finding["measurements"]["growth_bytes"] > 5 << 20
        pid = ask(host, "writer", "MainPID")
        finding = log.look()
        assert f"(process {pid}, writer.service)" in finding["facts"]["Written by"]
        assert f"process {pid}" in log.order("gather")[f"Who writes {path}"]
        host.run(["systemctl", "stop", "writer"])
        for check in (log, file):
            check.wait_for("")


# logrotate


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("echo garbage > /var/lib/logrotate/status", "bad top line in state file"),
        ("cp /etc/logrotate.d/nginx /etc/logrotate.d/again", "duplicate log entry"),
        ("chmod 777 /var/log/nginx", "has insecure permissions"),
    ],
    ids=["state", "duplicate", "permissions"],
)
def test_a_logrotate_that_fails_is_told_with_its_words(host: Lab, damage: str, words: str) -> None:
    host.run(["systemctl", "start", "logrotate"])
    with check_in(host, "service", unit="logrotate.service") as check:
        assert check.look()["status"] == "ok"
        host.run(["sh", "-c", damage])
        host.run(["systemctl", "start", "logrotate"], check=False)
        finding = check.wait_for("failed")
        assert finding["status"] == "critical"
        assert words in check.order("gather")["Log of the last start of logrotate.service"]
    host.run(["sh", "-c", "rm -f /var/lib/logrotate/status"])
