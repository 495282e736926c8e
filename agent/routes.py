"""Whether messages would arrive: routes are checked early, and tried when somebody asks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, MutableMapping, Sequence

from agent.agent import RouteTest
from agent.config import Config
from agent.errors import Conflict, HostmendError, NotFound
from agent.notify.client import validate_routes
from agent.notify.delivery import Delivery

_log = logging.getLogger(__name__)


class Routes:
    """The configured routes. One test of them at a time, and one check."""

    def __init__(
        self,
        *,
        config: Callable[[], Config],
        try_routes: Callable[[Sequence[str], str], Awaitable[tuple[RouteTest, ...]]],
        problems: MutableMapping[str, str],
    ) -> None:
        """`try_routes` sends a message to each of these, by somebody."""
        self._config = config
        self._try_routes = try_routes
        self._problems = problems
        self._trying = False
        self._checking: asyncio.Task[None] | None = None

    async def try_routes(self, names: Collection[str] = (), *, by: str) -> tuple[RouteTest, ...]:
        known = self._config().routes
        unknown = [name for name in names if name not in known]
        if unknown:
            raise NotFound(
                f"cannot test {', '.join(unknown)}: routes are {', '.join(known) or 'none'}"
            )
        if not known:
            raise Conflict("cannot test routes: none is configured, so nobody is told of anything")
        if self._trying:
            raise Conflict("cannot test routes: a test is under way; wait for its end")
        self._trying = True
        try:
            return await self._try_routes(tuple(dict.fromkeys(names)) or tuple(known), by)
        finally:
            self._trying = False

    async def check(self) -> None:
        """Begins to find out which routes cannot work, and does not wait for it."""
        await self.close()
        self._checking = asyncio.ensure_future(self._check(self._config()))

    async def close(self) -> None:
        """Ends a check that is under way, with the process that it has."""
        while (checking := self._checking) is not None:
            self._checking = None
            checking.cancel()
            await asyncio.wait({checking})

    async def _check(self, config: Config) -> None:
        """Says early which routes cannot work, long before they are needed."""
        routes = {
            name: Delivery(
                id=name,
                route=name,
                url=route.url,
                url_file=str(route.url_file) if route.url_file else None,
            )
            for name, route in config.routes.items()
        }
        try:
            found = await validate_routes(routes)
        except HostmendError as error:
            _log.error("cannot check the routes: %s", error)
            return
        for key in [key for key in self._problems if key.startswith("route ")]:
            del self._problems[key]
        for name, why in found.items():
            self._problems[f"route {name}"] = f"route {name} cannot deliver: {why}"
            _log.error("route %s cannot deliver: %s", name, why)
