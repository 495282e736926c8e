"""Containers as an engine tells of them; the real Podman is asked in the lab."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from peers import complete, drip, flood, hang, verdict

from agent.checks import container as checked
from agent.checks.container import gather, look, propose
from agent.clock import Clock
from agent.core.model import Finding
from agent.host.condition import Condition
from agent.host.containers import join_log, read_container
from agent.host.machine import Machine
from agent.host.memory import Memories

NEVER = "0001-01-01T00:00:00Z"


def write_time(ago: float) -> str:
    at = datetime.fromtimestamp(time.time() - ago, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S") + ".123456789Z"


class Engine:
    """Docker's API over a UNIX socket, as far as the check asks it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.containers: dict[str, dict[str, Any]] = {}
        #: Ids of containers that somebody told it to stop, and how long ago in seconds.
        self.stopped: dict[str, float] = {}
        #: The signal that was sent in place of such an order; empty: Podman does not say which.
        self.signal: str | None = None
        self.asked: list[str] = []
        #: It is a Podman, which does not tell of every order to stop.
        self.podman = False

    def add(self, name: str, **state: Any) -> dict[str, Any]:
        """A container that runs, but for what is said otherwise."""
        policy = state.pop("policy", "no")
        restarts = state.pop("restarts", 0)
        told = {
            "Id": f"id-{name}",
            "Name": f"/{name}",
            "RestartCount": restarts,
            "Config": {"Image": "shop:1"},
            "HostConfig": {"RestartPolicy": {"Name": policy, "MaximumRetryCount": 0}},
            "State": {
                "Status": "running", "ExitCode": 0, "OOMKilled": False, "Error": "", "Pid": 7,
                "StartedAt": write_time(60), "FinishedAt": NEVER, **state,
            },
        }  # fmt: skip
        self.containers[name] = told
        return told

    def end(self, name: str, code: int, *, ago: float = 5.0, **state: Any) -> None:
        self.containers[name]["State"] |= {
            "Status": "exited", "ExitCode": code, "FinishedAt": write_time(ago), **state,
        }  # fmt: skip

    def answer(self, target: str) -> tuple[int, bytes]:
        url = urlsplit(target)
        path = url.path
        self.asked.append(path)
        if path == "/containers/json":
            rows = [
                {"Id": told["Id"], "Names": [told["Name"]]} for told in self.containers.values()
            ]
            return 200, json.dumps(rows).encode()
        if path == "/events":
            filters = json.loads(parse_qs(url.query)["filters"][0])
            assert filters["event"] == ["stop", "kill"]
            (wanted,) = filters["container"]
            if wanted not in self.stopped:
                return 200, b""
            at = int((time.time() - self.stopped[wanted]) * 1e9)
            event = {"Action": "stop", "time": at // 10**9, "timeNano": at}
            if self.signal is not None:
                attributes = {"signal": self.signal} if self.signal else {}
                event |= {"Action": "kill", "Actor": {"Attributes": attributes}}
            return 200, json.dumps(event).encode() + b"\n"
        name = unquote(path.split("/")[2])
        found = [t for n, t in self.containers.items() if name in (n, t["Id"])]
        if not found:
            return 404, b'{"message": "no such container"}'
        if path.endswith("/logs"):
            line = b"last words\n"
            return 200, b"\1\0\0\0" + len(line).to_bytes(4, "big") + line
        return 200, json.dumps(found[0]).encode()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            status, body = self.answer(head.split()[1].decode())
            more = "Libpod-Api-Version: 4.3.1\r\n" if self.podman else ""
            line = f"HTTP/1.1 {status} Said\r\nContent-Length: {len(body)}\r\n{more}\r\n"
            writer.write(line.encode() + body)
            await writer.drain()
        writer.close()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    engine = Engine(tmp_path / "engine.sock")
    server = await asyncio.start_unix_server(engine.talk, engine.path)
    async with server:
        yield engine


class Watch:
    """A check that looks again and again."""

    def __init__(self, engine: Engine | Path, /, **fields: Any) -> None:
        path = engine.path if isinstance(engine, Engine) else engine
        self.options: Any = complete("container", {"socket": str(path), **fields})
        self.memories = Memories()
        self.repaired: float | None = None

    def machine(self) -> Machine:
        memory = self.memories.open("c")
        return Machine(
            clock=Clock(), memory=memory, repaired=lambda _: self.repaired, condition=Condition
        )

    async def look(self) -> Mapping[str, Finding]:
        machine = self.machine()
        found = await look(self.options, machine)
        self.memories.keep("c", machine.memory)
        return {finding.subject: finding for finding in found}

    async def see(self) -> Finding:
        (finding,) = (await self.look()).values()
        return finding


#: A sentence, what the engine says, whether somebody told it to stop, and the verdict.
STATES: list[tuple[str, dict[str, Any], bool, tuple[str, str]]] = [
    ("it runs", {}, False, ("ok", "")),
    ("it is well", {"Health": {"Status": "healthy"}}, False, ("ok", "")),
    ("it is not", {"Health": {"Status": "unhealthy"}}, False, ("critical", "unhealthy")),
    ("it begins", {"Health": {"Status": "starting"}}, False, ("unknown", "starting")),
    ("it has no health", {"Health": {"Status": "none"}}, False, ("ok", "")),
    ("it comes back", {"Status": "restarting"}, False, ("unknown", "restarting")),
    ("it is paused", {"Status": "paused"}, False, ("ok", "")),
    ("it never ran", {"Status": "created"}, False, ("warning", "created")),
    ("it is dead", {"Status": "dead", "FinishedAt": write_time(5)}, False, ("critical", "dead")),
    ("it failed", {"ExitCode": 3}, False, ("critical", "failed")),
    ("it ended", {"ExitCode": 0}, False, ("critical", "stopped")),
    ("no memory", {"ExitCode": 137, "OOMKilled": True}, False, ("critical", "out-of-memory")),
    ("it was stopped", {"ExitCode": 143}, True, ("ok", "")),
    ("it was stopped and did not like it", {"ExitCode": 1}, True, ("ok", "")),
    ("it was killed", {"ExitCode": 137}, False, ("critical", "failed")),
    ("it rests", {"ExitCode": 1, "policy": "always"}, False, ("ok", "")),
    ("it never began", {"ExitCode": 127, "Error": "no such file", "policy": "always"}, False,
     ("critical", "failed")),
    ("it gave up", {"ExitCode": 1, "policy": "on-failure"}, False, ("critical", "failed")),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "state", "stopped", "wanted"), STATES)
async def test_states(
    sentence: str,
    state: dict[str, Any],
    stopped: bool,
    wanted: tuple[str, str],
    engine: Engine,
) -> None:
    ended = {"Status": "exited", "FinishedAt": write_time(5)} if "ExitCode" in state else {}
    engine.add("shop", **{**ended, **state})
    if stopped:
        engine.stopped["id-shop"] = 6.0
    finding = await Watch(engine, name="shop").see()
    assert verdict(finding) == wanted
    assert finding.subject == "shop"
    assert finding.intended is (sentence in ("it is paused", "it rests") or stopped)


async def test_one_that_rests_since_before_the_boot_was_to_be_started(engine: Engine) -> None:
    engine.add("shop", policy="always")
    engine.add("other", policy="unless-stopped")
    for name in ("shop", "other"):
        engine.end(name, 0, ago=10 * 365 * 86400)
    assert verdict(await Watch(engine, name="shop").see()) == ("critical", "stopped")
    assert verdict(await Watch(engine, name="other").see()) == ("ok", "")


async def test_a_signal_of_long_ago_is_nobodys_that_is_known(engine: Engine) -> None:
    engine.add("shop")
    engine.end("shop", 143, ago=3600)
    assert verdict(await Watch(engine, name="shop").see()) == ("unknown", "unclear")
    # Whoever saw it run knows that nobody told the engine.
    watch = Watch(engine, name="shop")
    engine.add("shop")
    assert verdict(await watch.see()) == ("ok", "")
    engine.end("shop", 143)
    assert verdict(await watch.see()) == ("critical", "failed")


async def test_who_stopped_it_is_asked_once(engine: Engine) -> None:
    engine.add("shop")
    watch = Watch(engine, name="shop")
    await watch.see()
    engine.end("shop", 143)
    engine.stopped["id-shop"] = 6.0
    assert verdict(await watch.see()) == ("ok", "")
    # Engines forget.
    engine.stopped.clear()
    for _ in range(3):
        assert verdict(await watch.see()) == ("ok", "")
    assert engine.asked.count("/events") == 1


async def test_a_stop_before_its_last_start_is_over(engine: Engine) -> None:
    engine.add("shop", StartedAt=write_time(60))
    engine.end("shop", 137)
    engine.stopped["id-shop"] = 90.0
    assert verdict(await Watch(engine, name="shop").see()) == ("critical", "failed")


@pytest.mark.parametrize(
    ("signal", "ago", "wanted"),
    [
        ("15", 300.0, ("ok", "")),
        ("9", 6.0, ("ok", "")),
        # A message, such as to open its logs again.
        ("1", 6.0, ("critical", "failed")),
        ("10", 6.0, ("critical", "failed")),
        ("", 6.0, ("ok", "")),
        ("", 300.0, ("critical", "failed")),
    ],
)
async def test_only_a_signal_that_ends_is_an_order_to_end(
    signal: str, ago: float, wanted: tuple[str, str], engine: Engine
) -> None:
    engine.add("shop", StartedAt=write_time(1000))
    engine.end("shop", 1)
    engine.stopped["id-shop"], engine.signal = ago, signal
    assert verdict(await Watch(engine, name="shop").see()) == wanted


async def test_what_an_engine_does_not_know_of_an_old_end_is_not_asked_for_ever(
    engine: Engine,
) -> None:
    engine.podman = True
    engine.add("shop")
    engine.end("shop", 0, ago=3600)
    watch = Watch(engine, name="shop")
    for _ in range(3):
        assert verdict(await watch.see()) == ("unknown", "unclear")
    assert engine.asked.count("/events") == 1


async def test_one_that_is_not_well_blames_its_engine_and_no_other(
    engine: Engine, tmp_path: Path
) -> None:
    engine.add("shop")
    watch = Watch(engine, name="shop")
    assert (await watch.see()).implicates == ()
    engine.end("shop", 3)
    assert (await watch.see()).implicates == ("unit:docker.service",)
    assert (await Watch(engine, name="gone").see()).implicates == ("unit:docker.service",)
    own = Watch(engine, name="shop", engine="dockerd-two.service")
    assert (await own.see()).implicates == ("unit:dockerd-two.service",)
    hidden = tmp_path / "podman" / "podman.sock"
    hidden.parent.mkdir()
    (tmp_path / "docker.sock").symlink_to(hidden)
    assert (await Watch(tmp_path / "docker.sock").see()).implicates == ("unit:podman.socket",)


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        (0, ("unknown", "unclear")),
        (143, ("unknown", "unclear")),
        (137, ("unknown", "unclear")),
        (3, ("critical", "failed")),
    ],
)
async def test_an_engine_that_does_not_tell_leaves_it_unclear(
    code: int, wanted: tuple[str, str], engine: Engine
) -> None:
    engine.podman = True
    engine.add("shop")
    watch = Watch(engine, name="shop")
    await watch.see()
    engine.end("shop", code)
    assert verdict(await watch.see()) == wanted
    # A kill is told of, and then nothing is unclear.
    engine.stopped["id-shop"] = 6.0
    assert verdict(await watch.see()) == ("ok", "")


async def test_restarts_again_and_again_are_a_loop(engine: Engine) -> None:
    told = engine.add("shop", policy="always", restarts=7)
    watch = Watch(engine, name="shop", restarts="3 in 10m")
    assert verdict(await watch.see()) == ("ok", "")
    told["RestartCount"] = 9
    assert verdict(await watch.see()) == ("ok", "")
    told["RestartCount"] = 10
    finding = await watch.see()
    assert verdict(finding) == ("critical", "looping")
    assert finding.summary == "shop was started again 3 times within 10 min"
    assert finding.measurements["restarts_count"] == 10
    # A repair begins a new count.
    watch.repaired = watch.machine().clock.now()
    assert verdict(await watch.see()) == ("ok", "")
    # Started by hand, the engine counts from nothing.
    told["RestartCount"] = 0
    assert verdict(await watch.see()) == ("ok", "")


async def test_without_a_name_all_are_looked_at_that_should_run(engine: Engine) -> None:
    engine.add("always", policy="always")
    engine.add("healthy", Health={"Status": "healthy"})
    engine.add("batch")
    engine.add("made", policy="always", Status="created")
    engine.add("failed", policy="on-failure")
    engine.end("failed", 2)
    watch = Watch(engine)
    found = await watch.look()
    assert {name: verdict(finding) for name, finding in found.items()} == {
        "always": ("ok", ""),
        "healthy": ("ok", ""),
        "failed": ("critical", "failed"),
    }
    del engine.containers["failed"]
    assert "failed" not in await watch.look()
    assert len(watch.memories.open("c").keys()) == 2


async def test_one_that_is_not_there_is_missing(engine: Engine) -> None:
    assert verdict(await Watch(engine, name="shop").see()) == ("critical", "missing")


# Engines


async def test_no_engine_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = await Watch(tmp_path / "nowhere.sock", name="shop").see()
    assert verdict(finding) == ("unknown", "unavailable")
    monkeypatch.setattr(checked, "find_socket", lambda: None)
    options: Any = complete("container", {})
    (finding,) = await look(options, Machine(clock=Clock()))
    assert "no engine listens on this host" in finding.summary
    assert await propose(Machine(clock=Clock())) == ()


@pytest.mark.parametrize(
    "behave",
    [
        hang,
        drip,
        flood,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[{",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
        b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n[[1, 2]]",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
    ids=["hang", "drip", "flood", "half", "null", "list", "500", "ssh"],
)
@pytest.mark.parametrize("name", [None, "shop"])
async def test_what_is_no_engine_is_told_in_time(
    behave: Any, name: str | None, serve: Any, tmp_path: Path
) -> None:
    served = await serve(behave, path=tmp_path / "engine.sock")
    fields = {"timeout": "200ms", **({"name": name} if name else {})}
    found = await Watch(Path(served.path), **fields).look()
    for finding in found.values():
        assert verdict(finding) in [("unknown", "unavailable"), ("critical", "missing")]


async def test_evidence_is_the_state_and_the_log(engine: Engine) -> None:
    engine.add("shop", Error="")
    engine.end("shop", 3)
    watch = Watch(engine, name="shop")
    finding = await watch.see()
    items = {e.title: e.text for e in await gather(watch.options, finding, watch.machine())}
    assert "Exit code: 3" in items["Container shop"]
    assert items["Log of shop"] == "last words"


async def test_containers_that_should_run_are_proposed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked, "find_socket", lambda: str(engine.path))
    engine.add("batch")
    assert await propose(Machine(clock=Clock())) == ()
    engine.add("shop", policy="always")
    (proposal,) = await propose(Machine(clock=Clock()))
    assert proposal.options == {"type": "container"}
    assert proposal.why == f"the engine at {engine.path} has shop"


def test_logs_are_joined() -> None:
    frames = b"\1\0\0\0\0\0\0\2a\n\2\0\0\0\0\0\0\2b\n"
    assert join_log(frames) == "a\nb\n"
    assert join_log(frames[:-1]) == "a\nb"
    assert join_log(b"plain\n") == "plain\n"
    assert join_log(b"") == ""


def test_what_podman_says_is_read() -> None:
    # As Podman 4.3 answers; shortened.
    found = read_container(
        {
            "Id": "0c15", "Name": "/one", "RestartCount": 0, "Image": "sha256:e1",
            "State": {"Status": "running", "ExitCode": 0, "OOMKilled": False, "Pid": 92,
                      "Error": "", "StartedAt": "2026-11-26T11:01:23.006270307Z",
                      "FinishedAt": "0001-01-01T00:00:00Z",
                      "Health": {"Status": "", "FailingStreak": 0, "Log": None}},
            "Config": {"Image": "localhost/local/busybox:1"},
            "HostConfig": {"RestartPolicy": {"Name": "", "MaximumRetryCount": 0}},
        }
    )  # fmt: skip
    assert (found.name, found.health, found.policy, found.finished) == ("one", "", "", None)
    assert found.image == "localhost/local/busybox:1"
