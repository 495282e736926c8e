"""Requests made from the OpenAPI document, sent to a real server, with every check there is."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import httpx
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
#: Only against hanging.
LONG = 600.0


async def send_everything(directory: Path, *options: str) -> None:
    """Runs schemathesis as a user would, over TCP with an admin's token."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "fake_server.py"),
        str(directory / "s.sock"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        async with asyncio.timeout(LONG):
            port, secret = (await server.stdout.readline()).decode().split()
            tester = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).with_name("schemathesis")),
                *("--config-file", str(HERE / "schemathesis.toml"), "run", "--no-color"),
                f"http://127.0.0.1:{port}/openapi.json",
                *("--header", f"Authorization: Bearer {secret}", "--checks", "all"),
                # It has no end, and is tested by itself.
                *("--exclude-path", "/v1/events"),
                *("--request-timeout", "60", *options),
                cwd=directory,
                env=environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            try:
                said, _ = await tester.communicate()
            finally:
                if tester.returncode is None:
                    tester.kill()
        assert tester.returncode == 0, said.decode()
        # All of it was asked by somebody who was let in.
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            headers = {"Authorization": f"Bearer {secret}"}
            answer = await client.get(f"http://127.0.0.1:{port}/v1/status", headers=headers)
        assert answer.status_code == 200
    finally:
        server.kill()
        _, err = await server.communicate()
    assert b"Traceback" not in err, err.decode()


async def test_a_few_requests_of_every_kind_find_nothing(tmp_path: Path) -> None:
    await send_everything(
        tmp_path,
        *("--generation-deterministic", "--max-examples", "2", "--phases", "coverage,fuzzing"),
    )


@pytest.mark.long
async def test_many_requests_of_every_kind_find_nothing(tmp_path: Path) -> None:
    await send_everything(tmp_path, "--max-examples", "100")
