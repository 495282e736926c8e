"""The agent's side: nothing is lost, nothing is left over, and nothing hangs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import agent
from agent.notify.client import deliver, validate_routes, validate_url
from agent.notify.delivery import Batch, Delivery, DeliveryResult, encode_batch


def letter(id: str, url: str, route: str = "") -> Delivery:
    return Delivery(
        id=id, route=route or id, url=url, title="t", body="b", severity="ok", message_id=id
    )


def silent_url(port: int) -> str:
    return f"mailto://127.0.0.1:{port}/?from=a@example.org"


def find_senders() -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if "agent.notify.sender" in process.cmdline()
    ]


async def test_an_empty_batch_starts_nothing(send):
    assert await send() == []


async def test_results_so_far_are_kept_when_the_sender_is_killed(webhook, silent_port):
    results: list[DeliveryResult] = []

    async def keep(result: DeliveryResult) -> None:
        results.append(result)
        if len(results) == 1:
            for sender in find_senders():
                sender.kill()

    await deliver(
        [
            letter("n1", webhook.url),
            letter("n2", silent_url(silent_port)),
            letter("n3", silent_url(silent_port)),
        ],
        timeout=60,
        limit=60,
        on_result=keep,
    )
    assert results[0] == DeliveryResult(id="n1", ok=True)
    assert {result.id for result in results[1:]} == {"n2", "n3"}
    assert all(not result.ok and result.retry for result in results[1:])
    assert "ended early (signal 9)" in results[1].error


async def test_the_time_of_a_batch_ends_the_sender(silent_port, send):
    [result] = await send(letter("n1", silent_url(silent_port)), timeout=1, limit=60)
    assert result == DeliveryResult(
        id="n1", ok=False, retry=True, error="no result: the sender was ended after 1 s"
    )
    assert find_senders() == []


async def test_what_was_said_before_the_sender_was_ended_still_counts(tmp_path, monkeypatch):
    """A stand-in for the sender says two results and hangs; the second one nobody has read yet."""
    line = '{{"id": "{}", "ok": true, "retry": false, "error": ""}}'
    stand_in = tmp_path / "python"
    stand_in.write_text(
        f"#!/bin/sh\necho '{line.format('n1')}'\nsleep 1\necho '{line.format('n2')}'\nsleep 300\n"
    )
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    results: list[DeliveryResult] = []

    async def keep(result: DeliveryResult) -> None:
        results.append(result)
        if len(results) == 1:
            # Blocks the loop beyond the time of the batch, as a stuck disk would.
            time.sleep(4.5)  # noqa: ASYNC251

    await deliver(
        [letter(id, "json://127.0.0.1") for id in ("n1", "n2", "n3")], timeout=3, on_result=keep
    )
    assert [(result.id, result.ok) for result in results] == [
        ("n1", True),
        ("n2", True),
        ("n3", False),
    ]


async def test_what_the_sender_starts_ends_with_it(tmp_path, monkeypatch):
    """A stand-in for the sender starts a process, says a result and hangs."""
    marker = tmp_path / "pid"
    line = '{"id": "n1", "ok": true, "retry": false, "error": ""}'
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\nsleep 300 &\necho $! >{marker}\necho '{line}'\nwait\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))

    async def fail(result: DeliveryResult) -> None:
        raise OSError("enough")

    batch = [letter(id, "json://127.0.0.1") for id in ("n1", "n2")]
    with pytest.raises(OSError, match="enough"):
        await deliver(batch, timeout=60, on_result=fail)
    started = int(marker.read_text())
    # Killed with its group; the kernel needs a moment to take it away.
    async with asyncio.timeout(60):
        while is_running(started):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_sender_that_cannot_be_started_loses_nothing(monkeypatch, send):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    [result] = await send(letter("n1", "json://127.0.0.1"))
    assert result.retry
    assert "cannot start the sender" in result.error


async def test_a_sender_that_dies_at_once_loses_nothing(monkeypatch, send):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    batch = [letter(f"n{i}", "json://127.0.0.1/" + "x" * 10_000) for i in range(50)]
    results = await send(*batch)
    assert len(results) == 50
    assert all(result.retry and "status 1" in result.error for result in results)


async def test_lines_that_are_no_results_are_passed_over(tmp_path, monkeypatch, send):
    stand_in = tmp_path / "python"
    good = '{"id": "n1", "ok": true, "retry": false, "error": ""}'
    unknown = good.replace("n1", "n9")
    stand_in.write_text(
        "#!/bin/sh\n"
        "head -c 200000 /dev/zero | tr '\\0' x; echo\n"
        f"echo nonsense; echo '[]'; echo '{{}}'; echo '{unknown}'; echo '{good}'; echo '{good}'\n"
    )
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    assert await send(letter("n1", "json://127.0.0.1")) == [DeliveryResult(id="n1", ok=True)]


async def test_cancelling_leaves_no_sender_behind(send):
    connected: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    server = await asyncio.start_server(
        lambda _reader, writer: connected.put_nowait(writer), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    task = asyncio.create_task(send(letter("n1", silent_url(port)), limit=60))
    writer = await connected.get()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert find_senders() == []
    writer.close()
    server.close()


async def test_an_error_of_the_caller_leaves_no_sender_behind(webhook, silent_port):
    async def fail(result: DeliveryResult) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        await deliver(
            [letter("n1", webhook.url), letter("n2", silent_url(silent_port))],
            timeout=60,
            limit=60,
            on_result=fail,
        )
    assert find_senders() == []


def test_the_sender_ends_when_the_agent_is_gone(silent_port):
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "agent.notify.sender"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(Path(agent.__file__).parents[1])},
    )
    try:
        assert process.stdin
        process.stdin.write(
            encode_batch(Batch(deliveries=(letter("n1", silent_url(silent_port)),), limit=300))
        )
        process.stdin.close()
        assert process.wait(60) == 1
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


async def test_the_sender_sees_nothing_of_the_agents_environment(tmp_path, monkeypatch, send):
    stand_in = tmp_path / "python"
    stand_in.write_text(f'#!/bin/sh\nenv >{tmp_path}/env; echo "$@" >{tmp_path}/arguments\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
    await send(letter("n1", "json://ops:hunter2@127.0.0.1"))
    environment = (tmp_path / "env").read_text()
    assert "HTTPS_PROXY=http://proxy.example.org:3128" in environment
    assert "hunter2" not in environment
    assert (tmp_path / "arguments").read_text().strip() == "-P -m agent.notify.sender"


def test_the_agent_never_imports_apprise():
    code = "import sys, agent.notify.client, agent.notify.message; print('apprise' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(Path(agent.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == "False\n"


async def test_a_usable_url_is_valid_and_nothing_is_sent(webhook):
    assert await validate_url(webhook.url) is None
    assert not webhook.requests


async def test_routes_are_validated_together(tmp_path, webhook):
    good = tmp_path / "good"
    good.write_text(f"{webhook.url}\n")
    good.chmod(0o600)
    half = tmp_path / "half"
    half.write_text(f"{webhook.url}\nnonsense://Tok3n/x\n")
    half.chmod(0o600)
    errors = await validate_routes(
        {
            "good": Delivery(id="", route="good", url=webhook.url),
            "good file": Delivery(id="", route="good file", url_file=str(good)),
            "bad": Delivery(id="", route="bad", url="slack://Tok3n"),
            "half": Delivery(id="", route="half", url_file=str(half)),
            "missing": Delivery(id="", route="missing", url_file=str(tmp_path / "none")),
        }
    )
    assert errors.keys() == {"bad", "half", "missing"}
    assert errors["half"].startswith("cannot use nonsense://…: Apprise knows no such service")
    assert "No such file" in errors["missing"]
    assert "Tok3n" not in "".join(errors.values())
