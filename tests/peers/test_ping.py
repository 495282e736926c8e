"""Echoes of hosts that are there, gone, far, and of those that nobody may ask."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from peers import complete, verdict

from agent.checks.ping import judge
from agent.core.model import Finding
from agent.host.echo import Echoes

Look = Callable[..., Awaitable[Finding]]

#: Runs looks inside a network namespace of its own and prints their verdicts.
_LOOK = """
import asyncio, json, subprocess, sys
from pathlib import Path
from agent.checks.ping import PingOptions, look
from agent.clock import Clock
from agent.host.http import HttpClient
from agent.host.machine import Machine
from agent.host.routes import find_route

def ip(*words):
    subprocess.run(["ip", *words], check=True)

def allow(text="0 2147483647"):
    Path("/proc/sys/net/ipv4/ping_group_range").write_text(text)

async def resolve(name):
    return ("127.0.0.1", "::1")

async def look_at(**fields):
    options = PingOptions.model_validate({"type": "ping", "timeout": "5s", **fields}, strict=False)
    (found,) = await look(options, Machine(clock=Clock(), http=HttpClient(resolve)))
    return [found.status, found.cause, found.summary, dict(found.measurements), dict(found.facts)]

async def main():
"""


def run_apart(program: str) -> Any:
    """Runs a program in a network namespace of its own, where loopback is up and nothing else."""
    text = _LOOK + "".join(f"    {line}\n" for line in program.strip().splitlines())
    text += "\nprint(json.dumps(asyncio.run(main())))\n"
    start = 'ip link set lo up && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", start, sys.executable, text],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_host_that_answers_is_ok_in_both_families() -> None:
    four, six, name, old = run_apart(
        """
        allow()
        return [
            await look_at(host="127.0.0.1"),
            await look_at(host="::1"),
            await look_at(host="shop.example", family="ipv6"),
            await look_at(host="shop.example", count=1),
        ]
        """.replace("\n        ", "\n")
    )
    for found in (four, six, name, old):
        assert found[:2] == ["ok", ""]
        assert found[3]["loss_percent"] == 0
        assert 0 < found[3]["round_trip_least_seconds"] <= found[3]["round_trip_most_seconds"]
    assert "127.0.0.1 sends 5 of 5 echoes back, in " in four[2]
    assert name[4] == {"Address": "::1"}
    assert old[4] == {"Address": "127.0.0.1"}


def test_where_the_host_forbids_it_that_is_said_and_nothing_else() -> None:
    nobody, others = run_apart(
        """
        allow("1 0")
        nobody = await look_at(host="127.0.0.1")
        allow("4711 4711")
        return [nobody, await look_at(host="::1")]
        """.replace("\n        ", "\n")
    )
    for found, groups in ((nobody, "1 0"), (others, "4711 4711")):
        assert found[:2] == ["unknown", "unavailable"]
        assert f"net.ipv4.ping_group_range ({groups}) does not hold a group" in found[2]
        assert "sysctl -w" in found[2]


def test_a_host_without_a_way_blames_itself_and_one_with_a_way_the_other() -> None:
    lost, gone, silent, own = run_apart(
        """
        allow()
        lost = await look_at(host="203.0.113.5")
        ip("link", "add", "up0", "type", "veth", "peer", "name", "far0")
        ip("address", "add", "192.0.2.2/24", "dev", "up0")
        ip("link", "set", "up0", "up")
        ip("link", "set", "far0", "up")
        ip("route", "add", "default", "via", "192.0.2.1")
        ip("neighbour", "add", "192.0.2.9", "lladdr", "02:00:00:00:00:09", "dev", "up0")
        ip("route", "add", "prohibit", "203.0.113.7")
        while not find_route("192.0.2.1").link:
            await asyncio.sleep(0.01)
        return [
            lost,
            await look_at(host="203.0.113.7"),
            await look_at(host="192.0.2.9", timeout="600ms", count=2),
            await look_at(host="192.0.2.9", timeout="600ms", count=2, reference="192.0.2.9:53"),
        ]
        """.replace("\n        ", "\n")
    )
    assert lost[:2] == ["unknown", "offline"]
    assert "no route to 203.0.113.5" in lost[2]
    assert gone[0] in ("critical", "unknown")
    assert gone[1] in ("unreachable", "offline")
    assert silent[:2] == ["critical", "silent"]
    assert silent[3] == {"loss_percent": 100.0}
    assert own[:2] == ["unknown", "offline"]
    assert "the reference 192.0.2.9:53 does not answer either" in own[2]


async def test_a_name_without_address_is_dns(look_at: Look) -> None:
    finding = await look_at("ping", host="shop.invalid")
    assert verdict(finding) == ("critical", "dns")


async def test_a_resolver_that_hangs_is_dns_in_time(look_at: Look) -> None:
    async def hang(_name: str) -> tuple[str, ...]:
        await asyncio.Event().wait()
        return ()

    finding = await look_at("ping", hang, host="shop.example", timeout="100ms")
    assert verdict(finding) == ("critical", "dns")


#: A sentence, times of those that came back of four, options, and the verdict.
BACK: list[tuple[str, tuple[float, ...], dict[str, Any], tuple[str, str]]] = [
    ("all", (0.01, 0.02, 0.03, 0.04), {}, ("ok", "")),
    ("one is lost", (0.01, 0.02, 0.03), {}, ("ok", "")),
    ("half are lost", (0.01, 0.02), {}, ("warning", "lost")),
    ("all are lost", (), {}, ("critical", "silent")),
    ("half are too many", (0.01, 0.02), {"critical": {"loss": "50%"}}, ("critical", "lost")),
    ("losses do not matter", (0.01,), {"warning": {"loss": None}}, ("ok", "")),
    (
        "slow in the median",
        (0.01, 0.2, 0.3, 0.4),
        {"warning": {"round_trip": "200ms"}},
        ("warning", "slow"),
    ),
    (
        "one that is slow does not matter",
        (0.01, 0.01, 0.01, 9.0),
        {"critical": {"round_trip": "200ms"}},
        ("ok", ""),
    ),
]


@pytest.mark.parametrize(("sentence", "times", "fields", "wanted"), BACK)
def test_what_comes_back_is_judged(
    sentence: str, times: tuple[float, ...], fields: dict[str, Any], wanted: tuple[str, str]
) -> None:
    options: Any = complete("ping", {"host": "192.0.2.1", **fields})
    assert verdict(judge(options, Echoes(address="192.0.2.1", sent=4, times=times))) == wanted
