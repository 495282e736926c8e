"""How often a rehearsal's verdict is right: real servers, a noisy neighbour, many rehearsals.

    python bench/verdict.py [--rehearsals 200] [--pairs 500]

Two small HTTP servers on loopback, each in a process of its own, answer in times drawn from one
distribution; a neighbour keeps a core busy in bursts. Rehearsed are:

- the baseline against itself: every FAIL is a false alarm (at most 1 %);
- a candidate that takes 20 % longer, with 1,000 pairs: how often it is found (at least 95 %);
- a candidate on which one page of 500 is broken: how often that is found (always).

Every load is bounded: so many pairs, at so many a second, and each rehearsal ends itself.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from agent.host.http import HttpClient  # noqa: E402
from agent.host.url import parse_url  # noqa: E402
from agent.rehearsal.replay import Caution, replay  # noqa: E402
from agent.rehearsal.side import Side  # noqa: E402
from agent.rehearsal.traffic import Asked, make_schedule  # noqa: E402
from agent.rehearsal.verdict import Limits, Outcome, Verdict, judge  # noqa: E402

#: Median of a server's own time, in seconds, and the spread of its logarithm.
MEDIAN, SPREAD = 0.008, 0.35
PAGES = 500
#: Pairs a second: a third of what this generator can do on one core.
RATE = 150.0


def serve(slower: float, broken: int | None, port: Connection, seed: int) -> None:
    """One server, until its process is ended."""
    chance = random.Random(seed)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            page = int(head.split(b" ", 2)[1].rpartition(b"/")[2])
            await asyncio.sleep(slower * MEDIAN * chance.lognormvariate(0, SPREAD))
            status = b"500 Broken" if page == broken else b"200 OK"
            writer.write(
                b"HTTP/1.1 %s\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok" % status
            )
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=512)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def disturb(seed: int) -> None:
    """A neighbour that is busy for a while, and then is not."""
    chance = random.Random(seed)
    while True:
        until = time.monotonic() + chance.uniform(0.02, 0.4)
        while time.monotonic() < until:
            pass
        time.sleep(chance.uniform(0.05, 0.6))


@contextmanager
def running(*, slower: float = 1.0, broken: int | None = None) -> Iterator[tuple[Side, Side]]:
    """Baseline, candidate and the neighbour."""
    fork = multiprocessing.get_context("fork")
    processes, sides = [], []
    try:
        for seed, (factor, bad) in enumerate([(1.0, None), (slower, broken)], 1):
            ours, theirs = fork.Pipe()
            process = fork.Process(target=serve, args=(factor, bad, theirs, seed), daemon=True)
            process.start()
            processes.append(process)
            if not ours.poll(30):
                raise RuntimeError("a server did not begin within 30 s")
            sides.append(Side(url=parse_url(f"http://127.0.0.1:{ours.recv()}"), timeout=10.0))
        neighbour = fork.Process(target=disturb, args=(7,), daemon=True)
        neighbour.start()
        processes.append(neighbour)
        yield sides[0], sides[1]
    finally:
        for process in processes:
            process.kill()
            process.join()


async def rehearse(baseline: Side, candidate: Side, pairs: int, seed: int) -> Verdict:
    requests = [
        Asked(at=n / RATE, method="GET", target=f"/page/{n % PAGES}", status=200, client="c")
        for n in range(pairs)
    ]
    client = HttpClient()
    measured = await replay(
        requests,
        make_schedule(requests, ceiling=RATE, ramp_up=0.5),
        baseline=lambda asked: baseline.ask(client, asked),
        candidate=lambda asked: candidate.ask(client, asked),
        # A neighbour like this one may well double a tail: that is not what is asked here.
        caution=Caution(slowdown=10.0),
        seed=seed,
    )
    return judge(measured, Limits(), seed=seed)


def try_often(
    name: str, count: int, pairs: int, *, slower: float = 1.0, broken: int | None = None
) -> None:
    found: Counter[Outcome] = Counter()
    detectable = []
    begun = time.monotonic()
    gates: Counter[str] = Counter()
    with running(slower=slower, broken=broken) as (baseline, candidate):
        for number in range(count):
            verdict = asyncio.run(rehearse(baseline, candidate, pairs, number))
            found[verdict.outcome] += 1
            gates.update(g.name for g in verdict.gates if g.outcome is not Outcome.PASS)
            if verdict.detectable is not None:
                detectable.append(verdict.detectable)
            print(f"\r  {name}: {number + 1} of {count}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    shares = ", ".join(f"{o.value} {100 * found[o] / count:.1f} %" for o in Outcome)
    print(
        f"{name}, {count} rehearsals of {pairs} pairs ({time.monotonic() - begun:.0f} s): {shares}"
    )
    print(f"  smallest detectable slowdown, median: {100 * statistics.median(detectable):.1f} %")
    if gates:
        print(f"  gates that did not pass: {dict(gates)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearsals", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=500)
    given = parser.parse_args()
    few = max(1, given.rehearsals // 5)
    try_often("baseline against itself", given.rehearsals, given.pairs)
    try_often("20 % slower", few, 2 * given.pairs, slower=1.2)
    try_often("one page of 500 broken", few, given.pairs, broken=123)


if __name__ == "__main__":
    main()
