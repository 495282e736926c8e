"""The journal check on a real journald: lines once each, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab_check import check_in

from agent.lab import Lab


def log(lab: Lab, *words: str, tag: str = "app", priority: str = "user.notice") -> None:
    lab.run(["logger", "-t", tag, "-p", priority, "--", *words])
    lab.run(["journalctl", "--sync"])


@pytest.fixture(autouse=True)
def whole(lab: Lab) -> Iterator[None]:
    """Files that journald sets aside when it is killed are those of one test."""
    yield
    lab.run(["sh", "-c", "rm -f /var/log/journal/*/*.journal~"])


@pytest.fixture
def archived(lab: Lab) -> Iterator[str]:
    """An archived file of the journal."""
    log(lab, "something to keep")
    before = set(list_archived(lab))
    lab.run(["journalctl", "--rotate"])
    (path,) = set(list_archived(lab)) - before
    yield path
    lab.run(["rm", "-f", path])


def list_archived(lab: Lab) -> list[str]:
    return lab.run(["sh", "-c", "ls /var/log/journal/*/*@*.journal || true"]).stdout.split()


def test_a_healthy_journal_is_ok_and_described(lab: Lab, archived: str) -> None:
    with check_in(lab, "journal", canary=True) as check:
        finding = check.look()
        assert (finding["status"], finding["subject"]) == ("ok", "journal")
        assert finding["facts"]["Written to"] == "/var/log/journal"
        assert finding["measurements"]["files_count"] >= 2
        lab.run(["journalctl", "--rotate"])
        lab.run(["journalctl", "--vacuum-files=2"])
        assert check.look()["status"] == "ok"
        (proposal,) = check.order("propose")
        assert proposal["options"] == {"type": "journal"}


def test_entries_count_once_and_only_those_that_are_asked_for(lab: Lab) -> None:
    given = {"critical": {"bad": "^bad"}, "more_than": "1 in 1h"}
    with (
        check_in(lab, "journal", identifier="app", priority="warning", **given) as check,
        check_in(lab, "journal", **given) as every,
    ):
        log(lab, "bad 1", priority="user.err")
        log(lab, "bad 2")
        log(lab, "bad 3", tag="other", priority="user.err")
        log(lab, "fine", priority="user.err")
        check.wait(lambda finding: finding["measurements"]["matches_count"] == 1)
        every.wait_for("bad")
        log(lab, "bad 4", priority="user.crit")
        finding = check.wait_for("bad")
        assert finding["subject"] == "app"
        assert finding["facts"]["Last line"] == "bad 4"
        assert check.look()["measurements"]["matches_count"] == 2
        assert every.look()["measurements"]["matches_count"] == 4
        lab.run(["journalctl", "--rotate"])
        assert check.look()["measurements"]["matches_count"] == 2
        log(lab, "bad 5", priority="user.crit")
        check.wait(lambda finding: finding["measurements"]["matches_count"] == 3)
        evidence = check.order("gather")
        assert evidence["Last lines of bad"].splitlines() == ["bad 1", "bad 4", "bad 5"]
        assert evidence["Last entries of app"].endswith("app: bad 5")


def test_entries_of_a_unit_are_its_own_and_systemds_about_it(lab: Lab) -> None:
    given = {"critical": {"bad": "bad|Failed with"}, "more_than": "0 in 1h"}
    with check_in(lab, "journal", unit="say.service", **given) as check:
        log(lab, "bad")
        # systemd shows the command too.
        say = ["sh", "-c", "printf b%s ad; exit 3"]
        lab.run(["systemd-run", "-q", "--wait", "--unit=say", *say], check=False)
        check.wait(lambda finding: finding["measurements"]["matches_count"] == 2)


def test_what_is_no_text_and_what_is_huge_is_read_over(lab: Lab) -> None:
    with check_in(lab, "journal", critical={"bad": "bad"}) as check:
        lab.run(["sh", "-c", r"printf 'bad \001\377\n' | logger -t app"])
        check.wait(lambda finding: finding["measurements"]["matches_count"] == 1)
        # Through the native socket an entry may be as long as its sender likes.
        send = (
            "import socket, struct; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM);"
            "m = b'bad' + bytes(150_000);"
            "s.sendto(b'MESSAGE\\n' + struct.pack('<Q', len(m)) + m + b'\\n',"
            "'/run/systemd/journal/socket')"
        )
        for _ in range(5):
            lab.run(["python3", "-c", send])
        log(lab, "bad at the end")
        finding = check.wait(lambda each: each["facts"].get("Last line") == "bad at the end")
        assert finding["cause"] == "bad"


def test_a_corrupt_archived_file_is_found_and_its_end_too(lab: Lab, archived: str) -> None:
    with check_in(lab, "journal") as check:
        check.look()
        damage = ["conv=notrunc", "bs=1", "seek=20000", "count=4000"]
        lab.run(["dd", "if=/dev/urandom", f"of={archived}", *damage])
        finding = check.wait_for("corrupt")
        assert finding["status"] == "critical"
        assert archived in finding["summary"]
        assert "Bad message" in finding["summary"]
        assert finding["measurements"]["corrupt_count"] == 1
        assert "FAIL" in check.order("gather")["Verified by journalctl"]
        lab.run(["rm", archived])
        assert check.look()["status"] == "ok"
    with check_in(lab, "journal", verify=False) as check:
        assert check.look()["status"] == "ok"


def test_a_file_that_was_set_aside_is_a_warning(lab: Lab, archived: str) -> None:
    with check_in(lab, "journal") as check:
        lab.run(["mv", archived, f"{archived}~"])
        finding = check.look()
        assert (finding["status"], finding["cause"]) == ("warning", "unclean")
        lab.run(["rm", f"{archived}~"])
        assert check.look()["status"] == "ok"


def test_lines_that_journald_drops_are_a_warning(lab: Lab) -> None:
    place = "/run/systemd/journald.conf.d/limit.conf"
    lab.write(place, "[Journal]\nRateLimitBurst=10\nRateLimitIntervalSec=2s\n")
    lab.run(["systemctl", "restart", "systemd-journald"])
    try:
        with check_in(lab, "journal") as check:
            talk = "seq 300; sleep 3; echo more"
            lab.run(["systemd-run", "-q", "--unit=noisy", "sh", "-c", talk])
            finding = check.wait_for("dropping")
            assert "messages from noisy.service" in finding["summary"]
    finally:
        lab.run(["rm", place])
        lab.run(["systemctl", "restart", "systemd-journald"])


def test_a_dead_journald_is_critical_until_it_runs_again(lab: Lab) -> None:
    with check_in(lab, "journal", canary=True, timeout="5s") as check:
        lab.run(["systemctl", "mask", "--runtime", "systemd-journald"])
        lab.run(["systemctl", "kill", "-s", "KILL", "systemd-journald"])
        try:
            finding = check.wait_for("dead")
            assert finding["status"] == "critical"
            assert "systemd-journald.service is failed" in finding["summary"]
        finally:
            lab.run(["systemctl", "unmask", "--runtime", "systemd-journald"])
            lab.run(["systemctl", "reset-failed", "systemd-journald"])
            lab.run(["systemctl", "restart", "systemd-journald.socket", "systemd-journald"])
        # It was killed in the middle of its work.
        check.wait(lambda finding: finding["cause"] in ("", "unclean"))


def test_a_journald_that_hangs_gets_no_canary(lab: Lab) -> None:
    with check_in(lab, "journal", canary=True, every="1s", timeout="5s") as check:
        lab.run(["systemctl", "kill", "-s", "STOP", "systemd-journald"])
        try:
            finding = check.wait_for("silent")
            assert finding["status"] == "critical"
        finally:
            lab.run(["systemctl", "kill", "-s", "CONT", "systemd-journald"])
        check.wait_for("")


def test_a_journal_in_memory_that_should_be_on_the_disk_is_a_warning(lab: Lab) -> None:
    with check_in(lab, "journal") as check, check_in(lab, "journal", persistent=False) as free:
        lab.run(["journalctl", "--relinquish-var"])
        log(lab, "into memory")
        finding = check.wait_for("volatile")
        assert finding["status"] == "warning"
        assert free.look()["status"] == "ok"
        lab.run(["journalctl", "--flush"])
        check.wait_for("")


def test_a_host_that_wants_its_journal_in_memory_may_have_it_there(lab: Lab) -> None:
    place = "/run/systemd/journald.conf.d/storage.conf"
    lab.write(place, "[Journal]\n# a comment\nStorage = volatile\n")
    lab.run(["systemctl", "restart", "systemd-journald"])
    try:
        log(lab, "into memory")
        with check_in(lab, "journal") as check:
            finding = check.look()
            assert finding["status"] == "ok"
            assert finding["facts"]["Written to"] == "/run/log/journal"
    finally:
        lab.run(["rm", place])
        lab.run(["systemctl", "restart", "systemd-journald"])
        lab.run(["journalctl", "--flush"])
