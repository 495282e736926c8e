"""`hostmend push`: a report, or a command with a report of how it went."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.agent import CheckStatus
from agent.core.model import Status

ROOT = Path(__file__).parents[2]
#: Only against hanging.
LONG = 60.0


@pytest.fixture
def backup(agent: Any) -> Any:
    agent.check_list["backup"] = CheckStatus(
        name="backup", type="push", every=10.0, depends_on=(), ladder=(), mode="auto", labels={},
        looked=None, took=None, findings=(), broken="", status="unknown", incidents=(),
    )  # fmt: skip
    return agent


async def test_what_was_found_is_reported(hostmend, backup) -> None:
    result = await hostmend(
        *("push", "backup", "--status", "warning", "--summary", "half of it", "--subject", "db1"),
        *("--cause", "late", "-m", "copied_bytes=12.5", "-m", "files_count=3"),
    )
    assert (result.code, result.out, result.err) == (0, "backup is warning.\n", "")
    ((name, report, _),) = backup.reports
    assert (name, report.status, report.subject) == ("backup", Status.WARNING, "db1")
    assert (report.summary, report.cause) == ("half of it", "late")
    assert dict(report.measurements) == {"copied_bytes": 12.5, "files_count": 3.0}


async def test_nothing_said_means_that_all_is_well(hostmend, backup) -> None:
    result = await hostmend("push", "backup", "--json")
    assert result.code == 0
    assert '"status": "ok"' in result.out


async def test_a_check_that_nobody_reports_on_is_refused(hostmend, backup) -> None:
    result = await hostmend("push", "web")
    assert result.code == 1
    assert "cannot take a report for web" in result.err


@pytest.mark.parametrize(
    "words",
    [
        ("push",),
        ("push", "backup", "--status", "fine"),
        ("push", "backup", "--", "true"),
        ("push", "--run", "backup"),
        ("push", "--run", "backup", "--status", "critical", "--", "true"),
        ("push", "backup", "-m", "x"),
        ("push", "backup", "-m", "x=y"),
    ],
    ids=" ".join,
)
async def test_wrong_usage(hostmend, backup, words) -> None:
    assert (await hostmend(*words)).code == 2
    assert backup.reports == []


# In a process of its own: it wraps another.


async def start(*words: str, **more: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "api.cli", "push", "--run", *words),
        env={**os.environ, "PYTHONPATH": str(ROOT), **more},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def carry_out(*words: str, **more: str) -> tuple[int, str, str]:
    process = await start(*words, **more)
    async with asyncio.timeout(LONG):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def read(backup: Any) -> tuple[Status, str, Mapping[str, float], str]:
    ((_, report, _),) = backup.reports
    return report.status, report.summary, report.measurements, report.output


async def test_a_command_that_ends_well_is_reported_so(backup) -> None:
    code, out, err = await carry_out("backup", "--", "sh", "-c", "echo done; echo odd >&2", "-x")
    assert (code, out, err) == (0, "done\n", "odd\n")
    status, summary, measured, output = read(backup)
    assert status is Status.OK
    assert summary.startswith("sh ended well after ")
    assert measured["exit_code"] == 0
    assert measured["run_seconds"] > 0
    assert sorted(output.splitlines()) == ["done", "odd"]


async def test_a_command_that_fails_is_reported_with_the_end_of_its_output(backup) -> None:
    script = "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done; exit 3"
    code, out, _ = await carry_out("backup", "--", "sh", "-c", script)
    assert code == 3
    assert len(out.splitlines()) == 5000
    status, summary, measured, output = read(backup)
    assert status is Status.CRITICAL
    assert summary.startswith("sh ended with exit code 3 after ")
    assert measured["exit_code"] == 3
    assert output.endswith("line 4999\n")
    assert len(output) <= 8192


@pytest.mark.parametrize(
    ("command", "code"), [(["/nowhere/x"], 127), (["/etc"], 126)], ids=["missing", "directory"]
)
async def test_a_command_that_cannot_be_run_is_reported_too(backup, command, code) -> None:
    assert (await carry_out("backup", "--", *command))[0] == code
    assert read(backup)[0] is Status.CRITICAL
    assert read(backup)[2]["exit_code"] == code


async def test_a_signal_is_the_commands_and_is_reported(backup) -> None:
    process = await start("backup", "--", "sh", "-c", "echo up; exec sleep 100")
    assert process.stdout is not None
    async with asyncio.timeout(LONG):
        await process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 128 + signal.SIGTERM
    assert read(backup)[2]["exit_code"] == 128 + signal.SIGTERM


async def test_what_a_command_leaves_with_its_output_open_is_not_waited_for(backup) -> None:
    process = await start("backup", "--", "sh", "-c", "sleep 1000 & echo $!")
    assert process.stdout is not None
    async with asyncio.timeout(LONG):
        left = int(await process.stdout.readline())
        try:
            assert await process.wait() == 0
        finally:
            os.kill(left, signal.SIGKILL)
    assert read(backup)[0] is Status.OK


async def test_a_job_does_not_fail_because_nobody_can_be_told(places, monkeypatch) -> None:
    # Nobody is waited for long: the test would.
    program = (
        "import sys; from api.cli import pushes; pushes._PAUSE = 0.01; "
        "from api.cli.main import main; main()"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, "push", "--run", "backup", "--", "sh", "-c", "exit 4"),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(LONG):
        _, err = await process.communicate()
    assert process.returncode == 4
    assert b"cannot report on backup: cannot reach the agent" in err
