"""Which messages say that there was no room, and where."""

from __future__ import annotations

import pytest

from agent.host.shortage import find_last_words, find_messages, find_paths, find_unusable

PREFIX = "2026-11-23T04:00:00+00:00 app[12]: "


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ("cp: error writing '/srv/my data/x': No space left on device", "/srv/my data/x"),
        ("OSError: [Errno 28] No space left on device: '/srv/data/tmp.1'", "/srv/data/tmp.1"),
        ("/bin/sh: 1: cannot create /srv/data/x: No space left on device", "/srv/data/x"),
        ("/usr/sbin/app: /srv/data/x: write failed: Disk quota exceeded", "/srv/data/x"),
        (
            "[ERROR] mariadbd: Disk is full writing '/var/lib/mysql/bin.000001' (Errcode: 28 "
            '"No space left on device"). Waiting for someone to free space...',
            "/var/lib/mysql/bin.000001",
        ),
        ('PANIC: could not write to file "pg_wal/xlogtemp.9": No space left on device', None),
        ("/usr/sbin/app: No space left on device", None),
        ("Error: ENOSPC: no space left on device, write", None),
        ("read /etc/app.conf, then wrote /srv/data/x, os error 28", "/srv/data/x"),
        ("fetched https://host/path: No space left on device", None),
    ],
)
def test_a_message_that_says_so_and_the_path_that_it_names(message: str, path: str | None) -> None:
    (found,) = find_messages(PREFIX + message)
    assert find_paths(found)[:1] == ([path] if path else [])


@pytest.mark.parametrize(
    "message",
    [
        "listening on /run/app.sock",
        "error 28 of 122 files",
        "exit code 28",
        "plenty of space left on device",
        "errno 2",
        "errno 280",
    ],
)
def test_a_message_that_says_something_else(message: str) -> None:
    assert find_messages(PREFIX + message) == []


def test_the_last_words_are_the_units_own() -> None:
    log = (
        "2026-01-31T10:00:00+0000 systemd[1]: Starting logrotate.service...\n"
        "2026-01-31T10:00:01+0000 logrotate[12]: error: bad top line, password=secret\n"
        "    and more of it\n"
        "2026-01-31T10:00:01+0000 systemd[1]: logrotate.service: Failed: exit-code\n"
    )
    assert find_last_words(log) == "error: bad top line, password=***"
    assert find_last_words("") == ""


def test_the_reason_is_told_rather_than_what_follows_from_it() -> None:
    log = (
        "2026-01-31T10:00:01+0000 nginx[12]: starting\n"
        '2026-01-31T10:00:01+0000 nginx[12]: [emerg] open() "/var/log/nginx/error.log" failed '
        "(2: No such file or directory)\n"
        "2026-01-31T10:00:01+0000 nginx[12]: configuration file nginx.conf test failed\n"
    )
    words = find_last_words(log)
    assert words.startswith("[emerg] open()")
    assert find_unusable(words) == "/var/log/nginx/error.log"


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("/bin/sh: 1: cannot create /var/log/app/x: Permission denied", "/var/log/app/x"),
        ("open '/var/log/a b': Read-only file system", "/var/log/a b"),
        ("/var/log/app/x: connection refused", ""),
        ("No such file or directory", ""),
    ],
)
def test_the_file_that_cannot_be_used_is_found(words: str, path: str) -> None:
    assert find_unusable(words) == path
