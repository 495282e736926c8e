"""Asks the same of two sides in turn, when it is due and not when they are ready.

Open loop: a side that stalls does not slow down what is asked of it, as users would not; what
counts is the time from when a request was due. In turn: whatever else this machine does falls on
both sides alike. Who asks and what the time is are handed in, so that all of it runs on virtual
time in tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from agent.core.model import Seconds
from agent.rehearsal.statistics import quantile
from agent.rehearsal.traffic import Asked, Schedule, describe_target, find_group
from agent.rehearsal.verdict import Answer, Measured, Pair

#: Asks one side, and says how it answered; `seconds` is counted anew from the due time.
Ask = Callable[[Asked], Awaitable[Answer]]
#: Told of each pair: how many are done, of how many.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Caution:
    """When a replay ends itself, and how much it asks at once."""

    #: Requests under way at once, both sides together. Later ones wait, and their wait counts.
    in_flight: int = 64
    #: The candidate fails more than this share of the last `window` requests.
    errors: float = 0.20
    window: int = 50
    #: The baseline's p95 of the last `settle` requests is so many times that of the first.
    slowdown: float = 2.0
    settle: int = 100
    #: And by so much at least: a millisecond's doubling harms nobody.
    slowdown_seconds: Seconds = 0.05
    #: One pair of so many asks the baseline a second time, for its own noise.
    noise_every: int = 4
    #: Wait before a failed request is asked of the candidate again.
    retry_after: Seconds = 1.0


@dataclass(kw_only=True)
class _Course:
    """What is known while a replay goes on."""

    caution: Caution
    failed: deque[bool]
    first: list[Seconds] = field(default_factory=list)
    last: deque[Seconds]
    aborted: str = ""

    def note(self, pair: Pair) -> None:
        caution = self.caution
        self.failed.append(pair.candidate.failed)
        if not pair.baseline.failed:
            if len(self.first) < caution.settle:
                self.first.append(pair.baseline.seconds)
            self.last.append(pair.baseline.seconds)
        if len(self.failed) == caution.window:
            share = sum(self.failed) / caution.window
            if share > caution.errors:
                self.abort(
                    f"{100 * share:.0f} % of the last {caution.window} requests failed on the "
                    "candidate"
                )
        if len(self.last) == caution.settle and len(self.first) == caution.settle:
            before, now = quantile(self.first, 0.95), quantile(self.last, 0.95)
            if now > caution.slowdown * before and now - before > caution.slowdown_seconds:
                self.abort(
                    f"the baseline became slow: 95 of 100 took at most {1000 * before:.0f} ms at "
                    f"first, and {1000 * now:.0f} ms now"
                )

    def abort(self, why: str) -> None:
        self.aborted = self.aborted or why


async def replay(
    requests: Sequence[Asked],
    schedule: Schedule,
    *,
    baseline: Ask,
    candidate: Ask,
    caution: Caution,
    seed: int,
    progress: Progress | None = None,
    stop: asyncio.Event | None = None,
) -> Measured:
    """Asks everything of both sides, and gives what came of it, in the order of the requests.

    Ends early where it does harm; then `aborted` says why. Also once `stop` is set. Requests under
    way are waited for.
    """
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    chance = random.Random(seed)  # noqa: S311 - an order, no secret
    course = _Course(
        caution=caution,
        failed=deque(maxlen=caution.window),
        last=deque(maxlen=caution.settle),
    )
    slots = asyncio.Semaphore(caution.in_flight)
    late: list[Seconds] = []
    noise: list[tuple[float, float]] = []
    pairs: list[Pair | None] = [None] * len(requests)
    under_way: set[asyncio.Task[None]] = set()
    begun = loop.time()
    done = 0

    async def wait_until(due: Seconds) -> None:
        await asyncio.sleep(max(0.0, due - loop.time()))
        late.append(loop.time() - due)

    async def ask(side: Ask, asked: Asked, due: Seconds) -> Answer:
        await wait_until(due)
        async with slots:
            answer = await side(asked)
        return replace(answer, seconds=loop.time() - due)

    async def ask_both(place: int, due: Seconds, gap: Seconds, turns: list[Ask]) -> None:
        nonlocal done
        asked = requests[place]
        answers = await asyncio.gather(
            *(ask(side, asked, due + gap * turn / len(turns)) for turn, side in enumerate(turns))
        )
        ours = [a for a, side in zip(answers, turns, strict=True) if side is candidate]
        theirs = [a for a, side in zip(answers, turns, strict=True) if side is baseline]
        again = theirs[1] if len(theirs) > 1 else None
        retry = None
        if _is_worth_a_retry(theirs[0], ours[0]):
            await asyncio.sleep(caution.retry_after)
            began = loop.time()
            answer = await candidate(asked)
            retry = replace(answer, seconds=loop.time() - began)
        pair = Pair(
            group=f"{asked.method} {find_group(asked.target)}",
            target=describe_target(asked),
            baseline=theirs[0],
            candidate=ours[0],
            again=again,
            retry=retry,
            at=due - begun,
        )
        pairs[place] = pair
        if again is not None and not again.failed and not theirs[0].failed:
            noise.append((theirs[0].seconds, again.seconds))
        course.note(pair)
        done += 1
        if progress is not None:
            progress(done, len(requests))

    for place, due in enumerate(schedule.due):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), max(0.0, begun + due - loop.time()))
        if course.aborted or stop.is_set():
            break
        following = schedule.due[place + 1] if place + 1 < len(schedule.due) else due
        gap = (following - due) or 1 / max(schedule.rate, 1.0)
        turns = [baseline, candidate]
        if caution.noise_every and place % caution.noise_every == 0:
            turns.append(baseline)
        chance.shuffle(turns)
        task = asyncio.ensure_future(ask_both(place, begun + due, gap, turns))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    if under_way:
        await asyncio.gather(*under_way)
    return Measured(
        pairs=tuple(pair for pair in pairs if pair is not None),
        noise=tuple(noise),
        seconds=loop.time() - begun,
        lateness=quantile(late, 0.99) if late else 0.0,
        aborted=course.aborted,
    )


def _is_worth_a_retry(baseline: Answer, candidate: Answer) -> bool:
    """A failure that the baseline does not share may be a passing one."""
    fine = baseline.status is not None and baseline.status < 400
    return fine and (candidate.status is None or candidate.status >= 400)
