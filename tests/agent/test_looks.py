"""Looks are made whatever a check does, and whatever becomes of what they saw."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from agent.clock import Clock
from agent.core.model import CheckPolicy, Decision, Finding, Host, Looked, Status
from agent.watcher import Watcher

LIMIT = 60.0
FINE = (Finding(subject="a", status=Status.OK),)


class Bench:
    """A watcher of one check whose looks are told one by one."""

    def __init__(self) -> None:
        self.script: list[Callable[[], Awaitable[Any]]] = []
        self.taken: list[Looked] = []
        self.fail: list[Exception] = []
        self.transition_fails: list[Exception] = []
        self.watcher = Watcher(
            look=self._look, transition=self._transition, take=self._take, clock=Clock()
        )

    async def _look(self, _name: str) -> Any:
        return await self.script.pop(0)() if self.script else FINE

    async def _transition(self) -> str:
        if self.transition_fails:
            raise self.transition_fails.pop()
        return ""

    async def _take(self, looked: Looked) -> Decision:
        self.taken.append(looked)
        if self.fail:
            raise self.fail.pop()
        return Decision(host=Host())

    async def look(self, what: Callable[[], Awaitable[Any]]) -> Looked:
        self.script = [what]
        async with asyncio.timeout(LIMIT):
            return await self.watcher.look_now("web")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    bench.watcher.watch({"web": CheckPolicy(name="web", every=3600.0, timeout=LIMIT)})
    yield bench
    bench.watcher.close()


async def test_what_a_look_saw_is_cleaned_as_it_comes_in(bench: Bench) -> None:
    async def look() -> tuple[Finding, ...]:
        numbers = {"inf": math.inf, "one": 1.0}
        return (Finding(subject="a", status=Status.CRITICAL, measurements=numbers, summary="a\nb"),)

    (finding,) = (await bench.look(look)).findings
    assert finding.measurements == {"one": 1.0}
    assert finding.summary == "a b"
    assert bench.taken[-1].findings == (finding,)


async def broken(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda: broken(KeyError("x\n\udcff")), "KeyError: 'x\\n\\udcff'"),
        (lambda: broken(RuntimeError("x\x1b[31m\ny\udcff")), "RuntimeError: x y\ufffd"),
        (lambda: broken(asyncio.CancelledError()), "the look was cancelled"),
        (lambda: asyncio.sleep(0, None), "TypeError: 'NoneType' object is not iterable"),
        (lambda: asyncio.sleep(0, ("x",)), "AttributeError: 'str' object has no attribute 'since'"),
    ],
    ids=["bad key", "bad text", "cancelled", "nothing", "no findings"],
)
async def test_a_check_that_breaks_is_looked_at_again(
    bench: Bench,
    what: Callable[[], Awaitable[Any]],
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # A worker of pytest-xdist cannot hand on a log with what is no text.
    caplog.set_level(logging.CRITICAL, "agent.watcher")
    looked = await bench.look(what)
    assert (looked.broken, looked.findings) == (said, ())
    assert (await bench.look(lambda: asyncio.sleep(0, FINE))).findings == FINE


@pytest.mark.parametrize("error", [KeyError("c9"), OSError("no")])
async def test_a_look_that_cannot_be_decided_on_is_not_the_last(
    bench: Bench, error: Exception
) -> None:
    bench.fail = [error]
    assert (await bench.look(lambda: asyncio.sleep(0, FINE))).findings == FINE
    assert (await bench.look(lambda: asyncio.sleep(0, FINE))).findings == FINE
    assert len(bench.taken) >= 2


async def test_a_host_that_cannot_be_asked_holds_nothing(bench: Bench) -> None:
    bench.transition_fails = [OSError("no /proc")]
    looked = await bench.look(lambda: broken(RuntimeError("x")))
    assert looked.transition == ""
    assert (await bench.look(lambda: asyncio.sleep(0, FINE))).findings == FINE
