"""What the journal check makes of what it is told, and of a journalctl that misbehaves.

A real journald: tests/lab/test_journal.py.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.checks import journal
from agent.checks.journal import JOURNAL, JournalOptions, look
from agent.checks.journal_findings import Health, judge_health
from agent.clock import Clock
from agent.core.model import Finding, Status
from agent.host import entries, journald
from agent.host.entries import read_entries
from agent.host.journal import ENVIRONMENT
from agent.host.journald import JournalFile, Storage, read_config, read_storage, verify_file
from agent.host.machine import Machine
from agent.host.memory import Memories

HOUR = 3600.0


def make_file(name: str, place: str = journald.PERSISTENT, moved: float = 0.0) -> JournalFile:
    return JournalFile(
        path=f"{place}/id/{name}", inode=1, size=8, disk_bytes=8, changed_ns=1, moved=moved
    )


WELL = Health(
    storage=Storage(
        files=(make_file("system.journal"), make_file("system@1-2.journal")),
        wanted="auto",
        directory=True,
    ),
    persistent=True,
    wall=10 * HOUR,
    uptime=HOUR,
)
IN_MEMORY = replace(WELL.storage, files=(make_file("system.journal", journald.VOLATILE),))


def with_file(name: str, moved: float) -> Health:
    file = make_file(name, moved=moved)
    return replace(WELL, storage=replace(WELL.storage, files=(*WELL.storage.files, file)))


@pytest.mark.parametrize(
    ("sentence", "health", "status", "cause"),
    [
        ("a journal on the disk is well", WELL, "ok", ""),
        ("an empty one is well", replace(WELL, storage=replace(WELL.storage, files=())), "ok", ""),
        ("a dead journald is critical", replace(WELL, dead="it is failed"), "critical", "dead"),
        ("a lost canary is critical", replace(WELL, silent="no"), "critical", "silent"),
        ("a corrupt file is critical", replace(WELL, corrupt={"/a": "FAIL"}), "critical",
         "corrupt"),
        ("a journal in memory is a warning", replace(WELL, storage=IN_MEMORY), "warning",
         "volatile"),
        ("not where it may be there", replace(WELL, storage=IN_MEMORY, persistent=False), "ok", ""),
        ("and not while the host boots", replace(WELL, storage=IN_MEMORY, uptime=60), "ok", ""),
        ("a file set aside just now is a warning", with_file("system@1.journal~", 9.5 * HOUR),
         "warning", "unclean"),
        ("not one of yesterday", with_file("system@1.journal~", 0), "ok", ""),
        ("dropped lines are a warning", replace(WELL, troubles={"dropping": "Suppressed 3"}),
         "warning", "dropping"),
    ],
)  # fmt: skip
def test_what_the_state_of_the_journal_means(
    sentence: str, health: Health, status: str, cause: str
) -> None:
    finding = judge_health(health)
    assert (finding.status, finding.cause) == (status, cause), sentence
    assert set(finding.measurements) <= set(JOURNAL.measurements)
    assert cause == "" or cause in JOURNAL.causes


@pytest.mark.parametrize(
    ("wanted", "directory", "persistent"),
    [
        ("auto", True, True), ("auto", False, False), ("persistent", False, True),
        ("volatile", True, False), ("none", True, False),
    ],
)  # fmt: skip
def test_where_journald_should_write(wanted: str, directory: bool, persistent: bool) -> None:
    storage = Storage(files=(), wanted=wanted, directory=directory)
    assert storage.persistent_wanted is persistent


def test_drop_ins_win_in_the_order_of_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    etc, run = tmp_path / "etc", tmp_path / "run"
    for path, text in {
        etc / "journald.conf": "[Journal]\n#Storage=none\nStorage=auto\n",
        etc / "journald.conf.d" / "20.conf": "[Journal]\nStorage = volatile\n",
        run / "journald.conf.d" / "10.conf": "[Journal]\nStorage=none\n",
        run / "journald.conf.d" / "20.conf": "[Journal]\nStorage=persistent\n",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(journald, "_CONFIG_PLACES", (str(etc), str(run)))
    assert read_config("Storage", "auto") == "volatile"
    assert read_config("Compress", "yes") == "yes"
    (etc / "journald.conf.d" / "20.conf").write_text("[Journal]\nStorage=\n")
    assert read_config("Storage", "auto") == "auto"


# A journalctl that misbehaves


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Replaces journalctl by a script; its argument is a shell's."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setitem(ENVIRONMENT, "PATH", f"{place}:{ENVIRONMENT['PATH']}")

    def write(script: str) -> None:
        program = place / "journalctl"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return write


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Finding]:
    """Looks at a journal whose files lie in a directory of the test."""
    persistent = tmp_path / "persistent"
    monkeypatch.setattr(journald, "_read_machine_id", lambda: "id")
    monkeypatch.setattr(journald, "PERSISTENT", str(persistent))
    monkeypatch.setattr(journald, "VOLATILE", str(tmp_path / "volatile"))
    (persistent / "id").mkdir(parents=True)
    (persistent / "id" / "system.journal").touch()
    memories, machine = Memories(), Machine(clock=Clock())

    def look_once(*, timeout: float = 10.0, grow: bool = True, **given: Any) -> Finding:
        if grow:
            with (persistent / "id" / "system.journal").open("a") as file:
                file.write("x")
        written = JournalOptions.model_validate({"type": "journal", **given})
        filled = {"timeout": timeout, "every": 30.0}
        memory = memories.open("journal")
        found = asyncio.run(look(written.model_copy(update=filled), machine.remember(memory)))
        memories.keep("journal", memory)
        return found[0]

    return look_once


def entry(cursor: str, message: object = "bad") -> str:
    return json.dumps(
        {"__CURSOR": cursor, "__REALTIME_TIMESTAMP": "1700000000000000", "MESSAGE": message}
    )


LINES = {"critical": {"bad": "bad"}}


@pytest.mark.parametrize(
    ("sentence", "script", "why"),
    [
        ("it fails", "echo 'no rights' >&2; exit 1", "cannot read the journal: no rights"),
        ("it fails in silence", "exit 3", "cannot read the journal: exit code 3"),
        ("it is killed", "kill -9 $$", "cannot read the journal: exit code -9"),
        ("it writes garbage", "echo '{'", "journalctl wrote garbage"),
        ("it writes another JSON", "echo '{}'", "journalctl wrote garbage"),
    ],
)
def test_a_journalctl_that_breaks_is_unknown(
    fake: Callable[[str], None], check: Callable[..., Finding], sentence: str, script: str, why: str
) -> None:
    fake(script)
    finding = check(**LINES)
    assert (finding.status, finding.cause) == (Status.UNKNOWN, "unavailable"), sentence
    assert why in finding.summary


def test_a_journalctl_that_hangs_is_unknown_and_ended(
    fake: Callable[[str], None], check: Callable[..., Finding], tmp_path: Path
) -> None:
    fake(f"echo $$ > {tmp_path}/pid; exec sleep 600")
    finding = check(**LINES, timeout=0.5)
    assert (finding.status, finding.cause) == (Status.UNKNOWN, "unavailable")
    assert "took longer" in finding.summary
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_no_journalctl_at_all_is_unknown(
    check: Callable[..., Finding], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "PATH", str(tmp_path))
    assert "cannot start journalctl" in check(**LINES).summary


def test_a_journalctl_without_an_end_is_read_in_parts(
    fake: Callable[[str], None], check: Callable[..., Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_MOST_BYTES", 50_000)
    fake(f"echo '{entry('c1')}'")
    check(**LINES)
    fake(f"while :; do echo '{entry('c2')}'; done")
    finding = check(**LINES)
    assert finding.cause == "bad"
    assert finding.measurements["matches_count"] == pytest.approx(
        50_000 / len(entry("c2")), rel=0.1
    )
    assert "Behind" in finding.facts


def test_nothing_is_started_while_no_file_of_the_journal_changed(
    fake: Callable[[str], None], check: Callable[..., Finding]
) -> None:
    fake(f"echo '{entry('c1')}'")
    check(**LINES)
    fake(f"echo '{entry('c2')}'")
    assert check(**LINES).measurements["matches_count"] == 1
    fake("exit 1")
    assert check(**LINES, grow=False).measurements["matches_count"] == 1
    assert check(**LINES).cause == "unavailable"


def test_the_entry_of_the_cursor_itself_is_not_read_again(fake: Callable[[str], None]) -> None:
    fake(f"echo '{entry('c1')}'; echo '{entry('c2')}'")
    batch = asyncio.run(read_entries("c1", [], most_bytes=10_000, seconds=10))
    assert [each.message for each in batch.entries] == [b"bad"]
    assert batch.cursor == "c2"


def test_fields_of_every_form_are_read(fake: Callable[[str], None]) -> None:
    forms = ["text", [98, 97, 100, 255], None, ["one", "two"], [[98], "x"]]
    fake("\n".join(f"echo '{entry(f'c{n}', form)}'" for n, form in enumerate(forms)))
    batch = asyncio.run(read_entries("", [], most_bytes=10_000, seconds=10))
    assert [each.message for each in batch.entries] == [
        b"text",
        b"bad\xff",
        b"",
        b"one two",
        b"b x",
    ]


def test_an_entry_too_long_to_be_read_whole_is_read_without_its_message(
    fake: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "_LONGEST", 100_000)
    huge = "head -c 300000 /dev/zero | tr '\\0' x"
    fake(
        f'case "$*" in *--all*) {huge}; exit;; esac\n'
        f"echo '{entry('c1', None)}'; echo '{entry('c2')}'"
    )
    batch = asyncio.run(read_entries("", [], most_bytes=1_000_000, seconds=10))
    assert [each.message for each in batch.entries] == [b"", b"bad"]
    assert batch.whole


def test_a_verification_that_cannot_tell_says_nothing(
    fake: Callable[[str], None], tmp_path: Path
) -> None:
    path = tmp_path / "system@1.journal"
    path.touch()

    def verify(script: str, limit: float = 30.0) -> str | None:
        fake(script)
        return asyncio.run(verify_file(str(path), limit))

    assert verify("exit 0") == ""
    assert verify("echo rubbish; echo 'FAIL: x (Bad message)'; exit 1") == "FAIL: x (Bad message)"
    assert verify("echo 'Failed to open'; exit 1") is None
    assert verify("exec sleep 600", limit=0.2) is None
    path.unlink()
    assert verify("echo 'FAIL: x'; exit 1") == ""


def test_files_that_vanish_are_no_error(check: Callable[..., Finding], tmp_path: Path) -> None:
    place = tmp_path / "persistent" / "id"
    (place / "system@1-2.journal").touch()
    (place / "other").touch()
    storage = read_storage()
    assert [file.name for file in storage.files] == ["system.journal", "system@1-2.journal"]
    assert [file.archived for file in storage.files] == [False, True]
