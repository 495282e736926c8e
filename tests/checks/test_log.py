"""What the log check makes of files and lines. Real services and logrotate: tests/lab/test_logs.py.

What is read of a log across rotation: tests/host/test_follow.py.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.checks.log import LOG, LogOptions, gather, look
from agent.checks.log_evidence import propose
from agent.checks.log_findings import Log, judge_log
from agent.checks.values import Rate
from agent.clock import Clock
from agent.core.model import Finding, Status
from agent.host import logs, syslog
from agent.host.holders import Holder
from agent.host.machine import Machine
from agent.host.memory import Memories, Memory
from agent.host.tail import Text

MB = 2**20


class Hand(Clock):
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.at = 10_000.0

    def now(self) -> float:
        return self.at


class Watch:
    """One check, looked at again and again as the agent does, and what it remembers."""

    def __init__(self, **given: Any) -> None:
        written = LogOptions.model_validate({"type": "log", **given})
        filled = {"timeout": 10.0, "every": 10.0}
        self.options = written.model_copy(update=filled)
        self.clock = Hand()
        self.memories = Memories()
        self.rows: dict[str, str] = {}
        self.machine = Machine(clock=self.clock)

    def findings(self, seconds: float = 1.0) -> dict[str, Finding]:
        self.clock.at += seconds
        memory = self.memories.open("log")
        found = asyncio.run(look(self.options, self.machine.remember(memory)))
        for key, text in self.memories.keep("log", memory).items():
            if text is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = text
        self.written = len(memory.written)
        for finding in found:
            assert finding.cause == "" or finding.cause in {*LOG.causes, *self.options.patterns}
            assert set(finding.measurements) <= set(LOG.measurements)
        return {finding.subject: finding for finding in found}

    def look(self, seconds: float = 1.0) -> Finding:
        return (self.findings(seconds))[self.options.path]

    def causes(self, seconds: float = 1.0) -> dict[str, str]:
        found = self.findings(seconds)
        return {Path(subject).name: finding.cause for subject, finding in found.items()}

    def restart(self) -> None:
        """The agent begins anew, with what it made durable."""
        self.memories = Memories([("log", key, text) for key, text in self.rows.items()])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "app.log"
    path.write_text("Traceback of old\n")
    return path


def add(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def test_lines_count_until_their_time_is_over(log: Path) -> None:
    watch = Watch(path=str(log), critical={"traceback": "Traceback"}, more_than="2 in 1m")
    assert (watch.look()).status is Status.OK
    add(log, "Traceback", "fine", "Traceback")
    assert (watch.look()).status is Status.OK
    add(log, "Traceback (most recent call last): password=hunter2")
    finding = watch.look()
    assert (finding.status, finding.cause) == (Status.CRITICAL, "traceback")
    assert finding.measurements["matches_count"] == 3
    assert finding.summary == f"{log} has 3 lines of traceback in 1 min, 2 are allowed"
    assert finding.facts["Last line"] == "Traceback (most recent call last): password=***"
    assert (watch.look(50)).cause == "traceback"
    assert (watch.look(10)).status is Status.OK


def test_a_warning_is_one_and_the_critical_cause_goes_before_it(log: Path) -> None:
    watch = Watch(
        path=str(log), critical={"bad": "bad"}, warning={"slow": "slow"}, ignore=["DEBUG"]
    )
    watch.look()
    add(log, "slow", "DEBUG bad")
    finding = watch.look()
    assert (finding.status, finding.cause) == (Status.WARNING, "slow")
    add(log, "bad")
    finding = watch.look()
    assert (finding.status, finding.cause) == (Status.CRITICAL, "bad")
    assert finding.facts["Also"] == "slow"


def test_what_was_written_while_the_agent_was_down_is_seen_once(log: Path) -> None:
    watch = Watch(path=str(log), critical={"traceback": "Traceback"})
    watch.look()
    add(log, "Traceback 1")
    assert (watch.look()).measurements["matches_count"] == 1
    watch.restart()
    log.rename(log.with_name("app.log.1"))
    add(log.with_name("app.log.1"), "Traceback 2")
    add(log, "Traceback 3")
    finding = watch.look(300)
    assert finding.cause == "traceback"
    assert finding.facts["Last line"] == "Traceback 3"
    # Two lines within 301 s of which nobody knows more.
    assert finding.measurements["matches_count"] == pytest.approx(2 * 60 / 301, abs=0.01)
    assert (watch.look(61)).status is Status.OK


def test_what_a_look_was_told_and_nobody_took_is_told_again(log: Path) -> None:
    watch = Watch(path=str(log), critical={"traceback": "Traceback"})
    watch.look()
    add(log, "Traceback")
    asyncio.run(look(watch.options, watch.machine.remember(watch.memories.open("log"))))
    assert (watch.look()).cause == "traceback"


def test_a_log_that_does_not_change_costs_no_reading_and_no_writing(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(path=str(log), critical={"traceback": "Traceback"})
    watch.look()

    def refuse(_text: Text, path: str) -> None:
        raise AssertionError(path)

    monkeypatch.setattr(Text, "__init__", refuse)
    assert (watch.look()).status is Status.OK
    assert watch.written == 0


def test_lines_of_all_files_count_together_and_files_are_judged_alone(
    tmp_path: Path,
) -> None:
    for name in ("a.log", "b.log", "b.log.1", "c.log.gz", "d.txt"):
        (tmp_path / name).write_text("begin\n")
    watch = Watch(path=f"{tmp_path}/*.log*", critical={"bad": "bad"}, more_than="1 in 1m")
    assert watch.causes() == {"*.log*": "", "a.log": "", "b.log": ""}
    add(tmp_path / "a.log", "bad")
    add(tmp_path / "b.log", "bad")
    add(tmp_path / "b.log.1", "bad")
    (tmp_path / "new.log").write_text("bad\n")
    found = watch.findings()
    finding = found[watch.options.path]
    assert (finding.cause, finding.measurements["matches_count"]) == ("bad", 3)
    assert {finding.status for path, finding in found.items() if "*" not in path} == {Status.OK}
    (tmp_path / "a.log").unlink()
    assert set(watch.causes()) == {"*.log*", "b.log", "new.log"}


def test_a_log_that_gets_another_name_is_not_counted_again(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("bad\n" * 100)
    watch = Watch(path=f"{tmp_path}/*.log", critical={"bad": "bad"})
    watch.findings()
    (tmp_path / "a.log").rename(tmp_path / "b.log")
    add(tmp_path / "b.log", "bad")
    found = watch.findings()
    assert found[watch.options.path].measurements["matches_count"] == 1


def test_logs_that_swap_their_names_go_on_each_where_it_was(tmp_path: Path) -> None:
    one, two, aside = tmp_path / "one.log", tmp_path / "two.log", tmp_path / "aside"
    one.write_text("bad 1\n" * 10)
    two.write_text("bad 2\n" * 20)
    watch = Watch(path=f"{tmp_path}/*.log", critical={"bad": "bad"})
    watch.findings()
    one.rename(aside)
    two.rename(one)
    aside.rename(two)
    add(one, "bad 3")
    add(two, "bad 4")
    assert watch.look().measurements["matches_count"] == 2
    assert watch.look(61).status is Status.OK
    add(one, "bad 5")
    assert watch.look().measurements["matches_count"] == 1


def test_more_files_than_one_check_covers_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MOST_FILES", 2)
    for number, name in enumerate("abc"):
        (tmp_path / f"{name}.log").touch()
        os.utime(tmp_path / f"{name}.log", (number, number))
    watch = Watch(path=f"{tmp_path}/*.log")
    found = watch.findings()
    assert {Path(path).name for path in found} == {"*.log", "b.log", "c.log"}
    assert found[watch.options.path].facts["Left out"].startswith("1 more files")


def test_a_file_that_was_never_there_is_missing_at_once(tmp_path: Path) -> None:
    watch = Watch(path=f"{tmp_path}/app.log")
    assert (watch.look()).cause == "missing"
    add(tmp_path / "app.log", "begin")
    assert (watch.look()).status is Status.OK


def test_a_file_that_is_away_for_a_moment_is_being_rotated(log: Path) -> None:
    watch = Watch(path=str(log))
    watch.look()
    log.rename(log.with_name("app.log.1"))
    assert (watch.look()).status is Status.OK
    watch.restart()
    finding = watch.look(29)
    assert finding.summary == f"{log} is not there just now"
    assert (watch.look(1)).cause == "missing"


def test_a_file_that_need_not_be_there_is_not_missed(tmp_path: Path) -> None:
    watch = Watch(path=f"{tmp_path}/none/app.log", required=False)
    assert (watch.look()).status is Status.OK


def test_a_directory_that_is_gone_is_named(log: Path) -> None:
    watch = Watch(path=str(log))
    watch.look()
    shutil.rmtree(log.parent)
    finding = watch.look()
    assert (finding.status, finding.cause) == (Status.CRITICAL, "directory")
    assert finding.summary == f"the directory {log.parent} is not there"
    assert finding.measurements["directory_uid"] == os.getuid()
    assert finding.measurements["directory_mode"] == 0o700


def test_a_directory_that_was_never_seen_is_not_described(tmp_path: Path) -> None:
    finding = Watch(path=f"{tmp_path}/none/app.log").look()
    assert finding.cause == "directory"
    assert not {"directory_uid", "directory_mode"} & set(finding.measurements)


def test_a_pattern_without_a_file_is_missing(tmp_path: Path) -> None:
    watch = Watch(path=f"{tmp_path}/*.log", critical={"bad": "bad"})
    assert (watch.look()).cause == "missing"
    add(tmp_path / "a.log", "bad")
    assert (watch.look()).cause == "bad"
    (tmp_path / "a.log").unlink()
    assert (watch.look(61)).status is Status.OK
    assert (watch.look(31)).cause == "missing"
    assert (Watch(path=f"{tmp_path}/none/*.log").look()).cause == "directory"


def test_a_deleted_file_that_is_written_to_is_named_after_a_while(log: Path) -> None:
    watch = Watch(path=str(log), critical={"bad": "bad"})
    watch.look()
    with log.open("a") as writer:
        log.unlink()
        writer.write("bad\n")
        writer.flush()
        finding = watch.look()
        assert finding.cause == "bad", "its lines are still seen"
        finding = watch.look(61)
        assert (finding.status, finding.cause) == (Status.CRITICAL, "deleted")
        assert f"(process {os.getpid()}" in finding.summary
        assert finding.measurements["deleted_bytes"] > 0
        log.touch()
        assert (watch.look()).cause == "deleted", "a new file does not mend it"
    assert (watch.look()).status is Status.OK


def test_runaway_growth_names_its_writer_and_ends(log: Path) -> None:
    watch = Watch(path=str(log), growth="1M in 1m")
    watch.look()
    with log.open("ab") as writer:
        writer.write(b"x\n" * (MB // 2))
        writer.flush()
        assert (watch.look()).status is Status.OK, "it is not more than the limit"
        writer.write(b"x\n")
        writer.flush()
        finding = watch.look()
        assert (finding.status, finding.cause) == (Status.CRITICAL, "growing")
        assert finding.measurements["growth_bytes"] == MB + 2
        assert f"(process {os.getpid()}" in finding.facts["Written by"]
    log.rename(log.with_name("app.log.1"))
    log.touch()
    assert (watch.look()).cause == "growing"
    assert (watch.look(61)).status is Status.OK


def test_a_hole_of_nul_bytes_is_a_warning_until_the_next_rotation(log: Path) -> None:
    watch = Watch(path=str(log))
    watch.look()
    with log.open("r+b") as writer:
        writer.seek(MB)
        writer.write(b"after the hole\n")
    finding = watch.look()
    assert (finding.status, finding.cause) == (Status.WARNING, "nul")
    watch.restart()
    assert (watch.look()).cause == "nul"
    log.rename(log.with_name("app.log.1"))
    log.touch()
    assert (watch.look()).status is Status.OK


def test_what_cannot_be_read_is_unknown() -> None:
    for number, why in ((errno.EACCES, "Permission denied"), (errno.EINVAL, "it is no file")):
        finding = judge_log(Log(path="/a", limit=Rate(1, 1), error=number))
        assert (finding.status, finding.cause) == (Status.UNKNOWN, "unreadable")
        assert finding.summary == f"cannot read /a: {why}"


def test_lines_of_before_still_count_when_it_cannot_be_read_any_more(log: Path) -> None:
    watch = Watch(path=str(log), critical={"bad": "bad"})
    watch.look()
    add(log, "bad")
    watch.look()
    log.unlink()
    log.mkdir()
    finding = watch.look()
    assert finding.cause == "bad"
    assert (watch.look(100)).cause == "unreadable"


def test_a_filesystem_that_hangs_is_unknown_and_loses_nothing(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(path=str(log), critical={"bad": "bad"})
    watch.options = watch.options.model_copy(update={"timeout": 0.2})
    watch.look()
    add(log, "bad")
    release, real = threading.Event(), logs.find_logs

    def hang(pattern: str) -> list[str]:
        release.wait(60)
        return real(pattern)

    monkeypatch.setattr(logs, "find_logs", hang)
    for _ in range(3):
        finding = watch.look()
        assert (finding.status, finding.cause) == (Status.UNKNOWN, "hung")
    assert threading.active_count() < 10
    release.set()
    while (finding := watch.look(0)).cause == "hung":
        time.sleep(0.01)
    assert finding.cause == "bad"
    assert finding.measurements["matches_count"] == 1


def test_garbage_is_read_over(log: Path) -> None:
    watch = Watch(path=str(log), critical={"bad": "^bad$"})
    watch.look()
    with log.open("ab") as file:
        file.write(os.urandom(300_000).replace(b"\n", b"") + b"\nbad\n\xff\xfe\xff\nbad\n")
    assert (watch.look()).measurements["matches_count"] == 2


def test_patterns_and_path_can_change(log: Path, tmp_path: Path) -> None:
    watch = Watch(path=str(log), critical={"bad": "bad"})
    watch.look()
    add(log, "bad")
    assert (watch.look()).cause == "bad"
    watch.options = watch.options.model_copy(update={"critical": {"worse": "worse"}})
    assert (watch.look()).status is Status.OK
    other = tmp_path / "other.log"
    other.touch()
    watch.options = watch.options.model_copy(update={"path": str(other)})
    assert (watch.look()).status is Status.OK
    assert not [key for key in watch.rows if "app.log" in key]


def test_a_repair_is_given_the_time_until_old_lines_do_not_count() -> None:
    def verify_for(**given: Any) -> float | None:
        return LogOptions.model_validate({"type": "log", "path": "/a", **given}).verify_for

    assert verify_for() == 90
    assert verify_for(more_than="3 in 10m") == 630
    assert verify_for(growth="1G in 2m") == 150
    assert verify_for(more_than="3 in 10m", verify_for="1m") == 60


# The canary


class Logger:
    """What takes lines at /dev/log, and writes them to a file while it is well."""

    def __init__(self, address: Path, file: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(address))
        self.file = file
        self.well = True
        self.took = 0
        #: How many of the next lines are lost.
        self.lose = 0
        self.thread = threading.Thread(target=self._write, daemon=True)
        self.thread.start()

    def _write(self) -> None:
        while line := self.socket.recv(4096):
            self.took += 1
            self.lose -= 1
            if self.well and self.lose < 0:
                add(self.file, line.decode())

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"", self.socket.getsockname())
        self.thread.join()
        self.socket.close()


@pytest.fixture
def logger(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Logger]:
    address = tmp_path / "dev-log"
    made = Logger(address, log)
    send = syslog.send_line
    monkeypatch.setattr("agent.checks.log.send_line", lambda text: send(text, str(address)))
    yield made
    made.close()


def test_a_canary_that_arrives_is_well_and_sent_once_every_time(log: Path, logger: Logger) -> None:
    watch = Watch(path=str(log), canary=True, critical={"own": "hostmend"})
    for _ in range(3):
        assert (watch.look()).status is Status.OK
    assert logger.took == 1
    assert "<13>hostmend[" in log.read_text()
    watch.look(10)
    assert logger.took == 2


def test_a_canary_that_does_not_arrive_is_critical_until_one_does(
    log: Path, logger: Logger
) -> None:
    watch = Watch(path=str(log), canary=True)
    watch.options = watch.options.model_copy(update={"timeout": 1.0})
    logger.well = False
    finding = watch.look()
    assert (finding.status, finding.cause) == (Status.CRITICAL, "silent")
    assert "did not get two lines" in finding.summary
    assert (watch.look()).cause == "silent"
    logger.well = True
    assert (watch.look()).status is Status.OK


def test_one_canary_that_is_lost_as_in_a_rotation_is_no_fault(log: Path, logger: Logger) -> None:
    watch = Watch(path=str(log), canary=True)
    watch.options = watch.options.model_copy(update={"timeout": 1.0})
    logger.lose = 1
    assert watch.look().status is Status.OK
    assert logger.took == 2


def test_a_canary_that_nobody_takes_is_critical(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = syslog.send_line
    nobody = str(tmp_path / "none")
    monkeypatch.setattr("agent.checks.log.send_line", lambda text: send(text, nobody))
    finding = Watch(path=str(log), canary=True).look()
    assert finding.cause == "silent"
    assert "nothing takes lines at /dev/log" in finding.summary


# Evidence and proposals


def test_evidence_has_the_lines_the_end_and_the_writers(log: Path) -> None:
    watch = Watch(path=str(log), critical={"bad": "bad"})
    watch.look()
    add(log, *(f"bad {number} token=abc" for number in range(50)), "end")
    finding = watch.look()
    with log.open("a"):
        memory = watch.memories.open("log")
        items = asyncio.run(gather(watch.options, finding, watch.machine.remember(memory)))
    texts = {item.title: item.text for item in items}
    assert texts["Last lines of bad"].splitlines()[-1] == "bad 49 token=***"
    assert texts[f"End of {log}"].splitlines()[-1] == "end"
    assert len(texts[f"End of {log}"].splitlines()) == 30
    assert f"(process {os.getpid()}" in texts[f"Who writes {log}"]
    assert "appends" in texts[f"Who writes {log}"]


def test_evidence_of_what_is_gone_says_so(tmp_path: Path) -> None:
    watch = Watch(path=f"{tmp_path}/none.log")
    finding = watch.look()
    items = asyncio.run(gather(watch.options, finding, watch.machine.remember(Memory())))
    assert [item.text for item in items] == ["No such file or directory"]


def test_the_logs_of_running_services_are_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    def hold(path: str, unit: str) -> Holder:
        return Holder(
            pid=1, command="x", unit=unit, descriptor=3, flags=1, path=path,
            deleted=False, inode=1, size_bytes=0,
        )  # fmt: skip

    held = [
        hold("/var/log/nginx/error.log", "nginx.service"),
        hold("/var/log/syslog", "rsyslog.service"),
        hold("/var/log/wtmp", "ssh.service"),
        hold("/var/log/mysql/mariadb-bin.000004", "mariadb.service"),
        hold("/var/log/mysql/mariadb-bin.index", "mariadb.service"),
        hold("/var/log/audit/audit.log", "auditd.service"),
    ]
    monkeypatch.setattr("agent.checks.log_evidence.find_written", lambda _directory: held)
    proposals = asyncio.run(propose(Machine(clock=Clock())))
    assert [(each.name, each.options["path"], each.why) for each in proposals] == [
        ("log-nginx-error", "/var/log/nginx/error.log", "nginx.service writes it"),
        ("log-syslog", "/var/log/syslog", "rsyslog.service writes it"),
    ]
    for each in proposals:
        LogOptions.model_validate(each.options)
    # Whatever programs log arrives there, unless rsyslog cannot write.
    canaries = [bool(each.options.get("canary")) for each in proposals]
    assert canaries == [False, True]
