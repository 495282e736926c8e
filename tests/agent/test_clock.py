"""Instants that never step, on hosts that slept: in time namespaces (time_namespaces(7))."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agent.clock import Clock

ROOT = Path(__file__).parents[2]
#: A host that is up for ten days, of which it slept four.
AWAKE, ASLEEP = 6 * 86_400, 4 * 86_400

PROGRAM = """
import json, os, time
from agent.clock import Clock
from agent.host.census import read_table
clock = Clock()
own = read_table().tasks[os.getpid()]
print(json.dumps({
    'wall': time.time(),
    'now': clock.now(),
    'slept': clock.slept(),
    'boottime': time.clock_gettime(time.CLOCK_BOOTTIME),
    'just_now': clock.now() - clock.at_monotonic(time.monotonic()),
    'age': clock.now() - clock.at_boottime(own.started_seconds),
}))
"""


def run_on_a_host_that_slept() -> Any:
    """What the program prints where the clocks are those of such a host."""
    done = subprocess.run(
        ["unshare", "--time", f"--monotonic={AWAKE}", f"--boottime={AWAKE + ASLEEP}", "--fork",
         sys.executable, "-c", PROGRAM],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.lab
def test_a_host_that_slept_has_the_same_instants_as_any_other() -> None:
    told = run_on_a_host_that_slept()
    assert told["boottime"] > AWAKE + ASLEEP
    assert told["slept"] == pytest.approx(Clock().slept() + ASLEEP, abs=5)
    assert told["now"] == pytest.approx(told["wall"], abs=5)
    assert abs(told["just_now"]) < 5, "what systemd says of CLOCK_MONOTONIC is placed right"
    assert -1 < told["age"] < 120, "so is when a process began"


def test_agents_of_one_boot_share_an_anchor_and_those_of_another_do_not(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    first = Clock.anchored(file)
    boot, anchor = file.read_text().split()
    file.write_text(f"{boot} {float(anchor) + 1000!r}\n")
    assert Clock.anchored(file).now() - first.now() == pytest.approx(1000, abs=60)
    file.write_text(f"another-boot {anchor}\n")
    assert Clock.anchored(file).now() == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize("text", ["", "garbage", "a b c", "\0"])
def test_a_file_that_is_no_anchor_is_replaced(tmp_path: Path, text: str) -> None:
    file = tmp_path / "clock"
    file.write_text(text)
    assert Clock.anchored(file).now() == pytest.approx(time.time(), abs=60)
    assert len(file.read_text().split()) == 2
