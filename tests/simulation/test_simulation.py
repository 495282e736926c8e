"""The primary proof: the real engine on simulated hosts, seeds and crash points included.

`HOSTMEND_SEEDS=5000` runs more of them, `HOSTMEND_SEED=17` replays one. They come in batches, so
that every core that pytest is given (`-n`) has some.
"""

from __future__ import annotations

import logging
import os
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from simulated_world import forget, simulate

ONLY = os.environ.get("HOSTMEND_SEED")
SEEDS = [int(ONLY)] if ONLY else list(range(int(os.environ.get("HOSTMEND_SEEDS", "2000"))))
#: Large enough that what the seeds have in common shows in each batch.
BATCH = 100
#: Failures that are shown in full; the others are counted.
SHOWN = 3


def name_batch(seeds: Sequence[int]) -> str:
    return f"{seeds[0]}-{seeds[-1]}"


@pytest.fixture
def memory() -> Iterator[Path]:
    """Where files cost no disk; the proof is about the agent's death, not the machine's."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    "seeds", [SEEDS[n : n + BATCH] for n in range(0, len(SEEDS), BATCH)], ids=name_batch
)
def test_nothing_is_lost_or_doubled_whenever_the_agent_dies(
    seeds: Sequence[int], memory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if not ONLY:
        # Thousands of tracebacks of probes that are meant to break: a replay shows them.
        caplog.set_level(logging.CRITICAL, "agent")
    happened: Counter[str] = Counter()
    failures = []
    for seed in seeds:
        try:
            world = simulate(seed, memory / f"{seed}.db")
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
    print(f"{len(seeds)} seeds: {dict(happened)}")
    assert not failures, f"{len(failures)} seeds failed; the first:\n" + "\n".join(failures[:SHOWN])
    # The simulation itself must not go quiet.
    if len(seeds) == BATCH:
        assert happened["crashes"] > len(seeds) / 2
        assert happened["runs"] > len(seeds) / 2
        assert happened["notices"] > len(seeds)
