"""What may be cut off an append only file of Redis, and what its settings say. In a lab:
tests/lab/test_redis_remedies.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

REMEDY = Path(__file__).parents[2] / "playbooks" / "repair-redis-aof"


def load(path: str, name: str) -> ModuleType:
    """As Ansible has it: what is shared is found below its own module_utils."""
    spec = importlib.util.spec_from_file_location(name, REMEDY / path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


data = load("module_utils/data_directory.py", "ansible.module_utils.data_directory")
server = load("module_utils/redis_server.py", "ansible.module_utils.redis_server")
cut_aof = load("library/cut_aof.py", "cut_aof")

SET = b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n"
MULTI = b"*1\r\n$5\r\nMULTI\r\n"
EXEC = b"*1\r\n$4\r\nEXEC\r\n"
NOTE = b"#TS:1637744820\r\n"


def refused(end: bytes) -> str:
    try:
        cut_aof.check_unfinished(end, "the file")
    except data.Refused as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("in a value", SET[:-4]),
        ("before a value's last byte", SET[:-1]),
        ("in a length", SET[:-9]),
        ("in the first byte", SET[:1]),
        ("behind when it was written", NOTE + SET[:-4]),
        ("amid when it was written", NOTE[:-4]),
        ("in a transaction", MULTI + SET + SET[:-4]),
        ("before the end of a transaction", MULTI + SET + SET),
        ("in the end of a transaction", MULTI + SET + EXEC[:-4]),
    ],
)
def test_a_command_without_its_end_may_be_cut(name: str, end: bytes) -> None:
    assert refused(end) == ""


@pytest.mark.parametrize(
    ("name", "end", "why"),
    [
        ("a value's length", SET.replace(b"$5", b"$55"), "rather its length"),
        ("a value's length before others", SET.replace(b"$5", b"$999") + SET, "further commands"),
        ("a count of words", SET.replace(b"*3", b"*4"), "rather its length"),
        ("a count of words before others", SET.replace(b"*3", b"*9") + SET[:-3], "further"),
        ("a byte of a length", SET.replace(b"$5", b"$x") + SET, "further commands"),
        ("in a transaction", MULTI + SET.replace(b"$5", b"$77") + EXEC, "further commands"),
        ("whole commands", SET + SET[:-4], "more than an unfinished command"),
    ],
)
def test_whole_commands_behind_what_is_damaged_are_never_cut(
    name: str, end: bytes, why: str
) -> None:
    assert why in refused(end)


def test_settings_are_read_as_the_server_reads_them(tmp_path: Path) -> None:
    (tmp_path / "more.conf").write_text("appenddirname 'own dir'\n")
    main = tmp_path / "redis.conf"
    main.write_text(
        '# dir /nowhere\nDIR /var/lib/redis\n\nappendfilename "a.aof"\n'
        f"include {tmp_path}/m*.conf\nsave 3600 1 300 100\n"
    )
    command = (
        f"{{ path=/x ; argv[]=/usr/bin/redis-server {main} --dir /srv/redis --daemonize no ; }}"
    )
    assert server.read_settings("r.service", command) == {
        "dir": "/srv/redis",
        "appendfilename": "a.aof",
        "appenddirname": "own dir",
        "save": "3600 1 300 100",
        "daemonize": "no",
    }


@pytest.mark.parametrize(
    "command",
    [
        "{ path=/usr/bin/redis-server ; argv[]=/usr/bin/redis-server ; ignore_errors=no }",
        "{ argv[]=/usr/bin/redis-server --port 6379 ; }",
        "{ argv[]=/bin/true x ; } { argv[]=/usr/bin/redis-server /etc/redis.conf ; }",
        "{ argv[]=/usr/bin/redis-server /nowhere/redis.conf ; }",
        "",
    ],
)
def test_a_server_that_is_started_otherwise_is_left_to_a_human(command: str) -> None:
    with pytest.raises(data.Refused):
        server.read_settings("r.service", command)


def test_files_that_include_each_other_end(tmp_path: Path) -> None:
    main = tmp_path / "redis.conf"
    main.write_text(f"include {main}\n")
    with pytest.raises(data.Refused, match="without end"):
        server.read_settings("r.service", f"{{ argv[]=/usr/bin/redis-server {main} ; }}")
