"""The primary proof: the real engine on simulated hosts, seeds and crash points included.

`HOSTMEND_SEEDS=5000` runs more of them, `HOSTMEND_SEED=17` replays one.
"""

from __future__ import annotations

import concurrent.futures
import os
import tempfile
import traceback
from pathlib import Path

import pytest
from simulated_world import forget, simulate

SEEDS = int(os.environ.get("HOSTMEND_SEEDS", "2000"))
ONLY = os.environ.get("HOSTMEND_SEED")
BATCH = 50


def _live_through(seeds: list[int]) -> tuple[dict[str, int], list[str]]:
    """What happened in these seeds, and each failure with its seed."""
    happened = {"crashes": 0, "runs": 0, "notices": 0}
    failures = []
    memory = Path("/dev/shm")
    for seed in seeds:
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
            try:
                world = simulate(seed, Path(folder) / "state.db")
            except Exception:
                failures.append(
                    f"seed {seed}: replay it with HOSTMEND_SEED={seed}\n"
                    f"{traceback.format_exc(limit=-4)}"
                )
                continue
            finally:
                forget()
        happened["crashes"] += len(world.plan.happened)
        happened["runs"] += len(world.started)
        happened["notices"] += len(world.arrivals)
    return happened, failures


def test_nothing_is_lost_or_doubled_whenever_the_agent_dies(
    record_property: pytest.RecordProperty,  # type: ignore[valid-type, unused-ignore]
) -> None:
    seeds = [int(ONLY)] if ONLY else list(range(SEEDS))
    batches = [seeds[n : n + BATCH] for n in range(0, len(seeds), BATCH)]
    totals = {"crashes": 0, "runs": 0, "notices": 0}
    failures: list[str] = []
    with concurrent.futures.ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        for happened, failed in pool.map(_live_through, batches):
            failures += failed
            for name, count in happened.items():
                totals[name] += count
    print(f"{len(seeds)} seeds: {totals}")
    assert not failures, f"{len(failures)} seeds failed; the first:\n{failures[0]}"
    if not ONLY:
        # The simulation itself must not go quiet.
        assert totals["crashes"] > len(seeds) / 2
        assert totals["runs"] > len(seeds) / 2
        assert totals["notices"] > len(seeds)
