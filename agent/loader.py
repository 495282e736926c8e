"""The configuration in effect."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass

from agent.config import Config
from agent.core.model import Instant
from agent.errors import ConfigError, Invalid, RemedyError
from agent.remedies.catalog import Catalog

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A configuration with the remedies that it was read against."""

    config: Config
    catalog: Catalog
    at: Instant


class Loader:
    """Has the configuration in effect, and notes what is wrong with it or its successor."""

    def __init__(
        self,
        loaded: Loaded,
        *,
        read: Callable[[], Awaitable[Loaded]],
        problems: MutableMapping[str, str],
    ) -> None:
        self._loaded = loaded
        self._read = read
        self._problems = problems
        self._note_problems()

    @property
    def loaded(self) -> Loaded:
        return self._loaded

    @property
    def config(self) -> Config:
        return self._loaded.config

    @property
    def catalog(self) -> Catalog:
        return self._loaded.catalog

    async def read(self, *, by: str) -> Loaded:
        """The configuration as it is written now, not yet in effect. Raises Invalid."""
        try:
            return await self._read()
        except (ConfigError, RemedyError) as error:
            self._problems["configuration"] = f"the configuration was not reloaded: {error}"
            _log.error("%s asked for a reload: %s", by, error)
            raise Invalid(str(error)) from error

    def adopt(self, loaded: Loaded) -> None:
        """From now on this configuration is the one in effect."""
        self._loaded = loaded
        self._problems.pop("configuration", None)
        self._note_problems()

    def _note_problems(self) -> None:
        for key in [key for key in self._problems if key.startswith("remedy ")]:
            del self._problems[key]
        for number, problem in enumerate(self._loaded.catalog.problems):
            self._problems[f"remedy {number}"] = str(problem)
