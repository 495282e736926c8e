"""The runs of remedies, and the remedies on offer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agent.agent import Page, RemedyInfo
from agent.config import Config
from agent.core.model import Ordered, Run, Step, Verb
from agent.engine import Engine
from agent.errors import Invalid, NotFound, RemedyError
from agent.loader import Loader
from agent.paging import check_before, check_id, cut_page
from agent.records import Records
from agent.remedies.description import Remedy
from agent.remedies.options import check_options
from agent.store.state import Listing
from agent.worker import Worker


class Runs:
    """What can be run, what was run and what it said, and orders to run."""

    def __init__(
        self,
        *,
        engine: Engine,
        worker: Worker,
        records: Records,
        loader: Loader,
        tell: Callable[[str], None],
    ) -> None:
        """`tell` tells whoever watches."""
        self._engine = engine
        self._worker = worker
        self._records = records
        self._loader = loader
        self._tell = tell

    def remedies(self) -> tuple[RemedyInfo, ...]:
        loaded = self._loader.loaded
        return tuple(_describe(r, loaded.config) for r in loaded.catalog.remedies.values())

    def remedy(self, name: str) -> RemedyInfo:
        return _describe(self._loader.catalog.get(name), self._loader.config)

    async def order(self, name: str, options: Mapping[str, Any], *, preview: bool, by: str) -> Run:
        """Has a remedy run by hand, or previewed, and does not wait for it."""
        remedy = self._loader.catalog.get(name)
        try:
            checked = check_options(
                name, remedy.options, options, configured=self._loader.config.configured
            )
        except RemedyError as error:
            raise Invalid(str(error)) from error
        step = Step(
            key="",
            remedy=name,
            causes=(),
            options=checked,
            risk=remedy.risk,
            changes=remedy.changes,
            timeout=remedy.timeout,
            lock=remedy.lock,
            digest=remedy.digest,
        )
        order = Ordered(verb=Verb.RUN, by=by, step=step, preview=preview)
        decision = await self._engine.take(order)
        return await self.find(decision.made)

    async def list(
        self, *, limit: int = 50, before: str | None = None, incident: str | None = None
    ) -> Page[Run]:
        where = {} if incident is None else {"incident": check_id(incident, "i")}
        listing = Listing(limit=limit + 1, before=check_before(before, "r"), where=where)
        found = await self._engine.read(lambda state: state.list_runs(listing))
        return cut_page(found, limit)

    async def find(self, run_id: str) -> Run:
        number = check_id(run_id, "r")
        found = await self._engine.read(lambda state: state.find_run(number))
        if found is None:
            raise NotFound(f"cannot find run {run_id}: `hostmend runs` lists them")
        return found

    async def events(self, run_id: str, *, after: int = 0) -> tuple[Mapping[str, Any], ...]:
        await self.find(run_id)
        return await self._records.run_events(run_id, after)

    async def cancel(self, run_id: str, *, by: str) -> Run:
        run = await self.find(run_id)
        self._worker.cancel(run_id)
        self._tell(f"{by} cancelled run {run_id}")
        return run


def _describe(remedy: Remedy, config: Config) -> RemedyInfo:
    return RemedyInfo(
        name=remedy.name,
        summary=remedy.summary,
        path=str(remedy.path),
        risk=remedy.risk,
        changes=remedy.changes,
        timeout=remedy.timeout,
        handles=remedy.handles,
        options={
            name: {
                "type": option.type,
                "required": option.required,
                "description": option.description,
                **({"default": option.default} if option.default is not None else {}),
                **({"choices": list(option.choices)} if option.choices else {}),
                **({"from": option.source} if option.source else {}),
                **({"allow": "configured"} if option.configured_only else {}),
                **({"no_log": True} if option.no_log else {}),
            }
            for name, option in remedy.options.items()
        },
        digest=remedy.digest,
        replaces=remedy.replaces,
        used_by=tuple(
            name
            for name, check in config.checks.items()
            if any(step.remedy == remedy.name for step in check.policy.ladder)
        ),
    )
