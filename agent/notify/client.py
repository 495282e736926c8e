"""The agent's side of sending: starts the sender, hands on its results, and ends it in time."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from agent.host.child import FAREWELL, hand_over, kill_group, make_environment, see_end
from agent.host.processes import reap_strays
from agent.notify.delivery import (
    Batch,
    Delivery,
    DeliveryResult,
    decode_result,
    encode_batch,
    results_for,
)

#: What the sender takes over from the agent's environment: how to get out of this network, and
#: whom to trust there. Everything else stays behind.
PASSED_ON = frozenset(
    {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
    | {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
    | {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "TZ"}
)


async def deliver(
    batch: Sequence[Delivery],
    *,
    timeout: float,
    on_result: Callable[[DeliveryResult], Awaitable[None]],
    limit: float = Batch.limit,
) -> None:
    """Deliver a batch and await `on_result` once for each delivery, as soon as it is known.

    `timeout` is in seconds for the whole batch, `limit` for one delivery to one service. What has
    no result when the sender ends or the time is over is reported as to be tried again. Returns
    with no process left behind, also when cancelled or when `on_result` raises (both go on to the
    caller, and what was not reported then is not).
    """
    await _converse(batch, arguments=(), timeout=timeout, limit=limit, on_result=on_result)


async def validate_routes(
    routes: Mapping[str, Delivery], *, timeout: float = 30.0
) -> Mapping[str, str]:
    """What is wrong with each unusable route, by its key in `routes`. Nothing is sent.

    Only `route`, `url` and `url_file` of the deliveries matter.
    """
    keys = list(routes)
    asked = [
        Delivery(id=str(i), route=each.route, url=each.url, url_file=each.url_file)
        for i, each in enumerate(routes.values())
    ]
    errors: dict[str, str] = {}

    async def note(result: DeliveryResult) -> None:
        if not result.ok:
            errors[keys[int(result.id)]] = result.error

    await _converse(asked, arguments=("--check",), timeout=timeout, limit=timeout, on_result=note)
    return errors


async def validate_url(url: str, *, timeout: float = 30.0) -> str | None:
    """What is wrong with an Apprise URL, without its secrets; None when it can be used."""
    route = {url: Delivery(id="", route="", url=url)}
    return (await validate_routes(route, timeout=timeout)).get(url)


async def _converse(
    batch: Sequence[Delivery],
    *,
    arguments: Sequence[str],
    timeout: float,
    limit: float,
    on_result: Callable[[DeliveryResult], Awaitable[None]],
) -> None:
    left = {delivery.id: delivery for delivery in batch}
    if not left:
        return
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "agent.notify.sender", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Apprise's own words may hold secrets; what matters comes with the results.
            stderr=asyncio.subprocess.DEVNULL,
            env=make_environment(PASSED_ON),
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        why = f"cannot start the sender: {error.strerror}"
        for result in results_for(left.values(), retry=True, error=why):
            await on_result(result)
        return
    settle = _Settle(left, on_result)
    try:
        try:
            deadline = asyncio.get_running_loop().time() + timeout
            async with asyncio.timeout_at(deadline):
                await hand_over(process, encode_batch(Batch(deliveries=tuple(batch), limit=limit)))
            await _read_results(process, settle, deadline)
            why = f"the sender ended early ({await see_end(process)})"
        except TimeoutError:
            why = f"the sender was ended after {timeout:g} s"
            kill_group(process)
            # What it had said before that still counts.
            with suppress(TimeoutError):
                farewell = asyncio.get_running_loop().time() + FAREWELL
                await _read_results(process, settle, farewell)
    finally:
        kill_group(process)
        await see_end(process)
        # What it had started comes back to the agent, which adopts orphans.
        reap_strays()
    for result in results_for(list(left.values()), retry=True, error=f"no result: {why}"):
        await on_result(result)


class _Settle:
    """Hands each first result of a delivery on, and strikes the delivery off."""

    def __init__(
        self,
        left: dict[str, Delivery],
        on_result: Callable[[DeliveryResult], Awaitable[None]],
    ) -> None:
        self._left = left
        self._on_result = on_result

    async def __call__(self, line: bytes) -> None:
        try:
            result = decode_result(line)
        except (ValueError, TypeError, KeyError):
            return
        if self._left.pop(result.id, None) is not None:
            await self._on_result(result)


async def _read_results(process: Process, settle: _Settle, deadline: float) -> None:
    """Settle every line until the sender closes its output. Raises TimeoutError at `deadline`."""
    assert process.stdout is not None  # noqa: S101 - asked for above
    while True:
        try:
            # Only the reading is limited: a result that is known is never dropped half-recorded.
            async with asyncio.timeout_at(deadline):
                line = await process.stdout.readline()
        except ValueError:
            # A line longer than the reader's buffer is none of the sender's.
            continue
        if not line:
            return
        await settle(line)
