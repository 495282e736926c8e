"""`hostmend maintenance run` in a process of its own: it wraps another."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Only against hanging.
LONG = 60.0
RUN = (sys.executable, "-m", "api.cli", "maintenance", "run")


@pytest.fixture
def environment(places: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


async def start(environment: dict[str, str], *words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *RUN,
        *words,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def carry_out(environment: dict[str, str], *words: str) -> tuple[int, str, str]:
    process = await start(environment, *words)
    async with asyncio.timeout(LONG):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_command_runs_in_a_window_that_ends_with_it(agent, environment) -> None:
    ask = f"{sys.executable} -m api.cli silence list --json"
    code, out, err = await carry_out(
        environment, "--check", "web", "--for", "10m", "--", "sh", "-c", f"{ask}; exit 7"
    )
    assert code == 7
    assert '"runs": true' in out
    assert '"web"' in out
    assert err.startswith("maintenance s1: web until ")
    assert [order for order, _ in agent.orders] == ["silence s1", "end s1"]
    assert agent.silence_list == ()


async def test_options_behind_the_command_are_its_own(agent, environment) -> None:
    code, out, _ = await carry_out(environment, "--all", "echo", "--json", "--for", "-n")
    assert (code, out) == (0, "--json --for -n\n")


@pytest.mark.parametrize(
    ("command", "code"),
    [(["/no/such/command"], 127), (["/etc/passwd"], 126), (["sh", "-c", "kill -9 $$"], 137)],
)
async def test_a_command_that_cannot_end_well_leaves_no_window(
    agent, environment, command, code
) -> None:
    assert (await carry_out(environment, "--all", "--", *command))[0] == code
    assert agent.silence_list == ()
    assert len(agent.orders) == 2


@pytest.mark.parametrize("words", [[], ["--check", "no-such-check"], ["--all", "--for", "30d"]])
async def test_without_a_window_the_command_is_not_run(agent, environment, tmp_path, words) -> None:
    touched = tmp_path / "touched"
    code, _, err = await carry_out(environment, *words, "--", "touch", str(touched))
    assert (code, touched.exists()) == (1 if words else 2, False), err
    assert agent.orders == []


async def test_without_an_agent_the_command_is_not_run(environment, tmp_path) -> None:
    touched = tmp_path / "touched"
    assert (await carry_out(environment, "--all", "--", "touch", str(touched)))[0] == 3
    assert not touched.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
async def test_a_signal_ends_the_command_and_then_the_window(agent, environment, number) -> None:
    process = await start(environment, "--all", "--", "sh", "-c", "echo begun; exec sleep 600")
    assert process.stdout is not None
    async with asyncio.timeout(LONG):
        assert await process.stdout.readline() == b"begun\n"
        assert len(agent.silence_list) == 1
        process.send_signal(number)
        await process.communicate()
    assert process.returncode == 128 + number
    assert agent.silence_list == ()


async def test_ctrl_c_is_for_the_command_and_the_window_ends_after_it(agent, environment) -> None:
    script = "trap 'echo cleaned; exit 3' INT; echo begun; while :; do sleep 0.05; done"
    process = await asyncio.create_subprocess_exec(
        *RUN,
        *("--all", "--", "sh", "-c", script),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        process_group=0,
    )
    assert process.stdout is not None
    async with asyncio.timeout(LONG):
        assert await process.stdout.readline() == b"begun\n"
        # As a terminal does: to the whole foreground group.
        os.killpg(process.pid, signal.SIGINT)
        out, _ = await process.communicate()
    assert (process.returncode, out) == (3, b"cleaned\n")
    assert agent.silence_list == ()


async def test_a_client_that_was_killed_leaves_a_window_that_ends_by_itself(
    agent, environment
) -> None:
    process = await start(
        environment, "--all", "--for", "10m", "--", "sh", "-c", "echo $$; exec sleep 600"
    )
    assert process.stdout is not None
    async with asyncio.timeout(LONG):
        child = int(await process.stdout.readline())
        process.kill()
        os.kill(child, signal.SIGKILL)
        await process.communicate()
    (window,) = agent.silence_list
    assert window.ends - window.starts == pytest.approx(600)
