"""The real command in a process of its own."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Only against hanging.
LONG = 60.0
COMMAND = (sys.executable, "-m", "api.cli")


@pytest.fixture
def environment(places: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "80"}


async def test_a_terminal_gets_colours_and_the_same_words(agent, environment) -> None:
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "status", env=environment, stdout=theirs
    )
    os.close(theirs)
    async with asyncio.timeout(LONG):
        assert await process.wait() == 0
        out = (await asyncio.to_thread(os.read, ours, 65536)).decode()
    os.close(ours)
    assert "\x1b[1;31mweb1: critical" in out
    assert "held, approval" in out


async def test_a_reader_that_has_had_enough_is_no_error(agent, environment) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "incidents", "--json", env=environment, stdout=writing, stderr=-1
    )
    os.close(writing)
    async with asyncio.timeout(LONG):
        _, err = await process.communicate()
    assert (process.returncode, err) == (1, b"")


async def test_ctrl_c_ends_the_following_and_not_the_run(agent, environment) -> None:
    agent.hold_runs = True
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("remedy", "run", "restart-service", "-o", "unit=x.service"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(LONG):
        await process.stdout.readline()
        assert b"Restart the unit" in await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert process.returncode == 130
    assert b"run r2 goes on" in err
    assert b"Traceback" not in err
    assert agent.run_list["r2"].alive


async def test_commands_load_neither_server_nor_configuration(agent, environment) -> None:
    heavy = "fastapi uvicorn ruamel.yaml ansible_runner apprise agent.config rich pygments"
    code = (
        "import sys; from api.cli.main import run_command; run_command(['status']); "
        f"print([name for name in {heavy.split()!r} if name in sys.modules])"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env=environment, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(LONG):
        out, _ = await process.communicate()
    assert out.decode().splitlines()[-1] == "[]"


async def test_an_agent_runs_answers_and_stops(places, environment) -> None:
    environment["HOSTMEND_LISTEN"] = "127.0.0.1:0"
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "run",
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(LONG):
            while not (await process.stdout.readline()).startswith(b"socket: "):
                assert process.returncode is None
            asking = await asyncio.create_subprocess_exec(
                *COMMAND, "status", env=environment, stdout=asyncio.subprocess.PIPE
            )
            out, _ = await asking.communicate()
            assert asking.returncode == 0
            assert str(places / "hostmend.yml") in out.decode()
            process.send_signal(signal.SIGTERM)
            await process.communicate()
        assert process.returncode == 0
        assert not (places / "hostmend.sock").exists()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_a_token_of_a_real_agent_lets_in_over_the_network_and_is_on_record(
    places, environment
) -> None:
    environment["HOSTMEND_LISTEN"] = "127.0.0.1:0"
    agent = await asyncio.create_subprocess_exec(
        *COMMAND,
        "run",
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )

    async def ask(*words: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *words,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode, (out if process.returncode == 0 else err).decode()

    try:
        assert agent.stdout is not None
        async with asyncio.timeout(LONG):
            while not (line := await agent.stdout.readline()).startswith(b"HTTP: "):
                assert line
            url = line.decode().split()[1].removesuffix("/healthz")
            file = places / "token"
            file.touch(mode=0o600)
            file.write_text((await ask("token", "create", "far", "--role", "operator"))[1])
            far = ("--server", url, "--token-file", str(file))
            assert (await ask(*far, "pause", "--why", "upgrade"))[0] == 0
            code, said = await ask(*far, "token", "list")
            assert (code, "it takes the role admin, and yours is operator" in said) == (1, True)
            trail = (await ask("actions"))[1].splitlines()[1:]
            assert ["token far (t1)" in entry for entry in trail] == [True, False]
            assert ["pause  " in trail[0], "create_token  " in trail[1]] == [True, True]
            assert (await ask("token", "revoke", "t1"))[0] == 0
            code, said = await ask(*far, "status")
            assert (code, "was revoked or has expired" in said) == (1, True)
            agent.send_signal(signal.SIGTERM)
            _, err = await agent.communicate()
        assert agent.returncode == 0
        assert file.read_bytes().strip() not in err
    finally:
        if agent.returncode is None:
            agent.kill()
            await agent.communicate()
