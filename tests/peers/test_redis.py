"""The check `redis` against peers that say what they should not, or nothing, and what is asked.

A real server that is broken in every way: tests/lab/test_redis.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from peers import complete, drip, flood, hang

from agent.checks import CHECKS
from agent.clock import Clock
from agent.core.model import Finding
from agent.host.connection import Peer
from agent.host.database import Trouble, Written
from agent.host.machine import Machine
from agent.host.redis import Login, RedisAnswer, ask_redis

Serve = Callable[..., Awaitable[Any]]

INFO = "# Server\r\nredis_version:7.0.15\r\n# Replication\r\nrole:master\r\nmaxclients:100\r\n"
#: What a server that is well answers.
WELL = {
    "AUTH": "+OK",
    "GET": "$-1",
    "PING": "+PONG",
    "INFO": f"${len(INFO)}\r\n{INFO}",
    "CONFIG": "*2\r\n$3\r\ndir\r\n$14\r\n/var/lib/redis",
    "SET": "+OK",
}


class Script:
    """A server that has one answer to each command; None: it says nothing more."""

    def __init__(self, **answers: str | None) -> None:
        self.answers: Mapping[str, str | None] = {**WELL, **answers}
        self.heard: list[list[str]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2].decode())
            self.heard.append(words)
            if (answer := self.answers[words[0]]) is None:
                await hang(reader, writer)
            writer.write(f"{answer}\r\n".encode())

    def said(self) -> list[str]:
        return [words[0] for words in self.heard]


async def ask(serve: Serve, script: Script, seconds: float = 20, **given: Any) -> RedisAnswer:
    served = await serve(script)
    return await ask_redis(Peer(address="127.0.0.1", port=served.port), seconds, **given)


async def test_a_light_look_reads_a_key_and_writes_nothing(serve: Serve) -> None:
    script = Script()
    answer = await ask(serve, script)
    assert (answer.read, answer.complete, answer.trouble) == (True, True, None)
    assert script.said() == ["GET", "PING"]


async def test_a_key_that_is_written_goes_by_itself(serve: Serve) -> None:
    script = Script()
    answer = await ask(serve, script, deep=True, write=True)
    assert answer.written is Written.DONE
    *_, written = script.heard
    assert (written[:2], written[3:]) == (["SET", "hostmend:probe"], ["EX", "60"])
    assert answer.info["redis_version"] == "7.0.15"


@pytest.mark.parametrize("info", ["role:slave\r\n", "redis_version:7.0.15\r\n"])
async def test_nothing_is_written_unless_it_is_certain_that_it_is_no_replica(
    serve: Serve, info: str
) -> None:
    script = Script(INFO=f"${len(info)}\r\n{info}")
    answer = await ask(serve, script, write=True)
    assert answer.written is Written.LEFT_OUT
    assert "replica" in answer.write_error
    assert "SET" not in script.said()


async def test_a_user_logs_in_first_and_a_password_is_never_shown(serve: Serve) -> None:
    script = Script(AUTH="-ERR unknown command 'AUTH', with args beginning with: 'sesame'")
    login = Login(user="hostmend", password="sesame")
    answer = await ask(serve, script, login=login)
    assert script.heard == [["AUTH", "hostmend", "sesame"]]
    assert answer.trouble is Trouble.ERROR
    assert "sesame" not in repr((answer, login))


async def test_a_password_that_nobody_asks_for_does_no_harm(serve: Serve) -> None:
    script = Script(AUTH="-ERR AUTH <password> called without any password configured for ...")
    assert (await ask(serve, script, login=Login(password="sesame"))).read


@pytest.mark.parametrize(
    ("said", "trouble"),
    [
        ("-NOAUTH Authentication required.", Trouble.DENIED),
        ("-WRONGPASS invalid username-password pair or user is disabled.", Trouble.DENIED),
        ("-DENIED Redis is running in protected mode", Trouble.DENIED),
        ("-ERR max number of clients reached", Trouble.FULL),
        ("-LOADING Redis is loading the dataset in memory", Trouble.STARTING),
        ("-MASTERDOWN Link with MASTER is down", Trouble.ERROR),
        ("-CLUSTERDOWN The cluster is down", Trouble.ERROR),
        ("-BUSY Redis is busy running a script.", Trouble.ERROR),
        ("-", Trouble.ERROR),
    ],
)
async def test_a_server_that_does_not_read_says_why(
    serve: Serve, said: str, trouble: Trouble
) -> None:
    answer = await ask(serve, Script(GET=said), deep=True, write=True)
    assert (answer.read, answer.trouble, answer.why) == (False, trouble, said[1:])


@pytest.mark.parametrize(
    "said", ["-NOPERM this user has no permissions to run the 'get' command", "-MOVED 5 other:6379"]
)
async def test_who_may_not_read_or_whose_key_is_elsewhere_is_answered_all_the_same(
    serve: Serve, said: str
) -> None:
    answer = await ask(serve, Script(GET=said))
    assert (answer.read, answer.limited) == (True, said[1:])


async def test_a_load_says_how_far_it_is(serve: Serve) -> None:
    info = "loading:1\r\nloading_start_time:1000000000\r\nloading_loaded_perc:42.00\r\n"
    script = Script(GET="-LOADING Redis is loading", INFO=f"${len(info)}\r\n{info}")
    answer = await ask(serve, script)
    assert answer.loading is not None
    assert answer.loading.percent == 42
    assert answer.loading.seconds > 0


@pytest.mark.parametrize(
    ("said", "written", "stopped", "out_of_memory"),
    [
        ("-MISCONF Errors writing to the AOF file: No space left", Written.FAILED, True, False),
        ("-OOM command not allowed when used memory > 'maxmemory'.", Written.FAILED, False, True),
        ("-NOREPLICAS Not enough good replicas to write.", Written.FAILED, False, False),
        # It became a replica since.
        ("-READONLY You can't write against a read only replica.", Written.LEFT_OUT, False, False),
        ("-NOPERM this user has no permissions", Written.LEFT_OUT, False, False),
        ("-MOVED 1 other:6379", Written.LEFT_OUT, False, False),
        (None, Written.TIMEOUT, False, False),
    ],
)
async def test_what_became_of_the_write_is_told_apart(
    serve: Serve, said: str | None, written: Written, stopped: bool, out_of_memory: bool
) -> None:
    script = Script(SET=said)
    answer = await ask(serve, script, seconds=20 if said else 0.5, write=True)
    assert (answer.read, answer.written) == (True, written)
    assert (bool(answer.stopped), bool(answer.out_of_memory)) == (stopped, out_of_memory)
    assert answer.write_error


async def test_writes_that_are_refused_are_seen_without_one(serve: Serve) -> None:
    script = Script(PING="-MISCONF Redis is configured to save RDB snapshots, but it's currently")
    answer = await ask(serve, script)
    assert answer.read
    assert answer.stopped


async def test_settings_that_are_forbidden_are_done_without(serve: Serve) -> None:
    answer = await ask(serve, Script(CONFIG="-NOPERM no permissions"), deep=True)
    assert (answer.complete, answer.settings) == (True, {})


@pytest.mark.parametrize(
    "said",
    [
        "HTTP/1.1 400 Bad Request",
        "$nonsense",
        "$99999999999\r\nx",
        "*99999999\r\n",
        "*1\r\n*1\r\n*1\r\n:1",
        "\x00\x01\x02",
        "",
    ],
)
async def test_what_speaks_otherwise_is_an_error_in_plain_words(serve: Serve, said: str) -> None:
    answer = await ask(serve, Script(GET=said), seconds=5)
    assert (answer.read, answer.trouble) == (False, Trouble.ERROR)
    assert answer.why.isprintable()


@pytest.mark.parametrize(("behave", "causes"), [
    (hang, {"timeout"}),
    (drip, {"timeout", "error"}),
    (flood, {"error", "timeout"}),
    (b"+OK\r\n+OK\r\n", {"error", "timeout", "unavailable", ""}),
])  # fmt: skip
async def test_whatever_a_peer_does_a_look_ends_with_a_finding(
    serve: Serve, behave: Any, causes: set[str]
) -> None:
    served = await serve(behave)
    found = await look(port=served.port, answer_within="1s", write=True)
    assert found[0].cause in causes


async def test_a_server_that_answered_before_and_is_gone_is_refused(
    serve: Serve, tmp_path: Path
) -> None:
    """Over its socket, which has the same words for what is not there."""
    served = await serve(Script(), path=tmp_path / "redis.sock")
    machine = Machine(clock=Clock())
    (main, *_) = await look(machine, socket=served.path, write=True)
    assert (main.status, main.summary) == ("ok", "redis-server.service reads and writes")
    (tmp_path / "redis.sock").unlink()
    (main, *_) = await look(machine, socket=served.path, write=True)
    assert (main.status, main.cause) == ("critical", "refused")
    assert served.path in main.summary


async def test_a_place_that_never_answered_is_rather_a_wrong_one(tmp_path: Path) -> None:
    (finding,) = await look(socket=str(tmp_path / "redis.sock"))
    assert (finding.status, finding.cause) == ("unknown", "unavailable")
    assert "correct `socket`" in finding.summary


async def test_a_password_comes_from_a_file_that_others_cannot_read(
    serve: Serve, tmp_path: Path
) -> None:
    script = Script()
    served = await serve(script)
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("open sesame\n")
    (main, *_) = await look(port=served.port, password_file=str(secret))
    assert main.status == "ok"
    assert script.heard[0] == ["AUTH", "open sesame"]


async def look(machine: Machine | None = None, **fields: Any) -> tuple[Finding, ...]:
    found = await CHECKS["redis"].look(complete("redis", fields), machine or Machine(clock=Clock()))
    assert all(finding.summary.isprintable() for finding in found)
    return found
